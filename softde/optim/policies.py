"""Ways to spend a budget that suit any optimiser: choose where to start, and change over on the way.

Each is an optimiser that holds others, and keeps the contract itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from softde.checks import put, whole
from softde.optim.base import (
    Bounded,
    Info,
    Optimizer,
    State,
    advance,
    as_losses,
    as_points,
    as_residuals,
    check_ask,
    check_optimizer,
    check_state,
    check_tell,
    comparable,
    describe,
    informed,
    passed_on,
    recommendation,
)
from softde.optim.bounds import bounds_of, within_bounds

Optimiser = Optimizer[Any]


@dataclass(frozen=True, eq=False)
class ScreenState(State):
    """The start points until they are scored, then the state of the search among them."""

    points: Tensor  # (starts, dim); (0, dim) once they are scored
    optimizer: State | None


@dataclass(frozen=True)
class Screen:
    """Score many start points, and begin the search with the best of them.

    The inner optimiser is told the losses that are known already, so that nothing is asked twice: a search with
    population n from `starts` points costs `starts` candidates, then n each generation. Start points
    beyond the search's bounds are put on them before they are scored.

    Parameters
    ----------
    optimizer : the search. starts : start points, at least its population.
    """

    state_type: ClassVar[type[ScreenState]] = ScreenState

    optimizer: Optimiser
    starts: int = 64

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer)
        put(self, {"starts": whole(self.starts, "starts")})
        if self.starts < self.optimizer.population_size:
            raise ValueError(
                f"Expected at least as many starts as the population has candidates, {self.optimizer.population_size}, "
                f"but got {self.starts}: raise starts or lower population_size."
            )

    @property
    def population_size(self) -> int:
        """Candidates of the first generation."""
        return self.starts

    @property
    def bounds(self) -> Any:
        """Those of the search, or None."""
        return bounds_of(self.optimizer)

    def init(self, points: Any) -> ScreenState:
        """Start from points (starts, dim), float32 or float64."""
        points = within_bounds(as_points(points, self.starts), self.optimizer)
        check_beginning(self.optimizer, points)
        return ScreenState(points[0].clone(), math.inf, 0, 0, False, self.starts, points, None)

    def ask(self, state: ScreenState, generator: torch.Generator) -> tuple[Tensor, ScreenState]:
        """The start points, then what the search asks."""
        check_ask(self, state, generator)
        if state.optimizer is None:
            return state.points.clone(), replace(state, asked=True)
        candidates, inner = self.optimizer.ask(state.optimizer, generator)
        return candidates, replace(state, asked=True, optimizer=inner)

    def inform(self, state: ScreenState, residuals: Any) -> ScreenState:
        """Give the search residuals, if it can use them; those of start points are not used."""
        check_state(self, state, "inform")
        if state.optimizer is None:
            as_residuals(residuals, state)
            return state
        return replace(state, optimizer=informed(self.optimizer, state.optimizer, residuals))

    def tell(self, state: ScreenState, candidates: Tensor, losses: Any) -> tuple[ScreenState, Info]:
        """Choose among the start points, or tell the search."""
        check_state(self, state, "tell")
        check_tell(self, state, candidates, within=state.optimizer is not None)
        losses = as_losses(losses, candidates)
        if state.optimizer is None:
            return self._chosen(state, candidates, losses)
        inner, info = self.optimizer.tell(state.optimizer, candidates, losses)
        state = advance(state, candidates, losses, optimizer=inner, population_size=inner.population_size)
        return state, passed_on(info, state)

    def bound(self, state: ScreenState) -> Tensor | None:
        """That of the search; start points are scored exactly."""
        return None if state.optimizer is None else bound_of(self.optimizer, state.optimizer)

    def recommend(self, state: ScreenState) -> Tensor:
        """That of the search."""
        return state.best_x if state.optimizer is None else recommendation(self.optimizer, state.optimizer)

    def _chosen(self, state: ScreenState, candidates: Tensor, losses: Tensor) -> tuple[ScreenState, Info]:
        best = best_of(losses, self.optimizer.population_size)
        inner = begun(self.optimizer, candidates[best], losses[best])
        info_state = advance(state, candidates, losses, points=candidates[:0], optimizer=inner)
        info = describe(info_state, candidates, losses, losses, improved=int(losses.isfinite().sum()))
        return replace(info_state, population_size=inner.population_size), info


@dataclass(frozen=True, eq=False)
class TwoStageState(State):
    """Both searches; `then` is None during the first."""

    first: State
    then: State | None
    elite: Tensor  # (n, dim), the best candidates so far, best first
    elite_losses: Tensor  # (n,) float64


@dataclass(frozen=True)
class TwoStage:
    """One optimiser until it has spent its share, then another that begins with the best candidates so far.

    Parameters
    ----------
    first : a global search. then : a local one. evaluations : candidates that the first may score; with a budget that
        is no larger the second never begins.
    """

    state_type: ClassVar[type[TwoStageState]] = TwoStageState

    first: Optimiser
    then: Optimiser
    evaluations: int = field(default=1_000)

    def __post_init__(self) -> None:
        check_optimizer(self.first, "first")
        check_optimizer(self.then, "then")
        if bounds_of(self.then) not in (None, bounds_of(self.first)):
            raise ValueError(
                f"Expected two searches within the same bounds, but they are {bounds_of(self.first)!r} and "
                f"{bounds_of(self.then)!r}; give both the same, so that the second can begin where the first ends."
            )
        put(self, {"evaluations": whole(self.evaluations, "evaluations")})
        least = max(self.first.population_size, self.then.population_size)
        if self.evaluations < least:
            raise ValueError(
                f"Expected evaluations to pay for the larger of the two populations, {least}, but got "
                f"{self.evaluations}: raise evaluations."
            )

    @property
    def population_size(self) -> int:
        """Candidates of the first generation."""
        return self.first.population_size

    @property
    def bounds(self) -> Any:
        """Those of the first search, or None."""
        return bounds_of(self.first)

    def init(self, points: Any) -> TwoStageState:
        """Start from points (population, dim) of the first search."""
        inner = self.first.init(points)
        check_beginning(self.then, as_points(points, self.first.population_size))
        elite = inner.best_x.new_zeros((0, len(inner.best_x)))
        losses = torch.zeros(0, dtype=torch.float64, device=elite.device)
        first = inner.best_x.clone()
        return TwoStageState(first, math.inf, 0, 0, False, inner.population_size, inner, None, elite, losses)

    def ask(self, state: TwoStageState, generator: torch.Generator) -> tuple[Tensor, TwoStageState]:
        """What the search of the moment asks."""
        check_ask(self, state, generator)
        if state.then is None:
            candidates, first = self.first.ask(state.first, generator)
            return candidates, replace(state, asked=True, first=first)
        candidates, then = self.then.ask(state.then, generator)
        return candidates, replace(state, asked=True, then=then)

    def inform(self, state: TwoStageState, residuals: Any) -> TwoStageState:
        """Give the search of the moment residuals, if it can use them."""
        check_state(self, state, "inform")
        if state.then is None:
            return replace(state, first=informed(self.first, state.first, residuals))
        return replace(state, then=informed(self.then, state.then, residuals))

    def tell(self, state: TwoStageState, candidates: Tensor, losses: Any) -> tuple[TwoStageState, Info]:
        """Tell the search of the moment; change over when the first could not pay for another generation."""
        check_tell(self, state, candidates, within=True)
        losses = as_losses(losses, candidates)
        if state.then is not None:
            then, info = self.then.tell(state.then, candidates, losses)
            state = advance(state, candidates, losses, then=then, population_size=then.population_size)
            return state, passed_on(info, state)
        first, info = self.first.tell(state.first, candidates, losses)
        pool, pooled = torch.cat([state.elite, candidates]), torch.cat([state.elite_losses, losses])
        best = best_of(pooled, self.then.population_size)
        state = advance(
            state, candidates, losses,
            first=first, elite=pool[best], elite_losses=pooled[best], population_size=first.population_size,
        )  # fmt: skip
        if state.evaluations + first.population_size > self.evaluations and len(best) == self.then.population_size:
            then = begun(self.then, state.elite, state.elite_losses)
            state = replace(state, then=then, population_size=then.population_size)
        return state, info

    def bound(self, state: TwoStageState) -> Tensor | None:
        """That of the second search; the first's losing candidates may be among the best, so it has none."""
        return None if state.then is None else bound_of(self.then, state.then)

    def recommend(self, state: TwoStageState) -> Tensor:
        """That of the search of the moment."""
        if state.then is None:
            return recommendation(self.first, state.first)
        return recommendation(self.then, state.then)


def best_of(losses: Float[Tensor, " candidates"], n: int) -> Int[Tensor, " best"]:
    """Which n have the lowest losses, the lowest first; ties in their order."""
    return comparable(losses).argsort(stable=True)[:n]


def check_beginning(optimizer: Optimiser, points: Float[Tensor, "points dim"]) -> None:
    """Refuse, before anything is scored, a dimension or a kind of points that a search would refuse once it begins."""
    rows = torch.arange(optimizer.population_size, device=points.device) % len(points)
    optimizer.init(points[rows])


def begun(optimizer: Optimiser, points: Tensor, losses: Tensor) -> State:
    """A search whose start points are scored already."""
    candidates, state = optimizer.ask(optimizer.init(points), torch.Generator(points.device))
    told: State = optimizer.tell(state, candidates, losses)[0]
    return told


def bound_of(optimizer: Optimiser, state: Any) -> Tensor | None:
    """The bound of an optimiser that has one."""
    return optimizer.bound(state) if isinstance(optimizer, Bounded) else None
