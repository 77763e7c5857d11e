"""A question as text: what the user says, inside the chat template, cut where the soft tokens stand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from softde.surveys import Item

Turns = Sequence[tuple[str, str]]  # what the user said and what the assistant answered

PLACEMENTS = ("front", "after_bos", "system", "user_start", "late")
MARK = "[[softde:soft-tokens]]"  # stands where the soft tokens go while the template is applied
# Some templates print today's date or open a "thinking" section; both are pinned so that a plan is the same every day.
DATE = datetime(2024, 7, 26, 12)
TEMPLATE_OPTIONS = {"date_string": f"{DATE:%d %b %Y}", "enable_thinking": False}
PARTS = "".join(f"|replace('%{c}','{DATE.strftime('%' + c)}')" for c in "dmYybBaAHIMSpj")
PINNED = "{%- macro strftime_now(form) -%}{{ form|replace('%-','%')" + PARTS + " }}{%- endmacro %}"


def check_placement(placement: str) -> None:
    """Refuse an unknown one."""
    if placement not in PLACEMENTS:
        raise ValueError(f"placement: expected one of {', '.join(PLACEMENTS)}, got {placement!r}")


def question_text(item: Item, order: str, instruction: str, common_first: bool = False) -> str:
    """What the user says: the item, its labelled options from the top, the instruction.

    common_first : the other way round, so that what items have in common comes before what is their own.
    """
    lines = item.listing(order)
    return "\n".join([instruction, *lines, item.text] if common_first else [item.text, *lines, instruction]).strip()


def render(
    tokenizer: Any, user: str, system: str | None = None, placement: str = "late", turns: Turns = ()
) -> tuple[str, str]:
    """The whole prompt as text, cut where a placement puts soft tokens into it: (before, after).

    "late" cuts at the end of the user's text, "user_start" at its start, "system" at the end of the system text, which
    makes a system turn where there was none. "front" and "after_bos" are places among ids, not in a text, which is
    cut as for "late". A tokenizer without a chat template gets "{system}\\n\\n{user}" and "\\nAnswer:"; a template that
    refuses or drops the system text gets it at the start of the user's turn.

    turns : (user, assistant) texts that come before; without a chat template "{user}\\nAnswer: {assistant}" each.

    Raises
    ------
    ValueError
        The template has no user turn, or loses or repeats its text.
    """
    if placement == "system":
        system = f"{system or ''}{MARK}"
    spoken = {"system": user, "user_start": MARK + user}.get(placement, user + MARK)
    if not getattr(tokenizer, "chat_template", None):
        earlier = "".join(f"{asked}\nAnswer: {answer}\n\n" for asked, answer in turns)
        opening = f"{system}\n\n" if system else ""
        text: str | None = f"{tokenizer.bos_token or ''}{opening}{earlier}{spoken}\nAnswer:"
    elif system and not keeps_system(tokenizer, system):
        first, *rest = [*turns, (spoken, "")]
        *earlier_turns, (spoken, _) = [(f"{system}\n\n{first[0]}", first[1]), *rest]
        text = _apply_template(tokenizer, spoken, None, earlier_turns)
    else:
        text = _apply_template(tokenizer, spoken, system, turns)
    if text is None or text.count(MARK) != 1 or user not in text:
        raise ValueError(
            "chat template: expected it to show the user's text once, "
            f"{'it refused a user turn' if text is None else 'it did not'}; "
            "set tokenizer.chat_template to one with a user turn, or to None for the plain format"
        )
    before, _, after = text.partition(MARK)
    return before, after


def keeps_system(tokenizer: Any, system: str) -> bool:
    """Does the chat template have a place for a system text, and show it as it is?"""
    text = _apply_template(tokenizer, "?", system) if getattr(tokenizer, "chat_template", None) else None
    return text is not None and system in text


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text that is already rendered: nothing is added."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def cut_ids(tokenizer: Any, before: str, after: str) -> tuple[list[int], list[int], bool]:
    """Ids of both sides, and whether they are the whole text's own; where a token straddles the cut they are not."""
    head, whole = token_ids(tokenizer, before), token_ids(tokenizer, before + after)
    own = whole[: len(head)] == head
    return head, whole[len(head) :] if own else token_ids(tokenizer, after), own


def after_bos(tokenizer: Any, ids: Sequence[int]) -> int:
    """How many ids stand before soft tokens that are "after_bos"."""
    if tokenizer.bos_token_id is None or not ids or ids[0] != tokenizer.bos_token_id:
        raise ValueError(
            "placement 'after_bos': this model's prompts do not begin with a beginning-of-text token; "
            "use placement='front', which is the same place"
        )
    return 1


def _apply_template(tokenizer: Any, user: str, system: str | None, turns: Turns = ()) -> str | None:
    """The rendered conversation, or None if the template refuses it."""
    messages = [{"role": "system", "content": system}] if system else []
    for asked, answer in turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    messages.append({"role": "user", "content": user})
    template: dict[str, str] = {}
    if "strftime_now" in str(tokenizer.chat_template):  # asks for today; transformers passes no function of ours
        template = {"chat_template": PINNED + tokenizer.get_chat_template()}
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **template, **TEMPLATE_OPTIONS
        )
    except Exception:  # templates refuse by jinja2's errors, and fail by any other
        return None
    return text
