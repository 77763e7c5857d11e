"""Means with reversed keys, centring, projections; respondents with gaps and weights; bad formulas; their files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from softde.surveys import Factor, Item, Pair, Projection, Scoring, Subset, Survey, load_survey, nulls, options
from softde.surveys.published import Edition
from tests.surveys import slow_respondents as slow

FIVE = options(["a", "b", "c", "d", "e"])
ZERO = options(["never", "at times", "always"], [0, 1, 2])
GOALS = options(["order", "say", "prices", "speech"])
ITEMS = (
    *(Item(f"q{i}", f"Question {i}?", FIVE) for i in range(1, 5)),
    Item("z", "Zero-based?", ZERO),
    Item("g1", "First?", GOALS),
    Item("g2", "Second?", GOALS),
    Item("y", "Chosen?", options(["yes", "no"])),
)
COMPOSITES = (
    Factor("scale", "", mean=("q1", "q2", "z"), min_valid=2),
    Pair("pair", ("g1", "g2"), ((1, 3), (2, 4)), (1, 3), 2),
    Subset("subset", ("y",)),
)
PROJECTION = Projection(
    ("q1", "q2", "pair", "subset"),
    (3, 2.5, 2, 0.5),
    (1, 0.5, 0.25, 2),
    ((0.9, 0.1), (0.2, -0.8), (0.5, 0.5), (0, 0.3)),
    ((0.8, -0.6), (0.6, 0.8)),
)
FACTORS = (
    Factor("W", "weights", {"q1": 20, "q3": -5, "scale": 2}, offset=7),
    Factor("M", "mean", mean=("q1", "-q2", "-z"), offset=1, min_valid=2),
    Factor("ALL", "mean of all", mean=("q3", "-q4")),
    Factor("C1", "component", component=1, scale=-2, offset=0.5, min_valid=2),
    Factor("C2", "component", component=2),
)
EVERY = Survey("every", "Every form", ITEMS, FACTORS, composites=COMPOSITES, projection=PROJECTION)
PVQ = load_survey("pvq21")
IPIP = load_survey("ipip50")
FEW = settings(max_examples=25, deadline=None)


def centred_survey(centre: tuple[str, ...]) -> Survey:
    factors = (
        Factor("W", "", {"q1": 2, "z": -1}),
        Factor("M", "", mean=("q1", "q2", "z"), min_valid=1),
        Factor("S", "", {"scale": 1, "subset": 1}),
    )
    return Survey("c", "C", ITEMS, factors, composites=COMPOSITES, scoring=Scoring(centre, min_valid=3))


def answer_table(survey: Survey, seed: int, count: int, missing: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = np.array(
        [[item.options[rng.integers(len(item.options))].value for item in survey.items] for _ in range(count)]
    )
    return np.where(rng.random(values.shape) < missing, np.nan, values)


def person(survey: Survey, row: np.ndarray) -> dict[str, float]:
    return {item: float(x) for item, x in zip(survey.item_ids, row, strict=True) if not np.isnan(x)}


def slow_composites(answers: slow.Person) -> dict[str, float | None]:
    both = (answers.get("g1"), answers.get("g2"))
    pair: float | None = {(1, 3): 1.0, (3, 1): 1.0, (2, 4): 3.0, (4, 2): 3.0}.get(both, 2.0)  # type: ignore[arg-type]
    if None in both or both[0] == both[1]:
        pair = None
    return {"pair": pair, "subset": 2 - answers["y"] if "y" in answers else None}


# --- complete answers: every road leads to the same scores ------------------------------------------------------------


def test_effective_weights_of_each_form_by_hand() -> None:
    """scale = (q1 + q2 + z)/3; z has range 0 to 2, so -z is 2 - z; q's -q is 6 - q."""
    third = 1 / 3
    np.testing.assert_allclose(EVERY.weights[0], [20 + 2 * third, 2 * third, -5, 0, 2 * third, 0, 0, 0])
    np.testing.assert_allclose(EVERY.weights[1], [third, -third, 0, 0, -third, 0, 0, 0])
    np.testing.assert_allclose(EVERY.offsets[:3], [7, (6 + 2) / 3 + 1, 3])
    # C1 = -2 · Σ z_i (0.8 l_i1 + 0.6 l_i2) + 0.5, with rotation's first column (0.8, 0.6)
    coefficients = np.array([0.9 * 0.8 + 0.1 * 0.6, 0.2 * 0.8 - 0.8 * 0.6, 0.5 * 0.8 + 0.5 * 0.6, 0.3 * 0.6])
    scaled = -2 * coefficients / np.array([1, 0.5, 0.25, 2])
    np.testing.assert_allclose(EVERY.weights[3], [*scaled[:2], 0, 0, 0, 0, 0, -scaled[3]], atol=1e-12)
    np.testing.assert_allclose(EVERY.compiled.pair_weights[3], scaled[2])
    constant = 0.5 - scaled @ np.array([3, 2.5, 2, 0.5]) + 2 * scaled[3]  # subset = 2 - y
    np.testing.assert_allclose(EVERY.offsets[3], constant)


@pytest.mark.parametrize(
    "survey", [EVERY, centred_survey(tuple(i.id for i in ITEMS)), centred_survey(("q1", "z")), PVQ]
)
def test_means_of_complete_respondents_equal_the_compiled_formulas(survey: Survey) -> None:
    table = answer_table(survey, 0, 40)
    pairs = survey.compiled.pairs
    if pairs:  # nobody chooses the same twice
        first, second = (survey.item_ids.index(name) for name in pairs[0].items)
        table[:, second] = table[:, first] % 4 + 1
    weights = np.random.default_rng(1).uniform(0.5, 2, 40)
    scores = survey.score_respondents(table, weights)
    means = np.average(table, axis=0, weights=weights)
    compiled = survey.compiled
    expected = means @ compiled.weights.T + compiled.offsets
    if pairs:
        value = [slow_composites(person(survey, row))["pair"] for row in table]
        expected = expected + np.average(np.array(value, dtype=float), weights=weights) * compiled.pair_weights[:, 0]
    np.testing.assert_allclose(scores.mean, expected, atol=1e-9)
    np.testing.assert_allclose(np.average(scores.per_respondent, axis=0, weights=weights), expected, atol=1e-9)


@FEW
@given(st.integers(0, 10_000))
def test_probabilities_score_as_their_means_where_formulas_are_linear(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for survey in (PVQ, IPIP, load_survey("vsm13")):
        table = rng.dirichlet(np.ones(survey.option_values.shape[1]), (2, len(survey.items)))
        means = (table * survey.option_values).sum(-1)
        np.testing.assert_allclose(survey.score_probabilities(table), survey.score(means), atol=1e-9)
        np.testing.assert_allclose(survey.score_probabilities(table, 3), survey.score(means, 3), atol=1e-9)


MEANS = arrays(np.float64, (50,), elements=st.floats(1, 5))


@FEW
@given(MEANS, MEANS, st.floats(0, 1))
def test_scores_are_affine_in_item_means(x: np.ndarray, y: np.ndarray, a: float) -> None:
    mixed = IPIP.score(a * x + (1 - a) * y)
    np.testing.assert_allclose(mixed, a * IPIP.score(x) + (1 - a) * IPIP.score(y), atol=1e-9)


@FEW
@given(MEANS, st.permutations(range(50)))
def test_scores_do_not_depend_on_item_order(x: np.ndarray, order: list[int]) -> None:
    shuffled = replace(IPIP, items=tuple(IPIP.items[i] for i in order))
    np.testing.assert_allclose(shuffled.score(x[order]), IPIP.score(x), atol=1e-9)


@FEW
@given(MEANS)
def test_reversed_keys_are_involutions(x: np.ndarray) -> None:
    """Turning every answer and every key leaves scores; turning every answer alone turns the scores."""

    def turned(factor: Factor) -> Factor:
        return replace(factor, mean=tuple(key[1:] if key.startswith("-") else f"-{key}" for key in factor.mean))

    other = replace(IPIP, factor_models=tuple(turned(f) for f in IPIP.factor_models))
    assert replace(other, factor_models=tuple(turned(f) for f in other.factor_models)) == IPIP
    np.testing.assert_allclose(other.score(6 - x), IPIP.score(x), atol=1e-9)
    np.testing.assert_allclose(IPIP.score(6 - x), 6 - IPIP.score(x), atol=1e-9)


@FEW
@given(arrays(np.float64, (21,), elements=st.floats(1, 5)), st.floats(0, 1))
def test_centred_scores_ignore_how_a_person_uses_the_scale(x: np.ndarray, shift: float) -> None:
    np.testing.assert_allclose(PVQ.score(x + shift), PVQ.score(x), atol=1e-9)
    np.testing.assert_allclose(PVQ.score_respondents([x + shift]).mean, PVQ.score(x), atol=1e-9)


def test_an_item_whose_id_starts_with_a_minus_is_itself() -> None:
    items = (Item("x", "X?", FIVE), Item("-x", "Minus x?", FIVE))
    survey = Survey("s", "S", items, (Factor("F", "", mean=("x", "-x")), Factor("G", "", mean=("x", "--x"))))
    assert survey.score([1, 2]).tolist() == [1.5, 2.5]


# --- respondents: gaps and weights ------------------------------------------------------------------------------------


def slow_scores(survey: Survey, forms: dict[str, Any], table: np.ndarray, weights: np.ndarray) -> tuple[list[Any], ...]:
    answers = [person(survey, row) for row in table]
    composites: dict[str, slow.Composite] = {
        "pair": lambda p: slow_composites(p)["pair"],
        "subset": lambda p: slow_composites(p)["subset"],
    }
    everyone = slow.people(answers, survey.scoring.centre, survey.scoring.min_valid, composites)
    for one in everyone:
        scale = slow.score(one, ("mean", [("q1", None), ("q2", None), ("z", None)], 2))
        if scale is not None:
            one["scale"] = scale
    each = [[slow.score(one, form) for form in forms.values()] for one in everyone]
    means, errors = [], []
    for column, form in enumerate(forms.values()):
        mean, error = slow.mean_and_error([row[column] for row in each], weights.tolist())
        if form[0] == "weights":  # a formula in variable means, each over those who have it
            parts = {v: slow.mean_and_error([one.get(v) for one in everyone], weights.tolist())[0] for v in form[1]}
            mean = sum(w * parts[v] for v, w in form[1].items()) + form[2]
            error = None
        means.append(mean)
        errors.append(error)
    return each, means, errors


EVERY_FORMS = {
    "W": ("weights", {"q1": 20, "q3": -5, "scale": 2}, 7),
    "M": ("mean", [("q1", None), ("q2", 6), ("z", 2)], 2),
    "ALL": ("mean", [("q3", None), ("q4", 6)], 2),
    "C1": ("component", [], -2, 0.5, 2),
    "C2": ("component", [], 1, 0, 4),
}
for name, (r0, r1) in {"C1": (0.8, 0.6), "C2": (-0.6, 0.8)}.items():
    rows = zip(PROJECTION.variables, PROJECTION.means, PROJECTION.deviations, PROJECTION.loadings, strict=True)
    EVERY_FORMS[name][1].extend((v, m, d, a * r0 + b * r1) for v, m, d, (a, b) in rows)  # type: ignore[union-attr, attr-defined]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("missing", [0.0, 0.2, 0.6])
def test_respondents_equal_the_slow_loop(seed: int, missing: float) -> None:
    table = answer_table(EVERY, seed, 25, missing)
    weights = np.random.default_rng(seed + 100).choice([0.0, 0.5, 1.0, 3.0], 25)
    each, means, errors = slow_scores(EVERY, EVERY_FORMS, table, weights)
    scores = EVERY.score_respondents(table, weights)
    expected = np.array([[np.nan if x is None else x for x in row] for row in each])
    expected[:, 1] += 1  # M's offset
    np.testing.assert_allclose(scores.per_respondent, expected, atol=1e-9)
    np.testing.assert_allclose(scores.mean, [m + (i == 1) for i, m in enumerate(means)], atol=1e-9)
    for fast, error in zip(scores.standard_error, errors, strict=True):
        if error is not None:
            assert fast == pytest.approx(error, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("seed", range(4))
def test_centred_respondents_with_gaps_equal_the_slow_loop(seed: int) -> None:
    survey = centred_survey(("q1", "q2", "q3", "z"))
    table = answer_table(survey, seed, 20, 0.4)
    forms = {
        "W": ("weights", {"q1": 2, "z": -1}, 0),
        "M": ("mean", [("q1", None), ("q2", None), ("z", None)], 1),
        "S": ("weights", {"scale": 1, "subset": 1}, 0),
    }
    weights = np.ones(20)
    each, means, _ = slow_scores(survey, forms, table, weights)
    scores = survey.score_respondents(table)
    expected = np.array([[np.nan if x is None else x for x in row] for row in each])
    np.testing.assert_allclose(scores.per_respondent, expected, atol=1e-9)
    np.testing.assert_allclose(scores.mean, means, atol=1e-9)


def test_standard_errors_by_hand() -> None:
    """Answers 1, 2, 3, 6 of one item: mean 3, s² = 14/3, s/√4 = 1.0801; ten times the item has ten times the error."""
    item = Item("x", "X?", options(list("abcdef")))
    survey = Survey("s", "S", (item,), (Factor("M", "", mean=("x",)), Factor("W", "", {"x": 10}, offset=1)))
    scores = survey.score_respondents([[1], [2], [3], [6]])
    assert scores.mean.tolist() == [3, 31]
    np.testing.assert_allclose(scores.standard_error, [np.sqrt(14 / 3) / 2, 10 * np.sqrt(14 / 3) / 2])
    doubled = survey.score_respondents([[1], [2], [3], [6]], weights=[5, 5, 5, 5])
    np.testing.assert_allclose(doubled.standard_error, scores.standard_error)
    one = survey.score_respondents([[4]])
    assert one.mean.tolist() == [4, 41] and np.isnan(one.standard_error).all()
    shares = [[0.25, 0.25, 0.25, 0, 0, 0.25]]  # variance of the shares 3.5 = s² · 3/4
    np.testing.assert_allclose(survey.standard_errors(shares, 4), [np.sqrt(3.5) / 2, 10 * np.sqrt(3.5) / 2])
    assert np.isnan(survey.standard_errors(shares, np.nan)).all()
    np.testing.assert_allclose(survey.standard_errors_of_means([3.5], 4), survey.standard_errors(shares, 4))
    np.testing.assert_allclose(
        survey.standard_errors_of_means([[3.5], [14]], [[4], [16]])[1], np.sqrt(14) / 4 * np.array([1, 10])
    )
    assert np.isnan(survey.standard_errors_of_means([np.nan], 4)).all()
    with pytest.raises(ValueError, match=r"variances end in 1 values, one per item; got shape \(2,\)"):
        survey.standard_errors_of_means([1, 2], 4)
    with pytest.raises(ValueError, match="expected variances from 0 up"):
        survey.standard_errors_of_means([-1], 4)


def test_a_respondent_at_the_mean_counts_in_the_standard_error() -> None:
    survey = Survey("s", "S", (Item("x", "X?", FIVE),), (Factor("M", "", mean=("x",)),))
    assert survey.score_respondents([[1], [3], [5]]).standard_error[0] == pytest.approx(2 / np.sqrt(3))


def test_standard_errors_where_a_region_was_not_asked() -> None:
    """Human answers have a count of 0 and NaN shares there: NaN for the factors that need the item, not an error."""
    survey = load_survey("vsm13")
    shares, counts = np.full((24, 5), 0.2), np.full(24, 50.0)
    shares[0], counts[0] = np.nan, 0  # m01 enters IDV alone
    found = survey.standard_errors(shares, counts)
    assert np.isnan(found).tolist() == [name == "IDV" for name in survey.factors]
    variances = np.where(np.arange(24) == 0, np.nan, 2.0)
    np.testing.assert_allclose(survey.standard_errors_of_means(variances, counts), found)
    with pytest.raises(ValueError, match="respondents: expected numbers above 0"):
        survey.standard_errors(np.full((24, 5), 0.2), counts)


def test_standard_errors_of_independent_respondents_match_a_simulation() -> None:
    survey = replace(EVERY, factor_models=FACTORS[:3])
    rng = np.random.default_rng(3)
    shares = np.zeros(survey.option_values.shape)
    for row, item in zip(shares, survey.items, strict=True):
        row[: len(item.options)] = rng.dirichlet(np.ones(len(item.options)))
    drawn = np.stack(
        [
            rng.choice([o.value for o in item.options], 50_000, p=row[: len(item.options)])
            for row, item in zip(shares, survey.items, strict=True)
        ],
        axis=1,
    )
    scores = survey.score_respondents(drawn)
    np.testing.assert_allclose(scores.standard_error, survey.standard_errors(shares, 50_000), rtol=0.02)
    assert (np.abs(scores.mean - survey.score_probabilities(shares)) < 4 * scores.standard_error).all()


def test_constants_are_added_once_and_come_from_the_survey() -> None:
    table = answer_table(EVERY, 0, 10)
    plain, shifted = EVERY.score_respondents(table), EVERY.score_respondents(table, constants=[1, 2, 3, 4, 5])
    np.testing.assert_allclose(shifted.mean - plain.mean, [1, 2, 3, 4, 5])
    known = ~np.isnan(plain.per_respondent)
    difference = (shifted.per_respondent - plain.per_respondent)[known]
    np.testing.assert_allclose(difference, np.tile([1.0, 2, 3, 4, 5], (10, 1))[known])
    vsm = load_survey("vsm13")
    assert vsm.score_respondents(np.full((3, 24), 2.0)).mean.tolist() == [50] * 6
    assert vsm.score([2] * 24).tolist() == [50] * 6
    bare = Survey("s", "S", ITEMS, (Factor("F", "", {"q1": 1}),))
    assert [bare.score([1] * 8)[0], replace(bare, constant=2).score([1] * 8)[0]] == [51, 3]
    assert replace(bare, factor_models=(Factor("F", "", {"q1": 1}, offset=3),)).score([1] * 8)[0] == 4


def test_new_rows_are_standardised_with_the_fitted_statistics() -> None:
    """The same person scores the same alone and in any company."""
    table = answer_table(EVERY, 5, 30)
    alone = np.stack([EVERY.score_respondents(row[None]).per_respondent[0] for row in table])
    np.testing.assert_array_equal(EVERY.score_respondents(table).per_respondent, alone)


@pytest.mark.parametrize(
    ("table", "weights", "message"),
    [
        (np.ones((3, 7)), None, r"expected (respondents, 8), one column per item in the order of survey.item_ids"),
        (np.ones(8), None, "got shape (8,)"),
        ([[1] * 8, [1, 1, 9, 1, 1, 1, 1, 1]], None, "respondent 2, item 'q3': 9 is outside the option values 1 to 5"),
        ([[1, 1, 1, 1, -1, 1, 1, 1]], None, "respondent 1, item 'z': -1 is outside the option values 0 to 2"),
        (np.ones((3, 8)), [1, 1], "weights: expected one per respondent (3), got shape (2,)"),
        (np.ones((2, 8)), [0, 0], "weights: they sum to zero"),
        (np.ones((2, 8)), [1, -1], "weights: respondent 2: expected a finite number from 0 up, got -1"),
        ([["often"] * 8], None, "expected numbers (respondents, items), NaN for no answer; turn texts into"),
    ],
)
def test_bad_answer_tables_are_refused(table: Any, weights: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        EVERY.score_respondents(table, weights)
    assert message in str(error.value)


def test_bad_probabilities_are_refused() -> None:
    good = np.where(np.isnan(EVERY.option_values), 0.0, 1.0)
    good /= good.sum(axis=1, keepdims=True)
    with pytest.raises(ValueError, match=r"end in 8 items × 5 options, zero beyond an item's own; got shape \(8, 4\)"):
        EVERY.score_probabilities(good[:, :4])
    with pytest.raises(ValueError, match=r"probabilities of item 'q2' sum to 100; expected one, or NaN for no answers"):
        EVERY.score_probabilities(good * np.array([1, 100, 1, 1, 1, 1, 1, 1])[:, None])
    with pytest.raises(ValueError, match="respondents: expected numbers above 0"):
        EVERY.standard_errors(good, 0)
    with pytest.raises(ValueError, match="no factor formulas"):
        Survey("s", "S", ITEMS).score_respondents(np.ones((2, 8)))
    good[3] = np.nan  # q4 enters ALL only
    assert np.isnan(EVERY.score_probabilities(good)).tolist() == [False, False, True, False, False]


def test_someone_who_answered_nothing_has_no_score_and_spoils_none() -> None:
    table = answer_table(EVERY, 0, 5)
    with_none = np.vstack([table, np.full(8, np.nan)])
    one, other = EVERY.score_respondents(table), EVERY.score_respondents(with_none)
    np.testing.assert_allclose(other.mean, one.mean)
    np.testing.assert_allclose(other.standard_error, one.standard_error)
    assert np.isnan(other.per_respondent[-1]).all()
    nobody = EVERY.score_respondents(np.full((2, 8), np.nan))
    assert np.isnan(nobody.mean).all() and np.isnan(nobody.standard_error).all()


# --- nulls ------------------------------------------------------------------------------------------------------------


def test_nulls_know_offsets_and_pairs() -> None:
    """The pair has values 1, 2, 3, so F = 10 pair + 4 can be 14, 24 or 34; a uniform answerer has 2 on average."""
    factor = Factor("F", "", {"pair": 10}, offset=4)
    published = (Edition("1", "made up", {"Italy": {"F": 25}}),)
    survey = Survey("s", "S", ITEMS, (factor,), composites=COMPOSITES, published=published)
    null = nulls(survey, survey.target("Italy"))
    assert np.isnan(null.pop("one option throughout"))
    assert null == pytest.approx({"midpoint": 1, "uniform answerer": 1, "best integer respondent": 1})
    both = replace(survey, factor_models=(Factor("F", "", {"pair": 10, "g1": 1}),))
    assert np.isnan(nulls(both, both.target("Italy", constants=0))["best integer respondent"])
    plain = replace(survey, factor_models=(Factor("F", "", mean=("q1", "-q2"), offset=20),))
    assert nulls(plain, plain.target("Italy"))["best integer respondent"] == 0  # 5 and 1: (5 + 5)/2 + 20


# --- formulas that are wrong ------------------------------------------------------------------------------------------


def every(**changes: object) -> Survey:
    return replace(EVERY, **changes)  # type: ignore[arg-type]


def project(**changes: object) -> Projection:
    return replace(PROJECTION, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Factor("F", ""),
            "factor 'F': expected a weight for one item or more, or mean, or component; got none",
        ),
        (
            lambda: Factor("F", "", {"q1": 1}, mean=("q1",)),
            "expected one of weights, mean and component, got weights and",
        ),
        (lambda: Factor("F", "", {"q1": 1}, min_valid=1), "min_valid goes with mean or component"),
        (lambda: Factor("F", "", {"q1": 1}, scale=2), "scale goes with component; put it into the weights"),
        (lambda: Factor("F", "", mean=("q1", "q2"), min_valid=3), "min_valid: 3 of 2 items; give at most that many"),
        (lambda: Factor("F", "", mean=("q1",), min_valid=0), "min_valid: expected a whole number from 1 up, got 0"),
        (lambda: Factor("F", "", component=-1), "component: expected a whole number from 1 up, got -1"),
        (lambda: Factor("F", "", {"q1": 1}, offset=float("nan")), "factor 'F': offset: expected a finite number"),
        (lambda: every(factor_models=(Factor("F", "", mean=("q9",)),)), "factor 'F': mean: 'q9' does not exist; known"),
        (lambda: every(factor_models=(Factor("F", "", mean=("q1", "-q1")),)), "duplicate item in factor 'F': 'q1'"),
        (lambda: every(factor_models=(Factor("F", "", component=3),)), "component 3, but the projection has 2"),
        (
            lambda: every(factor_models=(Factor("F", "", component=1),), projection=None),
            "factor 'F': component 1 of no projection; add [projection]",
        ),
        (
            lambda: every(factor_models=(Factor("F", "", component=1, min_valid=5),)),
            "factor 'F': min_valid: 5 of 4 variables; give 4 or less",
        ),
        (lambda: every(scoring=Scoring(("q9",))), "scoring: centre: 'q9' does not exist"),
        (lambda: Scoring(("q1", "q1")), "duplicate item in scoring: centre: 'q1'"),
        (lambda: Scoring(min_valid=-1), "scoring: min_valid: expected a whole number from 0 up, got -1"),
        (lambda: every(scoring=Scoring(min_valid=9)), "scoring: min_valid: 9 of 8 items; give at most that many"),
        (
            lambda: project(deviations=(1, 0, 1, 1)),
            "projection: deviations: expected numbers above 0, got another for q2",
        ),
        (lambda: project(means=(1, 2, 3)), "projection: means: 3 for 4 variables; give one each"),
        (lambda: project(loadings=((1, 2), (3,), (1, 1), (1, 1))), "projection: loadings: expected rows of one length"),
        (
            lambda: project(rotation=((1, 0),)),
            "projection: rotation: expected 2 × 2 numbers, as loadings have 2 columns",
        ),
        (lambda: project(rotation=((1, 0), (0, "x"))), "projection: rotation: expected a finite number, got 'x'"),
        (lambda: project(variables=("q1", "q1", "pair", "subset")), "duplicate variable in the projection: 'q1'"),
        (
            lambda: every(projection=project(variables=("q1", "q2", "pair", "none"))),
            "projection: variables: 'none' does not exist",
        ),
        (lambda: Item("x", "X?", FIVE, missing=(3,)), "item 'x': missing: 3 is the value of option 3"),
        (lambda: Item("x", "X?", FIVE, missing=("n",)), "item 'x': missing: expected a finite number, got 'n'"),  # type: ignore[arg-type]
        (lambda: every(constant="x"), "survey 'every': constant: expected a finite number, got 'x'"),
        (lambda: every(human=3), "survey 'every': human: expected the path of a file, got 3"),
        (
            lambda: every(variants={"v": (Factor("C1", "", component=1),)}),
            "variant 'v', factor 'C1': expected weights or mean, got component",
        ),
    ],
)
def test_bad_formulas_are_refused_in_one_sentence(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# --- digest and files -------------------------------------------------------------------------------------------------


def test_the_digest_covers_every_part_of_scoring_and_vsm13s_stays() -> None:
    assert (
        load_survey("vsm13").digest == "10fc858cb57342ac8756f69510248be1aad875ab619bc489ba2cc812c95e6df6"
    )  # version 0.1
    first = FACTORS[0]
    changed = [
        every(composites=(replace(COMPOSITES[0], min_valid=1), *COMPOSITES[1:])),
        every(composites=(COMPOSITES[0], replace(COMPOSITES[1], otherwise=2.5), COMPOSITES[2])),
        every(composites=(*COMPOSITES[:2], replace(COMPOSITES[2], mentioned=2))),
        every(scoring=Scoring(min_valid=1)),
        every(projection=project(means=(3, 2.5, 2, 0.6))),
        every(factor_models=(replace(first, offset=8), *FACTORS[1:])),
        every(factor_models=(first, replace(FACTORS[1], min_valid=3), *FACTORS[2:])),
        every(factor_models=(first, replace(FACTORS[1], mean=("q1", "q2", "-z")), *FACTORS[2:])),
        every(factor_models=(*FACTORS[:3], replace(FACTORS[3], scale=2), FACTORS[4])),
        every(factor_models=(*FACTORS[:4], replace(FACTORS[4], component=1))),
    ]
    assert len({EVERY.digest, *(survey.digest for survey in changed)}) == 11
    same = every(human="/a/file", title="T", constant=3, composites=(replace(COMPOSITES[0], name="n"), *COMPOSITES[1:]))
    assert same.digest == EVERY.digest


def test_every_form_survives_toml(tmp_path: Path) -> None:
    variants = {
        "v": (Factor("W", "weights", {"q1": 1}, offset=2), Factor("M", "mean", mean=("q2", "-q1"), min_valid=1))
    }
    full = every(variants=variants, constant=1.5, human=str(tmp_path / "human.csv"), scoring=Scoring(min_valid=2))
    for survey in (EVERY, full, centred_survey(("q1", "z")), PVQ, load_survey("iw"), load_survey("vsm94"), IPIP):
        path = tmp_path / "back.toml"
        path.write_text(survey.to_toml(), encoding="utf-8")
        back = load_survey(path)
        assert back == survey
        assert (back.digest, back.to_toml()) == (survey.digest, survey.to_toml())
    assert load_survey(path).scoring == IPIP.scoring


NUMBER = st.floats(-1e9, 1e9)
KEYS = st.lists(st.sampled_from(["q1", "q2", "q3", "z"]), min_size=1, unique=True).flatmap(
    lambda names: st.tuples(*(st.sampled_from([name, f"-{name}"]) for name in names))
)


@st.composite
def factors(draw: st.DrawFn) -> Factor:
    form: dict[str, Any] = draw(
        st.one_of(
            st.fixed_dictionaries(
                {"weights": st.dictionaries(st.sampled_from(["q1", "z", "pair", "scale"]), NUMBER, min_size=1)}
            ),
            st.fixed_dictionaries({"mean": KEYS, "min_valid": st.sampled_from([None, 1])}),
            st.fixed_dictionaries(
                {"component": st.sampled_from([1, 2]), "scale": NUMBER, "min_valid": st.sampled_from([None, 1, 4])}
            ),
        )
    )
    return Factor("F", draw(st.text(max_size=3)), offset=draw(NUMBER), **form)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(factors())
def test_any_factor_survives_toml(tmp_path: Path, factor: Factor) -> None:
    survey = every(factor_models=(factor,))
    (tmp_path / "any.toml").write_bytes(survey.to_toml().encode())
    assert load_survey(tmp_path / "any.toml") == survey


TOML = """
[[items]]
id = "a"
text = "A?"
options = ["x", "y"]
[[items]]
id = "b"
text = "B?"
options = ["x", "y"]
[[composites]]
id = "P"
pair = ["a", "b"]
groups = [[1, 2]]
values = [1]
otherwise = 0
[scoring]
centre = ["a"]
min_valid = 1
[projection]
variables = ["a", "P"]
means = [1, 1]
deviations = [1, 2]
loadings = [[1], [1]]
rotation = [[1]]
[[factors]]
id = "F"
component = 1
min_valid = 1
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("otherwise = 0", "", "composite 'P': missing otherwise; add it"),
        ("otherwise = 0", "otherwise = 0\nelse = 1", "composite 'P': unknown key 'else'"),
        ('pair = ["a", "b"]', "", "composite 'P': unknown key 'groups'"),
        ('pair = ["a", "b"]', 'pair = "a"', "composite 'P': pair: expected a list, got 'a'"),
        ('pair = ["a", "b"]', 'pair = ["a", "c"]', "pair 'P': 'c' does not exist"),
        ("groups = [[1, 2]]", "groups = [1, 2]", "composite 'P': groups: expected a list, got 1"),
        ('id = "P"\n', "", "composite: missing id; add it"),
        ("min_valid = 1\n[projection]", "min_valid = 3\n[projection]", "scoring: min_valid: 3 of 2 items"),
        ('centre = ["a"]', 'center = ["a"]', "scoring: unknown key 'center'; did you mean 'centre'?"),
        ('centre = ["a"]', 'centre = "a"', "scoring: centre: expected a list, got 'a'"),
        ("deviations = [1, 2]", "deviations = [1, 0]", "projection: deviations: expected numbers above 0"),
        ("deviations = [1, 2]", "", "projection: missing deviations; add it"),
        ("rotation = [[1]]", "rotation = [[1, 0]]", "projection: rotation: expected 1 × 1 numbers"),
        ("rotation = [[1]]", "rotation = [1]", "projection: rotation: expected a list, got 1"),
        ("component = 1", "component = 2", "factor 'F': component 2, but the projection has 1"),
        ("component = 1", "components = 1", "factor 'F': unknown key 'components'; did you mean 'component'?"),
        (
            "component = 1\nmin_valid = 1",
            "",
            "factor 'F': expected a weight for one item or more, or mean, or component",
        ),
        ("component = 1", 'mean = ["a", 1]', "factor 'F': mean: expected a text, got 1"),
        ("[[items]]", "human = 3\n[[items]]", "human: expected a text, got 3"),
        ("[[items]]", 'constant = "x"\n[[items]]', "constant: expected a finite number, got 'x'"),
    ],
)
def test_a_wrong_instrument_file_is_refused_in_one_sentence(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TOML
    path = tmp_path / "mine.toml"
    path.write_text(TOML, encoding="utf-8")
    assert load_survey(path).factors == ("F",)
    path.write_text(TOML.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError) as error:
        load_survey(path)
    assert message in str(error.value)
    assert str(error.value).startswith("mine.toml: ")
    assert "\n" not in str(error.value)


def test_human_answers_are_found_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('human = "answers/wvs.csv"\n' + TOML, encoding="utf-8")
    survey = load_survey(path)
    assert survey.human == str(tmp_path / "answers" / "wvs.csv")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "again.toml").write_text(survey.to_toml(), encoding="utf-8")
    assert load_survey(tmp_path / "sub" / "again.toml").human == survey.human
    assert survey.digest == load_survey(path).digest == replace(survey, human="").digest


def test_a_file_with_a_base_inherits_its_way_of_scoring(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "pvq21"\nlanguage = "de"\n', encoding="utf-8")
    mine = load_survey(path)
    assert (mine.scoring, mine.factor_models) == (PVQ.scoring, PVQ.factor_models)
    path.write_text('base = "iw"\n', encoding="utf-8")
    iw, base = load_survey(path), load_survey("iw")
    assert (iw.composites, iw.projection, iw.published) == (base.composites, base.projection, base.published)
    path.write_text('base = "iw"\n[[factors]]\nid = "H"\nmean = ["Q46"]\n', encoding="utf-8")
    own = load_survey(path)
    assert (own.factors, own.composites, own.projection) == (("H",), (), None)
