"""One runner for all designs: steps in order, each asked what it found at once, and one table at the end."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from softde.abilities import Abilities, abilities
from softde.compare import Entry, MethodTable, compare_methods
from softde.condition import Condition, Panel
from softde.files import write_file
from softde.progress import clock
from softde.reproduce.outcome import Outcome, row_name
from softde.reproduce.planning import Plan, check_room
from softde.reproduce.records import note_step, open_folder
from softde.reproduce.study import Step, Study, quizzed

ANSWERS, QUIZZES, PLAN = "answers", "quizzes.jsonl", "plan.txt"

Tell = Callable[[int, str], None]


def run(study: Study, plan: Plan | None = None, progress: bool = True) -> Outcome:
    """Do the steps of a study, or what is left of them, and set all that they found side by side.

    Every step leaves what it made in the study's folder as it goes: searches after each generation, files batch by
    batch, answers sheet by sheet. The same call goes on where the last one was interrupted. At the end the folder has
    the table as table.md and rows.csv, and as rows.parquet where pyarrow is there.

    plan : of `plan(study)`, to say how much time is left. progress : print to standard error.

    Raises
    ------
    ValueError
        A folder of another design, or an item that its examples make longer than the model reads, before anything is
        asked; or what only a step can tell, and all that was made before is kept.
    """
    check_room(study)
    open_folder(study)
    if plan is not None:
        write_file(study.folder / PLAN, f"{plan}\n".encode())
    tell = _teller(study, plan) if progress else lambda *_: None
    entries: list[Entry] = []
    for number, step in enumerate(study.steps):
        tell(number, "")
        began = time.monotonic()
        made = step.run(progress)
        table = asked(study, made.entries)
        sheets = quizzed_sheets(study, made.entries, progress)
        note_step(study, step, made, _tokens(made.entries, table, sheets), time.monotonic() - began)
        tell(number, _told(step, table))
        entries += made.entries
    whole = asked(study, entries)
    if whole is None:
        raise ValueError(f"{study.name}: the steps found nothing to ask; docs/reproduce.md says what each leaves")
    outcome = Outcome(study, tuple(entries), whole, quizzed_sheets(study, entries, progress=False))
    outcome.save()
    return outcome


def asked(study: Study, entries: Sequence[Entry]) -> MethodTable | None:
    """The exams of some entries; what is in the folder already is not asked again."""
    exams = study.exams_of(entries)
    if not exams:
        return None
    return compare_methods(study.lm, exams, entries, checkpoint=study.folder / ANSWERS, progress=False)


def quizzed_sheets(study: Study, entries: Sequence[Entry], progress: bool) -> Abilities | None:
    """The quizzes of some entries, likewise; None without any."""
    conditions = [_named(entry) for entry in entries if quizzed(entry)]
    if not study.quizzes or not conditions:
        return None
    place = study.folder / QUIZZES
    return abilities(study.lm, study.quizzes, conditions, checkpoint=place, progress=progress)


def _named(entry: Entry) -> Condition | Panel:
    """Its condition, by the name that its row has; the unprompted model keeps its own."""
    if isinstance(entry.condition, Condition) and entry.condition == Condition():
        return entry.condition
    return replace(entry.condition, name=row_name(entry))


def _tokens(entries: Sequence[Entry], table: MethodTable | None, quizzes: Abilities | None) -> float:
    """Asked of entries, in exams and quizzes; one for every region has a row for each, and was asked once."""
    found = sum(sheet.forward_tokens for sheets in quizzes.sheets for sheet in sheets) if quizzes else 0
    rows = [row for row in table.rows if row["kind"] == "condition"] if table else []
    for exam in dict.fromkeys(row["exam"] for row in rows):
        for entry in entries:
            mine = [
                row for row in rows if (row["exam"], row["method"], row["seed"]) == (exam, entry.method, entry.seed)
            ]
            of_region = [row["asked_tokens"] for row in mine if entry.region in (None, row["region"])]
            found += of_region[0] if of_region else 0
    return float(found)


def _told(step: Step, table: MethodTable | None) -> str:
    """The mean loss of what a step found, by exam."""
    if table is None:
        return "left out, since too few answers changed" if step.like else "made"
    losses = {exam.name: [r["loss"] for r in table.rows if r["kind"] == "condition" and r["exam"] == exam.name]
              for exam in table.exams}  # fmt: skip
    return "; ".join(f"{name}: loss {np.mean(values):.4g}" for name, values in losses.items())


def _teller(study: Study, plan: Plan | None) -> Tell:
    """Says which step begins, and how a step ended; what is left by the plan's hours."""
    total = len(study.steps)

    def tell(number: int, ended: str) -> None:
        text = f"step {number + 1} of {total}: {study.steps[number].name}"
        if not ended and study.steps[number].work is None:
            return
        if ended:
            after = [] if plan is None else [line.seconds for line in plan.lines[number + 1 :] if not line.done]
            left = sum(after) if after else math.nan
            text += f": {ended}" + ("" if math.isnan(left) else f"; about {clock(left)} left")
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    return tell
