"""The survey, asked of a model under one condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from softde.condition import Condition
from softde.lm import LM
from softde.surveys import Survey

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Responses:
    """What came back.

    probabilities : (items, options) float64, in each item's own option order, averaged over option orders; they sum to
        one over an item's options and are zero beyond them.
    option_mass : (items,), probability of the options together among all tokens; near zero, the model does not answer.
    """

    survey: Survey
    condition: Condition
    probabilities: Array
    option_mass: Array
    forward_tokens: int

    @property
    def item_means(self) -> Array:
        """(items,) expected option value."""
        return item_means(self.survey, self.probabilities)

    def scores(self, constants: Any = 50.0) -> Array:
        """(factors,) factor scores, in the order of ``survey.factors``."""
        return self.survey.score(self.item_means, constants)


def administer(
    survey: Survey, lm: LM, condition: Condition | None = None, orders: str = "both", plain: bool = False
) -> Responses:
    """Ask every item under a condition and read the option probabilities.

    Parameters
    ----------
    orders : "both" asks with the options listed forward and reversed, and averages; or "forward", "reversed".
    plain : one forward per question without any shared computation: slow, and the reference.

    Raises
    ------
    ValueError
        If the condition's soft prompt has another hidden size than the model, or an option label is not one token.
    """
    condition = condition or Condition()
    if condition.prompt is not None:
        condition.prompt.check_model(lm)
    plan = lm.plan(survey, system=condition.system, placement=condition.placement, orders=orders)
    prompts = None if condition.prompt is None else condition.prompt.embeddings[None]
    answer = lm.option_logprobs(plan, prompts, plain=plain)
    return Responses(
        survey,
        condition,
        probabilities(answer.logprobs)[0],
        answer.option_mass[0].double().cpu().numpy(),
        answer.ledger,
    )


def probabilities(logprobs: Tensor) -> Array:
    """(..., items, options) log-probabilities → float64 probabilities."""
    values: Array = logprobs.detach().double().exp().cpu().numpy()
    return values


def item_means(survey: Survey, probabilities: Array) -> Array:
    """(..., items, options) probabilities → (..., items) expected option values."""
    means: Array = (probabilities * np.nan_to_num(survey.option_values)).sum(axis=-1)
    return means
