"""Codes in a file → option numbers of a survey, and a survey made from the codes where none is given."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from softde.surveys.human.answers import Array, HumanAnswers, Numbers
from softde.surveys.regions import region_name
from softde.surveys.survey import Item, Survey, options
from softde.surveys.values import listed, nearest

Missing: TypeAlias = Sequence[float] | Mapping[str, Sequence[float]]
Codes: TypeAlias = Sequence[float] | Mapping[str, Sequence[float]]
log = logging.getLogger("softde")

MAX_OPTIONS = 25  # different codes of a column that is still taken for an item when no survey says so
NUMBERED = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*(?:$|[:.)]\s)")  # "3", "3: often", "3. often", "3) often"


def missing_codes(missing: Missing, item: str) -> list[float]:
    """Codes of one item that count as no answer, besides those below zero."""
    return [float(code) for code in (missing.get(item, ()) if isinstance(missing, Mapping) else missing)]


def none_codes(missing: Missing, item: Item) -> list[float]:
    """The same for a survey's item, which may name such codes itself."""
    return [*missing_codes(missing, item.id), *item.missing]


def file_codes(codes: Codes, item: Item) -> list[float]:
    """The code that a file has for each option of an item: those given, else the options' values.

    Raises
    ------
    ValueError
        Not one different code per option.
    """
    given = codes.get(item.id, ()) if isinstance(codes, Mapping) else codes
    if not len(given):
        return [float(value) for value in option_values(item)]
    found = [float(code) for code in given]
    if len(found) != len(item.options) or len(set(found)) < len(found):
        raise ValueError(
            f"codes: expected {len(item.options)} different codes for item {item.id}, one per option in their order, "
            f"got {listed(f'{code:g}' for code in found)}"
        )
    return found


def option_numbers(
    item: Item,
    place: Numbers,
    found: Array,
    missing: Sequence[float],
    column: str,
    where: Callable[[int], str],
    codes: Codes = (),
) -> Numbers:
    """Option numbers from 0 of answers, -1 for none: NaN, a code in `missing`, or one below zero that is no option's.

    place : (answers,) positions in `found`, the different codes; -1 for an empty cell. codes : see `file_codes`.

    Raises
    ------
    ValueError
        Any other code that is no option's value, naming row and column.
    """
    values = file_codes(codes, item)
    numbers = np.full(len(found) + 1, -1, dtype=np.int64)  # the last is for -1
    for n, code in enumerate(found.tolist()):
        if code in missing:
            continue
        if code in values:
            numbers[n] = values.index(code)
        elif code >= 0 and (place == n).any():
            row, known = int((place == n).argmax()), listed(f"{v:g}" for v in values)
            raise ValueError(
                f"{where(row)}, column {column!r}: code {code:g} is no option of item {item.id}, which has {known}; "
                "give the item that option, or name the code in missing="
            )
    return np.asarray(numbers[place])


def option_values(item: Item) -> Array:
    """(options,) the codes that a file has for the item's options."""
    values = np.array([option.value for option in item.options])
    if len(np.unique(values)) < len(values):
        raise ValueError(f"item {item.id!r}: two options have the same value, so codes cannot tell them apart")
    return values


def word_codes(item: Item | None, words: Iterable[str]) -> dict[str, float]:
    """The codes that texts stand for: an option's value, an option's text, or a number, alone or in "2: often".

    They are tried in this order; texts that are none of these are left out. Without an item, only numbers count.
    """
    texts = {option.text.strip().casefold(): option.value for option in item.options} if item else {}
    codes = {}
    for word in words:
        number = NUMBERED.match(word)
        if number and number[0] == word and float(number[1]) in texts.values():
            codes[word] = float(number[1])
        elif word.strip().casefold() in texts:
            codes[word] = texts[word.strip().casefold()]
        elif number:
            codes[word] = float(number[1])
    return codes


def item_of_codes(name: str, codes: Array) -> Item | None:
    """An item with the codes from 0 up, and whole numbers between them, as options; None for too many or few."""
    found = np.unique(codes[codes >= 0])
    if len(found) and (found == found.round()).all() and found[-1] - found[0] < MAX_OPTIONS:
        found = np.arange(found[0], found[-1] + 1)
    if not 2 <= len(found) <= MAX_OPTIONS:
        return None
    return Item(name, name, options([f"{v:g}" for v in found], found.tolist()))


def survey_of(items: Sequence[Item], path: Path) -> Survey:
    """A survey named by the file that its items come from; it has no formulas."""
    return Survey(path.stem, path.stem, tuple(items), source=path.name)


@dataclass(frozen=True)
class Cells:
    """Shares or counts of options as a list: (cells,) region, item, code, amount, and the place of each in the file.

    answers : region and item → number of valid answers, where it is known.
    """

    region: Sequence[str]
    item: Sequence[str]
    code: Sequence[float]
    amount: Sequence[float]
    where: Callable[[int], str]
    answers: Mapping[tuple[str, str], float]


def shares_of(
    survey: Survey, cells: Cells, source: str, missing: Missing = (), leave_out: Sequence[str] = ()
) -> HumanAnswers:
    """Amounts as shares that sum to one over the valid codes of a region and item; cells of other items are skipped.

    Of several options with the largest share, the one that the file names first counts as the majority.
    """
    for name in leave_out:
        if name not in cells.region:
            raise ValueError(f"leave_out: no region {name!r}; {nearest(name, dict.fromkeys(cells.region))}")
    regions = [r for r in dict.fromkeys(cells.region) if r not in leave_out]
    rows, columns = {r: n for n, r in enumerate(regions)}, {i: n for n, i in enumerate(survey.item_ids)}
    codes = [{v: n for n, v in enumerate(option_values(item).tolist())} for item in survey.items]
    none = [set(none_codes(missing, item)) for item in survey.items]
    shape = (len(regions), *survey.option_values.shape)
    amounts, order = np.full(shape, np.nan), np.full(shape, len(cells.region))
    for n, (region, item, code, amount) in enumerate(
        zip(cells.region, cells.item, cells.code, cells.amount, strict=True)
    ):
        if region not in rows or item not in columns:
            continue
        r, i = rows[region], columns[item]
        option = codes[i].get(code)
        if code in none[i] or (option is None and code < 0):
            continue
        if option is None:
            known = listed(f"{v:g}" for v in codes[i])
            raise ValueError(
                f"{cells.where(n)}: code {code:g} is no option of item {item}, which has {known}; give the item that "
                "option, or name the code in missing="
            )
        if not (np.isfinite(amount) and amount >= 0):
            raise ValueError(f"{cells.where(n)}: expected a share or count from 0 up, got {amount:g}")
        if not np.isnan(amounts[r, i, option]):
            raise ValueError(
                f"{cells.where(n)}: region {region}, item {item}, code {code:g} is there twice; remove one"
            )
        amounts[r, i, option], order[r, i, option] = amount, n
    return _normalised(survey, regions, amounts, order, cells.answers, source)


def _normalised(
    survey: Survey,
    regions: list[str],
    amounts: Array,
    order: Numbers,
    answers: Mapping[tuple[str, str], float],
    source: str,
) -> HumanAnswers:
    filled = np.nan_to_num(amounts)
    total = filled.sum(-1)
    given = total > 0
    all_there(regions, survey.item_ids, given)
    total[np.abs(total - 1) < 1e-12] = 1.0  # so that what was saved comes back bit by bit
    shares = np.divide(filled, total[..., None], out=np.full_like(filled, np.nan), where=given[..., None])
    top = filled == filled.max(-1, keepdims=True)
    leading = np.where(given, np.where(top, order, order.max() + 1).argmin(-1), -1)
    counts = np.array([[answers.get((r, i), np.nan) for i in survey.item_ids] for r in regions])
    return HumanAnswers(survey, tuple(regions), shares, counts, source, leading=leading)


def all_there(regions: Sequence[str], items: Sequence[str], given: np.typing.NDArray[np.bool_]) -> None:
    """Refuse items and regions without any answer; given : (regions, items)."""
    alike: dict[str, list[str]] = {}
    for region in regions:
        alike.setdefault(region_name(region) or region, []).append(region)
    for spellings in (found for found in alike.values() if len(found) > 1):
        log.warning("regions %s are one region in several spellings; they are kept apart", listed(map(repr, spellings)))
    if not len(regions):
        raise ValueError("no region is left; expected answers of one or more")
    for i in np.flatnonzero(~given.any(0))[:1]:
        raise ValueError(f"column or item {items[i]!r}: no region has an answer to it; leave the item out")
    for r in np.flatnonzero(~given.any(1))[:1]:
        raise ValueError(
            f"region {regions[r]} has no answers to any of the items ({listed(items, 4)}); leave it out with "
            f"leave_out=[{regions[r]!r}]"
        )


def chosen_items(survey: Survey | None, items: Sequence[str] | None) -> list[str] | None:
    """Ids of the items to read; None where neither says which."""
    if survey is not None and items is not None:
        raise ValueError("expected either a survey or items, got both; use survey alone, or select(items) afterwards")
    if isinstance(items, str) or (items is not None and not len(items)):
        raise ValueError(f"items: expected a list of one item or more, got {items!r}")
    return list(survey.item_ids) if survey is not None else None if items is None else list(items)


def need_items(survey: Survey, known: Iterable[str]) -> None:
    """Refuse a survey with an item that the file does not have."""
    known = list(dict.fromkeys(filter(None, known)))
    for item in survey.item_ids:
        if item not in known:
            raise ValueError(f"no answers to item {item!r} of survey {survey.id!r}; {nearest(item, known)}")
