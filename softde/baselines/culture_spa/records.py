"""Files between the stages: JSON lines that grow, and what others made, as JSON lists, JSON lines or either gzipped.

A file of ours begins with a line that says what it is of ("softde": "answers", the questions' digest, the model, every
setting that matters), and each batch of lines ends with one that closes it ("batch": 7). Whatever comes after the last
such line was interrupted; a stage that goes on cuts it off and does that batch again.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softde.files import append_lines, expanded, write_file

KIND, BATCH, MODEL = "softde", "batch", "model"
NAMED = 6  # faulty rows that a warning names
SHOWN = 70  # letters of a value in a message

Row = dict[str, Any]
_log = logging.getLogger("softde")


@dataclass(frozen=True)
class Rows:
    """What a file holds: its first line if it is one of ours, else empty, and rows with the places they stand at."""

    name: str
    header: Mapping[str, Any]
    rows: tuple[tuple[str, Row], ...]
    faults: tuple[str, ...] = ()  # rows that are not usable, and why

    def usable(self, read: Callable[[Row], Any]) -> list[Any]:
        """What `read` makes of the rows; those that it refuses (ValueError) are left out and named in one warning."""
        found, faults = [], list(self.faults)
        for where, row in self.rows:
            try:
                found.append(read(row))
            except ValueError as error:
                faults.append(f"{where} ({error})")
        warn(self.name, faults)
        return found


def warn(name: str, faults: Sequence[str]) -> None:
    """Name the rows of a file that are left out."""
    if faults:
        more = f" and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        _log.warning("%s: %d rows left out: %s%s", name, len(faults), "; ".join(faults[:NAMED]), more)


def read_rows(path: str | os.PathLike[str]) -> Rows:
    """The rows of a .jsonl or .json file, gzipped or not; lines that close a batch are no rows.

    Raises
    ------
    ValueError
        The file cannot be read, or is a .json that is no list.
    """
    path = expanded(os.fspath(path))
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror or error}); check the path") from None
    except (UnicodeDecodeError, EOFError, zlib.error) as error:
        raise ValueError(f"{path.name}: cannot be decoded ({error}); save it as UTF-8, gzipped or not") from None
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in (".json", ".jsonl"):
        raise ValueError(f"{path.name}: expected a .jsonl or .json file, or either with .gz behind; rename it")
    found = _list(text, path.name) if suffix == ".json" else list(_lines(text))
    faults = tuple(f"{where} ({row})" for where, row in found if isinstance(row, str))
    rows = [(where, row) for where, row in found if isinstance(row, dict)]
    header = rows[0][1] if rows and KIND in rows[0][1] else {}
    kept = tuple((where, row) for where, row in rows[1 if header else 0 :] if BATCH not in row)
    return Rows(path.name, header, kept, faults)


def _list(text: str, name: str) -> list[tuple[str, Row | str]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: no JSON ({error}); a file of a record per line is named .jsonl") from None
    if not isinstance(found, list):
        raise ValueError(f"{name}: expected a list of records, got {str(found)[:SHOWN]}")
    rows = ((f"row {n}", row) for n, row in enumerate(found, start=1))
    return [(where, row if isinstance(row, dict) else "no record") for where, row in rows]


def _lines(text: str) -> Iterator[tuple[str, Row | str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
                yield f"line {number}", row if isinstance(row, dict) else "no record"
            except (ValueError, RecursionError):
                yield f"line {number}", "no JSON"


def many(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files of a folder, numbers in their names in order, or those given."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    found: list[Path] = []
    for path in (expanded(os.fspath(one)) for one in given):
        inside = sorted(path.iterdir(), key=_natural) if path.is_dir() else [path]
        found += [file for file in inside if not path.is_dir() or re.search(r"\.jsonl?(\.gz)?$", file.name)]
        if not found:
            raise ValueError(f"{path}: the folder holds no .json or .jsonl file, gzipped or not; give another")
    return found


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", path.name)]


def jsonl(path: str | os.PathLike[str]) -> Path:
    """Where a stage writes; its folder has to be there."""
    out = expanded(os.fspath(path))
    if out.suffix != ".jsonl" or out.is_dir():
        raise ValueError(f"{out}: expected the name of a .jsonl file to write")
    if not out.parent.is_dir():
        raise ValueError(f"cannot write {out}: there is no folder {out.parent}; create it first, or choose another")
    return out


def resumed(path: Path, header: Mapping[str, Any], keys: Sequence[str]) -> tuple[list[Row], int]:
    """Make a file begin with `header`, or go on with one that does: its rows and how many batches are closed.

    Lines without one of `keys`, which somebody else must have written, are named and left out.

    Raises
    ------
    ValueError
        The file is of something else; every difference is named. It stays as it is.
    """
    first = json.dumps(header, ensure_ascii=False)
    if not path.exists() or not path.stat().st_size:
        write_file(path, first.encode() + b"\n")
        return [], 0
    content = path.read_bytes()
    lines = content.split(b"\n")
    differ = _differences(_record(lines[0]), json.loads(first))
    if differ:
        raise ValueError(f"{path} was made with other settings ({differ}); choose another file, or move this one away")
    closed = [number for number, line in enumerate(lines) if number and BATCH in _record(line)]
    whole = lines[: closed[-1] + 1 if closed else 1]
    if content != (cut := b"\n".join(whole) + b"\n"):
        write_file(path, cut)  # a batch that was interrupted
    rows, strange = [], []
    for number, row in enumerate(map(_record, whole[1:]), start=2):
        if row and all(key in row for key in keys):
            rows.append(row)
        elif BATCH not in row:
            strange.append(f"line {number} (no record of this stage)")
    warn(path.name, strange)
    return rows, len(closed)


def _record(line: bytes) -> Row:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    def shown(value: Any) -> str:
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"

    if KIND not in old:
        return "it begins with no line of settings"
    keys = [key for key in {**new, **old} if key != MODEL and old.get(key) != new.get(key)]  # a model may have moved
    return "; ".join(f"{key}: {shown(old.get(key))} there, {shown(new.get(key))} now" for key in keys)


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add lines to a file, on the disk when this returns."""
    append_lines(path, (json.dumps(row, ensure_ascii=False) for row in rows))


def write_rows(path: str | os.PathLike[str], header: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """A whole file at once."""
    lines = [json.dumps(row, ensure_ascii=False) for row in (header, *rows)]
    write_file(expanded(os.fspath(path)), "".join(f"{line}\n" for line in lines).encode())


def spent(path: str | os.PathLike[str]) -> float:
    """Forward tokens that the closed batches of a file say they took."""
    lines = expanded(os.fspath(path)).read_bytes().split(b"\n")
    return float(sum(_record(line).get("forward_tokens", 0) for line in lines if b'"batch"' in line))
