"""Differential evolution (Storn and Price 1997), vectorised over the population.

One generation, for every candidate x_i::

    v = base + F (sum of differences of members)        mutation: one row of STRATEGIES
    u = v where the crossover says so, else x_i         binomial or exponential, at least one coordinate of v
    x_i <- u if f(u) <= f(x_i)                          selection

Names of strategies are SciPy's, symbols are Storn and Price's. References: [SP] Storn, Price (1997), J. Global
Optimization 11, 341; [JADE] Zhang, Sanderson (2009), IEEE Trans. Evolutionary Computation 13(5), 945.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Int16
from torch import Tensor

from softde.checks import whole
from softde.optim.base import Info, State, advance, as_losses, as_points, check_tell, comparable, describe, row_blocks

Bound = float | Sequence[float]


class Strategy(NamedTuple):
    """v = base + F (plus[0] - minus[0] + ...); x is the target, pbest one of the best, r0, r1, ... are donors."""

    base: str
    plus: tuple[str, ...]
    minus: tuple[str, ...]

    @property
    def donors(self) -> int:
        return len({name for name in (self.base, *self.plus, *self.minus) if name.startswith("r")})


STRATEGIES = {
    "best1": Strategy("best", ("r0",), ("r1",)),
    "best2": Strategy("best", ("r0", "r1"), ("r2", "r3")),
    "rand1": Strategy("r0", ("r1",), ("r2",)),  # [SP] eq. 3
    "rand2": Strategy("r0", ("r1", "r2"), ("r3", "r4")),
    "randtobest1": Strategy("r0", ("best", "r1"), ("r0", "r2")),
    "currenttobest1": Strategy("x", ("best", "r0"), ("x", "r1")),
    "currenttopbest1": Strategy("x", ("pbest", "r0"), ("x", "r1")),  # [JADE] eq. 6
}
NAMES = tuple(f"{base}{crossover}" for base in STRATEGIES for crossover in ("bin", "exp"))


@dataclass(frozen=True, eq=False)
class DEState(State):
    """A search between two calls; losses are as they came (NaN stays NaN), +inf before the first tell."""

    population: Tensor  # (population, dim)
    losses: Tensor  # (population,) float64


@dataclass(frozen=True, eq=False)
class Draws:
    """Everything random about one generation."""

    donors: Int[Tensor, "population donors"]  # distinct members, none of them the target
    elite: Int[Tensor, " population"]  # rank of each candidate's pbest, 0 the best
    F: Float[Tensor, " population"]
    CR: Float[Tensor, " population"]
    start: Int[Tensor, " population"]  # the coordinate that always comes from v; an exponential run starts there
    u: Float[Tensor, " population"]  # uniform: the length of an exponential run, or the rounding of CR
    words: Int16[Tensor, "population dim"] | None = None  # uniform, for binomial crossover

    def block(self, rows: slice, device: torch.device) -> Draws:
        """The draws of some candidates, on the device of their population."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return Draws(**{name: value[rows].to(device) for name, value in values.items() if value is not None})


@dataclass(frozen=True)
class DE:
    """Differential evolution.

    Parameters
    ----------
    population_size : candidates per generation.
    strategy : a name in ``softde.optim.de.NAMES``: best1, best2, rand1, rand2, randtobest1, currenttobest1 or
        currenttopbest1, followed by bin or exp.
    F : differential weight in (0, 2], or (low, high): drawn uniformly between them.
    CR : crossover probability in [0, 1].
    p : currenttopbest1 draws from the best ``round(p * population_size)`` members, never fewer than two.
    dither : a (low, high) F is drawn once per "candidate", which mixes step lengths within a generation, or once per
        "generation", as SciPy does.
    bounds : None, or (low, high), each a number or one number per coordinate. Start points must lie within.
    bounds_handling : a coordinate of a trial beyond its bound is left there ("none"), put on the bound ("clip"), or
        put halfway between its parent and the bound ("bounce", [JADE] p. 947).
    """

    state_type: ClassVar[type[DEState]] = DEState

    population_size: int = 32
    strategy: str = "rand1bin"
    F: float | tuple[float, float] = 0.5
    CR: float = 0.9
    p: float = 0.1
    dither: str = "candidate"
    bounds: tuple[Bound, Bound] | None = None
    bounds_handling: str = "bounce"

    def __post_init__(self) -> None:
        object.__setattr__(self, "population_size", whole(self.population_size, "population_size"))
        _check(self)
        if isinstance(self.F, Sequence):
            object.__setattr__(self, "F", (float(self.F[0]), float(self.F[1])))
        if self.bounds is not None:
            object.__setattr__(self, "bounds", tuple(_as_bound(bound) for bound in self.bounds))

    def init(self, points: Any) -> DEState:
        """Start from points (population_size, dim), float32 or float64."""
        population = as_points(points, self.population_size)
        low, high = _bounds(self.bounds, population)
        if bool(((population < low) | (population > high)).any()):
            raise ValueError(
                "Expected start points within the bounds, but some lie outside: clamp them or widen the bounds."
            )
        losses = torch.full(population.shape[:1], math.inf, dtype=torch.float64, device=population.device)
        return DEState(population[0].clone(), math.inf, 0, 0, False, len(population), population, losses)

    def ask(self, state: DEState, generator: torch.Generator) -> tuple[Tensor, DEState]:
        """Candidates to score, (population, dim): first the start points, then trials."""
        first = state.generation == 0
        candidates = state.population.clone() if first else self.propose(state, self.draw(state, generator))
        return candidates, replace(state, asked=True)

    def tell(self, state: DEState, candidates: Tensor, losses: Any) -> tuple[DEState, Info]:
        """Select: a candidate replaces its parent unless it is worse ([SP]; [JADE] eq. 5 is strict)."""
        check_tell(state, candidates)
        losses = as_losses(losses, candidates)
        new, old = comparable(losses), comparable(state.losses)
        accepted = (new <= old).nonzero().flatten()
        state = advance(
            state,
            candidates,
            losses,
            population=state.population.index_copy(0, accepted, candidates.index_select(0, accepted)),
            losses=state.losses.index_copy(0, accepted, losses.index_select(0, accepted)),
        )
        return state, describe(state, state.population, state.losses, losses, improved=int((new < old).sum()))

    def bound(self, state: DEState) -> Float[Tensor, " population"]:
        """The parents' losses: a worse trial is dropped, however much worse; +inf where there is nothing to beat."""
        return comparable(state.losses)

    def draw(self, state: DEState, generator: torch.Generator) -> Draws:
        """Everything random about the next generation, on the generator's device."""
        (n, dim), device = state.shape, generator.device
        low, high = self.F if isinstance(self.F, tuple) else (self.F, self.F)
        uniform = torch.rand((2, n), generator=generator, dtype=torch.float64, device=device)
        scale = uniform[0] if self.dither == "candidate" else uniform[0, :1].expand(n)
        return Draws(
            donors=distinct_donors(n, STRATEGIES[self.strategy[:-3]].donors, generator),
            elite=torch.randint(elite_size(self.p, n), (n,), generator=generator, device=device),
            F=low + (high - low) * scale,
            CR=torch.full((n,), self.CR, dtype=torch.float64, device=device),
            start=torch.randint(dim, (n,), generator=generator, device=device),
            u=uniform[1],
            words=random_words(n, dim, generator) if self.strategy.endswith("bin") else None,
        )

    def propose(self, state: DEState, draws: Draws) -> Tensor:
        """Trials (population, dim): a function of the state and the draws only."""
        parents, strategy = state.population, STRATEGIES[self.strategy[:-3]]
        order = comparable(state.losses).argsort(stable=True)
        trials = torch.empty_like(parents)
        for rows in row_blocks(parents):
            block = draws.block(rows, parents.device)
            mutants = mutate(parents, strategy, members(block, order, rows), block.F.to(parents.dtype))
            torch.lerp(parents[rows], mutants, crossover(block, mutants), out=trials[rows])
        return repair(trials, parents, self.bounds, self.bounds_handling)


# ---- draws ---------------------------------------------------------------------------------------------------------


def distinct_donors(n: int, k: int, generator: torch.Generator) -> Int[Tensor, "population donors"]:
    """For each of n targets, k members in random order, distinct and not the target: the k smallest of uniform keys."""
    keys = torch.rand((n, n), generator=generator, dtype=torch.float64, device=generator.device)
    return keys.fill_diagonal_(math.inf).topk(k, dim=1, largest=False).indices


def random_words(n: int, dim: int, generator: torch.Generator) -> Int16[Tensor, "population dim"]:
    """Uniform 16-bit integers, four from each 64-bit draw: the cheapest uniform numbers torch has."""
    wide = torch.empty(-(-n * dim // 4), dtype=torch.int64, device=generator.device)
    wide.random_(-(2**63), 2**63 - 1, generator=generator)
    return wide.view(torch.int16)[: n * dim].view(n, dim)


def elite_size(p: float, n: int) -> int:
    """How many members are "among the best 100 p percent"; two at least, or pbest would be best."""
    return max(2, round(p * n))


# ---- mutation, crossover, repair -----------------------------------------------------------------------------------


def members(draws: Draws, order: Int[Tensor, " members"], rows: slice) -> dict[str, Tensor]:
    """Who is who for some candidates: a strategy's names -> rows of the population; ``order`` lists the best first."""
    best = order[:1].expand(len(draws.elite))
    targets = torch.arange(rows.start, rows.stop, device=order.device)
    donors = {f"r{k}": donor for k, donor in enumerate(draws.donors.T)}
    return {"x": targets, "best": best, "pbest": order[draws.elite], **donors}


def mutate(
    population: Float[Tensor, "members dim"],
    strategy: Strategy,
    index: Mapping[str, Int[Tensor, " candidates"]],
    F: Float[Tensor, " candidates"],
) -> Float[Tensor, "candidates dim"]:
    """v = base + F (plus - minus): differences are taken first, so that they keep their precision."""

    def pick(name: str) -> Tensor:
        return population.index_select(0, index[name])

    pairs = zip(strategy.plus, strategy.minus, strict=True)
    difference = reduce(Tensor.add_, (pick(plus).sub_(pick(minus)) for plus, minus in pairs))
    return pick(strategy.base).addcmul_(difference, F[:, None])


def crossover(draws: Draws, like: Float[Tensor, "candidates dim"]) -> Float[Tensor, "candidates dim"]:
    """1 where the trial takes the mutant's coordinate, 0 where it keeps its parent's; in the type of ``like``."""
    u, CR, start = draws.u[:, None], draws.CR[:, None], draws.start[:, None]
    if draws.words is not None:
        return binomial(draws.words, u, CR, start, like.dtype)
    return exponential(u, CR, start, like.shape[1]).to(like.dtype)


def binomial(
    words: Int16[Tensor, "candidates dim"],
    u: Float[Tensor, "candidates 1"],
    CR: Float[Tensor, "candidates 1"],
    start: Int[Tensor, "candidates 1"],
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "candidates dim"]:
    """Each coordinate with probability CR, and always ``start`` ([JADE] eq. 4).

    CR is rounded to a 16-bit number, up or down at random (by ``u``), so that the mean rate is CR exactly.
    """
    threshold = (CR * 2**16 + u).floor() - 2**15
    mask = torch.empty(words.shape, dtype=dtype, device=words.device)
    torch.lt(words, threshold.float(), out=mask)
    return mask.scatter_(1, start, 1.0)


def exponential(
    u: Float[Tensor, "candidates 1"], CR: Float[Tensor, "candidates 1"], start: Int[Tensor, "candidates 1"], dim: int
) -> Bool[Tensor, "candidates dim"]:
    """One run from ``start``, around the end, longer with probability CR: P(length >= k) = CR^(k - 1) for k <= dim."""
    length = 1 + ((1 - u).log() / CR.log().clamp(max=-1e-300)).floor().clamp(max=dim - 1)
    first, end = start.int(), (start + length).int()
    position = torch.arange(dim, dtype=torch.int32, device=start.device)
    return (position >= first) & (position < end) | (position < end - dim)


def repair(
    trials: Float[Tensor, "population dim"],
    parents: Float[Tensor, "population dim"],
    bounds: tuple[Bound, Bound] | None,
    handling: str,
) -> Float[Tensor, "population dim"]:
    """Bring trials back within the bounds."""
    if bounds is None or handling == "none":
        return trials
    low, high = _bounds(bounds, trials)
    if handling == "clip":
        return trials.clamp(low, high)
    trials = torch.where(trials < low, (low + parents) / 2, trials)
    return torch.where(trials > high, (high + parents) / 2, trials)


# ---- bad input -----------------------------------------------------------------------------------------------------


def _as_bound(bound: Bound) -> Bound:
    return float(bound) if isinstance(bound, int | float) else tuple(float(x) for x in bound)


def _bounds(bounds: tuple[Bound, Bound] | None, like: Tensor) -> tuple[Tensor, Tensor]:
    low, high = (torch.as_tensor(b, dtype=like.dtype, device=like.device) for b in bounds or (-math.inf, math.inf))
    for bound in (low, high):
        if bound.ndim and len(bound) != like.shape[1]:
            raise ValueError(
                f"Expected bounds that are numbers or have one number for each of the {like.shape[1]} coordinates, but "
                f"got {len(bound)}: give points and bounds of the same dimension."
            )
    return low, high


def _check(de: DE) -> None:
    if de.strategy not in NAMES:
        raise ValueError(f"Unknown strategy {de.strategy!r}: expected one of {', '.join(NAMES)}.")
    least = STRATEGIES[de.strategy[:-3]].donors + 1
    if de.population_size < least:
        raise ValueError(
            f"Strategy {de.strategy!r} needs a population of at least {least} (a target and its distinct donors), but "
            f"population_size is {de.population_size!r}: raise it to {least} or more."
        )
    scale = tuple(de.F) if isinstance(de.F, Sequence) else (de.F, de.F)
    if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 2:
        raise ValueError(f"Expected F as a number in (0, 2] or a pair (low, high) of such numbers, but got {de.F!r}.")
    if not 0 <= de.CR <= 1:
        raise ValueError(f"Expected CR, a probability, in [0, 1], but got {de.CR!r}.")
    if not 0 < de.p <= 1:
        raise ValueError(f"Expected p, the share of the population that counts as best, in (0, 1], but got {de.p!r}.")
    if de.dither not in ("candidate", "generation"):
        raise ValueError(f"Expected dither 'candidate' or 'generation', but got {de.dither!r}.")
    if de.bounds_handling not in ("none", "clip", "bounce"):
        raise ValueError(f"Expected bounds_handling 'none', 'clip' or 'bounce', but got {de.bounds_handling!r}.")
    if de.bounds is not None:
        if len(de.bounds) != 2:
            raise ValueError(f"Expected bounds as a pair (low, high), but got {len(de.bounds)} entries.")
        low, high = (torch.as_tensor(_as_bound(bound), dtype=torch.float64) for bound in de.bounds)
        if low.ndim and high.ndim and low.shape != high.shape:
            raise ValueError(f"Expected low and high bounds of one length, but got {len(low)} and {len(high)} numbers.")
        if not bool((low < high).all()):
            raise ValueError(f"Expected bounds (low, high) with low below high everywhere, but got {de.bounds!r}.")
