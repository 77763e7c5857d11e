"""Region names: one table of names and codes, and a lookup that forgives case, accents and punctuation."""

from __future__ import annotations

import csv
import difflib
import unicodedata
from collections.abc import Callable, Iterable
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
    return "".join(filter(is_letter, plain))


def is_letter(character: str) -> bool:
    """A letter, a digit, or a mark that spells, as the vowel signs of Devanagari, Thai and their like do.

    Accents and the points of Hebrew and Arabic do not: by Unicode's combining classes, spelling marks have none, 6 to 9
    (nukta, kana voicing, virama) or one of their script's own (84 to 132); variation selectors have none, but no sound.
    """
    if unicodedata.category(character) not in ("Mn", "Mc"):
        return character.isalnum()
    spells = unicodedata.combining(character) in (0, *range(6, 10), *range(84, 133))
    return spells and not unicodedata.name(character, "").startswith(("VARIATION SELECTOR", "COMBINING GRAPHEME"))


def _trimmed(text: str) -> str:
    """Lower case, in one way of writing accents and spaces; every sign stays."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


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
    """The member of `names` that `text` means: the very same name, else the one that differs least in its spelling.

    Raises
    ------
    ValueError
        Not among them; says the nearest names. Or two of them are as near.
    """
    text, names = str(text), list(names)
    if text in names:
        return text
    spellings: tuple[Callable[[str], str | None], ...] = (_trimmed, normalised, region_name)
    for spelling in spellings:
        key = spelling(text)
        found = [name for name in names if key and spelling(name) == key]
        if len(found) > 1:
            raise ValueError(f"region {text!r} means {' or '.join(map(repr, found))}; write it as it stands there")
        if found:
            return found[0]
    known = region_name(text)
    if known is not None:
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
