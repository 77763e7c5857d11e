"""Tokens before they are spent: those of a survey under a condition, of questions, and of a search.

Of more than `SAMPLE` items or questions, those evenly spaced by length are counted and the rest taken to be like them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from softde.baselines.culture_spa import Question, as_survey
from softde.baselines.culture_spa.answer import unasked
from softde.condition import Condition, Panel, members
from softde.lm import LM
from softde.lm.layout import Plan, make_plan, unasked_items
from softde.space import PromptSpace
from softde.surveys import Item, Survey
from softde.surveys.examples import Example
from softde.surveys.targets import bare

T = TypeVar("T")

SAMPLE = 32
LABEL = 16  # letters that make as many tokens as a label and its line do


def asking_tokens(lm: LM, survey: Survey, condition: Condition | Panel, orders: str) -> float:
    """Tokens of all whole questions, soft ones too, of items that the model can be asked; padding comes on top."""
    return sum(_of_member(lm, survey, member, orders) for member in members(condition))


def _of_member(lm: LM, survey: Survey, member: Condition, orders: str) -> float:
    def letters(item: Item) -> int:
        return _letters(item, member)

    some = list(spread(survey.items, SAMPLE, letters))
    soft = 0 if member.prompt is None else member.prompt.num_virtual_tokens
    try:
        kept, plan = some, _plan(lm, bare(survey, some), member, orders)
    except ValueError:
        left_out = unasked_items(lm.tokenizer, bare(survey, some), "late", orders)
        kept = [item for item in some if item.id not in left_out]
        if not left_out or not kept:
            raise
        plan = _plan(lm, bare(survey, kept), member, orders)
    tokens = [0] * len(kept)
    for question in plan.questions:
        tokens[question.item] += question.length + soft
    return estimated(tokens, [letters(item) for item in kept], [letters(item) for item in survey.items], len(some))


def estimated(tokens: Sequence[int], letters: Sequence[int], every: Sequence[int], drawn: int) -> float:
    """Tokens of all texts from those of some: by the line of tokens over letters, with the letters of all in `every`.

    drawn : how many texts were tried; of those that cannot be asked there are as many among all. If all were, it is the
    sum of the tokens.
    """
    if drawn == len(every):
        return float(sum(tokens))
    x, y = np.array(letters, dtype=np.float64), np.array(tokens, dtype=np.float64)
    squares = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / squares if squares else 0.0
    mean = float(y.mean()) + slope * (float(np.mean(every)) - float(x.mean()))
    return len(every) * len(tokens) / drawn * mean


def _plan(lm: LM, survey: Survey, condition: Condition, orders: str) -> Plan:
    """Not kept by the model, as its own are: a design has many."""
    return make_plan(
        lm.tokenizer, survey, condition.system, condition.placement, orders, None, condition.examples
    )  # fmt: skip


def check_longest(lm: LM, survey: Survey, condition: Condition | Panel, orders: str) -> None:
    """Refuse a condition whose texts and examples leave no room for the longest item, by its letters.

    Raises
    ------
    ValueError
        The question is longer than the model reads, though the item alone is not.
    """
    for member in members(condition):
        longest = max(survey.items, key=lambda item: _letters(item, member))
        alone = bare(survey, [longest])
        if not unasked_items(lm.tokenizer, alone, "late", orders):
            lm.plan(alone, member.system, member.placement, orders, examples=member.examples)


def _letters(item: Item, condition: Condition) -> int:
    """Of an item with its examples."""
    shown: Sequence[Example] = () if condition.examples is None else condition.examples.by_item.get(item.id, ())
    items = [item, *(example.item for example in shown)]
    return sum(len(one.text) + sum(len(option.text) + LABEL for option in one.options) for one in items)


def question_tokens(lm: LM, questions: Sequence[Question], systems: Sequence[str | None], order: str) -> list[float]:
    """Tokens of asking all questions under each system text, of those that the model can be asked."""
    some = spread(questions, SAMPLE, _length)
    kept = askable(lm, some)
    if not kept:  # none at all, or none that can be asked
        return [0.0] * len(systems)

    def tokens(asked: Sequence[Question], system: str | None) -> list[int]:
        return [q.length for q in make_plan(lm.tokenizer, as_survey(asked), system, "late", order).questions]

    alone, number = tokens(kept, None), len(questions) * len(kept) / len(some)
    every = estimated(alone, list(map(_length, kept)), list(map(_length, questions)), len(some))
    # a system text is as long before every question
    return [every + number * (tokens(kept[:1], system)[0] - alone[0]) for system in systems]


def _length(question: Question) -> int:
    """Letters of what is asked."""
    return len(question.text) + sum(len(text) + LABEL for text in question.options)


def askable(lm: LM, questions: Sequence[Question]) -> list[Question]:
    """Those that the model can be asked: their labels are single tokens, and they are not too long."""
    left_out = unasked(lm, questions, [None], "forward")
    return [question for question in questions if question.id not in left_out]


def search_tokens(lm: LM, survey: Survey, space: PromptSpace, orders: str, candidates: int) -> tuple[float, float]:
    """(of so many candidates, of what stands before their soft tokens and is computed once)."""
    plan = lm.plan(survey, placement=space.placement, orders=orders)
    lm.engine.check_room(plan, space.num_virtual_tokens)
    return float(candidates * plan.tokens(space.num_virtual_tokens)), float(plan.prefix_tokens)


def spread(values: Sequence[T], most: int, size: Callable[[T], int] | None = None) -> Sequence[T]:
    """At most so many, evenly spaced: as they come, or by size."""
    if len(values) <= most:
        return values
    ordered = values if size is None else sorted(values, key=size)
    return [ordered[(2 * i + 1) * len(values) // (2 * most)] for i in range(most)]
