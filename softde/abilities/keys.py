"""How a file says which option is right: by letter, by its text, or by number from 0 or from 1."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from softde.abilities.reading import LETTERS
from softde.surveys.values import listed

Key = Callable[[Any, Sequence[str]], int | None]  # (cell, option texts) → number of the right option from 0, or None

YES, NO = ("true", "yes", "1"), ("false", "no", "0")


def by_letter(cell: Any, texts: Sequence[str]) -> int | None:
    """A, B, ..., also as (A) or A."""
    found = re.fullmatch(r"\(?([A-Ja-j])[).:]?", str(cell).strip())
    number = LETTERS.index(found[1].upper()) if found else len(texts)
    return number if number < len(texts) else None


def by_text(cell: Any, texts: Sequence[str]) -> int | None:
    """The text of the right option."""
    same = [i for i, text in enumerate(texts) if text.strip() == str(cell).strip()]
    return same[0] if len(same) == 1 else None


def from_zero(cell: Any, texts: Sequence[str]) -> int | None:
    """A number, 0 for the first option."""
    if isinstance(cell, bool) or not re.fullmatch(r"\d+(\.0+)?", str(cell).strip()):
        return None
    number = int(float(cell))
    return number if number < len(texts) else None


def from_one(cell: Any, texts: Sequence[str]) -> int | None:
    """A number, 1 for the first option."""
    found = from_zero(cell, (*texts, ""))
    return found - 1 if found else None


def truth(cell: Any) -> int | None:
    """TRUE or FALSE of a proposed answer as the number of yes or no."""
    word = str(cell).strip().casefold()
    return 0 if word in YES else 1 if word in NO else None


KEYS: tuple[Key, ...] = (by_letter, by_text, from_zero, from_one)


def key_of(rows: Sequence[tuple[Any, Sequence[str]]], column: str) -> Key:
    """The one key that reads the most rows (answer cell, option texts).

    Raises
    ------
    ValueError
        None reads any; or two read equally many, and not alike.
    """
    readings = {key: [key(cell, texts) for cell, texts in rows] for key in KEYS}
    most = max(len(rows) - found.count(None) for found in readings.values()) if rows else 0
    if not most:
        given = f"got {rows[0][0]!r:.40}" if rows else "got no row with options"
        raise ValueError(f"column {column!r}: expected the letter, number or text of the right option, {given}")
    best = [key for key, found in readings.items() if len(rows) - found.count(None) == most]
    if any(readings[key] != readings[best[0]] for key in best):
        names = [key.__name__ for key in best]
        raise ValueError(
            f"column {column!r}: its answers can be read in more than one way ({listed(names)}), with different right "
            f"options; say which with answers=softde.abilities.{names[0]}, or on the command line --answers"
        )
    return best[0]


def option_texts(cells: Sequence[Any]) -> list[str]:
    """Texts of the options: a cell each, without empty ones at the end, or one cell with a list.

    Raises
    ------
    ValueError
        The one cell holds no list.
    """
    if len(cells) == 1:
        given = cells[0] if not isinstance(cells[0], str) else _parsed(cells[0])
        if not isinstance(given, list):
            raise ValueError(f"expected a list of options, got {cells[0]!r:.40}")
        cells = given
    texts = ["" if cell is None else str(cell) for cell in cells]
    while texts and not texts[-1].strip():
        texts.pop()
    return texts


def _parsed(text: str) -> Any:
    """A list written as JSON or as Python writes one; None for anything else."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None
