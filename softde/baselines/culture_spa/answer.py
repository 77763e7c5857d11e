"""Stage 2: every question is asked twice or more, of nobody in particular and of a person from each region."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from softde.administer import administer
from softde.baselines.culture_spa.answers import ANSWERS, ORDERS, UNAWARE, Answers, load_answers
from softde.baselines.culture_spa.counting import Count
from softde.baselines.culture_spa.prompts import unaware as nobody
from softde.baselines.culture_spa.questions import Question, as_survey, batches, digest
from softde.baselines.culture_spa.records import BATCH, KIND, Row, append, jsonl, resumed
from softde.checks import check_kinds, shown, whole
from softde.condition import Condition
from softde.lm import LM
from softde.lm.layout import unasked_items
from softde.lm.template import render, token_ids
from softde.readouts import Argmax, Expected, Readout, SequenceLogprob, check_readout, stream
from softde.surveys.values import listed

_log = logging.getLogger("softde")


def answer(
    lm: LM,
    questions: Sequence[Question],
    regions: Mapping[str, Condition],
    out: str | os.PathLike[str],
    unaware: Condition | None = None,
    readout: Readout = Argmax(),  # noqa: B008 (a frozen value)
    order: str = "forward",
    batch: int = 64,
    progress: bool = True,
) -> Answers:
    """Ask all questions under every condition, into a file; goes on where an earlier call stopped.

    Parameters
    ----------
    questions : such as `load_questions(...).kept`.
    regions : name → what makes the model aware of it: `aware("Kenya")`, `softde.baselines.persona("Kenya")`, or
        cross-culture thinking, any condition that is a system text alone, since stage 4 trains under it.
    unaware : for nobody in particular; None takes softde's own words for a person with values, `Condition()` no text.
    readout : `Argmax()`, `Sampled(1)`, `Generated()`, any that gives one answer. Draws of a question are the same for
        all regions, so that answers differ only where probabilities do.
    order : in which the options are listed, "forward" or "reversed".

    Raises
    ------
    ValueError
        No questions or regions, a condition that holds more than a system text, another read-out, a file of other
        settings.
    """
    if not isinstance(regions, Mapping) or UNAWARE in regions:
        given = list(regions) if isinstance(regions, Mapping) else shown(regions)
        raise ValueError(
            f"regions: expected a condition by region, such as {{'Kenya': aware('Kenya')}}, none '', got {given}"
            "; what nobody in particular is told is given as unaware="
        )
    conditions = {UNAWARE: nobody() if unaware is None else unaware, **regions}
    _check(lm, questions, conditions, readout, order)
    batch, path = whole(batch, "batch", 1), jsonl(out)
    systems = {region: condition.system for region, condition in conditions.items()}
    header = {
        KIND: ANSWERS, "questions": digest(questions), "systems": systems, "model": lm.name,
        "weights": lm.weights_sample, "readout": repr(readout), "order": order, "batch_size": batch,
    }  # fmt: skip
    parts = list(batches(questions, batch))
    _, done = resumed(path, header, ("question",))
    room = _room(lm, list(systems.values()))
    count = Count("batches", len(parts), done, progress)
    for number, part in enumerate(parts[done:], start=done):
        rows, tokens = _asked(lm, part, conditions, _seeded(readout, number), order, room)
        append(path, [*rows, {BATCH: number, "forward_tokens": tokens}])
        count(number + 1)
    found = load_answers(path, questions)
    name_left_out(found.left_out, len(questions))
    return found


def _check(
    lm: LM, questions: Sequence[Question], conditions: Mapping[str, Condition], readout: Readout, order: str
) -> None:
    check_kinds({"lm": (lm, LM)})
    check_readout(readout)
    if isinstance(readout, (Expected, SequenceLogprob)) or getattr(readout, "n", 1) != 1:
        raise ValueError(
            f"readout: expected one that gives one answer, such as Argmax() or Sampled(1), got {readout!r}"
        )
    if order not in ORDERS:
        raise ValueError(f"order: expected one of {', '.join(ORDERS)}, got {order!r}; a question is asked once")
    if not questions or len(conditions) < 2:
        raise ValueError("expected one question or more, and one region or more; there is nothing to compare")
    if len({q.id for q in questions}) < len(questions):
        raise ValueError("questions: expected ids that differ; load_questions gives them new ones")
    for region, condition in conditions.items():
        check_kinds({f"condition of {region or 'nobody'}": (condition, Condition)})
        if replace(condition, system=None, name="") != Condition():
            raise ValueError(
                f"condition of {region or 'nobody'}: expected a system text alone, so that an adapter can be trained "
                f"under it; got {condition.name}"
            )


def _room(lm: LM, systems: Sequence[str | None]) -> int | None:
    """Tokens that the context leaves for a question asked without a system text, if the longest one is to fit too."""
    context = lm.context
    alone, *told = (len(token_ids(lm.tokenizer, "".join(render(lm.tokenizer, "?", s)))) for s in (None, *systems))
    return context - 1 - (max(told) - alone) if context else None


def name_left_out(left_out: Mapping[str, str], total: int) -> None:
    """Say which questions of how many cannot be asked, and why the first ones."""
    if left_out:
        why = "; ".join(list(left_out.values())[:2])
        _log.warning("%d of %d questions cannot be asked of this model and are left out: %s (%s)",
                     len(left_out), total, listed(left_out, 6), why)  # fmt: skip


def unasked(lm: LM, questions: Sequence[Question], systems: Sequence[str | None], order: str) -> dict[str, str]:
    """Ids of questions that the model cannot be asked under all these texts → why."""
    room = _room(lm, systems)
    found: dict[str, str] = {}
    for part in batches(questions, 64):
        found |= unasked_items(lm.tokenizer, as_survey(part), "late", order, room)
    return found


def _asked(
    lm: LM,
    part: Sequence[Question],
    conditions: Mapping[str, Condition],
    readout: Readout,
    order: str,
    room: int | None,
) -> tuple[list[Row], int]:
    """A batch's lines, and their cost."""
    left_out = unasked_items(lm.tokenizer, as_survey(part), "late", order, room)
    rows: list[Row] = [{"question": name, "left_out": why} for name, why in left_out.items()]
    kept = [q for q in part if q.id not in left_out]
    tokens = 0
    if not kept:
        return rows, tokens
    survey = as_survey(kept)
    for region, condition in conditions.items():
        responses = administer(survey, lm, condition, order, readout=readout)
        if responses.answers is None or len(responses.answers) != 1:
            raise ValueError(f"readout: expected one that gives one answer per question, got {readout!r}")
        tokens += responses.forward_tokens
        for i, question in enumerate(kept):
            chosen = int(responses.answers[0, i])
            text = {} if chosen >= 0 or responses.texts is None else {"text": responses.texts[0][i]}
            rows.append(
                {"question": question.id, "region": region, "answer": chosen + 1 if chosen >= 0 else None, **text}
            )
    return rows, tokens


def _seeded(readout: Readout, number: int) -> Any:
    """The read-out with random draws of this batch's own."""
    seed = getattr(readout, "seed", None)
    if seed is None:
        return readout
    return replace(readout, seed=int(stream([seed, number]).integers(2**31)))  # type: ignore[type-var]
