"""What the arguments of `align` mean: which seeds, which optimiser, which kind of loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from softde.checks import whole
from softde.design import Design
from softde.objective import AlignmentLoss, is_noisy
from softde.optim import SPSA, Optimizer
from softde.optim.auto import Choice, ReadoutKind, resolve
from softde.optim.named import AUTO as AUTO
from softde.readouts import Expected, Readout, SequenceLogprob

BUDGET = 3_200


def chosen_seeds(seed: int, seeds: Sequence[int] | None) -> tuple[int, ...]:
    """The seeds of all searches."""
    if seeds is None:
        return (whole(seed, "seed"),)
    if not hasattr(seeds, "__iter__") or not (seeds := list(seeds)):
        raise ValueError(f"seeds: expected whole numbers, at least one, such as [0, 1, 2], got {seeds!r}")
    chosen = tuple(whole(each, "seeds") for each in seeds)
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"seeds: expected each number once, got {list(chosen)}")
    if whole(seed, "seed"):
        raise ValueError(f"seed: got {seed} beside seeds={list(chosen)}; give one or the other")
    return chosen


def resolved(optimizer: Optimizer[Any] | str, loss: AlignmentLoss, budget: int) -> Choice:
    """The optimiser that is meant, and why it was chosen if it was left to "auto"."""
    return resolve(optimizer, loss.space.dim, budget, kind_of_readout(loss.readout, loss.draws))


def check_halving(optimizer: Optimizer[Any]) -> None:
    """Refuse an optimiser that uses every loss of a generation, or that holds one, beside halving."""
    if isinstance(optimizer, SPSA):
        raise ValueError(
            "halving: SPSA estimates a gradient from all candidates, of which halving scores the worse ones only "
            "roughly; leave halving out, or take another optimizer"
        )
    for held in getattr(optimizer, "__dict__", {}).values():
        if isinstance(held, Optimizer):
            check_halving(held)


def kind_of_readout(readout: Readout | None, draws: str) -> ReadoutKind:
    """What a read-out makes of the loss; draws that stay the same make steps, not noise."""
    if readout is None or isinstance(readout, (Expected, SequenceLogprob)):
        return "smooth"
    if isinstance(readout, Design) and (
        not readout.respondents or (readout.answers == "expected" and draws == "fixed")
    ):
        return "smooth"
    return "noisy" if is_noisy(readout) and draws == "fresh" else "coarse"
