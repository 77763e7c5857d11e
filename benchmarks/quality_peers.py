"""How other people's optimisers are driven; each is imported when it is run, and none is needed."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from quality_runs import Array, Meter, Peer

BOX = 3.0  # bounds for those that must have some, in units of x: start points lie within


def scipy_de(strategy: str) -> Callable[[Meter, Array], None]:
    """SciPy's differential evolution, a whole generation at a time, without its stopping rule and polishing."""

    def drive(meter: Meter, points: Array) -> None:
        from scipy.optimize import differential_evolution

        points = points.clip(-BOX, BOX)
        differential_evolution(
            lambda x: meter(x.T).numpy(), [(-BOX, BOX)] * points.shape[1], strategy=strategy, init=points,
            rng=meter.case.seed, maxiter=10**6, tol=0, atol=0, polish=False, vectorized=True, updating="deferred",
        )  # fmt: skip

    return drive


def pycma_diagonal(meter: Meter, points: Array) -> None:
    """pycma with a diagonal covariance and its own population size."""
    import cma

    options = {"CMA_diagonal": True, "seed": meter.case.seed + 1, "verbose": -9}
    es = cma.CMAEvolutionStrategy(points[0], points[1:].std(), options)
    while True:
        asked = es.ask()
        es.tell(asked, meter(_rows(asked)).tolist())
        meter.guess = torch.as_tensor(es.mean)


def cmaes_separable(meter: Meter, points: Array) -> None:
    """CyberAgent's SepCMA."""
    es = module("cmaes").SepCMA(points[0], float(points[1:].std()), seed=meter.case.seed, population_size=len(points))
    while True:
        asked = [es.ask() for _ in range(es.population_size)]
        es.tell(list(zip(asked, meter(_rows(asked)).tolist(), strict=True)))
        meter.guess = torch.as_tensor(es.mean)


def evotorch_snes(meter: Meter, points: Array) -> None:
    """EvoTorch's SNES."""
    evotorch, algorithms = module("evotorch"), module("evotorch.algorithms")
    logging.getLogger("evotorch.core").setLevel(logging.WARNING)

    fn = evotorch.decorators.vectorized(lambda x: meter(x))
    problem = evotorch.Problem("min", fn, solution_length=points.shape[1], dtype=torch.float64, seed=meter.case.seed,
                               initial_bounds=(-BOX, BOX))  # fmt: skip
    search = algorithms.SNES(
        problem, stdev_init=float(points[1:].std()), popsize=len(points), center_init=torch.tensor(points[0])
    )
    while True:
        search.step()
        meter.guess = search.status["center"].as_subclass(torch.Tensor).clone()


def evox_de(algorithm: str) -> Callable[[Meter, Array], None]:
    """A differential evolution of EvoX, its start points drawn by itself within two standard deviations."""

    def drive(meter: Meter, points: Array) -> None:
        low = torch.full((points.shape[1],), -2.0)
        search = getattr(module("evox.algorithms"), algorithm)(pop_size=len(points), lb=low, ub=-low)
        search.evaluate = lambda x: meter(x).float()
        search.init_step()
        while True:
            search.step()

    return drive


def evosax_es(algorithm: str) -> Callable[[Meter, Array], None]:
    """A distribution-based strategy of evosax."""

    def drive(meter: Meter, points: Array) -> None:
        jax, jnp = module("jax"), module("jax.numpy")
        es = getattr(module("evosax.algorithms"), algorithm)(
            population_size=len(points), solution=jnp.asarray(points[0])
        )
        key, params = jax.random.key(meter.case.seed), es.default_params.replace(std_init=float(points[1:].std()))
        ask, tell = jax.jit(es.ask), jax.jit(es.tell)
        state = es.init(key, jnp.asarray(points[0]), params)
        while True:
            key, first, second = jax.random.split(key, 3)
            asked, state = ask(first, state, params)
            state, _ = tell(second, asked, jnp.asarray(meter(_rows(asked)).numpy()), state, params)
            meter.guess = torch.tensor(_rows(es.get_mean(state)))

    return drive


def nevergrad_one(name: str) -> Callable[[Meter, Array], None]:
    """A (1+1) of nevergrad, one candidate at a time."""

    def drive(meter: Meter, points: Array) -> None:
        nevergrad = module("nevergrad")
        array = nevergrad.p.Array(init=points[0])
        array.random_state.seed(meter.case.seed)
        search = nevergrad.optimizers.registry[name](array, budget=meter.case.budget)
        while True:
            asked = search.ask()
            search.tell(asked, float(meter(asked.value[None])[0]))

    return drive


def fcmaes_de(meter: Meter, points: Array) -> None:
    """fcmaes' differential evolution in C++."""
    from scipy.optimize import Bounds

    dim, random = points.shape[1], np.random.Generator(np.random.PCG64(meter.case.seed))
    box = Bounds([-BOX] * dim, [BOX] * dim)
    search = module("fcmaes.decpp").DE_C(dim, box, popsize=len(points), rg=random, x0=points[0])
    while True:
        search.tell(meter(_rows(search.ask())).numpy())


def module(name: str) -> Any:
    """A package that is there only where somebody installed it."""
    return importlib.import_module(name)


def _rows(asked: Any) -> Array:
    """Candidates as one float64 array."""
    return np.array(asked, dtype=np.float64)


PEERS = (
    Peer("scipy best1bin n32", "scipy", scipy_de("best1bin")),
    Peer("scipy rand1bin n32", "scipy", scipy_de("rand1bin"), largest=1_000),
    Peer("pycma diagonal", "cma", pycma_diagonal, spread=0.3),
    Peer("cmaes SepCMA n32", "cmaes", cmaes_separable, spread=0.3),
    Peer("EvoTorch SNES n32", "evotorch", evotorch_snes),
    Peer("EvoX JaDE n32", "evox", evox_de("JaDE")),
    Peer("evosax CR-FM-NES n16", "evosax", evosax_es("CR_FM_NES"), population=16, spread=0.3),
    Peer("fcmaes DE n32", "fcmaes", fcmaes_de),
    Peer("nevergrad LognormalDiscrete(1+1)", "nevergrad", nevergrad_one("LognormalDiscreteOnePlusOne"), population=2,
         largest=1_000),
)  # fmt: skip
