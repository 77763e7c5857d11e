from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softde.surveys import Edition, Factor, Item, Option, Survey, load_survey, options

VSM = load_survey("vsm13")

TOML = """
id = "mine"
title = "Mine"

[scales.yes]
options = ["yes", "no"]
values = [1, 0]

[[items]]
id = "a"
text = "Is it so?"
scale = "yes"

[[items]]
id = "b"
text = "How often?"
options = ["never", "often", "always"]

[[factors]]
id = "F"
weights = { a = 10, b = -2.5 }

[[published]]
edition = "1"
source = "made up"
scores = { Italy = { F = 3 } }
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def official(ids: object = None) -> str:
    """A CSV in the shape a user writes the official wording in; the texts here are invented."""
    rows = [f'{i},"Question {i}, as printed?"' for i in ids or VSM.item_ids]  # type: ignore[attr-defined]
    return "\n".join(["id,text", *rows]) + "\n"


def test_a_toml_of_ones_own(tmp_path: Path) -> None:
    survey = load_survey(write(tmp_path, "mine.toml", TOML))
    assert survey.items[0].options == (Option("1", "yes", 1), Option("2", "no", 0))
    assert [o.value for o in survey.items[1].options] == [1, 2, 3]
    assert survey.weights.tolist() == [[10, -2.5]]
    assert survey.score([1, 2], constants=0).tolist() == [5]
    assert survey.target("it").scores.tolist() == [3]
    assert survey.version == "1"


def test_published_scores_from_a_file_beside_the_toml(tmp_path: Path) -> None:
    write(tmp_path, "scores.csv", "region;F\nItaly;3\nSpain;\n")
    inline = "scores = { Italy = { F = 3 } }"
    survey = load_survey(str(write(tmp_path, "mine.toml", TOML.replace(inline, 'file = "scores.csv"'))))
    assert survey.regions() == ("Italy", "Spain")
    assert np.isnan(survey.published_scores("Spain", "1")).all()


# --- files that are wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "b"', 'id = "a"', "mine.toml: duplicate item id 'a'"),
        ('scale = "yes"', 'scale = "yess"', "mine.toml: item 'a': unknown scale 'yess'; did you mean 'yes'?"),
        (
            'scale = "yes"',
            "",
            "mine.toml: item 'a': expected either scale (a name under [scales]) or options, got neither",
        ),
        ('scale = "yes"', 'scale = "yes"\noptions = ["x"]', "item 'a': expected either scale"),
        ("[scales.yes]", "[scale.yes]", "mine.toml: survey: unknown key 'scale'; did you mean 'scales'?"),
        ("values = [1, 0]", "values = [1, 0, 2]", "mine.toml: item 'a': 2 options but 3 values"),
        (
            "values = [1, 0]",
            'values = [1, "0"]',
            "mine.toml: item 'a': option 2: value: expected a finite number, got '0'",
        ),
        ("values = [1, 0]", "value = [1, 0]", "mine.toml: scale 'yes': unknown key 'value'; did you mean 'values'?"),
        ('options = ["yes", "no"]', 'options = ["yes"]', "item 'a': 1 options but 2 values"),
        ('"never", "often", "always"', '"never"', "item 'b': expected two options or more, got 1"),
        ('"often"', '""', "item 'b': option 2: text: expected a text that is not empty"),
        ("b = -2.5", "c = -2.5", "factor 'F': weight for item 'c', which does not exist"),
        ("b = -2.5", 'b = "x"', "factor 'F', item 'b': weight: expected a finite number"),
        ('text = "Is it so?"', "", "mine.toml: item 'a': missing text; add it"),
        ('text = "Is it so?"', 'text = ""', "item 'a': text: expected a text that is not empty"),
        ('text = "Is it so?"', "text = 3", "item 'a': text: expected a text"),
        ('text = "Is it so?"', 'txt = "Is it so?"', "item 'a': unknown key 'txt'; did you mean 'text'?"),
        ('id = "a"', "id = 1", "[[items]]: id: expected a text, got 1"),
        ("weights = {", "weight = {", "factor 'F': unknown key 'weight'; did you mean 'weights'?"),
        ("F = 3", "G = 3", "edition 1, Italy: unknown factor 'G'"),
        ("F = 3", "F = true", "edition 1, 'Italy', F: expected a number, got True"),
        ("F = 3", "F = nan", "leave it out"),
        ("scores = { Italy = { F = 3 } }", "", "published edition '1': expected either file or scores"),
        ("scores = { Italy = { F = 3 } }", 'file = "no.csv"', "no.csv"),
        ('edition = "1"', "", "[[published]]: missing edition; add it"),
        ('id = "mine"', "id = ", "mine.toml: invalid TOML: Invalid value (at line 2,"),
        ('id = "mine"', 'base = "vsm12"', "mine.toml: base 'vsm12' is not a shipped survey; did you mean 'vsm13'?"),
        ('id = "mine"', 'items = "a"', "mine.toml"),
        (TOML, "", "mine.toml: survey has no items"),
    ],
)
def test_a_wrong_toml_is_refused_in_one_sentence(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TOML
    path = write(tmp_path, "mine.toml", TOML.replace(old, new, 1))
    with pytest.raises(ValueError) as error:
        load_survey(path)
    assert message in str(error.value)
    assert str(error.value).startswith("mine.toml: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "a.csv: expected a header with column id, text, got an empty file"),
        ("a.csv", "id;question\n1;x\n", "a.csv: header: unknown key 'question'"),
        ("a.csv", "id,text\n1,x,y\n", "a.csv: line 2: expected 2 cells, got 3"),
        ("a.csv", "id,text,text\n1,x,y\n", "names a column twice"),
        ("a.csv", "id,text\n1,x\n", "a.csv: items without options: 1; add an 'options' column"),
        ("a.csv", "id,text,options\n1,x,a|b\n1,y,a|b\n", "a.csv: duplicate item id '1'"),
        ("a.csv", "id,text,options,values\n1,x,a|b,1|z\n", "a.csv: line 2, values: expected a number, got 'z'"),
        ("a.csv", "id,text,options,values\n1,x,a|b,1|2|3\n", "a.csv: item '1': 2 options but 3 values"),
        ("a.csv", "id,text,options\n1,x,a\n", "item '1': expected two options or more"),
        ("a.csv", "id,text,options\n", "a.csv: survey has no items"),
        ("a.csv", "questionnaire_item_id,content\n1,x\n", "expected a header with column question_content"),
    ],
)
def test_a_wrong_csv_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        load_survey(write(tmp_path, name, text))
    assert message in str(error.value)


def test_wrong_score_files_are_refused(tmp_path: Path) -> None:
    toml = TOML.replace("scores = { Italy = { F = 3 } }", 'file = "s.csv"')
    path = write(tmp_path, "mine.toml", toml)
    for text, message in [
        ("country,F\nItaly,1\n", "mine.toml: s.csv: expected a header with column region"),
        ("region,F\nItaly,1\nItaly,2\n", "s.csv: line 3: region 'Italy' is there twice"),
        ("region,F\n,1\n", "line 2: region '' is empty"),
        ("region,F\nItaly,#NULL!\n", "line 2, F: expected a number, got '#NULL!'"),
        ("region,G\nItaly,1\n", "unknown factor 'G'"),
    ]:
        write(tmp_path, "s.csv", text)
        with pytest.raises(ValueError) as error:
            load_survey(path)
        assert message in str(error.value)


def test_names_and_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown survey 'vsm31' \(did you mean 'vsm13'\?\)"):
        load_survey("vsm31")
    with pytest.raises(ValueError, match="No such file"):
        load_survey(tmp_path / "none.toml")
    with pytest.raises(ValueError, match="cannot read"):
        (tmp_path / "folder.toml").mkdir()
        load_survey(tmp_path / "folder.toml")
    (tmp_path / "latin.csv").write_bytes("id,text,options\n1,caf\xe9,a|b\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.csv: not UTF-8 .*save the file as UTF-8"):
        load_survey(tmp_path / "latin.csv")
    with pytest.raises(ValueError, match="base and options go with a .csv"):
        load_survey("vsm13", base="vsm13")
    with pytest.raises(ValueError, match="base and options go with a .csv"):
        load_survey(write(tmp_path, "mine.toml", TOML), options=["a", "b"])


# --- a researcher's own wording --------------------------------------------------------------------------------------


def test_a_csv_with_the_ids_of_vsm13_inherits_scales_formulas_and_scores(tmp_path: Path) -> None:
    survey = load_survey(write(tmp_path, "official.csv", official()))
    assert survey.id == "official"
    assert survey.items[0].text == "Question m01, as printed?"
    assert survey.items[0].topic == VSM.items[0].topic
    assert [item.options for item in survey.items] == [item.options for item in VSM.items]
    assert survey.factor_models == VSM.factor_models
    assert survey.published == VSM.published
    assert survey.variants == VSM.variants
    assert survey.note == ""
    assert survey.digest != VSM.digest


def test_rows_in_another_order_keep_their_meaning(tmp_path: Path) -> None:
    survey = load_survey(write(tmp_path, "official.csv", official(reversed(VSM.item_ids))))
    means = np.random.default_rng(0).uniform(1, 5, 24)
    np.testing.assert_allclose(survey.score(means[::-1]), VSM.score(means))


def test_numbered_items_match_the_base_that_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "q.csv", official(range(1, 25)))
    with pytest.raises(ValueError, match="items without options"):
        load_survey(path)
    assert load_survey(path, base="vsm13").item_ids == VSM.item_ids


def test_items_missing_from_the_base_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "q.csv", official(VSM.item_ids[2:]))
    with pytest.raises(ValueError, match=r"q\.csv: items m01, m02 of base 'vsm13' are missing.*give all 24"):
        load_survey(path, base="vsm13")


def test_a_toml_may_translate_scales_and_items_of_its_base(tmp_path: Path) -> None:
    items = "\n".join(f'[[items]]\nid = "{i}"\ntext = "Frage {i}"' for i in VSM.item_ids)
    text = f"""
base = "vsm13"
language = "de"
instruction = "Antworte nur mit der Zahl."
[scales.health]
options = ["sehr gut", "gut", "mittel", "schlecht", "sehr schlecht"]
{items}
"""
    survey = load_survey(write(tmp_path, "vsm13-de.toml", text))
    assert (survey.id, survey.language, survey.instruction) == ("vsm13-de", "de", "Antworte nur mit der Zahl.")
    assert survey.items[17].options[0].text == "sehr gut"
    assert survey.items[0].options == VSM.items[0].options
    assert survey.factor_models == VSM.factor_models
    assert survey.source == VSM.source


@pytest.mark.parametrize("kind", ["scale", "new scale", "csv"])
def test_options_of_ones_own_keep_the_values_of_the_base(tmp_path: Path, kind: str) -> None:
    """pvq21 counts its first option as 6: translated options without values must not turn the scale round."""
    ids, words = load_survey("pvq21").item_ids, [f"wording {k}" for k in range(6)]
    if kind == "csv":
        text = "id,text,options\n" + "".join(f"{i},Text {i},{'|'.join(words)}\n" for i in ids)
    else:
        name = "likeness" if kind == "scale" else "own"
        items = "".join(f'[[items]]\nid = "{i}"\nscale = "{name}"\ntext = "T"\n' for i in ids)
        text = f'base = "pvq21"\n[scales.{name}]\noptions = {words}\n' + ("" if kind == "scale" else items)
    path = write(tmp_path, "own.csv" if kind == "csv" else "own.toml", text)
    survey = load_survey(path)
    assert (survey.option_values == [6, 5, 4, 3, 2, 1]).all() and survey.items[0].options[0].text == "wording 0"
    fewer = write(tmp_path, path.name, text.replace("|wording 5", "").replace(", 'wording 5'", ""))
    with pytest.raises(
        ValueError, match=r"item 'p01': 5 options without values, and the base's 6 are valued 6, 5, 4, "
    ):
        load_survey(fewer)


def test_a_toml_with_a_base_and_its_own_formulas_takes_what_it_names(tmp_path: Path) -> None:
    text = """
base = "vsm13"
[[items]]
id = "m18"
text = "How are you?"
[[items]]
id = "extra"
text = "Really?"
options = ["yes", "no"]
[[factors]]
id = "H"
weights = { m18 = 1 }
"""
    survey = load_survey(write(tmp_path, "short.toml", text))
    assert survey.item_ids == ("m18", "extra")
    assert survey.items[0].options == VSM.items[17].options
    assert survey.factors == ("H",)
    assert survey.published == ()
    assert survey.variants == {}


def test_a_toml_may_change_only_the_instruction_of_its_base(tmp_path: Path) -> None:
    survey = load_survey(write(tmp_path, "v.toml", 'base = "vsm13"\ninstruction = "Number, please."\n'))
    assert survey.items == VSM.items
    assert survey.instruction == "Number, please."


# --- QSTN ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id_column", ["questionnaire_item_id", "survey_item_id"])
@pytest.mark.parametrize(
    "stem", ["How do you feel about", "{{QUESTION_CONTENT_PLACEHOLDER}}?", "{QUESTION_CONTENT_PLACEHOLDER}?", ""]
)
def test_qstn_columns(tmp_path: Path, id_column: str, stem: str) -> None:
    text = f"{id_column},question_content,question_stem,comment\n1,Coffee,{stem},x\n2,Tea,{stem},y\n"
    scale = ["bad", "fair", "good"]
    survey = load_survey(write(tmp_path, "drinks.csv", text), options=scale)
    expected = {"": "Coffee", "How do you feel about": "How do you feel about Coffee"}.get(stem, "Coffee?")
    assert survey.items[0].text == expected
    assert survey.items[0].options == options(scale)
    assert survey.item_ids == ("1", "2")
    assert survey.factors == ()


def test_qstn_file_on_the_base_of_vsm13(tmp_path: Path) -> None:
    rows = "\n".join(f"{i},Content {i}" for i in range(1, 25))
    path = write(tmp_path, "vsm.csv", f"questionnaire_item_id,question_content\n{rows}\n")
    assert load_survey(path, base="vsm13").score([3] * 24).tolist() == [50] * 6


def test_own_csv_with_options_values_quotes_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = '\ufeffid;text;options;values;topic\nq1;"One; ""two""\nand more";no|yes;0|1;t\n\nq2;Deux é;a|b|c;;\n'
    survey = load_survey(write(tmp_path, "own.csv", text))
    assert survey.items == (
        Item("q1", 'One; "two"\nand more', options(["no", "yes"], [0, 1]), "t"),
        Item("q2", "Deux é", options(["a", "b", "c"])),
    )


# --- round trip ------------------------------------------------------------------------------------------------------


def test_vsm13_survives_toml(tmp_path: Path) -> None:
    for survey in (VSM, VSM.variant("cat_35_25")):
        back = load_survey(write(tmp_path, "back.toml", survey.to_toml()))
        assert back == survey
        assert back.digest == survey.digest
        assert back.to_toml() == survey.to_toml()


TEXT = st.text(min_size=1, max_size=12).filter(str.strip)
NAME = st.text(string.printable + "é中🙂.'\"\x7f\x00", min_size=1, max_size=5).filter(str.strip)
NUMBER = st.floats(-1e20, 1e20)
OPTIONS = st.lists(st.tuples(TEXT, NUMBER), min_size=2, max_size=4, unique_by=lambda pair: pair[0].strip()).map(
    lambda pairs: options([t for t, _ in pairs], [v for _, v in pairs])
)


@st.composite
def surveys(draw: st.DrawFn) -> Survey:
    ids = draw(st.lists(NAME, min_size=1, max_size=3, unique=True))
    items = tuple(Item(i, draw(TEXT), draw(OPTIONS), draw(st.text(max_size=5))) for i in ids)
    weights = st.dictionaries(st.sampled_from(ids), NUMBER, min_size=1)
    factor_ids = draw(st.lists(NAME, max_size=3, unique=True))
    factors = tuple(Factor(f, draw(st.text(max_size=5)), draw(weights)) for f in factor_ids)
    variant = tuple(replace(f, weights=draw(weights)) for f in factors[:1])
    row = st.dictionaries(st.sampled_from(factor_ids), NUMBER) if factors else st.just({})
    editions = draw(st.lists(NAME, max_size=2, unique=True))
    return Survey(
        id=draw(NAME),
        title=draw(TEXT),
        items=items,
        factor_models=factors,
        version=draw(NAME),
        source=draw(st.text(max_size=5)),
        note=draw(st.text(max_size=5)),
        instruction=draw(TEXT),
        variants={draw(NAME): variant},
        published=tuple(Edition(e, "", draw(st.dictionaries(NAME, row, max_size=3))) for e in editions),
    )


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=60
)
@given(surveys())
def test_any_survey_survives_toml(tmp_path: Path, survey: Survey) -> None:
    path = tmp_path / "any.toml"
    path.write_bytes(survey.to_toml().encode())
    assert load_survey(path) == survey


# --- files as people and programs write them -------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", [str.upper, lambda i: f"m{int(i[1:])}", lambda i: f"M{int(i[1:])}"])
def test_ids_of_the_base_in_another_spelling(tmp_path: Path, spelling: Callable[[str], str]) -> None:
    path = write(tmp_path, "q.csv", official([spelling(i) for i in VSM.item_ids]))
    assert load_survey(path, base="vsm13").item_ids == VSM.item_ids


def test_a_toml_with_ids_in_another_spelling_is_told_so(tmp_path: Path) -> None:
    items = "\n".join(f'[[items]]\nid = "{i.upper()}"\ntext = "x"\nscale = "health"' for i in VSM.item_ids)
    with pytest.raises(ValueError, match=r"items m01, .* are missing.*it has no M01, M02.*ids are spelled like m01"):
        load_survey(write(tmp_path, "v.toml", f'base = "vsm13"\n{items}\n'))


def test_the_whole_questionnaire_with_its_demographics(tmp_path: Path) -> None:
    path = write(tmp_path, "q.csv", official(range(1, 31)))
    with pytest.raises(ValueError, match=r"items 25, 26, .* are none of base 'vsm13' and have no options; leave these"):
        load_survey(path, base="vsm13")
    rows = "\n".join(f"{i},Question,{'a|b' if i > 24 else ''}" for i in range(1, 26))
    assert len(load_survey(write(tmp_path, "o.csv", f"id,text,options\n{rows}\n"), base="vsm13").items) == 25


@pytest.mark.parametrize("cell", ['"a, b, c"', "a;b", "a/b"])
def test_options_with_another_separator(tmp_path: Path, cell: str) -> None:
    with pytest.raises(ValueError, match=r"line 2, options: expected two or more, separated by \|, got 'a"):
        load_survey(write(tmp_path, "q.csv", f"id,text,options\n1,x,{cell}\n"))
    with pytest.raises(ValueError, match=r"line 2, values: expected two or more, separated by \|, got '1;0'"):
        load_survey(write(tmp_path, "q.csv", "id,text,options,values\n1,x,a|b,1;0\n"))


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;"])
def test_excels_line_about_the_separator(tmp_path: Path, first: str) -> None:
    survey = load_survey(write(tmp_path, "q.csv", f"{first}\nid;text;options\nq1;One, two, three, four?;a|b\n"))
    assert survey.items[0].text == "One, two, three, four?"
    with pytest.raises(ValueError, match="line 3: expected 3 cells, got 2"):  # the file's own numbering
        load_survey(write(tmp_path, "q.csv", f"{first}\nid;text;options\nq1;One\n"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_excels_unicode_text(tmp_path: Path, encoding: str) -> None:
    text = "id\ttext\toptions\r\nq1\tCafé?\toui|non\r\n"
    mark = "" if encoding == "utf-16" else "\ufeff"
    (tmp_path / "q.csv").write_bytes((mark + text).encode(encoding))
    assert load_survey(tmp_path / "q.csv").items == (Item("q1", "Café?", options(["oui", "non"])),)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "scores.csv", "region,F\nItaly,3\n")
    write(tmp_path, "mine.toml", TOML.replace("scores = { Italy = { F = 3 } }", 'file = "~/scores.csv"'))
    assert load_survey("~/mine.toml").target("Italy").scores.tolist() == [3]


def test_common_first_travels_and_counts(tmp_path: Path) -> None:
    survey = load_survey("vsm13")
    first = replace(survey, common_first=True)
    (tmp_path / "first.toml").write_text(first.to_toml(), encoding="utf-8")
    assert load_survey(tmp_path / "first.toml") == first and first.digest != survey.digest
    (tmp_path / "own.toml").write_text('base = "vsm13"\ncommon_first = true\n', encoding="utf-8")
    assert load_survey(tmp_path / "own.toml").common_first
    (tmp_path / "own.toml").write_text('base = "vsm13"\ncommon_first = "yes"\n', encoding="utf-8")
    with pytest.raises(ValueError, match="common_first: expected true or false, got 'yes'"):
        load_survey(tmp_path / "own.toml")
