"""The statistics of a table of methods against brute force, SciPy and examples worked by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from softde.compare.stats import mean_interval, sign_flip, smallest_p
from softde.surveys.metrics import bootstrap, holm


def slow_sign_flip(differences: list[float]) -> float:
    """Every flip, one by one."""
    seen = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(total >= seen - 1e-9 for total in sums) / len(sums)


def test_sign_flips_one_by_one() -> None:
    random = np.random.default_rng(0)
    for n in range(1, 9):
        for differences in (random.normal(0.4, 1, n), random.integers(-2, 3, n), np.abs(random.normal(size=n))):
            assert sign_flip(differences) == pytest.approx(slow_sign_flip(list(map(float, differences))))
    assert sign_flip([0.1, 0.2, -0.3]) == 1.0  # a sum of zero but for rounding is as far as any other
    assert sign_flip([0.0, 0.0]) == 1.0
    assert math.isnan(sign_flip([])) and math.isnan(sign_flip([1.0, math.nan]))


def test_sign_flip_as_scipy_has_it() -> None:
    stats = pytest.importorskip("scipy.stats")
    for seed in range(4):
        differences = np.random.default_rng(seed).normal(0.5, 1, 9)
        test = stats.permutation_test(
            (differences,), lambda x, axis: x.sum(axis), permutation_type="samples", vectorized=True, n_resamples=np.inf
        )
        assert sign_flip(differences) == pytest.approx(float(test.pvalue))


def test_the_smallest_p() -> None:
    for n in (1, 2, 5, 20):
        assert sign_flip(np.arange(1.0, n + 1)) == smallest_p(n) == 2 / 2**n
    assert sign_flip(np.ones(40)) == smallest_p(40) == 1e-5
    assert math.isnan(smallest_p(0))


def test_more_differences_than_can_be_counted_are_drawn() -> None:
    differences = np.array([3, -1, 2, 2, -2, 1, 1, -3, 2, 1, 1, 2, -1, 1, -2, 3, 1, -1, 2, -1, 1, 1, -2, 1, 2])
    counts = {0: 1}  # how many flips have a sum, exactly
    for d in map(int, differences):
        counts = {
            total: counts.get(total - d, 0) + counts.get(total + d, 0)
            for total in {t + s * d for t in counts for s in (1, -1)}
        }
    exact = sum(c for total, c in counts.items() if abs(total) >= differences.sum()) / 2 ** len(differences)
    assert 0.01 < exact < 0.2
    assert sign_flip(differences) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 1e5))
    assert sign_flip(differences) == sign_flip(differences)


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and none below the one before: .02 .03 .06 .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    found = holm([0.02, math.nan, 0.03])  # no test does not count
    assert found[0] == 0.04 and math.isnan(found[1]) and found[2] == 0.04
    assert holm([]) == []


def test_intervals_of_means() -> None:
    grid = np.random.default_rng(1).normal(10, 3, (6, 3))
    mean, low, high = mean_interval(grid, 0.9)
    both = bootstrap(lambda x: x.mean((1, 2)), grid, (0, 1), level=0.9)
    assert (mean, low, high) == pytest.approx((grid.mean(), float(both.low), float(both.high)))
    assert low < mean < high
    one_seed = mean_interval(grid[:, :1], 0.95)
    regions = bootstrap(lambda x: x.mean(1), grid[:, 0], (0,))
    assert one_seed == pytest.approx((grid[:, 0].mean(), float(regions.low), float(regions.high)))


def test_intervals_of_few_regions_are_too_narrow() -> None:
    """What docs/compare.md says of them: how often 95 % intervals of normal values hold their mean of zero."""
    random = np.random.default_rng(0)

    def held(regions: int, trials: int = 200) -> float:
        found = [mean_interval(random.normal(size=(regions, 1)), 0.95)[1:] for _ in range(trials)]
        return float(np.mean([low <= 0 <= high for low, high in found]))

    assert (held(2), held(4), held(10)) == pytest.approx((0.5, 0.7, 0.87), abs=0.08)


def test_ties_are_counted_whatever_the_rounding() -> None:
    """A tenth of all resamples of four regions are the four again, in another order, with other last bits."""
    grid = np.array([[0.1], [0.7], [0.2], [0.3]])
    scaled = [value / 3 for value in mean_interval(grid * 3, 0.95)]
    assert mean_interval(grid, 0.95) == pytest.approx(scaled, rel=1e-6)


def test_intervals_where_there_is_little() -> None:
    nan = math.nan
    assert mean_interval(np.array([[1.0, 3.0], [5.0, nan]]), 0.95)[0] == pytest.approx((2 + 5) / 2)
    assert mean_interval(np.array([[1.0], [nan], [3.0]]), 0.95)[0] == 2.0  # a region without a number is none
    mean, low, high = mean_interval(np.array([[1.0, 2.0, 6.0]]), 0.95)  # one region: over seeds
    assert mean == 3 and 1 <= low < 3 < high <= 6
    mean, low, high = mean_interval(np.array([[4.0]]), 0.95)
    assert mean == 4 and math.isnan(low) and math.isnan(high)
    assert mean_interval(np.full((3, 2), 7.0), 0.95) == (7.0, 7.0, 7.0)
    assert all(map(math.isnan, mean_interval(np.full((2, 2), nan), 0.95)))
