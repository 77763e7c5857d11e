"""A warm start: a few gradient steps through the frozen model, then any optimiser on the loss itself.

The expected-value read-out is differentiable, item mean = Σ option value · p(option), and so are factor scores and
their distance from the target. For every other read-out it is a relaxation: descents follow the expected value, and the
loss that was asked for decides where they begin, and what becomes of where they end.

Work is counted in forward-equivalents: one is a candidate asked the whole survey, and a backward pass counts as two
(Kaplan et al. 2020, arXiv 2001.08361, §2.1).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from softde.checks import number, whole
from softde.lm import OptionLogprobs, Plan
from softde.lm.engine import Engine, out_of_memory
from softde.objective import AlignmentLoss
from softde.optim import generator_for
from softde.optim.base import as_points
from softde.surveys.targets import ScoresTarget, needs_factors

Array = NDArray[np.float64]

NOISE = -2  # the generation whose generator draws the copies
FORWARD, BACKWARD = 1, 2  # forward-equivalents
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1


@dataclass(frozen=True, eq=False)
class WarmStart:
    """What a few gradient steps found, as a start population.

    points : (population, dim): where the descents ended, then noisy copies of those, then the start points that no
        descent left, the best first. screened : (starts,) losses of the points given, empty if nothing was to be
        chosen. losses : (descents, steps), the differentiable loss before each step. forward_equivalents : candidates
        that could have been asked the survey instead. tokens : pushed through the layers; a backward pass counts twice.
    """

    points: Float[Tensor, "population dim"]
    screened: Array
    losses: Array
    forward_equivalents: int
    tokens: int

    def record(self) -> dict[str, Any]:
        """Plain values for a run's record, NaN as None."""
        return {
            "forward_equivalents": self.forward_equivalents,
            "tokens": self.tokens,
            "losses": [[v if math.isfinite(v) else None for v in row] for row in self.losses.tolist()],
        }

    def to_bytes(self) -> bytes:
        """Everything, for a process that did not do it itself."""
        from safetensors.torch import save

        arrays = {"screened": self.screened, "losses": self.losses}
        counts = torch.tensor([self.forward_equivalents, self.tokens])
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        return save({"points": self.points.cpu().contiguous(), "counts": counts, **tensors})

    @classmethod
    def from_bytes(cls, message: bytes) -> WarmStart:
        """What `to_bytes` wrote."""
        from safetensors.torch import load

        found = load(message)
        equivalents, tokens = found["counts"].tolist()
        return cls(found["points"], found["screened"].numpy(), found["losses"].numpy(), equivalents, tokens)


@dataclass(frozen=True)
class GradientSteps:
    """Settings of a warm start.

    Parameters
    ----------
    steps : of Adam, in each descent. lr : its first step size, in units of x, from where it falls to zero as a cosine.
    starts : descents, from the best start points. screen : start points to choose them from; None takes as many as the
        search has candidates.
    copies : share of the population that are noisy copies of where descents ended; spread : their standard deviation.
    items : questions of at most so many items in one graph. None takes the plan's blocks, of which each settles some
        factors. Fewer need less memory, but the scores have to be known before a block is cut: a step then costs one
        forward more.
    """

    steps: int = 40
    lr: float = 0.1
    starts: int = 1
    screen: int | None = None
    copies: float = 0.5
    spread: float = 0.1
    items: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "starts", "screen", "items"):
            value = getattr(self, name)
            if value is not None or name in ("steps", "starts"):
                object.__setattr__(self, name, whole(value, name, 1))
        number(self.lr, "lr, a step size above 0", lambda v: v > 0)
        number(self.spread, "spread, a standard deviation of at least 0", lambda v: v >= 0)
        number(self.copies, "copies, a share of the population in [0, 1]", lambda v: 0 <= v <= 1)

    def wanted(self, population_size: int) -> int:
        """Start points to begin with."""
        return max(population_size, self.starts, self.screen or 0)

    def forward_equivalents(self, loss: AlignmentLoss, points: int) -> int:
        """What a warm start from so many points costs, before it is done."""
        screening = points if points > self.starts else 0
        check_smooth(loss)
        return screening + self.starts * self.steps * (FORWARD + BACKWARD + pieces(loss, self.items).twice)

    def left(self, loss: AlignmentLoss, population_size: int, budget: int) -> int:
        """Candidates that a budget leaves to the search.

        Raises
        ------
        ValueError
            It leaves less than a population.
        """
        cost = self.forward_equivalents(loss, self.wanted(population_size))
        if budget - cost < population_size:
            raise ValueError(
                f"Expected a budget of at least {cost + population_size}, which pays for the warm start, {cost} "
                f"forward-equivalents, and a population of {population_size}, but got {budget}: raise the budget, or "
                "lower the warm start's steps, starts or screen."
            )
        return budget - cost

    def __call__(self, loss: AlignmentLoss, points: Any, population_size: int, seed: int = 0) -> WarmStart:
        """The start population of a search, a function of the loss, the points and the seed alone.

        Raises
        ------
        ValueError
            Points that do not fit the space; more descents than points or places in the population; no gradient comes
            through the model or the space; the graph of one piece does not fit into memory.
        """
        points = as_points(points, len(points))
        population_size = whole(population_size, "population_size", 1)
        if self.starts > min(len(points), population_size):
            raise ValueError(
                f"Expected starts to be at most the points and the population, {len(points)} and {population_size}, "
                f"but got {self.starts}: give more points or lower starts."
            )
        screened, tokens = np.zeros(0), 0
        with untouched(loss.lm.model), torch.inference_mode(False):
            if len(points) > self.starts:
                evaluation = loss(points)
                screened, tokens = evaluation.losses, evaluation.tokens
                points = points[np.nan_to_num(screened, nan=math.inf).argsort(kind="stable")]
            with torch.enable_grad():
                slope = Slope.of(loss, self.items)
                descents = [self.descend(slope, x) for x in points[: self.starts]]
        ends = torch.stack([d.x for d in descents]).to(points)
        return WarmStart(
            self.populate(ends, points[self.starts :], population_size, generator_for(seed, NOISE)),
            screened,
            np.stack([d.losses for d in descents]),
            self.forward_equivalents(loss, len(points)),
            tokens + sum(d.tokens for d in descents),
        )

    def descend(self, slope: Slope, x: Float[Tensor, " dim"]) -> Descent:
        """Adam from one point; ends after the last step, or where the loss was lowest if it rose in the end."""
        x = best = x.detach().float()
        m, v, tokens, lowest = torch.zeros_like(x), torch.zeros_like(x), 0, math.inf
        losses: list[float] = []
        for t in range(1, self.steps + 1):
            value, g, spent = slope(x)
            losses.append(value)
            tokens += spent
            if value <= lowest:  # NaN is not
                lowest, best = value, x
            m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g.square()
            alpha = self.lr * (1 + math.cos(math.pi * (t - 1) / self.steps)) / 2
            x = x - alpha * (m / (1 - BETA1**t)) / ((v / (1 - BETA2**t)).sqrt() + EPSILON)
        return Descent(x if losses[-1] <= lowest else best, np.array(losses), tokens)

    def populate(
        self, ends: Float[Tensor, "descents dim"], rest: Float[Tensor, "others dim"], size: int, generator: Any
    ) -> Float[Tensor, "population dim"]:
        """Where descents ended, noisy copies of those, and the other start points, as many as there is room for."""
        room = size - len(ends)
        others = min(len(rest), room - min(room, round(self.copies * size)))
        sources = ends[torch.arange(room - others) % len(ends)]
        noise = torch.randn(sources.shape, generator=generator).to(sources)
        return torch.cat([ends, sources + self.spread * noise, rest[:others]])


def warm_start(
    loss: AlignmentLoss,
    points: Any,
    steps: int = 40,
    lr: float = 0.1,
    starts: int = 1,
    copies: float = 0.5,
    spread: float = 0.1,
    items: int | None = None,
    population_size: int | None = None,
    seed: int = 0,
) -> WarmStart:
    """A few gradient steps from the best of some start points (n, dim); see `GradientSteps` and `WarmStart`.

    population_size : points to come back with, as many as were given by default.
    """
    settings = GradientSteps(steps, lr, starts, None, copies, spread, items)
    return settings(loss, points, len(points) if population_size is None else population_size, seed)


# ---- one gradient --------------------------------------------------------------------------------------------------


class Descent(NamedTuple):
    """Where one descent ended, the losses on its way, and its tokens."""

    x: Tensor
    losses: Array
    tokens: int


class Cut(NamedTuple):
    """A plan whose blocks are the pieces that get a graph each; twice: scores are needed before gradients."""

    plan: Plan
    twice: bool

    def used(self, uses: NDArray[np.bool_]) -> list[int]:
        """The pieces with an item that some term uses; uses (terms, items)."""
        items = np.asarray(uses.any(axis=0))
        return [b for b, piece in enumerate(self.plan.blocks) if any(items[self.plan.questions[i].item] for i in piece)]


@dataclass(frozen=True)
class Slope:
    """The differentiable loss of one point and its gradient, piece by piece.

    ∇loss = Σ_i (∂loss/∂answer_i) ∇answer_i over the items, so the pieces of a sum need not be in memory together. Of
    published scores answers are item means: a block of the plan settles its factors, so ∂loss/∂m_i follows from its own
    answers; of L2 up to the division by the loss, which comes last. Where blocks are cut, and for all other targets, it
    follows from a first pass without a graph.

    The engine is one of its own, with one candidate per forward and without fillers, so the search's keeps its state.
    """

    loss: AlignmentLoss
    engine: Engine
    pieces: Cut
    values: Float[Tensor, "items options"]

    @classmethod
    def of(cls, loss: AlignmentLoss, items: int | None = None) -> Slope:
        """For a loss."""
        check_smooth(loss)
        engine = Engine(loss.lm.model, group_size=1)
        values = torch.from_numpy(np.nan_to_num(loss.asked.option_values)).to(engine.device)
        return cls(loss, engine, pieces(loss, items), values)

    def __call__(self, x: Float[Tensor, " dim"]) -> tuple[float, Float[Tensor, " dim"], int]:
        """(loss, its gradient in float32, tokens); zero where the loss or the gradient is not finite."""
        x = x.detach().float().requires_grad_()
        prompts = self.loss.space.decode(x[None])
        if not prompts.requires_grad:
            raise no_gradient("the space's decode does not keep the graph")
        found, tokens = np.full(tuple(self.values.shape), math.nan), 0
        known = None
        if self.pieces.twice:
            answer = self.engine.run(self.pieces.plan, prompts.detach())
            known, tokens = self.probabilities(answer).detach().cpu().numpy(), answer.ledger
        total = torch.zeros_like(prompts)
        for piece in self.pieces.used(self.loss.uses):
            with explained():
                answer, g = self.piece(piece, prompts, known, found)
            total += g
            tokens += (FORWARD + BACKWARD) * answer.ledger
        goal = self.loss.goal
        value = float(goal.loss(goal.errors(goal.values(self.loss.asked, found[None])))[0])
        (gradient,) = torch.autograd.grad(prompts, x, total)
        if is_l2(goal) and value > 0:
            gradient = gradient / value
        usable = math.isfinite(value) and bool(gradient.isfinite().all())
        return value, gradient if usable else torch.zeros_like(gradient), tokens

    def piece(self, number: int, prompts: Tensor, known: Array | None, found: Array) -> tuple[OptionLogprobs, Tensor]:
        """Ask one piece, write its answers down, and go back through it."""
        leaf = prompts.detach().requires_grad_()
        plan = self.pieces.plan
        order = [number, *(b for b in range(len(plan.blocks)) if b != number)]
        answer = self.engine.run(plan, leaf, grad=True, order=order, survives=nobody)
        asked = answer.asked[0].cpu()
        mine = self.probabilities(answer)[asked.to(self.values.device)]
        if not mine.requires_grad:
            raise no_gradient("the model's answers do not keep the graph")
        found[asked.numpy()] = mine.detach().cpu().numpy()
        block = np.where(asked.numpy()[:, None], found, math.nan) if known is None else known
        if isinstance(self.loss.goal, ScoresTarget):  # through item means, as few numbers as there are
            mine = (mine * self.values[asked.to(self.values.device)]).sum(-1)
            slopes = self.item_slopes(block)[asked.numpy()]
        else:
            slopes = self.loss.goal.slopes(self.loss.asked, block)[asked.numpy()]
        (gradient,) = torch.autograd.grad((torch.from_numpy(slopes).to(mine) * mine).sum(), leaf)
        return answer, gradient

    def probabilities(self, answer: OptionLogprobs) -> Float[Tensor, "items options"]:
        """Those of the one candidate, NaN where it was not asked."""
        return answer.logprobs[0].to(self.values.device).double().exp()

    def item_slopes(self, probabilities: Array) -> Array:
        """∂loss/∂m_i (items,) of published scores, of L2 times the loss; factors not known have no part in it."""
        goal: Any = self.loss.goal
        slopes = goal.signed_slopes(goal.values(self.loss.asked, probabilities[None])[0])
        return np.asarray(np.nan_to_num(slopes) @ self.loss.asked.weights)


def is_l2(goal: Any) -> bool:
    return isinstance(goal, ScoresTarget) and goal.norm == "L2"


def check_smooth(loss: AlignmentLoss) -> None:
    """Refuse a target without a gradient, and side effects, down which no warm start goes."""
    if not loss.goal.smooth:
        raise ValueError(
            f"Expected a target with a gradient, but the loss of this {type(loss.goal).__name__} moves in steps: leave "
            "out warm_start, or take answer='expected'."
        )
    if loss.asked.compiled.pairs and needs_factors(loss.goal):
        raise ValueError("Expected factors of single items, but got some of pairs of items: leave out warm_start.")


def pieces(loss: AlignmentLoss, items: int | None) -> Cut:
    """What gets a graph each, and whether all answers are needed first."""
    cut = cut_plan(loss, items)
    return cut if loss.published else cut._replace(twice=True)


def cut_plan(loss: AlignmentLoss, items: int | None) -> Cut:
    """The plan in pieces of at most so many items; an item's orders stay together."""
    plan = loss.plan
    if items is None:
        return Cut(plan, False)
    pieces: list[tuple[int, ...]] = []
    for block in plan.blocks:
        numbers = sorted({plan.questions[i].item for i in block})
        groups = [numbers[at : at + items] for at in range(0, len(numbers), items)]
        pieces += [tuple(i for i in block if plan.questions[i].item in group) for group in groups]
    if len(pieces) == len(plan.blocks):
        return Cut(plan, False)
    digest = hashlib.sha256(f"{plan.digest} {pieces}".encode()).hexdigest()
    return Cut(replace(plan, blocks=tuple(pieces), digest=digest), True)


def nobody(answer: OptionLogprobs) -> Tensor:
    """Ends a run of the engine after its first block."""
    return torch.zeros(len(answer.asked), dtype=torch.bool)


# ---- the model stays as it is, and says what it cannot do ------------------------------------------------------------


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """In eval mode and without gradients of its own; both are put back."""
    trained = [module for module in model.modules() if module.training]
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module in trained:
            module.training = True
        for parameter in wanted:
            parameter.requires_grad_(True)


@contextmanager
def explained() -> Iterator[None]:
    """What a backward pass fails on, in one sentence."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if out_of_memory(error) or (error.__cause__ is not None and out_of_memory(error.__cause__)):
            raise ValueError(
                "out of memory while the graph of one piece of the survey was kept; give GradientSteps a smaller "
                "items (1 is the least), use fewer virtual tokens, or leave out warm_start"
            ) from error
        if isinstance(error, ValueError):
            raise
        raise no_gradient(f"{type(error).__name__}: {error}") from error


def no_gradient(why: str) -> ValueError:
    """No warm start is possible."""
    return ValueError(
        f"Expected a model and a space through which the expected-value read-out can be differentiated, but {why}: "
        "leave out warm_start, which no search needs, or load the model without quantization."
    )
