"""Optimisers by name: each with the settings that suit a few hundred to some thousand candidates.

Steps are in units of x, in which start points have unit spread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from softde.checks import whole
from softde.optim.adaptive import JADE, JDE, JSO, LSHADE, SHADE
from softde.optim.base import Optimizer
from softde.optim.cmaes import CMAES
from softde.optim.de import DE
from softde.optim.es import SPSA, OnePlusOneES, OpenAIES
from softde.optim.gauss_newton import GaussNewton
from softde.optim.policies import Screen
from softde.optim.pso import PSO
from softde.optim.random_search import RandomSearch
from softde.optim.subspace import Subspace, bbt


class Task(NamedTuple):
    """What an optimiser is wanted for; n, candidates per generation, is None where its own will do."""

    dim: int
    budget: int
    n: int | None


Made = Callable[[Task], Optimizer[Any]]

INTRINSIC_DIM = 200  # docs/optimizers.md
STARTS = 64


def starts_for(budget: int, population: int) -> int:
    """Start points to choose from: up to a tenth of the budget, and no fewer than the population."""
    return max(population, min(STARTS, budget // 10))


def screened(optimizer: Optimizer[Any], budget: int) -> Optimizer[Any]:
    """Begins at the best of many start points."""
    starts = starts_for(budget, optimizer.population_size)
    return Screen(optimizer, starts) if starts > optimizer.population_size else optimizer


def local(search: Optimizer[Any], task: Task) -> Optimizer[Any]:
    """Around the best start point, in a random subspace where there are more numbers than it has dimensions."""
    if task.dim <= INTRINSIC_DIM:
        return screened(search, task.budget)
    return Subspace(search, INTRINSIC_DIM, starts=starts_for(task.budget, search.population_size))


BY_NAME: dict[str, Made] = {
    "de": lambda task: DE(task.n or 24, "currenttopbest1bin", F=(0.4, 0.9), CR=0.9, p=0.15),
    "jde": lambda task: JDE(task.n or 24),
    "jade": lambda task: JADE(task.n or 24),
    "shade": lambda task: screened(SHADE(task.n or 8), task.budget),
    "shade-gn": lambda task: screened(GaussNewton(SHADE(task.n or 8)), task.budget),
    "lshade": lambda task: LSHADE(task.n or 32, budget=task.budget),
    "jso": lambda task: JSO(task.n or 32, budget=task.budget),
    "cma": lambda task: local(CMAES(task.n or 16), task),
    "cma-gn": lambda task: local(GaussNewton(CMAES(task.n or 16)), task),
    "cma-diagonal": lambda task: screened(CMAES(task.n or 16, covariance="diagonal"), task.budget),
    "bbt": lambda task: bbt(task.n or 20, intrinsic_dim=min(500, task.dim)),
    "es": lambda task: OpenAIES(task.n or 16),
    "es-wide": lambda task: OpenAIES(task.n or 16, sigma=1.0),
    "spsa": lambda task: SPSA(task.n or 16),
    "1+1": lambda task: OnePlusOneES(task.n or 16),
    "pso": lambda task: PSO(task.n or 24),
    "random": lambda task: RandomSearch(task.n or 24),
}
AUTO = "auto"  # softde.optim.auto
NAMES = (AUTO, *BY_NAME)


def named(name: str, dim: int, budget: int, population: int | None = None) -> Optimizer[Any]:
    """The optimiser of that name for a search over `dim` numbers with `budget` candidates.

    population : candidates per generation; default: the setting's own.
    """
    if name not in BY_NAME:
        raise ValueError(f"optimizer: expected one of {', '.join(NAMES)}, got {name!r}")
    size = None if population is None else whole(population, "population", 1)
    return BY_NAME[name](Task(whole(dim, "dim", 1), whole(budget, "budget", 1), size))
