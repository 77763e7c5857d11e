"""How far do answers move with what should not matter? In units of the human standard deviation between regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from softde.surveys.checks import row_weights
from softde.surveys.scoring import Array
from softde.surveys.values import FrozenDict, listed


@dataclass(frozen=True)
class Robustness:
    """Movement between variants, 1 is as much as regions differ.

    mean : root mean square over items (or factors) of the standard deviation between variants, in human deviations.
    largest : the largest distance between two variants on any item; `largest_at` is its number. by_item : (items,) that
    deviation per item. by_variant : variant → root mean square distance from the mean over variants. left_out : items
    that all regions answer alike, or that a variant or all regions but one lack.
    """

    mean: float
    largest: float
    largest_at: int
    by_item: Array
    by_variant: Mapping[str, float]
    left_out: int


def between_region_deviation(human: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Array:
    """(items,) standard deviation between regions of (regions, items) item means or factor scores.

    Without weights with n − 1 in the denominator, NaN regions left out, NaN for fewer than two; with weights (regions,)
    √(Σ w (x − x̄)² / (Σ w − Σ w² / Σ w)), the same where they are equal.
    """
    array = np.asarray(human, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"human: expected (regions, items) item means or factor scores, got shape {array.shape}")
    given = row_weights(weights, len(array), "regions")
    there = np.where(np.isnan(array), 0.0, given[:, None])
    values = np.where(np.isnan(array), 0.0, array)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = there.sum(0)
        centred = values - (there * values).sum(0) / total
        freedom = total - (there**2).sum(0) / total
        variance = (there * centred**2).sum(0) / freedom
    return np.asarray(np.where((there > 0).sum(0) > 1, np.sqrt(variance), np.nan))


def robustness(
    variants: Mapping[str, npt.ArrayLike], human: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Robustness:
    """Spread of the same model's answers over variants of the questionnaire, against what it is meant to measure.

    Khan et al. (arXiv 2503.08688) report effects of form this way: humans of 15 countries differ by a standard
    deviation of .114 of the scale, and the length of the answer scale alone moves models by .031 to .088.

    Parameters
    ----------
    variants : name → (items,) item means, or (factors,) factor scores, under each option order, label set or phrasing.
        Vary one of these at a time; two variants or more.
    human : (regions, items) human item means, or (regions, factors) factor scores, of two regions or more.
    """
    if len(variants) < 2:
        raise ValueError(f"expected two variants or more, got {listed(variants) or 'none'}; ask in another order, say")
    rows = {name: np.asarray(values, dtype=np.float64) for name, values in variants.items()}
    deviation = between_region_deviation(human, weights)
    for name, row in rows.items():
        if row.shape != deviation.shape:
            raise ValueError(f"variant {name!r}: expected {deviation.shape} values as of humans, got shape {row.shape}")
    table = np.stack(list(rows.values()))
    usable = (deviation > 1e-12) & ~np.isnan(table).any(axis=0)
    if not usable.any():
        raise ValueError("no item is answered under every variant and differs between two human regions; give others")
    scaled = np.where(usable, table, np.nan) / np.where(usable, deviation, 1.0)
    by_item = scaled.std(axis=0, ddof=1)
    spread = np.where(usable, scaled.max(0) - scaled.min(0), -np.inf)
    away = (scaled - scaled.mean(axis=0))[:, usable]
    return Robustness(
        float(np.sqrt((by_item[usable] ** 2).mean())), float(spread.max()), int(spread.argmax()), by_item,
        FrozenDict(zip(rows, np.sqrt((away**2).mean(axis=1)).tolist(), strict=True)), int((~usable).sum()),
    )  # fmt: skip
