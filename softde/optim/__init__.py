"""Optimisers with one contract, ask and tell; they know nothing of language."""

from softde.optim.base import (
    Bounded,
    Info,
    MinimizeResult,
    Optimizer,
    State,
    Step,
    StopReason,
    generations,
    generator_for,
    minimize,
    state_from_tensors,
    state_to_tensors,
    step,
    stop_reason,
)
from softde.optim.de import DE, DEState

__all__ = [
    "DE",
    "Bounded",
    "DEState",
    "Info",
    "MinimizeResult",
    "Optimizer",
    "State",
    "Step",
    "StopReason",
    "generations",
    "generator_for",
    "minimize",
    "state_from_tensors",
    "state_to_tensors",
    "step",
    "stop_reason",
]
