"""The survey, asked of a model under one condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softde.checks import check_kinds
from softde.condition import Condition, as_condition
from softde.lm import LM
from softde.readouts import Answers, Expected, Readout, check_readout
from softde.readouts import probabilities as probabilities
from softde.surveys import Survey

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Responses:
    """What came back, in each item's own order of options.

    probabilities : (items, options) float64, averaged over option orders; they sum to one over an item's options and
        are zero beyond them. Of single answers (`Argmax`, `Sampled`, `Generated`), their shares among the valid ones.
    option_mass : (items,), probability of what can be read as an answer among all tokens, or texts; near zero, the
        model does not answer.
    invalid, refused : (items,), shares of answers that name no option: those that refuse, and all others. Where the two
        make one, probabilities and item means are NaN, and `texts` shows what was written.
    answers : (respondents, items) option numbers from 0, -1 for none; `texts` in the same axes. None where the read-out
        has none.
    """

    survey: Survey
    condition: Condition
    probabilities: Array
    option_mass: Array
    forward_tokens: int
    readout: Readout
    invalid: Array
    refused: Array
    answers: Answers | None = None
    texts: tuple[tuple[str, ...], ...] | None = None

    @property
    def item_means(self) -> Array:
        """(items,) expected option value; NaN without a valid answer."""
        return item_means(self.survey, self.probabilities)

    def scores(self, constants: Any = 50.0) -> Array:
        """(factors,) factor scores, in the order of ``survey.factors``; NaN where an item of the factor is."""
        return self.survey.score(self.item_means, constants)


def administer(
    survey: Survey,
    lm: LM,
    condition: Condition | None = None,
    orders: str = "both",
    plain: bool = False,
    readout: Readout = Expected(),  # noqa: B008 (a frozen value)
) -> Responses:
    """Ask every item under a condition and read the answers.

    Parameters
    ----------
    orders : "both" asks with the options listed forward and reversed, and averages; or "forward", "reversed".
    plain : one forward per question without any shared computation: slow, and the reference.
    readout : what counts as an answer: `Expected()` (default), `Argmax()`, `Sampled()`, `SequenceLogprob()`,
        `Generated()`.

    Raises
    ------
    ValueError
        If the condition's soft prompt has another hidden size than the model, an option label is not one token, or
        `readout` is none.
    """
    check_kinds({"survey": (survey, Survey), "lm": (lm, LM)})
    check_readout(readout)
    condition = as_condition(condition)
    if condition.prompt is not None:
        condition.prompt.check_model(lm)
    plan = lm.plan(survey, system=condition.system, placement=condition.placement, orders=orders)
    prompts = None if condition.prompt is None else condition.prompt.embeddings[None]
    reading = readout.read(lm, plan, survey, prompts, plain=plain)
    return Responses(
        survey,
        condition,
        reading.probabilities[0],
        reading.option_mass[0],
        reading.tokens,
        readout,
        reading.invalid[0],
        reading.refused[0],
        None if reading.answers is None else reading.answers[0],
        None if reading.texts is None else reading.texts[0],
    )


def item_means(survey: Survey, probabilities: Array) -> Array:
    """(..., items, options) probabilities → (..., items) expected option values."""
    means: Array = (probabilities * np.nan_to_num(survey.option_values)).sum(axis=-1)
    return means
