"""Searches by forwards alone, as a method among others: Black-Box-Tuning, random search, DE, whatever `align` takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from softde.align import AUTO, BUDGET, align
from softde.align.verb import Report
from softde.baselines.trained import Trained, improvements
from softde.lm import LM
from softde.optim import Optimizer
from softde.readouts import Readout
from softde.space import PromptSpace
from softde.surveys import Survey, Target
from softde.surveys.scoring import Norm
from softde.surveys.targets import TargetLike


def searched(
    lm: LM,
    survey: Survey,
    target: Target | TargetLike,
    space: PromptSpace | None = None,
    optimizer: Optimizer[Any] | str = AUTO,
    budget: int = BUDGET,
    seed: int = 0,
    *,
    orders: str = "both",
    norm: Norm = "L1",
    weights: Sequence[float] | None = None,
    readout: Readout | None = None,
    target_loss: float | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = True,
    progress: Report = True,
) -> Trained:
    """What `align` finds, with its cost; the arguments are `align`'s.

    optimizer : "bbt" is Black-Box-Tuning (Sun et al. 2022: CMA-ES in 500 intrinsic dimensions, its projection's scale),
        "random" random search; see `softde.optim.NAMES`. The condition bears its name.

    Raises
    ------
    ValueError
        As `align` does.
    KeyboardInterrupt
        Ctrl-C is passed on, so that no half-finished prompt is compared; with a checkpoint the same call goes on.
    """
    result = align(
        lm, survey, target, space, optimizer, budget, seed, norm, weights, orders, checkpoint, resume, progress,
        readout=readout, target_loss=target_loss,
    )  # fmt: skip
    if result.interrupted:
        raise KeyboardInterrupt
    name = optimizer if isinstance(optimizer, str) else type(optimizer).__name__
    lines = ((line["evaluations"], line["best"]) for line in result.trajectory)
    return Trained(
        replace(result.condition, name=name), result.forward_tokens, result.wall_seconds, result.plain_loss,
        improvements(lines),
    )  # fmt: skip
