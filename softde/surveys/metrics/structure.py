"""Do items hang together as they do among humans? Agreement of inter-item correlations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from softde.surveys.checks import row_weights
from softde.surveys.scoring import Array

LEAST = 3  # rows that a correlation needs: through two points there is always a line


def item_correlations(values: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Array:
    """(items, items) Pearson correlations of (respondents, items), each over the rows that have both items.

    weights : (respondents,), one each by default. NaN where fewer than three rows have both items, or one of the two
    does not vary over them.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"values: expected (respondents, items), got shape {array.shape}")
    weight = row_weights(weights, len(array), "respondents")
    there = (~np.isnan(array) & (weight > 0)[:, None]).astype(np.float64)
    counts = there.T @ there
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = np.nansum(weight[:, None] * array, 0) / (weight @ there)  # against cancellation only; it drops out
        x = np.where(there > 0, array - middle, 0.0)
        weighted = weight[:, None] * there
        total = weighted.T @ there
        of_first = (weighted * x).T @ there / total  # mean of item i over the rows that also have item j
        squares = (weighted * x**2).T @ there / total
        variance = squares - of_first**2
        covariance = (weighted * x).T @ x / total - of_first * of_first.T
        varies = variance > 1e-12 * np.maximum(squares, 1e-300)
        found = covariance / np.sqrt(variance * variance.T)
    return np.asarray(np.where((counts >= LEAST) & varies & varies.T, np.clip(found, -1.0, 1.0), np.nan))


@dataclass(frozen=True)
class StructureAgreement:
    """Agreement over pairs of items.

    correlation : of the model's with the humans' inter-item correlations, −1 to 1; NaN where either are all the same.
    rms : root mean square of their difference, 0 to 2. model_strength, human_strength : root mean square of the
    correlations themselves; respondents that are all alike but for noise have little. pairs : of items in both.
    """

    correlation: float
    rms: float
    model_strength: float
    human_strength: float
    pairs: int


def structure_agreement(
    model: npt.ArrayLike,
    human: npt.ArrayLike,
    model_weights: npt.ArrayLike | None = None,
    human_weights: npt.ArrayLike | None = None,
) -> StructureAgreement:
    """Compare the correlations above the diagonal of `item_correlations`.

    Parameters
    ----------
    model, human : (respondents, items) option values of the same items, NaN for none; the numbers of respondents may
        differ. At the level of regions: (regions, items) item means, such as ``human.item_means``.

    Raises
    ------
    ValueError
        Different numbers of items, or no pair of items that varies in both.
    """
    of_model, of_human = item_correlations(model, model_weights), item_correlations(human, human_weights)
    if of_model.shape != of_human.shape:
        raise ValueError(
            f"expected the same items of model and humans, got {len(of_model)} and {len(of_human)}; select them alike"
        )
    upper = np.triu_indices(len(of_model), k=1)
    one, other = of_model[upper], of_human[upper]
    there = ~np.isnan(one) & ~np.isnan(other)
    if not there.any():
        raise ValueError(
            "no pair of items varies over three respondents or more both in the model and among humans; simulate "
            "respondents that differ, or give more of them"
        )
    one, other = one[there], other[there]
    varied = len(one) > 1 and one.std() > 1e-12 and other.std() > 1e-12
    return StructureAgreement(
        float(np.corrcoef(one, other)[0, 1]) if varied else float("nan"),
        float(np.sqrt(((one - other) ** 2).mean())),
        float(np.sqrt((one**2).mean())),
        float(np.sqrt((other**2).mean())),
        int(there.sum()),
    )
