"""Long tables: a row per share or per answer, and QSTN's answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from softde.surveys.checks import naming
from softde.surveys.csvfile import QSTN_IDS
from softde.surveys.human.answers import Array, HumanAnswers, Numbers, Respondents
from softde.surveys.human.coding import (
    MAX_OPTIONS,
    Cells,
    Missing,
    all_there,
    chosen_items,
    item_of_codes,
    missing_codes,
    need_items,
    none_codes,
    option_numbers,
    shares_of,
    survey_of,
    word_codes,
)
from softde.surveys.human.columns import Header, Table, read_header, read_table
from softde.surveys.survey import Item, Survey, options
from softde.surveys.values import listed, nearest

PathLike = str | os.PathLike[str]

QSTN_NAME = "questionnaire_name"
QSTN_ANSWERS = ("answer", "parsed_response", "llm_response")  # the parsed one before the raw one


def load_shares(
    path: PathLike,
    survey: Survey | None = None,
    *,
    items: Sequence[str] | None = None,
    missing: Missing = (),
    region: str = "region",
    item: str = "item",
    option: str = "option",
    amount: str = "",
    answers: str = "answers",
    leave_out: Sequence[str] = (),
    cache: PathLike | None = None,
) -> HumanAnswers:
    """A row per region, item and option with its share or count; what `HumanAnswers.save` writes.

    option : a column with the options' values, or with their texts. amount : the column of shares or counts, by default
    "share", or "count" where that is not there. answers : a column with the number of answers to the item, if there is
    one; counts are added up. Rows of items that are not asked for are skipped; an option without a row has share zero.
    """
    ids = chosen_items(survey, items)
    with naming(Path(path).name):
        header = read_header(path)
        amount = amount or ("share" if "share" in header.columns or "count" not in header.columns else "count")
        known = [answers] if answers in header.columns else []
        table = read_table(header, [amount, *known], [region, item, option], cache)
        regions, named, words = table.texts(region), table.texts(item), table.texts(option)
        amounts = table.numbers(amount)
        _filled(header, (region, regions), (item, named))
        if survey is None:
            survey = survey_of(_items_of_words(ids, named, words, missing), header.path)
        need_items(survey, named)
        codes = _codes(survey, named, words, option, header)
        rows = np.flatnonzero(~np.isnan(codes) & ~np.isnan(amounts)).tolist()
        given = {(regions[n], named[n]) for n in rows}
        for n in np.flatnonzero(~np.isnan(codes) & np.isnan(amounts)).tolist():
            if (regions[n], named[n]) in given and codes[n] >= 0:
                raise ValueError(
                    f"{header.where(n)}, column {amount!r}: nothing, where other options of region {regions[n]}, item "
                    f"{named[n]} have a number; write 0, or remove the row if that is meant"
                )
        for n in rows:
            if not (np.isfinite(amounts[n]) and amounts[n] >= 0):
                raise ValueError(
                    f"{header.where(n)}, column {amount!r}: expected a share or count from 0 up, got {amounts[n]:g}"
                )
        valid = table.numbers(known[0]) if known else np.full(len(table), np.nan)
        counted = amount != "share" and not known
        sums: dict[tuple[str, str], float] = {}
        for n in rows:
            key = regions[n], named[n]
            none = codes[n] in missing_codes(missing, named[n])
            sums[key] = sums.get(key, 0.0) + (0.0 if none else amounts[n]) if counted else float(valid[n])
        cells = Cells(
            [regions[n] for n in rows],
            [named[n] for n in rows],
            codes[rows].tolist(),
            amounts[rows].tolist(),
            lambda n: f"{header.where(rows[n])}, column {option!r}",
            sums,
        )
        return shares_of(survey, cells, header.path.name, missing, leave_out)


def load_answers(
    path: PathLike,
    survey: Survey | None = None,
    *,
    items: Sequence[str] | None = None,
    missing: Missing = (),
    respondent: str = "respondent",
    region: str = "region",
    item: str = "item",
    answer: str = "answer",
    weight: str = "",
    leave_out: Sequence[str] = (),
    cache: PathLike | None = None,
) -> HumanAnswers:
    """A row per respondent and item with the answer: an option's value, its text, or both ("2: often").

    A respondent's rows share their region and weight. Texts that are no option's are refused; empty cells are none.
    """
    ids = chosen_items(survey, items)
    with naming(Path(path).name):
        header = read_header(path)
        table = read_table(header, [weight] if weight else [], [respondent, region, item, answer], cache)
        weights = table.numbers(weight) if weight else np.ones(len(table))
        for row in np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))[:1]:
            raise ValueError(
                f"{header.where(int(row))}, column {weight!r}: expected a weight from 0 up, got {weights[row]:g}"
            )
        return _respondents(table, survey, ids, missing, (respondent, region, item, answer), weights, leave_out)


def load_qstn(
    path: PathLike,
    survey: Survey | None = None,
    *,
    items: Sequence[str] | None = None,
    missing: Missing = (),
    region: str = "",
    answer: str = "",
    leave_out: Sequence[str] = (),
) -> HumanAnswers:
    """QSTN's answers as CSV: questionnaire_item_id and the first there is of answer, parsed_response and llm_response.

    region : the column of regions, by default "region" or, where that is not there, questionnaire_name. The n-th answer
    to an item under one questionnaire_name is the n-th respondent's.
    """
    ids = chosen_items(survey, items)
    with naming(Path(path).name):
        header = read_header(path)
        item = next((c for c in QSTN_IDS if c in header.columns), QSTN_IDS[0])
        answer = answer or next((c for c in QSTN_ANSWERS if c in header.columns), QSTN_ANSWERS[0])
        region = region or ("region" if "region" in header.columns else QSTN_NAME)
        name = QSTN_NAME if QSTN_NAME in header.columns else region
        table = read_table(header, [], list(dict.fromkeys([name, region, item, answer])))
        weights = np.ones(len(table))
        return _respondents(
            table, survey, ids, missing, (name, region, item, answer), weights, leave_out, repeated=True
        )


def _respondents(
    table: Table,
    survey: Survey | None,
    ids: Sequence[str] | None,
    missing: Missing,
    columns: tuple[str, str, str, str],
    weights: Array,
    leave_out: Sequence[str],
    repeated: bool = False,
) -> HumanAnswers:
    """Rows of one answer each as respondents × items; `repeated` : a second answer is another respondent's."""
    header, (_, region, item, answer) = table.header, columns
    (who, names), (where, regions), (what, named), (said, words) = (table.words(c) for c in columns)
    _filled(header, *((c, [w[k] for k in code]) for c, code, w in ((region, where, regions), (item, what, named))))
    if survey is None:
        wanted = [i for i in named if i] if ids is None else list(ids)
        for missed in (i for i in wanted if i not in named):
            raise ValueError(f"column {item!r}: no item {missed!r}; {nearest(missed, named)}")
        made = [_item_of(i, [words[k] for k in np.unique(said[what == named.index(i)])], missing) for i in wanted]
        survey = survey_of(made, header.path)
    need_items(survey, named)
    for name in leave_out:
        if name not in regions:
            raise ValueError(f"leave_out: no region {name!r} in column {region!r}; {nearest(name, regions)}")
    kept = ~np.isin(where, [regions.index(name) for name in leave_out])
    column = np.array([survey.item_ids.index(i) if i in survey.item_ids else -1 for i in named])[what]
    kept &= column >= 0
    rows = np.flatnonzero(kept)
    person = where[rows] * np.int64(len(names)) + who[rows]
    if repeated:
        person = person * np.int64(len(table)) + _nth(person * np.int64(len(survey.items)) + column[rows])
    people, number = np.unique(person, return_inverse=True)
    _once(header, number * len(survey.items) + column[rows], rows, item)
    numbers = np.full(len(rows), -1)
    for i, one in enumerate(survey.items):
        mine = np.flatnonzero(column[rows] == i)
        place, none = said[rows[mine]], none_codes(missing, one)
        found = _word_codes(one, words, place, answer, header, rows[mine])
        numbers[mine] = option_numbers(one, place, found, none, answer, partial(_line, header, rows[mine]))
    answers = np.full((len(people), len(survey.items)), -1)
    answers[number, column[rows]] = numbers
    first = np.zeros(len(people), dtype=np.int64)
    first[number[::-1]] = rows[::-1]
    for n in np.flatnonzero(weights[rows] != weights[first[number]])[:1]:
        raise ValueError(f"{header.where(int(rows[n]))}: another weight than in {header.where(int(first[number[n]]))}")
    of = np.array(regions)[where[first]]
    found, which = np.unique(of, return_inverse=True)
    given = np.zeros((len(found), len(survey.items)), dtype=np.bool_)
    np.logical_or.at(given, which, answers >= 0)
    all_there(found.tolist(), survey.item_ids, given)
    return Respondents(survey, answers, of, weights[first]).shares(header.path.name)


def _nth(keys: Numbers) -> Numbers:
    """How often each key came before."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    start = np.maximum.accumulate(np.where(np.r_[True, ordered[1:] != ordered[:-1]], np.arange(len(keys)), 0))
    counts = np.empty_like(keys)
    counts[order] = np.arange(len(keys)) - start
    return counts


def _once(header: Header, keys: Numbers, rows: Numbers, item: str) -> None:
    for n in np.flatnonzero(_nth(keys))[:1]:
        raise ValueError(
            f"{header.where(int(rows[n]))}, column {item!r}: the respondent has answered this item before; remove "
            "one of the rows"
        )


def _line(header: Header, rows: Numbers, answer: int) -> str:
    return header.where(int(rows[answer]))


def _word_codes(item: Item, words: Sequence[str], said: Numbers, answer: str, header: Header, rows: Numbers) -> Array:
    """(words,) codes of the texts that answer the item, NaN for an empty one."""
    used = np.unique(said)
    codes = word_codes(item, [words[k] for k in used])
    for k in used:
        if words[k] and words[k] not in codes:
            row = int(rows[np.flatnonzero(said == k)[0]])
            raise ValueError(
                f"{header.where(row)}, column {answer!r}: {words[k][:60]!r} is no option of item {item.id}; "
                f"{nearest(words[k], (o.text for o in item.options))}"
            )
    table = np.full(len(words), np.nan)
    table[used] = [codes.get(words[k], np.nan) for k in used]
    return table


def _filled(header: Header, *columns: tuple[str, Sequence[str]]) -> None:
    for name, cells in columns:
        if "" in cells:
            raise ValueError(f"{header.where(list(cells).index(''))}, column {name!r}: expected a text, got nothing")


def _items_of_words(
    ids: Sequence[str] | None, named: Sequence[str], words: Sequence[str], missing: Missing
) -> list[Item]:
    found: dict[str, dict[str, None]] = {}
    for item, word in zip(named, words, strict=True):
        found.setdefault(item, {})[word] = None
    for item in ids or ():
        if item not in found:
            raise ValueError(f"no item {item!r}; {nearest(item, found)}")
    return [_item_of(item, list(found[item]), missing) for item in (found if ids is None else ids)]


def _item_of(name: str, words: Sequence[str], missing: Missing) -> Item:
    """An item with the codes, or else the texts in their order, as options."""
    words = [w for w in words if w]
    codes = word_codes(None, words)
    if len(codes) == len(words):
        numbers = np.array(list(codes.values()))
        item = item_of_codes(name, numbers[~np.isin(numbers, missing_codes(missing, name))])
    else:
        item = Item(name, name, options(words)) if 2 <= len(words) <= MAX_OPTIONS else None
    if item is None:
        raise ValueError(
            f"item {name!r}: expected 2 to {MAX_OPTIONS} different options, got {listed(words, 4) or 'none'}; "
            "give a survey that has the item"
        )
    return item


def _codes(survey: Survey, named: Sequence[str], words: Sequence[str], option: str, header: Header) -> Array:
    """(rows,) codes of the options, NaN in rows of other items."""
    known = {item.id: word_codes(item, set(words)) for item in survey.items}
    codes = np.full(len(words), np.nan)
    for row, (item, word) in enumerate(zip(named, words, strict=True)):
        if item not in known:
            continue
        if word not in known[item]:
            texts = [o.text for o in survey.items[survey.item_ids.index(item)].options]
            raise ValueError(
                f"{header.where(row)}, column {option!r}: {word!r} is no option of item {item}; {nearest(word, texts)}"
            )
        codes[row] = known[item][word]
    return codes
