"""The nearest respondent against a loop over every possible one, and on VSM 2013."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from softde.surveys import Survey, distance, load_survey, nulls
from softde.surveys.nearest_respondent import nearest_respondent


def values_of(survey: Survey, options: Any) -> np.ndarray:
    return np.array([item.options[o].value for item, o in zip(survey.items, options, strict=True)])


@pytest.mark.parametrize("norm", ["L1", "L2"])
@pytest.mark.parametrize("region", ["Ireland", "Italy"])
def test_it_is_the_best_of_all_and_of_equals_the_most_moderate(mini: Survey, region: str, norm: Any) -> None:
    target = mini.target(region)
    found = tuple(nearest_respondent(mini, target, norm).tolist())

    def rank(options: tuple[int, ...]) -> tuple[float, float]:  # loss, then squared distance from the middles
        values, far = values_of(mini, options), 0.0
        for item, value in zip(mini.items, values, strict=True):
            low, high = min(o.value for o in item.options), max(o.value for o in item.options)
            far += ((value - (low + high) / 2) / (high - low)) ** 2
        return round(float(distance(mini.score(values, target.constants), target, norm)), 6), round(far, 6)

    everyone = list(product(range(5), range(5), range(3), range(2)))
    assert rank(found) == min(map(rank, everyone))


def test_vsm_2013_reaches_the_floor_that_nulls_report() -> None:
    survey = load_survey("vsm13")
    for region in ("Saudi Arabia", "China"):
        target = survey.target(region, "2023")
        values = values_of(survey, nearest_respondent(survey, target))
        loss = float(distance(survey.score(values, target.constants), target))
        assert loss == pytest.approx(nulls(survey, target)["best integer respondent"])
    # India's IDV of 24 is 26 below the constant: one step of 35 down, by an item next to the middle; m09 or m04 lower
    india = dict(zip(survey.item_ids, nearest_respondent(survey, survey.target("India", "2023")), strict=True))
    assert sorted(india[i] for i in ("m01", "m04", "m06", "m09")) in ([1, 2, 2, 2], [2, 2, 2, 3])


def test_what_it_cannot_do_is_refused(mini: Survey) -> None:
    vsm, iw = load_survey("vsm13"), load_survey("iw")
    with pytest.raises(ValueError, match="take the target from the same survey"):
        nearest_respondent(mini, vsm.target("India"))
    with pytest.raises(ValueError, match="use pairs of items"):
        nearest_respondent(iw, iw.target("India"))
    unused = replace(mini, factor_models=mini.factor_models[:1], published=())
    target = replace(mini.target("Italy"), factors=("BOS",), scores=np.array([75.0]), constants={"BOS": 50.0})
    assert nearest_respondent(unused, target)[3] == 0  # "proud" is in no factor: of two equal options the first
