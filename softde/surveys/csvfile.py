"""CSV files: questionnaires in softde's own columns or in QSTN's, and published scores."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

from softde.surveys.checks import check_keys, parse_number
from softde.surveys.values import listed

QSTN_IDS = ("questionnaire_item_id", "survey_item_id")  # the second in files of QSTN's first versions
QSTN_CONTENT = re.compile(r"\{*\s*QUESTION_CONTENT_PLACEHOLDER\s*\}*")
MORE_COLUMNS = ("options", "values", "topic")


def read_items(text: str, shared_options: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Rows as item tables with id, text and, where the cells are filled, options, values and topic.

    Own columns: id, text; QSTN's: questionnaire_item_id, question_content, question_stem. Both may have options and
    values (separated by |) and topic. `shared_options` go to the items that have none.
    """
    header = _header(text)
    id_column = next((c for c in QSTN_IDS if c in header), "id")
    qstn = id_column != "id"
    required = (id_column, "question_content" if qstn else "text")
    if not qstn:  # a foreign file may hold columns of its own; ours may not, since a typo would be lost
        check_keys(dict.fromkeys(header), (*required, *MORE_COLUMNS), "header")
    items = []
    for line, row in _rows(text, required):
        content = _stemmed(row.get("question_stem", ""), row["question_content"]) if qstn else row["text"]
        item: dict[str, Any] = {"id": row[id_column], "text": content}
        if row.get("options"):
            item["options"] = _split(row["options"], f"line {line}, options")
        elif shared_options is not None:
            item["options"] = list(shared_options)
        if row.get("values"):
            item["values"] = [
                parse_number(v, f"line {line}, values") for v in _split(row["values"], f"line {line}, values")
            ]
        if row.get("topic"):
            item["topic"] = row["topic"]
        items.append(item)
    return items


def read_scores(text: str) -> dict[str, dict[str, float]]:
    """Region → factor → score from a `region` column and one column per factor; an empty cell is a missing score."""
    scores: dict[str, dict[str, float]] = {}
    for line, row in _rows(text, required=("region",)):
        region = row.pop("region")
        if not region or region in scores:
            raise ValueError(f"line {line}: region {region!r} is {'there twice' if region else 'empty'}; fix the row")
        scores[region] = {k: parse_number(v, f"line {line}, {k}") for k, v in row.items() if v}
    return scores


def _stemmed(stem: str, content: str) -> str:
    """QSTN's stem with the content in its placeholder, or before the content where it has none."""
    if QSTN_CONTENT.search(stem):
        return QSTN_CONTENT.sub(lambda _: content, stem)
    return f"{stem} {content}".strip()


def _split(cell: str, where: str) -> list[str]:
    if "|" not in cell and re.search(r"[,;/\n]", cell):
        raise ValueError(f"{where}: expected two or more, separated by |, got {cell!r}")
    return [part.strip() for part in cell.split("|")]


def cell_reader(text: str) -> Any:
    """A csv reader for cells separated by comma, semicolon or tab: as Excel's own first line says, or by the header."""
    first = text.partition("\n")[0]
    said = re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=said[1] if said else max(",;\t", key=first.count))
    if said:
        next(reader)
    return reader


def _header(text: str) -> list[str]:
    return [name.strip() for name in next(cell_reader(text), [])]


def _rows(text: str, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and row of a CSV, cells stripped."""
    reader = cell_reader(text)
    header = [name.strip() for name in next(reader, [])]
    missing = [column for column in required if column not in header]
    if missing:
        raise ValueError(f"expected a header with column {listed(missing)}, got {listed(header) or 'an empty file'}")
    if len(set(header)) < len(header):
        raise ValueError(f"the header names a column twice: {listed(header)}; rename one")
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise ValueError(
                f"line {reader.line_num}: expected {len(header)} cells, got {len(cells)}; "
                "put texts that hold the separator in quotes"
            )
        yield reader.line_num, {column: cell.strip() for column, cell in zip(header, cells, strict=True)}
