"""A table of single answers → factor scores with standard errors, by the instrument's policy for missing answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from softde.surveys import forms
from softde.surveys.composites import Array, Pair, Subset
from softde.surveys.scoring import ConstantsLike, constants_array, need_factors

if TYPE_CHECKING:
    from softde.surveys.survey import Composite, Factor, Survey


@dataclass(frozen=True, eq=False)
class Scores:
    """Factor scores of a group of respondents.

    mean, standard_error : (factors,), of the weighted mean. per_respondent : (respondents, factors), NaN where the
    instrument gives a respondent no score.
    """

    mean: Array
    standard_error: Array
    per_respondent: Array


def score_respondents(
    survey: Survey, values: npt.ArrayLike, weights: npt.ArrayLike | None = None, constants: ConstantsLike = 0.0
) -> Scores:
    """Scores of each respondent, their weighted mean and its standard error.

    A factor of weights is a formula in item means: its mean takes each item's mean over those who answered it. Other
    factors are means of respondents' own scores, missing answers treated as the factor and `survey.scoring` say.
    The standard error is the linearised one of a weighted mean, √(Σ w²e² · n/(n-1)) / Σ w with e a respondent's
    distance from the mean: s/√n where weights are equal.

    Parameters
    ----------
    values : (respondents, items) option values, NaN for no answer, in the order of `survey.item_ids`.
    weights : (respondents,) from 0 up; equal if None.
    constants : see `scoring.score`; they are added to every respondent's score.

    Raises
    ------
    ValueError
        A wrong shape, a value outside an item's options, weights that are negative or sum to zero.
    """
    need_factors(survey)
    table = _table(survey, values)
    w = _weights(weights, len(table))
    table = np.where((~np.isnan(table)).sum(axis=1, keepdims=True) < survey.scoring.min_valid, np.nan, table)
    variables = _variables(survey, table)
    added = constants_array(constants, survey.factors)
    each = np.stack([_score(f, variables, survey) for f in survey.factor_models], axis=1) + added
    means, errors = zip(*(_mean(f, variables, each[:, i], w) for i, f in enumerate(survey.factor_models)), strict=True)
    pooled = [bool(factor.weights) for factor in survey.factor_models]  # these means lack the constants so far
    return Scores(np.array(means) + np.where(pooled, added, 0.0), np.array(errors), each)


def _table(survey: Survey, values: npt.ArrayLike) -> Array:
    try:
        table = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"answers to survey {survey.id!r}: expected numbers (respondents, items), NaN for no answer; turn texts "
            "into option values"
        ) from None
    if table.ndim != 2 or table.shape[1] != len(survey.items):
        raise ValueError(
            f"answers to survey {survey.id!r}: expected (respondents, {len(survey.items)}), one column per item in the "
            f"order of survey.item_ids; got shape {table.shape}"
        )
    low, high = np.nanmin(survey.option_values, axis=1), np.nanmax(survey.option_values, axis=1)
    wrong = np.argwhere((table < low) | (table > high))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f"respondent {row + 1}, item {survey.item_ids[column]!r}: {table[row, column]:g} is outside the option "
            f"values {low[column]:g} to {high[column]:g}; give an option's value, or NaN for no answer"
        )
    return table


def _weights(weights: npt.ArrayLike | None, count: int) -> Array:
    w = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (count,):
        raise ValueError(f"weights: expected one per respondent ({count}), got shape {w.shape}")
    for row in np.flatnonzero(~(np.isfinite(w) & (w >= 0)))[:1]:
        raise ValueError(f"weights: respondent {row + 1}: expected a finite number from 0 up, got {w[row]:g}; mend it")
    if count and not w.sum() > 0:
        raise ValueError("weights: they sum to zero; give at least one respondent a weight above it")
    return w


def _variables(survey: Survey, table: Array) -> dict[str, Array]:
    """Items, centred if the instrument says so, and composites, each (respondents,)."""
    raw = dict(zip(survey.item_ids, table.T, strict=True))
    variables = dict(raw)
    if survey.scoring.centre:
        middle = _mean_of(np.stack([raw[name] for name in survey.scoring.centre], axis=1), 1)
        variables = {name: column - middle for name, column in raw.items()}
    for composite in forms.ordered(survey.composites):
        variables[composite.id] = _composite(composite, raw, variables, survey)
    return variables


def _composite(form: Composite, raw: Mapping[str, Array], variables: Mapping[str, Array], survey: Survey) -> Array:
    if isinstance(form, Pair):
        return _pair(form, raw, survey)
    if isinstance(form, Subset):
        total = np.zeros(len(next(iter(raw.values()))))
        for name, sign in (forms.keyed(key, raw) for key in form.items):
            chosen, other = forms.subset_values(form, survey.items[survey.item_ids.index(name)])
            total = total + sign * (raw[name] - other) / (chosen - other)
        return total
    return _score(form, variables, survey)


def _pair(pair: Pair, raw: Mapping[str, Array], survey: Survey) -> Array:
    """The table's value at both choices; NaN where one is missing or both are the same."""
    chosen = []
    for name in pair.items:
        values = np.array([option.value for option in survey.items[survey.item_ids.index(name)].options])
        hits = raw[name][:, None] == values
        strange = ~hits.any(axis=1) & ~np.isnan(raw[name])
        if strange.any():
            row = int(strange.argmax())
            raise ValueError(
                f"respondent {row + 1}, item {name!r}: {raw[name][row]:g} is no option's value, and pair {pair.id!r} "
                "needs a definite choice; give an option's value, or NaN for no answer"
            )
        chosen.append(np.where(hits.any(axis=1), hits.argmax(axis=1), -1))
    first, second = chosen
    return np.where((first < 0) | (second < 0), np.nan, pair.table(len(values))[first, second])


def _score(factor: Factor, variables: Mapping[str, Array], survey: Survey) -> Array:
    """(respondents,) scores of one factor, without constants."""
    if factor.weights:
        return np.sum([weight * variables[name] for name, weight in factor.weights.items()], axis=0) + factor.offset
    if factor.mean:
        keys = [forms.keyed(key, variables) for key in factor.mean]
        parts = [
            variables[name] if sign > 0 else sum(forms.item_range(survey, name)) - variables[name]
            for name, sign in keys
        ]
        return _mean_of(np.stack(parts, axis=1), factor.min_valid or len(parts)) + factor.offset
    projection = survey.projection
    assert projection is not None  # checked when the survey was built
    standard = np.stack([variables[name] for name in projection.variables], axis=1)
    standard = (standard - np.array(projection.means)) / np.array(projection.deviations)
    enough = (~np.isnan(standard)).sum(axis=1) >= (factor.min_valid or standard.shape[1])
    component = np.nan_to_num(standard) @ projection.coefficients[:, factor.component - 1]
    return np.where(enough, factor.scale * component + factor.offset, np.nan)


def _mean_of(columns: Array, least: int) -> Array:
    """(respondents, columns) → (respondents,) means of what is there, NaN where that is less than `least`."""
    known = ~np.isnan(columns)
    count = known.sum(axis=1)
    total = np.where(known, columns, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(columns), np.nan), where=(count >= least) & (count > 0))


def _mean(factor: Factor, variables: Mapping[str, Array], each: Array, w: Array) -> tuple[float, float]:
    """A factor's mean over respondents and its standard error; of a factor of weights without constants."""
    parts = [(weight, variables[name]) for name, weight in factor.weights.items()] or [(1.0, each)]
    mean, influence, known = 0.0, np.zeros(len(w)), np.zeros(len(w), dtype=bool)
    for weight, column in parts:
        there = ~np.isnan(column) & (w > 0)
        share = np.where(there, w, 0.0) / max(w[there].sum(), np.finfo(float).tiny)
        middle = float((share * np.nan_to_num(column)).sum()) if there.any() else float("nan")
        mean += weight * middle
        influence += weight * np.where(there, share * (np.nan_to_num(column) - middle), 0.0)
        known |= there
    count = int(known.sum())
    error = np.sqrt((influence**2).sum() * count / (count - 1)) if count > 1 and np.isfinite(mean) else np.nan
    return mean + (factor.offset if factor.weights else 0.0), float(error)
