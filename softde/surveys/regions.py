"""Region names: one table of names and codes, and a lookup that forgives case, accents and punctuation."""

from __future__ import annotations

import csv
import difflib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from softde.surveys.values import FrozenDict


@dataclass(frozen=True)
class Region:
    """A region with its ISO 3166 codes (empty for parts and groups of countries) and the 2015 matrix's own code."""

    name: str
    code: str
    iso2: str
    iso3: str
    aliases: tuple[str, ...] = ()


def normalised(text: str) -> str:
    """Lower case, without accents, spaces or punctuation: what two spellings of a name have in common."""
    plain = unicodedata.normalize("NFKD", text.replace("&", " and ")).casefold()
    return "".join(c for c in plain if c.isalnum())


@lru_cache(maxsize=1)
def known_regions() -> tuple[Region, ...]:
    """Every region softde knows by name, from data/regions.csv."""
    text = resources.files("softde.surveys").joinpath("data/regions.csv").read_text(encoding="utf-8")
    return tuple(
        Region(row["name"], row["code"], row["iso2"], row["iso3"], tuple(filter(None, row["aliases"].split(";"))))
        for row in csv.DictReader(text.splitlines())
    )


@lru_cache(maxsize=1)
def _names_by_key() -> FrozenDict[str, str]:
    """Normalised name, alias or code → name. Earlier passes win: names, aliases, ISO3, matrix code, ISO2.

    The matrix code SLV (Slovenia) is El Salvador's ISO3; it is the only code in the table that means two regions.
    """
    found: dict[str, str] = {}
    passes = (
        lambda r: (r.name,),
        lambda r: r.aliases,
        lambda r: (r.iso3,),
        lambda r: (r.code,),
        lambda r: (r.iso2,),
    )
    for keys in passes:
        for region in known_regions():
            for key in keys(region):
                if key:
                    found.setdefault(normalised(key), region.name)
    return FrozenDict(found)


def region_name(text: str) -> str | None:
    """softde's name of a region given by name, alias, ISO 3166 or matrix code; None when it is not known."""
    return _names_by_key().get(normalised(text))


def find_region(text: str, names: Iterable[str]) -> str:
    """The member of `names` that `text` means.

    Raises
    ------
    ValueError
        Not among them; says the nearest names.
    """
    text, names = str(text), list(names)
    own = {normalised(name): name for name in names}
    if normalised(text) in own:
        return own[normalised(text)]
    known = region_name(text)
    if known is not None:
        for name in names:
            if region_name(name) == known:
                return name
        raise ValueError(
            f"{known} is a known region without published scores in this survey; list the others with survey.regions()"
        )
    raise ValueError(f"unknown region {text!r}; {_suggestion(text, names)}")


def _suggestion(text: str, names: list[str]) -> str:
    """The end of an unknown region's message: up to three close names, also by way of their aliases."""
    spellings = {normalised(name): name for name in names}
    for region in known_regions():
        name = next((n for n in names if n == region.name), None)
        spellings |= {normalised(a): name for a in region.aliases if name}
    close = difflib.get_close_matches(normalised(text), spellings, n=5, cutoff=0.6)
    found = list(dict.fromkeys(spellings[key] for key in close))[:3]
    if found:
        return f"did you mean {' or '.join(found)}?"
    return "list the known ones with survey.regions(), or softde regions on the command line"
