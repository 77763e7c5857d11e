"""Intervals and tests against hand computations, enumeration and published figures."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from softde.abilities.statistics import Estimate, mcnemar, mean_interval, share_interval, wilson
from softde.surveys.metrics import holm


def test_wilson_by_hand() -> None:
    # 8 of 10, z² = 3.841459: (.8 + .192073)/1.384146 = .716740 ± 1.959964 √(.016 + .009604)/1.384146 = .226575
    found = wilson(8, 10)
    assert (found.value, found.low, found.high) == pytest.approx((0.8, 0.490162, 0.943318), abs=2e-6)
    assert wilson(0, 20).low == 0.0
    assert wilson(0, 20).high == pytest.approx(3.841459 / (20 + 3.841459), abs=1e-6)  # z²/(n + z²)
    assert wilson(20, 20).high == 1.0
    assert not wilson(0, 0).known


@pytest.mark.parametrize("n", [1, 4, 9])
def test_mcnemar_is_the_share_of_sign_patterns_as_extreme(n: int) -> None:
    for better in range(n + 1):
        rarer = min(better, n - better)
        extreme = sum(min(sum(signs), n - sum(signs)) <= rarer for signs in itertools.product((0, 1), repeat=n))
        assert mcnemar(better, n - better) == pytest.approx(min(1.0, extreme / 2**n))


def test_mcnemar_by_hand() -> None:
    assert mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 64)
    assert mcnemar(0, 0) == 1.0 == mcnemar(3, 3)
    # large counts stay exact: against the normal approximation with continuity correction
    z = (abs(3100 - 2900) - 1) / math.sqrt(6000)
    assert mcnemar(3100, 2900) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=2e-3)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_a_paired_difference_has_the_spread_of_its_mean() -> None:
    change = np.array([1.0] * 60 + [-1.0] * 20 + [0.0] * 320)
    found = mean_interval(change)
    deviation = math.sqrt((change**2).mean() - change.mean() ** 2) / math.sqrt(400)  # .0218
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((0.1 - 1.96 * deviation, 0.1 + 1.96 * deviation), abs=0.004)
    assert mean_interval(np.zeros(5)) == Estimate(0.0, 0.0, 0.0)
    assert mean_interval(np.ones(1)).value == 1.0 and math.isnan(mean_interval(np.ones(1)).low)


def test_judgements_of_a_question_are_drawn_together() -> None:
    # four judgements that are right together say as much as one: n is 200, not 800
    hits, trials = np.repeat([4, 0], [140, 60]), np.full(200, 4)
    found = share_interval(hits, trials)
    half = 1.96 * math.sqrt(0.7 * 0.3 / 200)
    assert found.value == pytest.approx(0.7)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)  # a step of the resamples is .005
