"""A row per respondent, a column per item: World Values Survey, Integrated Values Surveys, any such table."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from softde.surveys.checks import naming
from softde.surveys.human.answers import Array, HumanAnswers, Respondents
from softde.surveys.human.coding import (
    MAX_OPTIONS,
    Codes,
    Missing,
    all_there,
    chosen_items,
    item_of_codes,
    missing_codes,
    none_codes,
    option_numbers,
    survey_of,
)
from softde.surveys.human.columns import Header, Table, read_header, read_table
from softde.surveys.survey import Item, Survey
from softde.surveys.values import listed, nearest

PathLike = str | os.PathLike[str]
log = logging.getLogger("softde")

WVS_ITEM = re.compile(r"Q\d+[A-Z]?")
IVS_ITEM = re.compile(r"[A-H]\d{3}(?:_\d+)?[A-Z]?|Y00[123]")
IVS_REGIONS = ("COUNTRY_ALPHA", "S009", "S003")  # letters before the number


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are no items, empty for none. items : what an item's column looks like."""

    region: str
    weight: str = ""
    year: str = ""
    items: re.Pattern[str] = re.compile(r".*")


def load_wvs(
    path: PathLike,
    survey: Survey | None = None,
    *,
    items: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    missing: Missing = (),
    codes: Codes = (),
    region: str = "B_COUNTRY_ALPHA",
    weight: str = "W_WEIGHT",
    leave_out: Sequence[str] = (),
    cache: PathLike | None = None,
) -> HumanAnswers:
    """The World Values Survey, wave 7, as downloaded: .csv (or .dta, .parquet), a row per respondent.

    Only the columns asked for are read. A code counts as the option with that value; codes below zero are missing.

    Parameters
    ----------
    survey : whose items to read; its item ids are column names, unless `columns` says otherwise.
    items : instead of a survey, column names ("Q46"); options are then the codes that are there. With neither, every
        column Q1, Q2, … with at most 25 different codes is an item.
    columns : item id → column name, for a survey with ids of its own.
    missing : further codes that are no answers, for all items or by item id: `{"Q254": [5]}`.
    codes : the codes that the file has for an item's options, in their order, where they are not the options' values:
        for all items or by item id. `range(1, 7)` for `pvq21` and a file that counts 1 for "very much like me".
    region, weight : column names; an empty weight counts every respondent once.
    leave_out : regions that are not read.
    cache : a folder for what was read, as Parquet; used while the file is the same and the same columns are asked for.

    Raises
    ------
    ValueError
        Unknown columns, codes out of range, a region or an item without answers, weights below zero, not a number or
        with a sum of zero: naming file, line and column.
    """
    where = Columns(region, weight, items=WVS_ITEM)
    return _load(path, survey, items, columns, missing, codes, where, None, leave_out, cache)


def load_ivs(
    path: PathLike,
    survey: Survey | None = None,
    *,
    items: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    missing: Missing = (),
    codes: Codes = (),
    region: str = "",
    weight: str = "S017",
    years: tuple[int, int] | None = None,
    year: str = "S020",
    leave_out: Sequence[str] = (),
    cache: PathLike | None = None,
) -> HumanAnswers:
    """The Integrated Values Surveys, or a trend file of EVS or WVS: .csv, .dta or .parquet, columns A008, S020, ….

    Parameters are those of `load_wvs`, but for:

    region : the column of regions; by default the first there is of COUNTRY_ALPHA, S009 (letters) and S003 (numbers).
    years : first and last year to read, by column `year`; None reads all, which pools the waves.
    """
    with naming(Path(path).name):
        header = read_header(path)
        region = region or next((c for c in IVS_REGIONS if c in header.columns), IVS_REGIONS[0])
    where = Columns(region, weight, year if years is not None else "", IVS_ITEM)
    return _load(path, survey, items, columns, missing, codes, where, years, leave_out, cache)


def load_wide(
    path: PathLike,
    survey: Survey | None = None,
    *,
    items: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    missing: Missing = (),
    codes: Codes = (),
    region: str = "region",
    weight: str = "",
    leave_out: Sequence[str] = (),
    cache: PathLike | None = None,
) -> HumanAnswers:
    """Any table with a row per respondent, a column of regions and a column per item; parameters as in `load_wvs`."""
    if survey is None and items is None:
        raise ValueError("expected a survey or items=[column names], got neither")
    return _load(path, survey, items, columns, missing, codes, Columns(region, weight), None, leave_out, cache)


def _load(
    path: PathLike,
    survey: Survey | None,
    items: Sequence[str] | None,
    columns: Mapping[str, str] | None,
    missing: Missing,
    codes: Codes,
    where: Columns,
    years: tuple[int, int] | None,
    leave_out: Sequence[str],
    cache: PathLike | None,
) -> HumanAnswers:
    ids = chosen_items(survey, items)
    if len(codes) and survey is None:
        raise ValueError("codes go with a survey, whose options they stand for; give one")
    for name in codes if isinstance(codes, Mapping) else ():
        if name not in (ids or ()):
            raise ValueError(f"codes: unknown item {name!r}; {nearest(name, ids or ())}")
    with naming(Path(path).name):
        header = read_header(path)
        names = _columns_of(ids, header, where, columns or {})
        rest = [c for c in (where.weight, where.year) if c]
        table = read_table(header, [*names.values(), *rest], [where.region], cache)
        code, words = table.words(where.region)
        kept = _kept_rows(table, where, words, code, years, leave_out)
        lines = np.flatnonzero(kept)
        weights = _weights(table, where, words, code, kept)
        if survey is None:
            survey = survey_of(_items(table, names, kept, missing, strict=ids is not None), header.path)
        answers = np.empty((len(lines), len(survey.items)), dtype=np.int64, order="F")
        for i, item in enumerate(survey.items):
            column, none = names[item.id], none_codes(missing, item)
            place, found = table.codes(column)
            place = place if kept.all() else place[kept]
            answers[:, i] = option_numbers(
                item, place, found, none, column, lambda n: header.where(int(lines[n])), codes
            )
        answers.setflags(write=False)  # so that they are not copied
        human = Respondents(survey, answers, np.array(words)[code[kept]], weights).shares(header.path.name)
        all_there(human.regions, [names[i] for i in survey.item_ids], human.counts > 0)
        return human


def _columns_of(
    ids: Sequence[str] | None, header: Header, where: Columns, columns: Mapping[str, str]
) -> dict[str, str]:
    """Item id → column; all columns that look like items where no ids are given."""
    if ids is None:
        ids = [c for c in header.columns if where.items.fullmatch(c)]
        if not ids:
            raise ValueError(f"no columns of items in the header ({listed(header.columns, 8)}); name some with items=")
    for item in columns:
        if item not in ids:
            raise ValueError(f"columns: unknown item {item!r}; {nearest(item, ids)}")
    names = {item: columns.get(item, item) for item in ids}
    header.need([where.region, *filter(None, (where.weight, where.year)), *names.values()])
    if len(set(names.values())) < len(ids):
        raise ValueError("two items have the same column; give each its own")
    return names


def _kept_rows(
    table: Table,
    where: Columns,
    words: Sequence[str],
    code: np.typing.NDArray[np.int64],
    years: tuple[int, int] | None,
    leave_out: Sequence[str],
) -> np.typing.NDArray[np.bool_]:
    """(rows,) which respondents are read: in the years asked for, and of a region that is not left out."""
    kept: np.typing.NDArray[np.bool_] = np.ones(len(table), dtype=np.bool_)
    if years is not None:
        year = table.numbers(where.year)
        kept &= (year >= years[0]) & (year <= years[1])
        if not kept.any():
            span = f"{np.nanmin(year):.0f} to {np.nanmax(year):.0f}" if not np.isnan(year).all() else "none"
            raise ValueError(f"column {where.year!r}: no row from {years[0]} to {years[1]}; the file has {span}")
    for name in leave_out:
        if name not in words:
            raise ValueError(f"leave_out: no region {name!r} in column {where.region!r}; {nearest(name, words)}")
    kept &= ~np.isin(code, [words.index(name) for name in leave_out])
    empty = words.index("") if "" in words else -1
    for row in np.flatnonzero(kept & (code == empty))[:1]:
        raise ValueError(f"{table.header.where(int(row))}, column {where.region!r}: expected a region, got nothing")
    if not kept.any():
        raise ValueError("no rows are left; expected answers of one region or more")
    return kept


def _weights(
    table: Table,
    where: Columns,
    words: Sequence[str],
    code: np.typing.NDArray[np.int64],
    kept: np.typing.NDArray[np.bool_],
) -> Array:
    """(respondents,) weights, each from 0 up and no region's sum zero."""
    column = where.weight
    if not column:
        return np.ones(int(kept.sum()))
    weights = table.numbers(column)
    for row in np.flatnonzero(kept & ~(np.isfinite(weights) & (weights >= 0)))[:1]:
        got = "nothing" if np.isnan(weights[row]) else f"{weights[row]:g}"
        raise ValueError(
            f"{table.header.where(int(row))}, column {column!r}: expected a weight from 0 up, got {got}; mend the "
            "row, or count everyone once with weight=''"
        )
    there, sums = np.bincount(code[kept], minlength=len(words)), np.bincount(code[kept], weights[kept], len(words))
    for region in np.flatnonzero((there > 0) & (sums <= 0))[:1]:
        raise ValueError(
            f"column {column!r}: the weights of region {words[region]} sum to zero; leave it out with "
            f"leave_out=[{words[region]!r}], or count everyone once with weight=''"
        )
    return weights[kept]


def _items(
    table: Table, names: Mapping[str, str], kept: np.typing.NDArray[np.bool_], missing: Missing, strict: bool
) -> list[Item]:
    """Items with the codes of their columns as options; `strict` refuses a column that is none, else it is skipped."""
    items, skipped = [], []
    for name, column in names.items():
        place, codes = table.codes(column)
        used = np.bincount(place[kept] + 1, minlength=len(codes) + 1)[1:] > 0
        codes = codes[used & ~np.isin(codes, missing_codes(missing, name))]
        item = item_of_codes(name, codes)
        if item is not None:
            items.append(item)
        elif strict:
            found = int((codes >= 0).sum())
            raise ValueError(
                f"column {column!r}: expected 2 to {MAX_OPTIONS} different codes from 0 up, got {found}; "
                "give a survey that has the item with its options, or leave the column out"
            )
        else:
            skipped.append(column)
    if skipped:
        log.info("%s: columns %s are no items with 2 to %d codes", table.header.path.name, listed(skipped), MAX_OPTIONS)
    if not items:
        raise ValueError(f"no column has 2 to {MAX_OPTIONS} different codes from 0 up; give a survey, or items=")
    return items
