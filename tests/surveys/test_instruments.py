"""Every shipped instrument against its key, written down here a second time, and against worked examples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from softde.surveys import load_survey, shipped_surveys
from softde.surveys.survey import NO_TEXT
from softde.surveys.toml import template

WITHOUT_TEXT = ("ipip50", "mfq2", "pvq40", "pvqrr", "vsm94")
KEYS = """
SD PO UN AC SE ST CO UN TR HE SD BE AC SE ST CO PO BE UN TR HE

SD PO UN AC SE ST CO UN TR HE SD BE AC SE ST CO PO BE UN TR SE SD UN AC TR HE BE CO UN ST SE AC BE SD SE CO HE
TR PO UN

SDT SES HE COI UNC POD HUM UNN FAC ST BEC POR SEP UNT COR SDA AC TR BED POR UNN COI SDT FAC BEC SEP BED ST POD
SDA COR AC TR UNT SES HE UNC HUM SDT TR POD COR ST POR UNN HE BEC AC FAC SES COI UNC SEP HUM BED SDA UNT
"""
PVQ21, PVQ40, PVQRR = (key.split() for key in KEYS.split("\n\n"))  # the value of item 1, 2, …
IPIP = (  # the signs of the IPIP's sample questionnaire, item 1 to 50; item i belongs to factor (i - 1) mod 5
    "+-+-+ -+-+- +-+-+ -+-+- +-+-+ -+--- +-+-+ -+--+ +++-+ -++-+"
).replace(" ", "")


def people(name: str, seed: int = 0, count: int = 12) -> np.ndarray:
    survey = load_survey(name)
    low, high = np.nanmin(survey.option_values, axis=1), np.nanmax(survey.option_values, axis=1)
    return np.random.default_rng(seed).integers(low.astype(int), high.astype(int) + 1, (count, len(low))).astype(float)


@pytest.mark.parametrize("name", shipped_surveys())
def test_every_instrument_says_whence_it_is_and_under_which_terms(name: str) -> None:
    survey = load_survey(name)
    assert survey.id == name and survey.source and survey.note
    assert all(item.topic for item in survey.items)
    assert len(set(survey.digest)) > 1
    assert (survey.missing_texts == survey.item_ids) is (name in WITHOUT_TEXT)
    assert all(item.text == NO_TEXT for item in survey.items) is (name in WITHOUT_TEXT)


@pytest.mark.parametrize("name", WITHOUT_TEXT)
def test_a_survey_without_texts_cannot_be_asked_but_its_template_can_be_filled_in(name: str, tmp_path: Path) -> None:
    survey = load_survey(name)
    with pytest.raises(ValueError) as error:
        survey.need_texts()
    assert f"write `softde surveys template {name} > my.toml`, fill them in and use my.toml" in str(error.value)
    path = tmp_path / "my.toml"
    path.write_text(template(survey), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"my.toml: item '{survey.item_ids[0]}': text: expected a text that is not"):
        load_survey(path)
    path.write_text(template(survey).replace('text = ""', 'text = "My text?"'), encoding="utf-8")
    mine = load_survey(path)
    mine.need_texts()
    assert (mine.id, mine.factor_models, mine.scoring) == ("my", survey.factor_models, survey.scoring)
    answers = people(name)
    np.testing.assert_array_equal(mine.score_respondents(answers).mean, survey.score_respondents(answers).mean)


def test_a_template_of_a_survey_with_texts_keeps_them(tmp_path: Path) -> None:
    for name in ("vsm13", "iw", "pvq21"):
        path = tmp_path / f"{name}.toml"
        path.write_text(template(load_survey(name)), encoding="utf-8")
        assert load_survey(path) == load_survey(name)


# --- Hofstede ---------------------------------------------------------------------------------------------------------


def test_vsm94_formulas_written_out() -> None:
    """Values Survey Module 1994 Manual, section 2; LTO of two items."""
    survey = load_survey("vsm94")
    answers = people("vsm94")
    m = dict(enumerate(answers.mean(axis=0).tolist(), start=1))
    expected = {
        "PDI": -35 * m[3] + 35 * m[6] + 25 * m[14] - 20 * m[17] - 20,
        "IDV": -50 * m[1] + 30 * m[2] + 20 * m[4] - 25 * m[8] + 130,
        "MAS": 60 * m[5] - 20 * m[7] + 20 * m[15] - 70 * m[20] + 100,
        "UAI": 25 * m[13] + 20 * m[16] - 50 * m[18] - 15 * m[19] + 120,
        "LTO": -20 * m[10] + 20 * m[12] + 40,
    }
    assert survey.factors == tuple(expected)
    np.testing.assert_allclose(survey.score(answers.mean(axis=0)), list(expected.values()))
    np.testing.assert_allclose(survey.score_respondents(answers).mean, list(expected.values()))
    assert np.count_nonzero(survey.weights, axis=0).tolist() == [1] * 8 + [0, 1, 0, 1] + [1] * 8


def test_the_manuals_worked_example_of_a_mean_with_invalid_answers() -> None:
    """VSM 94 manual, section 2: question 04, 10 × 1, 24 × 2, 14 × 3, 5 × 4, 1 × 5 and 3 invalid: 125/54 = 2.31."""
    survey = load_survey("vsm94")
    answers = np.full((57, 20), 3.0)
    answers[:, 3] = [1] * 10 + [2] * 24 + [3] * 14 + [4] * 5 + [5] + [np.nan] * 3
    scores = survey.score_respondents(answers)
    assert scores.mean[1] == pytest.approx(-150 + 90 + 20 * 125 / 54 - 75 + 130)
    assert round((scores.mean[1] - (-150 + 90 - 75 + 130)) / 20, 2) == 2.31
    assert np.isnan(scores.per_respondent[-1, 1]) and scores.per_respondent[-1, 0] == 3 * (-35 + 35 + 25 - 20) - 20


# --- Schwartz ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "key"), [("pvq21", PVQ21), ("pvq40", PVQ40), ("pvqrr", PVQRR)])
def test_values_are_means_less_the_persons_mean(name: str, key: list[str]) -> None:
    survey = load_survey(name)
    assert len(key) == len(survey.items) and set(key) == set(survey.factors)
    answers = people(name)
    each = survey.score_respondents(answers).per_respondent
    for person, scores in zip(answers.tolist(), each, strict=True):
        middle = sum(person) / len(person)
        for factor, score in zip(survey.factors, scores, strict=True):
            own = [answer for answer, value in zip(person, key, strict=True) if value == factor]
            assert score == pytest.approx(sum(own) / len(own) - middle)
    np.testing.assert_allclose(survey.score(answers.mean(axis=0)), each.mean(axis=0), atol=1e-12)


def test_the_topics_of_the_values_follow_the_key() -> None:
    for name, key in (("pvq40", PVQ40), ("pvqrr", PVQRR)):
        survey = load_survey(name)
        names = {factor.id: factor.name for factor in survey.factor_models}
        assert [item.topic for item in survey.items] == [names[value] for value in key]


def test_a_portrait_scored_by_hand() -> None:
    """All 3 but p02 (power) 6, p17 (power) missing: mean 63/20 = 3.15; power 6 - 3.15, conformity 3 - 3.15."""
    survey = load_survey("pvq21")
    person = np.full(21, 3.0)
    person[1], person[16] = 6, np.nan
    scores = dict(zip(survey.factors, survey.score_respondents([person]).mean.tolist(), strict=True))
    assert scores["PO"] == pytest.approx(2.85) and scores["CO"] == pytest.approx(-0.15)


def test_who_answers_fewer_than_16_portraits_is_left_out() -> None:
    survey = load_survey("pvq21")
    answers = people("pvq21", count=3)
    answers[1, :5], answers[2, :6] = np.nan, np.nan
    each = survey.score_respondents(answers).per_respondent
    assert np.isfinite(each[0]).all() and np.isnan(each[2]).all()
    # 16 answers are enough; of p01 to p05 missing, no value loses both its items
    assert np.isfinite(each[1]).all()


def test_very_much_like_me_counts_most_whichever_way_it_is_printed() -> None:
    """The European Social Survey codes 1 very much like me; the portraits' own key 6: reversed to one direction."""
    for name in ("pvq21", "pvq40", "pvqrr"):
        values = {option.text: option.value for option in load_survey(name).items[0].options}
        assert values["very much like me"] == 6 and values["not like me at all"] == 1


# --- MFQ-2 and IPIP ---------------------------------------------------------------------------------------------------


def test_foundations_are_every_sixth_item() -> None:
    survey = load_survey("mfq2")
    answers = people("mfq2")
    assert survey.factors == ("CARE", "EQUALITY", "PROPORTIONALITY", "LOYALTY", "AUTHORITY", "PURITY")
    expected = np.stack([answers[:, first::6].mean(axis=1) for first in range(6)], axis=1)
    np.testing.assert_allclose(survey.score_respondents(answers).per_respondent, expected)
    assert survey.score(answers.mean(axis=0)).tolist() == pytest.approx(expected.mean(axis=0).tolist())
    gap = answers[:1].copy()
    gap[0, [0, 6]] = np.nan  # four of six are enough, three are not
    assert survey.score_respondents(gap).mean[0] == pytest.approx(answers[0, 12::6].mean())
    gap[0, 12] = np.nan
    assert np.isnan(survey.score_respondents(gap).mean[0])


def test_big_five_markers_with_their_signs() -> None:
    survey = load_survey("ipip50")
    answers = people("ipip50")
    assert survey.factors == ("E", "A", "C", "ES", "I") and len(IPIP) == 50
    turned = np.where(np.array(list(IPIP)) == "+", answers, 6 - answers)
    expected = np.stack([turned[:, first::5].mean(axis=1) for first in range(5)], axis=1)
    np.testing.assert_allclose(survey.score_respondents(answers).per_respondent, expected)
    np.testing.assert_allclose(survey.score(answers.mean(axis=0)), expected.mean(axis=0))
    assert [IPIP[i::5].count("-") for i in range(5)] == [
        5,
        4,
        4,
        8,
        3,
    ]  # ten items each, as the IPIP's scoring page has


# --- Inglehart-Welzel -------------------------------------------------------------------------------------------------


def test_the_fitted_mean_of_every_variable_is_the_origin_of_the_components() -> None:
    """At the fitted means both axes are at their offsets; each deviation moves an axis by scale · loading."""
    survey = load_survey("iw")
    p = survey.projection
    assert p is not None
    shares = np.zeros(survey.option_values.shape)
    at = dict(zip(p.variables, p.means, strict=True))
    for row, item in zip(shares, survey.items, strict=True):
        last = len(item.options) - 1
        if item.id in at:  # two outer options, mixed to the fitted mean
            row[last] = (at[item.id] - 1) / last
            row[0] = 1 - row[last]
    goals, second = survey.item_ids.index("Q154"), survey.item_ids.index("Q155")
    # first choice order (x) or say (1 - x), second prices: x·1 + (1 - x)·2 = the fitted 1.895
    shares[goals, 0], shares[goals, 1], shares[second, 2] = 2 - at["Y002"], at["Y002"] - 1, 1
    for name in ("Q8", "Q14", "Q17"):
        shares[survey.item_ids.index(name), 1] = 1
    shares[survey.item_ids.index("Q8")] = [-at["Y003"], 1 + at["Y003"], *[0] * 8]  # autonomy −0.205: independence alone
    shares[survey.item_ids.index("Q15"), 1] = 1
    np.testing.assert_allclose(survey.score_probabilities(shares), [0.477357, -0.113661], atol=1e-9)
    trust = survey.item_ids.index("Q57")
    shares[trust, :2] += [p.deviations[1], -p.deviations[1]]  # one deviation more trusting
    np.testing.assert_allclose(survey.score_probabilities(shares), [0.477357 + 0.510876 * 0.46, -0.113661], atol=1e-9)


def test_the_poles_of_the_map() -> None:
    """Trust, tolerance and petitions are self-expression; an unimportant God and abortion secular-rational."""
    survey = load_survey("iw")
    weights = dict(zip(survey.item_ids, survey.weights.T.tolist(), strict=True))
    assert all(weights[item][0] < 0 for item in ("Q46", "Q57", "Q209")) and weights["Q182"][0] > 0
    assert weights["Q164"][1] < 0 and all(weights[item][1] > 0 for item in ("Q45", "Q184", "Q254"))
    assert all(weights[item][1] < 0 for item in ("Q8", "Q14")) and all(weights[item][1] > 0 for item in ("Q15", "Q17"))
    assert survey.uses[0].tolist() == [i in ("Q46", "Q57", "Q209", "Q182", "Q154", "Q155") for i in survey.item_ids]


def test_who_answers_fewer_than_six_of_ten_variables_has_no_place() -> None:
    survey = load_survey("iw")
    answers = people("iw", count=1)
    answers[0, [survey.item_ids.index(i) for i in ("Q154", "Q155")]] = 1, 2
    order = ["Q46", "Q57", "Q8", "Q154", "Q209"]  # five variables: happiness, trust, Y003, Y002, petition
    for count, item in enumerate(order, start=1):
        answers[0, survey.item_ids.index(item)] = np.nan
        assert np.isfinite(survey.score_respondents(answers).mean).all() == (count <= 4)


def test_the_axes_follow_the_published_map(shared_data: Path) -> None:
    """From the shares of 19 regions, read here by hand: r ≥ 0.87 on both axes over the 18 regions of the map."""
    path = shared_data / "culturespa" / "proportions_group_by_country.json"
    if not path.exists():
        pytest.skip(f"no shares at {path}")
    survey = load_survey("iw")
    scores, published = [], []
    for code, answers in json.loads(path.read_text(encoding="utf-8")).items():
        if code == "ZWE":  # not on the map
            continue
        shares = np.zeros(survey.option_values.shape)
        for row, item in zip(shares, survey.items, strict=True):
            row[: len(item.options)] = [answers[item.id].get(option.label, 0) for option in item.options]
            row /= row.sum()
        scores.append(survey.score_probabilities(shares))
        published.append(survey.target(code, "2022").scores)
    assert len(scores) == 18
    r = np.corrcoef(np.hstack([scores, published]).T)
    assert r[0, 2] == pytest.approx(0.957, abs=0.001) and r[1, 3] == pytest.approx(0.973, abs=0.001)
    assert r[0, 2] > r[0, 3] and r[1, 3] > r[1, 2]
    assert np.abs(np.array(scores) - published).mean(axis=0).max() < 0.5


def test_the_published_map(shared_data: Path) -> None:
    path = shared_data / "inglehart-welzel" / "map-2022.csv"
    if not path.exists():
        pytest.skip(f"no map at {path}")
    survey = load_survey("iw")
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    assert len(rows) == len(survey.regions("2022")) == 32
    for code, *place in rows:
        assert survey.target(code, "2022").scores.tolist() == [float(x) for x in place]
