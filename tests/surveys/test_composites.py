from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from softde.surveys import Factor, Item, Pair, Scoring, Subset, Survey, options
from softde.surveys.composites import pair_joint

GOALS = options(["order", "say", "prices", "speech"])
YES = options(["chosen", "not chosen"])
FIRST, SECOND = Item("a", "First?", GOALS), Item("b", "Second?", GOALS)
CHILD = tuple(Item(name, f"{name}?", YES) for name in ("faith", "obedience", "independence", "determination"))
Y002 = Pair("Y002", ("a", "b"), ((1, 3), (2, 4)), (1, 3), 2)
Y003 = Subset("Y003", ("faith", "obedience", "-independence", "-determination"))
BOTH = Survey(
    "s",
    "S",
    (FIRST, SECOND, *CHILD),
    (Factor("P", "", {"Y002": 1}), Factor("A", "", {"Y003": 1}), Factor("M", "", {"Y002": 2, "Y003": -1, "faith": 3})),
    composites=(Y003, Y002),
    constant=0,
)
SHARES = arrays(np.float64, (4,), elements=st.floats(0.01, 1)).map(lambda p: p / p.sum())


def slow_y002(first: int, second: int) -> int | None:
    """Post-materialism in the words of its definition: both of {order, prices} 1, both of {say, speech} 3, else 2."""
    if first == second:
        return None
    if {first, second} == {1, 3}:
        return 1
    return 3 if {first, second} == {2, 4} else 2


def probabilities(survey: Survey, **given: list[float]) -> np.ndarray:
    """Option probabilities, uniform for the items that are not given."""
    table = np.zeros(survey.option_values.shape)
    for row, item in zip(table, survey.items, strict=True):
        row[: len(item.options)] = given.get(item.id, [1 / len(item.options)] * len(item.options))
    return table


@pytest.mark.parametrize(("first", "second"), list(itertools.product(range(1, 5), repeat=2)))
def test_post_materialism_of_every_pair_of_choices(first: int, second: int) -> None:
    value = BOTH.score_respondents([[first, second, 2, 2, 2, 2]]).per_respondent[0, 0]
    expected = slow_y002(first, second)
    assert np.isnan(value) if expected is None else value == expected


@pytest.mark.parametrize("chosen", list(itertools.product((True, False), repeat=4)))
def test_autonomy_of_every_subset(chosen: tuple[bool, ...]) -> None:
    """(faith + obedience) - (independence + determination), one for each that is mentioned."""
    faith, obedience, independence, determination = chosen
    answers = [1 if c else 2 for c in chosen]
    expected = (faith + obedience) - (independence + determination)
    assert BOTH.score_respondents([[1, 2, *answers]]).per_respondent[0, 1] == expected


@given(SHARES, SHARES)
def test_a_pair_of_distributions_is_the_mean_over_all_allowed_pairs(p: np.ndarray, q: np.ndarray) -> None:
    total = mass = 0.0
    for i, j in itertools.product(range(4), repeat=2):
        value = slow_y002(i + 1, j + 1)
        if value is not None:
            total += p[i] * q[j] * value
            mass += p[i] * q[j]
    table = probabilities(BOTH, a=p.tolist(), b=q.tolist())
    assert BOTH.score_probabilities(table)[0] == pytest.approx(total / mass)


@given(SHARES, SHARES)
def test_joint_choices_leave_out_the_same_twice_and_sum_to_one(p: np.ndarray, q: np.ndarray) -> None:
    joint = pair_joint(p, q)
    assert joint.sum() == pytest.approx(1)
    assert np.diag(joint).tolist() == [0] * 4
    np.testing.assert_allclose(pair_joint(q, p), joint.T)


def test_two_sure_choices_of_the_same_option_have_no_value() -> None:
    sure = [1.0, 0, 0, 0]
    scores = BOTH.score_probabilities(probabilities(BOTH, a=sure, b=sure))
    assert np.isnan(scores[[0, 2]]).all() and scores[1] == 0
    batch = np.stack([probabilities(BOTH, a=sure, b=sure), probabilities(BOTH, a=sure, b=[0, 0, 1, 0])])
    assert BOTH.score_probabilities(batch)[:, 0].tolist() == pytest.approx([np.nan, 1], nan_ok=True)


def test_many_simulated_respondents_meet_the_expectation_and_its_error() -> None:
    """20,000 people who draw both choices apart; those who chose the same twice are no answer."""
    rng = np.random.default_rng(0)
    p, q = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.2, 0.3, 0.4])
    people = np.stack([rng.choice(4, 20_000, p=p) + 1.0, rng.choice(4, 20_000, p=q) + 1.0], axis=1)
    answers = np.hstack([people, rng.integers(1, 3, (20_000, 4))])
    seen = BOTH.score_respondents(answers)
    table = probabilities(BOTH, a=p.tolist(), b=q.tolist())
    valid = float((people[:, 0] != people[:, 1]).sum())
    expected, error = BOTH.score_probabilities(table), BOTH.standard_errors(table, valid)
    assert abs(seen.mean[0] - expected[0]) < 4 * error[0]
    assert seen.standard_error[0] == pytest.approx(error[0], rel=0.02)


def test_composites_may_use_composites_in_any_order() -> None:
    items = (*CHILD, Item("x", "X?", options(["a", "b", "c"])))
    survey = Survey(
        "s",
        "S",
        items,
        (Factor("F", "", {"twice": 1}), Factor("G", "", mean=("Y003", "x"))),
        composites=(Factor("twice", "", {"once": 2, "x": 1}, offset=1), Factor("once", "", {"Y003": 10}), Y003),
        constant=0,
    )
    answers = [1, 1, 2, 2, 3]  # Y003 = 2
    assert survey.score_respondents([answers]).per_respondent[0].tolist() == [2 * 20 + 3 + 1, 2.5]
    assert survey.score(answers).tolist() == pytest.approx([44, 2.5])
    assert survey.uses.tolist() == [[True] * 5] * 2


def test_effective_weights_and_uses_of_composites() -> None:
    """A two-valued item coded 1 and 2 has share 2 - mean; the pair counts beside the weights."""
    assert BOTH.weights.tolist() == [[0] * 6, [0, 0, -1, -1, 1, 1], [0, 0, 1 + 3, 1, -1, -1]]
    assert BOTH.compiled.pair_weights.tolist() == [[1], [0], [2]]
    assert BOTH.uses.tolist() == [
        [True, True, False, False, False, False],
        [False, False, True, True, True, True],
        [True] * 6,
    ]
    assert BOTH.offsets.tolist() == [0, 0, 0]


@given(arrays(np.float64, (2, 3, 4), elements=st.floats(0, 1)))
def test_subsets_are_linear_in_shares(chosen: np.ndarray) -> None:
    table = np.broadcast_to(probabilities(BOTH), (2, 3, *BOTH.option_values.shape)).copy()
    table[..., 2:, 0], table[..., 2:, 1] = chosen, 1 - chosen
    expected = chosen[..., 0] + chosen[..., 1] - chosen[..., 2] - chosen[..., 3]
    np.testing.assert_allclose(BOTH.score_probabilities(table)[..., 1], expected, atol=1e-12)


def test_a_subset_may_have_its_chosen_option_second_and_any_codes() -> None:
    items = tuple(Item(name, f"{name}?", options(["no", "yes"], [0, 9])) for name in ("u", "v"))
    survey = Survey(
        "s", "S", items, (Factor("F", "", {"S": 1}),), composites=(Subset("S", ("u", "-v"), mentioned=2),), constant=0
    )
    assert survey.score_respondents([[9, 0], [9, 9], [0, 9]]).per_respondent[:, 0].tolist() == [1, 0, -1]
    assert survey.score([4.5, 9]).tolist() == pytest.approx([0.5 - 1])


def test_a_pair_is_refused_where_there_are_only_item_means() -> None:
    with pytest.raises(
        ValueError, match=r"factor 'P' of survey 's' uses pair 'Y002', and a pair item cannot be scored"
    ):
        BOTH.score(np.ones(6))
    one = Survey("s", "S", BOTH.items, (BOTH.factor_models[1],), composites=BOTH.composites, constant=0)
    assert one.score([1, 1, 1, 1, 1, 1]).tolist() == [0]  # no factor needs the pair


def test_a_pair_needs_definite_answers() -> None:
    with pytest.raises(ValueError, match=r"respondent 2, item 'b': 2.5 is no option's value, and pair 'Y002' needs"):
        BOTH.score_respondents([[1, 2, 1, 1, 1, 1], [1, 2.5, 1, 1, 1, 1]])


# --- composites that are wrong ----------------------------------------------------------------------------------------


def build(**changes: object) -> Survey:
    fields: dict[str, object] = {"id": "s", "title": "S", "items": BOTH.items, "composites": BOTH.composites}
    return Survey(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: build(composites=(Factor("A", "", {"B": 1}), Factor("B", "", {"C": 1}), Factor("C", "", {"A": 1}))),
            "composites are circular: A → B → C → A; take one of them out of another's formula",
        ),
        (lambda: build(composites=(Factor("A", "", {"A": 1}),)), "composites are circular: A → A"),
        (lambda: build(composites=(Y002, Y002)), "duplicate composite id 'Y002'"),
        (lambda: build(composites=(Factor("a", "", {"b": 1}),)), "composite 'a' has the id of an item; rename"),
        (lambda: build(composites=(Factor("A", "", {"z": 1}),)), "composite 'A': weight for item 'z', which does not"),
        (lambda: build(composites=(Pair("P", ("a", "z"), ((1, 2),), (1,), 0),)), "pair 'P': 'z' does not exist; known"),
        (
            lambda: build(composites=(Pair("P", ("a", "faith"), ((1, 2),), (1,), 0),)),
            "pair 'P': items 'a' and 'faith' have different options; both choices are made from one list",
        ),
        (
            lambda: build(composites=(Pair("P", ("a", "b"), ((1, 5),), (1,), 0),)),
            "pair 'P': groups name option 5, but its items have 4",
        ),
        (lambda: Pair("P", ("a",), ((1, 2),), (1,), 0), "pair 'P': expected two items, the first and the second"),
        (lambda: Pair("P", ("a", "a"), ((1, 2),), (1,), 0), "pair 'P': expected two items"),
        (lambda: Pair("P", ("a", "b"), ((1, 2),), (1, 2), 0), "pair 'P': 1 groups but 2 values; give one per group"),
        (lambda: Pair("P", ("a", "b"), ((1, 2), (2, 3)), (1, 2), 0), "option number in the groups of pair 'P': '2'"),
        (lambda: Pair("P", ("a", "b"), ((0, 2),), (1,), 0), "groups hold option numbers, whole and from 1 up"),
        (lambda: Pair("P", ("a", "b"), ((1, 2),), (1,), float("nan")), "pair 'P': otherwise: expected a finite number"),
        (lambda: Subset("S", ()), "subset 'S': expected one item or more, got none"),
        (lambda: Subset("S", ("u",), mentioned=3), "subset 'S': mentioned: expected option number 1 or 2, got 3"),
        (lambda: build(composites=(Subset("S", ("faith", "-faith")),)), "duplicate item in subset 'S': 'faith'"),
        (lambda: build(composites=(Subset("S", ("a",)),)), "subset 'S': item 'a' has 4 options valued 1, 2, 3, 4"),
        (lambda: build(composites=(Subset("S", ("Y002",)),)), "subset 'S': 'Y002' does not exist"),
        (
            lambda: build(items=(Item("u", "U?", options(["no", "yes"], [1, 1])),), composites=(Subset("S", ("u",)),)),
            "subset 'S': item 'u' has 2 options valued 1, 1; an item of a subset has two, chosen or not",
        ),
        (
            lambda: build(
                items=tuple(Item(i, f"{i}?", options(["x", "y", "z"], [1, 2, 2])) for i in "ab"),
                composites=(Pair("P", ("a", "b"), ((1, 2),), (1,), 0),),
            ),
            "duplicate option value of item 'a', used in pair 'P': '2'",
        ),
        (
            lambda: build(factor_models=(Factor("F", "", mean=("faith", "-Y002")),)),
            "factor 'F': -Y002 reverses a composite; only items have a range to reverse in",
        ),
        (
            lambda: build(factor_models=(Factor("F", "", mean=("faith", "-obedience")),), scoring=Scoring(("faith",))),
            "factor 'F': -obedience reverses an answer that is centred; give the item's options reversed values",
        ),
    ],
)
def test_bad_composites_are_refused_in_one_sentence(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
