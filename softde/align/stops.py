"""Where a search stands, and what ends it before its budget does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from softde.checks import plain_number, shown, whole
from softde.gradient import WarmStart
from softde.optim.base import StopReason, check_patience, stale


@dataclass(frozen=True)
class Stops:
    """What ends a search before its budget does; see `align`."""

    target_loss: float | None = None
    patience: int | None = None
    min_improvement: float = 0.0
    max_seconds: float | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        check_patience(self.patience, self.min_improvement)
        if self.max_tokens is not None:
            whole(self.max_tokens, "max_tokens", 1)
        if self.max_seconds is not None:
            seconds = plain_number(self.max_seconds)
            if seconds is None or not 0 < seconds < math.inf:
                raise ValueError(f"max_seconds: expected a positive number of seconds, got {shown(self.max_seconds)}")
        if self.target_loss is not None:
            loss = plain_number(self.target_loss)
            if loss is None or not math.isfinite(loss):
                raise ValueError(f"target_loss: expected a finite number, got {shown(self.target_loss)}")

    def reason(self, stand: Stand) -> StopReason | None:
        """Why a search of one generation or more must not go on."""
        if self.patience is not None:
            lines = ((e["evaluations"], math.inf if e["best"] is None else e["best"]) for e in stand.trajectory)
            if stale(lines, self.min_improvement) >= self.patience:
                return StopReason.PLATEAU
        if self.max_tokens is not None and stand.tokens >= self.max_tokens:
            return StopReason.TOKENS
        if self.max_seconds is not None and stand.seconds >= self.max_seconds:
            return StopReason.TIME
        return None


@dataclass(frozen=True, eq=False)
class Stand:
    """Where a search stands after a generation, or before its first. seconds and tokens are of all sessions."""

    state: Any
    trajectory: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    tokens: int = 0
    warm: WarmStart | None = None  # before the first generation only
