"""p-values of several tests at once."""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for being many, so that the chance of one false finding or more is kept (Holm 1979).

    The k-th smallest of m is multiplied by m − k + 1, and none is lower than a smaller one's. A NaN is no test: it
    stays, and does not count.
    """
    known = sorted((value, place) for place, value in enumerate(p) if not math.isnan(value))
    found, highest = [math.nan] * len(p), 0.0
    for rank, (value, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        found[place] = highest
    return found
