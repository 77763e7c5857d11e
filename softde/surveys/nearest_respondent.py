"""The one respondent with a definite answer per item whose factor scores come closest to published ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from softde.surveys import scoring as _scoring
from softde.surveys.scoring import Array, Norm

if TYPE_CHECKING:
    from softde.surveys.published import Target
    from softde.surveys.survey import Survey

Numbers: TypeAlias = npt.NDArray[np.int64]

ROUNDING = 1e-9  # losses this close are the same


def nearest_respondent(survey: Survey, target: Target, norm: Norm = "L1") -> Numbers:
    """(items,) option numbers from 0 of a respondent whose loss is the exact minimum over all definite answers.

    It is the "best integer respondent" of `softde.surveys.nulls`, as answers. Of several with the same loss it is one
    nearest to the middle of every item's options, by the squared distance in shares of the item's range; items that no
    factor uses get the option nearest to their middle.

    Raises
    ------
    ValueError
        Factors of another survey, or that use pairs of items; too many different answers to enumerate.
    """
    _scoring.nulls(survey, target, norm)  # refuses another survey's target
    if survey.compiled.pairs:
        raise ValueError(f"survey {survey.id!r}: its factors use pairs of items, for which no respondent is searched")
    values = [np.array([option.value for option in item.options]) for item in survey.items]
    goal = target.scores - _scoring.constants_array(target.constants, survey.factors) - survey.offsets
    chosen = np.array([int(from_middle(of_item).argmin()) for of_item in values])
    for factors in _scoring.groups(survey.weights != 0):  # those that share no items are independent
        items = np.flatnonzero((survey.weights[factors] != 0).any(axis=0))
        sums, answers = _reachable([values[i] for i in items], survey.weights[factors][:, items], survey.id)
        errors = np.abs(sums - goal[factors])
        losses = (errors if norm == "L1" else errors**2).sum(axis=1)
        chosen[items] = answers[int((losses <= losses.min() + ROUNDING).argmax())]
    return chosen


def from_middle(values: Array) -> Array:
    """Squared distance of every option's value from the middle of their range, in shares of it."""
    low, high = values.min(), values.max()
    return np.asarray(((values - (low + high) / 2) / (high - low or 1.0)) ** 2)


def _reachable(values: list[Array], weights: Array, survey: str) -> tuple[Array, Numbers]:
    """Every sum (rows, factors) that definite answers can give, each with the answers nearest to the middle.

    Rows are in the order of that distance.
    """
    sums, far, answers = np.zeros((1, len(weights))), np.zeros(1), np.zeros((1, 0), dtype=np.int64)
    for options, weight in zip(values, weights.T, strict=True):
        parent, option = np.divmod(np.arange(len(sums) * len(options)), len(options))
        grown = (sums[parent] + options[option, None] * weight).round(9)
        distance = (far[parent] + from_middle(options)[option]).round(9)
        order = np.argsort(distance, kind="stable")
        kept = order[np.sort(np.unique(grown[order], axis=0, return_index=True)[1])]  # of equal sums the first
        if len(kept) > _scoring.MAX_ROWS:
            raise ValueError(f"survey {survey!r}: its items have too many different answers to enumerate")
        sums, far, answers = grown[kept], distance[kept], np.column_stack([answers[parent[kept]], option[kept]])
    return sums, answers
