"""`load_quiz`: a file or folder of multiple-choice questions as a `Quiz`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softde.abilities.keys import Key, key_of, option_texts, truth
from softde.abilities.quiz import INSTRUCTION, Quiz, make_quiz, quiz_item
from softde.abilities.reading import Columns, Row, folder_files, read_rows
from softde.files import expanded
from softde.surveys import Item

JUDGEMENT = "{question}\nProposed answer: {option}\nIs the proposed answer right?"
JUDGED = ("yes", "no")
PLACES = ("{question}", "{option}")
SPLITS = ("_test", "_val", "_dev", "_train")  # ends of MMLU's file names, behind the subject


@dataclass(frozen=True)
class Found:
    """One row as an item; or, in `fault`, why it is none."""

    where: str
    group: str  # empty where the row does not say
    item: Item | None = None
    fault: str = ""


def load_quiz(
    path: str | os.PathLike[str],
    columns: Columns | None = None,
    answers: Key | None = None,
    name: str | None = None,
    instruction: str = INSTRUCTION,
    judgement: str = JUDGEMENT,
) -> Quiz:
    """A .csv, .tsv, .jsonl or .json file, or a folder of such files, as a quiz.

    Known by their columns: CulturalBench-Easy and -Hard (of a Hard question's four judgements all must be right),
    MMLU with a list of choices, with a column per option, or without a header, MMLU-Pro, Global-MMLU.

    Parameters
    ----------
    columns : where the file has what, for any other file.
    answers : how the right option is given: `by_letter`, `by_text`, `from_zero` or `from_one`. By default, the one that
        reads the most rows.
    name : of the quiz; by default that of the file.
    instruction : what follows the options. judgement : how a proposed answer is put, with {question} and {option}.

    Returns
    -------
    Quiz. Rows that are no question (no JSON, options twice, no right option) are named in `left_out`, and the rest is
    kept; where one of a question's judgements is such a row, the question is left out.

    Raises
    ------
    ValueError
        No such file, columns that it lacks, answers that can be read in two ways, or no question left.
    """
    place = expanded(os.fspath(path))
    if missing := [word for word in PLACES if word not in judgement]:
        raise ValueError(f"judgement: expected a text with the place {missing[0]!r}, got {judgement!r}; add it")
    found: list[Found] = []
    if place.is_dir():
        for file in folder_files(place):
            found += _items(file, columns, answers, judgement, prefix=f"{_subject(file)} ")
    else:
        found = list(_items(place, columns, answers, judgement))
    kept, left_out = _whole_questions(found)
    if not kept:
        first = f"; the first row: {left_out[0]}" if left_out else ""
        raise ValueError(f"{place.name}: no row is a question with one right option{first}")
    items, groups = [one.item for one in kept if one.item is not None], [one.group for one in kept]
    return make_quiz(name or place.stem or place.name, items, groups, left_out, instruction)


def _items(
    file: Path, columns: Columns | None, answers: Key | None, judgement: str, prefix: str = ""
) -> Iterator[Found]:
    """The rows of one file as items, or what is wrong with them."""
    layout, rows = read_rows(file, columns)
    texts = [_option_texts(row, layout) for row in rows]
    if not layout.proposal and answers is None:
        readable = [
            (row.cells.get(layout.answer), one)
            for row, one in zip(rows, texts, strict=True)
            if isinstance(one, list) and not row.fault
        ]
        try:
            answers = key_of(readable, layout.answer)
        except ValueError as error:
            raise ValueError(f"{file.name}: {error}") from None
    for row, given in zip(rows, texts, strict=True):
        where = f"{prefix}{row.where.removeprefix('line ').removeprefix('row ')}"
        group = _group(row, layout, prefix) if layout.group else where
        try:
            if row.fault or isinstance(given, str):
                raise ValueError(row.fault or given)
            if not group:
                raise ValueError(f"column {layout.group!r}: expected the question that is judged, got none")
            item = _item(where, row, layout, given, answers, judgement, _subject(file) if prefix else "")
            yield Found(f"{prefix}{row.where}", group, item)
        except ValueError as error:
            yield Found(f"{prefix}{row.where}", group, None, str(error))


def _group(row: Row, layout: Columns, prefix: str) -> str:
    """The question that a row judges; empty if it does not say."""
    cell = row.cells.get(layout.group)
    return "" if cell is None or not str(cell).strip() else f"{prefix}{cell}"


def _option_texts(row: Row, layout: Columns) -> list[str] | str:
    """The texts of a row's options, or what is wrong with them."""
    if layout.proposal:
        return list(JUDGED)
    try:
        return option_texts([row.cells.get(name) for name in layout.options])
    except ValueError as error:
        return str(error)


def _item(
    name: str, row: Row, layout: Columns, texts: list[str], answers: Key | None, judgement: str, subject: str
) -> Item:
    cell = row.cells.get(layout.answer)
    right = truth(cell) if answers is None else answers(cell, texts)
    if right is None:
        expected = "TRUE or FALSE" if answers is None else f"one of {len(texts)} options"
        raise ValueError(f"column {layout.answer!r}: expected {expected}, got {cell!r:.40}")
    question = _text(row, layout.question)
    if layout.proposal:
        parts = {"{question}": question, "{option}": _text(row, layout.proposal)}
        question = _filled(judgement, parts)
    return quiz_item(name, question, texts, right, str(row.cells.get(layout.subject) or subject))


def _filled(template: str, parts: dict[str, str]) -> str:
    """A template with its places filled; braces in what fills them stay as they are."""
    before, _, after = template.partition(PLACES[0])
    return parts[PLACES[0]].join(piece.replace(PLACES[1], parts[PLACES[1]]) for piece in (before, after))


def _text(row: Row, column: str) -> str:
    cell: Any = row.cells.get(column)
    if not isinstance(cell, str) or not cell.strip():
        raise ValueError(f"column {column!r}: expected a text, got {cell!r}")
    return cell.strip()


def _subject(file: Path) -> str:
    """MMLU's subject from a file's name."""
    stem = file.stem
    for split in SPLITS:
        stem = stem.removesuffix(split)
    return stem


def _whole_questions(found: list[Found]) -> tuple[list[Found], list[str]]:
    """Rows of questions that lack none, and a sentence for each row that is not.

    Where a broken row does not say which question it is of, those with fewer rows than the others lack it.
    """
    broken: dict[str, str] = {}
    for one in found:
        if one.fault:
            broken.setdefault(one.group, one.where)
    if "" in broken:
        rows = Counter(one.group for one in found if one.group)
        most = max(rows.values(), default=0)
        broken = {**{group: broken[""] for group, count in rows.items() if count < most}, **broken}
    left_out = [
        f"{one.where}: {one.fault or f'its question lacks {broken[one.group]}'}; left out"
        for one in found
        if one.group in broken
    ]
    return [one for one in found if one.group not in broken], left_out
