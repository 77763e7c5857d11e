"""AlignmentLoss: how far the factor scores of every candidate are from the target's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from softde.administer import item_means, probabilities
from softde.lm import LM, OptionLogprobs, Plan
from softde.space import PromptSpace
from softde.surveys import Survey, Target, distance
from softde.surveys.scoring import Norm

Array = NDArray[np.float64]


class Evaluation(NamedTuple):
    """What a population scored.

    losses (population,), NaN for a candidate under which the model gave no finite answer; scores (population, factors);
    option_mass (population,), mean over items; tokens: pushed through the model's layers.
    """

    losses: Array
    scores: Array
    option_mass: Array
    tokens: int


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
        return self.lm.plan(self.survey, placement=self.space.placement, orders=self.orders)

    def __call__(self, x: Float[Tensor, "population dim"], plain: bool = False) -> Evaluation:
        """Score candidates; plain takes the one-by-one forward."""
        return self.evaluate(self.lm.option_logprobs(self.plan, self.space.decode(x), plain=plain))

    def unprompted(self, plain: bool = False) -> Evaluation:
        """The model without a soft prompt, as a population of one."""
        return self.evaluate(self.lm.option_logprobs(self.plan, None, plain=plain))

    def evaluate(self, answer: OptionLogprobs) -> Evaluation:
        """Option log-probabilities → item means → factor scores → loss."""
        means = item_means(self.survey, probabilities(answer.logprobs))
        # One candidate at a time: the last bits of a matrix product depend on its number of rows.
        scores = np.stack([self.survey.score(row, self.target.constants) for row in means])
        mass = answer.option_mass.double().mean(dim=1).cpu().numpy()
        return Evaluation(self.distance(scores), scores, mass, answer.ledger)

    def distance(self, scores: Array) -> Array:
        """(..., factors) → (...,)."""
        return np.asarray(distance(scores, self.target, self.norm, self.weights))
