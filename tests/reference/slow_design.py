"""Respondents the slow and obvious way: one at a time, one forward per item, one draw after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from softde.surveys import Survey
from tests.reference import slow_lm


def distributions(
    lm: Any,
    survey: Survey,
    persona: str,
    sheet: Any,
    system: str | None = None,
    soft: Tensor | None = None,
    placement: str = "late",
) -> list[tuple[list[float], float]]:
    """For every item, what `slow_lm.ask` says of the one question that the respondent gets."""
    found = []
    for number, order, wording in sheet:
        item = survey.items[number]
        item = replace(item, text=[item.text, *item.phrasings][wording], phrasings=())
        words = persona if system is None else f"{system}\n{persona}" if persona else system
        found.append(
            slow_lm.ask(
                lm.model,
                lm.tokenizer,
                item,
                survey.instruction,
                soft,
                placement,
                words or None,
                reverse=order == "reversed",
            )
        )
    return found


def sampled(probabilities: list[float], draw: float) -> int:
    """The first option at which the cumulative probability is above the draw."""
    total = 0.0
    for number, probability in enumerate(probabilities):
        total += probability
        if draw < total:
            return number
    return len(probabilities) - 1
