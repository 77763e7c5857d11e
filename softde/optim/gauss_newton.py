"""Gauss-Newton steps in a search: where the loss is made of a few signed errors, they say more than their sum.

A survey's loss adds up how far six scores are from six published ones. Which way each score is off, and how it moved
with the candidates so far, gives a line through them: residuals r(x + s) ≈ r(x) + sᵀJ, with J (dim, residuals) from a
ridge regression on the latest candidates, and the shortest s with r = 0 [N ch. 10]. J is known only where candidates
lie, so a step stays among them; CMA-ES or DE goes on making the others, and learns from the steps as from its own.

References: [N] Nocedal, Wright (2006), Numerical Optimization; [C] Cartis, Roberts (2023), Math. Program. 199:
Gauss-Newton without derivatives in random subspaces; [I] Hansen (2011), arXiv:1110.4181: external candidates in CMA-ES.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from softde.checks import shown
from softde.optim.base import (
    Info,
    State,
    advance,
    as_losses,
    as_residuals,
    check_ask,
    check_state,
    check_tell,
    passed_on,
    recommendation,
    row_blocks,
)
from softde.optim.cmaes import CMAES
from softde.optim.de import Evolution

STEPS = 3  # of a generation of 12 candidates or more; 2 of 8 or more
DAMPING = 1e-3  # of JᵀJ, a share of its mean diagonal
ROUNDING = 1e-12  # of squared distances: what lies nearer is one point


class Fit(NamedTuple):
    """How a line is put through candidates.

    window : the latest candidates that count, in generations. ridge : a share of the mean diagonal of their Gram
    matrix. power : of 1 / squared distance, a candidate's weight.
    """

    window: int
    ridge: float
    power: float


AROUND_MEAN, AT_BEST = Fit(2, 3e-2, 0.0), Fit(4, 1e-3, 1.0)  # docs/log.md
WINDOW = max(AROUND_MEAN.window, AT_BEST.window)


@dataclass(frozen=True, eq=False)
class GaussNewtonState(State):
    """The state of the search, and the latest candidates whose residuals are known, oldest first."""

    optimizer: Any
    points: Tensor  # (known, dim), in the type of the candidates
    residuals: Tensor  # (known, residuals) float64
    losses: Tensor  # (known,) float64
    pending: Tensor  # (population, residuals) float64 of the pending ask; (0, 0) until `inform`


@dataclass(frozen=True)
class GaussNewton:
    """A search in which three candidates of a generation, at most a quarter of it, are Gauss-Newton steps on residuals.

    They begin at the mean of CMA-ES's distribution or of DE's population, and at the best candidate. The search learns
    residuals by `inform`; in a generation without them it forgets all, and without any it is the optimiser alone,
    number for number. A restart of CMA-ES begins without them.

    Parameters
    ----------
    optimizer : CMA-ES, or one of the DE family without bounds and re-evaluation.
    """

    state_type: ClassVar[type[GaussNewtonState]] = GaussNewtonState

    optimizer: CMAES | Evolution = field(default_factory=CMAES)

    def __post_init__(self) -> None:
        if not isinstance(self.optimizer, CMAES | Evolution):
            raise ValueError(
                f"optimizer: expected a CMAES or one of the DE family, got {shown(self.optimizer)}; CMAES(16) is one"
            )
        if isinstance(self.optimizer, Evolution) and (self.optimizer.bounds or self.optimizer.reevaluate):
            raise ValueError("optimizer: Gauss-Newton steps know no bounds and no re-evaluation; leave both out")

    @property
    def population_size(self) -> int:
        """Candidates per generation."""
        return self.optimizer.population_size

    def init(self, points: Any) -> GaussNewtonState:
        """Start from points (population_size, dim), float32 or float64."""
        return _fresh(self.optimizer.init(points))

    def around(self, point: Tensor) -> GaussNewtonState:
        """Start from N(point, sigma^2 I) with nothing scored, which only CMA-ES can. point: (dim,)."""
        if not isinstance(self.optimizer, CMAES):
            name = type(self.optimizer).__name__
            raise ValueError(f"optimizer: {name} begins with start points, not around one; call init")
        return _fresh(self.optimizer.around(point))

    def ask(self, state: GaussNewtonState, generator: torch.Generator) -> tuple[Tensor, GaussNewtonState]:
        """Candidates to score, (population, dim): those of the search, the last ones of them replaced by steps."""
        check_ask(self, state, generator)
        steps = list(islice(self._steps(state), min(STEPS, state.population_size // 4)))  # before there are candidates
        candidates, inner = self.optimizer.ask(state.optimizer, generator)
        for row, step in zip((-len(steps), -1, -2), steps, strict=False):  # half a step next to the whole one
            candidates[row] = step.to(candidates)
        return candidates, replace(state, asked=True, optimizer=inner)

    def inform(self, state: GaussNewtonState, residuals: Any) -> GaussNewtonState:
        """Take the residuals (population, residuals) of the pending candidates: signed errors, 0 where all is well."""
        check_state(self, state, "inform")
        told = as_residuals(residuals, state)
        if len(state.residuals) and told.shape[1] != state.residuals.shape[1]:
            raise ValueError(
                f"Expected {state.residuals.shape[1]} residuals of each candidate, as before, but got {told.shape[1]}: "
                "they must be of the same terms in every generation."
            )
        return replace(state, pending=told)

    def tell(self, state: GaussNewtonState, candidates: Tensor, losses: Any) -> tuple[GaussNewtonState, Info]:
        """Keep the candidates for the next steps, and tell the search."""
        check_tell(self, state, candidates)
        losses = as_losses(losses, candidates)
        inner, info = self.optimizer.tell(state.optimizer, candidates, losses)
        goes_on = len(state.pending) and _runs(inner) == _runs(state.optimizer)
        known = self._known(state, candidates, losses) if goes_on else _nothing(inner)
        state = advance(
            state, candidates, losses, optimizer=inner, population_size=inner.population_size, **known,
            pending=_nothing(inner)["residuals"],
        )  # fmt: skip
        return state, passed_on(info, state)

    def recommend(self, state: GaussNewtonState) -> Tensor:
        """That of the search."""
        return recommendation(self.optimizer, state.optimizer)

    def _known(self, state: GaussNewtonState, candidates: Tensor, losses: Tensor) -> dict[str, Tensor]:
        """The latest candidates with finite residuals, and the best of all."""
        told = (state.pending.isfinite().all(1) & losses.isfinite()).nonzero().flatten()
        residuals, losses = state.pending[told], losses[told]
        if len(state.points):
            residuals, losses = torch.cat([state.residuals, residuals]), torch.cat([state.losses, losses])
        extra = max(0, len(losses) - WINDOW * state.population_size)
        kept = torch.arange(extra, len(losses), device=losses.device)
        if extra:
            kept[0] = min(extra, int(losses.argmin()))  # the oldest, or the best if that is older still
        old, new = kept[kept < len(state.points)], told[kept[kept >= len(state.points)] - len(state.points)]
        points = candidates.new_empty((len(kept), candidates.shape[1]))  # written once: they are the most of a state
        torch.index_select(state.points.to(points), 0, old, out=points[: len(old)])  # a saved state may have float64
        torch.index_select(candidates, 0, new, out=points[len(old) :])
        return {"points": points, "residuals": residuals[kept], "losses": losses[kept]}

    def _steps(self, state: GaussNewtonState) -> Iterator[Tensor]:
        """Where the residuals would be 0 if they were linear, seen from the mean and from the best candidate."""
        if len(state.points) < state.population_size // 2:
            return
        mean, last = _mean(state.optimizer), slice(-AROUND_MEAN.window * state.population_size, None)
        step = newton_step(state.points[last], state.residuals[last], mean, AROUND_MEAN)
        if step is not None:
            yield mean + step
        best = int(state.losses.argmin())
        there = state.points[best].double()
        from_best = newton_step(state.points, state.residuals, there, AT_BEST, state.residuals[best])
        if from_best is not None:
            yield there + from_best
        if step is not None:
            yield mean + step / 2


def newton_step(
    points: Float[Tensor, "known dim"],
    residuals: Float[Tensor, "known residuals"],
    centre: Float[Tensor, " dim"],
    fit: Fit,
    there: Float[Tensor, " residuals"] | None = None,
) -> Float[Tensor, " dim"] | None:
    """The shortest step from the centre to where a line through the points has residuals 0; None if it is level.

    It is no longer than the median distance of the points from the centre. there : the residuals at the centre, through
    which the line then goes.
    """
    squares = _squares(points, centre)
    apart = (squares > 0).nonzero().flatten()
    if len(apart) < 2:
        return None
    squares, residuals = squares[apart], residuals[apart]
    away = centre.new_empty((len(apart), len(centre)))  # the only large array, changed in its place
    for rows in row_blocks(away):
        torch.sub(points[apart[rows]], centre, out=away[rows])
    radius = squares.sqrt().median()
    weights = (radius.square() / squares) ** fit.power
    if there is None:
        middle, height = weights @ away / weights.sum(), weights @ residuals / weights.sum()
    else:
        middle, height = torch.zeros_like(centre), there
    root = weights.sqrt()[:, None]
    x, y = away.sub_(middle).mul_(root), root * (residuals - height)
    gram = x @ x.T
    if float(gram.trace()) <= ROUNDING * float(squares.sum()):
        return None  # all in one place
    gram += fit.ridge * gram.trace() / len(gram) * torch.eye(len(gram)).to(gram)
    slopes = x.T @ torch.linalg.solve(gram, y)  # J, (dim, residuals)
    normal = slopes.T @ slopes
    scale = float(normal.trace()) / len(normal)
    if not (0 < scale < math.inf):
        return None
    normal += DAMPING * scale * torch.eye(len(normal)).to(normal)
    step = -slopes @ torch.linalg.solve(normal, height - middle @ slopes)
    length = float(step.norm())
    if not (0 < length < math.inf):
        return None
    return step * min(1.0, float(radius) / length)


def _squares(points: Float[Tensor, "known dim"], centre: Float[Tensor, " dim"]) -> Float[Tensor, " known"]:
    """Squared distances from the centre, a few points at a time: two at least, as one alone is summed otherwise."""
    few = min(len(list(row_blocks(points))), len(points) // 2)
    return torch.cat([(block - centre).square_().sum(1) for block in points.tensor_split(max(1, few))])


def _mean(inner: Any) -> Float[Tensor, " dim"]:
    """Where the search is."""
    mean = inner.population.mean(0) if hasattr(inner, "population") else inner.tensors["mean"].to(inner.best_x)
    return mean.double()


def _runs(inner: Any) -> int:
    """Restarts so far of a search that has any."""
    return getattr(inner, "runs", 0)


def _fresh(inner: Any) -> GaussNewtonState:
    """Nothing known yet."""
    pending = _nothing(inner)["residuals"]
    return GaussNewtonState(
        inner.best_x.clone(), inner.best_loss, 0, 0, False, inner.population_size, inner, **_nothing(inner),
        pending=pending,
    )  # fmt: skip


def _nothing(inner: Any) -> dict[str, Tensor]:
    """No candidates."""
    none = inner.best_x.new_zeros(0, dtype=torch.float64)
    points = inner.best_x.new_zeros((0, len(inner.best_x)))
    return {"points": points, "residuals": none.new_zeros((0, 0)), "losses": none}
