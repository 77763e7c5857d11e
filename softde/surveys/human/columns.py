"""Tables on disk: header, the columns asked for, a cache in Parquet. The one place that uses pyarrow and pandas."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from softde.files import expanded, refused, write_file
from softde.surveys.values import listed, nearest

Array: TypeAlias = npt.NDArray[np.float64]
log = logging.getLogger("softde")

TEXT_KINDS = (".csv", ".tsv", ".txt")
KINDS = (*TEXT_KINDS, ".parquet", ".dta")
NO_NUMBER = ("", " ", ".", "NA", "NaN", "nan", "N/A", "NULL", "#NULL!")
NO_ROWS = "no rows below the header; expected one per answer or respondent"
HEAD = 1 << 20  # bytes in which the header line must end
READER = "1"  # part of the cache's key: another number makes every older cache file stale


@dataclass(frozen=True)
class Header:
    """Column names, what separates cells, and how many lines stand above the first row; 0 lines in binary files."""

    path: Path
    columns: tuple[str, ...]
    separator: str = ","
    lines: int = 0

    def where(self, row: int) -> str:
        """A row, counted from 0, as the user finds it in the file."""
        return f"line {row + 1 + self.lines}" if self.lines else f"row {row + 1}"

    def need(self, columns: Sequence[str]) -> None:
        """Refuse a file without one of the columns."""
        for column in columns:
            if column not in self.columns:
                raise ValueError(f"no column {column!r}; {nearest(column, filter(None, self.columns))}")
            if self.columns.count(column) > 1:
                raise ValueError(f"the header names column {column!r} twice; rename one")


@dataclass(frozen=True)
class Table:
    """The columns asked for; a number's empty cells are NaN, a text's are empty."""

    header: Header
    data: Any  # pyarrow.Table

    def __len__(self) -> int:
        return int(self.data.num_rows)

    def numbers(self, column: str) -> Array:
        """(rows,) float64."""
        values = self.data.column(column).to_numpy()
        return np.asarray(values, dtype=np.float64)

    def codes(self, column: str) -> tuple[npt.NDArray[np.int64], Array]:
        """(rows,) positions in the column's different numbers, -1 for an empty cell; and those numbers."""
        array = self.data.column(column).combine_chunks().dictionary_encode()
        place = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return place, array.dictionary.to_numpy(zero_copy_only=False)

    def words(self, column: str) -> tuple[npt.NDArray[np.int64], list[str]]:
        """(rows,) positions in the list of the column's different texts, in the order in which they come."""
        array = self.data.column(column).combine_chunks()
        texts = [str(t).strip() for t in array.dictionary.to_pylist()]
        position = {text: i for i, text in enumerate(dict.fromkeys([*texts, ""]))}
        lookup = np.array([*(position[t] for t in texts), position[""]], dtype=np.int64)
        codes = array.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
        return lookup[codes], list(position)

    def texts(self, column: str) -> list[str]:
        """(rows,) texts without the spaces around them."""
        code, words = self.words(column)
        return [words[k] for k in code]


def read_header(path: str | os.PathLike[str]) -> Header:
    """The column names of a .csv, .tsv, .txt, .parquet or .dta file."""
    path = expanded(os.fspath(path))
    kind = path.suffix.lower()
    if kind not in KINDS:
        extra = "; save SPSS files as .csv, .dta or .parquet" if kind in (".sav", ".por", ".zsav") else ""
        extra = "; save the sheet as .csv" if kind in (".xlsx", ".xls", ".ods") else extra
        raise ValueError(f"expected a file that ends in {', '.join(KINDS)}, got {path.name!r}{extra}")
    try:
        if path.stat().st_size == 0:
            raise ValueError("the file is empty; expected a header and rows")
        if kind in TEXT_KINDS:
            return _text_header(path)
        with _reading():
            return Header(path, _binary_columns(path, kind))
    except OSError as error:
        raise ValueError(f"cannot read {str(path)!r} ({error.strerror or error}); check the path") from None


def _text_header(path: Path) -> Header:
    with path.open("rb") as file:
        lines = file.read(HEAD).splitlines()[:2]
    try:
        first = lines[0].decode("utf-8-sig")
        said = re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE)  # Excel's own first line
        text = lines[1].decode("utf-8") if said else first
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start} of the header); save the file as UTF-8") from None
    except IndexError:
        raise ValueError("the file is empty; expected a header and rows") from None
    separator = said[1] if said else max(",;\t", key=text.count)
    columns = tuple(name.strip() for name in next(csv.reader([text], delimiter=separator), []))
    return Header(path, columns, separator, 2 if said else 1)


def _binary_columns(path: Path, kind: str) -> tuple[str, ...]:
    if kind == ".parquet":
        return tuple(_arrow("parquet").read_schema(path).names)
    with _pandas().read_stata(path, iterator=True) as reader:
        return tuple(reader.variable_labels())


def read_table(
    header: Header, numbers: Sequence[str], texts: Sequence[str], cache: str | os.PathLike[str] | None = None
) -> Table:
    """These columns of the file, and no others; `numbers` as float64, `texts` as texts.

    cache : a folder. What was read is kept there as Parquet and taken from there as long as the file has the same path,
        size and times, and the same columns are asked for.
    """
    header.need([*numbers, *texts])
    path = header.path
    try:
        if cache is None or path.suffix.lower() == ".parquet":
            data = _read(header, numbers, texts)
        else:
            data = _cached(header, numbers, texts, expanded(os.fspath(cache)))
    except OSError as error:
        raise ValueError(f"cannot read {str(path)!r} ({error.strerror or error}); check the path") from None
    if not data.num_rows:
        raise ValueError(NO_ROWS)
    return Table(header, data)


def _read(header: Header, numbers: Sequence[str], texts: Sequence[str]) -> Any:
    arrow = _arrow()
    types = dict.fromkeys(numbers, arrow.float64()) | dict.fromkeys(
        texts, arrow.dictionary(arrow.int32(), arrow.utf8())
    )
    if header.lines:
        data = _read_text(header, types, numbers)
    elif header.path.suffix.lower() == ".parquet":
        with _reading():
            data = _arrow("parquet").read_table(header.path, columns=list(types))
    else:
        with _reading():
            frame = _pandas().read_stata(header.path, columns=list(types), convert_categoricals=False)
            data = arrow.Table.from_pandas(frame, preserve_index=False)
    for name, kind in types.items():
        if data.schema.field(name).type != kind:
            data = data.set_column(data.schema.get_field_index(name), name, _cast(data.column(name), name, kind))
    return data.unify_dictionaries()


def _cast(column: Any, name: str, kind: Any) -> Any:
    arrow = _arrow()
    if arrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        if not arrow.types.is_dictionary(kind):
            return column.cast(kind)
        return column.cast(arrow.utf8()).combine_chunks().dictionary_encode()
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError):
        wanted = "texts" if arrow.types.is_dictionary(kind) else "numbers"
        raise ValueError(f"column {name!r}: expected {wanted}, got {column.type}") from None


def _read_text(header: Header, types: Mapping[str, Any], numbers: Collection[str]) -> Any:
    arrow, reader = _arrow(), _arrow("csv")
    read = reader.ReadOptions(column_names=_unique(header.columns), skip_rows=header.lines)
    marks = (".", ",") if header.separator == ";" else (".",)  # where cells are apart by ;, a comma may be decimal
    problem = ""
    for newlines, mark in ((n, m) for n in (False, True) for m in marks):  # lines that end in a cell take longer
        parse = reader.ParseOptions(delimiter=header.separator, newlines_in_values=newlines)
        convert = reader.ConvertOptions(
            include_columns=list(types),
            column_types=types,
            null_values=list(NO_NUMBER),
            strings_can_be_null=False,
            quoted_strings_can_be_null=True,
            decimal_point=mark,
        )
        try:
            return reader.read_csv(header.path, read_options=read, parse_options=parse, convert_options=convert)
        except arrow.ArrowInvalid as error:
            problem = problem or str(error).partition("\n")[0]
    raise ValueError(_wrong_cell(header, types, numbers) or f"cannot be read as a table: {problem}")


def _unique(columns: Sequence[str]) -> list[str]:
    """Names that differ: pyarrow wants that, also of columns that nobody asks for."""
    seen: dict[str, int] = {}
    names = []
    for name in columns:
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}\0{seen[name]}")
    return names


def _wrong_cell(header: Header, columns: Collection[str], numbers: Collection[str]) -> str | None:
    """The first cell that pyarrow cannot have liked, found the slow way; None if there is none."""
    places = {column: header.columns.index(column) for column in columns}
    with header.path.open("rb") as file:
        for _ in range(header.lines):
            file.readline()
        line = header.lines
        lines = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        for cells in (reader := csv.reader(lines, delimiter=header.separator)):
            if cells and len(cells) != len(header.columns):
                return (
                    f"line {line + 1}: expected {len(header.columns)} cells as in the header, got {len(cells)}; "
                    "put texts that hold the separator in quotes"
                )
            for column, place in places.items() if cells else ():
                cell = cells[place]
                if not cell.isprintable() and re.search("[\udc80-\udcff]", cell):
                    return f"line {line + 1}, column {column!r}: not UTF-8; save the file as UTF-8"
                if column in numbers and not _is_number(cell):
                    return f"line {line + 1}, column {column!r}: expected a number or an empty cell, got {cell!r}"
            line = header.lines + reader.line_num
    return NO_ROWS if line == header.lines else None


def _is_number(cell: str) -> bool:
    if cell in NO_NUMBER:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


# ---- cache -----------------------------------------------------------------------------------------------------------


def _cached(header: Header, numbers: Sequence[str], texts: Sequence[str], folder: Path) -> Any:
    """The columns from the cache, or from the file and into the cache."""
    status = header.path.stat()
    asked = [os.path.abspath(header.path), sorted(numbers), sorted(texts)]
    seen = [READER, *asked, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    name = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    place, key = folder / f"{header.path.stem}-{name}.parquet", json.dumps(seen).encode()
    found = _from_cache(place, key)
    if found is not None:
        return found
    data = _read(header, numbers, texts)
    sink = io.BytesIO()
    marked = data.replace_schema_metadata({b"softde": key})
    _arrow("parquet").write_table(marked, sink, compression="zstd", write_page_checksum=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cache: {refused(folder, error)}") from None
    write_file(place, sink.getvalue())
    log.info("%s: %d columns of %d rows kept in %s", header.path.name, data.num_columns, data.num_rows, place)
    return data


def _from_cache(place: Path, key: bytes) -> Any:
    if not place.exists():
        return None
    arrow, parquet = _arrow(), _arrow("parquet")
    try:
        if (parquet.read_schema(place).metadata or {}).get(b"softde") != key:
            log.info("cache %s is of an earlier version of the file; it is built again", place)
            return None
        data = parquet.read_table(place, page_checksum_verification=True)
    except (arrow.ArrowException, OSError, ValueError) as error:
        log.warning("cache %s is broken (%s); it is built again", place, str(error).partition("\n")[0])
        return None
    log.info("read from the cache %s", place)
    return data.unify_dictionaries()


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_table(path: str | os.PathLike[str], columns: Mapping[str, Sequence[Any]]) -> None:
    """Columns of equal length as Parquet if the name ends in .parquet, else as CSV; a NaN becomes an empty cell."""
    path = expanded(os.fspath(path))
    if path.suffix.lower() == ".parquet":
        sink = io.BytesIO()
        _arrow("parquet").write_table(_arrow().table({k: list(v) for k, v in columns.items()}), sink)
        write_file(path, sink.getvalue())
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow(["" if cell != cell else cell for cell in row])
    write_file(path, text.getvalue().encode())


# ---- optional packages -----------------------------------------------------------------------------------------------


def _arrow(part: str = "") -> Any:
    """pyarrow, or its part csv or parquet."""
    try:
        import pyarrow
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError:
        raise ImportError("tables of human answers need pyarrow: pip install 'softde[human]'") from None
    return getattr(pyarrow, part) if part else pyarrow


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise ImportError("Stata files need pandas: pip install 'softde[human]'") from None
    return pandas


@contextmanager
def _reading() -> Iterator[None]:
    """What a library says about a file that it cannot read, as a ValueError of one line."""
    try:
        yield
    except (OSError, ImportError):
        raise
    except Exception as error:
        raise ValueError(f"cannot be read: {str(error).partition(chr(10))[0]}; is it what its name ends in?") from None


def known_columns(columns: Sequence[str]) -> str:
    """A header in a message."""
    return listed(filter(None, columns), 15) or "none"
