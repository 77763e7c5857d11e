"""Any optimiser from elsewhere that asks and is told, under softde's contract.

Elsewhere an optimiser is an object that changes and draws from its own seed; here a state is a value. So the state
keeps what the object was told, and whenever the object at hand is not the state's own (a resumed run, a state used
twice), a new one is made and hears the same losses again. That needs an optimiser that repeats itself from its seed.

pycma's objects ask and are told as the defaults expect::

    import cma, numpy as np
    def make(points, losses, seed):
        normal = np.random.default_rng(seed).standard_normal  # by itself, pycma draws from numpy's global generator
        options = {"randn": lambda *shape: normal(shape), "seed": np.nan, "popsize": 12, "verbose": -9}
        return cma.CMAEvolutionStrategy(points[0], 0.3, options)
    optimizer = Foreign(make, population_size=12)

CyberAgent's ``cmaes`` asks for one candidate at a time and is told pairs::

    import cmaes
    def make(points, losses, seed):
        return cmaes.SepCMA(mean=points[0], sigma=0.3, seed=seed, population_size=12)
    optimizer = Foreign(make, 12, ask_with=lambda es, n: [es.ask() for _ in range(n)],
                        tell_with=lambda es, asked, losses: es.tell(list(zip(asked, losses))))

nevergrad wants its own candidates back; ``numbers`` takes the vectors out of them::

    import nevergrad as ng, numpy as np
    def make(points, losses, seed):
        parameters = ng.p.Array(init=points[0]).set_mutation(sigma=0.3)
        parameters.random_state = np.random.RandomState(seed)
        return ng.optimizers.OnePlusOne(parameters, budget=2000, num_workers=12)
    def tell(es, asked, losses):
        for candidate, loss in zip(asked, losses):
            es.tell(candidate, loss)
    optimizer = Foreign(make, 12, ask_with=lambda es, n: [es.ask() for _ in range(n)], tell_with=tell,
                        numbers=lambda asked: [candidate.value for candidate in asked])

EvoTorch's functional algorithms draw from torch's global generator, which ``ask`` borrows::

    import torch
    from evotorch.algorithms.functional import pgpe, pgpe_ask, pgpe_tell
    class PGPE:
        def __init__(self, points, losses, seed):
            self.seed, self.asks = seed, 0
            self.state = pgpe(center_init=torch.tensor(points[0]), center_learning_rate=0.1, stdev_learning_rate=0.1,
                              objective_sense="min", stdev_init=0.3)
        def ask(self):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed + self.asks)
                self.asks += 1
                return pgpe_ask(self.state, popsize=12)
        def tell(self, asked, losses):
            self.state = pgpe_tell(self.state, asked, torch.tensor(losses))
    optimizer = Foreign(PGPE, 12)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from softde.checks import whole
from softde.optim.base import Info, State, advance, as_losses, as_points, check_tell, comparable, describe

# Objects that are up to date: a state's losses → (adapter, seed, object, what it asked and was not told yet, or None).
LIVE: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


@dataclass(frozen=True, eq=False)
class ForeignState(State):
    """What the object was told, from which it can be made again."""

    points: Tensor  # (population, dim): the start points
    losses: Tensor  # (evaluations,) float64, as they came
    sums: Tensor  # (evaluations,) float64: of each candidate's numbers, to recognise it
    seed: int  # the object's; drawn by the second ask


@dataclass(frozen=True)
class Foreign:
    """An optimiser from elsewhere.

    Nothing of dim numbers is kept but the start points; a resumed run costs the object's own time over again.

    Parameters
    ----------
    make : (points, losses, seed) → the object, all of whose draws must follow from the seed. points (population, dim)
        and losses (population,) are the start points with their losses, float64, the best first.
    population_size : candidates per generation.
    ask_with : (object, population_size) → that many candidates, in whatever form the object has them.
    tell_with : (object, what ask_with returned, losses (population,)); no return value. A candidate that could not be
        scored is told with the worst loss so far, since most optimisers elsewhere take finite losses only.
    numbers : what ask_with returned → (population, dim) numbers.

    Raises
    ------
    ValueError
        If the object does not ask for (population, dim) finite numbers, or does not repeat itself when made again.
    """

    state_type: ClassVar[type[ForeignState]] = ForeignState

    make: Callable[[Any, Any, int], Any]
    population_size: int
    ask_with: Callable[[Any, int], Any] = lambda es, _: es.ask()
    tell_with: Callable[[Any, Any, Any], Any] = lambda es, asked, losses: es.tell(asked, losses)
    numbers: Callable[[Any], Any] = np.asarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "population_size", whole(self.population_size, "population_size", 1))

    def init(self, points: Any) -> ForeignState:
        """Start from points (population_size, dim), float32 or float64."""
        points = as_points(points, self.population_size)
        none = points.new_zeros(0, dtype=torch.float64)
        return ForeignState(points[0].clone(), math.inf, 0, 0, False, len(points), points, none, none, 0)

    def ask(self, state: ForeignState, generator: torch.Generator) -> tuple[Tensor, ForeignState]:
        """Candidates to score, (population, dim): first the start points, then the object's."""
        if state.generation == 0:
            return state.points.clone(), replace(state, asked=True)
        if state.generation == 1:  # from 1: some libraries read 0 as "not seeded"
            seed = torch.randint(1, 2**31 - 1, (), generator=generator, device=generator.device)
            state = replace(state, seed=int(seed))
        es, _ = self._object(state, asked=False)
        asked, candidates = self._ask(es, state)
        LIVE[state.losses] = (self, state.seed, es, asked)
        return candidates, replace(state, asked=True)

    def tell(self, state: ForeignState, candidates: Tensor, losses: Any) -> tuple[ForeignState, Info]:
        """Tell the object; ``Info`` describes the candidates and counts those better than the best before."""
        check_tell(state, candidates)
        losses = as_losses(losses, candidates)
        improved, told = int((comparable(losses) < state.best_loss).sum()), torch.cat([state.losses, losses])
        if state.generation > 0:
            es, asked = self._object(state, asked=True)
            self.tell_with(es, asked, _finite(told)[-len(losses) :])
            LIVE[told] = (self, state.seed, es, None)
        sums = torch.cat([state.sums, candidates.double().sum(dim=1)])
        state = advance(state, candidates, losses, losses=told, sums=sums)
        return state, describe(state, candidates, losses, losses, improved)

    def _object(self, state: ForeignState, asked: bool) -> tuple[Any, Any]:
        """The state's object and what it has asked: the one at hand, or a new one that is told everything again."""
        live, n = LIVE.pop(state.losses, None), self.population_size
        if live is not None and live[:2] == (self, state.seed) and (live[3] is not None) == asked:
            return live[2:]
        losses = _finite(state.losses[:n])
        order = losses.argsort(kind="stable")
        es = self.make(state.points.double().cpu().numpy()[order], losses[order], state.seed)
        for end in range(2 * n, len(state.losses) + 1, n):
            again, candidates = self._ask(es, state)
            if not torch.allclose(candidates.double().sum(dim=1), state.sums[end - n : end], atol=1e-6):
                raise ValueError(
                    "Expected an optimiser that repeats itself, but made again from its seed and told the same losses, "
                    "it asked for other candidates: let everything that make's object draws follow from the seed."
                )
            self.tell_with(es, again, _finite(state.losses[:end])[-n:])
        return es, (self._ask(es, state)[0] if asked else None)

    def _ask(self, es: Any, state: ForeignState) -> tuple[Any, Tensor]:
        """What the object asks, as it is and as a copy in the type and on the device of the start points."""
        asked = self.ask_with(es, self.population_size)
        candidates = torch.tensor(np.asarray(self.numbers(asked)), dtype=state.points.dtype, device=state.points.device)
        if tuple(candidates.shape) != state.shape or not bool(candidates.isfinite().all()):
            raise ValueError(
                f"Expected an optimiser that asks for {state.shape} finite numbers, (population, dim), but got shape "
                f"{tuple(candidates.shape)}: make it for that many candidates, or let ask_with and numbers convert."
            )
        return asked, candidates


def _finite(told: Tensor) -> np.ndarray:
    """The losses told, with the worst so far for those that are not finite."""
    losses = told.cpu().numpy()
    scored = np.isfinite(losses)
    return np.where(scored, losses, losses[scored].max() if scored.any() else 0.0)
