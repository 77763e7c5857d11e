"""`abilities`: what a model can do, before and under each condition, on the same questions."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softde.abilities.asking import ask, read_checkpoint, size
from softde.abilities.quiz import Quiz
from softde.abilities.scoring import adjusted, compared
from softde.abilities.table import Abilities
from softde.checks import check_kinds, shown
from softde.condition import Condition, Panel, as_condition, members, unique_names
from softde.files import expanded
from softde.lm import LM
from softde.lm.adapter import check_adapter
from softde.lm.layout import ORDERS
from softde.progress import INTERVAL, clock
from softde.readouts import Expected, Readout, check_readout
from softde.surveys import Item

if TYPE_CHECKING:
    from softde.align import Result
    from softde.prompt import SoftPrompt

Asked = Condition | Panel
Tell = Callable[[Sequence[Item], bool], None]


def abilities(
    lm: LM,
    quizzes: Quiz | Sequence[Quiz],
    conditions: Sequence[Condition | Panel | SoftPrompt | Result] | Condition | Panel | SoftPrompt | Result = (),
    orders: str = "both",
    readout: Readout = Expected(),  # noqa: B008 (a frozen value)
    checkpoint: str | Path | None = None,
    progress: bool = True,
    confidence: float = 0.95,
    seed: int = 0,
) -> Abilities:
    """Ask quizzes of a model under each condition and compare all with the first one.

    Parameters
    ----------
    conditions : as in `compare`: conditions, soft prompts, results of searches. The first is what the others are
        compared with, `Condition()` for the unprompted model; without any, that alone is asked.
    orders : "both" lists the options forward and reversed and averages; "forward" as the file has them, once, which is
        how benchmarks are usually asked.
    readout : `Expected()` takes the option of the highest probability. Of single answers, such as `Argmax()` or
        `Generated()`, a question is right if the right option is given most often: with two orders, in both.
    checkpoint : a .jsonl file that answers are added to as they come; the same call goes on where it was.
    confidence, seed : of the intervals.

    Returns
    -------
    Abilities. Questions with an item that the model cannot be asked under one of the conditions are left out for all.

    Raises
    ------
    ValueError
        Another kind of object; a prompt or adapter of another model; a checkpoint of something else; no question that
        the model can be asked under all conditions.
    """
    asked, tested = _conditions(conditions), _quizzes(quizzes)
    check_kinds({"lm": (lm, LM)})
    check_readout(readout)
    if orders not in ORDERS:
        raise ValueError(f"orders: expected one of {', '.join(ORDERS)}, got {orders!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence!r}")
    for member in (one for condition in asked for one in members(condition)):
        if member.prompt is not None:
            member.prompt.check_model(lm)
        if member.adapter is not None:
            check_adapter(lm, member.adapter)
    path = None if checkpoint is None else expanded(checkpoint)
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"checkpoint: the folder {path.parent} does not exist; make it first")
    known = {} if path is None else read_checkpoint(path)
    work = [(quiz, condition) for quiz in tested for condition in asked]
    tell = _teller(work) if progress else lambda *_: lambda _, __: None
    sheets = [ask(lm, q, c, orders, readout, path, known, tell(q, c)) for q, c in work]
    names = unique_names(asked)
    by_quiz = [tuple(sheets[at : at + len(asked)]) for at in range(0, len(sheets), len(asked))]
    rows = [row for found in by_quiz for row in compared(found, names, confidence, seed)]
    return Abilities(lm.name, orders, tuple(names), tuple(by_quiz), tuple(adjusted(rows)), confidence)


def _conditions(given: Any) -> list[Asked]:
    several = isinstance(given, Sequence) and not isinstance(given, str)
    found = [as_condition(one, "conditions") for one in (given if several else [given])]
    return found or [Condition()]


def _quizzes(given: Any) -> list[Quiz]:
    found = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    for one in found:
        if not isinstance(one, Quiz):
            raise ValueError(f"quizzes: expected Quiz, got {shown(one)}; softde.abilities.load_quiz reads one")
    if not found:
        raise ValueError("quizzes: expected one or more, got none; softde.abilities.load_quiz reads one")
    twice = [quiz.name for i, quiz in enumerate(found) if quiz.name in [q.name for q in found[:i]]]
    if twice:
        raise ValueError(f"quizzes: two are named {twice[0]!r}; give one another name, load_quiz(..., name=...)")
    return found


def _teller(work: Sequence[tuple[Quiz, Asked]]) -> Callable[[Quiz, Asked], Tell]:
    """Says on standard error how far it is, every few seconds; the time left by bytes of text."""
    total = sum(size(item) for quiz, _ in work for item in quiz.survey.items)
    state = {"done": 0.0, "asked": 0.0, "begun": time.monotonic(), "said": -math.inf}

    def of(quiz: Quiz, condition: Asked) -> Tell:
        items = {"done": 0}

        def tell(part: Sequence[Item], new: bool) -> None:
            state["done"] += sum(map(size, part))
            state["asked"] += sum(map(size, part)) * new
            items["done"] += len(part)
            now, last = time.monotonic(), items["done"] == len(quiz.survey.items)
            if now - state["said"] < INTERVAL and not (last and new):
                return
            state["said"] = now
            rate = state["asked"] / max(now - state["begun"], 1e-9)
            left = f", {clock((total - state['done']) / rate)} left" if rate else ""
            far = f"{items['done']:,} of {len(quiz.survey.items):,} items"
            sys.stderr.write(f"{quiz.name}, {condition.name}: {far}{left}\n")
            sys.stderr.flush()

        return tell

    return of
