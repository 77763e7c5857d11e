from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softde.surveys import Item, Survey, options
from softde.surveys.human.answers import HumanAnswers
from softde.surveys.metrics import (
    answer_sheet,
    culture_spa,
    culture_spa_by_region,
    culture_spa_corrected,
    culture_spa_nulls,
    culture_spa_score,
    identification,
    null_answers,
    rank_targets,
)
from softde.surveys.metrics.culture_spa import number_in
from tests.surveys import spa

# Recomputed from the answers that Xu et al. published with CultureSPA (arXiv 2410.12971): culture-unaware, one score
# per culture; culture-aware, of the nine cultures whose answer files are in the test data.
UNAWARE = [68.34, 70.91, 57.30, 58.76, 68.87, 69.79, 69.10, 63.71, 62.19, 63.12, 56.55, 63.59, 54.14, 52.05, 55.31,
           53.13, 67.43, 68.23]  # fmt: skip
AWARE = [71.12, 62.83, 70.50, 66.54, 67.06, 62.97, 60.60, 65.53, 71.81]
OTHERS_MEAN = [
    74.6,
    73.2,
    68.7,
    69.2,
    71.3,
    70.1,
    71.9,
    78.3,
    73.0,
    76.0,
    69.2,
    74.3,
    68.6,
    65.7,
    68.8,
    66.5,
    70.6,
    69.7,
]
OTHERS_MEDIAN = [
    71.4,
    66.2,
    67.5,
    69.6,
    64.3,
    63.0,
    67.6,
    78.4,
    69.8,
    75.9,
    68.0,
    70.2,
    65.4,
    63.0,
    66.7,
    64.0,
    64.3,
    62.8,
]


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    path = shared_data / "culturespa"
    if not path.is_dir():
        pytest.skip(f"no CultureSPA data at {path}")
    return path


@pytest.fixture(scope="module")
def human(folder: Path) -> HumanAnswers:
    return spa.human(folder)


def tiny(
    shares: dict[str, list[list[float] | None]], sizes: tuple[int, ...] = (3, 5, 11), zero: int = 2
) -> HumanAnswers:
    """Items a, b, c of three, five and eleven options; those from `zero` on have values from 0."""
    items = tuple(
        Item(name, f"Item {name}?", options([f"text {k}" for k in range(size)], range(size) if i >= zero else None))
        for i, (name, size) in enumerate(zip("abc", sizes, strict=False))
    )
    table = np.full((len(shares), len(items), max(sizes)), np.nan)
    for r, rows in enumerate(shares.values()):
        for i, row in enumerate(rows):
            if row is not None:
                table[r, i] = np.pad(row, (0, max(sizes) - len(row)))
    survey = Survey("tiny-survey", "Tiny", items)
    return HumanAnswers(survey, tuple(shares), table, np.full(table.shape[:2], np.nan))


def on(option: int, size: int) -> list[float]:
    return np.eye(size)[option].tolist()


ONE = tiny({"Ireland": [on(0, 3), on(4, 5), on(3, 11)], "Italy": [on(2, 3), on(2, 5), on(8, 11)]})
IRELAND = ONE.select(regions=["Ireland"])  # majority answers 1, 5, 3: the third item counts from 0


# ---- golden numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("region", "score"), list(zip(spa.REGIONS, UNAWARE, strict=True)))
def test_unaware_answers_score_as_published_data_give(
    folder: Path, human: HumanAnswers, region: str, score: float
) -> None:
    found = culture_spa(spa.stored(folder, "culture_unaware"), human.select(regions=[region]))
    assert round(found.score, 2) == score
    sheet = {row["Q_id"]: row["answer"] for row in spa.stored(folder, "culture_unaware")}
    slow, items = spa.slow_score(folder, sheet, region)
    assert found.score == pytest.approx(slow, abs=1e-10) and found.items == items
    assert culture_spa_score(sheet, human.select(regions=[region])) == found.score


def test_unaware_average(folder: Path, human: HumanAnswers) -> None:
    answers = spa.stored(folder, "culture_unaware")
    scores = culture_spa_by_region(answers, human.select(regions=spa.REGIONS))
    assert round(float(scores.mean()), 2) == 62.36
    np.testing.assert_allclose(scores, UNAWARE, atol=0.005)


@pytest.mark.parametrize(("region", "score"), list(zip(spa.AWARE, AWARE, strict=True)))
def test_aware_answers_score_as_published_data_give(
    folder: Path, human: HumanAnswers, region: str, score: float
) -> None:
    answers = spa.stored(folder, f"culture_aware_{region}")
    assert round(culture_spa_score(answers, human.select(regions=[region])), 2) == score
    slow, items = spa.slow_score(folder, {row["Q_id"]: row["answer"] for row in answers}, region)
    assert culture_spa(answers, human.select(regions=[region])).items == items
    assert culture_spa_score(answers, human.select(regions=[region])) == pytest.approx(slow, abs=1e-10)


def test_answers_that_say_no_number_are_counted(folder: Path, human: HumanAnswers) -> None:
    # the file of self-alignment answers: 24 of 259 name no number, and USA has no answers to two more items
    found = culture_spa(spa.stored(folder, "self_alignment_American"), human.select(regions=["USA"]))
    assert round(found.score, 2) == 63.74 and len(found.invalid) == 24 and len(found.no_human) == 2
    assert found.items == 259 - 24 - 2 and found.invalid_share == pytest.approx(24 / 257)
    assert found.no_human == ("Q215", "Q234A") and not found.not_answered and not found.unknown


def test_what_the_other_regions_say_scores_as_published_data_give(human: HumanAnswers) -> None:
    paper = human.select(regions=spa.REGIONS)
    nulls = [culture_spa_nulls(paper, region) for region in spa.REGIONS]
    mean = [n["leave-one-region-out mean"] for n in nulls]
    median = [n["leave-one-region-out median"] for n in nulls]
    np.testing.assert_allclose(mean, OTHERS_MEAN, atol=0.0501)
    np.testing.assert_allclose(median, OTHERS_MEDIAN, atol=0.0501)
    assert round(float(np.mean(mean)), 2) == 71.09 and round(float(np.mean(median)), 2) == 67.66
    assert round(float(np.mean([n["midpoint"] for n in nulls])), 1) == 56.3
    assert float(np.mean([n["uniform answerer"] for n in nulls])) == pytest.approx(46.3, abs=0.2)


def test_stored_answers_do_not_identify_their_culture(folder: Path, human: HumanAnswers) -> None:
    own = {region: spa.stored(folder, f"culture_aware_{region}") for region in spa.AWARE}
    found = identification(own, human.select(regions=spa.REGIONS))
    sheets = {region: {row["Q_id"]: row["answer"] for row in rows} for region, rows in own.items()}
    ranks = []
    for region, sheet in sheets.items():
        scores = {other: spa.slow_score(folder, sheet, other)[0] for other in spa.REGIONS}
        ranks.append(1 + sum(score > scores[region] for score in scores.values()))
    assert found.ranks.tolist() == ranks and found.top1 == 0.0 and found.mean_rank == pytest.approx(78 / 9)
    assert (found.chance_top1, found.chance_mean_rank) == (1 / 18, 9.5)
    assert set(found.best) == {"USA", "CAN", "UKR"}  # as for all 18 outputs: USA, CAN or UKR is the best match


def test_ten_and_eleven_options_make_three_quarters_of_the_denominator(human: HumanAnswers) -> None:
    size = np.array([len(item.options) - 1 for item in human.survey.items]) ** 2
    assert size[size >= 81].sum() / size.sum() == pytest.approx(0.73, abs=0.005)


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_score_by_hand() -> None:
    # errors 1 - 1, 3 - 5, 7 - 3; sizes 2, 4, 10: 1 - √20 / √120
    assert culture_spa_score({"a": "1", "b": 3, "c": "I choose 7."}, IRELAND) == pytest.approx(
        100 * (1 - (20 / 120) ** 0.5)
    )
    # 5 is no option of a but counts, 4 away; 11 is none of theirs and is dropped, as is a refusal
    found = culture_spa({"a": "5", "b": "11", "c": "no"}, IRELAND)
    assert found.score == pytest.approx(100 * (1 - 4 / 2)) and found.invalid == ("b", "c") and found.items == 1
    assert culture_spa_score({"a": 1, "b": 5, "c": 3}, IRELAND) == 100


def test_corrected_score_by_hand() -> None:
    # a: 5 is out of range, so 2 away (the farthest from 1); b refuses, 4 away; c exact
    found = culture_spa_corrected({"a": "5", "b": "no", "c": "3"}, IRELAND)
    assert found.score == pytest.approx(100 * (1 - (20 / 120) ** 0.5))
    assert found.invalid == ("a", "b") and found.invalid_share == pytest.approx(2 / 3) and found.items == 3
    # as positions, c's majority answer is the fourth option
    assert culture_spa_corrected({"a": 1, "b": 5, "c": "4"}, IRELAND, labels=True).score == 100
    assert culture_spa_corrected({"a": 1, "b": 5, "c": "0"}, IRELAND, labels=True).invalid == ("c",)
    assert not culture_spa_corrected({"a": 1, "b": 5, "c": "0"}, IRELAND).invalid
    # all items alike: errors 0, 1/2, 4/10 of the scale
    found = culture_spa_corrected({"a": 1, "b": 3, "c": 7}, IRELAND, equal_items=True)
    assert found.score == pytest.approx(100 * (1 - ((0.25 + 0.16) / 3) ** 0.5))


def test_an_invalid_answer_is_as_far_as_an_answer_can_be() -> None:
    italy = ONE.select(regions=["Italy"])  # majority answers 3, 3, 8: the farthest options are 2, 2 and 8 away
    assert culture_spa_corrected(dict.fromkeys("abc", "?"), italy).score == pytest.approx(100 * (1 - (72 / 120) ** 0.5))
    found = culture_spa_corrected(dict.fromkeys("abc", "?"), italy, equal_items=True)
    assert found.score == pytest.approx(100 * (1 - ((1 + 0.25 + 0.64) / 3) ** 0.5))


def test_refusing_does_not_raise_the_corrected_score() -> None:
    answered = {"a": 3, "b": 1, "c": 5}
    for item in answered:
        refused = {**answered, item: "I cannot answer"}
        assert culture_spa_corrected(refused, IRELAND).score <= culture_spa_corrected(answered, IRELAND).score
    assert culture_spa_score({**answered, "b": "no"}, IRELAND) > culture_spa_score(answered, IRELAND)  # the fault


@pytest.mark.parametrize(
    ("text", "number"),
    [("3", 3), ("I'd say... 10", 10), ("2.2", 2), ("11", 11), ("12 or 3", 12), ("none", None), ("-1", 1), ("", None),
     (None, None), (2.5, 2.5), (float("nan"), None)],
)  # fmt: skip
def test_number_in_a_text(text: Any, number: float | None) -> None:
    found = number_in(text)
    assert np.isnan(found) if number is None else found == number


def reversed_values() -> HumanAnswers:
    """Nine in ten answer an item valued 6, 5, …, 1 by its first option, and one valued -1, 0, 1 by its last."""
    items = (Item("a", "A?", options("uvwxyz", [6, 5, 4, 3, 2, 1])), Item("b", "B?", options("xyz", [-1, 0, 1])))
    shares = [[[0.9, 0, 0, 0, 0, 0.1], [0, 0.2, 0.8, 0, 0, 0]]]
    return HumanAnswers(Survey("r", "R", items), ("DEU",), np.array(shares), np.full((1, 2), np.nan))


@pytest.mark.parametrize(("a", "b", "score"), [("6", "1", 100), ("1", "-1", 0), (6, 1.0, 100), ("5", "-1", None)])
def test_items_valued_in_another_way_are_answered_by_value(a: Any, b: Any, score: float | None) -> None:
    human = reversed_values()
    expected = 100 * (1 - np.sqrt(1 + 4) / np.sqrt(25 + 4)) if score is None else score
    assert culture_spa_score({"a": a, "b": b}, human) == pytest.approx(expected)
    assert culture_spa_corrected({"a": a, "b": b}, human).score == pytest.approx(expected)
    assert culture_spa_by_region({"a": a, "b": b}, human) == pytest.approx([expected])


def test_nulls_and_labels_of_items_valued_in_another_way() -> None:
    human = reversed_values()
    first = null_answers(human, "DEU")["one option throughout: 1"]
    assert dict(first) == {"a": 6.0, "b": -1.0}
    assert culture_spa_score(first, human) == pytest.approx(100 * (1 - 2 / np.sqrt(29)))
    assert culture_spa_corrected({"a": 1, "b": 3}, human, labels=True).score == 100


@pytest.mark.parametrize("answer", ["-1", "2.5", 2.5, -1])
def test_a_number_that_is_no_option_is_invalid_when_corrected(answer: Any) -> None:
    found = culture_spa_corrected({"a": 1, "b": answer}, IRELAND)
    assert found.invalid == ("b",)
    assert found.score == pytest.approx(100 * (1 - 4 / np.sqrt(4 + 16)))  # a right, b four away at most


@given(st.lists(st.integers(0, 10) | st.just("?"), min_size=3, max_size=3).filter(lambda x: x != ["?"] * 3))
def test_scores_stay_in_their_ranges(numbers: list[Any]) -> None:
    sheet = dict(zip("abc", numbers, strict=True))
    assert culture_spa_score(sheet, IRELAND) <= 100
    assert 0 <= culture_spa_corrected(sheet, IRELAND).score <= 100
    assert 0 <= culture_spa_corrected(sheet, IRELAND, equal_items=True).score <= 100
    assert culture_spa_by_region(sheet, ONE)[0] == pytest.approx(culture_spa_score(sheet, IRELAND))


@given(st.permutations("abc"))
def test_order_of_answers_does_not_matter(order: list[str]) -> None:
    sheet = {"a": 1, "b": "2", "c": "no 9"}
    assert culture_spa({k: sheet[k] for k in order}, IRELAND) == culture_spa(sheet, IRELAND)


def test_a_region_that_shares_no_item_is_nan_by_region() -> None:
    human = tiny({"Ireland": [on(0, 3), None, None], "Italy": [None, on(1, 5), None]})
    scores = culture_spa_by_region({"b": 2}, human)
    assert np.isnan(scores[0]) and scores[1] == 100


# ---- nulls and identification ----------------------------------------------------------------------------------------


def test_null_answers_by_hand() -> None:
    human = tiny(
        {"A": [on(0, 3), on(0, 5), None], "B": [on(2, 3), on(1, 5), on(9, 11)], "C": [on(1, 3), on(3, 5), on(4, 11)]}
    )
    nulls = null_answers(human, "A")
    assert dict(nulls["midpoint"]) == {"a": 2, "b": 3, "c": 5}
    assert dict(nulls["leave-one-region-out mean"]) == {
        "a": 2,
        "b": 3,
        "c": 6,
    }  # 2.5 and 6.5 to the even number, of 3, 2 ...
    assert dict(nulls["one option throughout: 4"]) == {"a": 3, "b": 4, "c": 3}
    # uniform answers to A: a {1, 2, 3} against 1: (0 + 1 + 4) / 3; b against 1: (0 + 1 + 4 + 9 + 16) / 5 = 6
    assert culture_spa_nulls(human, "A")["uniform answerer"] == pytest.approx(100 * (1 - ((5 / 3 + 6) / 20) ** 0.5))
    assert culture_spa_nulls(human, "A")["one option throughout"] == 100  # the first


def test_identification_by_hand_and_by_chance() -> None:
    found = identification({"Ireland": {"a": 1, "b": 4, "c": 4}, "Italy": {"a": 1, "b": 5, "c": 3}}, ONE)
    assert found.ranks.tolist() == [1, 2] and found.best == ("Ireland", "Ireland")
    assert (found.top1, found.mean_rank, found.chance_top1, found.chance_mean_rank) == (0.5, 1.5, 0.5, 1.5)
    equal = rank_targets(np.zeros((3, 3)), [0, 1, 2], ("A", "B", "C"))  # ties are no knowledge
    assert (
        equal.ranks.tolist() == [2, 2, 2]
        and equal.top1 == pytest.approx(1 / 3)
        and equal.mean_rank == 2 == equal.chance_mean_rank
    )


def test_identification_from_probabilities(human: HumanAnswers) -> None:
    paper = human.select(regions=spa.REGIONS)
    found = identification({region: paper.shares[paper.row(region)] for region in spa.REGIONS}, paper)
    assert found.top1 == 1 and found.mean_rank == 1 and found.best == found.targets == tuple(spa.REGIONS)
    flat = np.full(paper.shares.shape[1:], 1 / paper.shares.shape[-1])
    same = identification(dict.fromkeys(spa.REGIONS, flat), paper)
    assert same.mean_rank == pytest.approx(same.chance_mean_rank) and same.top1 == pytest.approx(same.chance_top1)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "human_region", "message"),
    [
        ({"a": 1}, ONE, r"one region, got 2 regions; take one with human.select\(regions=\['Ireland'\]\)"),
        (
            {"Q1": 1, "Q2": 3},
            IRELAND,
            "answers of another survey: none of their items .Q1, Q2. is in survey 'tiny-survey'",
        ),
        ({"a": "no"}, IRELAND, "no item has both a valid answer and a human answer .*1 answered, 1 of them invalid"),
        ({}, IRELAND, "no row has an item and an answer"),
        ("a", IRELAND, "expected a mapping from item id to answer or a list of records, got str"),
        ([{"item": "a"}], IRELAND, "row 1: item 'a' has no answer"),
    ],
)
def test_bad_answers(answers: Any, human_region: HumanAnswers, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        culture_spa_score(answers, human_region)


def test_other_items_and_bad_rows_are_named_and_the_rest_kept() -> None:
    rows = [{"item": "a", "answer": "1"}, {"item": "Q9", "answer": "2"}, {"answer": "3"}, {"item": "b", "answer": []},
            7, {"item": "a", "answer": "2"}]  # fmt: skip
    found = culture_spa(rows, IRELAND)
    assert found.items == 1 and found.unknown == ("Q9",) and found.not_answered == ("b", "c")
    assert [text.split(":")[0] for text in found.left_out] == ["row 3", "row 4", "row 5", "row 6"]
    assert "answered before" in found.left_out[3] and answer_sheet(rows)["a"] == "1"


def test_region_without_answers() -> None:
    human = tiny({"Ireland": [None, None, None], "Italy": [on(2, 3), on(2, 5), on(8, 11)]})
    with pytest.raises(ValueError, match="region 'Ireland' has no human answers to any item"):
        culture_spa_score({"a": 1}, human.select(regions=["Ireland"]))
    with pytest.raises(ValueError, match="no human answers for region 'Narnia'"):
        identification({"Narnia": {"a": 1}}, human)
    with pytest.raises(ValueError, match="two regions or more, got Ireland"):
        identification({"Ireland": {"a": 1}}, IRELAND)
    with pytest.raises(ValueError, match=r"shape \(3, 11\) \(items, options\), got \(3, 5\)"):
        identification({"Ireland": np.ones((3, 5))}, ONE)
