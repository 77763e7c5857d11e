"""Particle swarm optimisation (Kennedy and Eberhart 1995) with Clerc and Kennedy's constriction.

Every particle i has a position x, a velocity v and the best place p it has been to; l is the best of its neighbours'::

    v <- chi (v + c1 r1 (p - x) + c2 r2 (l - x))      r1, r2 uniform in [0, 1), drawn for every coordinate
    x <- x + v

References: [KE] Kennedy, Eberhart (1995), Proc. IEEE Int. Conf. Neural Networks, 1942; [CK] Clerc, Kennedy (2002), IEEE
Trans. Evolutionary Computation 6(1), 58; [BK] Bratton, Kennedy (2007), Proc. IEEE Swarm Intelligence Symposium, 120.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, Int16
from torch import Tensor

from softde.checks import number, put, whole
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
    row_blocks,
)
from softde.optim.bounds import as_bounds, check_within
from softde.optim.draws import random_words


@dataclass(frozen=True, eq=False)
class PSOState(State):
    """A swarm between two calls; losses are as they came, +inf before the first tell."""

    positions: Tensor  # (population, dim): x
    velocities: Tensor  # (population, dim): v
    bests: Tensor  # (population, dim): p; (0, dim) before the first tell, when it is x
    losses: Tensor  # (population,) float64: f(p)


@dataclass(frozen=True, eq=False)
class Draws:
    """Everything random about one generation: 16-bit words, of which r1 and r2 are made, and a particle for each."""

    words1: Int16[Tensor, "population dim"]
    words2: Int16[Tensor, "population dim"]
    partner: Int[Tensor, " population"]  # any other particle


@dataclass(frozen=True)
class PSO:
    """Particle swarm optimisation.

    Parameters
    ----------
    population_size : particles, at least two.
    neighbourhood : "ring", where l is the best of i - 1, i and i + 1, or "global", the best of all: faster, and sooner
        stuck ([BK] section III).
    chi : constriction factor in (0, 1]. c1, c2 : pull towards p and l. The defaults are [CK]'s: chi = 2 / (phi - 2 +
        sqrt(phi^2 - 4 phi)) = 0.7298 with phi = c1 + c2 = 4.1.
    speed : before the first move v is ``speed`` times the way to another particle's start point; 0 starts at rest.
    bounds : None, or (low, high): a particle that would leave stops on the bound, and its velocity is what it moved.
    """

    state_type: ClassVar[type[PSOState]] = PSOState

    population_size: int = 16
    neighbourhood: str = "ring"
    chi: float = 0.7298
    c1: float = 2.05
    c2: float = 2.05
    speed: float = 0.5
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        put(self, {"population_size": whole(self.population_size, "population_size", 2)})
        for name in ("chi", "c1", "c2", "speed"):
            put(self, {name: number(getattr(self, name), f"{name} as a number of at least 0", lambda v: v >= 0)})
        _check(self)
        if self.bounds is not None:
            put(self, {"bounds": _checked_bounds(self.bounds)})

    def init(self, points: Any) -> PSOState:
        """Start from points (population_size, dim), float32 or float64."""
        x = as_points(points, self.population_size)
        check_within(x, self.bounds)
        losses = torch.full(x.shape[:1], math.inf, dtype=torch.float64, device=x.device)
        return PSOState(x[0].clone(), math.inf, 0, 0, False, len(x), x, x[:0].clone(), x[:0].clone(), losses)

    def ask(self, state: PSOState, generator: torch.Generator) -> tuple[Tensor, PSOState]:
        """Candidates to score, (population, dim): first the start points, then where the particles move."""
        check_ask(self, state, generator)
        first = state.generation == 0
        candidates = state.positions.clone() if first else self.propose(state, self.draw(state, generator))
        return candidates, replace(state, asked=True)

    def tell(self, state: PSOState, candidates: Tensor, losses: Any) -> tuple[PSOState, Info]:
        """Move there. ``Info`` describes the best places, and counts the particles that found a better one."""
        check_tell(self, state, candidates)
        losses = as_losses(losses, candidates)
        new, old = comparable(losses), comparable(state.losses)
        if state.generation == 0:
            changes = {"bests": candidates.clone(), "losses": losses.clone()}
        else:
            better = (new < old).nonzero().flatten()
            changes = {
                "positions": candidates.clone(),
                "velocities": candidates - state.positions,
                "bests": state.bests.index_copy(0, better, candidates.index_select(0, better)),
                "losses": state.losses.index_copy(0, better, losses.index_select(0, better)),
            }
        state = advance(state, candidates, losses, **changes)
        return state, describe(state, state.bests, state.losses, losses, improved=int((new < old).sum()))

    def bound(self, state: PSOState) -> Float[Tensor, " population"]:
        """The losses of the best places: what is worse is forgotten, however much worse."""
        return comparable(state.losses)

    def draw(self, state: PSOState, generator: torch.Generator) -> Draws:
        """Everything random about the next generation, on the generator's device."""
        n, dim = state.shape
        words = (random_words(n, dim, generator), random_words(n, dim, generator))
        shift = torch.randint(1, n, (n,), generator=generator, device=generator.device)
        return Draws(*words, partner=(torch.arange(n, device=generator.device) + shift) % n)

    def propose(self, state: PSOState, draws: Draws) -> Tensor:
        """Where the particles move, (population, dim): a function of the state and the draws only."""
        x, p = state.positions, state.bests
        leaders = leader(comparable(state.losses), self.neighbourhood)
        partner = draws.partner.to(x.device)
        moved = memory.empty_like(x)
        for rows in row_blocks(x):
            here = x[rows]
            v = state.velocities[rows] if len(state.velocities) else self.speed * (x[partner[rows]] - here)
            own = uniform(draws.words1[rows], x).mul_(self.c1).mul_(p[rows] - here)
            social = uniform(draws.words2[rows], x).mul_(self.c2).mul_(p[leaders[rows]] - here)
            torch.add(here, own.add_(social).add_(v), alpha=self.chi, out=moved[rows])  # [CK] eq. 4, constricted
        return moved if self.bounds is None else moved.clamp_(*self.bounds)


def leader(losses: Float[Tensor, " population"], neighbourhood: str) -> Int[Tensor, " population"]:
    """For each particle, which neighbour (itself included) has found the best place; a tie keeps the nearest."""
    n = len(losses)
    if neighbourhood == "global":
        return losses.argmin().expand(n)
    own = torch.arange(n, device=losses.device)
    ring = torch.stack([own, (own - 1) % n, (own + 1) % n])
    return ring.gather(0, losses[ring].argmin(dim=0, keepdim=True))[0]


def uniform(words: Int16[Tensor, "rows dim"], like: Tensor) -> Float[Tensor, "rows dim"]:
    """Numbers in (0, 1), the middles of 65,536 equal intervals, in the type and on the device of ``like``."""
    return words.to(device=like.device, dtype=like.dtype).add_(2**15 + 0.5).div_(2**16)


def _check(pso: PSO) -> None:
    if pso.neighbourhood not in ("ring", "global"):
        raise ValueError(f"Expected neighbourhood 'ring' or 'global', but got {pso.neighbourhood!r}.")
    if not 0 < pso.chi <= 1:
        raise ValueError(f"Expected chi, the constriction factor, in (0, 1], but got {pso.chi!r}.")
    if pso.c1 + pso.c2 == 0:
        raise ValueError("Expected c1 or c2 above 0, but both are 0: no particle would be drawn anywhere.")


def _checked_bounds(bounds: Any) -> tuple[float, float]:
    low, high = as_bounds(bounds) or (0.0, 0.0)
    if not (isinstance(low, float) and isinstance(high, float) and low < high):
        raise ValueError(f"Expected bounds (low, high), two numbers with low below high, but got {bounds!r}.")
    return low, high
