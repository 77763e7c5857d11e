"""Before and after a factor model: how many factors, are the items fit for it, how reliable is their sum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from softde.surveys.factors.model import FactorModel
from softde.surveys.factors.tables import Missing, Table, correlations, need_definite
from softde.surveys.scoring import Array
from softde.surveys.values import nearest

Keys: TypeAlias = Mapping[str, int] | npt.ArrayLike | None

# -- how many factors


def eigenvalues(table: Table, weights: npt.ArrayLike | None = None, missing: Missing = "mean") -> Array:
    """(items,) eigenvalues of the correlation matrix, largest first: the scree."""
    return np.asarray(np.linalg.eigvalsh(correlations(table, weights, missing=missing).matrix)[::-1])


def kaiser(table: Table, weights: npt.ArrayLike | None = None, missing: Missing = "mean") -> int:
    """How many eigenvalues are above one (Kaiser 1960); finds too many factors where items are many."""
    return int((eigenvalues(table, weights, missing) > 1).sum())


@dataclass(frozen=True, eq=False)
class ParallelAnalysis:
    """Eigenvalues of the answers beside those of random answers.

    eigenvalues, thresholds, random_means : (items,) of the answers; the quantile and the mean over random tables.
    n_factors : how many eigenvalues, from the largest, are above their threshold.
    """

    eigenvalues: Array
    thresholds: Array
    random_means: Array
    n_factors: int


def parallel_analysis(
    table: Table,
    weights: npt.ArrayLike | None = None,
    missing: Missing = "mean",
    draws: int = 100,
    quantile: float = 0.95,
    seed: int = 0,
) -> ParallelAnalysis:
    """Horn's parallel analysis (1965): keep the factors that stand out from independent normal answers.

    Parameters
    ----------
    draws : random tables, each of as many rows (effective rows where weighted) and items as the answers.
    quantile : of the random eigenvalues, position by position; 0.5 is close to Horn's own rule, the mean.
    """
    if draws < 1 or not 0 < quantile < 1:
        raise ValueError(f"expected draws from 1 up and a quantile between 0 and 1, got {draws} and {quantile}")
    c = correlations(table, weights, missing=missing)
    own = eigenvalues(c)
    rng = np.random.default_rng(seed)
    rows = max(3, round(c.effective_rows))
    random = np.stack([_random_eigenvalues(rng.standard_normal((rows, len(own)))) for _ in range(draws)])
    thresholds = np.quantile(random, quantile, axis=0)
    below = np.flatnonzero(own <= thresholds)
    return ParallelAnalysis(own, thresholds, random.mean(axis=0), int(below[0]) if below.size else len(own))


def _random_eigenvalues(values: Array) -> Array:
    """Largest first, from the singular values of the standardised table, which also serve fewer rows than items."""
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    found = np.zeros(values.shape[1])
    squares = np.linalg.eigvalsh(standard.T @ standard if len(values) > len(found) else standard @ standard.T)[::-1]
    found[: len(squares)] = np.maximum(squares, 0) / len(values)
    return found


# -- are the items fit for it


@dataclass(frozen=True, eq=False)
class KMO:
    """Kaiser, Meyer and Olkin's sampling adequacy: overall, and per item (items,)."""

    overall: float
    per_item: Array


def kmo(table: Table, weights: npt.ArrayLike | None = None, missing: Missing = "mean") -> KMO:
    """Σr² / (Σr² + Σp²) over pairs of items, r correlations and p partial ones (Kaiser and Rice 1974).

    Near one where factors explain the correlations; below 0.5 a factor model of these items makes no sense.

    Raises
    ------
    ValueError
        Correlations that cannot be inverted, as from fewer rows than items.
    """
    c = correlations(table, weights, missing=missing)
    need_definite(c, "KMO")
    inverse = np.linalg.inv(c.matrix)
    partial = -inverse / np.sqrt(np.outer(np.diag(inverse), np.diag(inverse)))
    off = ~np.eye(len(inverse), dtype=bool)
    r, p = ((x**2 * off).sum(axis=0) for x in (c.matrix, partial))
    return KMO(float(r.sum() / (r.sum() + p.sum())), r / (r + p))


@dataclass(frozen=True)
class Sphericity:
    """Bartlett's test that all items are uncorrelated."""

    statistic: float
    degrees: int
    p_value: float


def bartlett_sphericity(table: Table, weights: npt.ArrayLike | None = None, missing: Missing = "mean") -> Sphericity:
    """χ² = −(n − 1 − (2p + 5)/6) ln|R| with p(p − 1)/2 degrees of freedom (Bartlett 1951); n effective rows.

    Raises
    ------
    ValueError
        Correlations that cannot be inverted, as from fewer rows than items.
    """
    c = correlations(table, weights, missing=missing)
    need_definite(c, "Bartlett's test")
    p = len(c.item_ids)
    statistic = -(c.effective_rows - 1 - (2 * p + 5) / 6) * float(np.linalg.slogdet(c.matrix)[1])
    degrees = p * (p - 1) // 2
    return Sphericity(statistic, degrees, chi_square_tail(statistic, degrees))


def chi_square_tail(statistic: float, degrees: int) -> float:
    """P(χ² > statistic): the regularised upper incomplete gamma function Q(degrees / 2, statistic / 2)."""
    a, x = degrees / 2, statistic / 2
    if x <= 0 or degrees < 1:
        return 1.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))  # xᵃ e⁻ˣ / Γ(a)
    if x < a + 1:  # DLMF 8.11.4: the lower function as a series
        term = total = 1 / a
        k = 0
        while term > total * 1e-17:
            k += 1
            term *= x / (a + k)
            total += term
        return max(0.0, 1 - front * total)
    # DLMF 8.9.2: the upper one as a continued fraction, by the modified method of Lentz
    b = x + 1 - a
    c, d = math.inf, 1 / b
    fraction = d
    for k in range(1, 100_000):
        step = k * (a - k)
        b += 2
        d = 1 / (b + step * d)
        c = b + step / c
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * fraction


# -- how reliable is a sum of items


def cronbach_alpha(
    table: Table, weights: npt.ArrayLike | None = None, keys: Keys = None, missing: Missing = "mean"
) -> float:
    """Cronbach's α of the items' sum: k/(k − 1) · (1 − Σ variances / variance of the sum).

    keys : 1 for each item counted as it is, −1 for one counted reversed, by item id or in order; all 1 by default.
    """
    c = correlations(table, weights, missing=missing)
    k = len(c.item_ids)
    if k < 2:
        raise ValueError("Cronbach's alpha is of the sum of two items or more, got one")
    s = c.deviations * _signs(keys, c.item_ids)
    covariance = c.matrix * np.outer(s, s)
    total = float(covariance.sum())
    if total <= 0:
        raise ValueError("the sum of the items has no variance; check the keys")
    return k / (k - 1) * (1 - float(np.trace(covariance)) / total)


def mcdonald_omega(model: FactorModel, keys: Keys = None) -> float:
    """McDonald's ω total: share of the variance of the standardised items' sum that the model's factors explain.

    1'ΛΦΛ'1 / (1'ΛΦΛ'1 + Σψ); with one factor (Σλ)² / ((Σλ)² + Σ(1 − λ²)) (McDonald 1999). Usually of a one-factor model
    of one scale's items.

    keys : see `cronbach_alpha`.
    """
    signs = _signs(keys, model.item_ids)
    common = float(signs @ model.structure @ model.loadings.T @ signs)
    return common / (common + float(model.uniquenesses.sum()))


def _signs(keys: Keys, items: tuple[str, ...]) -> Array:
    if keys is None:
        return np.ones(len(items))
    if isinstance(keys, Mapping):
        for item in keys:
            if item not in items:
                raise ValueError(f"keys: unknown item {item!r}; {nearest(str(item), items)}")
        keys = [keys.get(item, 1) for item in items]
    signs = np.asarray(keys, dtype=np.float64)
    if signs.shape != (len(items),) or not (np.abs(signs) == 1).all():
        raise ValueError(f"keys: expected 1 or -1 for each of {len(items)} items, got {keys!r}")
    return signs
