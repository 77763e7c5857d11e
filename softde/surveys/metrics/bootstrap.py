"""Bootstrap intervals over respondents, option orders, phrasings and seeds: whatever was drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from softde.surveys.scoring import Array

Statistic: TypeAlias = Callable[[Array], npt.ArrayLike]
Indices: TypeAlias = npt.NDArray[np.int64]

AT_ONCE = 1 << 22  # numbers in the resamples that are held at one time (32 MiB)
NORMAL = NormalDist()
TIED = 1e-9  # of few entries many resamples have the estimate itself, up to the order in which it was summed


@dataclass(frozen=True)
class Interval:
    """A statistic and its bootstrap interval; arrays where the statistic is one."""

    estimate: Array
    low: Array
    high: Array
    level: float
    n: int

    def __str__(self) -> str:
        if self.estimate.ndim:
            return f"{self.estimate} [{self.low}, {self.high}]"
        return f"{float(self.estimate):.4g} [{float(self.low):.4g}, {float(self.high):.4g}]"


def bootstrap(
    statistic: Statistic,
    data: npt.ArrayLike,
    axes: tuple[int, ...] = (0,),
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    bca: bool = True,
) -> Interval:
    """Interval of a statistic when the given axes of the data are samples: of respondents, orders, phrasings, seeds.

    Every axis in `axes` is drawn anew with replacement, each on its own, as crossed random effects (Owen 2007,
    *Ann. Appl. Stat.* 1:386; on the wide side). Items are no axis here unless they too are to count as a sample.

    Parameters
    ----------
    statistic : (batch, *data.shape) → (batch, ...), a function of whole batches such as ``lambda x: x.mean((1, 2))``;
        it is also called with one entry of an axis left out. Weights go into `data` as one more column.
    data : an array, such as (respondents, orders, items).
    n : resamples. level : of the interval. seed : everything follows from it.
    bca : bias-corrected and accelerated (Efron 1987, *JASA* 82:171): second-order accurate and invariant to monotone
        changes of the statistic. Else, and where the statistic does not vary, percentiles of the resamples.

    Returns
    -------
    Interval with the shape of one statistic. NaN where the statistic is NaN in any resample.

    Raises
    ------
    ValueError
        Axes that the data lack or with fewer than two entries, a statistic that does not keep the batch.
    """
    array = np.asarray(data, dtype=np.float64)
    axes = _checked_axes(array, axes)
    if not isinstance(n, int) or n < 100 or not 0 < level < 1:
        raise ValueError(f"expected n of at least 100 and a level between 0 and 1, got n={n!r}, level={level!r}")
    estimate = _called(statistic, array[None])[0]
    draws = np.concatenate([_called(statistic, batch) for batch in _resamples(array, axes, n, seed)])
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    shares = np.broadcast_to(tails.reshape(2, *([1] * estimate.ndim)), (2, *estimate.shape))
    if bca:
        shares = _bca(shares, draws, estimate, _acceleration(statistic, array, axes))
    low, high = (_quantiles(draws, share) for share in shares)
    return Interval(estimate, low, high, level, n)


def _checked_axes(array: Array, axes: tuple[int, ...]) -> tuple[int, ...]:
    found = tuple(axis + array.ndim if axis < 0 else axis for axis in axes)
    if not found or len(set(found)) < len(found) or not all(0 <= axis < array.ndim for axis in found):
        raise ValueError(f"axes: expected different axes of data with shape {array.shape}, got {axes!r}")
    for axis in found:
        if array.shape[axis] < 2:
            raise ValueError(
                f"axes: axis {axis} of data with shape {array.shape} has fewer than two entries, which say nothing of "
                "their spread; gather more or leave the axis out"
            )
    return found


def _called(statistic: Statistic, batch: Array) -> Array:
    values = np.asarray(statistic(batch), dtype=np.float64)
    if values.ndim == 0 or len(values) != len(batch):
        raise ValueError(
            f"statistic: expected one value per member of a batch, shape ({len(batch)}, ...), got {values.shape}; "
            "it is given (batch, *data.shape) and keeps the first axis"
        )
    return values


def _resamples(array: Array, axes: tuple[int, ...], n: int, seed: int) -> Iterator[Array]:
    """Batches of the data with each axis drawn anew. An axis has a generator of its own: batches do not show."""
    generators = [np.random.default_rng([seed, number]) for number in range(len(axes))]
    size = max(1, AT_ONCE // max(1, array.size))
    for start in range(0, n, size):
        count = min(size, n - start)
        drawn = {
            axis: generator.integers(0, array.shape[axis], (count, array.shape[axis]))
            for axis, generator in zip(axes, generators, strict=True)
        }
        yield _taken(array, drawn)


def _taken(array: Array, drawn: Mapping[int, Indices]) -> Array:
    """(batch, *array.shape), member b with entries drawn[axis][b] along each axis that is drawn."""
    last = max(drawn) + 1  # axes behind it stay whole

    def index(axis: int) -> Indices:
        chosen = drawn.get(axis, np.arange(array.shape[axis])[None])
        return chosen.reshape(len(chosen), *[-1 if other == axis else 1 for other in range(last)])

    return array[tuple(index(axis) for axis in range(last))]


def _acceleration(statistic: Statistic, array: Array, axes: tuple[int, ...]) -> Array:
    """a = Σ l³ / (6 (Σ l²)^1.5), l = (m − 1)(θ̄ − θ₋ᵢ) / m the jackknife's influences of the m entries of each axis.

    Efron & Tibshirani 1993, *An Introduction to the Bootstrap*, eq. 14.15; of several samples, all influences count.
    """
    cubes: Array = np.zeros(())
    squares: Array = np.zeros(())
    for axis in axes:
        m = array.shape[axis]
        left = np.stack([_called(statistic, np.delete(array, i, axis)[None])[0] for i in range(m)])
        influence = (m - 1) * (left.mean(axis=0) - left) / m
        cubes, squares = cubes + (influence**3).sum(0), squares + (influence**2).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(squares > 0, cubes / (6 * squares**1.5), 0.0))


def _bca(tails: Array, draws: Array, estimate: Array, acceleration: Array) -> Array:
    """Φ(z₀ + (z₀ + z) / (1 − a (z₀ + z))), z₀ from the share of resamples below θ̂ (ibid., eq. 14.10 and 14.14)."""
    tied = np.isclose(draws, estimate, rtol=TIED, atol=0)
    below = ((draws < estimate) & ~tied).mean(axis=0) + tied.mean(axis=0) / 2
    fit = (below > 0) & (below < 1) & np.isfinite(acceleration)
    z0 = _each(NORMAL.inv_cdf, np.where(fit, below, 0.5))
    z = _each(NORMAL.inv_cdf, tails)
    with np.errstate(invalid="ignore", divide="ignore"):
        corrected = z0 + (z0 + z) / (1 - np.where(fit, acceleration, 0.0) * (z0 + z))
    corrected = _each(NORMAL.cdf, np.where(np.isfinite(corrected), corrected, 0.0))
    return np.asarray(np.where(fit, corrected, tails))


def _each(function: Callable[[float], float], array: Array) -> Array:
    return np.vectorize(function, otypes=[np.float64])(array)


def _quantiles(draws: Array, shares: Array) -> Array:
    """A quantile for every statistic, each at its own share, linear between neighbours."""
    flat, share = draws.reshape(len(draws), -1), shares.ravel()
    found = [np.quantile(flat[:, i], share[i]) for i in range(flat.shape[1])]
    return np.array(found).reshape(draws.shape[1:])
