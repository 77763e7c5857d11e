"""Rows of the overhead benchmark: how softde's optimisers and those of other libraries are driven, one generation at a
time and with fitness from a table, and how many bytes each must touch at least.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softde.optim import DE, Optimizer, generator_for
from softde.optim.adaptive import JADE, JSO, LSHADE, SHADE
from softde.optim.base import informed
from softde.optim.cmaes import CMAES
from softde.optim.es import SPSA, OpenAIES
from softde.optim.gauss_newton import WINDOW, GaussNewton
from softde.optim.named import INTRINSIC_DIM
from softde.optim.pso import PSO
from softde.optim.random_search import RandomSearch
from softde.optim.subspace import Subspace

SUBSPACE = 500  # dimensions of the search in a subspace
TOKEN = 4096  # coordinates of one soft token of Llama-3-8B
IMPROVING = 0.3  # of the trials
RESIDUALS = 6  # scores of the VSM13
FAR = 1e9  # generations: schedules must not end while they are timed
BOUND = 5.0  # for libraries that cannot do without bounds; the start points have unit spread

Generation = Callable[[], object]  # ask, tell; what it returns is waited for
Drive = Callable[[Tensor, Iterator[np.ndarray]], Generation]  # from start points (population, dim) and fitness


# ---- bytes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Floor:
    """What an algorithm must read or write at least, whoever writes it, in float32: every number once, caches perfect,
    nothing but its result written; drawn numbers are read, not drawn again. Vectors (dim,) are left out.

    arrays : in arrays of the population's size. matrix : rows of a matrix (rows, dim) that is read.
    """

    arrays: float
    why: str
    matrix: int = 0

    def bytes(self, n: int, dim: int) -> float:
        return 4.0 * dim * (self.arrays * n + self.matrix)


DE_FLOOR = Floor(2, "DE: members are read once, trials written once; an accepted trial need not move")
ARCHIVE_FLOOR = Floor(2.4, "with an archive of NP: as DE, and 1 − e^(−1/2) = 0.39 of it is read, being drawn as donor")
LARGE_ARCHIVE_FLOOR = Floor(2.6, "with an archive of 2.6 NP: as DE, and 2.6 (1 − e^(−1/3.6)) = 0.63 arrays are read")
SAMPLE_FLOOR = Floor(1, "random search: candidates are written")
UPDATE_FLOOR = Floor(2, "CMA, SNES, CEM: candidates are written, and read for the update of mean and variance")
PAIRS_FLOOR = Floor(1.5, "antithetic pairs: candidates are written, one of each pair is read for the update")
SWARM_FLOOR = Floor(5.3, "PSO: position, velocity and own best are read, the former two and 30 % of the latter written")
SUBSPACE_FLOOR = Floor(1, f"subspace: candidates are written, the {SUBSPACE} × dim matrix is read", SUBSPACE)
STEPS_FLOOR = Floor(
    WINDOW + 1.2,
    f"shade-gn, GaussNewton(SHADE(n)): the candidates of {WINDOW} generations are read for the steps, trials written; "
    f"0.7^{WINDOW} = 0.24 of the members are older, and read as well",
)
SUBSPACE_STEPS_FLOOR = Floor(
    1,
    f"cma-gn, Subspace(GaussNewton(CMAES(n)), {INTRINSIC_DIM}): candidates are written, the {INTRINSIC_DIM} × dim "
    "matrix is read; steps are made in the subspace",
    INTRINSIC_DIM,
)


@dataclass(frozen=True)
class Row:
    """One optimiser.

    package : what has to be installed; "" for softde itself. alone : not timed beside others unless it is named, since
    after its large float64 arrays they get their memory in another way (pymoo in two thirds of the time).
    """

    name: str
    package: str
    floor: Floor
    drive: Drive
    alone: bool = False

    @property
    def ours(self) -> bool:
        return not self.package

    @property
    def shown(self) -> str:
        """Its name in a Markdown table."""
        return f"**softde {self.name}**" if self.ours else self.name

    @property
    def missing(self) -> bool:
        try:
            importlib.import_module(MODULES.get(self.package, self.package) if self.package else "softde")
        except ImportError:
            return True
        return False


MODULES = {"pycma": "cma"}  # where the module is not called as the package is
DISTRIBUTIONS = {"pycma": "cma"}
LIBRARIES = ("scipy", "pymoo", "nevergrad", "pycma", "cmaes", "evosax", "evox", "evotorch")


def installed(library: str) -> str:
    """Its name and version, or that it is not installed."""
    try:
        return f"{library} {version(DISTRIBUTIONS.get(library, library))}"
    except PackageNotFoundError:
        return f"{library} not installed"


def fitness(n: int) -> Iterator[np.ndarray]:
    """Losses (n,), generation by generation: 30 % of the trials beat whatever was there, all others lose."""
    rng = np.random.default_rng(0)
    yield 1 + rng.random(n)
    for generation in itertools.count(1):
        better = rng.permutation(n) < round(IMPROVING * n)
        yield np.where(better, -generation, 10.0) - rng.random(n)


# ---- softde ----------------------------------------------------------------------------------------------------------


def ours(make: Callable[[int], Optimizer[Any]], residuals: int = 0) -> Drive:
    """residuals : told of each candidate beside its loss: signed, from a table of their own."""

    def drive(points: Tensor, losses: Iterator[np.ndarray]) -> Generation:
        optimizer, device = make(len(points)), points.device
        state, signed = optimizer.init(points), np.random.default_rng(1)

        def generation() -> object:
            nonlocal state
            candidates, asked = optimizer.ask(state, generator_for(0, state.generation, device))
            if residuals:
                asked = informed(optimizer, asked, signed.standard_normal((len(candidates), residuals)))
            state, info = optimizer.tell(asked, candidates, torch.from_numpy(next(losses))[: len(candidates)])
            return info

        return generation

    return drive


OURS = [
    Row("DE rand1bin", "", DE_FLOOR, ours(lambda n: DE(population_size=n))),
    Row("DE rand1bin, per token", "", DE_FLOOR, ours(lambda n: DE(population_size=n, unit=TOKEN))),
    Row("JADE", "", ARCHIVE_FLOOR, ours(lambda n: JADE(population_size=n))),
    Row("SHADE", "", ARCHIVE_FLOOR, ours(lambda n: SHADE(population_size=n))),
    Row("SHADE, per token", "", ARCHIVE_FLOOR, ours(lambda n: SHADE(population_size=n, unit=TOKEN))),
    Row("LSHADE", "", LARGE_ARCHIVE_FLOOR, ours(lambda n: LSHADE(population_size=n, budget=int(FAR)))),
    Row("JSO", "", ARCHIVE_FLOOR, ours(lambda n: JSO(population_size=n, budget=int(FAR)))),
    Row("CMAES, diagonal", "", UPDATE_FLOOR, ours(lambda n: CMAES(population_size=n, covariance="diagonal"))),
    Row(f"Subspace(CMAES, {SUBSPACE})", "", SUBSPACE_FLOOR,
        ours(lambda n: Subspace(CMAES(population_size=n), SUBSPACE))),
    Row("shade-gn", "", STEPS_FLOOR, ours(lambda n: GaussNewton(SHADE(population_size=n)), RESIDUALS), True),
    Row("cma-gn", "", SUBSPACE_STEPS_FLOOR,
        ours(lambda n: Subspace(GaussNewton(CMAES(population_size=n)), INTRINSIC_DIM), RESIDUALS), True),
    Row("OpenAIES", "", PAIRS_FLOOR, ours(lambda n: OpenAIES(population_size=n))),
    Row("SPSA", "", PAIRS_FLOOR, ours(lambda n: SPSA(population_size=n))),
    Row("PSO", "", SWARM_FLOOR, ours(lambda n: PSO(population_size=n))),
    Row("RandomSearch", "", SAMPLE_FLOOR, ours(lambda n: RandomSearch(population_size=n))),
]  # fmt: skip


# ---- others ----------------------------------------------------------------------------------------------------------


def scipy_de(strategy: str) -> Drive:
    """The private solver behind ``differential_evolution``, whole populations at a time."""

    def drive(points: Tensor, losses: Iterator[np.ndarray]) -> Generation:
        from scipy.optimize._differentialevolution import DifferentialEvolutionSolver

        solver = DifferentialEvolutionSolver(
            lambda _: next(losses), [(-BOUND, BOUND)] * points.shape[1], strategy=strategy, mutation=0.5,
            recombination=0.9, init=points.double().numpy(), vectorized=True, updating="deferred", polish=False,
            tol=0.0, rng=1,
        )  # fmt: skip
        return lambda: next(solver)

    return drive


def pymoo_de(points: Tensor, losses: Iterator[np.ndarray]) -> Generation:
    from pymoo.algorithms.soo.nonconvex.de import DE
    from pymoo.core.evaluator import Evaluator
    from pymoo.core.problem import Problem
    from pymoo.problems.static import StaticProblem

    problem = Problem(n_var=points.shape[1], n_obj=1, n_constr=0, xl=-BOUND, xu=BOUND)
    search = DE(pop_size=len(points), variant="DE/rand/1/bin", F=0.5, CR=0.9, sampling=points.double().numpy())
    search.setup(problem, termination=("n_gen", int(FAR)), seed=1)

    def generation() -> object:
        asked = search.ask()
        Evaluator().eval(StaticProblem(problem, F=next(losses)[:, None]), asked)
        return search.tell(infills=asked)

    return generation


def nevergrad_de(crossover: float | str) -> Drive:
    """One candidate at a time, as it is made; a population is asked, then told."""

    def drive(points: Tensor, losses: Iterator[np.ndarray]) -> Generation:
        import nevergrad

        n, dim = points.shape
        space = nevergrad.p.Array(init=np.zeros(dim))
        space.random_state.seed(1)
        make = nevergrad.optimizers.DifferentialEvolution(popsize=n, crossover=crossover)
        search = make(space, budget=int(FAR), num_workers=n)

        def generation() -> object:
            asked = [search.ask() for _ in range(n)]
            for candidate, loss in zip(asked, next(losses).tolist(), strict=True):
                search.tell(candidate, loss)
            return asked

        return generation

    return drive


def pycma(vkd: bool) -> Drive:
    def drive(points: Tensor, losses: Iterator[np.ndarray]) -> Generation:
        import cma
        from cma.restricted_gaussian_sampler import GaussVkDSampler

        given = {"popsize": len(points), "verbose": -9, "seed": 1}
        given = GaussVkDSampler.extend_cma_options(given) if vkd else given | {"CMA_diagonal": True}
        search = cma.CMAEvolutionStrategy(points[0].double().numpy(), 0.3, given)

        def generation() -> object:
            asked = search.ask()
            search.tell(asked, next(losses).tolist())
            return asked

        return generation

    return drive


def cmaes_separable(points: Tensor, losses: Iterator[np.ndarray]) -> Generation:
    from cmaes import SepCMA

    search = SepCMA(points[0].double().numpy(), 0.3, population_size=len(points), seed=1)

    def generation() -> object:
        asked = [search.ask() for _ in range(len(points))]
        return search.tell(list(zip(asked, next(losses).tolist(), strict=True)))

    return generation


def evosax(name: str, from_population: bool = False) -> Drive:
    """Its own compiled ask and tell; the first calls compile."""

    def drive(points: Tensor, losses: Iterator[np.ndarray]) -> Generation:
        import evosax.algorithms
        import jax

        start = jax.numpy.asarray(points.numpy())
        search = getattr(evosax.algorithms, name)(population_size=len(points), solution=start[0])
        params, keys = search.default_params, jax.random.key(1)
        if from_population:  # DE: base "rand", as the other libraries here
            params = params.replace(elitism=False, differential_weight=0.5, differential_weight_min=0.5,
                                    differential_weight_max=0.5)  # fmt: skip
            state = search.init(keys, start, jax.numpy.asarray(next(losses)), params)
        else:
            state = search.init(keys, start[0], params)

        def generation() -> object:
            nonlocal state, keys
            keys, first, second = jax.random.split(keys, 3)
            asked, state = search.ask(first, state, params)
            asked.block_until_ready()  # it would be scored now
            state, metrics = search.tell(second, asked, jax.numpy.asarray(next(losses)), state, params)
            return jax.block_until_ready((state, metrics))

        return generation

    return drive


def evox(name: str) -> Drive:
    """``step`` asks, scores and tells."""

    def drive(points: Tensor, losses: Iterator[np.ndarray]) -> Generation:
        import evox.algorithms

        scored = {"evaluate": lambda _, x: torch.from_numpy(next(losses)).to(x)}
        kind = type(name, (getattr(evox.algorithms, name),), scored)
        bound = torch.full(points.shape[1:], BOUND)
        search = kind(len(points), -bound, bound)
        search.pop = points.clone()
        calls = itertools.chain([search.init_step], itertools.repeat(search.step))
        return lambda: next(calls)()

    return drive


def evotorch(name: str, **options: float) -> Drive:
    """It has no DE."""

    def drive(points: Tensor, losses: Iterator[np.ndarray]) -> Generation:
        import evotorch.algorithms

        def score(x: Tensor) -> Tensor:
            return torch.from_numpy(next(losses)).to(x)

        n, dim = points.shape
        problem = evotorch.Problem(
            "min", score, solution_length=dim, initial_bounds=(-1.0, 1.0), seed=1, vectorized=True
        )
        search = getattr(evotorch.algorithms, name)(
            problem, popsize=n, stdev_init=0.3, center_init=points[0].clone(), **options
        )
        return lambda: search.step()

    return drive


PEERS = [
    Row("scipy DE rand1bin", "scipy", DE_FLOOR, scipy_de("rand1bin")),
    Row("scipy DE currenttobest1bin", "scipy", DE_FLOOR, scipy_de("currenttobest1bin")),
    Row("pymoo DE/rand/1/bin", "pymoo", DE_FLOOR, pymoo_de),
    Row("nevergrad DE, per coordinate", "nevergrad", DE_FLOOR, nevergrad_de(0.5)),
    Row("nevergrad DE, two points", "nevergrad", DE_FLOOR, nevergrad_de("twopoints")),
    Row("pycma, diagonal", "pycma", UPDATE_FLOOR, pycma(vkd=False)),
    Row("pycma, VkD", "pycma", UPDATE_FLOOR, pycma(vkd=True)),
    Row("cmaes SepCMA", "cmaes", UPDATE_FLOOR, cmaes_separable),
    Row("evosax DE rand1bin", "evosax", DE_FLOOR, evosax("DifferentialEvolution", from_population=True)),
    Row("evosax SNES", "evosax", UPDATE_FLOOR, evosax("SNES")),
    Row("evosax Open_ES", "evosax", PAIRS_FLOOR, evosax("Open_ES")),
    Row("evosax Sep_CMA_ES", "evosax", UPDATE_FLOOR, evosax("Sep_CMA_ES")),
    Row("EvoX DE rand1bin", "evox", DE_FLOOR, evox("DE")),
    Row("EvoX JaDE", "evox", DE_FLOOR, evox("JaDE")),
    Row("EvoX SHADE", "evox", DE_FLOOR, evox("SHADE")),
    Row("EvoTorch SNES", "evotorch", UPDATE_FLOOR, evotorch("SNES")),
    Row("EvoTorch CEM", "evotorch", UPDATE_FLOOR, evotorch("CEM", parenthood_ratio=0.5)),
    Row("EvoTorch CMAES, separable", "evotorch", UPDATE_FLOOR, evotorch("CMAES", separable=True)),
]
