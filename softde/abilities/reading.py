"""Files of multiple-choice questions: CulturalBench, MMLU in its several layouts, and any table with named columns."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from softde.files import expanded
from softde.surveys.loaders import read_text
from softde.surveys.values import FrozenDict, listed

KINDS = (".csv", ".tsv", ".jsonl", ".json")
LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Columns:
    """Where a file has what; upper and lower case do not matter.

    options : a column each, or one column that holds a list. proposal : instead, the column of an answer that is judged
    right or wrong; `answer` then says which it is. subject : for sub-scores. group : rows that are one question.
    """

    question: str
    options: tuple[str, ...] = ()
    answer: str = "answer"
    subject: str = ""
    group: str = ""
    proposal: str = ""

    def __post_init__(self) -> None:
        given: Any = self.options
        object.__setattr__(self, "options", (given,) if isinstance(given, str) else tuple(given))
        if bool(self.options) == bool(self.proposal):
            raise ValueError(
                "columns: expected options=, the columns of the options, or proposal=, that of an answer to be judged; "
                f"got {'both' if self.options else 'neither'}"
            )

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that a file must have."""
        found = (self.question, *self.options, self.proposal, self.answer, self.group)
        return tuple(name for name in found if name)

    def found_in(self, header: Sequence[str]) -> Columns | None:
        """The same in the header's own spelling; None if a needed column is not there."""
        own = {name.casefold(): name for name in reversed(header)}
        if any(name.casefold() not in own for name in self.needed):
            return None
        spelt = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in spelt.items():
            if isinstance(value, tuple):
                spelt[name] = tuple(own[one.casefold()] for one in value)
            else:
                spelt[name] = own.get(value.casefold(), "")
        return Columns(**spelt)


# Column names as the data sets' cards and loaders give them: kellycyy/CulturalBench (data_idx, question_idx, ...,
# answer, country), cais/mmlu, TIGER-Lab/MMLU-Pro, CohereForAI/Global-MMLU, simple-evals' mmlu.csv.
HARD = Columns("prompt_question", (), "answer", "country", "question_idx", "prompt_option")
LAYOUTS = (
    Columns("prompt_question", tuple(f"prompt_option_{letter}" for letter in "abcd"), "answer", "country"),
    HARD,
    Columns("question", ("choices",), "answer", "subject"),
    Columns("question", ("options",), "answer", "category"),
    Columns("question", tuple(f"option_{letter}" for letter in "abcd"), "answer", "subject"),
    Columns("question", tuple("ABCD"), "answer", "subject"),
)


@dataclass(frozen=True)
class Row:
    """One row of a file: where it stands, its cells by column, and what is wrong with it, if anything."""

    where: str
    cells: Mapping[str, Any]
    fault: str = ""


def read_rows(path: str | os.PathLike[str], columns: Columns | None = None) -> tuple[Columns, list[Row]]:
    """The columns as the file spells them, and its rows.

    Raises
    ------
    ValueError
        No file of a known kind, or none with these columns (any known layout, if none are given).
    """
    place = expanded(os.fspath(path))
    kind = place.suffix.lower()
    if kind not in KINDS:
        raise ValueError(f"{place.name}: expected questions in a {listed(KINDS)} file; save them as one of these")
    text = read_text(place)
    if not text.strip():
        raise ValueError(f"{place.name}: expected questions, got an empty file")
    if kind in (".csv", ".tsv"):
        try:
            return _table(text, columns, place)
        except csv.Error as error:
            raise ValueError(f"{place.name}: no table ({error}); check its quotation marks") from None
    rows = _lines(text) if kind == ".jsonl" else _document(text, place)
    return _located(columns, list(dict.fromkeys(key for row in rows for key in row.cells)), place), rows


def _located(columns: Columns | None, header: Sequence[str], place: Path) -> Columns:
    for layout in (columns,) if columns else LAYOUTS:
        if found := layout.found_in(header):
            return found
    if columns is None:
        raise ValueError(
            f"{place.name}: expected the columns of CulturalBench or MMLU, such as question, choices, answer, got "
            f"{listed(header) or 'none'}; name yours with columns=softde.abilities.Columns(question, options, answer)"
        )
    missing = [name for name in columns.needed if name.casefold() not in [h.casefold() for h in header]]
    raise ValueError(f"{place.name}: expected a column {listed(missing)}, got {listed(header) or 'none'}")


def _table(text: str, columns: Columns | None, place: Path) -> tuple[Columns, list[Row]]:
    """A CSV with a header; or without one, as MMLU first came: question, options, letter of the answer."""
    for delimiter in ",;\t":
        first = [cell.strip() for cell in next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])]
        for layout in (columns,) if columns else LAYOUTS:
            if found := layout.found_in(first):
                return found, _cells(text, delimiter, first, skip=1)
        letters = LETTERS[: len(first) - 2]
        if columns is None and len(letters) >= 2 and first[-1] in letters:
            bare = Columns("question", tuple(letters), "answer")
            return bare, _cells(text, delimiter, ("question", *letters, "answer"), skip=0)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    return _located(columns, [cell.strip() for cell in header], place), []


def _cells(text: str, delimiter: str, header: Sequence[str], skip: int) -> list[Row]:
    reader, rows, start = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [], 1
    for number, cells in enumerate(reader):
        where, start = f"line {start}", reader.line_num + 1
        if number < skip or not any(cell.strip() for cell in cells):
            continue
        fault = "" if len(cells) == len(header) else f"expected {len(header)} cells, got {len(cells)}"
        rows.append(Row(where, FrozenDict(zip(header, (cell.strip() for cell in cells), strict=False)), fault))
    return rows


def _lines(text: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(_record(f"line {number}", json.loads(line)))
            except (ValueError, RecursionError) as error:
                rows.append(Row(f"line {number}", {}, f"not JSON ({error})"))
    return rows


def _document(text: str, place: Path) -> list[Row]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place.name}: not JSON ({error}); check it there") from None
    if not isinstance(found, list):
        raise ValueError(f"{place.name}: expected a list of questions, got {type(found).__name__}")
    return [_record(f"row {number}", one) for number, one in enumerate(found, start=1)]


def _record(where: str, value: Any) -> Row:
    if isinstance(value, dict):
        return Row(where, value)
    return Row(where, {}, f"expected an object with a question, got {value!r:.40}")


def folder_files(folder: Path) -> Iterator[Path]:
    """The files of a folder that can hold questions, by name.

    Raises
    ------
    ValueError
        There are none.
    """
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in KINDS)
    if not found:
        raise ValueError(f"folder {str(folder)!r}: expected {listed(KINDS)} files with questions, got none")
    yield from found
