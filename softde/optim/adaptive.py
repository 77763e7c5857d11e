"""Differential evolution that learns F and CR from its successes.

All share the generation of ``softde.optim.de``: mutation by a strategy, crossover, bounds and selection. References:

[JADE] Zhang, Sanderson (2009), IEEE Trans. Evolutionary Computation 13(5), 945: current-to-pbest, an archive, means.
[SHADE] Tanabe, Fukunaga (2013), IEEE CEC, 71: a memory of successful means in place of one mean.
[LSHADE] Tanabe, Fukunaga (2014), IEEE CEC, 1658: a population that shrinks linearly. It repeats [SHADE]'s equations.
[JSO] Brest, Maucec, Boskovic (2017), IEEE CEC, 1311: a weighted strategy, and limits on F and CR early on.
[JDE] Brest, Greiner, Boskovic, Mernik, Zumer (2006), IEEE Trans. Evolutionary Computation 10(6), 646: members carry
their F and CR.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from softde.checks import number, put, whole
from softde.optim import memory
from softde.optim.de import (
    DEState,
    Evolution,
    Outcome,
    Parameters,
    elite_size,
    share,
)
from softde.optim.draws import Draws, donors_with_archive


@dataclass(frozen=True, eq=False)
class AdaptiveState(DEState):
    """A search that learns: an archive of parents that were beaten, and the means that F and CR are drawn around."""

    A: Tensor  # (archived, dim)
    M_F: Tensor  # (H,) float64; JADE's mu_F is a memory of one cell
    M_CR: Tensor  # (H,) float64; NaN is the terminal value of [LSHADE], "CR is 0 from now on"
    k: int  # the cell of the memory that is written next
    F: Tensor  # (members,) float64, of the trials that wait for their losses
    CR: Tensor  # (members,) float64
    keys: Tensor  # (archived + members,) the smallest stay when the archive overflows


@dataclass(frozen=True)
class Adaptive(Evolution):
    """current-to-pbest/1/bin with an archive, F and CR drawn around a memory: what JADE, SHADE and their heirs share.

    Parameters
    ----------
    p : pbest is one of the best ``round(p * members)``, never fewer than two.
    r_arc : the archive holds ``round(r_arc * members)`` rows; 0 for none.
    """

    state_type: ClassVar[type[DEState]] = AdaptiveState
    mutation: ClassVar[str] = "currenttopbest1bin"  # [JADE] eq. 7
    M_start: ClassVar[tuple[float, float]] = (0.5, 0.5)  # of F and of CR

    p: float = field(default=0.1, kw_only=True)
    r_arc: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        put(self, {
            "p": share(self.p, "p", "the share of the population that counts as best"),
            "r_arc": number(self.r_arc, "r_arc, the archive's size per member, of 0 or more", lambda v: v >= 0),
        })  # fmt: skip

    @property
    def cells(self) -> int:
        """Cells of the memory."""
        return 1

    def elite(self, state: AdaptiveState) -> int:
        """How many members count as the best."""
        return elite_size(self.p, len(state.population))

    def archive(self, state: AdaptiveState) -> Float[Tensor, "archived dim"]:
        """Beaten parents, from which r2 may be drawn."""
        return state.A

    def donors(self, state: AdaptiveState, generator: torch.Generator) -> Int[Tensor, "members 2"]:
        """r1 and r2 of each trial."""
        return donors_with_archive(len(state.population), len(state.A), generator)

    def parameters(self, state: AdaptiveState, generator: torch.Generator) -> Parameters:
        """CR ~ N(M_CR, 0.1) and F ~ Cauchy(M_F, 0.1) around a random cell ([LSHADE] eq. 1, 2; [JADE] eq. 8, 10)."""
        r = torch.randint(self.cells, (len(state.population),), generator=generator, device=generator.device)
        M_F, M_CR = state.M_F.to(r.device)[r], state.M_CR.to(r.device)[r]
        return Parameters(cauchy(M_F, generator), normal(M_CR, generator))

    def extra(self, population: Tensor) -> dict[str, Any]:
        """An empty archive and a memory of one value."""
        numbers = torch.zeros(len(population), dtype=torch.float64, device=population.device)
        memory = numbers.new_ones(self.cells)
        return {
            "A": population[:0].clone(),
            "M_F": self.M_start[0] * memory,
            "M_CR": self.M_start[1] * memory,
            "k": 0,
            "F": numbers,
            "CR": numbers.clone(),
            "keys": numbers.clone(),
        }

    def pending(self, draws: Draws) -> dict[str, Any]:
        """What tell needs of the draws."""
        return {"F": draws.F, "CR": draws.CR, "keys": draws.keys}

    def learn(self, state: AdaptiveState, outcome: Outcome) -> dict[str, Any]:
        """The archive takes the beaten parents, the memory their trials' F and CR."""
        if state.generation == 0:
            return {}
        changes = {"A": archived(state, outcome.success, self.capacity(state))}
        if bool(outcome.success.any()):
            F, CR = state.F[outcome.success], state.CR[outcome.success]
            changes |= self.remember(state, F, CR, weights(outcome))
        return changes

    def remember(
        self,
        state: AdaptiveState,
        F: Float[Tensor, " successes"],
        CR: Float[Tensor, " successes"],
        w: Float[Tensor, " successes"],
    ) -> dict[str, Any]:
        """The memory after a generation with successes; ``w`` adds up to one."""
        raise NotImplementedError

    def capacity(self, state: AdaptiveState) -> int:
        """Rows that the archive may have after the generation that is told."""
        return round(self.r_arc * len(state.population))


@dataclass(frozen=True)
class JADE(Adaptive):
    """current-to-pbest/1/bin with an archive; F and CR are drawn around means that follow the successes [JADE].

    Parameters
    ----------
    population_size : members, and candidates per generation.
    c : how fast the means mu_F and mu_CR move, in (0, 1].
    p : pbest is one of the best ``round(p * population_size)`` members, never fewer than two.
    r_arc : the archive holds ``round(r_arc * members)`` rows; 0 for none.
    bounds, bounds_handling, unit, reevaluate, margin, restart, age : see ``Evolution``.
    """

    c: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        put(self, {"c": share(self.c, "c", "how fast the means move")})

    def remember(
        self,
        state: AdaptiveState,
        F: Float[Tensor, " successes"],
        CR: Float[Tensor, " successes"],
        w: Float[Tensor, " successes"],
    ) -> dict[str, Any]:
        """Mu moves towards the successes' mean: arithmetic for CR, Lehmer for F ([JADE] eq. 9, 11, 12)."""
        equal = torch.full_like(w, 1 / len(w))
        return {
            "M_F": (1 - self.c) * state.M_F + self.c * lehmer(F, equal),
            "M_CR": (1 - self.c) * state.M_CR + self.c * CR.mean(),
        }


@dataclass(frozen=True)
class SHADE(Adaptive):
    """current-to-pbest/1/bin with an archive; F and CR are drawn around cells of a memory of successes [SHADE].

    Parameters
    ----------
    population_size : members, and candidates per generation.
    H : cells of the memory.
    p : pbest is one of the best ``round(p * members)``, never fewer than two. [SHADE] draws p between 2 / members and
        0.2 for each trial; a fixed p is [LSHADE]'s.
    r_arc : the archive holds ``round(r_arc * members)`` rows; 0 for none.
    bounds, bounds_handling, unit, reevaluate, margin, restart, age : see ``Evolution``.
    """

    population_size: int = 16
    H: int = 10

    def __post_init__(self) -> None:
        put(self, {"H": whole(self.H, "H", 1)})
        super().__post_init__()

    @property
    def cells(self) -> int:
        """Cells of the memory."""
        return self.H

    def remember(
        self,
        state: AdaptiveState,
        F: Float[Tensor, " successes"],
        CR: Float[Tensor, " successes"],
        w: Float[Tensor, " successes"],
    ) -> dict[str, Any]:
        """One cell after the other takes the means of a generation, weighted by improvement ([LSHADE] eq. 7 to 9)."""
        M_F, M_CR = state.M_F.clone(), state.M_CR.clone()
        M_F[state.k], M_CR[state.k] = self.means(F, CR, w, state.M_F[state.k], state.M_CR[state.k])
        return {"M_F": M_F, "M_CR": M_CR, "k": (state.k + 1) % self.H}

    def means(
        self,
        F: Float[Tensor, " successes"],
        CR: Float[Tensor, " successes"],
        w: Float[Tensor, " successes"],
        M_F: Float[Tensor, ""],
        M_CR: Float[Tensor, ""],
    ) -> tuple[Tensor, Tensor]:
        """What a cell that held M_F and M_CR takes: for CR the arithmetic mean, as in [SHADE]."""
        return lehmer(F, w), (w * CR).sum()


@dataclass(frozen=True)
class LSHADE(SHADE):
    """SHADE with a population that shrinks linearly over a budget [LSHADE].

    Parameters
    ----------
    population_size : N_init, members and candidates of the first generation; [LSHADE] takes 18 per coordinate.
    H, p, r_arc : as in SHADE.
    budget : candidates scored until ``N_min`` members are left.
    N_min : the smallest population.
    bounds, bounds_handling, unit, reevaluate, margin, restart, age : see ``Evolution``.
    """

    population_size: int = 32
    H: int = 6
    budget: int = 0
    N_min: int = 4
    p: float = field(default=0.11, kw_only=True)
    r_arc: float = field(default=2.6, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        put(self, {"N_min": whole(self.N_min, "N_min", 4), "budget": whole(self.budget, "budget")})
        _check_shrinking(self)

    def progress(self, evaluations: int) -> float:
        """The share of the budget that is used up, NFE / MAX_NFE."""
        return min(1.0, evaluations / self.budget)

    def members(self, evaluations: int) -> int:
        """N = round(N_init + (N_min - N_init) NFE / MAX_NFE) ([LSHADE] eq. 10)."""
        return round(self.population_size + (self.N_min - self.population_size) * self.progress(evaluations))

    def survivors(self, state: DEState) -> int:
        """How many members go on from a state that has been told; the worst leave."""
        return min(len(state.population), self.members(state.evaluations))

    def capacity(self, state: AdaptiveState) -> int:
        """Rows that the archive may have after the generation that is told: it shrinks with the population."""
        return round(self.r_arc * self.members(state.evaluations + state.population_size))

    def means(
        self,
        F: Float[Tensor, " successes"],
        CR: Float[Tensor, " successes"],
        w: Float[Tensor, " successes"],
        M_F: Float[Tensor, ""],
        M_CR: Float[Tensor, ""],
    ) -> tuple[Tensor, Tensor]:
        """What a cell takes: Lehmer means; once CR has come to 0 it stays there ([LSHADE] algorithm 1)."""
        ended = bool(M_CR.isnan()) or float(CR.max()) == 0
        return lehmer(F, w), torch.full_like(M_CR, math.nan) if ended else lehmer(CR, w)


@dataclass(frozen=True)
class JSO(LSHADE):
    """L-SHADE with a weighted strategy and careful early steps [JSO].

    v = x + F_w (pbest - x) + F (r1 - r2), where F_w grows from 0.7 F to 1.2 F over the budget.

    Parameters
    ----------
    population_size : N_init; [JSO] takes 25 log(dim) sqrt(dim).
    H : cells of the memory; the last is always 0.9 for F and CR.
    p : the share that counts as best at the start; it falls to half of that.
    r_arc, budget, N_min : as in LSHADE.
    bounds, bounds_handling, unit, reevaluate, margin, restart, age : see ``Evolution``.
    """

    M_start: ClassVar[tuple[float, float]] = (0.3, 0.8)

    H: int = 5
    p: float = field(default=0.25, kw_only=True)
    r_arc: float = field(default=1.0, kw_only=True)

    def elite(self, state: AdaptiveState) -> int:
        """How many members count as the best: p falls linearly from p_max to p_max / 2."""
        return elite_size(self.p * (1 - self.progress(state.evaluations) / 2), len(state.population))

    def parameters(self, state: AdaptiveState, generator: torch.Generator) -> Parameters:
        """F, CR and F_w / F of each trial ([JSO] algorithm 1)."""
        n, t, cell = len(state.population), self.progress(state.evaluations), state.M_F.new_tensor([0.9])
        r = torch.randint(self.H, (n,), generator=generator, device=generator.device)
        M_F, M_CR = (torch.cat([M[:-1], cell]).to(r.device)[r] for M in (state.M_F, state.M_CR))
        CR = normal(M_CR, generator).clamp(min=0.7 if t < 0.25 else 0.6 if t < 0.5 else 0.0)
        F = cauchy(M_F, generator).clamp(max=0.7 if t < 0.6 else 1.0)
        return Parameters(F, CR, torch.full_like(F, 0.7 if t < 0.2 else 0.8 if t < 0.4 else 1.2))

    def means(
        self,
        F: Float[Tensor, " successes"],
        CR: Float[Tensor, " successes"],
        w: Float[Tensor, " successes"],
        M_F: Float[Tensor, ""],
        M_CR: Float[Tensor, ""],
    ) -> tuple[Tensor, Tensor]:
        """What a cell takes: halfway from what it held to L-SHADE's means."""
        new_F, new_CR = super().means(F, CR, w, M_F, M_CR)
        return (new_F + M_F) / 2, (new_CR + M_CR) / 2


@dataclass(frozen=True, eq=False)
class JDEState(DEState):
    """A search whose members carry their F and CR, and so do the trials that wait for their losses."""

    F: Tensor  # (members,) float64
    CR: Tensor
    F_trial: Tensor
    CR_trial: Tensor


@dataclass(frozen=True)
class JDE(Evolution):
    """rand/1/bin whose members carry their own F and CR, which change now and then and are inherited [JDE].

    Parameters
    ----------
    population_size : members, and candidates per generation.
    tau1, tau2 : probabilities that a trial's F, and its CR, are drawn anew.
    F_low, F_up : a new F is uniform between F_low and F_low + F_up; a new CR between 0 and 1.
    bounds, bounds_handling, unit, reevaluate, margin, restart, age : see ``Evolution``.
    """

    state_type: ClassVar[type[DEState]] = JDEState
    mutation: ClassVar[str] = "rand1bin"

    tau1: float = 0.1
    tau2: float = 0.1
    F_low: float = 0.1
    F_up: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        put(self, {
            "tau1": share(self.tau1, "tau1", "a probability"),
            "tau2": share(self.tau2, "tau2", "a probability"),
            "F_low": number(self.F_low, "F_low above 0", lambda v: v > 0),
            "F_up": number(self.F_up, "F_up of 0 or more", lambda v: v >= 0),
        })  # fmt: skip
        if self.F_low + self.F_up > 2:
            raise ValueError(
                f"Expected F_low + F_up, the largest F, of at most 2, but got {self.F_low!r} and {self.F_up!r}: lower "
                "one of them."
            )

    def extra(self, population: Tensor) -> dict[str, Any]:
        """F = 0.5 and CR = 0.9 for all."""
        ones = torch.ones(len(population), dtype=torch.float64, device=population.device)
        return {"F": 0.5 * ones, "CR": 0.9 * ones, "F_trial": 0.5 * ones, "CR_trial": 0.9 * ones}

    def parameters(self, state: JDEState, generator: torch.Generator) -> Parameters:
        """The members' own, or new ones ([JDE] eq. 8, 9)."""
        shape, device = (4, len(state.population)), generator.device
        rand1, rand2, rand3, rand4 = torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
        F = (self.F_low + rand1 * self.F_up).where(rand2 < self.tau1, state.F.to(device))
        return Parameters(F, rand3.where(rand4 < self.tau2, state.CR.to(device)))

    def pending(self, draws: Draws) -> dict[str, Any]:
        """What tell needs of the draws."""
        return {"F_trial": draws.F, "CR_trial": draws.CR}

    def learn(self, state: JDEState, outcome: Outcome) -> dict[str, Any]:
        """A trial that is accepted brings its F and CR along."""
        rows = outcome.accepted
        return {"F": state.F_trial.where(rows, state.F), "CR": state.CR_trial.where(rows, state.CR)}


# ---- draws ---------------------------------------------------------------------------------------------------------


def normal(M: Float[Tensor, " trials"], generator: torch.Generator) -> Float[Tensor, " trials"]:
    """N(M, 0.1), cut to [0, 1]; 0 where M is the terminal value, NaN."""
    noise = torch.randn(M.shape, generator=generator, dtype=M.dtype, device=M.device)
    return (M + 0.1 * noise).clamp(0, 1).nan_to_num(0.0)


def cauchy(M: Float[Tensor, " trials"], generator: torch.Generator) -> Float[Tensor, " trials"]:
    """Cauchy(M, 0.1), above 1 cut to 1, drawn again where it is not above 0.

    The latter without drawing again: by the inverse of the distribution function, from its part above 0.
    """
    u = 1 - torch.rand(M.shape, generator=generator, dtype=M.dtype, device=M.device)  # in (0, 1]
    below = 0.5 - (M / 0.1).atan() / math.pi  # P(F <= 0)
    return (M + 0.1 * (math.pi * (below + (1 - below) * u - 0.5)).tan()).clamp(1e-6, 1)


# ---- what is learnt ------------------------------------------------------------------------------------------------


def weights(outcome: Outcome) -> Float[Tensor, " successes"]:
    """Each success's share of the improvement ([LSHADE] eq. 9).

    A parent without a finite loss counts as the worst of the other parents and the successes.
    """
    old, new = outcome.old, outcome.new[outcome.success]
    worst = torch.cat([old[old.isfinite()], new]).max()
    gain = old[outcome.success].minimum(worst) - new
    total = gain.sum()
    return gain / total if 0 < float(total) < math.inf else torch.full_like(gain, 1 / len(gain))


def lehmer(x: Float[Tensor, " successes"], w: Float[Tensor, " successes"]) -> Float[Tensor, ""]:
    """The weighted Lehmer mean ([LSHADE] eq. 7)."""
    return (w * x**2).sum() / (w * x).sum()


def archived(state: AdaptiveState, success: Bool[Tensor, " members"], capacity: int) -> Float[Tensor, "archived dim"]:
    """The archive with the beaten parents; where it overflows, random ones stay ([JADE] section III-B)."""
    old, rows = len(state.A), success.nonzero().flatten()
    if not len(rows) and old <= capacity:
        return state.A
    keys = torch.cat([state.keys[:old], state.keys[old + rows]])
    stay = keys.argsort()[:capacity].sort().values
    kept, added = stay[stay < old], rows[stay[stay >= old] - old]
    A = memory.empty((len(stay), state.population.shape[1]), state.population.dtype, state.population.device)
    torch.index_select(state.A, 0, kept, out=A[: len(kept)])
    torch.index_select(state.population, 0, added, out=A[len(kept) :])
    return A


# ---- bad input -----------------------------------------------------------------------------------------------------


def _check_shrinking(optimizer: LSHADE) -> None:
    if optimizer.N_min > optimizer.population_size:
        raise ValueError(
            f"Expected N_min, the smallest population, of at most population_size={optimizer.population_size}, but got "
            f"{optimizer.N_min}: raise population_size or lower N_min, which is 4 at least."
        )
    if optimizer.budget < optimizer.population_size:
        raise ValueError(
            f"Expected budget, the candidates over which the population shrinks, of at least the population size, "
            f"which is {optimizer.population_size}, but got {optimizer.budget}: give the budget of the search."
        )
    if optimizer.reevaluate > optimizer.N_min:
        raise ValueError(
            f"Expected reevaluate, members to score again, of at most N_min={optimizer.N_min}, but got "
            f"{optimizer.reevaluate}."
        )
