"""Checks of what a file holds: kinds, keys, numbers. A message says what was expected, what came, what to change."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from softde.surveys.values import listed, nearest


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put a file's (or an item's) name before the message of a ValueError."""
    try:
        yield
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{name}: {error}") from None


def check_keys(table: Mapping[str, Any], known: Sequence[str], where: str, required: Sequence[str] = ()) -> None:
    """Refuse a table with a key that nobody reads, or without one that is needed."""
    for key in table:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}; {nearest(str(key), known)}")
    missing = [key for key in required if key not in table]
    if missing:
        raise ValueError(f"{where}: missing {listed(missing)}; add it")


def expect(value: Any, kind: type | tuple[type, ...], what: str) -> Any:
    """The value, if it is a dict, list, str or (int, float) as `kind` says."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind == (int, float)):
        name = "a table" if kind is dict else "a list" if kind is list else "a text" if kind is str else "a number"
        raise ValueError(f"{what}: expected {name}, got {value!r}")
    return value


def parse_number(text: str, where: str) -> float:
    """A finite or infinite number from a cell."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{where}: expected a number, got {text!r}") from None
