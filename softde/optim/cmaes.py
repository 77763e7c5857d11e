"""CMA-ES, the evolution strategy that learns which directions matter, by the package ``cma`` (pycma).

pycma's object is changed by every call; here a search is a value. ``freeze`` copies everything in the object that is
an array or a number, ``thaw`` puts it into a fresh one, and between ask and tell a state holds the seed of its draws,
so that tell can sample again. The object that made the newest state is kept beside it, for speed only.

What differs from pycma's defaults, on purpose:

- two-point step-size adaptation (TPA) in any dimension: below 300 pycma takes path lengths (CSA) by itself, which
  hardly adapt the step where most directions do not matter;
- none of its stop criteria: ``restarts`` has tests that suit a few hundred generations, else the search goes on;
- random numbers come from the generator given to ``ask`` alone: NumPy's global one is neither seeded nor used (TPA's
  self-check draws from it and is left out); nothing is printed, warned of or written to files;
- a condition number above 1e12 is not moved into a transformation of x, and no mirrored samples below population 6.

References: [H] Hansen (2016), The CMA Evolution Strategy: A Tutorial, arXiv:1604.00772; [TPA] Hansen, Atamna, Auger
(2014), PPSN, 70; [VkD] Akimoto, Hansen (2016), GECCO, 197; [IPOP] Auger, Hansen (2005), CEC, 1769; [BIPOP] Hansen
(2009), GECCO workshop, 2389; [I] Hansen (2011), arXiv:1110.4181.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from softde.checks import number, put, whole
from softde.optim.base import Info, State, advance, as_losses, as_points, check_ask, check_tell, comparable, describe

COVARIANCES, ADAPTATIONS = ("full", "diagonal", "vkd"), ("tpa", "csa")
RESTARTS, STARTS = (None, "ipop", "bipop"), ("best", "first")
FULL_LIMIT = 2_000  # coordinates: three D × D matrices (96 MB), and a decomposition in O(D^3) every few generations
SMALLEST, LARGEST = 1e-12, 1e9  # the largest standard deviation stays within these multiples of its start


@dataclass(frozen=True, eq=False)
class CMAESState(State):
    """A search between two calls; ``tensors`` and ``numbers`` are pycma's, empty until the start points are scored."""

    points: Tensor  # (points, dim): the start points; after scoring kept for restarts only, in the order of use
    tensors: Mapping[str, Tensor]
    numbers: str  # JSON
    seed: int  # of the draws of the pending ask
    sigma: float  # the step size with which the current run began
    history: Tensor  # (generations, 2) float64: best and median of the current run's latest generations
    runs: int  # restarts so far
    doublings: int  # restarts with a larger population among them
    spent: int  # candidates scored by runs with large populations less those by runs with small ones [BIPOP]


class _Live(NamedTuple):
    """pycma's object that made a state, and what it sampled if the state waits for tell."""

    es: Any
    solutions: list[Any]


_LIVE: WeakKeyDictionary[CMAESState, _Live] = WeakKeyDictionary()  # whoever uses an object takes it out: it changes


@dataclass(frozen=True)
class CMAES:
    """Covariance matrix adaptation evolution strategy.

    The first generation scores the start points; then the distribution is N(mean, sigma^2 I) and adapts from there.

    Parameters
    ----------
    population_size : candidates per generation, at least 4.
    sigma : standard deviation of each coordinate at first, in units of x.
    covariance : "full" (up to 2,000 coordinates: use ``Subspace`` beyond), "diagonal", or "vkd": diagonal plus a few
        directions, as many as prove useful [VkD].
    adaptation : of the step size: "tpa", two points along the last shift of the mean [TPA], or "csa", the length of
        the evolution path [H eq. 43, 44]. "vkd" has its own two-point rule.
    restarts : None; "ipop": when a run stagnates, another from the next start point with twice the population [IPOP];
        "bipop": such runs take turns with small ones, at random sizes and step sizes [BIPOP].
    start : the mean begins at the "best" start point or at the "first".
    patience : generations over which neither the best loss nor the median got better when a run stagnates; it also
        does when its standard deviations fell below 1e-6 of sigma.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the covariance is full in too many dimensions.
    ImportError
        If the package cma is missing.
    """

    state_type: ClassVar[type[CMAESState]] = CMAESState

    population_size: int = 16
    sigma: float = 0.3
    covariance: str = "full"
    adaptation: str = "tpa"
    restarts: str | None = None
    start: str = "best"
    patience: int = 40

    def __post_init__(self) -> None:
        put(self, {
            "population_size": whole(self.population_size, "population_size"),
            "sigma": number(self.sigma, "sigma, a standard deviation in units of x, above 0", lambda v: v > 0),
            "patience": whole(self.patience, "patience"),
        })  # fmt: skip
        _check(self)

    def init(self, points: Any) -> CMAESState:
        """Start from points (population_size, dim), float32 or float64."""
        return self._state(as_points(points, self.population_size))

    def around(self, point: Tensor) -> CMAESState:
        """Start from N(point, sigma^2 I) with nothing scored: the first ask samples. point: (dim,)."""
        state = self._state(as_points(point[None], 1))
        tensors, numbers = freeze(self._evolution(_numpy(point), self.sigma, self.population_size))
        return replace(state, tensors=tensors, numbers=numbers, population_size=self.population_size)

    def ask(self, state: CMAESState, generator: torch.Generator) -> tuple[Tensor, CMAESState]:
        """Candidates to score, (population, dim): first the start points, then samples."""
        check_ask(self, state, generator)
        if not state.tensors:
            return state.points.clone(), replace(state, asked=True)
        seed = int(torch.randint(2**63 - 1, (1,), generator=generator, device=generator.device))
        asked = replace(state, asked=True, seed=seed)
        live = _LIVE.pop(state, None)
        _LIVE[asked] = live = self._sampled(asked, live.es if live else None)
        return torch.from_numpy(np.stack(live.solutions)).to(state.best_x), asked

    def tell(self, state: CMAESState, candidates: Tensor, losses: Any) -> tuple[CMAESState, Info]:
        """Shift and shape the distribution towards the better half; one without any finite loss stays as it is.

        Candidates may be others than were asked [I]: too long a step from the mean then counts as a shorter one.
        """
        check_tell(self, state, candidates)
        losses = as_losses(losses, candidates)
        improved = int((comparable(losses) < state.best_loss).sum())
        es, changes = None, {}
        if not state.tensors:
            changes = self._begun(state, candidates, losses)
        elif bool(losses.isfinite().any()):
            es, changes = self._learnt(state, candidates, losses)
        state = advance(state, candidates, losses, **changes)
        if es is not None:
            _LIVE[state] = _Live(es, [])
        return state, describe(state, candidates, losses, losses, improved)

    def recommend(self, state: CMAESState) -> Tensor:
        """The mean of the distribution (dim,), better than the luckiest candidate under noise; after a restart, the
        best candidate.
        """
        if not state.tensors or state.runs > 0:
            return state.best_x
        return state.tensors["mean"].to(state.best_x)

    def _state(self, points: Tensor) -> CMAESState:
        _check_dim(self, points.shape[1])
        _cma()
        history = torch.zeros((0, 2), dtype=torch.float64)
        return CMAESState(
            points[0].clone(), math.inf, 0, 0, False, len(points), points, {}, "{}", 0, self.sigma, history, 0, 0, 0
        )

    def _begun(self, state: CMAESState, candidates: Tensor, losses: Tensor) -> dict[str, Any]:
        """The start points are scored."""
        points = candidates[comparable(losses).argsort(stable=True)] if self.start == "best" else candidates.clone()
        tensors, numbers = freeze(self._evolution(_numpy(points[0]), self.sigma, self.population_size))
        return {"tensors": tensors, "numbers": numbers, "points": points if self.restarts else points[:0].clone()}

    def _learnt(self, state: CMAESState, candidates: Tensor, losses: Tensor) -> tuple[Any, dict[str, Any]]:
        """pycma's object after a generation, and what it changes in the state."""
        live: _Live | None = _LIVE.pop(state, None)
        es, solutions = live or self._sampled(state)
        asked = torch.from_numpy(np.stack(solutions)).to(candidates)
        for row in (asked != candidates).any(1).nonzero().flatten().tolist():
            solutions[row] = _numpy(candidates[row])
        with _quiet():
            es.tell(solutions, _filled(losses).tolist())
        if not np.isfinite(es.stds).all():  # VkD's matrix stops being one when a single direction counts
            es = self._evolution(_numpy(state.best_x), state.sigma, state.population_size)
        deviation = _limit(es, state.sigma)
        scored = comparable(losses).sort().values.cpu()
        latest = torch.stack([scored[0], scored[len(scored) // 2]])[None]
        history = torch.cat([state.history.cpu(), latest])[-2 * self.patience :]
        is_large = state.population_size == self.population_size * 2**state.doublings
        spent = state.spent + (len(losses) if is_large else -len(losses))
        if self.restarts and (deviation < 1e-6 * state.sigma or stagnated(history, self.patience)):
            return self._restarted(replace(state, spent=spent))
        tensors, numbers = freeze(es)
        return es, {"tensors": tensors, "numbers": numbers, "history": history, "spent": spent, "seed": 0}

    def _restarted(self, state: CMAESState) -> tuple[Any, dict[str, Any]]:
        """A new run, from the next start point; the first has twice the population."""
        u = np.random.default_rng([state.seed, 1]).random(2)
        mean = state.points[(state.runs + 1) % len(state.points)]
        doublings, sigma = state.doublings, self.sigma
        if self.restarts == "bipop" and doublings > 0 and state.spent > 0:
            population = int(self.population_size * 2 ** ((doublings - 1) * u[0] ** 2))  # [BIPOP] sec. 2
            sigma *= 10 ** float(-2 * u[1])
        else:
            doublings += 1
            population = self.population_size * 2**doublings
        es = self._evolution(_numpy(mean), sigma, population)
        tensors, numbers = freeze(es)
        return es, {
            "tensors": tensors, "numbers": numbers, "history": state.history[:0].clone(), "spent": state.spent,
            "sigma": sigma, "population_size": population, "runs": state.runs + 1, "doublings": doublings, "seed": 0,
        }  # fmt: skip

    def _sampled(self, state: CMAESState, es: Any = None) -> _Live:
        """What an asked state's draws are, with pycma's object after sampling; from the tensors unless it is given."""
        if es is None:
            es = self._evolution(_numpy(state.tensors["mean"]), state.sigma, state.population_size)
            thaw(es, state.tensors, state.numbers)
        es.opts["randn"].seed(state.seed)
        with _quiet():
            return _Live(es, es.ask())

    def _evolution(self, mean: Float[np.ndarray, " dim"], sigma: float, population_size: int) -> Any:
        """pycma's object at its beginning."""
        cma = _cma()
        normal = _Normal()
        options = {
            "popsize": population_size,
            "randn": normal,
            "seed": math.nan,  # anything else seeds NumPy's global generator
            "verbose": -10,
            "CMA_mirrors": 0,
            "CMA_diagonal": self.covariance == "diagonal",
            "conditioncov_alleviate": [1e8, 0],
            "AdaptSigma": getattr(cma.sigma_adaptation, f"CMAAdaptSigma{self.adaptation.upper()}"),
        }
        if self.covariance == "vkd":
            sampler = cma.restricted_gaussian_sampler.GaussVkDSampler
            options |= sampler.extend_cma_options() | {"CMA_sampler_options": {"randn": normal}}
        with _quiet():
            es = cma.CMAEvolutionStrategy(mean, sigma, options)
        es.adapt_sigma.check_consistency = _unchecked
        return es


# ---- pycma's object as a value ---------------------------------------------------------------------------------------

PARTS = ("sm", "sigma_vec", "adapt_sigma", "adapt_sigma.sp")
AVERAGES = ("sm.ema_log_sigma", "sm.ema_log_d", "sm.ema_log_s")  # VkD's, made by its first update
DERIVED = (
    "x0", "mean0", "ary", "pop_sorted", "B", "C", "D", "dC", "_isotropic_mean_shift", "_isotropic_mean_shift_iteration",
    "sm.U", "sm._mueff", "sm._lam",
)  # fmt: skip
DIRECTIONS, TRANSPOSED = "pop_injection_directions", "^T"


def freeze(es: Any) -> tuple[dict[str, Tensor], str]:
    """Everything that a search goes on from, as it is between tell and ask: arrays, and plain numbers as JSON."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for part, thing in _parts(es):
        for name, value in vars(thing).items():
            key = f"{part}{name}"
            if key in DERIVED:
                continue
            if isinstance(value, np.ndarray | np.generic):
                array = np.asarray(value)
                turned = array.ndim == 2 and not array.flags.c_contiguous  # the order in memory decides on last bits
                tensors[key + TRANSPOSED * turned] = torch.from_numpy((array.T if turned else array).copy())
            elif value is None or type(value) in (bool, int, float):
                numbers[key] = value
    if es.pop_injection_directions:
        tensors[DIRECTIONS] = torch.from_numpy(np.stack(es.pop_injection_directions))
    return tensors, json.dumps(numbers)


def thaw(es: Any, tensors: Mapping[str, Tensor], numbers: str) -> None:
    """Put what ``freeze`` took into an object that has just begun."""
    if f"{AVERAGES[0]}.M" in tensors:
        for name in AVERAGES:
            average = _cma().restricted_gaussian_sampler.ExponentialMovingAverage(0.0, 1)
            setattr(es.sm, name.removeprefix("sm."), average)
    things = dict(_parts(es))
    values = {key.removesuffix(TRANSPOSED): _array(tensor, key) for key, tensor in tensors.items()}
    es.pop_injection_directions = list(values.pop(DIRECTIONS, ()))
    for key, value in (values | json.loads(numbers)).items():
        part, dot, name = key.rpartition(".")
        setattr(things[part + dot], name, value)
    es._updateBDfromSM(es.sm)
    es.timer = _cma().utilities.utils.ElapsedWCTime()


def stagnated(history: Float[Tensor, "generations 2"], patience: int) -> bool:
    """Neither the best nor the median of the latest ``patience`` generations got below those of as many before."""
    if len(history) < 2 * patience:
        return False
    before, after = history[:patience], history[patience:]
    return bool((after[:, 0].min() >= before[:, 0].min()) & (after[:, 1].median() >= before[:, 1].median()))


def _parts(es: Any) -> Iterator[tuple[str, Any]]:
    """Prefix and object, for pycma's object and those within it that change."""
    yield "", es
    for path in (*PARTS, *AVERAGES):
        try:
            yield f"{path}.", attrgetter(path)(es)
        except AttributeError:
            continue


def _array(tensor: Tensor, key: str) -> Any:
    array = tensor.cpu().numpy().copy()
    return array.T if key.endswith(TRANSPOSED) else array[()]  # a scalar stays NumPy's


def _limit(es: Any, sigma: float) -> float:
    """Keep the largest standard deviation, which is returned, within SMALLEST and LARGEST of sigma and above rounding.

    Smaller, the mean could stand still, and two-point adaptation would divide by zero; larger, x could overflow.
    """
    deviation = float(np.max(es.stds))
    rounding = 8 * np.finfo(float).eps * float(np.abs(es.mean).max())
    limited = min(max(deviation, SMALLEST * sigma, rounding), LARGEST * sigma)
    if limited != deviation:
        holder = es.sm if hasattr(es.sm, "sigma_fac") else es  # VkD adapts a step size of its own
        holder.sigma *= limited / deviation
    return limited


def _filled(losses: Tensor) -> Tensor:
    """Losses with the next number above the worst in place of those that are not finite."""
    finite = losses.isfinite()
    worst = losses[finite].max()
    return losses.where(finite, worst.nextafter(torch.full_like(worst, math.inf)))


def _numpy(tensor: Tensor) -> Float[np.ndarray, " dim"]:
    return tensor.detach().cpu().double().numpy().copy()


def _unchecked(es: Any) -> None:
    """In place of a self-check that draws from NumPy's global generator."""


class _Normal:
    """Standard normal numbers for pycma, from a seed that changes with every generation."""

    def __init__(self) -> None:
        self.seed(0)

    def seed(self, seed: int) -> None:
        self.stream = np.random.default_rng(seed)

    def __call__(self, *shape: int) -> Any:
        return self.stream.standard_normal(shape)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, no filters left behind, and pycma's module-wide verbosity as the user had it."""
    utils = _cma().utilities.utils
    before = utils.global_verbosity
    utils.global_verbosity = -10
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        utils.global_verbosity = before


def _cma() -> Any:
    try:
        with warnings.catch_warnings():  # it says so where matplotlib is missing
            warnings.simplefilter("ignore")
            import cma
            import cma.restricted_gaussian_sampler
    except ImportError as error:
        raise ImportError("CMAES needs the package cma: pip install cma.") from error
    return cma


# ---- bad input -----------------------------------------------------------------------------------------------------


def _check(cmaes: CMAES) -> None:
    if cmaes.population_size < 4:
        raise ValueError(
            f"Expected a population of at least 4 for CMAES, but population_size is {cmaes.population_size}: raise it."
        )
    for name, known in (
        ("covariance", COVARIANCES), ("adaptation", ADAPTATIONS), ("restarts", RESTARTS), ("start", STARTS),
    ):  # fmt: skip
        if getattr(cmaes, name) not in known:
            raise ValueError(f"Unknown {name} {getattr(cmaes, name)!r}: expected one of {', '.join(map(repr, known))}.")
    if cmaes.covariance == "vkd" and cmaes.adaptation == "csa":
        raise ValueError('Covariance "vkd" has its own two-point step-size rule: leave adaptation at "tpa".')
    if cmaes.patience < 2:
        raise ValueError(f"Expected patience, in generations, of at least 2, but got {cmaes.patience}: raise it.")


def _check_dim(cmaes: CMAES, dim: int) -> None:
    if dim < 2:
        raise ValueError(f"Expected at least 2 coordinates for CMAES, but got {dim}: choose another optimiser.")
    if cmaes.covariance == "full" and dim > FULL_LIMIT:
        raise ValueError(
            f"Expected at most {FULL_LIMIT:,} coordinates for a full covariance, which takes D × D memory and O(D^3) "
            f'time, but got {dim:,}: use Subspace(CMAES(...)), covariance="diagonal" or covariance="vkd".'
        )
