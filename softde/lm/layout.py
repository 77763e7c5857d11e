"""The plan of a survey: a tuple of token ids per question, and who shares which of them, computed once, without torch.

A question is one item in one wording with its options in one order; its ids are those of the tokenizer's own chat
template, cut where the soft tokens stand. What stands before the cut is the same for every candidate: its keys and
values are computed once a run. If all questions have the same text there, soft tokens and what follows them in every
question make a stem, which is computed once per candidate; the rest of each question grows from it. Otherwise ("late")
each question has its own cached prefix, and soft tokens and the answer cue are all that a candidate costs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softde.lm.template import after_bos, check_placement, cut_ids, question_text, render, token_ids
from softde.surveys import Item, Survey
from softde.surveys.examples import Examples
from softde.surveys.targets import only_items

Asked = tuple[int, str, int]  # (item, order, phrasing) of a question
NO_EXAMPLES = Examples({})
ORDERS = {"forward": ("forward",), "reversed": ("reversed",), "both": ("forward", "reversed")}


@dataclass(frozen=True)
class Question:
    """One item in one order of its options and one wording, tokenised; soft tokens stand between prefix and suffix.

    option_ids : one token id per option, in the item's own order of options, whatever order was shown.
    """

    item: int
    order: str
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    option_ids: tuple[int, ...]
    phrasing: int = 0

    @property
    def length(self) -> int:
        """Hard tokens, without the soft ones."""
        return len(self.prefix_ids) + len(self.suffix_ids)


@dataclass(frozen=True)
class Node:
    """A run of tokens that some questions have in common; `parent` is the number of the node it follows, −1 for none.

    question : the question that ends here, −1 if none does.
    """

    ids: tuple[int, ...]
    parent: int
    question: int


@dataclass(frozen=True)
class Plan:
    """All questions of a survey under one system text and one placement; `digest` names the content.

    blocks : the questions (their numbers) in the parts that are asked together. Items of factors that share items are
    in one block, so that a factor is known once its block is answered.
    """

    placement: str
    questions: tuple[Question, ...]
    n_items: int
    n_options: int
    system: str | None
    blocks: tuple[tuple[int, ...], ...]
    digest: str
    examples: Examples | None = None

    @cached_property
    def stem(self) -> int:
        """Tokens after the soft ones that all questions begin with; −1 if the questions' prefixes differ.

        At least one token of every question is left to itself.
        """
        first = self.questions[0]
        if len(self.questions) == 1 or any(q.prefix_ids != first.prefix_ids for q in self.questions):
            return -1
        return common([q.suffix_ids[:-1] for q in self.questions])

    @cached_property
    def by_item(self) -> tuple[tuple[int, ...], ...]:
        """(items, slots) numbers of each item's questions.

        Those of items with fewer stand several times, all equally often: a mean over slots is one over questions.
        """
        numbers: list[list[int]] = [[] for _ in range(self.n_items)]
        for i, q in enumerate(self.questions):
            numbers[q.item].append(i)
        slots = math.lcm(*map(len, numbers))
        return tuple(tuple(mine * (slots // len(mine))) for mine in numbers)

    @property
    def stemmed(self) -> bool:
        """Do soft tokens stand in a stem that all questions of a candidate share?"""
        return self.stem >= 0

    @property
    def shared(self) -> bool:
        """Is there anything that does not have to be computed for every candidate and question?"""
        return self.stemmed or all(q.prefix_ids for q in self.questions)

    def rest(self, question: int) -> tuple[int, ...]:
        """What a question adds to what is shared: the ids after the stem, or after its soft tokens."""
        return self.questions[question].suffix_ids[max(self.stem, 0) :]

    def tree(self, questions: Sequence[int]) -> tuple[Node, ...]:
        """The rests of some questions, joined where they begin alike; parents come before children."""
        return tuple(_grow([(self.rest(i), i) for i in questions], -1, 0))

    @cached_property
    def prefix_tokens(self) -> int:
        """Tokens before the soft ones, each text counted once: what a run computes once."""
        return sum(map(len, {q.prefix_ids for q in self.questions}))

    @cached_property
    def hard_tokens(self) -> int:
        """Of all questions, shared or not."""
        return sum(q.length for q in self.questions)

    @cached_property
    def longest(self) -> int:
        """Hard tokens of the longest question."""
        return max(q.length for q in self.questions)

    def tokens(self, num_virtual_tokens: int) -> int:
        """Tokens of one candidate: what all questions share counts once, what those of a block share once a block."""
        if not self.stemmed:
            return sum(num_virtual_tokens + len(q.suffix_ids) for q in self.questions)
        grown = sum(len(node.ids) for block in self.blocks for node in self.tree(block))
        return num_virtual_tokens + self.stem + grown


def make_plan(
    tokenizer: Any,
    survey: Survey,
    system: str | None,
    placement: str,
    orders: str,
    asked: Sequence[Asked] | None = None,
    examples: Examples | None = None,
) -> Plan:
    """Tokenise every item in every order and wording, or those questions of them that are `asked`, of every item one.

    examples : answered items that stand before those that have some.

    Raises
    ------
    ValueError
        Unknown placement or order; a chat template that loses the user's text; an option label that is not one token.
    """
    survey.need_texts()
    check_placement(placement)
    if orders not in ORDERS:
        raise ValueError(f"orders: expected one of {', '.join(ORDERS)}, got {orders!r}")
    system = (system or "").strip() or None
    questions = tuple(
        _question(tokenizer, survey, i, order, phrasing, system, placement, examples or NO_EXAMPLES)
        for i, order, phrasing in (every_question(survey, orders) if asked is None else asked)
    )
    blocks = tuple(tuple(i for i, q in enumerate(questions) if q.item in items) for items in item_blocks(survey))
    content = [placement, blocks, [[q.item, q.order, q.prefix_ids, q.suffix_ids, q.option_ids] for q in questions]]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    most = max(len(item.options) for item in survey.items)
    return Plan(placement, questions, len(survey.items), most, system, blocks, digest, examples)


def every_question(survey: Survey, orders: str) -> Iterator[Asked]:
    """(item, order, phrasing) of every question, an item's first wording in all orders before its next."""
    for i, item in enumerate(survey.items):
        for phrasing in range(1 + len(item.phrasings)):
            for order in ORDERS[orders]:
                yield i, order, phrasing


def item_blocks(survey: Survey) -> tuple[frozenset[int], ...]:
    """Items in parts that no factor crosses, as small as that allows; items of no factor are the last part."""
    parts = united(survey.uses)
    rest = frozenset(range(len(survey.items))).difference(*parts)
    return (*parts, rest) if rest else tuple(parts)


def part_blocks(uses: NDArray[np.bool_], most: int) -> tuple[frozenset[int], ...]:
    """Items in parts that no term crosses, at most `most`, neighbours together and of about equal size.

    uses : (terms, items), which items a term needs; those that none needs are with the last.
    """
    parts, count = sorted(united(uses), key=min), uses.shape[1]
    rest = frozenset(range(count)).difference(*parts)
    blocks: list[frozenset[int]] = []
    for part in [*parts, rest] if rest else parts:
        if not blocks or sum(map(len, blocks)) >= len(blocks) * count / most:
            blocks.append(part)
        else:
            blocks[-1] |= part
    return tuple(blocks)


def united(uses: NDArray[np.bool_]) -> list[frozenset[int]]:
    """Items of terms, (terms, items), joined wherever two terms share one."""
    parts: list[frozenset[int]] = []
    for row in uses:
        mine = frozenset(np.flatnonzero(row).tolist())
        touched = [part for part in parts if part & mine]
        if mine:
            parts = [part for part in parts if part not in touched] + [mine.union(*touched)]
    return parts


def with_blocks(plan: Plan, items: Sequence[frozenset[int]]) -> Plan:
    """The same questions in other blocks."""
    blocks = tuple(tuple(i for i, q in enumerate(plan.questions) if q.item in mine) for mine in items)
    if blocks == plan.blocks:
        return plan
    return replace(plan, blocks=blocks, digest=hashlib.sha256(f"{plan.digest} {blocks}".encode()).hexdigest())


def unasked_items(
    tokenizer: Any, survey: Survey, placement: str, orders: str, longest: int | None = None
) -> dict[str, str]:
    """Items that a model cannot be asked (a label that is not one token; more tokens than `longest`) → why."""
    found: dict[str, str] = {}
    for item in survey.items:
        try:
            plan = make_plan(tokenizer, only_items(survey, (item.id,)), None, placement, orders)
        except ValueError as error:
            found[item.id] = str(error)
            continue
        if longest is not None and plan.longest > longest:
            found[item.id] = f"item {item.id!r} has {plan.longest} tokens, but the model has room for {longest}"
    return found


def common(sequences: Sequence[Sequence[int]]) -> int:
    """How many leading entries all sequences have in common."""
    shared = 0
    for column in zip(*sequences, strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    return shared


def _grow(rests: list[tuple[tuple[int, ...], int]], parent: int, made: int) -> Iterator[Node]:
    """Nodes for the rests below a parent; `made` nodes exist already. A node ends where rests part or one ends."""
    by_first: dict[int, list[tuple[tuple[int, ...], int]]] = {}
    for ids, question in rests:
        by_first.setdefault(ids[0], []).append((ids, question))
    for family in by_first.values():
        length = common([ids for ids, _ in family])
        ending = [question for ids, question in family if len(ids) == length]
        for question in ending or [-1]:  # two questions of the same ids end in a node each
            node, made = Node(family[0][0][:length], parent, question), made + 1
            yield node
        going_on = [(ids[length:], question) for ids, question in family if len(ids) > length]
        if going_on:
            below = list(_grow(going_on, made - 1, made))
            yield from below
            made += len(below)


def _question(
    tokenizer: Any,
    survey: Survey,
    index: int,
    order: str,
    phrasing: int,
    system: str | None,
    placement: str,
    examples: Examples,
) -> Question:
    item = survey.items[index].worded(phrasing)
    user = examples.text(item.id, order) + question_text(item, order, survey.instruction, survey.common_first)
    turns = examples.conversation(item.id, order, survey.instruction)
    before, after = render(tokenizer, user, system, placement, turns)
    head, tail, own = cut_ids(tokenizer, before, after)
    context, known = (before + after, head + tail) if own else (after, tail)
    cue, shown_ids = _option_tokens(tokenizer, item, context, known)
    ids, at = (*head, *tail, *cue), len(head)
    if placement in ("front", "after_bos"):
        at = 0 if placement == "front" else after_bos(tokenizer, ids)
    options = shown_ids if order == "forward" else shown_ids[::-1]
    return Question(index, order, ids[:at], ids[at:], options, phrasing)


def _option_tokens(
    tokenizer: Any, item: Item, context: str, known: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(cue, ids): the token that each label adds to the context, found by tokenising both and taking the difference.

    After the plain "Answer:" a label is written with its space. White space that all labels share as tokens of its own
    is the cue: it goes to the end of the prompt.
    """
    space = " " if context.endswith("Answer:") else ""
    added = []
    for option in item.options:
        ids = token_ids(tokenizer, context + space + option.label)
        stable = ids[: len(known)] == list(known)
        added.append(ids[len(known) :] if stable else token_ids(tokenizer, space + option.label))
        if not stable:
            raise _not_single(tokenizer, item, option.label, added[-1], "which change the tokens before them")
    cue = tuple(_shared_space(tokenizer, added))
    for option, ids in zip(item.options, added, strict=True):
        if len(ids) != len(cue) + 1:
            raise _not_single(tokenizer, item, option.label, ids, "not one")
        if sum(other == ids for other in added) > 1:
            raise _not_single(tokenizer, item, option.label, ids, "the same as another label")
    return cue, tuple(ids[-1] for ids in added)


def _shared_space(tokenizer: Any, added: Sequence[Sequence[int]]) -> Iterator[int]:
    for column in zip(*added, strict=False):
        if len(set(column)) > 1 or tokenizer.decode([column[0]]).strip():
            return
        yield column[0]


def _not_single(tokenizer: Any, item: Item, label: str, ids: Sequence[int], what: str) -> ValueError:
    tokens = ", ".join(repr(token) for token in tokenizer.convert_ids_to_tokens(list(ids)))
    return ValueError(
        f"item {item.id!r}: the option label {label!r} becomes the tokens [{tokens}] after the answer cue, {what}; "
        "labels must be single and distinct tokens, so give the item fewer options, or take a model whose tokenizer "
        "has them"
    )
