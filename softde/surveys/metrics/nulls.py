"""What answerers who know nothing score on each metric, and what human data without a model scores: the floors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from softde.surveys.metrics.answers import AnswerSheet
from softde.surveys.metrics.culture_spa import culture_spa_score, first_codes, gold_answers, span
from softde.surveys.scoring import Array
from softde.surveys.values import FrozenDict

if TYPE_CHECKING:
    from softde.surveys.human.answers import HumanAnswers

MIDPOINT, UNIFORM, OTHERS = "midpoint", "uniform answerer", "leave-one-region-out mean"
ONE_OPTION, OTHERS_MEDIAN = "one option throughout", "leave-one-region-out median"


def null_answers(human: HumanAnswers, region: str) -> FrozenDict[str, AnswerSheet]:
    """Answer sheets that no model wrote, in the numbers of `culture_spa_score`, by name.

    "midpoint" : the middle of each item's range. "leave-one-region-out mean" and "... median" : the mean or median of
    the other regions' majority answers, what is known of people without knowing the region; an item that no other
    region has is left out. All three are rounded, a half to the even number. "one option throughout: k" : the k-th
    option of every item that has so many, its last option elsewhere.
    """
    first, most = first_codes(human.survey), span(human.survey)
    row = human.row(region)
    others = np.delete(gold_answers(human), row, axis=0)
    sheets = {MIDPOINT: np.rint(first + most / 2)}
    if len(others):
        known = ~np.isnan(others).all(axis=0)
        filled = np.where(known, others, 0.0)
        sheets[OTHERS] = np.where(known, np.rint(np.nanmean(filled, axis=0)), np.nan)
        sheets[OTHERS_MEDIAN] = np.where(known, np.rint(np.nanmedian(filled, axis=0)), np.nan)
    sheets |= {f"{ONE_OPTION}: {k + 1}": first + np.minimum(k, most) for k in range(int(most.max()) + 1)}
    return FrozenDict({name: _sheet(human, numbers) for name, numbers in sheets.items()})


def culture_spa_nulls(human: HumanAnswers, region: str) -> FrozenDict[str, float]:
    """`culture_spa_score` of `null_answers`, the best of "one option throughout", and of random answers.

    "uniform answerer" draws an option of each item with equal chances; its value follows from the mean squared error,
    of which the score of one draw differs by little.
    """
    one = human.select(regions=[region])
    scores = {name: culture_spa_score(sheet, one) for name, sheet in null_answers(human, region).items()}
    constant = max(score for name, score in scores.items() if name.startswith(ONE_OPTION))
    kept = {name: score for name, score in scores.items() if not name.startswith(ONE_OPTION)}
    gold, most = (gold_answers(one)[0] - first_codes(human.survey)), span(human.survey)
    used = ~np.isnan(gold)
    middle, variance = most / 2, most * (most + 2) / 12  # of 0 ... most with equal chances
    squared = (variance + (gold - middle) ** 2)[used].sum()
    uniform = 100 * (1 - float(np.sqrt(squared / (most[used] ** 2).sum())))
    return FrozenDict({ONE_OPTION: constant, **kept, UNIFORM: uniform})


def null_shares(human: HumanAnswers) -> FrozenDict[str, Array]:
    """Option shares (regions, items, options) that no model gave, by name, for any metric that compares shares.

    "uniform answerer" and "midpoint" (the middle option, or half each of two) answer alike as every region: they keep
    no divergence between regions and identify none. "leave-one-region-out mean" : the mean of the other regions'
    shares. NaN where the region itself, or every other, has no answers.
    """
    shares = np.asarray(human.shares, dtype=np.float64)
    absent = np.asarray(np.isnan(shares).any(axis=-1))
    position, most = np.arange(shares.shape[-1]), span(human.survey)[:, None]
    middle = (np.abs(position - most / 2) < 1).astype(np.float64)
    middle = np.where(most % 2 == 0, position == most / 2, middle)
    alike = {UNIFORM: (position <= most) / (most + 1), MIDPOINT: middle / middle.sum(-1, keepdims=True)}
    found = {name: np.broadcast_to(row, shares.shape) for name, row in alike.items()}
    there = ~absent[..., None]
    summed, count = np.where(there, shares, 0.0).sum(0) - np.where(there, shares, 0.0), there.sum(0) - there
    found[OTHERS] = np.where(count > 0, summed, np.nan) / np.maximum(count, 1)
    return FrozenDict({name: np.where(there, array, np.nan) for name, array in found.items()})


def _sheet(human: HumanAnswers, numbers: Array) -> AnswerSheet:
    """A sheet of option values from numbers that begin at `first_codes`, NaN for none."""
    positions = (numbers - first_codes(human.survey)).tolist()
    pairs = zip(human.survey.items, positions, strict=True)
    return AnswerSheet({item.id: item.options[int(k)].value for item, k in pairs if not np.isnan(k)})
