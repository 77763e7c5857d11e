from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softde.surveys.metrics import (
    between_region_deviation,
    invalid_summary,
    item_correlations,
    option_mass_summary,
    robustness,
    structure_agreement,
)
from tests.surveys import spa

HUMAN = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 4.0], [2.0, 2.0, 5.0]])  # deviations 1, 0, 1


# ---- robustness ------------------------------------------------------------------------------------------------------


def test_robustness_by_hand() -> None:
    found = robustness({"forward": [1.0, 9.0, 4.0], "reversed": [3.0, 1.0, 4.0]}, HUMAN)
    # deviations of the two variants: √2 and 0, in units of 1; the second item says nothing, regions do not differ
    np.testing.assert_allclose(found.by_item, [math.sqrt(2), np.nan, 0])
    assert found.mean == pytest.approx(1) and found.largest == 2 and found.largest_at == 0 and found.left_out == 1
    assert found.by_variant == pytest.approx({"forward": math.sqrt(0.5), "reversed": math.sqrt(0.5)})


def test_deviation_equals_numpy_and_weights_count_regions_twice() -> None:
    table = np.random.default_rng(0).normal(size=(5, 7))
    np.testing.assert_allclose(between_region_deviation(table), table.std(axis=0, ddof=1))
    np.testing.assert_allclose(between_region_deviation(table, np.full(5, 0.3)), table.std(axis=0, ddof=1))
    table[0, 0] = np.nan
    assert between_region_deviation(table)[0] == pytest.approx(table[1:, 0].std(ddof=1))
    table[1:4, 0] = np.nan
    assert np.isnan(between_region_deviation(table)[0])


@given(st.floats(0.1, 100), st.floats(-50, 50))
def test_units_of_the_scale_do_not_matter(scale: float, shift: float) -> None:
    variants = {"a": np.array([1.0, 2.0, 4.0]), "b": np.array([2.5, 2.0, 3.0]), "c": np.array([2.0, 5.0, 3.5])}
    one = robustness(variants, HUMAN)
    other = robustness({k: scale * v + shift for k, v in variants.items()}, scale * HUMAN + shift)
    assert one.mean == pytest.approx(other.mean, rel=1e-6) and one.largest == pytest.approx(other.largest, rel=1e-6)


def test_a_model_that_does_not_move_is_robust() -> None:
    found = robustness({"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0, 3.0]}, HUMAN)
    assert found.mean == found.largest == 0


@pytest.mark.parametrize(
    ("variants", "human", "message"),
    [
        ({"a": [1.0, 2.0, 3.0]}, HUMAN, "two variants or more, got a"),
        (
            {"a": [1.0, 2.0, 3.0], "b": [1.0]},
            HUMAN,
            r"variant 'b': expected \(3,\) values as of humans, got shape \(1,\)",
        ),
        ({"a": [1.0], "b": [2.0]}, np.ones((1, 1)), "differs between two human regions"),
        (
            {"a": [1.0], "b": [2.0]},
            np.ones(3),
            r"expected \(regions, items\) item means or factor scores, got shape \(3,\)",
        ),
    ],
)
def test_bad_variants(variants: dict[str, list[float]], human: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        robustness(variants, human)


# ---- structure -------------------------------------------------------------------------------------------------------


def test_correlations_equal_numpy_where_nothing_is_missing() -> None:
    values = np.random.default_rng(0).normal(size=(40, 6)) @ np.random.default_rng(1).normal(size=(6, 6))
    np.testing.assert_allclose(item_correlations(values), np.corrcoef(values.T), atol=1e-12)
    np.testing.assert_allclose(item_correlations(values + 1e4), np.corrcoef(values.T), atol=1e-9)


def test_correlations_of_pairs_that_are_there_with_weights() -> None:
    generator = np.random.default_rng(2)
    values, weights = generator.normal(size=(30, 4)), generator.integers(0, 4, 30)
    values[generator.random(values.shape) < 0.2] = np.nan
    found = item_correlations(values, weights)
    for i in range(4):
        for j in range(4):
            rows = [values[r] for r in range(30) for _ in range(weights[r]) if not np.isnan(values[r, [i, j]]).any()]
            assert found[i, j] == pytest.approx(np.corrcoef([r[i] for r in rows], [r[j] for r in rows])[0, 1])


def test_correlations_that_do_not_exist_are_missing() -> None:
    values = np.array([[1.0, 5.0, 1.0], [2.0, 5.0, np.nan], [4.0, 5.0, 2.0]])
    found = item_correlations(values)
    assert found[0, 0] == 1 and np.isnan(found[0, 1]) and np.isnan(found[0, 2])  # a constant; two rows only


def test_structure_of_humans_agrees_with_itself_and_noise_does_not() -> None:
    generator = np.random.default_rng(3)
    loadings = generator.normal(size=(2, 12))
    one, other = (generator.normal(size=(4000, 2)) @ loadings + generator.normal(size=(4000, 12)) for _ in range(2))
    same = structure_agreement(one, other)
    assert same.correlation > 0.98 and same.rms < 0.05 and same.pairs == 66
    noise = structure_agreement(generator.normal(size=(4000, 12)), other)
    assert abs(noise.correlation) < 0.4 and noise.model_strength < 0.03 < 0.3 < noise.human_strength
    assert structure_agreement(one, one).correlation == pytest.approx(1) and structure_agreement(one, one).rms == 0
    assert structure_agreement(-one, one).rms == 0  # signs of all items at once do not show in correlations


def test_structure_of_regions(shared_data: Path) -> None:
    path = shared_data / "culturespa"
    if not path.is_dir():
        pytest.skip(f"no CultureSPA data at {path}")
    means = spa.human(path).select(items=[f"Q{i}" for i in range(1, 47)]).item_means  # 19 regions, 46 items
    found = structure_agreement(means, means)
    assert found.correlation == pytest.approx(1) and found.pairs == 46 * 45 // 2
    halves = structure_agreement(means[::2], means[1::2])
    assert 0.2 < halves.correlation < 1 and halves.human_strength > 0.3


def test_bad_structure() -> None:
    with pytest.raises(ValueError, match="same items of model and humans, got 2 and 3"):
        structure_agreement(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="no pair of items varies"):
        structure_agreement(np.zeros((4, 3)), np.random.default_rng(0).normal(size=(4, 3)))
    with pytest.raises(ValueError, match=r"expected \(respondents, items\), got shape \(3,\)"):
        item_correlations(np.zeros(3))


# ---- option mass and invalid answers ---------------------------------------------------------------------------------


def test_summaries_by_hand() -> None:
    mass = option_mass_summary([[0.9, 0.4, 1.0], [0.7, 0.2, np.nan]], ("a", "b", "c"))
    assert mass.mean == pytest.approx(3.2 / 5) and mass.worst == pytest.approx(0.3) and mass.worst_item == "b"
    assert mass.past_limit == pytest.approx(2 / 5) and mass.missing == 1
    invalid = invalid_summary([[True, False, False], [True, True, False]], ("a", "b", "c"))
    assert (invalid.mean, invalid.worst, invalid.worst_item, invalid.past_limit) == (0.5, 1.0, "a", 0.5)


def test_bad_summaries() -> None:
    with pytest.raises(ValueError, match=r"option mass: expected \(\.\.\., 2\), one per item, got shape \(3,\)"):
        option_mass_summary(np.zeros(3), ("a", "b"))
    with pytest.raises(ValueError, match="invalid share: expected shares from 0 to 1; item b has others"):
        invalid_summary([0.5, 1.5], ("a", "b"))
    with pytest.raises(ValueError, match="every share is missing"):
        invalid_summary([np.nan], ("a",))
