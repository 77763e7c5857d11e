"""Several regions at once: one soft prompt that they share, and a small one behind it for each.

What regions have in common is searched once: a candidate's answers do not depend on the region, so one candidate asked
scores the shared prompt against all targets. Each region's own tokens are then searched behind the frozen shared ones.
Both steps are ordinary alignments, with their folders, resume, workers and read-outs.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from softde.align import AUTO, BUDGET, Result, align
from softde.checks import plain_number, shown, whole
from softde.files import expanded
from softde.lm import LM
from softde.optim import Optimizer
from softde.parallel import Workers
from softde.readouts import Readout
from softde.space import PromptSpace
from softde.surveys import Survey, Target
from softde.surveys.metrics import kendall_tau
from softde.surveys.scoring import Norm
from softde.surveys.targets import ScoresTarget, SumTarget, TargetLike, as_target_like

Array = NDArray[np.float64]

OWN_TOKENS, SHARED = 4, 0.3  # of each region; share of the budget: best of what docs/targets.md compares

_log = logging.getLogger("softde")


@dataclass(frozen=True, eq=False, kw_only=True)
class BehindShared(PromptSpace):
    """A space of a region's own tokens, which stand behind frozen ones that all regions share."""

    shared: Float[Tensor, "frozen hidden"]

    @cached_property
    def own(self) -> PromptSpace:
        """The space of the own tokens alone."""
        return PromptSpace(**{name: getattr(self, name) for name in PromptSpace.__dataclass_fields__})

    @property
    def num_virtual_tokens(self) -> int:
        """Shared and own ones."""
        return len(self.shared) + len(self.centre)

    @property
    def dim(self) -> int:
        """Numbers of the own tokens."""
        return self.own.dim

    def decode(self, x: Float[Tensor, "population dim"]) -> Float[Tensor, "population tokens hidden"]:
        """Shared tokens, then own ones."""
        own = self.own.decode(x)
        return torch.cat([self.shared.to(own).expand(len(own), -1, -1), own], dim=1)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "population dim"]:
        """Start points of the own tokens."""
        return self.own.sample(n, generator)

    def record(self) -> dict[str, Any]:
        """The own space, and which tokens stand before it."""
        frozen = self.shared.detach().float().cpu().contiguous().numpy().tobytes()
        digest = hashlib.sha256(frozen).hexdigest()
        return {**self.own.record(), "shared_tokens": len(self.shared), "shared": digest}


@dataclass(frozen=True, eq=False)
class JointResult:
    """One result for the shared prompt, whose loss is the mean over regions, and one per region; see `shared_floor`."""

    shared: Result
    regions: tuple[Result, ...]
    floor: float = math.nan

    def __repr__(self) -> str:
        names = ", ".join(result.target.region for result in self.regions)
        return f"<JointResult for {names}: mean loss {self.mean_loss:.4g}; {self.evaluations:,} candidates>"

    @property
    def mean_loss(self) -> float:
        """Mean plain loss of the regions."""
        return float(np.mean([result.plain_loss for result in self.regions]))

    @property
    def tau(self) -> dict[str, float]:
        """Factor → Kendall's τ-b between the regions' scores and the published ones; {} for targets of items."""
        return self._tau([result.scores for result in self.regions])

    @property
    def unprompted_tau(self) -> dict[str, float]:
        """The same without prompts: NaN, no order, as one model gives all regions the same answers."""
        return self._tau([result.unprompted_scores for result in self.regions])

    def _tau(self, scores: Sequence[Array]) -> dict[str, float]:
        goals = [result.target for result in self.regions]
        published = [goal.target.scores for goal in goals if isinstance(goal, ScoresTarget)]
        if len(published) < len(goals) or len({goal.terms for goal in goals if isinstance(goal, ScoresTarget)}) > 1:
            return {}
        found = kendall_tau(np.stack(scores).T, np.stack(published).T)
        return dict(zip(self.regions[0].terms, found.tolist(), strict=True))

    @property
    def evaluations(self) -> int:
        """Candidates asked in all."""
        return self.shared.evaluations + sum(result.evaluations for result in self.regions)

    @property
    def forward_tokens(self) -> int:
        """Tokens through the layers in all."""
        return self.shared.forward_tokens + sum(result.forward_tokens for result in self.regions)

    def evaluations_to(self, mean_loss: float) -> float:
        """Candidates asked until the regions' mean best loss was so low, infinity if it never was.

        Regions are taken to be searched side by side; until a region's own search is better it has the shared prompt.
        """
        return evaluations_to(mean_loss, [r.trajectory for r in self.regions], self.shared.evaluations)


def evaluations_to(mean_loss: float, trajectories: Sequence[Sequence[dict[str, Any]]], before: int = 0) -> float:
    """Candidates asked by searches side by side until their mean best loss was so low; `before` come on top."""
    for lines in zip(*trajectories, strict=False):
        if all(line["best"] is not None for line in lines):
            mean = float(np.mean([line["best"] for line in lines]))
            if mean <= mean_loss:
                return before + sum(int(line["evaluations"]) for line in lines)
    return math.inf


def align_joint(
    lm: LM,
    survey: Survey,
    targets: Sequence[Target | TargetLike],
    space: PromptSpace | None = None,
    own_tokens: int = OWN_TOKENS,
    optimizer: Optimizer[Any] | str = AUTO,
    budget: int = BUDGET,
    shared: float = SHARED,
    seed: int = 0,
    norm: Norm = "L1",
    orders: str = "both",
    checkpoint: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    workers: Workers | None = None,
    readout: Readout | None = None,
    draws: Literal["fixed", "fresh"] = "fixed",
) -> JointResult:
    """Find one soft prompt for several regions and a few more tokens for each.

    Parameters
    ----------
    targets : one per region, of any kind, of one survey.
    space : where the shared prompt is searched; default 8 virtual tokens late in the user's turn.
    own_tokens : of each region; they stand behind the shared ones.
    budget : candidates in all. shared : share of it for the shared prompt; the regions have equal parts of the rest.
    checkpoint : a folder, with ``shared`` and ``region-1`` and so on inside; the same call goes on.
    others : as in `align`.

    Raises
    ------
    ValueError
        Bad input, before anything is asked: fewer than two targets, or a share or budget that leaves a search nothing.
    """
    given: Any = targets
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ValueError(f"targets: expected a list, one per region, got {shown(given)}; align is for one")
    goals = [as_target_like(target, norm) for target in targets]
    if len(goals) < 2:
        raise ValueError(f"targets: expected two or more, one per region, got {len(goals)}; align is for one")
    part = plain_number(shared)
    if part is None or not 0 < part < 1:
        raise ValueError(f"shared: expected a share of the budget between 0 and 1, got {shown(shared)}")
    own_tokens, budget = whole(own_tokens, "own_tokens", 1), whole(budget, "budget", 1)
    first = round(part * budget)
    each = (budget - first) // len(goals)
    if min(first, each) < 1:
        raise ValueError(f"budget: expected enough for {len(goals) + 1} searches, got {budget}; raise it")
    space = PromptSpace.random(lm) if space is None else space
    folder = None if checkpoint is None else expanded(checkpoint)

    def search(target: Any, where: PromptSpace, limit: int, name: str) -> Result:
        return align(
            lm, survey, target, where, optimizer, limit, seed, "L1", None, orders,
            None if folder is None else folder / name, resume, progress, workers=workers, readout=readout, draws=draws,
        )  # fmt: skip

    together = search(SumTarget(tuple((1 / len(goals), goal) for goal in goals)), space, first, "shared")
    floor = shared_floor(goals)
    if math.isfinite(floor):
        _log.info(
            "joint: the shared prompt has a mean loss of %.1f after %s candidates; none can have less than %.1f, so "
            "far are the targets from each other",
            together.plain_loss, together.evaluations, floor,
        )  # fmt: skip
    behind = own_space(lm, together.prompt.embeddings, own_tokens, space.placement)
    found = [search(goal, behind, each, f"region-{n}") for n, goal in enumerate(goals, start=1)]
    return JointResult(together, tuple(found), floor)


def shared_floor(goals: Sequence[Any]) -> float:
    """The least mean loss of one and the same answers for all targets, from their factor-wise median.

    Of published scores in the L1 norm, with the same weights and constants; NaN for others.
    """
    if not all(isinstance(goal, ScoresTarget) and goal.norm == "L1" for goal in goals):
        return math.nan
    first = goals[0]
    if any(g.weights != first.weights or g.target.constants != first.target.constants for g in goals):
        return math.nan
    middle = np.median([goal.target.scores for goal in goals], axis=0)
    return float(np.mean([goal.loss(goal.errors(middle[None]))[0] for goal in goals]))


def own_space(lm: LM, shared: Tensor, tokens: int, placement: str) -> BehindShared:
    """Random vocabulary rows behind the shared prompt."""
    own = PromptSpace.random(lm, tokens, placement)
    return BehindShared(
        **{name: getattr(own, name) for name in PromptSpace.__dataclass_fields__}, shared=shared.detach()
    )
