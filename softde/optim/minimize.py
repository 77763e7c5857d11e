"""minimize(): a whole search in one call, for any function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softde.checks import shown, whole
from softde.optim.auto import ReadoutKind, resolve
from softde.optim.base import (
    Info,
    Optimizer,
    StopReason,
    as_points,
    as_tensor,
    check_budget,
    check_patience,
    check_target,
    generations,
    generator_for,
    stale,
    stop_reason,
)

START = -1  # the generation whose generator draws the start points


@dataclass(frozen=True, eq=False)
class MinimizeResult:
    """What ``minimize`` found; ``state`` goes on where it stopped, with ``optimizer``.

    name : of the optimiser, as it was asked for or chosen. why : it was chosen, with "auto"; else "".
    """

    best_x: Tensor
    best_loss: float
    evaluations: int
    trajectory: tuple[Info, ...]
    stop_reason: StopReason
    state: Any
    optimizer: Optimizer[Any]
    name: str
    why: str = ""

    def __repr__(self) -> str:
        dim = len(self.best_x)
        return (
            f"<MinimizeResult by {self.name}: loss {self.best_loss:.4g} in {dim:,} dimensions; {self.evaluations:,} "
            f"candidates; stopped: {self.stop_reason}>"
        )


def minimize(
    fn: Callable[[Tensor], Any],
    optimizer: Optimizer[Any] | str,
    init: Any,
    budget: int,
    seed: int = 0,
    target_loss: float | None = None,
    callback: Callable[[Any, Info], bool | None] | None = None,
    patience: int | None = None,
    min_improvement: float = 0.0,
    readout: ReadoutKind = "smooth",
) -> MinimizeResult:
    """Minimise a function of many candidates at once.

    Parameters
    ----------
    fn : takes (population, dim), which it must not change, and returns (population,) losses: tensor, array or list; or
        ``Scored(losses, residuals)``, with the signed errors (population, residuals) that the loss is made of.
    optimizer : for example ``DE(population_size=32)``, or a name in ``softde.optim.NAMES``, such as "auto" or "shade".
    init : start points, (population, dim), float32 or float64: tensor, array or nested list. Or one point, (dim,): it
        is the first start point, the others are drawn around it with unit standard deviation.
    budget : candidates scored at most; only whole generations are run.
    seed : the whole run follows from it.
    target_loss : stop as soon as the best loss is at or below it.
    callback : called with (state, info) after every generation; returning True stops the search.
    patience, min_improvement : stop once so many candidates were scored since the best loss last fell; falls that add
        up to less than min_improvement do not count.
    readout : what "auto" takes the function for: "smooth", "coarse" (with plateaus) or "noisy"; see ``choose``.

    Raises
    ------
    ValueError
        If the budget is below the population, the start points do not fit, or ``fn`` returns another shape; or the
        budget, the seed or the patience is no whole number, min_improvement is negative, target_loss is no number, or a
        name is unknown.
    """
    for name, given in (("fn", fn), ("callback", fn if callback is None else callback)):
        if not callable(given):
            raise ValueError(f"{name}: expected a function, got {shown(given)}")
    budget, points = whole(budget, "budget"), as_tensor(init, "start points")
    if points.ndim not in (1, 2) or not points.numel():
        found = tuple(points.shape)
        raise ValueError(f"init: expected start points of shape (population, dim), or one point, (dim,), got {found}")
    choice = resolve(optimizer, points.shape[-1], budget, readout)
    optimizer = choice.optimizer
    check_budget(optimizer, budget)
    check_patience(patience, min_improvement)
    check_target(target_loss)
    size = optimizer.population_size
    state = optimizer.init(around(points, size, generator_for(seed, START)) if points.ndim == 1 else points)
    trajectory, reason = list[Info](), None
    for step in generations(optimizer, state, fn, budget, seed, target_loss):
        state = step.state
        trajectory.append(step.info)
        reason = stop_reason(state, budget, target_loss)
        if callback is not None and callback(state, step.info):
            reason = StopReason.CALLBACK
        elif reason is None and patience is not None:
            history = ((info.evaluations, info.best) for info in trajectory)
            reason = StopReason.PLATEAU if stale(history, min_improvement) >= patience else None
        if reason is not None:
            break
    reason = reason or stop_reason(state, budget, target_loss)
    assert reason is not None  # generations() ends only for a reason
    return MinimizeResult(state.best_x, state.best_loss, state.evaluations, tuple(trajectory), reason, state, *choice)


def around(point: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """The point itself, and n - 1 drawn around it with unit standard deviation, (n, dim)."""
    start = as_points(point[None], 1)
    noise = torch.randn((n - 1, len(point)), generator=generator, dtype=start.dtype).to(start.device)
    return torch.cat([start, start + noise])
