"""Differential evolution (Storn and Price 1997), vectorised over the population.

One generation, for every candidate x_i::

    v = base + F (sum of differences of members)        mutation: a row of STRATEGIES
    u = v where the crossover says so, else x_i         binomial or exponential, at least one unit of v
    x_i <- u if f(u) <= f(x_i)                          selection

``Evolution`` is this loop; ``DE`` gives it fixed F and CR, ``softde.optim.adaptive`` those that learn. What is random
about it is in ``softde.optim.draws``, how trials are made in ``softde.optim.mutation``: a strategy is one row there.

Names of strategies are SciPy's, symbols are Storn and Price's. References: [SP] Storn, Price (1997), J. Global
Optimization 11, 341; [JADE] Zhang, Sanderson (2009), IEEE Trans. Evolutionary Computation 13(5), 945.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from softde.checks import number, plain_number, put, whole
from softde.optim import memory
from softde.optim.base import (
    Info,
    State,
    advance,
    as_losses,
    as_points,
    check_ask,
    check_tell,
    comparable,
    describe,
)
from softde.optim.bounds import Bounds, as_bounds, check_within, sides
from softde.optim.draws import Draws, crossing, distinct_donors, random_words
from softde.optim.mutation import NAMES, STRATEGIES, Crossing, column_blocks, crossover, members, mutate, repair


@dataclass(frozen=True, eq=False)
class DEState(State):
    """A search between two calls; losses are as they came (NaN stays NaN), +inf before the first tell.

    A member's loss is the mean of its finite ones where the search re-evaluates. What a search does not use is None.
    """

    population: Tensor  # (members, dim)
    losses: Tensor  # (members,) float64
    counts: Tensor | None  # (members,) finite losses behind each mean
    ages: Tensor | None  # (members,) generations since the member last improved
    start: Tensor | None  # (2, dim) mean and standard deviation of the start points, for new members
    spread: float  # of the population, as in Info
    start_spread: float  # of the start points


S = TypeVar("S", bound=DEState)


class Parameters(NamedTuple):
    """The numbers of one generation's mutation and crossover."""

    F: Float[Tensor, " members"]
    CR: Float[Tensor, " members"]
    w: Float[Tensor, " members"] | None = None  # the first difference is weighted by w F


class Outcome(NamedTuple):
    """What a tell decided, per member."""

    old: Float[Tensor, " members"]  # what each trial was compared with, +inf where unscored
    new: Float[Tensor, " members"]
    accepted: Bool[Tensor, " members"]
    success: Bool[Tensor, " members"]  # accepted for being better
    given: Bool[Tensor, " members"]  # accepted because the parent was given up


@dataclass(frozen=True)
class Evolution:
    """The generation that every kind of differential evolution shares.

    Parameters
    ----------
    population_size : members, and candidates of the first generation.
    bounds : None, or (low, high), each a number or one number per coordinate. Start points must lie within.
    bounds_handling : a coordinate of a trial beyond its bound is left there ("none"), put on the bound ("clip"), put
        halfway between its parent and the bound ("bounce", [JADE] p. 947), or drawn anew, uniformly between the bounds
        ("resample", as SciPy does).
    unit : so many adjacent coordinates cross over together: with the hidden size, whole rows of embeddings. The
        dimension must be a multiple of it.
    reevaluate : so many of the best members are scored again with every later generation, after the trials; a member's
        loss is then the mean of its finite losses. For noisy losses.
    margin : a trial must be better than its parent by so much. For noisy losses.
    restart : None, or the share of the start points' spread below which the population counts as collapsed; then all
        members but the best are given up.
    age : None, or the generations without improvement after which a member other than the best is given up.

    A member that is given up is replaced by a point from the start distribution, which is normal with the start points'
    mean and standard deviation, coordinate by coordinate, and put within the bounds; whatever its loss is.
    """

    state_type: ClassVar[type[DEState]] = DEState
    mutation: ClassVar[str] = "rand1bin"

    population_size: int = 32
    bounds: Bounds | None = field(default=None, kw_only=True)
    bounds_handling: str = field(default="bounce", kw_only=True)
    unit: int = field(default=1, kw_only=True)
    reevaluate: int = field(default=0, kw_only=True)
    margin: float = field(default=0.0, kw_only=True)
    restart: float | None = field(default=None, kw_only=True)
    age: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name, least in (("population_size", None), ("unit", 1), ("reevaluate", 0), ("age", 1)):
            if name != "age" or self.age is not None:
                put(self, {name: whole(getattr(self, name), name, least)})
        _check_population(self, self.scheme)
        put(self, {"margin": number(self.margin, "margin, a difference of losses, of 0 or more", lambda v: v >= 0)})
        if self.restart is not None:
            what = "restart, a share of the start points' spread, between 0 and 1, or None"
            put(self, {"restart": number(self.restart, what, lambda v: 0 < v < 1)})
        put(self, {"bounds": _checked_bounds(self.bounds, self.bounds_handling)})

    # what kinds differ in

    @property
    def scheme(self) -> str:
        """The name of the strategy."""
        return self.mutation

    def parameters(self, state: Any, generator: torch.Generator) -> Parameters:
        """F and CR of each trial, on the generator's device."""
        raise NotImplementedError

    def donors(self, state: Any, generator: torch.Generator) -> Int[Tensor, "members donors"]:
        """Whom each trial's differences are made of."""
        return distinct_donors(len(state.population), STRATEGIES[self.scheme[:-3]].donors, generator)

    def elite(self, state: Any) -> int:
        """How many members count as the best."""
        return 2

    def archive(self, state: Any) -> Float[Tensor, "archived dim"] | None:
        """Rows that donors may be drawn from besides the population."""
        return None

    def extra(self, population: Tensor) -> dict[str, Any]:
        """Fields of the first state besides those of DEState."""
        return {}

    def pending(self, draws: Draws) -> dict[str, Any]:
        """What tell needs of the draws."""
        return {}

    def learn(self, state: Any, outcome: Outcome) -> dict[str, Any]:
        """Changes to the kind's own fields."""
        return {}

    def survivors(self, state: Any) -> int:
        """How many members go on from a state that has been told."""
        return len(state.population)

    # the contract

    def init(self, points: Any) -> Any:
        """Start from points (population, dim), float32 or float64."""
        population = as_points(points, self.population_size)
        _check_unit(self.unit, population)
        check_within(population, self.bounds)
        n, device, replaces = len(population), population.device, self.restart is not None or self.age is not None
        return self.state_type(
            best_x=population[0].clone(),
            best_loss=math.inf,
            generation=0,
            evaluations=0,
            asked=False,
            population_size=n,
            population=population,
            losses=torch.full((n,), math.inf, dtype=torch.float64, device=device),
            counts=torch.zeros(n, dtype=torch.int64, device=device) if self.reevaluate else None,
            ages=torch.zeros(n, dtype=torch.int64, device=device) if self.age is not None else None,
            start=torch.stack([population.mean(dim=0), population.std(dim=0, correction=0)]) if replaces else None,
            spread=0.0,
            start_spread=0.0,
            **self.extra(population),
        )

    def ask(self, state: S, generator: torch.Generator) -> tuple[Tensor, S]:
        """Candidates to score: first the start points, then trials (members, dim) and members to score again."""
        check_ask(self, state, generator)
        if state.generation == 0:
            return state.population.clone(), replace(state, asked=True)
        draws = self.draw(state, generator).to(state.population.device)
        candidates = self.propose(state, draws)
        if self.reevaluate:
            candidates = torch.cat([candidates, state.population[_ranked(state)[: self.reevaluate]]])
        return candidates, replace(state, asked=True, **self.pending(draws))

    def tell(self, state: S, candidates: Tensor, losses: Any) -> tuple[S, Info]:
        """Select: a candidate replaces its parent unless it is worse ([SP]; [JADE] eq. 5 is strict)."""
        check_tell(self, state, candidates)
        losses = as_losses(losses, candidates)
        n = len(state.population)
        old, counts = running_means(state, losses[n:])
        outcome = self.outcome(state, old, losses[:n])
        rows = outcome.accepted.nonzero().flatten()
        learned = self.learn(state, outcome)
        state = advance(
            state,
            candidates,
            losses,
            population=chosen(outcome.accepted, candidates, state.population),
            losses=old.index_copy(0, rows, losses.index_select(0, rows)),
            counts=None if counts is None else counts.where(~outcome.accepted, losses[:n].isfinite().long()),
            ages=None if state.ages is None else (state.ages + 1).where(~(outcome.success | outcome.given), 0),
            **learned,
        )
        state = shrink(state, self.survivors(state), self.reevaluate)
        info = describe(state, state.population, state.losses, losses, improved=int(outcome.success.sum()))
        start_spread = info.spread if state.generation == 1 else state.start_spread
        return replace(state, spread=info.spread, start_spread=start_spread), info

    def bound(self, state: S) -> Float[Tensor, " candidates"]:
        """The loss to beat: a worse trial is dropped, however much worse; +inf where every loss counts."""
        parents = comparable(state.losses)
        if state.generation == 0:
            return parents
        bound = (parents - self.margin).clamp(min=state.best_loss)  # the best ever is kept without a margin
        bound = bound.where(~self.given_up(state), math.inf)
        again = _ranked(state)[
            : self.reevaluate
        ]  # their own losses, and those of their trials, change what is compared
        return torch.cat([bound.index_fill(0, again, math.inf), bound.new_full((len(again),), math.inf)])

    def recommend(self, state: S) -> Float[Tensor, " dim"]:
        """The best candidate ever; where members are scored again, the member with the best mean."""
        return state.population[_ranked(state)[0]].clone() if self.reevaluate else state.best_x

    # its steps

    def given_up(self, state: DEState) -> Bool[Tensor, " members"]:
        """Members that the next generation replaces whatever comes."""
        n, device = len(state.population), state.population.device
        given = torch.zeros(n, dtype=torch.bool, device=device)
        if state.generation == 0 or (self.age is None and self.restart is None):
            return given
        if self.age is not None and state.ages is not None:
            given = state.ages >= self.age
        if self.restart is not None and state.spread < self.restart * state.start_spread:
            given = torch.ones(n, dtype=torch.bool, device=device)
        return given.index_fill(0, _ranked(state)[:1], False)

    def draw(self, state: S, generator: torch.Generator) -> Draws:
        """Everything random about the next generation, on the generator's device."""
        n, dim = state.population.shape
        device, dtype = generator.device, state.population.dtype
        parameters = self.parameters(state, generator)
        u = torch.rand(n, generator=generator, dtype=torch.float64, device=device)
        start = torch.randint(dim // self.unit, (n,), generator=generator, device=device)
        given = int(self.given_up(state).sum()) if self.age is not None or self.restart is not None else 0
        archive, resample = self.archive(state), self.bounds is not None and self.bounds_handling == "resample"
        return Draws(
            **parameters._asdict(),
            donors=self.donors(state, generator),
            elite=torch.randint(self.elite(state), (n,), generator=generator, device=device),
            start=start,
            **crossing(self.scheme, parameters.CR, u, start, dim // self.unit, generator),
            jitter=random_words(n, dim, generator) if self.jittered else None,
            within=torch.rand((n, dim), generator=generator, dtype=dtype, device=device) if resample else None,
            fresh=torch.randn((given, dim), generator=generator, dtype=dtype, device=device) if given else None,
            keys=None
            if archive is None
            else torch.rand(len(archive) + n, generator=generator, dtype=torch.float64, device=device),
        )

    @property
    def jittered(self) -> float:
        """By how much F differs between coordinates."""
        return 0.0

    def propose(self, state: S, draws: Draws) -> Float[Tensor, "members dim"]:
        """Trials: a function of the state and the draws only."""
        population, archive, index = state.population, self.archive(state), members(draws, _ranked(state))
        low, high = sides(self.bounds, population)
        trials = memory.empty_like(population)
        spare: tuple[Tensor, ...] = (trials[:0],)
        crossed = None if self.unit == 1 else self._crossing(index, draws, population)
        for columns in column_blocks(population, self.unit):
            parents, out = population[:, columns], trials[:, columns]
            pool = parents if archive is None or not len(archive) else torch.cat([parents, archive[:, columns]])
            if spare[0].shape != parents.shape:
                spare = parents.new_empty((3, *parents.shape)).unbind()
            self._cross(pool, parents, index, draws, crossed, columns, spare, out)
            if self.bounds is not None:
                within = None if draws.within is None else draws.within[:, columns]
                left, right = (side[columns] if side.ndim else side for side in (low, high))
                repair(out, parents, left, right, self.bounds_handling, within)
        if draws.fresh is not None and state.start is not None:
            points = (state.start[0] + state.start[1] * draws.fresh).clamp(low, high)
            trials[self.given_up(state)] = points
        return trials

    def _crossing(self, index: Mapping[str, Int[Tensor, " members"]], draws: Draws, like: Tensor) -> Crossing:
        """Which units cross: known for all blocks of columns at once, where there are few."""
        n, dim = like.shape
        mask = crossover(draws, slice(0, dim // self.unit), like.new_empty((n, dim // self.unit)))
        base, by_unit = index[STRATEGIES[self.scheme[:-3]].base], mask.T.contiguous()
        return Crossing(mask, (draws.F.to(like.dtype) * by_unit)[:, :, None], base.where(by_unit > 0, index["x"]))

    def _cross(
        self,
        pool: Float[Tensor, "rows columns"],
        parents: Float[Tensor, "members columns"],
        index: Mapping[str, Int[Tensor, " members"]],
        draws: Draws,
        crossed: Crossing | None,
        columns: slice,
        spare: Sequence[Float[Tensor, "members columns"]],
        out: Float[Tensor, "members columns"],
    ) -> None:
        """Some columns of the trials, into ``out``: mutants where units cross, their parents elsewhere."""
        strategy, units = STRATEGIES[self.scheme[:-3]], slice(columns.start // self.unit, -(-columns.stop // self.unit))
        alone = crossed is not None and units.stop - units.start == 1
        F = crossed.F[units.start] if crossed is not None and alone else draws.F.to(out.dtype)[:, None]
        if draws.jitter is not None:  # F (1 + jitter (u - 1/2))
            F = F * (1 + self.jittered / 2**16 * (draws.jitter[:, columns] + 0.5).to(out.dtype))
        if crossed is not None and alone:  # x + 0 (...) where it does not cross: no pass over the numbers for a mask
            index = {**index, "mixed": crossed.base[units.start]}
            mutate(pool, strategy._replace(base="mixed"), index, F, draws.w, spare, out)
            return
        mutants = mutate(pool, strategy, index, F, draws.w, spare, spare[0])
        if crossed is None:
            mask = crossover(draws, units, spare[1][:, : units.stop - units.start])
        else:
            parents, mutants, out = (matrix.unflatten(1, (-1, self.unit)) for matrix in (parents, mutants, out))
            mask = crossed.mask[:, units, None]
        torch.lerp(parents, mutants, mask, out=out)

    def outcome(self, state: DEState, old: Float[Tensor, " members"], told: Float[Tensor, " members"]) -> Outcome:
        """Who goes on; ``told`` are the trials' losses."""
        old, new, given = comparable(old), comparable(told), self.given_up(state)
        accepted = given | (new <= old - self.margin)
        return Outcome(old, new, accepted, accepted & (new < old) & ~given, given)


@dataclass(frozen=True)
class DE(Evolution):
    """Differential evolution with F and CR that stay.

    Parameters
    ----------
    population_size : members, and candidates of the first generation.
    strategy : a name in ``softde.optim.mutation.NAMES``: best1, best2, rand1, rand2, randtobest1, currenttobest1 or
        currenttopbest1, followed by bin or exp.
    F : differential weight in (0, 2], or (low, high): drawn uniformly between them.
    CR : crossover probability in [0, 1]: the rate of a binomial crossover, or that at which an exponential one goes on.
    p : currenttopbest1 draws from the best ``round(p * population_size)`` members, never fewer than two.
    dither : a (low, high) F is drawn once per "candidate", which mixes step lengths within a generation, or once per
        "generation", as SciPy does.
    jitter : each coordinate has its own F (1 + jitter (u - 1/2)), u uniform; Storn's own programs use 0.001.
    bounds, bounds_handling, unit, reevaluate, margin, restart, age : see ``Evolution``.
    """

    population_size: int = 32
    strategy: str = "rand1bin"
    F: float | tuple[float, float] = 0.5
    CR: float = 0.9
    p: float = 0.1
    dither: str = "candidate"
    jitter: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        if self.strategy not in NAMES:
            raise ValueError(f"Unknown strategy {self.strategy!r}: expected one of {', '.join(NAMES)}.")
        super().__post_init__()
        what = "jitter, how far F differs between coordinates, in [0, 2]"
        put(self, {
            "F": _checked_scale(self.F),
            "CR": number(self.CR, "CR, a probability, in [0, 1]", lambda v: 0 <= v <= 1),
            "p": share(self.p, "p", "the share of the population that counts as best"),
            "jitter": number(self.jitter, what, lambda v: 0 <= v <= 2),
        })  # fmt: skip
        if self.dither not in ("candidate", "generation"):
            raise ValueError(f"Expected dither 'candidate' or 'generation', but got {self.dither!r}.")

    @property
    def scheme(self) -> str:
        """The name of the strategy."""
        return self.strategy

    @property
    def jittered(self) -> float:
        """By how much F differs between coordinates."""
        return self.jitter

    def elite(self, state: DEState) -> int:
        """How many members count as the best."""
        return elite_size(self.p, len(state.population))

    def parameters(self, state: DEState, generator: torch.Generator) -> Parameters:
        """F and CR of each trial, on the generator's device."""
        n, low_high = len(state.population), self.F if isinstance(self.F, tuple) else (self.F, self.F)
        u = torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device)
        scale = u if self.dither == "candidate" else u[:1].expand(n)
        return Parameters(low_high[0] + (low_high[1] - low_high[0]) * scale, torch.full_like(u, self.CR))


def elite_size(p: float, n: int) -> int:
    """How many members are "among the best 100 p percent"; two at least, or pbest would be best."""
    return max(2, round(p * n))


# ---- selection -----------------------------------------------------------------------------------------------------


def chosen(
    accepted: Bool[Tensor, " members"], candidates: Tensor, population: Float[Tensor, "members dim"]
) -> Float[Tensor, "members dim"]:
    """The candidates where they are accepted, else their parents: row by row, so that each number moves once."""
    pairs = zip(accepted.tolist(), candidates, population, strict=False)  # re-evaluated members come behind the trials
    rows = [candidate if yes else parent for yes, candidate, parent in pairs]
    return torch.stack(rows, out=memory.empty_like(population))


def running_means(
    state: DEState, again: Float[Tensor, " again"]
) -> tuple[Float[Tensor, " members"], Int[Tensor, " members"] | None]:
    """Members' losses and their counts once the best members have been scored again; what is not finite is left out."""
    if state.counts is None or not len(again):
        return state.losses, state.counts
    rows, scored = _ranked(state)[: len(again)], again.isfinite()
    rows, again = rows[scored], again[scored]
    count, mean = state.counts[rows], state.losses[rows].where(state.counts[rows] > 0, 0.0)
    return (
        state.losses.index_copy(0, rows, mean + (again - mean) / (count + 1)),
        state.counts.index_copy(0, rows, count + 1),
    )


def shrink(state: S, size: int, reevaluate: int) -> S:
    """The state with its best ``size`` members, in their order."""
    state = replace(state, population_size=size + min(reevaluate, size))
    if size == len(state.population):
        return state
    rows = _ranked(state)[:size].sort().values
    kept: dict[str, Any] = {name: getattr(state, name) for name in ("population", "losses", "counts", "ages")}
    kept = {name: None if value is None else value[rows] for name, value in kept.items()}
    return replace(state, **kept)


def _ranked(state: DEState) -> Int[Tensor, " members"]:
    return comparable(state.losses).argsort(stable=True)


# ---- bad input -----------------------------------------------------------------------------------------------------


def _check_unit(unit: int, population: Tensor) -> None:
    if population.shape[1] % unit:
        raise ValueError(
            f"Expected a dimension that is a multiple of unit={unit}, the coordinates that cross over together, but "
            f"the start points have {population.shape[1]} coordinates: change unit or the points."
        )


def _check_population(optimizer: Evolution, scheme: str) -> None:
    least = STRATEGIES[scheme[:-3]].donors + 1
    if optimizer.population_size < least:
        raise ValueError(
            f"Strategy {scheme!r} needs a population of at least {least} (a target and its distinct donors), but "
            f"population_size is {optimizer.population_size!r}: raise it to {least} or more."
        )
    if optimizer.reevaluate > optimizer.population_size:
        raise ValueError(
            f"Expected reevaluate, members to score again, of at most population_size={optimizer.population_size}, but "
            f"got {optimizer.reevaluate}."
        )


def _checked_bounds(bounds: Any, handling: str) -> Bounds | None:
    if handling not in ("none", "clip", "bounce", "resample"):
        raise ValueError(f"Expected bounds_handling 'none', 'clip', 'bounce' or 'resample', but got {handling!r}.")
    if bounds is None:
        return None
    pair = as_bounds(bounds)
    if pair is None:
        raise ValueError(
            f"Expected bounds as a pair (low, high), each a number or one number per coordinate, but got {bounds!r}."
        )
    low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in pair)
    if low.ndim and high.ndim and low.shape != high.shape:
        raise ValueError(f"Expected low and high bounds of one length, but got {len(low)} and {len(high)} numbers.")
    if not bool((low < high).all()):
        raise ValueError(f"Expected bounds (low, high) with low below high everywhere, but got {bounds!r}.")
    if handling == "resample" and not bool((high - low).isfinite().all()):
        raise ValueError(f"Expected finite bounds for bounds_handling 'resample', but got {bounds!r}.")
    return pair


def share(value: object, name: str, what: str) -> float:
    """A share, in (0, 1]."""
    return number(value, f"{name}, {what}, in (0, 1]", lambda v: 0 < v <= 1)


def _checked_scale(F: Any) -> float | tuple[float, float]:
    found = plain_number(F)
    low, high = (found, found) if found is not None else as_bounds(F) or (0.0, 0.0)
    if not (isinstance(low, (int, float)) and isinstance(high, (int, float)) and 0 < low <= high <= 2):
        raise ValueError(f"Expected F as a number in (0, 2] or a pair (low, high) of such numbers, but got {F!r}.")
    return low if found is not None else (low, high)
