"""Paired tests, their correction for being many, and intervals of means over regions and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from softde.surveys.metrics import bootstrap
from softde.surveys.scoring import Array

EXACT = 20  # differences up to which all flips of signs are counted, 2^19 different ones
DRAWS = 99_999  # flips drawn for more
SLACK = 1e-9  # sums that differ by rounding alone are equal


def sign_flip(differences: Sequence[float] | Array, seed: int = 0) -> float:
    """Two-sided p of Fisher's randomisation test for paired differences; NaN for none.

    If a method and its baseline were exchangeable within each region, every flip of a difference's sign would be
    equally likely. p is the share of flips whose sum is as far from zero as the one that was seen (Fisher 1935, *The
    Design of Experiments*, §21). All 2^n are counted for n up to 20; beyond, 99,999 are drawn, and the one that was
    seen counts among them (Phipson & Smyth 2010). Nothing is assumed of how differences are distributed, but that each
    is as likely above zero as below if there is no effect. No p can be lower than `smallest_p`.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not values.size or not np.isfinite(values).all():
        return math.nan
    seen = abs(float(values.sum())) - SLACK * float(np.abs(values).sum())
    if len(values) > EXACT:
        signs = np.random.default_rng(seed).integers(0, 2, (DRAWS, len(values)), dtype=np.int8)
        sums = np.concatenate([block @ values for block in np.array_split(2.0 * signs - 1, 32)])
        return float(((np.abs(sums) >= seen).sum() + 1) / (DRAWS + 1))
    sums = values[:1]  # the other half, with the first sign flipped too, mirrors this one
    for value in values[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return float((np.abs(sums) >= seen).mean())


def smallest_p(n: int) -> float:
    """The lowest p that `sign_flip` can give for n differences: that of all on one side."""
    return math.nan if n < 1 else 2.0 ** (1 - n) if n <= EXACT else 1 / (DRAWS + 1)


def mean_interval(grid: Array, level: float, n: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high) of (regions, seeds) values, NaN where there is none.

    The mean is over regions of each one's mean over its seeds. The interval is a bootstrap's (BCa, `metrics.bootstrap`)
    with regions drawn anew, and seeds too where every region has the same two or more. Of one region it is over seeds
    alone, and NaN if there is one seed.
    """
    grid = np.asarray(grid, dtype=np.float64)
    grid = grid[~np.isnan(grid).all(axis=1)]
    if not grid.size:
        return math.nan, math.nan, math.nan
    grid = grid[:, ~np.isnan(grid).all(axis=0)]
    if np.isnan(grid).any():  # unequal numbers of seeds
        grid = np.nanmean(grid, axis=1)[:, None]
    axes = tuple(axis for axis in (0, 1) if grid.shape[axis] > 1)
    mean = float(grid.mean())
    if not axes:
        return mean, math.nan, math.nan
    if np.ptp(grid) == 0:
        return mean, mean, mean
    found = bootstrap(lambda batch: batch.mean(axis=(1, 2)), grid, axes, n, level, seed)
    return mean, float(found.low), float(found.high)
