"""Checks of what a file holds: kinds, keys, numbers. A message says what was expected, what came, what to change."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from softde.surveys.values import listed, nearest

LONGEST = 80  # letters of a value that a message repeats


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
        raise ValueError(f"{what}: expected {name}, got {_short(value)}")
    return value


def _short(value: object) -> str:
    """A value in a message, cut off where it is long, as a whole file's content is."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def parse_number(text: str, where: str) -> float:
    """A finite or infinite number from a cell."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{where}: expected a number, got {text!r}") from None


def need_text(value: object, what: str) -> None:
    """Refuse anything but a text with something in it."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{what}: expected a text that is not empty, got {value!r}")


def finite(value: object, what: str) -> float:
    """A finite number as a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
        raise ValueError(f"{what}: expected a finite number, got {value!r}")
    return float(value)


def unique(names: Iterable[str], what: str) -> None:
    """Refuse a name that comes twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"duplicate {what} {listed(map(repr, twice))}; each may appear once, so rename or remove one")


def row_weights(weights: npt.ArrayLike | None, count: int, what: str) -> npt.NDArray[np.float64]:
    """(count,) weights of regions or respondents, from 0 up; ones where none are given."""
    given = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    if given.shape != (count,) or not np.isfinite(given).all() or (given < 0).any():
        raise ValueError(
            f"weights: expected a finite number from 0 up for each of {count} {what}, got shape {given.shape}"
        )
    return given
