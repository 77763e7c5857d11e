"""Sequential formatting: a questionnaire as one conversation, in which the model sees what it answered before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from softde.administer import administer
from softde.baselines.wording import fill, spoken, wording
from softde.checks import check_kinds, number, whole
from softde.condition import Condition, Panel
from softde.lm import LM
from softde.surveys import Item, Survey
from softde.surveys.examples import Example, Examples

SEEDS = (1, 2, 3, 4, 5)


def sequential(
    region: str | None,
    survey: Survey,
    lm: LM,
    seeds: Sequence[int] = SEEDS,
    temperature: float = 1.0,
    window: int | None = None,
    template: str | None = None,
    language: str | None = None,
) -> Panel:
    """The Cultural Alignment Test's way of asking: items in a row, five seeds (Masoud et al., arXiv 2309.12342).

    Each seed is a member of the panel. Its model is asked item after item; what it answered, sampled by the seed from
    its option probabilities, stays in the conversation as turns of user and assistant. Here the turns before the last
    question are fixed once, and the panel's answers are the probabilities that follow them. They belong to this model
    and survey.

    The model is asked items − 1 times, all seeds together; a conversation grows with the square of the items in tokens.

    Parameters
    ----------
    region : as it stands in the sentence; None asks without one (the paper's model level).
    seeds : one member each. temperature : of the sampled answers, above zero; 1 takes the probabilities as they are.
    window : how many of the last items stay in the conversation; None keeps all.
    template : a system text with the place {region}; None is `wording(language).sequential`.
    language : None is the survey's.

    Raises
    ------
    ValueError
        No seeds, or one twice; a temperature or window that is none; a conversation longer than the model reads.
    """
    check_kinds({"survey": (survey, Survey), "lm": (lm, LM)})
    system = None if region is None else _system(region, template, language or survey.language)
    temperature = number(temperature, "temperature above 0", lambda t: t > 0)
    seeds = _distinct(seeds)
    last = len(survey.items) if window is None else whole(window, "window", 1)
    _check_length(survey, lm, system, last)
    said: list[list[Example]] = [[] for _ in seeds]  # by seed
    for at, item in enumerate(survey.items[:-1]):
        shares = _answers(survey, lm, system, item, [turns[-last:] for turns in said])
        for turns, p, seed in zip(said, shares, seeds, strict=True):
            turns.append(Example(item, _drawn(p, temperature, np.random.default_rng([seed, at]))))
    members = [
        Condition(system, examples=_examples(survey, turns, last), name=f"sequential, seed {seed}")
        for turns, seed in zip(said, seeds, strict=True)
    ]
    return Panel(tuple(members), "sequential")


def _system(region: str, template: str | None, language: str) -> str:
    text = wording(language).sequential if template is None else template
    return fill(text, ("region",), {"region": spoken(region, language)})


def _distinct(seeds: Sequence[int]) -> list[int]:
    if isinstance(seeds, int) or not len(seeds):
        raise ValueError(f"seeds: expected a list of one whole number or more, got {seeds!r}")
    found = [whole(seed, "seeds", 0) for seed in seeds]
    if len(set(found)) < len(found):
        raise ValueError(f"seeds: expected each once, got {found}; two of the same are the same respondent")
    return found


def _check_length(survey: Survey, lm: LM, system: str | None, last: int) -> None:
    """Refuse conversations that do not fit the model before the first is held; all labels are a token long."""
    try:
        lm.plan(survey, system, examples=_examples(survey, [Example(item, 0) for item in survey.items], last))
    except ValueError as error:
        raise ValueError(
            f"survey {survey.id!r} as a conversation: {error} (window= keeps fewer earlier items)"
        ) from None


def _answers(
    survey: Survey, lm: LM, system: str | None, item: Item, turns: Sequence[Sequence[Example]]
) -> np.typing.NDArray[np.float64]:
    """(conversations, options) of one item after each conversation, all asked at once as items of their own."""
    copies = tuple(replace(item, id=f"{item.id}, conversation {n}", phrasings=()) for n in range(len(turns)))
    asked = Survey(
        survey.id,
        survey.title,
        copies,
        language=survey.language,
        instruction=survey.instruction,
        common_first=survey.common_first,
    )
    examples = Examples({copy.id: tuple(said) for copy, said in zip(copies, turns, strict=True)}, turns=True)
    condition = Condition(system, examples=examples)  # plain: conversations share little, and each is asked once
    return administer(asked, lm, condition, orders="forward", plain=True).probabilities


def _drawn(shares: np.typing.NDArray[np.float64], temperature: float, random: np.random.Generator) -> int:
    """The number of an option, by the inverse of the cumulative probabilities."""
    with np.errstate(divide="ignore"):
        weight = np.log(shares) / temperature
    weight = np.exp(weight - weight.max())
    at = np.searchsorted(np.cumsum(weight / weight.sum()), random.random(), side="right")
    return min(int(at), len(weight) - 1)  # a sum may end just below one


def _examples(survey: Survey, said: Sequence[Example], last: int) -> Examples:
    """Before each item the last ones, as they were answered."""
    by_item = {item.id: tuple(said[max(0, n - last) : n]) for n, item in enumerate(survey.items)}
    return Examples(by_item, turns=True)
