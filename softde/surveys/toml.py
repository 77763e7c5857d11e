"""Surveys in TOML: text → document (plain tables) → survey, and a survey as text again."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from softde.surveys.checks import check_keys, expect, naming
from softde.surveys.csvfile import read_scores
from softde.surveys.published import Edition
from softde.surveys.survey import Factor, Item, Option, Survey, options
from softde.surveys.values import nearest

Document = dict[str, Any]
TEXT_KEYS = ("id", "title", "version", "source", "note", "language", "instruction")
TOP_KEYS = (*TEXT_KEYS, "common_first", "base", "scales", "items", "factors", "variants", "published")
EMPTY: Mapping[str, Callable[[], Any]] = {
    "scales": dict,
    "items": list,
    "factors": list,
    "variants": dict,
    "published": list,
}


def parse(text: str, read: Callable[[str], str]) -> Document:
    """TOML text as a document, checked for shape and unknown keys; `read` gives the text of a file it names."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"invalid TOML: {error}") from None
    check_keys(document, TOP_KEYS, "survey")
    for key, empty in EMPTY.items():
        tables = expect(document.setdefault(key, empty()), dict if empty is dict else list, key)
        for table in tables if empty is list else ():
            expect(expect(table, dict, f"[[{key}]]").get("id", ""), str, f"[[{key}]]: id")
    for table in document["published"]:
        _read_published(table, read)
    return document


def _read_published(table: Document, read: Callable[[str], str]) -> None:
    check_keys(table, ("edition", "source", "file", "scores"), "[[published]]", required=("edition", "source"))
    if ("file" in table) == ("scores" in table):
        raise ValueError(f"published edition {table['edition']!r}: expected either file or scores; give one")
    if "file" in table:
        file = expect(table.pop("file"), str, f"published edition {table['edition']!r}: file")
        with naming(file):
            table["scores"] = read_scores(read(file))


def build(document: Document, stem: str) -> Survey:
    """The survey of a complete document; a file without an id is named by its stem."""
    texts = {key: expect(document[key], str, key) for key in TEXT_KEYS if key in document}
    scales = {name: _scale(name, table) for name, table in document["scales"].items()}
    if not document["items"]:
        raise ValueError("survey has no items; add [[items]] tables with id, text and scale")
    return Survey(
        **{"id": stem, "title": stem, **texts},
        items=tuple(_item(i, table, scales) for i, table in enumerate(document["items"], start=1)),
        factor_models=tuple(_factor(table) for table in document["factors"]),
        variants={name: _variant(name, table) for name, table in document["variants"].items()},
        published=tuple(_edition(table) for table in document["published"]),
        common_first=document.get("common_first", False),
    )


def _scale(name: str, table: Any) -> Document:
    check_keys(expect(table, dict, f"scale {name!r}"), ("options", "values"), f"scale {name!r}", ("options",))
    return dict(table)


def _item(position: int, table: Document, scales: Mapping[str, Document]) -> Item:
    where = f"item {table['id']!r}" if "id" in table else f"item number {position}"
    check_keys(table, ("id", "text", "topic", "scale", "options", "values"), where, required=("id", "text"))
    if ("scale" in table) == ("options" in table):
        given = "both" if "scale" in table else "neither"
        raise ValueError(f"{where}: expected either scale (a name under [scales]) or options, got {given}")
    scale = table
    if "scale" in table:
        name = expect(table["scale"], str, f"{where}: scale")
        if name not in scales:
            raise ValueError(f"{where}: unknown scale {name!r}; {nearest(name, scales)}")
        scale = {**scales[name], **{key: table[key] for key in ("values",) if key in table}}
    with naming(where):
        texts, values = expect(scale["options"], list, "options"), scale.get("values")
        made = options(texts, None if values is None else expect(values, list, "values"))
    return Item(table["id"], table["text"], made, expect(table.get("topic", ""), str, f"{where}: topic"))


def _factor(table: Document) -> Factor:
    where = f"factor {table['id']!r}" if "id" in table else "factor"
    check_keys(table, ("id", "name", "weights"), where, required=("id", "weights"))
    name = expect(table.get("name", ""), str, f"{where}: name")
    return Factor(table["id"], name, expect(table["weights"], dict, f"{where}: weights"))


def _variant(name: str, table: Any) -> tuple[Factor, ...]:
    where = f"variant {name!r}"
    factors = expect(table, dict, where).items()
    return tuple(Factor(f, "", expect(weights, dict, f"{where}, factor {f!r}")) for f, weights in factors)


def _edition(table: Document) -> Edition:
    name = expect(table["edition"], str, "published: edition")
    scores = expect(table["scores"], dict, f"edition {name}: scores")
    for region, row in scores.items():
        for factor, value in expect(row, dict, f"edition {name}, {region!r}").items():
            expect(value, (int, float), f"edition {name}, {region!r}, {factor}")
    return Edition(name, expect(table["source"], str, f"edition {name}: source"), scores)


def write(survey: Survey) -> str:
    """Every field of the survey as TOML; options that several items share become one scale."""
    scales: dict[tuple[Option, ...], str] = {}
    for item in survey.items:
        scales.setdefault(item.options, f"scale{len(scales) + 1}")
    lines = [f"{key} = {_text(getattr(survey, key))}" for key in TEXT_KEYS]
    lines += ["common_first = true"] if survey.common_first else []
    for opts, name in scales.items():
        lines += ["", f"[scales.{name}]", f"options = {_array(_text(o.text) for o in opts)}"]
        lines += [f"values = {_array(_number(o.value) for o in opts)}"]
    for item in survey.items:
        lines += ["", "[[items]]", f"id = {_text(item.id)}", f"topic = {_text(item.topic)}"]
        lines += [f"scale = {_text(scales[item.options])}", f"text = {_text(item.text)}"]
    for factor in survey.factor_models:
        lines += ["", "[[factors]]", f"id = {_text(factor.id)}", f"name = {_text(factor.name)}"]
        lines += [f"weights = {_inline(factor.weights)}"]
    for variant, factors in survey.variants.items():
        lines += ["", f"[variants.{_text(variant)}]"]
        lines += [f"{_text(factor.id)} = {_inline(factor.weights)}" for factor in factors]
    for edition in survey.published:
        lines += ["", "[[published]]", f"edition = {_text(edition.name)}", f"source = {_text(edition.source)}"]
        lines += ["[published.scores]", *(f"{_text(r)} = {_inline(row)}" for r, row in edition.scores.items())]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's, but for the delete character, which TOML wants escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def _array(parts: Iterable[str]) -> str:
    return f"[{', '.join(parts)}]"


def _inline(numbers: Mapping[str, float]) -> str:
    return "{ " + ", ".join(f"{_text(k)} = {_number(v)}" for k, v in numbers.items()) + " }"
