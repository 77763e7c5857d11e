"""Human answers: any known file → option shares, item means and respondents × items per region."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import TypeAlias

from softde.files import expanded
from softde.surveys.checks import naming
from softde.surveys.csvfile import QSTN_IDS
from softde.surveys.human.answers import HumanAnswers
from softde.surveys.human.columns import known_columns, read_header
from softde.surveys.human.culture_spa import PROPORTIONS, QUESTIONS, load_culture_spa
from softde.surveys.human.global_opinions import GLOBAL_OPINIONS, load_global_opinions
from softde.surveys.human.long import load_answers, load_qstn, load_shares
from softde.surveys.human.wide import IVS_REGIONS, load_ivs, load_wide, load_wvs
from softde.surveys.survey import Survey

log = logging.getLogger("softde")
PathLike: TypeAlias = str | os.PathLike[str]

EXPECTED = (
    f"a folder with {QUESTIONS} and {PROPORTIONS} (CultureSPA), or a table with columns B_COUNTRY_ALPHA, W_WEIGHT, Q1 "
    "… (World Values Survey), S003 or COUNTRY_ALPHA, S017, A008 … (Integrated Values Surveys), "
    f"{', '.join(GLOBAL_OPINIONS)} (GlobalOpinionQA), questionnaire_item_id and answer (QSTN), region, item, option "
    "and share or count, respondent, region, item and answer, or region and the survey's items"
)


def load_human(
    path: PathLike,
    survey: Survey | None = None,
    *,
    items: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    cache: PathLike | None = None,
) -> HumanAnswers:
    """Human answers from a file or folder whose kind is seen from its columns; a log line says which it is.

    Parameters
    ----------
    path : CultureSPA's folder or its JSON of shares; or a .csv, .parquet or .dta table of one of the kinds that have a
        loader of their own, which has more options: `load_wvs`, `load_ivs`, `load_wide`, `load_shares`,
        `load_answers`, `load_qstn`, `load_global_opinions`.
    survey : whose items to read. None makes a survey of the items in the file (or of those in `items`).
    leave_out : regions that are not read.
    cache : a folder for what was read of a big table, as Parquet.

    Raises
    ------
    ValueError
        None of the known kinds, or anything wrong in the file, naming file, line and column.
    ImportError
        A table, and pyarrow is not installed.
    """
    place = expanded(os.fspath(path))
    if place.is_dir() or place.suffix.lower() == ".json":
        if place.is_dir() and not (place / PROPORTIONS).exists():
            raise ValueError(f"{place.name or place}: no {PROPORTIONS} in the folder; expected {EXPECTED}")
        _say(place.name, "CultureSPA's shares")
        human = load_culture_spa(place, survey, leave_out=leave_out)
        return human if items is None else human.select(items)
    with naming(place.name):
        header = read_header(place)
        kind, load = _kind(header.columns, survey, items, leave_out, cache)
    _say(place.name, kind)
    return load(place)


def answers_of(survey: Survey, cache: PathLike | None = None) -> HumanAnswers:
    """The human answers that a survey's file names with `human = "…"`."""
    path = getattr(survey, "human", "")
    if not path:
        raise ValueError(
            f'survey {survey.id!r} names no human answers; add human = "file" to its TOML, or use '
            "load_human(path, survey)"
        )
    return load_human(path, survey, cache=cache)


def _say(name: str, kind: str) -> None:
    log.info("%s is read as %s", name, kind)


def _kind(
    columns: Sequence[str],
    survey: Survey | None,
    items: Sequence[str] | None,
    leave_out: Sequence[str],
    cache: PathLike | None,
) -> tuple[str, Callable[[PathLike], HumanAnswers]]:
    """What a table with these columns is, and how it is read."""
    have = set(columns)
    if "B_COUNTRY_ALPHA" in have:
        return "World Values Survey, a row per respondent", lambda path: load_wvs(
            path, survey, items=items, leave_out=leave_out, cache=cache
        )
    if have & set(IVS_REGIONS) and have & {"S001", "S017", "S020"}:
        weight = "S017" if "S017" in have else ""
        return "Integrated Values Surveys, a row per respondent", lambda path: load_ivs(
            path, survey, items=items, weight=weight, leave_out=leave_out, cache=cache
        )
    if set(GLOBAL_OPINIONS) <= have:
        return "GlobalOpinionQA", lambda path: load_global_opinions(path, survey, items=items, leave_out=leave_out)
    if have & set(QSTN_IDS):
        return "QSTN's answers", lambda path: load_qstn(path, survey, items=items, leave_out=leave_out)
    if {"region", "item", "option"} <= have and have & {"share", "count"}:
        return "shares, a row per region, item and option", lambda path: load_shares(
            path, survey, items=items, leave_out=leave_out, cache=cache
        )
    weight = "weight" if "weight" in have else ""
    if {"respondent", "region", "item", "answer"} <= have:
        return "answers, a row per respondent and item", lambda path: load_answers(
            path, survey, items=items, weight=weight, leave_out=leave_out, cache=cache
        )
    asked = survey.item_ids if survey is not None else tuple(items or ())
    if "region" in have and have & set(asked):
        return "answers, a row per respondent", lambda path: load_wide(
            path, survey, items=items, weight=weight, leave_out=leave_out, cache=cache
        )
    raise ValueError(f"columns {known_columns(columns)} are none of a known kind; expected {EXPECTED}")
