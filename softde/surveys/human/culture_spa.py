"""CultureSPA's two JSON files: items of the World Values Survey and the share of each answer in 19 countries."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softde.files import expanded
from softde.surveys.checks import expect, naming
from softde.surveys.human.answers import HumanAnswers
from softde.surveys.human.coding import Cells, Missing, need_items, shares_of
from softde.surveys.survey import Item, Survey, options
from softde.surveys.values import listed

QUESTIONS = "wvs_questions.json"
PROPORTIONS = "proportions_group_by_country.json"


def load_culture_spa(
    folder: str | os.PathLike[str],
    survey: Survey | None = None,
    *,
    questions: str | os.PathLike[str] | None = None,
    missing: Missing = (),
    leave_out: Sequence[str] = (),
) -> HumanAnswers:
    """Option shares as CultureSPA publishes them (Xu et al., arXiv 2410.12971), from its folder `data`.

    Codes in the file are answers' codes: items with a code 0 have options valued from 0, all others from 1. Shares were
    taken over all respondents; here they are over those who gave a valid answer, so that they sum to one. Where two
    options are as frequent, the one that the file names first counts as the majority, as in CultureSPA's own score.

    Parameters
    ----------
    folder : with wvs_questions.json and proportions_group_by_country.json; or the path of the second.
    survey : whose items to read, by id ("Q46") and option value. None makes one of all items that have answers.
    questions : the first file, where it has another name or place.
    """
    path = expanded(os.fspath(folder))
    path = path / PROPORTIONS if path.is_dir() else path
    asked = path.with_name(QUESTIONS) if questions is None else expanded(os.fspath(questions))
    table = _json(path)
    with naming(path.name):
        cells, codes = _cells(table)
        if survey is None:
            survey = _survey(_json(asked), codes)
        need_items(survey, codes)
        return shares_of(survey, cells, path.name, missing, leave_out)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ValueError(
            f"cannot read {str(path)!r} ({error.strerror}); expected {QUESTIONS} and {PROPORTIONS} in one folder"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path.name}: no JSON ({error})") from None


def _cells(table: Any) -> tuple[Cells, dict[str, set[int]]]:
    """All shares, and the codes of every item that has any."""
    rows: list[tuple[str, str, float, float]] = []
    codes: dict[str, set[int]] = {}
    for region, items in expect(table, dict, "shares by region").items():
        for item, shares in expect(items, dict, f"region {region}").items():
            where = f"region {region}, item {item}"
            for code, share in expect(shares, dict, where).items():
                if not code.removeprefix("-").isdecimal():
                    raise ValueError(f"{where}: expected codes as whole numbers, got {code!r}")
                rows.append((region, item, float(code), float(expect(share, (int, float), f"{where}, code {code}"))))
                codes.setdefault(item, set()).add(int(code))
    if not rows:
        raise ValueError("expected region → item → code → share, got no shares")
    region, item, code, share = zip(*rows, strict=True)
    return Cells(region, item, code, share, lambda n: f"region {region[n]}, item {item[n]}", {}), codes


def _survey(questions: Any, codes: dict[str, set[int]]) -> Survey:
    """The items that have answers, in the order of the questions' file."""
    made = []
    with naming(QUESTIONS):
        for n, entry in enumerate(expect(questions, list, "questions"), start=1):
            name = expect(expect(entry, dict, f"question {n}").get("Q_id"), str, f"question {n}, Q_id")
            if name not in codes:
                continue
            texts = expect(entry.get("option_lst"), list, f"question {name}, option_lst")
            first = 0 if 0 in codes[name] else 1
            values = range(first, first + len(texts))
            if not codes[name] <= {*values, *(c for c in codes[name] if c < 0)}:
                strange = listed(map(str, sorted(codes[name] - set(values))))
                raise ValueError(f"question {name}: {len(texts)} options, but the shares have code {strange}")
            text = expect(entry.get("question"), str, f"question {name}, question")
            made.append(Item(name, text, options(map(str, texts), values)))
    absent = [item for item in codes if item not in {item.id for item in made}]
    if absent:
        raise ValueError(f"shares of items {listed(absent)}, which {QUESTIONS} does not have")
    return Survey(
        "culture-spa", "World Values Survey, as in CultureSPA", tuple(made), source="Xu et al., arXiv 2410.12971"
    )
