"""Are the differences between regions still there? Divergence of option shares, and how much of it a model keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from softde.surveys.metrics.culture_spa import read_positions
from softde.surveys.scoring import Array

if TYPE_CHECKING:
    from softde.surveys.human.answers import HumanAnswers
    from softde.surveys.metrics.answers import AnswersLike


def js_divergence(p: npt.ArrayLike, q: npt.ArrayLike) -> Array:
    """Jensen-Shannon divergence in bits, 0 (equal) to 1 (no option in common), over the last axis.

    JS(p, q) = H((p + q) / 2) − (H(p) + H(q)) / 2, H the entropy to base 2 (Lin 1991, *IEEE Trans. Inf. Theory* 37:145).
    NaN where p or q has one. Leading axes broadcast.
    """
    first, second = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    middle = (first + second) / 2
    # summed as relative entropies, which do not cancel where p and q are close
    return np.asarray(np.clip((_relative(first, middle) + _relative(second, middle)) / 2, 0.0, 1.0))


def _relative(p: Array, m: Array) -> Array:
    """Σ p log2(p / m), 0 log 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p == 0, 0.0 * m, p * np.log2(p / m))
    return np.asarray(terms.sum(axis=-1))


def divergences(shares: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Array:
    """(regions, items) divergence of each region from the item's centroid, the weighted mean over regions.

    Parameters
    ----------
    shares : (regions, items, options); NaN where a region has no answers to an item. An item needs two regions.
    weights : (regions,), one each by default.
    """
    array = _checked(shares)
    weight = _weights(weights, len(array))
    absent = np.asarray(np.isnan(array).any(axis=-1))
    there = np.where(absent, 0.0, weight[:, None])
    total = there.sum(axis=0)
    usable = ((there > 0).sum(axis=0) > 1) & (total > 0)
    centroid = (there[..., None] * np.where(absent[..., None], 0.0, array)).sum(0) / np.where(usable, total, 1.0)[
        :, None
    ]
    return np.asarray(np.where(absent | ~usable, np.nan, js_divergence(array, centroid)))


def cultural_divergence(shares: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """CD: mean divergence of regions from the centroid, in bits, 0 to 1, over all answered pairs of region and item.

    After Chae et al. (2026), who compare it between humans and simulated respondents. 0: all regions answer alike.
    """
    array = _checked(shares)
    return _weighted_mean(divergences(array, weights), _weights(weights, len(array)))


@dataclass(frozen=True)
class DivergencePreserved:
    """CDP = CD of the model / CD of humans: below 1 regions are flattened, above 1 caricatured.

    by_region : (regions,) the same ratio for each region alone. items, pairs : items, and pairs of region and item,
    that both have.
    """

    ratio: float
    model: float
    human: float
    by_region: Array
    items: int
    pairs: int


def divergence_preserved(
    model: npt.ArrayLike, human: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> DivergencePreserved:
    """How much of the divergence between regions a model keeps (Chae et al. 2026).

    Parameters
    ----------
    model, human : (regions, items, options) in the same order; pairs of region and item that either lacks are left out
        of both. Compare like with like: single answers of a model with `human_majority`, probabilities with shares.
    weights : (regions,), one each by default.
    """
    one, other = _checked(model), _checked(human)
    if one.shape[:2] != other.shape[:2]:
        raise ValueError(
            f"expected the same regions and items of both, got {one.shape[:2]} of the model and {other.shape[:2]} of "
            "humans; select and order them alike"
        )
    weight = _weights(weights, len(one))
    lacking = (np.isnan(one) | np.isnan(other)).any(axis=-1, keepdims=True)
    of_model = divergences(np.where(lacking, np.nan, one), weight)
    of_human = divergences(np.where(lacking, np.nan, other), weight)
    there = ~np.isnan(of_human)
    if not there.any():
        raise ValueError("no item is answered by two regions in both the model and humans; check order and regions")
    cd_model, cd_human = _weighted_mean(of_model, weight), _weighted_mean(of_human, weight)
    counted = np.maximum(there.sum(axis=1), 1)
    means = [np.where(there.any(1), np.nansum(d, axis=1) / counted, np.nan) for d in (of_model, of_human)]
    with np.errstate(divide="ignore", invalid="ignore"):
        by_region = np.where(means[1] > 0, means[0] / means[1], np.nan)
    ratio = cd_model / cd_human if cd_human > 0 else float("nan")
    return DivergencePreserved(ratio, cd_model, cd_human, by_region, int(there.any(0).sum()), int(there.sum()))


def one_hot(options: npt.ArrayLike, count: int) -> Array:
    """Option numbers from 0 (…) as shares (…, count): all on that option; NaN for −1, none."""
    numbers = np.asarray(options)
    if not np.issubdtype(numbers.dtype, np.integer) or (numbers >= count).any() or (numbers < -1).any():
        raise ValueError(f"options: expected whole numbers from 0 to {count - 1}, or -1 for none, got {options!r:.60}")
    shares = np.eye(count)[np.maximum(numbers, 0)]
    shares[numbers < 0] = np.nan
    return shares


def human_majority(human: HumanAnswers) -> Array:
    """Majority answers of humans as shares (regions, items, options): what single answers of a model compare with."""
    return one_hot(human.majority, np.asarray(human.shares).shape[-1])


def answer_shares(own: Mapping[str, AnswersLike], human: HumanAnswers) -> Array:
    """Single answers, region → sheet, as shares (regions of `own`, items, options); NaN for none and invalid ones.

    Numbers are read as `culture_spa_corrected` reads them: one of the item's options, from 0 where values begin at 0.
    """
    rows = [read_positions(sheet, human.survey) for sheet in own.values()]
    numbers = [np.where(np.isnan(row) | (row % 1 != 0), -1, row).astype(np.int64) for row in rows]
    return one_hot(np.stack(numbers), np.asarray(human.shares).shape[-1])


def _checked(shares: npt.ArrayLike) -> Array:
    array = np.asarray(shares, dtype=np.float64)
    if array.ndim != 3:
        raise ValueError(f"shares: expected (regions, items, options), got shape {array.shape}")
    return array


def _weights(weights: npt.ArrayLike | None, regions: int) -> Array:
    array = np.ones(regions) if weights is None else np.asarray(weights, dtype=np.float64)
    if array.shape != (regions,) or not np.isfinite(array).all() or (array < 0).any() or not (array > 0).any():
        raise ValueError(
            f"weights: expected one finite number from 0 up for each of {regions} regions, with one above 0 at least, "
            f"got {np.array2string(array, threshold=6)}"
        )
    return array


def _weighted_mean(values: Array, weights: Array) -> float:
    """Over (regions, items), a region's weight on each of its items; NaN where nothing is there."""
    there = ~np.isnan(values)
    weight = np.where(there, weights[:, None], 0.0)
    return float(np.where(there, values, 0.0).ravel() @ weight.ravel() / weight.sum()) if weight.any() else float("nan")
