"""How many factors, how fit the items, how reliable their sum."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softde.surveys.factors import FactorModel
from softde.surveys.factors.reliability import (
    bartlett_sphericity,
    chi_square_tail,
    cronbach_alpha,
    eigenvalues,
    kaiser,
    kmo,
    mcdonald_omega,
    parallel_analysis,
)
from tests.surveys.factor_tables import GOLDEN, TABLE, simulated

# -- how many factors


def test_scree_and_kaiser() -> None:
    own = eigenvalues(TABLE)
    np.testing.assert_allclose(own, np.sort(np.linalg.eigvals(np.corrcoef(TABLE.T)).real)[::-1])
    assert kaiser(TABLE) == (own > 1).sum() == 3
    assert own.sum() == pytest.approx(9)


def slow_parallel(values: np.ndarray, draws: int, quantile: float, seed: int) -> tuple[list[float], int]:
    """Horn's analysis, one random table and one eigenvalue after the other."""
    rng = np.random.default_rng(seed)
    rows, items = values.shape
    random = []
    for _ in range(draws):
        table = rng.standard_normal((rows, items))
        random.append(sorted(np.linalg.eigvalsh(np.corrcoef(table, rowvar=False)), reverse=True))
    thresholds = [float(np.quantile([found[i] for found in random], quantile)) for i in range(items)]
    own = sorted(np.linalg.eigvalsh(np.corrcoef(values, rowvar=False)), reverse=True)
    count = 0
    while count < items and own[count] > thresholds[count]:
        count += 1
    return thresholds, count


@pytest.mark.parametrize(("rows", "quantile", "seed"), [(300, 0.95, 0), (60, 0.5, 5), (7, 0.95, 1)])
def test_parallel_analysis_equals_the_slow_one(rows: int, quantile: float, seed: int) -> None:
    found = parallel_analysis(TABLE[:rows], draws=20, quantile=quantile, seed=seed)
    thresholds, count = slow_parallel(TABLE[:rows], 20, quantile, seed)
    np.testing.assert_allclose(found.thresholds, thresholds, atol=1e-9)
    assert found.n_factors == count
    np.testing.assert_allclose(found.eigenvalues, eigenvalues(TABLE[:rows]))


def test_parallel_analysis_finds_the_simulated_number() -> None:
    values, truth = simulated(rows=1_000)
    found = parallel_analysis(values, draws=20)
    assert found.n_factors == truth.shape[1] == 4
    assert kaiser(values) >= 4
    noise = np.random.default_rng(3).standard_normal((500, 12))
    assert parallel_analysis(noise, draws=50).n_factors == 0
    assert kaiser(noise) > 3  # why parallel analysis is needed
    assert np.all(found.random_means < found.thresholds + 1e-12)
    weights = np.random.default_rng(4).uniform(0.1, 5, 1_000)
    weighted = parallel_analysis(values, weights=weights, draws=5)
    assert weighted.n_factors == 4
    assert weighted.thresholds[0] > parallel_analysis(values, draws=5).thresholds[0]  # fewer effective rows
    with pytest.raises(ValueError, match=r"draws from 1 up and a quantile between 0 and 1, got 0 and 0.95"):
        parallel_analysis(values, draws=0)


# -- are the items fit


def slow_partial(values: np.ndarray, i: int, j: int) -> float:
    """Correlation of what is left of two items after a regression on all others."""
    others = np.column_stack([np.ones(len(values)), np.delete(values, [i, j], axis=1)])
    left = [values[:, k] - others @ np.linalg.lstsq(others, values[:, k], rcond=None)[0] for k in (i, j)]
    return float(np.corrcoef(left)[0, 1])


def test_kmo() -> None:
    found = kmo(TABLE)
    overall, per_item = GOLDEN["kmo"]  # factor_analyzer's
    assert found.overall == pytest.approx(overall, abs=1e-9)
    np.testing.assert_allclose(found.per_item, per_item, atol=1e-9)
    r = p = 0.0
    for j in range(1, 9):
        r += np.corrcoef(TABLE[:, [0, j]].T)[0, 1] ** 2
        p += slow_partial(TABLE, 0, j) ** 2
    assert found.per_item[0] == pytest.approx(r / (r + p))


def test_bartlett() -> None:
    found = bartlett_sphericity(TABLE)
    statistic, p_value = GOLDEN["bartlett"]  # factor_analyzer's
    assert found.statistic == pytest.approx(statistic)
    assert found.p_value == pytest.approx(p_value, rel=1e-9)
    assert found.degrees == 36
    # Two items with r = .6 and n = 5: -(4 - 9/6) ln(1 - .36) = 1.1157, one degree of freedom
    x = np.array([-2.0, -1, 0, 1, 2])
    e = np.array([1.0, -2, 2, -2, 1])  # Σxe = 0, Σe² = 14, Σx² = 10
    by_hand = bartlett_sphericity(np.column_stack([x, 0.6 * x / math.sqrt(10) + 0.8 * e / math.sqrt(14)]))
    assert by_hand.statistic == pytest.approx(-2.5 * math.log(0.64))
    assert by_hand.p_value == pytest.approx(math.erfc(math.sqrt(by_hand.statistic / 2)))


def test_live_values_of_factor_analyzer() -> None:
    module = pytest.importorskip("factor_analyzer")
    values, _ = simulated(rows=500)
    per_item, overall = module.calculate_kmo(values)
    assert kmo(values).overall == pytest.approx(overall)
    np.testing.assert_allclose(kmo(values).per_item, per_item)
    statistic, p_value = module.calculate_bartlett_sphericity(values)
    assert bartlett_sphericity(values).statistic == pytest.approx(statistic)
    assert bartlett_sphericity(values).p_value == pytest.approx(p_value, rel=1e-6)


@given(st.floats(0, 60))
def test_chi_square_tail_in_closed_form(x: float) -> None:
    assert chi_square_tail(x, 2) == pytest.approx(math.exp(-x / 2))
    assert chi_square_tail(x, 1) == pytest.approx(math.erfc(math.sqrt(x / 2)))
    assert chi_square_tail(x, 4) == pytest.approx(math.exp(-x / 2) * (1 + x / 2))


def test_chi_square_tail_equals_scipy() -> None:
    chi2 = pytest.importorskip("scipy.stats").chi2
    for degrees in (1, 3, 36, 780, 33_411):
        for x in degrees * np.array([0.2, 0.8, 0.97, 1.0, 1.03, 1.3, 2.5]):
            assert chi_square_tail(float(x), degrees) == pytest.approx(chi2.sf(x, degrees), rel=1e-8, abs=1e-12)
    assert chi_square_tail(0, 5) == 1


def test_correlations_that_cannot_be_inverted() -> None:
    for test in (kmo, bartlett_sphericity):
        with pytest.raises(ValueError, match=r"needs a positive definite correlation matrix, .*only 6 rows"):
            test(TABLE[:6])
        with pytest.raises(ValueError, match=r"duplicates are item1 and item10"):
            test(np.column_stack([TABLE, 3 * TABLE[:, 0] + 2]))


# -- reliability


def test_alpha_by_hand() -> None:
    # Three items of four respondents; variances (n below) 1.25, 1.25, .6875, sums 3, 6, 8, 10 with variance 6.6875:
    # 3/2 · (1 - 3.1875/6.6875) = 0.78505
    table = np.array([[1, 1, 1], [2, 2, 2], [3, 4, 1], [4, 3, 3]], dtype=float)
    assert cronbach_alpha(table) == pytest.approx(1.5 * (1 - (1.25 + 1.25 + 0.6875) / 6.6875))
    reversed_last = table * [1, 1, -1] + [0, 0, 4]
    assert cronbach_alpha(reversed_last, keys=[1, 1, -1]) == pytest.approx(cronbach_alpha(table))
    assert cronbach_alpha(reversed_last, keys={"item3": -1}) == pytest.approx(cronbach_alpha(table))
    assert cronbach_alpha(table.repeat([2, 1, 1, 3], axis=0)) == pytest.approx(
        cronbach_alpha(table, weights=[2, 1, 1, 3])
    )


def test_alpha_of_parallel_items_is_spearman_brown() -> None:
    # k items that correlate r throughout: α = k r / (1 + (k - 1) r)
    rng = np.random.default_rng(0)
    x = np.linalg.qr(np.column_stack([np.ones(50), rng.standard_normal((50, 4))]))[0][:, 1:]  # uncorrelated, one length
    table = x @ np.linalg.cholesky(0.4 + 0.6 * np.eye(4)).T
    np.testing.assert_allclose(np.corrcoef(table.T), 0.4 + 0.6 * np.eye(4), atol=1e-12)
    assert cronbach_alpha(table) == pytest.approx(4 * 0.4 / (1 + 3 * 0.4))


def one_factor(loadings: list[float]) -> FactorModel:
    L = np.array(loadings)[:, None]
    n = len(loadings)
    R = L @ L.T + np.diag(1 - L[:, 0] ** 2)
    ids = tuple(f"item{i}" for i in range(1, n + 1))
    return FactorModel(ids, ("F",), np.zeros(n), np.ones(n), L, [[1]], [[1]], R, "ml", None, 100)


def test_omega_by_hand() -> None:
    # loadings .8, .6, .4: (1.8)² = 3.24; uniquenesses .36 + .64 + .84 = 1.84
    assert mcdonald_omega(one_factor([0.8, 0.6, 0.4])) == pytest.approx(3.24 / 5.08)
    assert mcdonald_omega(one_factor([0.8, 0.6, -0.4]), keys={"item3": -1}) == pytest.approx(3.24 / 5.08)
    equal = one_factor([0.7] * 5)  # where loadings are equal, ω = α = k r / (1 + (k - 1) r)
    assert mcdonald_omega(equal) == pytest.approx(5 * 0.49 / (1 + 4 * 0.49))
    two = replace(
        one_factor([0.8, 0.6]), factors=("F", "G"), loadings=np.diag([0.8, 0.6]), rotation_matrix=np.eye(2),
        phi=[[1, 0.5], [0.5, 1]],
    )  # fmt: skip
    assert mcdonald_omega(two) == pytest.approx(1.48 / 2.48)  # .64 + .36 + 2·.5·.48 common, .36 + .64 unique


def test_wrong_keys() -> None:
    with pytest.raises(ValueError, match=r"keys: unknown item 'item44'; did you mean"):
        cronbach_alpha(TABLE, keys={"item44": -1})
    with pytest.raises(ValueError, match=r"keys: expected 1 or -1 for each of 9 items"):
        cronbach_alpha(TABLE, keys=[1, -1])
    with pytest.raises(ValueError, match=r"keys: expected 1 or -1"):
        mcdonald_omega(one_factor([0.5, 0.5, 0.5]), keys=[1, 0, 1])
    with pytest.raises(ValueError, match=r"two items or more, got one"):
        cronbach_alpha(TABLE[:, :1])
    x = TABLE[:, 0]
    with pytest.raises(ValueError, match=r"no variance; check the keys"):
        cronbach_alpha(np.column_stack([x, -x]))
