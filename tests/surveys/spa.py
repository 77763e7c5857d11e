"""CultureSPA's data as tests read it, and its metrics the slow way, straight from the files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from softde.surveys.human import HumanAnswers, load_culture_spa

# the 18 regions of the paper, and those of them with stored answers as that culture
REGIONS = [
    *("USA", "CAN", "BOL", "BRA", "GBR", "NLD", "DEU", "UKR", "CHN"),
    *("RUS", "IND", "THA", "KEN", "NGA", "ETH", "ZWE", "AUS", "NZL"),
]
AWARE = ["USA", "BRA", "DEU", "CHN", "RUS", "IND", "KEN", "ZWE", "NZL"]


@lru_cache(maxsize=1)
def human(folder: Path) -> HumanAnswers:
    return load_culture_spa(folder)


@lru_cache(maxsize=16)
def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def stored(folder: Path, name: str) -> list[dict[str, Any]]:
    """Llama-3-8B-Instruct's answers, as their file has them: a list of records."""
    return read(folder / "llama-3-8b-instruct-answers" / f"wvs_result_{name}_0.json")


def slow_score(folder: Path, answers: Mapping[str, Any], region: str) -> tuple[float, int]:
    """Their metric one item at a time, from the raw files: the score and how many items it rests on."""
    options = {q["Q_id"]: len(q["option_lst"]) for q in read(folder / "wvs_questions.json")}
    gold = read(folder / "proportions_group_by_country.json")[region]
    error = size = count = 0
    for item, answer in answers.items():
        found = re.search(r"[0-9]+", str(answer))
        if found is None or int(found[0]) > 10 or not gold.get(item):
            continue
        majority = int(next(iter(gold[item])))  # the first key has the largest share
        error += (int(found[0]) - majority) ** 2
        size += (options[item] - 1) ** 2
        count += 1
    return 100 * (1 - math.sqrt(error) / math.sqrt(size)), count


def entropy(p: list[float]) -> float:
    return -sum(x * math.log2(x) for x in p if x > 0)


def slow_js(p: list[float], q: list[float]) -> float:
    return entropy([(a + b) / 2 for a, b in zip(p, q, strict=True)]) - (entropy(p) + entropy(q)) / 2
