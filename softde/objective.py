"""AlignmentLoss: how far the factor scores of every candidate are from the target's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from softde.administer import item_means, probabilities
from softde.lm import LM, OptionLogprobs, Plan
from softde.space import PromptSpace
from softde.surveys import Survey, Target, distance
from softde.surveys.scoring import Norm, by_factor

Array = NDArray[np.float64]

SLACK = 1e-9  # a partial loss counts as above a bound only beyond rounding, so that no sum in another order disagrees
MEMORY = 0.7  # weight of the past when the order of the factors is learnt


class Evaluation(NamedTuple):
    """What a population scored.

    losses (population,), NaN for a candidate under which the model gave no finite answer; a rejected candidate has the
    loss of the factors it was asked, which is above its bound. scores (population, factors), NaN where not asked.
    option_mass (population,), mean over the items asked. tokens: pushed through the model's layers for these
    candidates; filler: the same for copies that fill up groups.
    """

    losses: Array
    scores: Array
    option_mass: Array
    tokens: int
    filler: int = 0


@dataclass(frozen=True)
class AlignmentLoss:
    """Distance between the factor scores under a soft prompt and a target; call it with (population, dim).

    norm : "L1", the sum of absolute errors (Masoud et al. 2025), or "L2". weights : one non-negative number per factor.
    orders : "both" averages over the options listed forward and reversed.
    """

    lm: LM
    survey: Survey
    target: Target
    space: PromptSpace
    orders: str = "both"
    norm: Norm = "L1"
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if tuple(self.target.factors) != tuple(self.survey.factors):
            raise ValueError(
                f"target: expected the factors of survey {self.survey.id!r}, {', '.join(self.survey.factors)}, got "
                f"{', '.join(self.target.factors)}; take the target from this survey"
            )
        hidden = self.space.centre.shape[1]
        if hidden != self.lm.hidden_size:
            raise ValueError(
                f"space: expected the model's hidden size {self.lm.hidden_size}, got {hidden}; build it from this model"
            )
        self.distance(np.zeros((1, len(self.survey.factors))))  # refuses an unknown norm or wrong weights

    @cached_property
    def plan(self) -> Plan:
        """The questions as token ids; raises for a model that cannot be asked them."""
        plan = self.lm.plan(self.survey, placement=self.space.placement, orders=self.orders)
        self.lm.engine.check_room(plan, self.space.num_virtual_tokens)
        return plan

    def __call__(
        self,
        x: Float[Tensor, "population dim"],
        plain: bool = False,
        bound: Float[Tensor, "population"] | None = None,
        order: Sequence[str] | None = None,
    ) -> Evaluation:
        """Score candidates; plain takes the one-by-one forward.

        bound : one number per candidate, above which its exact loss does not matter: it is then asked no further
        factor, and its loss comes back as a number above the bound. Every other loss is the same, bit by bit, as
        without a bound. order : the factors in the order in which they are asked; see `order`.
        """
        survives = None
        if bound is not None:
            given = torch.as_tensor(bound, dtype=torch.float64).cpu()
            if given.shape != (len(x),):
                raise ValueError(
                    f"bound: expected one number per candidate, ({len(x)},), got shape {tuple(given.shape)}"
                )
            limit = given.nan_to_num(math.inf, math.inf, -math.inf).numpy()  # a parent without a loss bounds nothing

            def survives(answer: OptionLogprobs) -> Tensor:
                losses = self.evaluate(answer).losses
                return torch.from_numpy(losses <= limit + SLACK * np.abs(limit))  # NaN does not survive either

        blocks = None if order is None else self.block_order(order)
        prompts = self.space.decode(x)
        staged = survives if self.stages > 1 else None
        return self.evaluate(self.lm.option_logprobs(self.plan, prompts, plain, blocks, staged))

    def unprompted(self, plain: bool = False) -> Evaluation:
        """The model without a soft prompt, as a population of one."""
        plan = self.lm.plan(self.survey, orders=self.orders)  # a placement may add an empty system turn
        return self.evaluate(self.lm.option_logprobs(plan, None, plain))

    def evaluate(self, answer: OptionLogprobs) -> Evaluation:
        """Option log-probabilities → item means → factor scores → loss."""
        asked = answer.asked.cpu().numpy()
        means = item_means(self.survey, probabilities(answer.logprobs))
        # One candidate at a time: the last bits of a matrix product depend on its number of rows.
        scores = np.stack([self.survey.score(row, self.target.constants) for row in means])
        known = ~(~asked @ (self.survey.weights != 0).T)
        losses = self.distance(np.where(known, scores, self.target.scores))
        mass = np.where(asked, answer.option_mass.double().cpu().numpy(), 0.0).sum(axis=1) / asked.sum(axis=1)
        return Evaluation(losses, scores, mass, answer.ledger, answer.filler)

    # -- early rejection: one factor after the other, in the order that rejects soonest

    @property
    def stages(self) -> int:
        """In how many parts the survey is asked; after each, some factors are settled or none is left."""
        return len(self.plan.blocks)

    def order(self, trajectory: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        """The factors, those that cost candidates most in the generations so far first.

        trajectory : lines of a run's log, with the mean absolute error of every factor as ``error_FACTOR``.
        """
        cost = dict.fromkeys(self.survey.factors, 0.0)
        weights = by_factor(1.0 if self.weights is None else self.weights, self.survey.factors, "weights")
        for line in trajectory:
            for factor, weight in zip(cost, weights.tolist(), strict=True):
                error = line.get(f"error_{factor}")
                if error is not None:
                    share = weight * (error if self.norm == "L1" else error**2)
                    cost[factor] = MEMORY * cost[factor] + (1 - MEMORY) * share
        return tuple(sorted(cost, key=lambda factor: -cost[factor]))

    def block_order(self, order: Sequence[str]) -> list[int]:
        """The plan's blocks in the order of the factors they settle."""
        if sorted(order) != sorted(self.survey.factors):
            raise ValueError(f"order: expected each of {', '.join(self.survey.factors)} once, got {list(order)}")
        used = [f for f in order if self.survey.weights[self.survey.factors.index(f)].any()]
        blocks = dict.fromkeys(self._block(factor) for factor in used)
        return [*blocks, *(b for b in range(len(self.plan.blocks)) if b not in blocks)]

    def _block(self, factor: str) -> int:
        """The block whose items a factor uses."""
        used = self.survey.weights[self.survey.factors.index(factor)] != 0
        return next(
            b for b, block in enumerate(self.plan.blocks) if any(used[self.plan.questions[i].item] for i in block)
        )

    def distance(self, scores: Array) -> Array:
        """(..., factors) → (...,)."""
        return np.asarray(distance(scores, self.target, self.norm, self.weights))
