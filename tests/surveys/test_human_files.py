"""Loaders of human answers: each beside a slow loop or a hand-made file; one sentence for every file that is wrong."""

from __future__ import annotations

import csv
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from softde.surveys import Item, Survey, load_survey, options
from softde.surveys.human import (
    HumanAnswers,
    load_answers,
    load_culture_spa,
    load_global_opinions,
    load_human,
    load_ivs,
    load_qstn,
    load_shares,
    load_wide,
    load_wvs,
)
from softde.surveys.human.fake import ADMINISTRATION, fake_wvs, wvs_columns, wvs_scale
from tests.surveys import slow_human

pytest.importorskip("pyarrow", reason="tables of human answers need pyarrow")


def item(name: str, *codes: float) -> Item:
    return Item(name, f"Question {name}?", options([f"option {c:g}" for c in codes], codes))


MINI = Survey("mini", "Mini", (item("Q46", 4, 3, 2, 1), item("Q94", 0, 1, 2), item("Q7", 1, 2)))


def write(folder: Path, text: str, name: str = "file.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def agrees(human: HumanAnswers, expected: dict[tuple[str, str], list[float]]) -> None:
    """All shares are those of the slow loop."""
    assert {r for r, _ in expected} == set(human.regions)
    for r, region in enumerate(human.regions):
        for i, one in enumerate(human.survey.items):
            shares = human.shares[r, i, : len(one.options)]
            wanted = expected.get((region, one.id), [np.nan] * len(one.options))
            np.testing.assert_allclose(shares, wanted, rtol=1e-12, atol=1e-15)


# --- World Values Survey ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wvs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wvs") / "WVS_Cross-National_Wave_7_csv_v6_0.csv"
    fake_wvs(path, 300, 180, ("ARG", "BRA", "DEU"), seed=3)
    return path


@pytest.mark.parametrize("weight", ["W_WEIGHT", "S018", ""])
def test_wvs_beside_the_slow_loop(wvs: Path, weight: str) -> None:
    human = load_wvs(wvs, MINI, weight=weight)
    codes = {i.id: [o.value for o in i.options] for i in MINI.items}
    agrees(human, slow_human.shares(wvs, codes, "B_COUNTRY_ALPHA", weight or None))
    assert human.regions == ("ARG", "BRA", "DEU") and human.source == wvs.name
    assert human.respondents is not None and human.respondents.answers.shape == (300, 3)


def test_wvs_without_a_survey_takes_the_codes_that_are_there(wvs: Path) -> None:
    human = load_human(wvs, items=["Q94", "Q46"])
    assert [o.value for o in human.survey.items[0].options] == [0, 1, 2]
    assert [o.value for o in human.survey.items[1].options] == [1, 2, 3, 4]
    reversed_ = load_wvs(wvs, MINI)
    np.testing.assert_allclose(human.item_means, reversed_.item_means[:, [1, 0]], rtol=1e-12)
    assert load_survey(write(wvs.parent, human.survey.to_toml(), "own.toml")).items == human.survey.items
    every = load_human(wvs)
    assert set(every.survey.item_ids) == {c for c in wvs_columns(180) if c[0] == "Q" and c[1:].isdecimal()}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: "\ufeff" + text,
        lambda text: "sep=,\n" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\n".join('"' + line.replace(",", '","') + '"' for line in text.splitlines()) + "\n",
        lambda text: text.replace(",-5,", ",,").replace(",-4,", ",NA,"),
        lambda text: text.replace(",", ";").replace(".", ","),  # decimal commas
        lambda text: text.replace("6-0-0 (made up)", '"6-0-0\nmade, up"'),  # cells with a line's end
    ],
)
def test_wvs_however_it_was_saved(wvs: Path, tmp_path: Path, change: Callable[[str], str]) -> None:
    changed = write(tmp_path, change(wvs.read_text()), "wvs.csv")
    np.testing.assert_array_equal(load_human(changed, MINI).shares, load_wvs(wvs, MINI).shares)


def test_wvs_as_stata_and_parquet(wvs: Path, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.read_csv(wvs, usecols=["B_COUNTRY_ALPHA", "W_WEIGHT", "Q46", "Q94", "Q7"])
    frame.to_parquet(tmp_path / "wvs.parquet")
    frame.to_stata(tmp_path / "wvs.dta", write_index=False)
    for name in ("wvs.parquet", "wvs.dta"):
        np.testing.assert_array_equal(load_human(tmp_path / name, MINI).shares, load_wvs(wvs, MINI).shares)


def test_columns_and_missing_codes(wvs: Path) -> None:
    own = Survey("own", "Own", (item("A008", 1, 2, 3), item("Q94", 0, 1, 2)))
    human = load_wvs(wvs, own, columns={"A008": "Q46"}, missing={"A008": [4]})
    agrees(human.select(["Q94"]), slow_human.shares(wvs, {"Q94": [0, 1, 2]}, "B_COUNTRY_ALPHA", "W_WEIGHT"))
    expected = slow_human.shares(wvs, {"Q46": [1, 2, 3]}, "B_COUNTRY_ALPHA", "W_WEIGHT")
    np.testing.assert_allclose(human.shares[0, 0], expected["ARG", "Q46"])
    assert load_wvs(wvs, MINI, leave_out=["BRA"]).regions == ("ARG", "DEU")


def test_codes_below_zero_are_answers_where_an_option_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, "B_COUNTRY_ALPHA,W_WEIGHT,Y003\n" + "".join(f"ITA,1,{c}\n" for c in (-2, -2, 0, 2, -5)))
    human = load_wvs(path, Survey("s", "S", (item("Y003", -2, -1, 0, 1, 2),)))
    assert human.shares[0, 0].tolist() == [0.5, 0, 0.25, 0, 0.25] and human.counts.tolist() == [[4]]


# --- the cache --------------------------------------------------------------------------------------------------------


def test_cache_is_used_and_never_stale(wvs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="softde")
    path, cache = write(tmp_path, wvs.read_text(), "wvs.csv"), tmp_path / "cache"
    first = load_wvs(path, MINI, cache=cache)
    (kept,) = cache.iterdir()
    assert kept.suffix == ".parquet" and "kept in" in caplog.text
    caplog.clear()
    again = load_wvs(path, MINI, cache=cache)
    np.testing.assert_array_equal(again.shares, first.shares)
    assert "read from the cache" in caplog.text and "kept in" not in caplog.text

    # the same size and the same time of change, other content: still not taken from the cache
    times = path.stat()
    write(tmp_path, wvs.read_text().replace(",ARG,", ",PER,"), "wvs.csv")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    assert load_wvs(path, MINI, cache=cache).regions == ("BRA", "DEU", "PER")
    assert "it is built again" in caplog.text
    assert load_wvs(path, MINI.__class__("one", "One", MINI.items[:1]), cache=cache).shares.shape[1] == 1
    assert len(list(cache.iterdir())) == 2  # the changed file's replaced the old one; other columns have their own


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda _: b"", lambda b: b[:60] + b"\0" * 9 + b[69:]])
def test_a_broken_cache_is_built_again(
    wvs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    first = load_wvs(wvs, MINI, cache=tmp_path)
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    np.testing.assert_array_equal(load_wvs(wvs, MINI, cache=tmp_path).shares, first.shares)
    assert "is broken" in caplog.text and kept.stat().st_size == len(whole)


# --- Integrated Values Surveys ----------------------------------------------------------------------------------------

IVS = "S003,COUNTRY_ALPHA,S017,S020,A008,F063\n" + "".join(
    f"{n},{a},{w},{y},{h},{g}\n"
    for n, a, w, y, h, g in [
        (76, "BRA", 1.0, 2006, 1, 10),
        (76, "BRA", 3.0, 2018, 2, -2),
        (76, "BRA", 1.0, 1991, 4, 1),
        (276, "DEU", 0.5, 2018, 3, 2),
        (276, "DEU", 1.5, 2018, -5, 5),
    ]
)


def test_ivs(tmp_path: Path) -> None:
    survey = Survey("iw", "IW", (item("A008", 1, 2, 3, 4), item("F063", *range(1, 11))))
    human = load_ivs(write(tmp_path, IVS), survey, years=(2005, 2022))
    np.testing.assert_allclose(human.item_means, [[(1 + 3 * 2) / 4, 10], [3, (0.5 * 2 + 1.5 * 5) / 2]])
    assert human.counts.tolist() == [[2, 1], [1, 2]]
    np.testing.assert_allclose(load_human(tmp_path / "file.csv", survey).item_means[0], [11 / 5, 5.5])  # all years
    numbers = write(tmp_path, IVS.replace("COUNTRY_ALPHA", "S024"), "numbers.csv")
    assert load_ivs(numbers, survey, years=(2005, 2022)).regions == ("276", "76")
    with pytest.raises(
        ValueError, match=r"file.csv: column 'S020': no row from 2030 to 2031; the file has 1991 to 2018"
    ):
        load_ivs(tmp_path / "file.csv", survey, years=(2030, 2031))


# --- CultureSPA -------------------------------------------------------------------------------------------------------


def test_culture_spa(shared_data: Path, tmp_path: Path) -> None:
    """Figures: 259 usable items, 19 regions; China lacks 37 items, Britain 13; zero-based items keep values from 0."""
    human = load_culture_spa(shared_data / "culturespa")
    table = json.loads((shared_data / "culturespa" / "proportions_group_by_country.json").read_text())
    assert human.shares.shape == (19, 259, 11) and set(human.regions) == set(table)
    lacking = np.isnan(human.shares[..., 0])
    assert lacking[human.row("China")].sum() == 37 and lacking[human.row("GBR")].sum() == 13
    for r, region in enumerate(human.regions):
        for i, one in enumerate(human.survey.items):
            shares = table[region][one.id]
            if not shares:
                assert lacking[r, i] and human.majority[r, i] == -1
                continue
            total = sum(shares.values())
            expected = [shares.get(f"{o.value:g}", 0) / total for o in one.options]
            np.testing.assert_allclose(human.shares[r, i, : len(expected)], expected, rtol=1e-12)
            assert f"{one.options[human.majority[r, i]].value:g}" == next(iter(shares))  # the file lists it first
    zero = {i.id for i in human.survey.items if i.options[0].value == 0}
    expected_zero = [*range(94, 106), 119, *range(122, 130), *range(241, 250)]
    assert zero == {f"Q{n}" for n in expected_zero}
    assert load_survey(write(tmp_path, human.survey.to_toml(), "wvs.toml")).items == human.survey.items


def test_culture_spa_for_a_survey(shared_data: Path, tmp_path: Path) -> None:
    every = load_human(shared_data / "culturespa")
    survey = every.select(items=["Q164", "Q46"]).survey
    some = load_human(shared_data / "culturespa" / "proportions_group_by_country.json", survey)
    np.testing.assert_array_equal(some.item_means, every.select(items=["Q164", "Q46"]).item_means)
    for name in ("saved.csv", "saved.parquet"):
        every.save(tmp_path / name)
        back = load_human(tmp_path / name, every.survey)
        np.testing.assert_array_equal(back.shares, every.shares)
        np.testing.assert_array_equal(back.majority, every.majority)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], r"shares by region: expected a table, got \[\]"),
        ({}, "expected region → item → code → share, got no shares"),
        ({"ITA": {"Q46": [1]}}, "region ITA, item Q46: expected a table"),
        ({"ITA": {"Q46": {"x": 1}}}, "region ITA, item Q46: expected codes as whole numbers, got 'x'"),
        ({"ITA": {"Q46": {"1": "1"}}}, "region ITA, item Q46, code 1: expected a number"),
        (
            {"ITA": {"Q46": {"1": -1}, "Q94": {"0": 1}, "Q7": {"1": 1}}},
            "region ITA, item Q46: expected a share or count from 0 up, got -1",
        ),
        ({"ITA": {"Q46": {"1": 1}}, "BRA": {"Q46": {}, "Q94": {}}}, "no answers to item 'Q94'"),
        ({"ITA": {"Q46": {"7": 1}, "Q94": {"0": 1}, "Q7": {"1": 1}}}, "region ITA, item Q46: code 7 is no option"),
    ],
)
def test_culture_spa_refuses(tmp_path: Path, table: object, message: str) -> None:
    path = write(tmp_path, json.dumps(table), "proportions_group_by_country.json")
    with pytest.raises(ValueError, match=f"^proportions_group_by_country.json: {message}"):
        load_human(path, MINI)


def test_culture_spa_needs_both_files(tmp_path: Path) -> None:
    write(tmp_path, '{"ITA": {"Q46": {"1": 1}}}', "proportions_group_by_country.json")
    with pytest.raises(ValueError, match=r"cannot read .*wvs_questions.json.*expected wvs_questions.json and"):
        load_culture_spa(tmp_path)
    write(tmp_path, "{", "wvs_questions.json")
    with pytest.raises(ValueError, match=r"wvs_questions.json: no JSON"):
        load_culture_spa(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no proportions_group_by_country.json in the folder; expected a"):
        load_human(tmp_path / "empty")


# --- GlobalOpinionQA and QSTN -----------------------------------------------------------------------------------------


def test_global_opinions(tmp_path: Path) -> None:
    path = tmp_path / "global_opinions.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "selections", "options", "source"])
        selections = "defaultdict(<class 'list'>, {'Brazil': [0.5, 0.25, 0.25], 'Italy': [0.2, 0.2, 0]})"
        writer.writerow(["Is it\nso?", selections,
                         "['Yes', 'No', 'No']", "GAS"])  # fmt: skip
        writer.writerow(["And so?", "{'Brazil': [0.0, 1.0]}", "['a', 'b']", "WVS"])
    human = load_human(path)
    assert human.regions == ("Brazil", "Italy") and human.survey.item_ids == ("q1", "q2")
    np.testing.assert_array_equal(human.shares[0], [[0.5, 0.25, 0.25], [0, 1, 0]])
    np.testing.assert_array_equal(human.shares[1], [[0.5, 0.5, 0], [np.nan] * 3])
    assert human.survey.items[0].text == "Is it\nso?" and human.survey.items[1].topic == "WVS"
    mine = Survey("mine", "Mine", (Item("so", "And so?", options(["a", "b"])),))
    assert load_global_opinions(path, mine, leave_out=["Italy"]).shares.tolist() == [[[0, 1]]]
    path.write_text(path.read_text().replace("[0.0, 1.0]", "[0.0]"))
    with pytest.raises(ValueError, match=r"line 3, column 'selections': expected 2 shares for Brazil"):
        load_human(path)
    path.write_text(path.read_text().replace("{'Brazil': [0.0]}", "__import__('os')"))
    with pytest.raises(ValueError, match=r"line 3, column 'selections': expected a mapping from country to shares"):
        load_human(path)


QSTN = """,questionnaire_name,questionnaire_item_id,question,llm_response
0,Italy,1,How do you feel about tea?,2: fair
1,Italy,1,How do you feel about tea?,good
2,Italy,2,How do you feel about coffee?,1
3,Brazil,1,How do you feel about tea?,3. good
4,Brazil,2,How do you feel about coffee?,
"""


def test_qstn(tmp_path: Path) -> None:
    survey = Survey("s", "S", tuple(Item(i, "?", options(["bad", "fair", "good"])) for i in "12"))
    human = load_human(write(tmp_path, QSTN), survey)
    assert human.regions == ("Brazil", "Italy")
    np.testing.assert_array_equal(human.shares[1], [[0, 0.5, 0.5], [1, 0, 0]])
    np.testing.assert_array_equal(human.counts, [[1, 0], [2, 1]])
    with pytest.raises(ValueError, match=r"line 3, column 'llm_response': 'god' is no option of item 1"):
        load_qstn(write(tmp_path, QSTN.replace(",good", ",god")), survey)


# --- long tables ------------------------------------------------------------------------------------------------------

LONG = "respondent,region,item,answer,weight\n" + "".join(
    f"{n},{r},{i},{a},{w}\n"
    for n, r, i, a, w in [
        (1, "ITA", "Q46", "1", 1), (1, "ITA", "Q94", "option 2", 1), (2, "ITA", "Q46", "4", 3),
        (1, "BRA", "Q7", "2", 1), (1, "BRA", "Q46", "-1", 1), (2, "ITA", "Q94", "", 3),
        (1, "BRA", "Q94", "0", 1), (2, "ITA", "Q7", "1", 3),
    ]
)  # fmt: skip


def test_long_answers(tmp_path: Path) -> None:
    human = load_human(write(tmp_path, LONG), MINI)
    assert human.regions == ("BRA", "ITA")
    np.testing.assert_array_equal(human.shares[1], [[0.75, 0, 0, 0.25], [0, 0, 1, 0], [1, 0, 0, 0]])
    assert np.isnan(human.shares[0, 0]).all() and human.counts.tolist() == [[0, 1, 1], [2, 1, 1]]
    other = LONG.replace("respondent,region,item,answer", "who,land,question,said")
    names = {"respondent": "who", "region": "land", "item": "question", "answer": "said"}
    alone = load_answers(write(tmp_path, other), MINI, **names)  # type: ignore[arg-type]
    np.testing.assert_array_equal(alone.shares[1, 0], [0.5, 0, 0, 0.5])
    for change, message in [
        (("2,ITA,Q7,1,3", "2,ITA,Q46,1,3"), "line 9, column 'item': the respondent has answered this item before"),
        (("2,ITA,Q7,1,3", "2,ITA,Q7,1,2"), "line 9: another weight than in line 4"),
        (("2,ITA,Q7,1,3", "2,ITA,Q7,5,3"), "line 9, column 'answer': code 5 is no option of item Q7"),
        (("2,ITA,Q7,1,3", "2,ITA,Q7,no,3"), "line 9, column 'answer': 'no' is no option of item Q7"),
        (("2,ITA,Q7,1,3", "2,ITA,Q7,1,-3"), "line 9, column 'weight': expected a weight from 0 up, got -3"),
        (("2,ITA,Q7,1,3", "2,,Q7,1,3"), "line 9, column 'region': expected a text, got nothing"),
    ]:
        with pytest.raises(ValueError, match=f"^bad.csv: {message}"):
            load_human(write(tmp_path, LONG.replace(*change), "bad.csv"), MINI)


def test_long_shares(tmp_path: Path) -> None:
    text = "region,item,option,count\nITA,x,never,3\nITA,x,often,1\nBRA,x,often,2\nITA,y,1,5\nBRA,y,2,5\n"
    human = load_human(write(tmp_path, text))
    assert human.regions == ("ITA", "BRA") and [o.text for o in human.survey.items[0].options] == ["never", "often"]
    np.testing.assert_array_equal(human.shares, [[[0.75, 0.25], [1, 0]], [[0, 1], [0, 1]]])
    assert human.counts.tolist() == [[4, 5], [2, 5]]
    for change, message in [
        (("BRA,y,2,5", "BRA,y,2,x"), "line 6, column 'count': expected a number or an empty cell, got 'x'"),
        (("BRA,y,2,5", "BRA,y,2,-5"), "line 6, column 'count': expected a share or count from 0 up, got -5"),
        (
            ("ITA,x,often,1", "ITA,x,often,"),
            "line 3, column 'count': nothing, where other options of region ITA, item x",
        ),
        (("BRA,y,2,5", "BRA,x,often,5"), "line 6, column 'option': region BRA, item x, code 2 is there twice"),
        (("BRA,y,2,5", "BRA,y,2"), "line 6: expected 4 cells as in the header, got 3"),
        (("BRA,y,2,5", "CHN,y,2,0"), "region CHN has no answers to any of the items"),
    ]:
        with pytest.raises(ValueError, match=f"^bad.csv: {message}"):
            load_shares(write(tmp_path, text.replace(*change), "bad.csv"), human.survey)


def test_wide(tmp_path: Path) -> None:
    path = write(tmp_path, "id,region,weight,Q46,Q94,Q7\n1,ITA,1,1,0,1\n2,ITA,3,4,2,2\n")
    np.testing.assert_array_equal(load_human(path, MINI).item_means, [[13 / 4, 1.5, 1.75]])
    np.testing.assert_array_equal(load_wide(path, items=["Q46"]).item_means, [[2.5]])


def test_codes_that_are_not_the_options_values(tmp_path: Path) -> None:
    likeness = Item("p01", "?", options(["very like me", "somewhat", "not like me"], [3, 2, 1]))  # as in pvq21
    survey = Survey("p", "P", (likeness, Item("p02", "?", options(["very like me", "not like me"], [2, 1]))))
    path = write(tmp_path, "cntry,w,ipcrtiv,imprich\nDE,1,1,1\nDE,3,2,9\n")  # 1 is "very like me" here
    names = {"p01": "ipcrtiv", "p02": "imprich"}
    by_item = {"p01": range(1, 4), "p02": [1, 2]}
    found = load_wide(path, survey, columns=names, missing=[9], codes=by_item, region="cntry", weight="w")
    np.testing.assert_array_equal(found.item_means, [[(3 + 3 * 2) / 4, 2]])
    for codes, message in (
        (
            [1, 2, 3],
            "file.csv: codes: expected 2 different codes for item p02, one per option in their order, got 1, 2",
        ),
        ({"p03": [1, 2]}, "codes: unknown item 'p03'; did you mean 'p01' or 'p02'"),
    ):
        with pytest.raises(ValueError, match=message):
            load_wide(path, survey, columns=names, missing=[9], codes=codes, region="cntry")
    with pytest.raises(ValueError, match="codes go with a survey"):
        load_wide(path, items=["ipcrtiv"], codes=[1, 2], region="cntry")


def test_one_region_in_two_spellings_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, "region,Q46,Q94,Q7\nBRA,1,0,1\nBrazil,4,2,2\nItaly,4,2,2\n")
    assert load_wide(path, MINI).regions == ("BRA", "Brazil", "Italy")
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "regions 'BRA', 'Brazil' are one region in several spellings; they are kept apart"
    ]


# --- files that are wrong ---------------------------------------------------------------------------------------------

WIDE = "B_COUNTRY_ALPHA,W_WEIGHT,Q46,Q94,Q7\nITA,1.5,1,0,1\nITA,0.5,2,1,2\nBRA,1,3,2,1\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Q94", "Q49", r"no column 'Q94'; did you mean 'Q46' or 'Q49'\?"),
        ("W_WEIGHT", "WEIGHT", "no column 'W_WEIGHT'; did you mean 'WEIGHT'"),
        ("Q94", "Q46", "the header names column 'Q46' twice"),
        ("ITA,0.5,2,1,2", "ITA,0.5,2,3,2", "line 3, column 'Q94': code 3 is no option of item Q94, which has 0, 1, 2"),
        ("ITA,0.5,2,1,2", "ITA,0.5,2,1.5,2", "line 3, column 'Q94': code 1.5 is no option"),
        ("ITA,0.5,2,1,2", "ITA,0.5,2,many,2", "line 3, column 'Q94': expected a number or an empty cell, got 'many'"),
        ("ITA,0.5,2,1,2", "ITA,0.5,2", "line 3: expected 5 cells as in the header, got 3"),
        ("ITA,0.5,2,1,2", "ITA,-0.5,2,1,2", "line 3, column 'W_WEIGHT': expected a weight from 0 up, got -0.5"),
        ("ITA,0.5,2,1,2", "ITA,NaN,2,1,2", "line 3, column 'W_WEIGHT': expected a weight from 0 up, got nothing"),
        ("ITA,0.5,2,1,2", "ITA,inf,2,1,2", "line 3, column 'W_WEIGHT': expected a weight from 0 up, got inf"),
        ("BRA,1,", "BRA,0,", "column 'W_WEIGHT': the weights of region BRA sum to zero"),
        ("ITA,0.5,2,1,2", ",0.5,2,1,2", "line 3, column 'B_COUNTRY_ALPHA': expected a region, got nothing"),
        ("BRA,1,3,2,1", "BRA,1,-1,-2,", r"region BRA has no answers to any of the items .*leave_out=\['BRA'\]"),
        (
            ",1\nITA,0.5,2,1,2\nBRA,1,3,2,1",
            ",-1\nITA,0.5,2,1,-1\nBRA,1,3,2,-1",
            "column or item 'Q7': no region has an",
        ),
        (WIDE, "", "the file is empty"),
        (WIDE, WIDE.splitlines()[0], "no rows below the header"),
    ],
)
def test_wide_files_that_are_wrong(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^bad.csv: {message}"):
        load_wvs(write(tmp_path, WIDE.replace(old, new, 1), "bad.csv"), MINI)


def test_other_files_that_are_wrong(tmp_path: Path) -> None:
    good = write(tmp_path, WIDE)
    for give, message in [
        ({"items": ["Q1"]}, "no column 'Q1'"),
        ({"items": []}, "items: expected a list of one item or more"),
        ({"survey": MINI, "items": ["Q7"]}, "either a survey or items, got both"),
        ({"survey": MINI, "columns": {"Q8": "Q7"}}, "columns: unknown item 'Q8'; known: Q46, Q94, Q7"),
        ({"survey": MINI, "columns": {"Q46": "Q7"}}, "two items have the same column"),
        ({"survey": MINI, "leave_out": ["BRR"]}, "leave_out: no region 'BRR' .* did you mean 'BRA'"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_wvs(good, **give)  # type: ignore[arg-type]
    same = Survey("s", "S", (Item("Q7", "?", options(["a", "b", "c"], [1, 2, 2])),))
    with pytest.raises(ValueError, match="file.csv: item 'Q7': two options have the same value"):
        load_wvs(good, same)
    (tmp_path / "latin.csv").write_bytes(WIDE.replace("Q7", "Qé").encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.csv: not UTF-8 \(byte 34 of the header\)"):
        load_human(tmp_path / "latin.csv", MINI)
    (tmp_path / "latin.csv").write_bytes(WIDE.replace("BRA", "BRÁ").encode("latin-1"))
    with pytest.raises(ValueError, match="latin.csv: line 4, column 'B_COUNTRY_ALPHA': not UTF-8"):
        load_human(tmp_path / "latin.csv", MINI)
    with pytest.raises(ValueError, match="file.sav: expected a file that ends in .*; save SPSS files as"):
        load_human(write(tmp_path, "x", "file.sav"))
    with pytest.raises(ValueError, match="file.xlsx: expected a file that ends in .*; save the sheet as .csv"):
        load_human(write(tmp_path, "x", "file.xlsx"))
    with pytest.raises(ValueError, match="cannot read .*nowhere.csv"):
        load_human(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match=r"other.csv: columns a, b are none of a known kind; expected a folder"):
        load_human(write(tmp_path, "a,b\n1,2\n", "other.csv"))
    with pytest.raises(ValueError, match="bad.parquet: cannot be read"):
        load_human(write(tmp_path, "no parquet", "bad.parquet"))
    with pytest.raises(ValueError, match="wide.csv: column 'Q262': expected 2 to 25 different codes from 0 up, got 40"):
        rows = "".join(f"ITA,1,{n}\n" for n in range(40))
        load_wvs(write(tmp_path, "B_COUNTRY_ALPHA,W_WEIGHT,Q262\n" + rows, "wide.csv"), items=["Q262"])


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'softde\[human\]'"):
        load_human(write(tmp_path, WIDE), MINI)


def test_what_a_file_is_read_as_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="softde")
    load_human(write(tmp_path, WIDE), MINI)
    assert "file.csv is read as World Values Survey" in caplog.text


def test_the_pages_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "human_answers.md").read_text(encoding="utf-8")
    block = page.split("```python\n")[1].split("```")[0]
    write(tmp_path, MINI.to_toml(), "my-items.toml")
    fake_wvs(tmp_path / "WVS_Cross-National_Wave_7_csv_v6_0.csv", 64, 180)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert capsys.readouterr().out.count("[") > 3 and len(list((tmp_path / "cache").iterdir())) == 1


# --- the made-up file -------------------------------------------------------------------------------------------------


def test_the_made_up_file(tmp_path: Path) -> None:
    for name, seed in (("a.csv", 1), ("b.csv", 1), ("c.csv", 2)):
        fake_wvs(tmp_path / name, 40, 600, ("ARG", "BRA"), seed)
    a, b, c = ((tmp_path / n).read_bytes() for n in ("a.csv", "b.csv", "c.csv"))
    assert a == b != c
    rows = list(csv.DictReader(a.decode().splitlines()))
    assert len(rows) == 40 and tuple(rows[0]) == wvs_columns(600) and len(set(rows[0])) == 600
    assert tuple(rows[0])[: len(ADMINISTRATION)] == ADMINISTRATION and {f"Q{n}" for n in range(1, 291)} <= set(rows[0])
    assert {row["B_COUNTRY_ALPHA"] for row in rows} == {"ARG", "BRA"}
    for column in ("Q1", "Q94", "Q241", "Q254", "Q290"):
        count, lowest = wvs_scale(column)
        assert {int(row[column]) for row in rows} <= {-1, -2, -4, -5, *range(lowest, lowest + count)}
    assert [wvs_scale(q) for q in ("Q94", "Q254", "Q241", "Q82_EU")] == [(3, 0), (5, 1), (11, 0), (4, 1)]
    with pytest.raises(ValueError, match="over 40 columns, got 9 rows, 16 regions, 10 columns"):
        fake_wvs(tmp_path / "d.csv", 9, 10)
