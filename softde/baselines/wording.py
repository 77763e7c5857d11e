"""The texts of the prompting conditions by language, and the names of regions as they stand in a sentence."""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from softde.surveys.checks import need_text
from softde.surveys.regions import region_name
from softde.surveys.values import FrozenDict, listed


@dataclass(frozen=True)
class Pole:
    """A factor in words: its name, and what stands at its low and at its high end; without ends it goes by name."""

    name: str
    low: str = ""
    high: str = ""


@dataclass(frozen=True)
class Wording:
    """One language's texts, in softde's own words; any of them may be given as a method's `template`, changed or not.

    persona, sequential : have the place {region}. background : {adjective} in English, else {region}.
    cross_culture : {region}, {similar} and {different}, which are lists of regions. example : {question} and {label}.
    description, value_persona : {region} and {values}. comma, last : what joins words of a list.
    levels : five, from the lowest. line, pole_line : one factor of the values, {name} and {level}, and {pole}, what
    stands at that end; separator : what joins them. between : {low} and {high}, the pole of a medium level.
    factors : English name of a factor in a shipped survey → its words.
    """

    persona: str
    background: str
    cross_culture: str
    sequential: str
    example: str
    description: str
    value_persona: str
    comma: str
    last: str
    levels: tuple[str, ...]
    separator: str
    line: str
    pole_line: str
    between: str
    factors: Mapping[str, Pole]


def languages() -> tuple[str, ...]:
    """Tags of the languages that there are texts in."""
    return tuple(_wordings())


def wording(language: str) -> Wording:
    """The texts of a language by its tag; "zh-CN" is "zh".

    Raises
    ------
    ValueError
        There are none.
    """
    found = _wordings().get(_tag(language))
    if found is None:
        raise ValueError(
            f"language: there are texts in {listed(languages())}, not in {language!r}; give template= with a text of "
            "your own, or one of these languages"
        )
    return found


def spoken(region: str, language: str = "en") -> str:
    """A region as it stands in a sentence: "USA" is "the United States", or "美国"; an unknown one stays as it is."""
    need_text(region, "region")
    row = _row(region)
    if row is None:
        return region
    tag = _tag(language)
    return row.get(tag, "") or (row["region"] if tag == "en" else region)


def listing(words: Sequence[str], language: str = "en") -> str:
    """Words as a list in a sentence, "a, b and c"; with commas alone in a language that there are no texts in."""
    texts = _wordings().get(_tag(language))
    comma, last = (texts.comma, texts.last) if texts else (", ", ", ")
    return last.join([comma.join(words[:-1]), words[-1]] if len(words) > 1 else words)


def adjective(region: str) -> str:
    """The English adjective of a region: "Saudi", "Dutch"."""
    row = _row(region)
    if row is None:
        raise ValueError(f"region {region!r}: no adjective is known; write it into the template, or use '{{region}}'")
    return row["adjective"]


def fill(template: str, needed: Sequence[str], words: Mapping[str, str]) -> str:
    """A template with its places filled in, all at once, so that braces in the words stay.

    needed : places that it must have.

    Raises
    ------
    ValueError
        One of them is missing.
    """
    missing = [f"{{{place}}}" for place in needed if f"{{{place}}}" not in template]
    if missing:
        raise ValueError(
            f"template: expected a text with {' and '.join(missing)} in it, got {template!r}; add the place"
        )
    return re.sub(r"{(\w+)}", lambda match: words.get(match[1], match[0]), template)


def _tag(language: str) -> str:
    return str(language).partition("-")[0].lower()


def _row(region: str) -> Mapping[str, str] | None:
    name = region_name(region) or region_name(region.removeprefix("the "))
    return _regions().get(name or "")


@lru_cache(maxsize=1)
def _regions() -> Mapping[str, Mapping[str, str]]:
    text = resources.files("softde.baselines").joinpath("regions.csv").read_text(encoding="utf-8")
    return FrozenDict({row["region"]: FrozenDict(row) for row in csv.DictReader(text.splitlines())})


@lru_cache(maxsize=1)
def _wordings() -> Mapping[str, Wording]:
    text = resources.files("softde.baselines").joinpath("wording.toml").read_text(encoding="utf-8")
    found = {}
    for language, texts in tomllib.loads(text).items():
        factors = FrozenDict({name: Pole(**words) for name, words in texts.pop("factors").items()})
        levels, last = tuple(texts.pop("levels")), texts.pop("and")
        found[language] = Wording(**texts, last=last, levels=levels, factors=factors)
    return FrozenDict(found)
