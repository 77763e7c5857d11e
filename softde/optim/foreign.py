"""Any optimiser from elsewhere that asks and is told, under softde's contract.

It is written as its own documentation has it, as a loop that yields what is to be scored and gets the losses back::

    def search(points, losses, seed):
        es = TheirOptimizer(start=points[losses.argmin()], seed=seed)
        while True:
            x = es.ask()
            losses = yield x
            es.tell(x, losses)

Elsewhere an optimiser is an object that changes and draws from its own seed; here a state is a value. So the state
keeps what the search was told, and where the loop itself is not at hand (a resumed run, a state used twice), it begins
anew and hears the same losses again. That needs a search that repeats itself from its seed.

pycma::

    import cma, numpy as np
    def search(points, losses, seed):
        normal = np.random.default_rng(seed).standard_normal  # by itself, pycma draws from numpy's global generator
        options = {"randn": lambda *shape: normal(shape), "seed": np.nan, "popsize": 12, "verbose": -9}
        es = cma.CMAEvolutionStrategy(points[losses.argmin()], 0.3, options)
        while True:
            x = es.ask()
            es.tell(x, (yield x))
    optimizer = Foreign(search, population_size=12)

CyberAgent's ``cmaes`` asks for one candidate at a time and is told pairs::

    import cmaes
    def search(points, losses, seed):
        es = cmaes.SepCMA(mean=points[losses.argmin()], sigma=0.3, seed=seed, population_size=12)
        while True:
            x = [es.ask() for _ in range(12)]
            es.tell(list(zip(x, (yield x))))
    optimizer = Foreign(search, 12)

nevergrad wants its own candidates back::

    import nevergrad as ng, numpy as np
    def search(points, losses, seed):
        parameters = ng.p.Array(init=points[losses.argmin()]).set_mutation(sigma=0.3)
        parameters.random_state = np.random.RandomState(seed)
        es = ng.optimizers.OnePlusOne(parameters, budget=2000, num_workers=12)
        while True:
            asked = [es.ask() for _ in range(12)]
            losses = yield [candidate.value for candidate in asked]
            for candidate, loss in zip(asked, losses):
                es.tell(candidate, loss)
    optimizer = Foreign(search, 12)

EvoTorch's functional algorithms draw from torch's global generator, which is borrowed::

    import itertools, torch
    from evotorch.algorithms.functional import pgpe, pgpe_ask, pgpe_tell
    def search(points, losses, seed):
        best = torch.tensor(points[losses.argmin()])
        state = pgpe(center_init=best, center_learning_rate=0.1, stdev_learning_rate=0.1, objective_sense="min",
                     stdev_init=0.3)
        for generation in itertools.count():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + generation)
                x = pgpe_ask(state, popsize=12)
            losses = yield x
            state = pgpe_tell(state, x, torch.tensor(losses))
    optimizer = Foreign(search, 12)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from softde.checks import shown, whole
from softde.optim.base import (
    Info,
    State,
    advance,
    as_candidates,
    as_losses,
    as_points,
    check_ask,
    check_tell,
    comparable,
    describe,
    filled,
)


@dataclass(frozen=True, eq=False)
class ForeignState(State):
    """What the search was told, from which it can begin anew."""

    points: Tensor  # (population, dim): the start points
    told: Tensor  # (generations, 2, population) float64: losses as told, and each candidate's sum, to recognise it
    seed: int  # the search's; drawn by the second ask, 0 before
    live: list[Any] = field(default_factory=list, compare=False)  # the search itself, where nobody else has asked it on


@dataclass(frozen=True)
class Foreign:
    """An optimiser from elsewhere.

    Nothing of dim numbers is kept but the start points; a resumed run costs the search's own time over again.

    Parameters
    ----------
    search : (points, losses, seed) → a generator that yields candidates (population, dim), in any form that NumPy
        reads, and is sent their losses (population,), without end. All that it draws must follow from the seed. points
        (population, dim) and losses (population,) are the start points with theirs. What it is given is float64. A
        candidate that could not be scored has the worst loss so far, since most optimisers take finite losses only.
    population_size : candidates per generation.

    Raises
    ------
    ValueError
        If the search is no function, makes no generator, ends, yields something else, or does not repeat itself when
        begun anew.
    """

    state_type: ClassVar[type[ForeignState]] = ForeignState

    search: Callable[[Any, Any, int], Generator[Any, Any, Any]]
    population_size: int

    def __post_init__(self) -> None:
        if not callable(self.search):
            raise ValueError(
                f"search: expected a function (points, losses, seed) that yields candidates, got {shown(self.search)}"
            )
        object.__setattr__(self, "population_size", whole(self.population_size, "population_size", 1))

    def init(self, points: Any) -> ForeignState:
        """Start from points (population_size, dim), float32 or float64."""
        points = as_points(points, self.population_size)
        told = points.new_zeros((0, 2, len(points)), dtype=torch.float64)
        return ForeignState(points[0].clone(), math.inf, 0, 0, False, len(points), points, told, 0)

    def ask(self, state: ForeignState, generator: torch.Generator) -> tuple[Tensor, ForeignState]:
        """Candidates to score, (population, dim): first the start points, then the search's."""
        check_ask(self, state, generator)
        if state.generation == 0:
            return state.points.clone(), replace(state, asked=True)
        seed = state.seed or int(torch.randint(1, 2**31 - 1, (), generator=generator, device=generator.device))
        told, first = state.told.cpu().numpy().copy(), state.generation if state.live else 1
        search = (state.live or [self._begin(state, told[0, 0], seed)]).pop()
        for step in range(first, state.generation + 1):  # the next one, or all over again
            try:
                asked = search.send(told[step - 1, 0] if step > 1 else None)
            except StopIteration:
                raise ValueError("Expected a search that goes on for ever, but it ended: use `while True`.") from None
            candidates = as_candidates(asked, state)
            if step < state.generation and not np.allclose(candidates.double().sum(1).cpu(), told[step, 1], atol=1e-6):
                raise ValueError(
                    "Expected a search that repeats itself, but begun anew it asked for others: seed all its draws."
                )
        return candidates, replace(state, asked=True, seed=seed, live=[search])

    def _begin(self, state: ForeignState, losses: Any, seed: int) -> Generator[Any, Any, Any]:
        search = self.search(state.points.cpu().numpy().astype(float), losses, seed)
        if not hasattr(search, "send"):
            raise ValueError(
                f"Expected a search that is a generator, but got {shown(search)}: let it `yield` candidates, "
                "and get their losses back, in a loop."
            )
        return search

    def tell(self, state: ForeignState, candidates: Tensor, losses: Any) -> tuple[ForeignState, Info]:
        """Note the losses; ``Info`` describes the candidates and counts those better than the best before."""
        check_tell(self, state, candidates)
        losses = as_losses(losses, candidates)
        told = torch.stack([filled(losses, state.told[:, 0]), candidates.double().sum(dim=1)])
        improved = int((comparable(losses) < state.best_loss).sum())
        state = advance(state, candidates, losses, told=torch.cat([state.told, told[None]]))
        return state, describe(state, candidates, losses, losses, improved)
