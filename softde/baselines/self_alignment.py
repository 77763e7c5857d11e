"""Self-alignment: before each item stand the region's own answers to the items most like it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from softde.baselines.chrf import Array, chrf
from softde.baselines.cross_culture import row_of
from softde.baselines.wording import wording
from softde.checks import whole
from softde.condition import Condition
from softde.surveys import Item, Survey
from softde.surveys.examples import Example, Examples
from softde.surveys.human import HumanAnswers
from softde.surveys.survey import NO_TEXT

# (texts of the asked items, texts of the others) → (asked, others), higher for what is more alike
Similarity: TypeAlias = Callable[[Sequence[str], Sequence[str]], Array]


def self_alignment(
    region: str,
    survey: Survey,
    human: HumanAnswers,
    k: int = 5,
    similarity: Similarity = chrf,
    from_region: str | None = None,
    reverse: bool = False,
    turns: bool = False,
    template: str | None = None,
    language: str | None = None,
) -> Condition:
    """In-context learning from human answers: k worked examples before each item, the nearest first.

    Choenni and Shutova (arXiv 2408.16482) as P3 of Xu et al. (arXiv 2410.12971) has it. The examples of an item are the
    k others whose text, without the options, is most similar to its own, each answered by the option that most people
    of the region chose. The asked item itself is none of them, nor is one that the region has no answers to.

    Parameters
    ----------
    region : whose answers are shown; known to `human`, by name or code.
    survey : the items that are asked.
    human : its items are the examples, of `survey` or of another one. An item that both have is worded as in `survey`.
    k : how many examples. similarity : see `Similarity`; the asked item's text is chrF++'s hypothesis.
    from_region : another region whose answers are shown instead: what do examples of the wrong region do?
    reverse : every answer at the other end of its item's options: are answers merely copied?
    turns : each example a turn of the user and one of the assistant, instead of a text before the question.
    template : of an example, with the places {question} and {label} or {option}; None is `wording(language).example`.
    language : None is the survey's.

    Raises
    ------
    ValueError
        A region without human answers; fewer than k other items with answers and a text; no texts in the language.
    """
    k = whole(k, "k", 1)
    text = wording(language or survey.language).example if template is None else template
    row = row_of(human, from_region or region)
    survey.need_texts()
    asked = {item.id: item for item in survey.items}
    others = [_worded(item, asked) for item in human.survey.items]
    answers = human.majority[row].tolist()  # -1 for none
    likeness = _likeness(similarity, [item.text for item in survey.items], [item.text for item in others])
    by_item = {}
    for item, near in zip(survey.items, likeness, strict=True):
        ranked = np.argsort(-near, kind="stable").tolist()
        known = [n for n in ranked if answers[n] >= 0 and _may_help(others[n], item)]
        if len(known) < k:
            raise ValueError(
                f"k: expected at most {len(known)} examples for item {item.id!r}, since so many other items have a "
                f"text and answers of {human.regions[row]}, got {k}; give a smaller k, or answers to more items"
            )
        by_item[item.id] = tuple(Example(others[n], answers[n]) for n in known[:k])
    examples = Examples(by_item, turns, template=text)
    name = "self-alignment" + (f" from {from_region}" if from_region else "") + (", reversed" if reverse else "")
    return Condition(examples=examples.reversed() if reverse else examples, name=name)


def _worded(item: Item, own: Mapping[str, Item]) -> Item:
    """The item as the asked survey words it, if that has it with the same option values."""
    other = own.get(item.id, item)
    return other if [o.value for o in other.options] == [o.value for o in item.options] else item


def _may_help(other: Item, asked: Item) -> bool:
    """Is it another item than the one asked, and has it a text? Files of answers alone name items by their columns."""
    return other.id != asked.id and other.text not in (asked.text, NO_TEXT, other.id)


def _likeness(similarity: Similarity, asked: list[str], others: list[str]) -> Array:
    found = np.asarray(similarity(asked, others), dtype=np.float64)
    if found.shape != (len(asked), len(others)) or not np.isfinite(found).all():
        raise ValueError(
            f"similarity: expected finite numbers (asked, other items) = ({len(asked)}, {len(others)}), got shape "
            f"{found.shape}{'' if np.isfinite(found).all() else ' with NaN or infinity'}"
        )
    return found
