"""`load_survey`: shipped surveys, a user's own TOML or CSV, and what a file inherits from its base survey."""

from __future__ import annotations

import codecs
import logging
import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path

from softde.files import expanded
from softde.surveys.checks import naming
from softde.surveys.csvfile import read_items
from softde.surveys.survey import Survey
from softde.surveys.toml import Document, build, parse
from softde.surveys.values import listed, nearest

log = logging.getLogger("softde")


def shipped_surveys() -> tuple[str, ...]:
    """Names of the surveys that come with softde."""
    return tuple(name for name in _shipped_files() if "." not in name)


def survey_languages(name: str) -> tuple[str, ...]:
    """Tags of the languages that a shipped survey comes in, its own first; VSM 2013 comes in en, ar and zh."""
    others = (file.partition(".") for file in _shipped_files())
    return (_shipped(name).language, *(language for survey, _, language in others if survey == name and language))


@lru_cache(maxsize=1)
def _shipped_files() -> tuple[str, ...]:
    """Shipped surveys, and translations of some as "vsm13.ar"."""
    files = resources.files("softde.surveys").joinpath("data").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def load_survey(
    source: str | os.PathLike[str],
    *,
    base: str | None = None,
    options: Sequence[str] | None = None,
    language: str | None = None,
) -> Survey:
    """A survey by shipped name ("vsm13", or "vsm13:cat_35_25" for a variant) or from a .toml or .csv file.

    Parameters
    ----------
    source : a name of `shipped_surveys()` or a path.
    base : for a .csv: the shipped survey whose scales, formulas and published scores items of the same id inherit.
        Without it, a .csv with exactly the item ids of a shipped survey inherits from that one.
    options : for a .csv: the option texts of every item that has none of its own, valued 1, 2, ….
    language : for a shipped survey: one of its `survey_languages`; "vsm13:ar" is short for it and the survey's id.

    Raises
    ------
    ValueError
        Anything wrong, naming the file, the item or key, and what to change.
    """
    name = os.fspath(source)
    survey, _, rest = name.partition(":")
    if isinstance(source, str) and survey in shipped_surveys():
        if base is not None or options is not None:
            raise ValueError(f"base and options go with a .csv file; {name!r} is a shipped survey that has its own")
        return _in_language(survey, rest, language)
    if language is not None:
        raise ValueError("language goes with the name of a shipped survey; a file has its own, under the key language")
    path = expanded(name)
    kind = path.suffix.lower()
    if kind not in (".toml", ".csv"):
        hint = nearest(name, shipped_surveys())
        raise ValueError(f"unknown survey {name!r} ({hint}); give the name of a shipped one or a .toml or .csv file")
    text = read_text(path)
    with naming(path.name):
        if kind == ".csv":
            return build(_with_base(_csv_document(text, base, options)), path.stem)
        if base is not None or options is not None:
            raise ValueError("base and options go with a .csv file; in a .toml file they are keys")
        document = parse(text, lambda file: read_text(path.parent / expanded(file)))
        if isinstance(document.get("human"), str) and document["human"]:
            document["human"] = os.path.abspath(path.parent / expanded(document["human"]))
        return build(_with_base(document), path.stem)


def _in_language(name: str, rest: str, language: str | None) -> Survey:
    """A shipped survey; `rest` is a language, a variant, or both with a colon between."""
    known = survey_languages(name)
    first, _, after = rest.partition(":")
    if first in known and language in (None, first):
        language, rest = first, after
    if language is not None and language not in known:
        raise ValueError(
            f"survey {name!r} comes in {listed(known)}, not in language {language!r}; give a file of yours"
        )
    survey = _shipped(name if language in (None, known[0]) else f"{name}.{language}")
    return survey.variant(rest) if rest else survey


@lru_cache(maxsize=32)
def _shipped(name: str) -> Survey:
    return build(_with_base(_shipped_document(name)), name)


def _shipped_document(name: str) -> Document:
    folder = resources.files("softde.surveys").joinpath("data")
    with naming(f"{name}.toml"):
        return parse(
            folder.joinpath(f"{name}.toml").read_text(encoding="utf-8"),
            lambda file: folder.joinpath(file).read_text(encoding="utf-8"),
        )


def read_text(path: Path) -> str:
    """A file's text in UTF-8 or as Excel's "Unicode text", lines ended by newlines alone."""
    try:
        content = path.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # Excel's "Unicode text"
        return content.decode("utf-16" if wide else "utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    except OSError as error:
        raise ValueError(f"cannot read {str(path)!r} ({error.strerror}); check the path") from None


def _csv_document(text: str, base: str | None, options: Sequence[str] | None) -> Document:
    items = read_items(text, options)
    document: Document = {"items": items, "scales": {}, "factors": [], "variants": {}, "published": []}
    base = base or _survey_with(item["id"] for item in items)
    if base is not None:
        ids = _shipped(_base_name(base)).item_ids
        _renumber(items, ids)
        strange = [item["id"] for item in items if item["id"] not in ids and "options" not in item]
        if strange:
            raise ValueError(
                f"items {listed(strange)} are none of base {base!r} and have no options; leave these rows out, or fill "
                "their options (separated by |)"
            )
        return {**document, "base": base}
    bare = [item["id"] for item in items if "options" not in item]
    if bare:
        raise ValueError(
            f"items without options: {listed(bare)}; add an 'options' column (separated by |), or give load_survey "
            f"options=[...] or base= one of {listed(shipped_surveys())}"
        )
    return document


def _survey_with(ids: Iterable[str]) -> str | None:
    """The shipped survey that has exactly these item ids, if any."""
    given = set(ids)
    for name in shipped_surveys():
        if given == set(_shipped(name).item_ids):
            log.info("the items are those of %s: its scales, formulas and published scores are used", name)
            return name
    return None


def _renumber(items: list[Document], ids: tuple[str, ...]) -> None:
    """The base's item m07 may be called m7 or M07; where a file only numbers its items, it may be called 7."""
    spellings = {spelling: i for i in ids for spelling in _spellings(i)}
    for item in items:
        if item["id"] not in ids:
            item["id"] = spellings.get(_spellings(item["id"])[0], item["id"])


def _spellings(item: str) -> tuple[str, ...]:
    """An id in lower case with its last number without zeros, and that number alone."""
    match = re.fullmatch(r"(.*?)(\d+)", item.casefold())
    return (f"{match[1]}{int(match[2])}", str(int(match[2]))) if match else (item.casefold(),)


def _base_name(name: object) -> str:
    if name not in shipped_surveys():
        raise ValueError(f"base {name!r} is not a shipped survey; {nearest(str(name), shipped_surveys())}")
    return str(name)


def _with_base(own: Document) -> Document:
    """A document completed from its base: scales by name, items by id; formulas and scores unless it has formulas."""
    if "base" not in own:
        return own
    name = _base_name(own["base"])
    base = _shipped_document(name)
    merged: Document = {
        k: base[k] for k in ("version", "language", "instruction", "common_first", "source") if k in base
    }
    merged |= {"title": f"items of its own, formulas of {name}"} | {k: own[k] for k in own if k != "base"}
    merged["scales"] = base["scales"] | own["scales"]
    merged["items"] = [_valued(item, base, merged["scales"]) for item in _items_over(base["items"], own["items"])]
    if not own["factors"]:
        ids = [item.get("id") for item in merged["items"]]
        known = [item["id"] for item in base["items"]]
        missing, own_ids = [i for i in known if i not in ids], [str(i) for i in ids if i not in known]
        if missing:
            strange = f" (it has no {listed(own_ids)}; ids are spelled like {known[0]})" if own_ids else ""
            raise ValueError(
                f"items {listed(missing)} of base {name!r} are missing, and its formulas need them; give all "
                f"{len(known)}{strange}"
            )
        merged["factors"] = base["factors"]
        for key in ("composites", "scoring", "projection", "constant"):
            if key in base:
                merged[key] = own.get(key) or base[key]
        merged["variants"] = base["variants"] | own["variants"]
        merged["published"] = own["published"] or base["published"]
    return merged


def _valued(item: Document, base: Document, scales: Document) -> Document:
    """An item with options of its own but no values: those of the base's item, so that no translation reverses it."""
    below = next((b for b in base["items"] if b["id"] == item.get("id")), None)
    scale = item if "options" in item else scales.get(str(item.get("scale")), {})
    if below is None or "values" in item or "values" in scale or not isinstance(scale.get("options"), list):
        return item
    values, count = base["scales"][below["scale"]].get("values", []), len(scale["options"])
    if values == list(range(1, len(values) + 1)):
        return item
    if len(values) != count:
        raise ValueError(
            f"item {item['id']!r}: {count} options without values, and the base's {len(values)} are valued "
            f"{listed(f'{v:g}' for v in values)}; add values, one per option"
        )
    return {**item, "values": values}


def _items_over(base: list[Document], own: list[Document]) -> list[Document]:
    """The file's items in its order, each over the base's item of the same id; the base's own where it has none."""
    below = {item["id"]: item for item in base}
    merged = []
    for item in own:
        inherited = dict(below.get(item.get("id", ""), {}))
        for one, other in (("options", "scale"), ("scale", "options")):
            if one in item:
                inherited.pop(other, None)
        merged.append(inherited | item)
    return merged or base
