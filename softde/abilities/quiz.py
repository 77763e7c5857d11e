"""A quiz: a survey whose items have one right option each, so that asking it is `administer` and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from softde.surveys import Item, Survey, options
from softde.surveys.checks import need_text
from softde.surveys.targets import only_items

INSTRUCTION = "Answer with the number of the right option only."

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Quiz:
    """Questions with a right answer: option values are 1 for the right option and 0 for all others.

    An item mean is thus the probability of the right answer. The item's topic is its subject.

    groups : of each item, the question that it is a judgement of; a question counts only if all of its items are right.
        Left out, each item is a question of its own.
    left_out : rows of a file that are not in it, a sentence each.

    Raises
    ------
    ValueError
        An item without exactly one right option; another number of groups than items.
    """

    survey: Survey
    groups: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        groups = tuple(self.groups) or self.survey.item_ids
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "left_out", tuple(self.left_out))
        if len(groups) != len(self.survey.items):
            raise ValueError(f"groups: expected one for each of {len(self.survey.items)} items, got {len(groups)}")
        for item in self.survey.items:
            values = [option.value for option in item.options]
            if sorted(values) != [0.0] * (len(values) - 1) + [1.0]:
                raise ValueError(
                    f"item {item.id!r}: expected the value 1 for the right option and 0 for all others, got "
                    f"{', '.join(f'{value:g}' for value in values)}; softde.abilities.quiz_item makes such items"
                )

    @property
    def name(self) -> str:
        """The survey's id."""
        return self.survey.id

    @cached_property
    def right(self) -> NDArray[np.int64]:
        """(items,) number of the right option, from 0."""
        return np.asarray(np.nanargmax(self.survey.option_values, axis=1), dtype=np.int64)

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """The groups, each once, in the order in which they come."""
        return tuple(dict.fromkeys(self.groups))

    @cached_property
    def question_of(self) -> NDArray[np.int64]:
        """(items,) number of each item's question."""
        number = {group: i for i, group in enumerate(self.questions)}
        return np.array([number[group] for group in self.groups])

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """(questions,) subject of each question, that of its first item."""
        first: dict[str, str] = {}
        for group, item in zip(self.groups, self.survey.items, strict=True):
            first.setdefault(group, item.topic)
        return tuple(first.values())

    @property
    def judged(self) -> bool:
        """Has any question several items?"""
        return len(self.questions) < len(self.groups)

    def all_of(self, flags: Flags) -> Flags:
        """(items,) → (questions,): is it so for every item of a question?"""
        no = np.bincount(self.question_of, weights=~flags, minlength=len(self.questions))
        return np.asarray(no == 0)

    def counts(self, flags: Flags) -> NDArray[np.int64]:
        """(items,) → (questions,): for how many items of a question is it so?"""
        return np.bincount(self.question_of, weights=flags, minlength=len(self.questions)).astype(np.int64)

    def chance(self) -> NDArray[np.float64]:
        """(questions,) probability that an answerer who draws all options alike has a question right."""
        logs = -np.log([len(item.options) for item in self.survey.items])
        return np.asarray(np.exp(np.bincount(self.question_of, weights=logs, minlength=len(self.questions))))

    def part(self, questions: Collection[str]) -> Quiz:
        """Some questions, by name, in the quiz's own order.

        Raises
        ------
        ValueError
            It has none of them.
        """
        kept = [i for i, group in enumerate(self.groups) if group in questions]
        if not kept:
            raise ValueError(f"quiz {self.name!r}: expected names of its {len(self.questions)} questions, got none")
        survey = only_items(self.survey, {self.survey.item_ids[i] for i in kept})
        return replace(self, survey=survey, groups=tuple(self.groups[i] for i in kept))

    def first(self, count: int) -> Quiz:
        """The first so many questions."""
        return self.part(set(self.questions[: max(count, 0)]))


def quiz_item(id: str, text: str, texts: Iterable[str], right: int, subject: str = "") -> Item:  # noqa: A002
    """An item with options of these texts, of which one, counted from 0, is right."""
    texts = list(texts)
    if not 0 <= right < len(texts):
        raise ValueError(f"item {id!r}: expected the number of the right option, 0 to {len(texts) - 1}, got {right}")
    return Item(id, text, options(texts, [float(i == right) for i in range(len(texts))]), subject)


def make_quiz(
    name: str,
    items: Iterable[Item],
    groups: Iterable[str] = (),
    left_out: Iterable[str] = (),
    instruction: str = INSTRUCTION,
) -> Quiz:
    """Items of `quiz_item` as a quiz."""
    need_text(name, "quiz: name")
    return Quiz(Survey(name, name, tuple(items), instruction=instruction), tuple(groups), tuple(left_out))
