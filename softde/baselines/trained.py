"""What a method that trains something hands back: a condition, what finding it cost, and how the loss fell."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from softde.condition import Condition


@dataclass(frozen=True, eq=False)
class Trained:
    """A condition that was trained, and what it cost.

    forward_tokens : pushed through the model's layers to find it; a backward pass counts as two forwards. seconds :
    wall time, over all sessions. loss : of the condition, on what it was trained on; NaN where there is none.
    trajectory : (forward-equivalents, loss) of every improvement, where one forward-equivalent is a candidate asked the
    whole survey; () where there is nothing of the kind.
    """

    condition: Condition
    forward_tokens: float
    seconds: float
    loss: float = math.nan
    trajectory: tuple[tuple[int, float], ...] = ()

    def best_after(self, forward_equivalents: float) -> float:
        """The lowest loss within so many forward-equivalents; +inf before the first."""
        return min((loss for spent, loss in self.trajectory if spent <= forward_equivalents), default=math.inf)


def improvements(history: Iterable[tuple[int, float | None]]) -> tuple[tuple[int, float], ...]:
    """Of (forward-equivalents, best loss so far), those that are lower than all before; None is no loss."""
    found: list[tuple[int, float]] = []
    for spent, loss in history:
        if loss is not None and loss < (found[-1][1] if found else math.inf):
            found.append((spent, loss))
    return tuple(found)
