"""Do regions stand in the right order? Kendall's τ-b, and the share of regions at the wrong rank, per factor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from softde.surveys.scoring import Array
from softde.surveys.values import FrozenDict


def kendall_tau(x: npt.ArrayLike, y: npt.ArrayLike) -> Array:
    """Kendall's τ-b over the last axis, −1 to 1; leading axes broadcast.

    τ-b = (C − D) / √((C + D + T_x)(C + D + T_y)), C and D the concordant and discordant pairs, T_x and T_y the pairs
    tied in x only and in y only (Kendall 1945, *Biometrika* 33:239). Places where x or y is NaN are left out. NaN where
    all of x or all of y is tied, or fewer than two places are left: a constant has no order to agree with.
    """
    one, other = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if one.ndim == 0 or other.ndim == 0 or one.shape[-1] != other.shape[-1]:
        raise ValueError(
            f"kendall_tau: expected as many regions in x as in y on the last axis, got {one.shape}, {other.shape}"
        )
    first, second = np.triu_indices(one.shape[-1], k=1)
    of_x, of_y = np.sign(one[..., first] - one[..., second]), np.sign(other[..., first] - other[..., second])
    there = ~np.isnan(of_x) & ~np.isnan(of_y)
    of_x, of_y = np.where(there, of_x, 0.0), np.where(there, of_y, 0.0)
    untied = np.sqrt((of_x**2).sum(-1) * (of_y**2).sum(-1))  # C + D + T_y and C + D + T_x
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.clip((of_x * of_y).sum(-1) / untied, -1.0, 1.0))


def ranks(x: npt.ArrayLike) -> Array:
    """Ranks over the last axis, the largest is 1; equal values share the mean of their ranks; NaN stays."""
    array = np.asarray(x, dtype=np.float64)
    above = (array[..., None, :] > array[..., :, None]).sum(-1)
    equal = (array[..., None, :] == array[..., :, None]).sum(-1)
    return np.asarray(np.where(np.isnan(array), np.nan, above + (equal + 1) / 2))


def misranked_share(x: npt.ArrayLike, y: npt.ArrayLike) -> Array:
    """Share of regions (last axis) whose rank by x is not their rank by y, 0 to 1; leading axes broadcast.

    Reported beside τ by Masoud et al. (arXiv 2309.12342). Regions where x or y is NaN are left out of both rankings;
    ties share a rank. NaN where no region is left.
    """
    one, other = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
    absent = np.isnan(one) | np.isnan(other)
    wrong = ranks(np.where(absent, np.nan, one)) != ranks(np.where(absent, np.nan, other))
    with np.errstate(invalid="ignore"):
        return np.asarray((wrong & ~absent).sum(-1) / (~absent).sum(-1))


@dataclass(frozen=True)
class RankAgreement:
    """Factor → τ-b and share of misranked regions, and τ-b's mean over the factors that have one (CAT's score)."""

    tau: Mapping[str, float]
    misranked: Mapping[str, float]
    mean_tau: float


def rank_agreement(model: npt.ArrayLike, human: npt.ArrayLike, factors: Sequence[str]) -> RankAgreement:
    """Agreement in the order of regions, per factor (CAT, Masoud et al., arXiv 2309.12342).

    Parameters
    ----------
    model, human : (regions, factors) factor scores in the same order, NaN where missing. Constants do not matter.
    """
    one, other = np.asarray(model, dtype=np.float64), np.asarray(human, dtype=np.float64)
    if one.ndim != 2 or one.shape != other.shape or one.shape[1] != len(factors):
        raise ValueError(
            f"expected scores (regions, {len(factors)} factors) of model and humans, got {one.shape} and {other.shape}"
        )
    tau, wrong = kendall_tau(one.T, other.T), misranked_share(one.T, other.T)
    known = tau[~np.isnan(tau)]
    return RankAgreement(
        FrozenDict(zip(factors, tau.tolist(), strict=True)),
        FrozenDict(zip(factors, wrong.tolist(), strict=True)),
        float(known.mean()) if known.size else float("nan"),
    )
