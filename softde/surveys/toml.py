"""Surveys in TOML: text → document (plain tables) → survey, and a survey as text again."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from softde.surveys.checks import check_keys, expect, naming
from softde.surveys.composites import Pair, Subset
from softde.surveys.csvfile import read_scores
from softde.surveys.policy import Projection, Scoring
from softde.surveys.published import Edition
from softde.surveys.survey import NO_TEXT, Composite, Factor, Item, Option, Survey, options
from softde.surveys.values import nearest

Document = dict[str, Any]
TEXT_KEYS = ("id", "title", "version", "source", "note", "language", "instruction")
ITEM_KEYS = ("id", "text", "topic", "scale", "options", "values", "phrasings", "missing")
TOP_KEYS = (
    *(*TEXT_KEYS, "common_first", "constant", "human", "base", "scales", "items"),
    *("composites", "scoring", "projection", "factors", "variants", "published"),
)
FORM_KEYS = ("weights", "offset", "mean", "min_valid")
EMPTY: Mapping[str, Callable[[], Any]] = {
    "scales": dict,
    "items": list,
    "composites": list,
    "scoring": dict,
    "projection": dict,
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
        human=expect(document.get("human", ""), str, "human"),
        composites=tuple(_composite(table) for table in document.get("composites", [])),
        scoring=_scoring(document.get("scoring", {}), [item["id"] for item in document["items"]]),
        projection=_projection(document.get("projection", {})),
        constant=document.get("constant"),
    )


def _scale(name: str, table: Any) -> Document:
    check_keys(expect(table, dict, f"scale {name!r}"), ("options", "values"), f"scale {name!r}", ("options",))
    return dict(table)


def _item(position: int, table: Document, scales: Mapping[str, Document]) -> Item:
    where = f"item {table['id']!r}" if "id" in table else f"item number {position}"
    check_keys(table, ITEM_KEYS, where, required=("id", "text"))
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
    phrasings = tuple(expect(table.get("phrasings", []), list, f"{where}: phrasings"))
    missing = tuple(expect(table.get("missing", []), list, f"{where}: missing"))
    topic = expect(table.get("topic", ""), str, f"{where}: topic")
    return Item(table["id"], table["text"], made, topic, phrasings, missing)


def _factor(table: Document) -> Factor:
    where = f"factor {table['id']!r}" if "id" in table else "factor"
    check_keys(table, ("id", "name", *FORM_KEYS, "component", "scale"), where, required=("id",))
    return _form(table, where)


def _form(table: Document, where: str) -> Factor:
    """A factor, or a composite in one of a factor's forms."""
    return Factor(
        table["id"],
        expect(table.get("name", ""), str, f"{where}: name"),
        expect(table.get("weights", {}), dict, f"{where}: weights"),
        table.get("offset", 0.0),
        _ids(table.get("mean", []), f"{where}: mean"),
        table.get("component", 0),
        table.get("scale", 1.0),
        table.get("min_valid"),
    )


def _composite(table: Document) -> Composite:
    where = f"composite {table['id']!r}" if "id" in table else "composite"
    name = expect(table.get("name", ""), str, f"{where}: name")
    if "pair" in table:
        keys = ("id", "pair", "groups", "values", "otherwise")
        check_keys(table, (*keys, "name"), where, required=keys)
        groups = [tuple(expect(g, list, f"{where}: groups")) for g in expect(table["groups"], list, f"{where}: groups")]
        values = tuple(expect(table["values"], list, f"{where}: values"))
        return Pair(table["id"], _ids(table["pair"], f"{where}: pair"), tuple(groups), values, table["otherwise"], name)
    if "subset" in table:
        check_keys(table, ("id", "name", "subset", "mentioned"), where, required=("id",))
        return Subset(table["id"], _ids(table["subset"], f"{where}: subset"), table.get("mentioned", 1), name)
    check_keys(table, ("id", "name", "pair", "subset", *FORM_KEYS), where, required=("id",))
    if not ("weights" in table or "mean" in table):
        raise ValueError(f"{where}: expected one of pair, subset, weights and mean, got none")
    return _form(table, where)


def _scoring(table: Document, items: list[str]) -> Scoring:
    check_keys(table, ("centre", "min_valid"), "scoring")
    centre = table.get("centre", [])
    return Scoring(tuple(items) if centre == "all" else _ids(centre, "scoring: centre"), table.get("min_valid", 0))


def _projection(table: Document) -> Projection | None:
    if not table:
        return None
    keys = ("variables", "means", "deviations", "loadings", "rotation")
    check_keys(table, keys, "projection", required=keys)
    lists = {key: expect(table[key], list, f"projection: {key}") for key in keys}
    for key in ("loadings", "rotation"):
        lists[key] = [expect(row, list, f"projection: {key}") for row in lists[key]]
    return Projection(**lists | {"variables": _ids(lists["variables"], "projection: variables")})


def _ids(value: Any, where: str) -> tuple[str, ...]:
    return tuple(expect(name, str, where) for name in expect(value, list, where))


def _variant(name: str, table: Any) -> tuple[Factor, ...]:
    """Factors by id: weights alone (item = weight), or a table with weights or mean and what goes with them."""
    where = f"variant {name!r}"
    factors = []
    for factor, form in expect(table, dict, where).items():
        place = f"{where}, factor {factor!r}"
        if isinstance(expect(form, dict, place).get("weights"), dict) or isinstance(form.get("mean"), list):
            check_keys(form, FORM_KEYS, place)
            factors.append(_form({"id": factor, **form}, place))
        else:
            factors.append(Factor(factor, "", form))
    return tuple(factors)


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
    lines += [f"constant = {_number(survey.constant)}"] if survey.constant is not None else []
    lines += [f"human = {_text(survey.human)}"] if survey.human else []
    for opts, name in scales.items():
        lines += ["", f"[scales.{name}]", f"options = {_array(_text(o.text) for o in opts)}"]
        lines += [f"values = {_array(_number(o.value) for o in opts)}"]
    for item in survey.items:
        lines += ["", "[[items]]", f"id = {_text(item.id)}", f"topic = {_text(item.topic)}"]
        lines += [f"scale = {_text(scales[item.options])}", f"text = {_text(item.text)}"]
        lines += [f"phrasings = {_array(map(_text, item.phrasings))}"] if item.phrasings else []
        lines += [f"missing = {_array(map(_number, item.missing))}"] if item.missing else []
    for composite in survey.composites:
        lines += ["", "[[composites]]", f"id = {_text(composite.id)}", f"name = {_text(composite.name)}"]
        lines += _composite_lines(composite)
    lines += _scoring_lines(survey)
    if survey.projection is not None:
        lines += ["", "[projection]", f"variables = {_texts(survey.projection.variables)}"]
        lines += [f"{key} = {_array(map(_number, getattr(survey.projection, key)))}" for key in ("means", "deviations")]
        for key in ("loadings", "rotation"):
            rows = (_array(map(_number, row)) for row in getattr(survey.projection, key))
            lines += [f"{key} = {_array(rows)}"]
    for factor in survey.factor_models:
        lines += ["", "[[factors]]", f"id = {_text(factor.id)}", f"name = {_text(factor.name)}", *_form_lines(factor)]
    for variant, factors in survey.variants.items():
        lines += ["", f"[variants.{_text(variant)}]"]
        lines += [f"{_text(factor.id)} = {_variant_table(factor)}" for factor in factors]
    for edition in survey.published:
        lines += ["", "[[published]]", f"edition = {_text(edition.name)}", f"source = {_text(edition.source)}"]
        lines += ["[published.scores]", *(f"{_text(r)} = {_inline(row)}" for r, row in edition.scores.items())]
    return "\n".join(lines) + "\n"


def template(survey: Survey) -> str:
    """The survey as a file to fill in: texts that it does not include are empty, and the file's name becomes its id."""
    text = write(replace(survey, human="")).replace(f"text = {_text(NO_TEXT)}", 'text = ""')
    head = [
        f"# Your own copy of {survey.id}, version {survey.version}. The file's name becomes the survey's id.",
        *(["# Fill in the text of every item, as your source prints it."] if survey.missing_texts else []),
        "# Then: softde surveys check THIS_FILE",
    ]
    return "\n".join([*head, text.split("\n", 1)[1]])


def _composite_lines(composite: Composite) -> list[str]:
    if isinstance(composite, Pair):
        groups = (_array(map(str, group)) for group in composite.groups)
        return [
            f"pair = {_texts(composite.items)}",
            f"groups = {_array(groups)}",
            f"values = {_array(map(_number, composite.values))}",
            f"otherwise = {_number(composite.otherwise)}",
        ]
    if isinstance(composite, Subset):
        return [f"subset = {_texts(composite.items)}", f"mentioned = {composite.mentioned}"]
    return _form_lines(composite)


def _form_lines(factor: Factor) -> list[str]:
    lines = [f"weights = {_inline(factor.weights)}"] if factor.weights else []
    lines += [f"mean = {_texts(factor.mean)}"] if factor.mean else []
    lines += [f"component = {factor.component}"] if factor.component else []
    lines += [f"scale = {_number(factor.scale)}"] if factor.scale != 1 else []
    lines += [f"offset = {_number(factor.offset)}"] if factor.offset else []
    lines += [f"min_valid = {factor.min_valid}"] if factor.min_valid is not None else []
    return lines


def _scoring_lines(survey: Survey) -> list[str]:
    centre, least = survey.scoring.centre, survey.scoring.min_valid
    lines = ["", "[scoring]"] if centre or least else []
    if centre:
        lines += ['centre = "all"' if centre == survey.item_ids else f"centre = {_texts(centre)}"]
    return lines + ([f"min_valid = {least}"] if least else [])


def _variant_table(factor: Factor) -> str:
    plain = factor.weights and not factor.offset
    return _inline(factor.weights) if plain else "{ " + ", ".join(_form_lines(factor)) + " }"


def _texts(texts: Iterable[str]) -> str:
    return _array(map(_text, texts))


def _text(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's, but for the delete character, which TOML wants escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def _array(parts: Iterable[str]) -> str:
    return f"[{', '.join(parts)}]"


def _inline(numbers: Mapping[str, float]) -> str:
    return "{ " + ", ".join(f"{_text(k)} = {_number(v)}" for k, v in numbers.items()) + " }"
