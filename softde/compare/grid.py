"""compare_methods: every method's condition for every region and seed, on every exam, in one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softde.checks import check_kinds, number
from softde.compare.entries import Entry, Exam, checked
from softde.compare.measure import Record, across, null_rows, rows_of
from softde.compare.one import check_fit
from softde.compare.paper import Paper, paper_of
from softde.compare.sheets import (
    Questions,
    Sheet,
    append_sheet,
    ask,
    condition_identity,
    model_identity,
    read_sheets,
)
from softde.compare.table import MethodTable
from softde.condition import members
from softde.lm import LM
from softde.progress import clock, printer
from softde.surveys.scoring import Array

Report = bool | Callable[["Step"], None]


@dataclass(frozen=True, eq=False)
class Sitting:
    """An entry that takes an exam, with the keys of its sheets."""

    paper: Paper
    entry: Entry
    keys: tuple[str, ...]


Job = tuple[str, Questions, Sitting]  # key of a sheet, what is asked, and one who needs it


def compare_methods(
    lm: LM,
    exams: Exam | Sequence[Exam],
    entries: Iterable[Entry],
    *,
    checkpoint: str | Path | None = None,
    progress: Report = True,
    confidence: float = 0.95,
) -> MethodTable:
    """Ask every exam under every condition and set methods side by side, with nulls, floors and intervals.

    docs/compare.md says what every number is.

    Parameters
    ----------
    exams : surveys as they are asked and scored; several may share questions, which are asked once.
    entries : a method's conditions: one per region and seed, or one for every region. Conditions with the same content
        are asked once.
    checkpoint : a folder for answers.jsonl, a line per wording, order and condition; the same call goes on where it was
        interrupted. Answers are known by the content of model, questions and condition (prompts by their numbers,
        adapters by their weights), so that other targets, losses or human answers ask nothing again, and an answer of
        another model, survey or condition is never taken.
    progress : print to standard error, or a function called with every `Step`.
    confidence : of the intervals of a table's summary and tests.

    Raises
    ------
    ValueError
        Bad input, before anything is asked: see `Exam`; two entries for one method, region and seed; an entry for a
        region of no exam; a prompt or an adapter of another model; an item that is too long.
    """
    check_kinds({"lm": (lm, LM)})
    chosen, found = checked(exams, entries)
    number(confidence, "confidence, a level between 0 and 1", lambda level: 0 < level < 1)
    check_fit(lm, (entry.condition for entry in found))
    papers = [paper_of(lm, exam, found) for exam in chosen]
    trivial = [list(null_rows(paper)) for paper in papers]
    _check_names(found, trivial)
    sheets = read_sheets(checkpoint)
    sittings = list(_sittings(model_identity(lm), papers, found))
    jobs = {key: (key, asked, one) for one in sittings for key, asked in zip(one.keys, one.paper.sheets, strict=True)}
    missing = [job for key, job in jobs.items() if key not in sheets]
    for _, asked, one in missing:
        for member in members(one.entry.condition):  # refuses what cannot be asked
            lm.plan(asked.survey, member.system, member.placement, asked.order, examples=member.examples)
    for key, sheet in _asked(lm, missing, len(jobs), checkpoint, progress):
        sheets[key] = sheet
    rows: list[Record] = []
    together: list[Record] = []
    for paper, others in zip(papers, trivial, strict=True):
        scored, joint = _scored([one for one in sittings if one.paper is paper], sheets)
        rows += [*scored, *others]
        together += joint
    blank = dict.fromkeys((name for row in rows for name in row if name.startswith("score_")), float("nan"))
    whole = tuple({"model": lm.name, **row, **blank, **row} for row in rows)
    return MethodTable(lm.name, chosen, whole, tuple(together), confidence)


def _check_names(entries: Iterable[Entry], trivial: Iterable[Iterable[Record]]) -> None:
    taken = {row["method"] for rows in trivial for row in rows}
    for entry in entries:
        if entry.method in taken:
            raise ValueError(f"method {entry.method!r} is what the table calls a trivial answerer; choose another name")


def _sittings(model: str, papers: Iterable[Paper], entries: Sequence[Entry]) -> Iterator[Sitting]:
    held = [condition_identity(entry.condition) for entry in entries]
    for paper in papers:
        for entry, condition in zip(entries, held, strict=True):
            if entry.is_for(paper.exam, paper.regions):
                yield Sitting(paper, entry, tuple(asked.key(model, condition) for asked in paper.sheets))


def _scored(sittings: Iterable[Sitting], sheets: Mapping[str, Sheet]) -> tuple[list[Record], list[Record]]:
    """Rows of one exam's conditions, and one record per method and seed of what its regions say together."""
    rows: list[Record] = []
    answers: dict[tuple[str, int], dict[str, Array]] = {}
    for one in sittings:
        paper = one.paper
        for row, given in rows_of(paper, one.entry, [sheets[key] for key in one.keys]):
            rows.append(row)
            answers.setdefault((one.entry.method, one.entry.seed), {})[row["region"]] = given
    return rows, [across(paper, method, seed, given) for (method, seed), given in answers.items()]


@dataclass(frozen=True)
class Step:
    """A line of progress, in the form that `softde.progress.printer` shows."""

    text: str
    last: bool = False
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text


def _asked(
    lm: LM, jobs: Sequence[Job], total: int, checkpoint: str | Path | None, progress: Report
) -> Iterator[tuple[str, Sheet]]:
    """Ask what is not known yet; each answer is written down before the next question."""
    show: Any = progress if callable(progress) else printer() if progress else str
    start, known = time.monotonic(), total - len(jobs)
    for done, (key, asked, one) in enumerate(jobs):
        exam, entry = one.paper.exam, one.entry
        left = f", {clock((time.monotonic() - start) / done * (len(jobs) - done))} left" if done else ""
        show(Step(f"{known + done + 1}/{total}  {exam.name}: {entry.name}, {asked.order}{left}"))
        sheet = ask(lm, asked, entry.condition)
        if checkpoint is not None:
            about = {"model": lm.name, "exam": exam.name, "method": entry.method, "region": entry.region}
            append_sheet(checkpoint, key, {**about, "seed": entry.seed}, asked, sheet)
        yield key, sheet
    if jobs:
        also = f", {known} were known" if known else ""
        show(Step(f"{total}/{total}  asked {len(jobs)} sheets in {clock(time.monotonic() - start)}{also}", last=True))
