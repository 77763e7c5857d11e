"""Respondents and HumanAnswers: what they hold, what they refuse, and their shares beside a slow loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softde.surveys import Item, Survey, options
from softde.surveys.human import HumanAnswers, Respondents, answers_of, load_human

SURVEY = Survey(
    "mini",
    "Mini",
    (
        Item("a", "How often?", options(["never", "sometimes", "always"])),
        Item("b", "Is it so?", options(["yes", "no"], [1, 0])),  # reversed, zero-based
    ),
)
ANSWERS = np.array([[0, 0], [2, -1], [2, 1], [1, 1], [-1, 1]])
REGIONS = np.array(["ITA", "ITA", "BRA", "BRA", "BRA"])
WEIGHTS = np.array([1.0, 3.0, 2.0, 1.0, 1.0])


def people(answers: object = ANSWERS, regions: object = REGIONS, weights: object = WEIGHTS) -> Respondents:
    return Respondents(SURVEY, np.array(answers), np.array(regions), np.array(weights))


def test_values_are_the_options_own() -> None:
    nan = np.nan
    np.testing.assert_array_equal(people().values, [[1, 1], [3, nan], [3, 0], [2, 0], [nan, 0]])


def test_shares_by_hand() -> None:
    human = people().shares("made up")
    assert human.regions == ("BRA", "ITA") and human.source == "made up"
    # BRA, a: weights 2 on always and 1 on sometimes; b: 4 of 4 on no. ITA, a: 1 never, 3 always; b: 1 of 1 on yes
    np.testing.assert_array_equal(human.shares, [[[0, 1 / 3, 2 / 3], [0, 1, 0]], [[0.25, 0, 0.75], [1, 0, 0]]])
    np.testing.assert_array_equal(human.counts, [[2, 3], [2, 1]])
    np.testing.assert_allclose(human.item_means, [[8 / 3, 0], [2.5, 1]], rtol=1e-15)
    assert human.majority.tolist() == [[2, 1], [2, 0]]
    assert human.respondents is not None and human.respondents.of("italy").regions.tolist() == ["ITA", "ITA"]


def test_rows_are_found_by_name_and_code() -> None:
    human = people().shares()
    assert [human.row(name) for name in ("BRA", "bra", "Brazil", "Italy")] == [0, 0, 0, 1]
    with pytest.raises(ValueError, match=r"no human answers for region 'ITB'; did you mean 'ITA'\?"):
        human.row("ITB")
    with pytest.raises(ValueError, match="no human answers for region 'Japan'; known: BRA, ITA"):
        human.row("Japan")


def test_select() -> None:
    human = people().shares().select(items=["b"], regions=["Italy"])
    assert (human.regions, human.survey.item_ids, human.shares.tolist()) == (("ITA",), ("b",), [[[1, 0]]])
    assert human.respondents is not None and human.respondents.answers.tolist() == [[0], [-1]]
    both = people().shares().select(items=["b", "a"])
    np.testing.assert_array_equal(both.item_means, people().shares().item_means[:, ::-1])
    with pytest.raises(ValueError, match=r"no item 'c'"):
        human.select(items=["c"])
    with pytest.raises(ValueError, match="expected a list of one or more"):
        human.select(items="b")


def test_arrays_cannot_be_changed_and_are_not_the_callers() -> None:
    mine = ANSWERS.copy()
    kept = Respondents(SURVEY, mine, REGIONS, WEIGHTS)
    mine[0, 0] = 1
    assert kept.answers[0, 0] == 0
    for array in (kept.answers, kept.weights, kept.shares().shares):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": ANSWERS[:, :1]}, r"answers: expected \(respondents, 2 items\)"),
        ({"answers": ANSWERS[:0], "regions": [], "weights": []}, "one or more"),
        ({"answers": ANSWERS * 1.0}, "as integers, got float64"),
        ({"answers": [*ANSWERS[:4].tolist(), [0, 2]]}, "respondent 4, item b: expected an option number from 0 to 1"),
        ({"regions": REGIONS[:3]}, r"regions: expected one per respondent \(5\)"),
        ({"weights": [1, -1, 1, 1, 1]}, "weights: respondent 1: expected a finite number from 0 up, got -1"),
        ({"weights": [1, 1, np.nan, 1, 1]}, "weights: respondent 2: .* got nan"),
        ({"weights": [0, 0, 1, 1, 1]}, "weights: those of region ITA sum to zero"),
    ],
)
def test_respondents_refuse(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        people(**change)


def test_answers_without_weight_are_refused_where_shares_are_taken() -> None:
    with pytest.raises(ValueError, match="region ITA, item b: the weights of all 1 answers are zero"):
        people(weights=[0, 1, 1, 1, 1]).shares()


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (np.zeros((2, 2)), r"expected \(regions, items, options\) = \(1, 2, 3\)"),
        ([[[0.5, 0.4, 0], [1, 0, 0]]], "region ITA, item a: expected numbers from 0 up that sum to one"),
        ([[[1.5, -0.5, 0], [1, 0, 0]]], "region ITA, item a"),
        ([[[1, 0, 0], [0.5, 0, 0.5]]], "region ITA, item b: .* over 2 options and zeros beyond"),
        ([[[1, np.nan, 0], [1, 0, 0]]], "or NaN throughout"),
    ],
)
def test_human_answers_refuse(shares: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HumanAnswers(SURVEY, ("ITA",), np.array(shares), np.full((1, 2), np.nan))


def test_the_leading_option_is_one_of_the_largest() -> None:
    shares, counts = np.array([[[0.5, 0.5, 0], [1, 0, 0]]]), np.full((1, 2), np.nan)
    assert HumanAnswers(SURVEY, ("ITA",), shares, counts).majority.tolist() == [[0, 0]]
    assert HumanAnswers(SURVEY, ("ITA",), shares, counts, leading=np.array([[1, 0]])).majority.tolist() == [[1, 0]]
    with pytest.raises(ValueError, match="leading: expected an option with the largest share"):
        HumanAnswers(SURVEY, ("ITA",), shares, counts, leading=np.array([[2, 0]]))


respondents = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 1)), min_size=n, max_size=n),
        st.lists(st.sampled_from(["ITA", "BRA", "KEN"]), min_size=n, max_size=n),
        st.lists(st.floats(0.1, 10), min_size=n, max_size=n),
    )
)


@given(respondents, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_shares_do_not_depend_on_order_or_unit(
    drawn: tuple[list[tuple[int, int]], list[str], list[float]], random: object
) -> None:
    """A permutation of respondents and a factor on all weights change nothing; two copies double the counts only."""
    answers, regions, weights = (np.array(x) for x in drawn)
    order = np.array(random.sample(range(len(answers)), len(answers)))  # type: ignore[attr-defined]
    human = people(answers, regions, weights).shares()
    moved = people(answers[order], regions[order], 3 * weights[order]).shares()
    twice = people(np.r_[answers, answers], np.r_[regions, regions], np.r_[weights, weights]).shares()
    for other in (moved, twice):
        assert other.regions == human.regions
        np.testing.assert_allclose(other.shares, human.shares, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(twice.counts, 2 * human.counts)
    values = people(answers, regions, weights).values
    for r, region in enumerate(human.regions):  # the mean of options is the weighted mean of values
        for i in range(2):
            mine = (regions == region) & ~np.isnan(values[:, i])
            if mine.any():
                expected = (values[mine, i] * weights[mine]).sum() / weights[mine].sum()
                assert human.item_means[r, i] == pytest.approx(expected, abs=1e-12)
            else:
                assert np.isnan(human.item_means[r, i]) and human.majority[r, i] == -1


# --- saved and read back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["human.csv", "human.parquet"])
def test_saved_shares_come_back(tmp_path: Path, name: str) -> None:
    pytest.importorskip("pyarrow", reason="tables of human answers need pyarrow")
    human = people(weights=[1, 3, 2, 2, 1]).shares()  # BRA: always and sometimes are as frequent
    human.save(tmp_path / name)
    back = load_human(tmp_path / name, SURVEY)
    np.testing.assert_array_equal(back.shares, human.shares)
    np.testing.assert_array_equal(back.counts, human.counts)
    np.testing.assert_array_equal(back.majority, human.majority)
    assert back.regions == human.regions


@given(respondents)
@settings(max_examples=25, deadline=None)
def test_saving_is_exact(tmp_path_factory: pytest.TempPathFactory, drawn: object) -> None:
    pytest.importorskip("pyarrow", reason="tables of human answers need pyarrow")
    answers, regions, weights = (np.array(x) for x in drawn)  # type: ignore[attr-defined]
    answers[:, 0], answers[0, 1] = np.maximum(answers[:, 0], 0), 0  # no region and no item is empty
    human = people(answers, regions, weights).shares()
    path = tmp_path_factory.mktemp("saved") / "human.csv"
    human.save(path)
    back = load_human(path, SURVEY)
    np.testing.assert_array_equal(back.shares, human.shares)
    np.testing.assert_array_equal(back.majority, human.majority)


def test_a_saved_value_is_not_taken_for_an_options_text(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="tables of human answers need pyarrow")
    survey = Survey("n", "N", (Item("a", "?", options(["0", "1", "2"], [1, 2, 0.1])),))
    human = HumanAnswers(survey, ("ITA",), np.array([[[0.5, 0.2, 0.3]]]), np.array([[np.nan]]))
    human.save(tmp_path / "human.csv")
    assert load_human(tmp_path / "human.csv", survey).shares.tolist() == [[[0.5, 0.2, 0.3]]]
    with pytest.raises(ValueError, match=r"human.csv: leave_out: no region 'ITB'; did you mean 'ITA'"):
        load_human(tmp_path / "human.csv", survey, leave_out=["ITB"])


def test_answers_of_a_survey(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="tables of human answers need pyarrow")
    people().shares().save(tmp_path / "human.csv")
    with pytest.raises(ValueError, match="survey 'mini' names no human answers"):
        answers_of(SURVEY)
    named = Survey(SURVEY.id, SURVEY.title, SURVEY.items)
    object.__setattr__(named, "human", str(tmp_path / "human.csv"))
    np.testing.assert_array_equal(answers_of(named).shares, people().shares().shares)
