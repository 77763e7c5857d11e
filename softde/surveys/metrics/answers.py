"""Answer sheets: what a respondent or a model answered to each item, from a mapping, records or a file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from softde.files import expanded
from softde.surveys.csvfile import cell_reader
from softde.surveys.loaders import read_text
from softde.surveys.values import FrozenDict, listed

Answer: TypeAlias = str | float | None
Record: TypeAlias = Mapping[str, Any]
AnswersLike: TypeAlias = Mapping[str, Answer] | Sequence[Record]
Row: TypeAlias = tuple[str, Any]  # where it stands, and what stands there

ITEM_KEYS = ("item", "Q_id", "q_id", "id", "item_id")
ANSWER_KEYS = ("answer", "response", "text")
RESPONDENT = "respondent"


@dataclass(frozen=True)
class AnswerSheet(Mapping[str, Answer]):
    """Item id → answer, as a text or a number; `left_out` says which rows were not usable, one sentence each."""

    answers: Mapping[str, Answer]
    left_out: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "answers", FrozenDict(self.answers))

    def __getitem__(self, item: str) -> Answer:
        return self.answers[item]

    def __iter__(self) -> Iterator[str]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)


def answer_sheet(given: AnswersLike) -> AnswerSheet:
    """A mapping from item id to answer, or records with an item and an answer each, as an `AnswerSheet`.

    A record names its item under "item", "Q_id" or "id" and its answer under "answer", "response" or "text". Rows
    that are not usable (no item, no answer, an answer that is neither text nor number, an item twice) are left out.

    Raises
    ------
    ValueError
        No row is usable, or rows name different respondents under "respondent".
    """
    if isinstance(given, AnswerSheet):
        return given
    if isinstance(given, Mapping):
        rows: Iterable[Row] = ((f"item {k!r}", {"item": k, "answer": v}) for k, v in given.items())
    elif isinstance(given, (list, tuple)):
        rows = ((f"row {n}", row) for n, row in enumerate(given, start=1))
    else:
        raise ValueError(
            f"answers: expected a mapping from item id to answer or a list of records, got {type(given).__name__}; "
            "load_answers(path) reads a file"
        )
    return _collected(rows, "answers")


def load_answers(path: str | os.PathLike[str]) -> AnswerSheet:
    """The answers in a .json, .jsonl or .csv file.

    .json : a list of records (CultureSPA's result files are such) or one object from item id to answer.
    .jsonl : a record per line. .csv : columns `item` and `answer`, separated by comma, semicolon or tab; a cell that is
    a number below zero is no answer. `answer_sheet` says how keys may be called.

    Raises
    ------
    ValueError
        The file cannot be read, is none of these, or has no usable row; single bad rows are left out and named.
    """
    place = expanded(os.fspath(path))
    kind = place.suffix.lower()
    if kind not in (".json", ".jsonl", ".csv"):
        raise ValueError(f"{place.name}: expected answers in a .json, .jsonl or .csv file; save them as one of these")
    text = read_text(place)
    if kind == ".jsonl":
        return _collected(_json_lines(text), place.name)
    if kind == ".csv":
        return _collected(_csv_rows(text, place.name), place.name)
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place.name}: not JSON (line {error.lineno}: {error.msg}); check that line") from None
    if not isinstance(document, (dict, list)):
        raise ValueError(
            f"{place.name}: expected a list of records or an object from item to answer, got {document!r:.40}"
        )
    if isinstance(document, dict):
        return _collected(((f"item {k!r}", {"item": k, "answer": v}) for k, v in document.items()), place.name)
    return _collected(((f"row {n}", row) for n, row in enumerate(document, start=1)), place.name)


def _json_lines(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except json.JSONDecodeError:
                yield f"line {number}", None


def _csv_rows(text: str, name: str) -> Iterator[Row]:
    reader = cell_reader(text)
    known = {key.casefold(): key for key in (*ITEM_KEYS, *ANSWER_KEYS, RESPONDENT)}
    header = [known.get(cell.strip().casefold(), cell.strip()) for cell in next(reader, [])]
    for keys in (ITEM_KEYS, ANSWER_KEYS):
        if header and not set(keys) & set(header):
            raise ValueError(f"{name}: expected a header with columns item and answer, got {listed(header)}; add them")
    for cells in reader:
        if any(cell.strip() for cell in cells):
            row = dict(zip(header, map(_cell, cells), strict=False))
            yield f"line {reader.line_num}", row


def _cell(text: str) -> str | float:
    """A number below zero as such, since in files of human answers it says why there is none; else the text."""
    text = text.strip()
    return float(text) if re.fullmatch(r"-\d+(\.\d+)?", text) else text


def _collected(rows: Iterable[Row], name: str) -> AnswerSheet:
    answers: dict[str, Answer] = {}
    left_out: list[str] = []
    people: set[str] = set()
    for where, row in rows:
        people.add(str(row.get(RESPONDENT, "")) if isinstance(row, Mapping) else "")
        item, answer, fault = _read(row)
        if not fault and item in answers:
            fault = f"item {item!r} was answered before"
        if fault:
            left_out.append(f"{where}: {fault}; left out")
        else:
            answers[item] = answer
    if len(people - {""}) > 1:
        raise ValueError(
            f"{name}: rows of {len(people - {''})} respondents, and a sheet has one answer per item; keep the rows of "
            "one, or read all with softde.surveys.human.load_human and compare shares"
        )
    if not answers:
        why = f" ({left_out[0]})" if left_out else ""
        raise ValueError(f"{name}: no row has an item and an answer{why}; expected keys such as item and answer")
    return AnswerSheet(answers, tuple(left_out))


def _read(row: Any) -> tuple[str, Answer, str]:
    """Item, answer, and what is wrong with the row if anything is."""
    if not isinstance(row, Mapping):
        return "", None, f"expected a record with an item and an answer, got {row!r:.40}"
    item = next((row[key] for key in ITEM_KEYS if row.get(key) not in (None, "")), None)
    if not isinstance(item, (str, int)) or isinstance(item, bool):
        return "", None, f"no item; expected one under {listed(ITEM_KEYS[:2])}"
    found = [row[key] for key in ANSWER_KEYS if key in row]
    if not found:
        return str(item), None, f"item {item!r} has no answer; expected one under {ANSWER_KEYS[0]}"
    answer = found[0]
    if isinstance(answer, bool) or not (answer is None or isinstance(answer, str) or _is_number(answer)):
        return str(item), None, f"item {item!r}: expected a text or a number as answer, got {answer!r:.40}"
    return str(item), answer if answer is None or isinstance(answer, str) else float(answer), ""


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True
