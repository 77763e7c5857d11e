from __future__ import annotations

import csv
import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softde.surveys import (
    Edition,
    Factor,
    Item,
    Region,
    Survey,
    Target,
    find_region,
    known_regions,
    load_survey,
    options,
    shipped_surveys,
)

VSM = load_survey("vsm13")
NAMES = tuple(dict.fromkeys(name for survey in shipped_surveys() for name in load_survey(survey).regions()))
CODES = {region.code: region.name for region in known_regions() if region.code}


def test_2015_edition_equals_the_matrix_cell_by_cell(shared_data: Path) -> None:
    path = shared_data / "hofstede" / "6-dimensions-for-website-2015-08-16.csv"
    if not path.exists():
        pytest.skip(f"no matrix at {path}")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert len(rows) == len(VSM.regions("2015")) == 110
    columns = ("pdi", "idv", "mas", "uai", "ltowvs", "ivr")
    for row in rows:
        expected = [np.nan if row[c] == "#NULL!" else float(row[c]) for c in columns]
        name = CODES[row["ctr"].strip()]
        np.testing.assert_array_equal(VSM.published_scores(name, "2015"), expected, err_msg=name)
        if name != "Slovenia":  # its code SLV is El Salvador's by ISO 3166
            assert find_region(row["ctr"], NAMES) == name
        assert find_region(row["country"], NAMES) == name


def test_2015_counts_and_values_outside_0_to_100() -> None:
    """Counts of the matrix: 65 rows complete, missing 32/32/32/32/15/14; values above 100 are kept."""
    scores = np.array([VSM.published_scores(name, "2015") for name in VSM.regions("2015")])
    assert np.isnan(scores).sum(axis=0).tolist() == [32, 32, 32, 32, 15, 14]
    assert len(VSM.regions("2015", complete=True)) == 65
    assert VSM.target("Greece", "2015").scores[3] == 112
    assert VSM.target("Malaysia", "2015").scores[0] == 104
    assert VSM.target("Slovakia", "2015").scores[[0, 2]].tolist() == [104, 110]


@pytest.mark.parametrize(
    ("region", "edition", "scores"),
    [
        ("United States", "2015", [40, 91, 62, 46, 26, 68]),
        ("United States", "2023", [40, 60, 62, 46, 50, 68]),
        ("China", "2015", [80, 20, 66, 30, 87, 24]),
        ("China", "2023", [80, 43, 66, 30, 77, 24]),
        ("India", "2015", [77, 48, 56, 40, 51, 26]),
        ("India", "2023", [77, 24, 56, 40, 51, 26]),
        ("Arab countries", "2015", [80, 38, 53, 68, 23, 34]),
        ("Saudi Arabia", "2023", [72, 48, 43, 64, 27, 14]),
        ("Egypt", "2023", [80, 13, 55, 55, 22, 0]),
        ("Libya", "2023", [100, 17, 66, 67, 22, 74]),
    ],
)
def test_published_values(region: str, edition: str, scores: list[float]) -> None:
    target = VSM.target(region, edition)
    assert target.scores.tolist() == scores
    assert (target.region, target.edition, target.factors) == (region, edition, VSM.factors)
    assert target.constants == dict.fromkeys(VSM.factors, 50.0)
    assert target.source


def test_no_edition_picks_the_newest_complete_one_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="softde"):
        assert VSM.target("Saudi Arabia").edition == "2023"
        assert VSM.target("Belgium").edition == "2015"
    assert caplog.messages == [
        "Saudi Arabia: edition 2023, the newest with all 6 scores",
        "Belgium: edition 2015, the newest with all 6 scores",
    ]
    assert str(VSM.target("KSA")) == (
        "Saudi Arabia, edition 2023: PDI 72, IDV 48, MAS 43, UAI 64, LTO 27, IVR 14 (constants 50)"
    )


@pytest.mark.parametrize(
    ("region", "edition", "message"),
    [
        ("Saudi Arabia", "2015", "Saudi Arabia: edition 2015 lacks PDI, IDV, MAS, UAI; use edition '2023'"),
        ("Belgium", "2023", "Belgium: edition 2023 lacks the region; use edition '2015'"),
        ("Qatar", "2023", "Qatar: edition 2023 lacks IVR; no edition has them all"),
        ("Qatar", None, "Qatar: edition 2015 lacks the region; edition 2023 lacks IVR; no edition has them all"),
        ("China", "2019", "unknown edition '2019' of survey 'vsm13'; known: 2015, 2023"),
        ("Saudi Arabya", None, "unknown region 'Saudi Arabya'; did you mean Saudi Arabia?"),
        ("Untied States", None, "did you mean United States"),
        ("Atlantis", None, "unknown region 'Atlantis'"),
        ("", None, "unknown region ''"),
    ],
)
def test_what_cannot_be_a_target_is_explained(region: str, edition: str | None, message: str) -> None:
    with pytest.raises(ValueError) as error:
        VSM.target(region, edition)
    assert str(error.value).startswith(message) or message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_typo_in_any_name_suggests_that_name() -> None:
    for name in NAMES:
        typo = name[:2] + name[3:]
        try:
            assert find_region(typo, NAMES) in NAMES
        except ValueError as error:
            assert name in str(error), typo


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("saudi arabia", "Saudi Arabia"),
        ("  SAUDI-ARABIA ", "Saudi Arabia"),
        ("sa", "Saudi Arabia"),
        ("SAU", "Saudi Arabia"),
        ("us", "United States"),
        ("U.S.A.", "United States"),
        ("u.k.", "United Kingdom"),
        ("DE", "Germany"),
        ("DEU", "Germany"),
        ("GER", "Germany"),
        ("chi", "China"),
        ("CHN", "China"),
        ("Turkiye", "Turkey"),
        ("Türkiye", "Turkey"),
        ("Trinidad & Tobago", "Trinidad and Tobago"),
        ("viet nam", "Vietnam"),
        ("SLV", "El Salvador"),
        ("svn", "Slovenia"),
        ("ARA", "Arab countries"),
        ("UAE", "United Arab Emirates"),
    ],
)
def test_regions_by_name_alias_and_code(text: str, name: str) -> None:
    assert find_region(text, NAMES) == name


def test_slv_is_the_only_code_that_means_two_regions() -> None:
    iso3 = {region.iso3: region.name for region in known_regions() if region.iso3}
    assert {c for c, name in CODES.items() if iso3.get(c, name) != name} == {"SLV"}
    keys = [r.name.casefold() for r in known_regions()] + [a.casefold() for r in known_regions() for a in r.aliases]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("code", ["BEN", "CAF", "MAC", "MNG"])
def test_matrix_codes_of_countries_without_scores_name_the_region_they_mean(code: str) -> None:
    """ISO 3166 gives these to Benin, the Central African Republic, Macao and Mongolia; none becomes a target unseen."""
    with pytest.raises(ValueError, match=rf"^{re.escape(CODES[code])}: edition 2015 lacks"):
        VSM.target(code)


@given(
    st.sampled_from(known_regions()), st.sampled_from(["name", "iso2", "iso3"]), st.booleans(), st.sampled_from(" -.'")
)
def test_every_name_and_iso_code_finds_its_region(region: Region, key: str, upper: bool, mark: str) -> None:
    text = getattr(region, key)
    if text:
        text = mark + (text.upper() if upper else text.lower()).replace(" ", mark)
        assert find_region(text, NAMES) == region.name


def test_every_published_region_is_in_the_table() -> None:
    assert set(NAMES) == {region.name for region in known_regions()}


def test_targets_are_values() -> None:
    target = VSM.target("China", "2015")
    assert target == VSM.target("cn", "2015")
    assert hash(target) == hash(VSM.target("cn", "2015"))
    assert target != VSM.target("China", "2023")
    assert target != VSM.target("China", "2015", constants=0)
    assert target != "China"
    assert Target.from_dict(json.loads(json.dumps(target.as_dict()))) == target
    with pytest.raises(ValueError, match="read-only"):
        target.scores[0] = 1
    with pytest.raises(ValueError, match="one finite score per factor"):
        Target("X", "1", ("F",), np.array([np.nan]), "", {"F": 0})


def test_regions_of_ones_own_survey_need_not_be_in_the_table() -> None:
    rows = {"Wakanda": {"F": 1}, "USA": {"F": 2}, "Lilliput": {}}
    item = Item("a", "A", options(["x", "y"]))
    survey = Survey("s", "S", (item,), (Factor("F", "", {"a": 1}),), published=(Edition("1", "made", rows),))
    assert survey.target("wakanda").scores.tolist() == [1]
    assert survey.target("United States").region == "USA"
    assert survey.regions() == ("Wakanda", "USA", "Lilliput")
    assert survey.regions(complete=True) == ("Wakanda", "USA")
    with pytest.raises(ValueError, match="China is a known region without published scores"):
        survey.target("cn")
    with pytest.raises(ValueError, match="Lilliput: edition 1 lacks the region"):
        survey.target("Lilliput")
    with pytest.raises(ValueError, match="no published scores"):
        Survey("s", "S", (item,)).target("China")


def own(*regions: str) -> Survey:
    """A survey whose regions have 0, 1, 2, … as their score."""
    item = Item("a", "A", options(["x", "y"]))
    rows = {region: {"F": i} for i, region in enumerate(regions)}
    return Survey("s", "S", (item,), (Factor("F", "", {"a": 1}),), published=(Edition("1", "made", rows),))


ALIKE = ("Group +", "Group -", "भारत की", "भारत का", "🍵", "☕", "กา", "กี", "が", "か", "Cote", "Côte")


@pytest.mark.parametrize("number", range(len(ALIKE)))
def test_names_that_differ_in_a_sign_are_different_regions(number: int) -> None:
    survey = own(*ALIKE)
    assert survey.target(ALIKE[number]).scores.tolist() == [number]
    assert survey.published_scores(ALIKE[number], "1").tolist() == [number]


def test_a_spelling_is_forgiven_as_far_as_it_is_clear() -> None:
    survey = own(*ALIKE, "Ελλάδα", "Łódź", "עִבְרִית")
    for text, name in (
        ("group  +", "Group +"),
        ("GROUP -", "Group -"),
        ("भारत-की", "भारत की"),
        ("ελλαδα", "Ελλάδα"),
        ("łodz", "Łódź"),
        ("CO\u0302TE", "Côte"),  # written as two characters
        ("עברית", "עִבְרִית"),
    ):
        assert survey.target(text).region == name
    with pytest.raises(ValueError, match=r"region 'group' means 'Group \+' or 'Group -'; write it as it stands"):
        survey.target("group")
    with pytest.raises(ValueError, match="region 'Côté' means 'Cote' or 'Côte'"):
        survey.target("Côté")
    with pytest.raises(ValueError, match="region 'GBR' means 'UK' or 'Great Britain'"):
        own("UK", "Great Britain").target("GBR")
    with pytest.raises(ValueError, match="unknown region '💧'"):
        survey.target("💧")


@pytest.mark.parametrize(
    ("text", "name"), [("Holland", "Netherlands"), ("england", "United Kingdom"), ("PRC", "China")]
)
def test_names_that_people_type(text: str, name: str) -> None:
    assert find_region(text, NAMES) == name
