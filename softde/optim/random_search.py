"""Random search: every candidate is a new start point, the null that any optimiser has to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from softde.checks import put, whole
from softde.optim.base import Info, State, advance, as_losses, as_points, check_ask, check_tell, comparable, describe


@dataclass(frozen=True, eq=False)
class RandomSearchState(State):
    """The start points, from which every generation is drawn."""

    points: Tensor  # (population, dim)


@dataclass(frozen=True)
class RandomSearch:
    """Draw from the distribution of the start points, and keep the best.

    It knows that distribution by the start points only, so there are two ways to draw:

    - ``block=None``: every coordinate from a normal distribution with the mean and the standard deviation of that
      coordinate over the start points. For start points that are noise around a centre, this is where they came from.
    - ``block=k``: every run of k coordinates copied from a random start point. With k the width of an embedding, and
      start points of vocabulary rows, every virtual token stays a row of the vocabulary; only those seen at the same
      place among the start points can come, so give many start points.

    Parameters
    ----------
    population_size : candidates per generation, at least two, since one point has no spread.
    block : length of the runs that are copied; the last may be shorter. None draws numbers.
    """

    state_type: ClassVar[type[RandomSearchState]] = RandomSearchState

    population_size: int = 32
    block: int | None = None

    def __post_init__(self) -> None:
        put(self, {"population_size": whole(self.population_size, "population_size", 2)})
        if self.block is not None:
            put(self, {"block": whole(self.block, "block", 1)})

    def init(self, points: Any) -> RandomSearchState:
        """Start from points (population_size, dim), float32 or float64."""
        points = as_points(points, self.population_size)
        return RandomSearchState(points[0].clone(), math.inf, 0, 0, False, len(points), points)

    def ask(self, state: RandomSearchState, generator: torch.Generator) -> tuple[Tensor, RandomSearchState]:
        """Candidates to score, (population, dim): first the start points, then draws."""
        check_ask(self, state, generator)
        first = state.generation == 0
        candidates = state.points.clone() if first else self.propose(state, self.draw(state, generator))
        return candidates, replace(state, asked=True)

    def tell(self, state: RandomSearchState, candidates: Tensor, losses: Any) -> tuple[RandomSearchState, Info]:
        """Keep the best; ``Info`` describes the candidates and counts those better than the best before."""
        check_tell(self, state, candidates)
        losses = as_losses(losses, candidates)
        improved = int((comparable(losses) < state.best_loss).sum())
        state = advance(state, candidates, losses)
        return state, describe(state, candidates, losses, losses, improved)

    def bound(self, state: RandomSearchState) -> Float[Tensor, " population"]:
        """The best loss: a candidate that is worse changes nothing."""
        return torch.full((state.population_size,), state.best_loss, dtype=torch.float64, device=state.points.device)

    def draw(self, state: RandomSearchState, generator: torch.Generator) -> Tensor:
        """Normal numbers (population, dim), or with ``block`` a start point for each run, (population, runs)."""
        (n, dim), device = state.shape, generator.device
        if self.block is None:
            return torch.randn((n, dim), generator=generator, dtype=state.points.dtype, device=device)
        return torch.randint(n, (n, -(-dim // self.block)), generator=generator, device=device)

    def propose(self, state: RandomSearchState, draws: Tensor) -> Tensor:
        """Candidates: a function of the start points and the draws only."""
        draws = draws.to(state.points.device)
        if self.block is not None:
            return recombined(state.points, draws, self.block)
        return (draws * state.points.std(dim=0)).add_(state.points.mean(dim=0))


def recombined(
    points: Float[Tensor, "population dim"], picks: Int[Tensor, "candidates runs"], block: int
) -> Float[Tensor, "candidates dim"]:
    """Run r of candidate i is run r of the start point ``picks[i, r]``."""
    source = picks.repeat_interleave(block, dim=1)[:, : points.shape[1]]
    return points.gather(0, source)
