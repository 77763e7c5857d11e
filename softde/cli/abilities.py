"""``softde abilities``: multiple-choice questions before and under a condition."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from softde.cli.compare import prompt_names
from softde.cli.loading import load_recorded, read_prompt
from softde.cli.options import Device, Dtype, Orders, Revision
from softde.cli.printing import filled, say
from softde.files import expanded

if TYPE_CHECKING:
    from softde.abilities import Abilities, Columns, Quiz
    from softde.condition import Condition
    from softde.prompt import SoftPrompt

SHOWN = 5  # rows that are left out

Answers = Literal["letter", "text", "zero", "one"]


def abilities(
    files: Annotated[
        list[Path],
        typer.Argument(help="Questions: CulturalBench's or MMLU's .csv, .jsonl, .json, or a folder of them."),
    ],
    prompt: Annotated[
        list[Path] | None, typer.Option("--prompt", help="A soft prompt's file or run folder; may be repeated.")
    ] = None,
    system: Annotated[str | None, typer.Option(help='A system text to try, such as "You are from Kenya."')] = None,
    adapter: Annotated[
        list[Path] | None, typer.Option("--adapter", help="Folder of a LoRA adapter; may be repeated.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model to ask. [default: the first prompt's, else tiny]")] = None,
    orders: Orders = "both",
    question: Annotated[str, typer.Option(help="Column of the question, in a file of your own.")] = "",
    options: Annotated[str, typer.Option(help="Column with a list of options, or several with commas: A,B,C,D.")] = "",
    answer: Annotated[str, typer.Option(help="Column of the right answer.")] = "answer",
    subject: Annotated[str, typer.Option(help="Column of the subject, for --by-subject.")] = "subject",
    answers: Annotated[
        Answers | None,
        typer.Option(help="What the answer column holds; numbers from zero or one. [default: found out]"),
    ] = None,
    limit: Annotated[int, typer.Option(help="Ask the first so many questions of each file; 0 for all.", min=0)] = 0,
    by_subject: Annotated[bool, typer.Option("--by-subject", help="Print accuracy by subject or country too.")] = False,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A .jsonl file that answers are added to; the same command goes on with it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the table: .csv, .parquet or .md.")] = None,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Score a model on multiple-choice questions, as it is and under soft prompts, adapters or a system text.

    \b
    Example:  softde abilities CulturalBench-Easy.csv CulturalBench-Hard.csv --prompt runs/india
    """
    for name, place in (("out", out), ("checkpoint", checkpoint)):
        if place is not None and not expanded(place).parent.is_dir():
            raise ValueError(f"--{name}: the folder {expanded(place).parent} does not exist; make it first")
    columns = _columns(question, options, answer, subject)
    quizzes = [_quiz(expanded(file), columns, answers, limit) for file in files]
    prompts = {path: read_prompt(path) for path in map(expanded, prompt or ())}
    conditions = _conditions(prompts, system, [expanded(folder) for folder in adapter or ()])

    from softde.abilities import abilities as ask

    lm = load_recorded(model, list(prompts.values()), dtype, device, revision)
    found = ask(lm, quizzes, conditions, orders, checkpoint=checkpoint)
    print(found)
    if by_subject:
        print(f"\n{_subjects(found)}")
    if out is not None:
        found.save(out)
        say(f"softde: the table is in {out}")


def _columns(question: str, options: str, answer: str, subject: str) -> Columns | None:
    """The columns of a file of one's own; None for the layouts that are known."""
    from softde.abilities import Columns

    if not question and not options:
        if (answer, subject) != ("answer", "subject"):
            raise ValueError("--answer, --subject: they go with --question and --options, which say where the rest is")
        return None
    if not question or not options:
        raise ValueError("--question, --options: a file of your own needs both, such as --question q --options A,B,C,D")
    return Columns(question, tuple(name.strip() for name in options.split(",")), answer, subject)


def _quiz(file: Path, columns: Columns | None, answers: Answers | None, limit: int) -> Quiz:
    from softde.abilities import by_letter, by_text, from_one, from_zero, load_quiz

    keys = {"letter": by_letter, "text": by_text, "zero": from_zero, "one": from_one}
    quiz = load_quiz(file, columns, None if answers is None else keys[answers])
    for row in quiz.left_out[:SHOWN]:
        say(filled(f"softde: note: {file.name}: {row}"))
    if len(quiz.left_out) > SHOWN:
        say(f"softde: note: {file.name}: {len(quiz.left_out) - SHOWN} more rows are left out")
    return quiz.first(limit) if limit else quiz


def _conditions(prompts: Mapping[Path, SoftPrompt], system: str | None, adapters: list[Path]) -> list[Condition]:
    """The unprompted model first, with which all others are compared."""
    from softde.condition import Condition

    found = [Condition()] + [Condition(system)] * (system is not None)
    found += [Condition(prompt=p, name=name) for name, p in zip(prompt_names(prompts), prompts.values(), strict=True)]
    return found + [Condition(adapter=folder, name=folder.name) for folder in adapters]


def _subjects(found: Abilities) -> str:
    """A line per quiz and subject, a column of accuracy per condition."""
    from softde.report import table

    cells: dict[tuple[str, str, str], list[str]] = {}
    for record in found.by_subject():
        row: tuple[Any, ...] = (record["quiz"], record["subject"] or "(none)", f"{record['questions']:,}")
        low, high = 100 * record["accuracy_low"], 100 * record["accuracy_high"]
        cells.setdefault(row, []).append(f"{100 * record['accuracy']:.1f} [{low:.1f}, {high:.1f}]")
    heads = ["quiz", "subject", "questions", *found.conditions]
    return table(heads, [[*row, *shares] for row, shares in cells.items()], right=range(2, len(heads)))
