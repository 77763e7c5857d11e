"""Where soft tokens sit: a survey becomes a plan of token ids, computed once, without torch.

A question is one item with its options in one order. Its ids are those of the tokenizer's own chat template, cut at the
end of the user's text: `front` puts the soft tokens before everything, `late` puts them into the cut.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from softde.surveys import Item, Survey

PLACEMENTS = ("front", "late")
ORDERS = {"forward": ("forward",), "reversed": ("reversed",), "both": ("forward", "reversed")}
MARK = "[[softde:end-of-user-text]]"  # stands at the end of the user's text while the template is applied
# Some templates print today's date or open a "thinking" section; both are pinned so that a plan is the same every day.
TEMPLATE_OPTIONS = {"date_string": "26 Jul 2024", "enable_thinking": False}


@dataclass(frozen=True)
class Question:
    """One item in one order of its options, tokenised; soft tokens stand between prefix and suffix.

    option_ids : one token id per option, in the item's own order of options, whatever order was shown.
    """

    item: int
    order: str
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    option_ids: tuple[int, ...]

    @property
    def length(self) -> int:
        """Hard tokens, without the soft ones."""
        return len(self.prefix_ids) + len(self.suffix_ids)


@dataclass(frozen=True)
class Plan:
    """All questions of a survey under one system text and one placement; `digest` names the content."""

    placement: str
    questions: tuple[Question, ...]
    n_items: int
    n_options: int
    system: str | None
    digest: str

    @cached_property
    def prefix_tokens(self) -> int:
        """Tokens before the soft ones: what a cached prefix costs, once for a whole run."""
        return sum(len(q.prefix_ids) for q in self.questions)

    @cached_property
    def longest(self) -> int:
        """Hard tokens of the longest question."""
        return max(q.length for q in self.questions)


def make_plan(tokenizer: Any, survey: Survey, system: str | None, placement: str, orders: str) -> Plan:
    """Tokenise every item in every order.

    Raises
    ------
    ValueError
        Unknown placement or order; a chat template that loses the user's text; an option label that is not one token.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"placement: expected one of {', '.join(PLACEMENTS)}, got {placement!r}")
    if orders not in ORDERS:
        raise ValueError(f"orders: expected one of {', '.join(ORDERS)}, got {orders!r}")
    system = (system or "").strip() or None
    questions = tuple(
        _question(tokenizer, i, item, order, survey.instruction, system, placement)
        for i, item in enumerate(survey.items)
        for order in ORDERS[orders]
    )
    content = [placement, [[q.item, q.order, q.prefix_ids, q.suffix_ids, q.option_ids] for q in questions]]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return Plan(placement, questions, len(survey.items), max(len(i.options) for i in survey.items), system, digest)


def question_text(item: Item, order: str, instruction: str) -> str:
    """What the user says: the item, its labelled options from the top, the instruction."""
    texts = [option.text for option in item.options]
    shown = texts if order == "forward" else texts[::-1]
    lines = [f"{option.label} = {text}" for option, text in zip(item.options, shown, strict=True)]
    return "\n".join([item.text, *lines, instruction]).strip()


def render(tokenizer: Any, user: str, system: str | None = None) -> tuple[str, str]:
    """The whole prompt as text, cut at the end of the user's text: (before, after).

    A tokenizer without a chat template gets "{system}\\n\\n{user}" and "\\nAnswer:"; a template that refuses or drops
    the system text gets it at the start of the user's turn.
    """
    folded = f"{system}\n\n{user}" if system else user
    if not getattr(tokenizer, "chat_template", None):
        return f"{tokenizer.bos_token or ''}{folded}", "\nAnswer:"
    text = _apply_template(tokenizer, user, system)
    if system and (text is None or system not in text):
        text = _apply_template(tokenizer, folded, None)
    if text is None or text.count(MARK) != 1 or user not in text:
        raise ValueError(
            "chat template: expected it to show the user's text once, "
            f"{'it refused a user turn' if text is None else 'it did not'}; "
            "set tokenizer.chat_template to one with a user turn, or to None for the plain format"
        )
    before, _, after = text.partition(MARK)
    return before, after


def _apply_template(tokenizer: Any, user: str, system: str | None) -> str | None:
    """The rendered conversation with MARK after the user's text, or None if the template refuses it."""
    from jinja2 import TemplateError

    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": user + MARK})
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **TEMPLATE_OPTIONS
        )
    except TemplateError:
        return None
    return text


def _question(
    tokenizer: Any, index: int, item: Item, order: str, instruction: str, system: str | None, placement: str
) -> Question:
    before, after = render(tokenizer, question_text(item, order, instruction), system)
    head, whole = _encode(tokenizer, before), _encode(tokenizer, before + after)
    # Cut the ids of the whole text where the user's text ends; if a token straddles the cut, tokenise each side alone.
    context, known = (before + after, whole) if whole[: len(head)] == head else (after, _encode(tokenizer, after))
    cue, shown_ids = _option_tokens(tokenizer, item, context, known)
    option_ids = shown_ids if order == "forward" else shown_ids[::-1]
    suffix = (*(known[len(head) :] if known is whole else known), *cue)
    prefix = tuple(head) if placement == "late" else ()
    return Question(index, order, prefix, suffix if prefix else (*head, *suffix), option_ids)


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
        ids = _encode(tokenizer, context + space + option.label)
        stable = ids[: len(known)] == list(known)
        added.append(ids[len(known) :] if stable else _encode(tokenizer, space + option.label))
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
        "labels must be single and distinct tokens, so give the item fewer options or labels such as letters, or take "
        "a model whose tokenizer has them"
    )


def _encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids
