"""The table: every number by hand from answer sheets that are made up, and how it is written."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from softde.abilities import Abilities, Quiz, make_quiz, quiz_item
from softde.abilities.asking import Sheet
from softde.abilities.scoring import adjusted, compared, null_answerers
from softde.abilities.statistics import mcnemar, wilson


def sheet(quiz: Quiz, chosen: list[int | None], sure: float = 0.7, not_asked: dict[str, str] | None = None) -> Sheet:
    """Probability `sure` on the chosen option, the rest shared; None for no valid answer."""
    probabilities = np.full(quiz.survey.option_values.shape, np.nan)
    for i, (item, option) in enumerate(zip(quiz.survey.items, chosen, strict=True)):
        if option is not None:
            probabilities[i] = 0.0
            probabilities[i, : len(item.options)] = (1 - sure) / (len(item.options) - 1)
            probabilities[i, option] = sure
    mass = np.linspace(0.8, 0.9, len(chosen))
    return Sheet(quiz, probabilities, mass, not_asked or {}, 100)


@pytest.fixture
def easy() -> Quiz:
    """Eight questions of four options; right are 0 0 0 0 1 1 2 3; two subjects."""
    rights = [0, 0, 0, 0, 1, 1, 2, 3]
    items = [quiz_item(str(i), f"{i}?", "abcd", k, "uv"[i // 4]) for i, k in enumerate(rights)]
    return make_quiz("easy", items)


@pytest.fixture
def hard() -> Quiz:
    """Three questions of four judgements, of which one each is right (yes is option 0)."""
    rights = [0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0]
    items = [quiz_item(str(i), f"{i}?", ["yes", "no"], k) for i, k in enumerate(rights)]
    return make_quiz("hard", items, [str(i // 4) for i in range(12)])


def table(*sheets: tuple[Sheet, ...]) -> Abilities:
    names = ("unprompted", "other")[: len(sheets[0])]
    rows = adjusted([row for found in sheets for row in compared(found, names)])
    return Abilities("m", "both", names, sheets, tuple(rows))


def test_easy_by_hand(easy: Quiz) -> None:
    before = sheet(easy, [0, 0, 1, 1, 1, 0, 0, 0])  # right: 0 1 4
    after = sheet(easy, [0, 1, 0, 0, 1, 1, 2, None], sure=0.4)  # right: 0 2 3 4 5 6
    found = table((before, after))
    first, second = found.rows
    assert (first.accuracy.value, second.accuracy.value) == (3 / 8, 6 / 8)
    assert (second.accuracy.low, second.accuracy.high) == (wilson(6, 8).low, wilson(6, 8).high)
    assert (second.better, second.worse) == (4, 1)
    assert second.difference.value == 3 / 8 and second.difference.low < 3 / 8 < second.difference.high
    assert second.p == pytest.approx(2 * (1 + 5) / 32) == second.p_holm
    assert math.isnan(first.p) and not first.difference.known and not first.judgement_accuracy.known
    assert first.probability == pytest.approx((3 * 0.7 + 5 * 0.1) / 8)
    assert second.probability == pytest.approx((6 * 0.4 + 0.2) / 7)  # of the valid answers
    assert (first.invalid, second.invalid) == (0.0, 1 / 8)
    assert first.option_mass == pytest.approx(0.85)
    assert (first.questions, first.judgements, first.not_asked, first.forward_tokens) == (8, 8, 0, 100)


def test_hard_counts_a_question_only_if_all_four_judgements_are_right(hard: Quiz) -> None:
    before = sheet(hard, [1] * 12)  # no throughout: nine judgements right, no question
    after = sheet(hard, [0, 1, 1, 1, 1, 0, 1, 1, 0, 1, 1, 0])  # all but item 8
    first, second = table((before, after)).rows
    assert (first.accuracy.value, first.judgement_accuracy.value) == (0.0, 0.75)
    assert (second.accuracy.value, second.judgement_accuracy.value) == (pytest.approx(2 / 3), pytest.approx(11 / 12))
    assert (second.better, second.worse, second.p) == (2, 0, 0.5)
    assert second.judgement_accuracy.low < 11 / 12 < second.judgement_accuracy.high
    assert (second.questions, second.judgements) == (3, 12)


def test_null_answerers_by_hand(easy: Quiz, hard: Quiz) -> None:
    nulls = null_answerers(easy, np.ones(8, dtype=bool))
    assert nulls == {"chance": (pytest.approx(0.25), pytest.approx(0.25)), "best single option": (0.5, 0.5)}
    nulls = null_answerers(hard, np.ones(3, dtype=bool))
    assert nulls == {"chance": (pytest.approx(1 / 16), 0.5), "best single option": (0.0, 0.75)}
    assert null_answerers(easy, np.arange(8) >= 4)["best single option"] == (0.5, 0.5)  # of the questions counted


def test_questions_that_were_not_asked_count_nowhere(easy: Quiz, hard: Quiz) -> None:
    before = sheet(easy, [0, 0, 1, 1, 1, 0, 0, 0], not_asked={"0": "too long"})
    after = sheet(easy, [0, 1, 0, 0, 1, 1, 2, 0], not_asked={"7": "too long"})
    first, second = table((before, after)).rows
    assert (first.questions, first.not_asked) == (6, 2) == (second.questions, second.not_asked)
    assert (first.accuracy.value, second.accuracy.value) == (2 / 6, 5 / 6)
    judged = sheet(hard, [0, 1, 1, 1, 1, 0, 1, 1, 0, 1, 1, 0], not_asked={"5": "too long"})
    (row,) = table((judged,)).rows
    assert (row.questions, row.judgements, row.accuracy.value) == (2, 8, 0.5)
    assert row.judgement_accuracy.value == pytest.approx(7 / 8)
    everything = sheet(hard, [1] * 12, not_asked={str(i): "too long" for i in range(12)})
    with pytest.raises(ValueError, match="quiz 'hard': no question of it can be asked under every condition; too long"):
        table((everything,))


def test_two_options_alike_are_no_right_answer(easy: Quiz) -> None:
    assert not sheet(easy, [0] * 8, sure=0.25).right.any()


def test_p_is_adjusted_over_all_quizzes(easy: Quiz, hard: Quiz) -> None:
    easy_pair = sheet(easy, [1, 1, 1, 1, 0, 0, 0, 0]), sheet(easy, easy.right.tolist())
    hard_pair = sheet(hard, [1] * 12), sheet(hard, hard.right.tolist())
    found = table(easy_pair, hard_pair)
    assert found.row("other", "easy").p == mcnemar(8, 0) == 2 / 2**8
    assert found.row("other", "easy").p_holm == 2 * 2 / 2**8
    assert found.row("other", "hard").p == found.row("other", "hard").p_holm == 0.25
    with pytest.raises(ValueError, match="expected one of conditions 'unprompted', 'other' and quizzes 'easy', 'hard'"):
        found.row("other")


def test_sub_scores_and_answers(easy: Quiz) -> None:
    found = table((sheet(easy, [0, 0, 1, 1, 1, 0, 0, 0]), sheet(easy, [0, 1, 0, 0, 1, 1, 2, 3])))
    lines = [(r["subject"], r["condition"], r["questions"], r["accuracy"], r["difference"]) for r in found.by_subject()]
    assert lines == [
        ("u", "unprompted", 4, 0.5, 0.0),
        ("u", "other", 4, 0.75, 0.25),
        ("v", "unprompted", 4, 0.25, 0.0),
        ("v", "other", 4, 1.0, 0.75),
    ]
    assert found.by_subject()[1]["accuracy_low"] == wilson(3, 4).low
    answers = found.answers()
    assert len(answers) == 16
    assert answers[2]["right"] is False and answers[10]["right"] is True
    assert answers[10]["probability"] == 0.7 and answers[10]["question"] == "2"


def test_it_is_written_as_text_markdown_and_files(easy: Quiz, hard: Quiz, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    found = table(
        (sheet(easy, [0, 0, 1, 1, 1, 0, 0, 0]), sheet(easy, [0, 1, 0, 0, 1, 1, 2, 0])),
        (sheet(hard, [1] * 12), sheet(hard, hard.right.tolist())),
    )
    lines = str(found).splitlines()
    assert lines[0] == "easy: 8 questions, options listed both ways, model m"
    heads = "accuracy difference better/worse p p (Holm) P(right) option mass"
    assert " ".join(lines[2].split()) == heads
    assert lines[4].split() == ["unprompted", "37.5", "[13.7,", "69.4]", "0.32", "0.85"]
    assert lines[5].startswith("other ") and "+37.5 [" in lines[5] and " 4/1 " in lines[5] and " 0.375 " in lines[5]
    assert [line.split() for line in lines[6:8]] == [["chance", "25.0"], ["best", "single", "option", "50.0"]]
    assert "hard: 3 questions of 12 judgements, options listed both ways, model m" in lines
    assert max(map(len, str(table(found.sheets[0])).splitlines())) <= 115
    markdown = found.to_markdown()
    assert "| chance | 6.2 | 50.0 |  |  |  |  |  |  |" in markdown and "| ---: |" in markdown

    frame = found.to_frame()
    assert frame["condition"].tolist() == ["unprompted", "other", "chance", "best single option"] * 2
    assert frame.loc[1, "better"] == 4 and frame.loc[1, "difference"] == 0.375 and frame.loc[2, "accuracy"] == 0.25
    assert isinstance(frame, pandas.DataFrame)
    found.save(tmp_path / "t.csv")
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [row["kind"] for row in rows] == ["condition", "condition", "null", "null"] * 2
    assert float(rows[1]["accuracy"]) == 0.75 and rows[0]["p"] == "" and rows[0]["judgement_accuracy"] == ""
    found.save(tmp_path / "t.md")
    assert (tmp_path / "t.md").read_text() == markdown
    pytest.importorskip("pyarrow")
    found.save(tmp_path / "t.parquet")
    assert pandas.read_parquet(tmp_path / "t.parquet")["accuracy"].tolist() == [r["accuracy"] for r in found.records()]


def test_one_condition_has_no_columns_of_differences_and_low_mass_is_told(easy: Quiz) -> None:
    one = sheet(easy, easy.right.tolist())
    found = table((Sheet(easy, one.probabilities, np.full(8, 0.01)),))
    assert str(found).splitlines()[2].split() == ["accuracy", "P(right)", "option", "mass"]
    assert "difference" not in str(found)
    assert "Careful: under unprompted the options hold less than 50%" in str(found).replace("\n", " ")
