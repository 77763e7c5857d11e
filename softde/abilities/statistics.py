"""Intervals and tests for counts of right answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softde.surveys.metrics.bootstrap import Statistic, bootstrap

Array = NDArray[np.float64]
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A number and its interval; NaN where there is none."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @property
    def known(self) -> bool:
        return not math.isnan(self.value)


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Estimate:
    """A share and its score interval, (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n); Wilson 1927, JASA 22:209."""
    if not trials:
        return Estimate()
    z, p = NormalDist().inv_cdf((1 + confidence) / 2), successes / trials
    middle = p + z * z / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low, high = (middle - half) / scale, (middle + half) / scale
    return Estimate(p, low if successes else 0.0, high if successes < trials else 1.0)  # where rounding errs


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided p that answers changed to right and to wrong with equal chances: 2 P(X ≤ min), X ~ Bin(n, ½).

    McNemar 1947, *Psychometrika* 12:153, with the binomial in place of χ². Questions that did not change say nothing.
    """
    n = better + worse
    term = total = 1
    for i in range(min(better, worse)):
        term = term * (n - i) // (i + 1)  # n over i + 1
        total += term
    return min(1.0, 2 * total / 2**n)


def mean_interval(values: Array, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Mean of (questions,) and its bootstrap interval over questions."""
    return _estimate(lambda x: x.mean(axis=1), values, confidence, seed)


def share_interval(hits: NDArray[Any], trials: NDArray[Any], confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Σ hits / Σ trials of (questions,) and its bootstrap interval, questions drawn whole."""
    data = np.stack([hits, trials], axis=1).astype(np.float64)
    return _estimate(lambda x: x[..., 0].sum(axis=1) / x[..., 1].sum(axis=1), data, confidence, seed)


def _estimate(statistic: Statistic, data: Array, confidence: float, seed: int) -> Estimate:
    if len(data) < 2:  # one question says nothing of their spread
        return Estimate(float(np.asarray(statistic(data[None]))[0]) if len(data) else math.nan)
    found = bootstrap(statistic, data, n=RESAMPLES, level=confidence, seed=seed)
    return Estimate(float(found.estimate), float(found.low), float(found.high))
