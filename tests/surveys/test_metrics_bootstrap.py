from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from softde.surveys.metrics import bootstrap


def mean(x: np.ndarray) -> Any:
    return x.mean(axis=tuple(range(1, x.ndim)))


def test_same_seed_same_interval_whatever_is_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).normal(size=(30, 4, 6))
    one = bootstrap(mean, data, axes=(0, 1), n=500, seed=3)
    monkeypatch.setattr(import_module("softde.surveys.metrics.bootstrap"), "AT_ONCE", 7 * data.size)
    other = bootstrap(mean, data, axes=(0, 1), n=500, seed=3)
    assert (one.low, one.high, one.estimate) == (other.low, other.high, other.estimate)
    assert bootstrap(mean, data, axes=(0, 1), n=500, seed=4).low != one.low
    assert one.low < one.estimate == data.mean() < one.high


@pytest.mark.parametrize("bca", [True, False])
@pytest.mark.parametrize("name", ["mean", "median", "variance"])
def test_intervals_equal_scipys_with_the_same_draws(name: str, bca: bool) -> None:
    pytest.importorskip("scipy", minversion="1.15")  # from there on its draws come from `rng`
    stats = pytest.importorskip("scipy.stats")
    data = np.random.default_rng(1).exponential(size=25)
    function = {"mean": np.mean, "median": np.median, "variance": np.var}[name]
    ours = bootstrap(lambda x: function(x, axis=-1), data, n=999, level=0.9, bca=bca)
    theirs = stats.bootstrap(
        (data,), function, n_resamples=999, confidence_level=0.9, method="BCa" if bca else "percentile",
        rng=np.random.default_rng([0, 0]), vectorized=True,
    ).confidence_interval  # fmt: skip
    assert (float(ours.low), float(ours.high)) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_golden_interval_without_scipy() -> None:
    # scipy.stats.bootstrap((arange(10.0) ** 2,), np.mean, n_resamples=999, confidence_level=0.95, method="BCa",
    #                       rng=np.random.default_rng([0, 0])), scipy 1.17.1
    found = bootstrap(mean, np.arange(10.0) ** 2, n=999)
    assert (float(found.low), float(found.high)) == pytest.approx((14.0, 47.50666688812446), rel=1e-9)


def test_resamples_equal_the_slow_loop() -> None:
    """Percentiles of statistics of data taken entry by entry, with the same draws."""
    data = np.random.default_rng(2).normal(size=(5, 3, 4))
    first, second = np.random.default_rng([7, 0]), np.random.default_rng([7, 1])
    rows, columns = first.integers(0, 5, (200, 5)), second.integers(0, 4, (200, 4))
    values = [
        np.mean([[[data[r, o, c] for c in chosen] for o in range(3)] for r in picked])
        for picked, chosen in zip(rows, columns, strict=True)
    ]
    found = bootstrap(mean, data, axes=(0, 2), n=200, seed=7, bca=False)
    assert (float(found.low), float(found.high)) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_a_statistic_of_several_values_has_an_interval_for_each() -> None:
    data = np.random.default_rng(3).normal(size=(40, 3)) * np.array([1.0, 10.0, 0.0])
    found = bootstrap(lambda x: x.mean(axis=1), data, n=400)
    assert found.estimate.shape == found.low.shape == found.high.shape == (3,)
    width = found.high - found.low
    assert width[1] > 5 * width[0] > 0 and width[2] == 0  # a constant has no spread, and no NaN either
    alone = bootstrap(lambda x: x[:, :, 0].mean(axis=1), data, n=400)
    np.testing.assert_allclose([found.low[0], found.high[0]], [alone.low, alone.high])


@pytest.mark.parametrize("bca", [True, False])
def test_coverage_on_simulated_respondents(bca: bool) -> None:
    """90 % intervals of the mean of a skewed sample of 40 hold the true mean in about 90 of 100 samples."""
    generator, hits, samples = np.random.default_rng(4), 0, 300
    for _ in range(samples):
        found = bootstrap(mean, generator.gamma(2.0, 1.0, 40), n=300, level=0.9, bca=bca)
        hits += bool(found.low <= 2.0 <= found.high)
    assert 0.83 <= hits / samples <= 0.95  # standard error of the share: 0.017


def test_coverage_over_respondents_and_phrasings() -> None:
    """Crossed random effects: drawing respondents alone misses what the phrasings add."""
    generator, samples = np.random.default_rng(5), 150
    hits = {(0, 1): 0, (0,): 0}
    for _ in range(samples):
        data = generator.normal(size=(25, 1)) + generator.normal(size=(1, 12)) + generator.normal(size=(25, 12))
        for axes in hits:
            found = bootstrap(mean, data, axes=axes, n=200, level=0.9, bca=False)
            hits[axes] += bool(found.low <= 0 <= found.high)
    assert hits[(0, 1)] / samples > 0.83 and hits[(0,)] / samples < 0.8


def test_weights_travel_as_a_column() -> None:
    data = np.column_stack([np.arange(20.0), np.ones(20)])
    data[:, 1] = 2.0

    def weighted(x: np.ndarray) -> Any:
        return (x[..., 0] * x[..., 1]).sum(-1) / x[..., 1].sum(-1)

    plain = bootstrap(mean, np.arange(20.0))
    found = bootstrap(weighted, data)
    np.testing.assert_allclose([found.low, found.high], [plain.low, plain.high])
    assert str(plain).startswith("9.5 [")


@pytest.mark.parametrize(
    ("statistic", "shape", "axes", "n", "level", "message"),
    [
        (mean, (5,), (1,), 200, 0.9, r"axes: expected different axes of data with shape \(5,\), got \(1,\)"),
        (mean, (5, 2), (0, 0), 200, 0.9, "different axes"),
        (mean, (5, 1), (0, 1), 200, 0.9, "axis 1 of data with shape .5, 1. has fewer than two entries"),
        (
            np.mean,
            (5,),
            (0,),
            200,
            0.9,
            r"statistic: expected one value per member of a batch, shape \(1, \.\.\.\), got \(\)",
        ),
        (mean, (5,), (0,), 5, 0.9, "n of at least 100"),
        (mean, (5,), (0,), 200, 95, "a level between 0 and 1"),
    ],
)
def test_bad_input(statistic: Any, shape: Any, axes: Any, n: int, level: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap(statistic, np.zeros(shape), axes, n, level)


def test_ties_with_the_estimate_do_not_depend_on_the_unit() -> None:
    few = np.array([0.1, 0.2, 0.4, 0.7])
    one = bootstrap(lambda batch: batch.mean(axis=1), few)
    other = bootstrap(lambda batch: batch.mean(axis=1), few * 3)
    np.testing.assert_allclose([other.low, other.high], [3 * float(one.low), 3 * float(one.high)], rtol=1e-9)
