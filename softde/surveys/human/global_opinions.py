"""GlobalOpinionQA: questions of cross-national surveys with each country's shares of the options."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softde.surveys.checks import naming
from softde.surveys.human.answers import HumanAnswers
from softde.surveys.human.coding import Cells, chosen_items, need_items, shares_of, survey_of
from softde.surveys.human.columns import Header, read_header, read_table
from softde.surveys.survey import Item, Survey, options

GLOBAL_OPINIONS = ("question", "selections", "options")


def load_global_opinions(
    path: str | os.PathLike[str],
    survey: Survey | None = None,
    *,
    items: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
) -> HumanAnswers:
    """GlobalOpinionQA: a row per question with its options and each country's shares of them.

    The item of the n-th row is called "q<n>" and its options are valued 1, 2, … in the order of the list. selections is
    a mapping as text, country → shares; both lists are as long. A survey may have these ids, or the questions' texts.
    """
    ids = chosen_items(survey, items)
    with naming(Path(path).name):
        header = read_header(path)
        topic = ["source"] if "source" in header.columns else []
        table = read_table(header, [], [*GLOBAL_OPINIONS, *topic])
        question, selections, listing = (table.texts(column) for column in GLOBAL_OPINIONS)
        topics = table.texts(topic[0]) if topic else [""] * len(table)
        names = [f"q{n + 1}" for n in range(len(table))]
        if survey is not None:
            by_text = {item.text.strip(): item.id for item in survey.items}
            names = [n if n in survey.item_ids else by_text.get(q, n) for n, q in zip(names, question, strict=True)]
        cells: list[tuple[str, str, float, float, int]] = []
        made = []
        for n, name in enumerate(names):
            if ids is not None and name not in ids:
                continue
            texts = [str(o).strip() for o in _literal(listing[n], list, header, n, "options")]
            made.append(Item(name, question[n] or name, options(_different(texts)), topics[n]))
            for country, shares in _literal(selections[n], dict, header, n, "selections").items():
                if not isinstance(shares, (list, tuple)) or len(shares) != len(texts):
                    raise ValueError(
                        f"{header.where(n)}, column 'selections': expected {len(texts)} shares for {country}, one per "
                        f"option, got {shares!r}; mend the row, or leave the question out with items="
                    )
                if country in leave_out:
                    continue
                cells += [(str(country), name, k, float(s), n) for k, s in enumerate(shares, start=1)]
        survey = survey or survey_of(made, header.path)
        need_items(survey, names)
        region, item, code, amount, row = zip(*cells, strict=True) if cells else ((), (), (), (), ())
        place = Cells(region, item, code, amount, lambda n: f"{header.where(row[n])}, column 'selections'", {})
        return shares_of(survey, place, header.path.name)


def _literal(text: str, kind: type, header: Header, row: int, column: str) -> Any:
    """A list or mapping written as Python or JSON does; also as a defaultdict prints itself."""
    inner = re.fullmatch(r"defaultdict\(<class '\w+'>, (.*)\)", text, re.DOTALL)
    try:
        value = ast.literal_eval(inner[1] if inner else text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, kind) or not value:
        wanted = "a list of options" if kind is list else "a mapping from country to shares"
        raise ValueError(f"{header.where(row)}, column {column!r}: expected {wanted}, got {text[:60]!r}")
    return value


def _different(texts: Sequence[str]) -> list[str]:
    """Option texts, made different where a file has one twice."""
    return [t if t and t not in texts[:n] else f"{t or 'option'} ({n + 1})" for n, t in enumerate(texts)]
