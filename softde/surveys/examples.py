"""Worked examples: answered items that stand before the one that is asked, for in-context learning."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from softde.checks import shown, whole
from softde.surveys.survey import Item
from softde.surveys.values import FrozenDict

QUESTION, LABEL, OPTION = "{question}", "{label}", "{option}"
TEMPLATE = "{question}\nAnswer: {label}"


@dataclass(frozen=True)
class Example:
    """An item and the number of the option that answers it, from 0, in the item's own order.

    Raises
    ------
    ValueError
        No item, or it has no such option.
    """

    item: Item
    option: int

    def __post_init__(self) -> None:
        if not isinstance(self.item, Item):
            raise ValueError(f"item: expected an Item, such as survey.items[0], got {shown(self.item)}")
        object.__setattr__(self, "option", whole(self.option, f"option, the number of one of item {self.item.id!r}"))
        if not 0 <= self.option < len(self.item.options):
            raise ValueError(
                f"option: expected the number of an option of item {self.item.id!r}, 0 to "
                f"{len(self.item.options) - 1}, got {self.option}"
            )

    def shown(self, order: str) -> tuple[str, str, str]:
        """(question with its listed options, label of the answer, text of the answer) in one order of options."""
        options = self.item.options
        at = self.option if order == "forward" else len(options) - 1 - self.option
        return "\n".join([self.item.text, *self.item.listing(order)]), options[at].label, options[self.option].text


@dataclass(frozen=True)
class Examples:
    """What stands before each item, in the order in which it is shown.

    by_item : the asked item's id → its examples; an item without an entry is asked without any. Options of examples are
        listed in the order in which those of the asked item are, so that a label means the same place everywhere.
    turns : False puts them into the user's text, before the question; True makes each a turn of the user and one of
        the assistant, who says the label alone.
    template : of an example in the user's text, with the places {question} and {label}, or {option} for the answer's
        text. Of turns, what the user says is the question alone.

    Raises
    ------
    ValueError
        A template without the question, or without an answer; an item among its own examples.
    """

    by_item: Mapping[str, tuple[Example, ...]]
    turns: bool = False
    template: str = field(default=TEMPLATE, kw_only=True)

    def __post_init__(self) -> None:
        if QUESTION not in self.template or not (LABEL in self.template or OPTION in self.template):
            raise ValueError(
                f"template: expected a text with the place {QUESTION!r} and {LABEL!r} or {OPTION!r}, got "
                f"{self.template!r}; add what is missing"
            )
        for asked, examples in self.by_item.items():
            if not isinstance(examples, Sequence) or not all(isinstance(one, Example) for one in examples):
                raise ValueError(f"by_item: item {asked!r}: expected a list of Example, got {shown(examples)}")
            if any(example.item.id == asked for example in examples):
                raise ValueError(f"by_item: item {asked!r} is among its own examples, which gives its answer away")
        object.__setattr__(self, "by_item", FrozenDict({item: tuple(e) for item, e in self.by_item.items()}))

    def text(self, item: str, order: str) -> str:
        """What stands before the question in the user's text; empty for turns and without examples."""
        if self.turns:
            return ""
        return "".join(f"{self._filled(example, order)}\n\n" for example in self.by_item.get(item, ()))

    def conversation(self, item: str, order: str, instruction: str) -> tuple[tuple[str, str], ...]:
        """(user, assistant) turns before the question; none if examples stand in the user's text."""
        if not self.turns:
            return ()
        shown = [example.shown(order) for example in self.by_item.get(item, ())]
        return tuple((f"{question}\n{instruction}".strip(), label) for question, label, _ in shown)

    def reversed(self) -> Examples:
        """The same with every answer at the other end of its item's options."""
        other = {
            item: tuple(replace(e, option=len(e.item.options) - 1 - e.option) for e in examples)
            for item, examples in self.by_item.items()
        }
        return replace(self, by_item=other)

    def _filled(self, example: Example, order: str) -> str:
        question, label, option = example.shown(order)
        parts = re.split("({question}|{label}|{option})", self.template)
        return "".join({QUESTION: question, LABEL: label, OPTION: option}.get(part, part) for part in parts)
