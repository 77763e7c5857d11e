"""Distances between a model's answers and humans', batched over a population; all are zero where the two are equal.

Probabilities end in (items, options), zero beyond an item's options. Each function works row by row, so that a
candidate gets the same bits alone and among others. Slopes are derivatives with respect to the model's probabilities.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softde.surveys.metrics.ranks import kendall_tau

Array = NDArray[np.float64]

FLOOR = 1e-6  # probability below which KL counts a model's answer as that much
TINIEST = float(np.finfo(np.float64).tiny)


def item_means(probabilities: Array, values: Array) -> Array:
    """(..., items, options) → (..., items) expected option values; values (items, options), NaN beyond the options."""
    means: Array = (probabilities * np.nan_to_num(values)).sum(axis=-1)
    return means


def jensen_shannon(model: Array, human: Array) -> Array:
    """Jensen-Shannon divergence in bits, in [0, 1]; (..., options) → (...,) (Lin 1991, IEEE Trans. Inf. Theory 37).

    With m = (p + q) / 2 it is (KL(p‖m) + KL(q‖m)) / 2; its square root is the Jensen-Shannon distance.
    """
    both = model + human
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(model == 0, 0.0, model * np.log2(2 * model / both))
        right = np.where(human == 0, 0.0, human * np.log2(2 * human / both))
    return np.asarray(np.clip((left.sum(axis=-1) + right.sum(axis=-1)) / 2, 0.0, 1.0))


def jensen_shannon_slope(model: Array, human: Array) -> Array:
    """Slope of every option, ½ log₂(p / m)."""
    floored = np.maximum(model, TINIEST)
    return np.where(model + human == 0, 0.0, np.log2(2 * floored / (floored + human)) / 2)


def kullback_leibler(model: Array, human: Array, floor: float = FLOOR) -> Array:
    """KL(human ‖ model) in bits, from 0 up; (..., options) → (...,).

    Model probabilities below `floor` count as `floor`: what humans said and the model never says costs no more than
    log₂(1 / floor), and what no human said nothing.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(human == 0, 0.0 * model, human * np.log2(human / np.maximum(model, floor)))
    return np.asarray(np.maximum(parts.sum(axis=-1), 0.0))


def kullback_leibler_slope(model: Array, human: Array, floor: float = FLOOR) -> Array:
    """−q / (p ln 2) for every option above the floor, zero below it."""
    return np.where(model > floor, -human / (np.maximum(model, floor) * np.log(2)), 0.0)


def wasserstein(model: Array, human: Array, values: Array) -> Array:
    """Ordinal Wasserstein-1 distance over the range of the option values, in [0, 1].

    (..., items, options) → (..., items): ∫|F − G| of the two distribution functions on the option values (items,
    options), NaN beyond the options.
    """
    order, gaps = _gaps(values)
    below = np.take_along_axis(model - human, np.broadcast_to(order, (model - human).shape), axis=-1).cumsum(axis=-1)
    return np.asarray((np.abs(below) * gaps).sum(axis=-1))


def wasserstein_slope(model: Array, human: Array, values: Array) -> Array:
    """(items, options): Σ over the gaps above an option of sign(F − G) times the gap."""
    order, gaps = _gaps(values)
    below = np.take_along_axis(model - human, order, axis=-1).cumsum(axis=-1)
    sorted_slopes = (np.sign(below) * gaps)[:, ::-1].cumsum(axis=-1)[:, ::-1]
    slopes = np.empty_like(sorted_slopes)
    np.put_along_axis(slopes, order, sorted_slopes, axis=-1)
    return slopes


def _gaps(values: Array) -> tuple[NDArray[np.int64], Array]:
    """The order of the option values, and the gap after each of them in it, in units of the item's range."""
    order = np.argsort(values, axis=-1, kind="stable")  # NaN comes last
    ordered = np.take_along_axis(values, order, axis=-1)
    gaps = np.nan_to_num(np.diff(ordered, axis=-1, append=np.nan))
    return order, gaps / gaps.sum(axis=-1, keepdims=True)


def huber(errors: Array, delta: float) -> Array:
    """e² / 2 up to delta, and a line beyond it, delta (e − delta / 2) (Huber 1964, Ann. Math. Stat. 35)."""
    return np.where(errors <= delta, errors**2 / 2, delta * (errors - delta / 2))


def rank_disagreement(scores: Array, published: Array) -> Array:
    """Mean over factors of (1 − τ-b) / 2, of how several regions are ranked; (..., regions, factors) twice → (...,).

    0 is the published order, 1 the reverse, and ½ none: scores that are all equal count as τ = 0. A factor whose
    published scores are all equal has no order and is left out; NaN where that leaves none, or a score is NaN.
    """
    if min(scores.ndim, published.ndim) < 2 or scores.shape[-2:] != published.shape[-2:] or scores.shape[-2] < 2:
        raise ValueError(
            "scores: expected (regions, factors) of two regions or more, as many as are published, got shapes "
            f"{scores.shape} and {published.shape}"
        )
    mine, theirs = np.swapaxes(scores, -1, -2), np.swapaxes(published, -1, -2)
    tied = (mine == mine[..., :1]).all(axis=-1)
    tau = np.where(tied, 0.0, kendall_tau(mine, theirs))
    tau = np.where(np.isnan(mine).any(axis=-1) | np.isnan(theirs).any(axis=-1), np.nan, tau)
    ranked = np.broadcast_to((theirs != theirs[..., :1]).any(axis=-1), tau.shape)
    with np.errstate(invalid="ignore"):
        mean = np.where(ranked, (1 - tau) / 2, 0.0).sum(axis=-1) / ranked.sum(axis=-1)
    return np.asarray(mean)
