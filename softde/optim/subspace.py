"""Search in a random subspace: x = anchor + scale * z A, with A fixed and z in a few hundred dimensions.

Where only few directions of x matter, a random subspace of d dimensions holds an image of all of them, and an optimiser
whose cost grows with d^2 can be used at any dimension of x. References: [ID] Li, Farkhoor, Liu, Yosinski (2018), ICLR:
intrinsic dimension; [BBT] Sun, Shao, Qian, Huang, Qiu (2022), ICML: Black-Box Tuning.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from softde.checks import number, put, whole
from softde.optim.base import (
    Bounded,
    Info,
    Optimizer,
    State,
    advance,
    as_losses,
    as_points,
    as_residuals,
    check_ask,
    check_optimizer,
    check_state,
    check_tell,
    comparable,
    describe,
    informed,
    passed_on,
    recommendation,
)
from softde.optim.bounds import within_bounds
from softde.optim.cmaes import CMAES
from softde.optim.gauss_newton import GaussNewton

KINDS, ANCHORS = ("gaussian", "sparse", "fastfood"), ("best", "first")


@runtime_checkable
class Around(Protocol):
    """An optimiser that can sample around a point with nothing scored."""

    def around(self, point: Tensor) -> Any: ...


@dataclass(frozen=True, eq=False)
class SubspaceState(State):
    """The start points until they are scored, then the anchor and the search in z."""

    points: Tensor  # (starts, dim); (0, dim) once they are scored
    anchor: Tensor  # (dim,)
    z: Tensor  # (population, intrinsic_dim) of the pending ask
    optimizer: State | None  # begins with the first ask after the start points


@dataclass(frozen=True)
class Subspace:
    """Any optimiser, in a random subspace through the anchor.

    The first generation scores the start points themselves. Then a CMAES begins around z = 0 without further cost;
    another optimiser begins with z = 0 and draws from N(0, start_spread^2), scored as its first generation.

    Parameters
    ----------
    optimizer : searches z, of ``intrinsic_dim`` numbers. Its lengths (sigma, ...) are in units of z.
    intrinsic_dim : at most the number of coordinates of x.
    kind : of projection: "gaussian", "sparse" or "fastfood"; see ``projection``.
    seed : of the projection, which is made again from it and never saved. All seeds of a run search the same random
        subspace, this one, so the spread between them does not include its luck; another number here draws another.
    starts : start points; by default as many as the optimiser has candidates.
    anchor : the "best" start point or the "first".
    scale : standard deviation of a coordinate of x for z ~ N(0, I).
    start_spread : standard deviation of the first population's z.
    """

    state_type: ClassVar[type[SubspaceState]] = SubspaceState

    optimizer: Optimizer[Any]
    intrinsic_dim: int = 500
    kind: str = "gaussian"
    seed: int = 0
    starts: int | None = None
    anchor: str = "best"
    scale: float = 1.0
    start_spread: float = 0.3

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer)
        put(self, {
            "intrinsic_dim": whole(self.intrinsic_dim, "intrinsic_dim"),
            "seed": whole(self.seed, "seed"),
            "starts": None if self.starts is None else whole(self.starts, "starts"),
            "scale": number(self.scale, "scale, a standard deviation, above 0", lambda v: v > 0),
            "start_spread": number(self.start_spread, "start_spread, a standard deviation, above 0", lambda v: v > 0),
        })  # fmt: skip
        _check(self)

    @property
    def population_size(self) -> int:
        """Candidates of the first generation."""
        return self.optimizer.population_size if self.starts is None else self.starts

    def init(self, points: Any) -> SubspaceState:
        """Start from points (population_size, dim), float32 or float64."""
        points = as_points(points, self.population_size)
        if points.shape[1] < self.intrinsic_dim:
            raise ValueError(
                f"Expected intrinsic_dim of at most the {points.shape[1]} coordinates of x, but got "
                f"{self.intrinsic_dim}: lower it, or use {type(self.optimizer).__name__} without Subspace."
            )
        self._begin(points[0], torch.Generator(points.device))  # what it refuses, it refuses before points are scored
        first, z = points[0], points.new_zeros((0, self.intrinsic_dim))
        return SubspaceState(first.clone(), math.inf, 0, 0, False, len(points), points, first.clone(), z, None)

    def ask(self, state: SubspaceState, generator: torch.Generator) -> tuple[Tensor, SubspaceState]:
        """Candidates to score, (population, dim): first the start points, then what the search in z asks."""
        check_ask(self, state, generator)
        if len(state.points):
            return state.points.clone(), replace(state, asked=True)
        inner = self._begin(state.anchor, generator) if state.optimizer is None else state.optimizer
        z, inner = self.optimizer.ask(inner, generator)
        return self.x(state.anchor, z), replace(state, asked=True, z=z, optimizer=inner)

    def inform(self, state: SubspaceState, residuals: Any) -> SubspaceState:
        """Give the search in z residuals, if it can use them; those of start points are not used."""
        check_state(self, state, "inform")
        if state.optimizer is None or len(state.points):
            as_residuals(residuals, state)
            return state
        return replace(state, optimizer=informed(self.optimizer, state.optimizer, residuals))

    def tell(self, state: SubspaceState, candidates: Tensor, losses: Any) -> tuple[SubspaceState, Info]:
        """Choose the anchor among the start points, or tell the search in z."""
        check_tell(self, state, candidates)
        losses = as_losses(losses, candidates)
        if len(state.points):
            return self._anchored(state, candidates, losses)
        inner, info = self.optimizer.tell(state.optimizer, state.z, losses)
        state = advance(
            state, candidates, losses, z=state.z[:0].clone(), optimizer=inner, population_size=inner.population_size
        )
        return state, passed_on(replace(info, spread=info.spread * self.scale), state)

    def x(self, anchor: Tensor, z: Tensor) -> Tensor:
        """Points (n, dim) of z (n, intrinsic_dim), in the anchor's type; a row does not depend on the others."""
        made = _projection(self.kind, self.intrinsic_dim, len(anchor), self.seed)(z.float())
        return made.to(anchor.dtype).mul_(self.scale).add_(anchor)

    def bound(self, state: SubspaceState) -> Tensor | None:
        """That of the search in z; start points are scored exactly."""
        inner = state.optimizer
        return self.optimizer.bound(inner) if inner is not None and isinstance(self.optimizer, Bounded) else None

    def recommend(self, state: SubspaceState) -> Tensor:
        """The point of the z that the search recommends; the best candidate if it keeps to candidates."""
        inner = state.optimizer
        if inner is None or not hasattr(self.optimizer, "recommend"):
            return state.best_x
        return self.x(state.anchor, recommendation(self.optimizer, inner)[None])[0]

    def _anchored(self, state: SubspaceState, candidates: Tensor, losses: Tensor) -> tuple[SubspaceState, Info]:
        row = int(comparable(losses).argmin()) if self.anchor == "best" else 0
        size = self.optimizer.population_size
        empty = candidates[:0].clone()
        new = advance(state, candidates, losses, points=empty, anchor=candidates[row].clone(), population_size=size)
        return new, describe(new, candidates, losses, losses, improved=int(losses.isfinite().sum()))

    def _begin(self, anchor: Tensor, generator: torch.Generator) -> State:
        """The search in z before its first ask."""
        held = self.optimizer.optimizer if isinstance(self.optimizer, GaussNewton) else self.optimizer
        if isinstance(self.optimizer, Around) and isinstance(held, Around):
            return self.optimizer.around(anchor.new_zeros(self.intrinsic_dim))
        shape = self.optimizer.population_size, self.intrinsic_dim
        z = torch.randn(shape, generator=generator, dtype=anchor.dtype, device=generator.device)
        z.mul_(self.start_spread)[0] = 0.0
        return self.optimizer.init(within_bounds(z.to(anchor.device), self.optimizer))


def bbt(
    population_size: int = 20, intrinsic_dim: int = 500, sigma: float = 1.0, alpha: float = 1.0, seed: int = 0
) -> Subspace:
    """Black-Box Tuning [BBT]: CMA-ES in a Gaussian subspace, from z = 0 around the first and only start point.

    Its projection has standard deviation alpha * std(embeddings) / (sqrt(intrinsic_dim) * sigma), so that with
    z ~ N(0, sigma^2 I) each coordinate of x has alpha times the embeddings' spread, which is the unit of x here; sigma
    only rescales z. The step size follows pycma's own default: two points from 300 dimensions on, path length below.
    """
    adaptation = "tpa" if whole(intrinsic_dim, "intrinsic_dim") >= 300 else "csa"
    cmaes = CMAES(population_size, sigma, adaptation=adaptation)
    spread = number(alpha, "alpha, a coordinate's spread in units of the embeddings', above 0", lambda v: v > 0)
    return Subspace(cmaes, intrinsic_dim, seed=seed, starts=1, anchor="first", scale=spread / cmaes.sigma)


@lru_cache(maxsize=2)
def _projection(kind: str, intrinsic_dim: int, dim: int, seed: int) -> Callable[[Tensor], Tensor]:
    from softde.optim.projections import projection

    return projection(kind, intrinsic_dim, dim, seed)


def _check(subspace: Subspace) -> None:
    for name, known in (("kind", KINDS), ("anchor", ANCHORS)):
        if getattr(subspace, name) not in known:
            raise ValueError(f"Unknown {name} {getattr(subspace, name)!r}: expected one of {', '.join(known)}.")
    for name in ("intrinsic_dim", "starts"):
        value = getattr(subspace, name)
        if value is not None and value < 1:
            raise ValueError(f"Expected {name} of at least 1, but got {value}: raise it.")
