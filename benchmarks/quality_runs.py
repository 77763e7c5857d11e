"""One search of the quality benchmark: a case, a meter that counts and reads off, and what drives it."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import problems
import torch
from numpy.typing import NDArray
from torch import Tensor

from softde.optim import Optimizer, Scored, generator_for, step
from softde.optim.base import as_scored, recommendation

ReadoutKind = Literal["smooth", "coarse", "noisy"]

Array = NDArray[Any]
KINDS: dict[str, ReadoutKind] = {
    "argmax8": "coarse", "argmax1": "coarse", "argmax": "coarse", "generated": "coarse", "sample8": "noisy",
    "sampled": "noisy",
}  # fmt: skip


class Case(NamedTuple):
    """What is solved: the seed decides the problem's matrices, the start points and the search's draws."""

    problem: str
    dim: int
    seed: int
    budget: int

    @property
    def kind(self) -> ReadoutKind:
        """What the read-out does to the loss: "smooth", "coarse" or "noisy"."""
        return next((KINDS[word] for word in self.problem.split() if word in KINDS), "smooth")


class SpentError(Exception):
    """The next population is more than the budget pays for."""


@dataclass(eq=False)
class Meter:
    """The objective as a search sees it: it counts, keeps the best, and reads off at the marks.

    What is read off at a mark is what a search with that budget would have returned: the best loss, or of a noisy
    problem the true loss of the point that the search recommends (`guess`; the best seen where it names none).
    """

    problem: problems.Problem
    case: Case
    marks: tuple[int, ...]
    evaluations: int = 0
    best: float = math.inf
    best_x: Tensor | None = None
    guess: Tensor | None = None
    losses: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.noise = torch.Generator().manual_seed(4_000_037 * self.case.seed + 1)

    def __call__(self, x: Tensor | Array) -> Tensor:
        """(population, dim) → (population,) float64."""
        losses: Tensor = self.scored(x).losses
        return losses

    def scored(self, x: Tensor | Array) -> Scored:
        """The same, and the signed errors (population, factors) of a problem that has some."""
        points = torch.as_tensor(x)
        self.read_off(self.evaluations + len(points))
        if self.evaluations + len(points) > self.case.budget:
            raise SpentError
        scored = as_scored(self.problem(points, self.noise))
        losses = scored.losses.double()
        self.evaluations += len(points)
        row = int(losses.argmin())
        if float(losses[row]) < self.best:
            self.best, self.best_x = float(losses[row]), points[row].clone()
        return Scored(losses, scored.residuals)

    def read_off(self, after: float) -> None:
        """Note what counts at every mark that lies before `after` evaluations and within the budget."""
        for mark in self.marks:
            if mark not in self.losses and self.best_x is not None and mark < after and mark <= self.case.budget:
                self.losses[mark] = self.found()

    def found(self) -> float:
        """The loss of what the search would return now."""
        if not self.problem.noisy:
            return self.best
        point = self.best_x if self.guess is None else self.guess
        assert point is not None
        return self.problem.true(point)


class Config(Protocol):
    """A row of the tables: an optimiser with its settings."""

    @property
    def name(self) -> str: ...
    def missing(self, case: Case) -> str:
        """Why it cannot be run, or nothing."""

    def settings(self, case: Case) -> str:
        """Everything that was chosen about the search; a record with other settings is out of date."""

    def run(self, meter: Meter) -> None:
        """Search until `SpentError`."""


@dataclass(frozen=True)
class Ours:
    """An optimiser of softde; `spread` is that of the start points around x0."""

    name: str
    make: Callable[[Case], Optimizer[Any]]
    spread: float = 1.0
    largest: int = 10**9  # dimension up to which a variant is worth its time

    def missing(self, case: Case) -> str:
        return f"run up to {self.largest:,} dimensions only" if case.dim > self.largest else ""

    def settings(self, case: Case) -> str:
        return f"{self.make(case)!r} from a spread of {self.spread:g}"

    def run(self, meter: Meter) -> None:
        case = meter.case
        optimizer = self.make(case)
        state = optimizer.init(problems.starts(case.dim, case.seed, optimizer.population_size, self.spread))
        while True:
            state = step(optimizer, state, meter.scored, generator_for(case.seed, state.generation)).state
            meter.guess = recommendation(optimizer, state)


@dataclass(frozen=True)
class Peer:
    """Somebody else's optimiser, driven as its documentation says."""

    name: str
    package: str
    drive: Callable[[Meter, Any], None]
    population: int = 32
    spread: float = 1.0
    largest: int = 10**9  # dimension beyond which it is too slow to be run

    def missing(self, case: Case) -> str:
        if case.dim > self.largest:
            return f"too slow above {self.largest:,} dimensions"
        return "" if importlib.util.find_spec(self.package) else f"{self.package} is not installed"

    def settings(self, case: Case) -> str:
        return f"{self.name}, population {self.population} from a spread of {self.spread:g}"

    def run(self, meter: Meter) -> None:
        case = meter.case
        np.random.seed(case.seed)  # noqa: NPY002  some of them draw from the global state
        torch.manual_seed(case.seed)
        self.drive(meter, problems.starts(case.dim, case.seed, self.population, self.spread).double().numpy())


def marks(config: Config, case: Case, budgets: Collection[int]) -> tuple[int, ...]:
    """Budgets whose search is the beginning of this one: those with the same settings."""
    mine = config.settings(case)
    return tuple(b for b in sorted(budgets) if b <= case.budget and config.settings(case._replace(budget=b)) == mine)


def run(config: Config, case: Case, budgets: Collection[int]) -> dict[str, Any]:
    """One search, as a record; it is read off at smaller budgets where it is their search too."""
    read_at = marks(config, case, {*budgets, case.budget})
    meter = Meter(problems.make(case.problem, case.dim, case.seed), case, read_at)
    started = time.process_time()
    with suppress(SpentError):
        config.run(meter)
    meter.read_off(math.inf)
    return {
        "problem": case.problem, "dim": case.dim, "config": config.name, "seed": case.seed, "budget": case.budget,
        "losses": {str(mark): float(f"{loss:.6g}") for mark, loss in meter.losses.items()},
        "settings": config.settings(case), "evaluations": meter.evaluations,
        "seconds": round(time.process_time() - started, 3),
    }  # fmt: skip
