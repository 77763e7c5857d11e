"""Did the model answer at all? Summaries of option mass and of invalid answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from softde.surveys.values import listed


@dataclass(frozen=True)
class ShareSummary:
    """Shares over all rows and items: their mean, the worst item's mean and that item, and what falls past a limit.

    past_limit : share of (row, item) pairs beyond the limit. missing : pairs without a share, left out.
    """

    mean: float
    worst: float
    worst_item: str
    past_limit: float
    missing: int


def option_mass_summary(mass: npt.ArrayLike, item_ids: Sequence[str], floor: float = 0.5) -> ShareSummary:
    """Probability that fell on the options at all, 0 to 1. Worst is the lowest; past the limit is below `floor`.

    mass : (..., items), as ``responses.option_mass``. A low mass means that the option probabilities, renormalised, say
    little of what the model would write.
    """
    return _summary(mass, item_ids, floor, -1.0, "option mass")


def invalid_summary(invalid: npt.ArrayLike, item_ids: Sequence[str], ceiling: float = 0.1) -> ShareSummary:
    """Share of answers that name no option, 0 to 1. Worst is the highest; past the limit is above `ceiling`.

    invalid : (..., items), as ``responses.invalid + responses.refused``, or true and false for single answers.
    """
    return _summary(invalid, item_ids, ceiling, 1.0, "invalid share")


def _summary(given: npt.ArrayLike, item_ids: Sequence[str], limit: float, bad: float, what: str) -> ShareSummary:
    shares = np.asarray(given, dtype=np.float64)
    if shares.ndim == 0 or shares.shape[-1] != len(item_ids):
        raise ValueError(f"{what}: expected (..., {len(item_ids)}), one per item, got shape {shares.shape}")
    wrong = (shares < 0) | (shares > 1 + 1e-6)
    if wrong.any():
        items = [item_ids[int(i)] for i in np.flatnonzero(wrong.reshape(-1, len(item_ids)).any(axis=0))]
        raise ValueError(f"{what}: expected shares from 0 to 1; item {listed(items, 3)} has others")
    rows = shares.reshape(-1, len(item_ids))
    there = ~np.isnan(rows)
    if not there.any():
        raise ValueError(f"{what}: every share is missing; give answers that were read")
    with np.errstate(invalid="ignore"):
        by_item = np.where(there, rows, 0.0).sum(0) / there.sum(0)
    worst = int(np.nanargmax(bad * by_item))
    present = rows[there]
    return ShareSummary(
        float(present.mean()), float(by_item[worst]), item_ids[worst],
        float((bad * present > bad * limit).mean()), int((~there).sum()),
    )  # fmt: skip
