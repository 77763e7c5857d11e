from __future__ import annotations

import importlib.util
import sys
import warnings
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from softde.surveys.factors import FactorModel
from softde.surveys.factors.alignment import congruence
from softde.surveys.factors.extraction import extract
from softde.surveys.factors.tables import Correlations, correlations
from softde.surveys.human import Respondents
from tests.surveys.factor_tables import (
    GOLDEN,
    SUBJECT_LOADINGS,
    SUBJECT_SCORE_WEIGHTS,
    SUBJECT_UNIQUENESSES,
    SUBJECTS,
    TABLE,
    region_means,
    simulated,
    survey_of,
)

needs_factor_analyzer = pytest.mark.skipif(
    importlib.util.find_spec("factor_analyzer") is None, reason="factor_analyzer is not installed"
)
ORTHOGONAL = (None, "varimax", "quartimax", "oblimax", "equamax", "geomin_ort")
IDS = [f"{fit['method']}-{fit['rotation']}" for fit in GOLDEN["fits"]]


def factor_analyzer_loadings(values: np.ndarray, n_factors: int, method: str, rotation: str | None) -> np.ndarray:
    """factor_analyzer's own."""
    from factor_analyzer import FactorAnalyzer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of scikit-learn 1.6 and 1.7
        return FactorAnalyzer(n_factors, rotation=rotation, method=method, impute="mean").fit(values).loadings_


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every import of the optional packages fail."""
    for name in ("factor_analyzer", "sklearn", "scipy", "pandas"):
        for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, name, None)


# -- equal to factor_analyzer


@needs_factor_analyzer
@pytest.mark.parametrize("fit", GOLDEN["fits"], ids=IDS)
def test_every_method_and_rotation_equals_factor_analyzer(fit: dict) -> None:
    model = FactorModel.fit(TABLE, 3, fit["method"], fit["rotation"])
    live = factor_analyzer_loadings(TABLE, 3, fit["method"], fit["rotation"])
    np.testing.assert_allclose(model.loadings, live, atol=1e-6)
    np.testing.assert_allclose(model.loadings, fit["loadings"], atol=1e-4)  # stored; another scipy stops elsewhere


@needs_factor_analyzer
@pytest.mark.parametrize(
    "fit", [fit for fit in GOLDEN["fits"] if fit["method"] != "ml" and fit["rotation"] != "oblimax"]
)
def test_rotation_and_factor_correlations_explain_the_same(fit: dict) -> None:
    model = FactorModel.fit(TABLE, 3, fit["method"], fit["rotation"])
    unrotated = extract(correlations(TABLE), 3, fit["method"])
    np.testing.assert_allclose(unrotated @ model.rotation_matrix, model.loadings, atol=1e-9)
    np.testing.assert_allclose(
        model.loadings @ model.phi @ model.loadings.T, unrotated @ unrotated.T, atol=1e-9
    )  # a rotation moves no variance
    np.testing.assert_allclose(np.diag(model.phi), 1, atol=1e-9)
    assert np.allclose(model.phi, np.eye(3), atol=1e-9) == (fit["rotation"] in ORTHOGONAL)
    assert model.ss_loadings.sum() == pytest.approx(model.communalities.sum())


@needs_factor_analyzer
def test_oblique_scores_equal_factor_analyzers() -> None:
    scores = FactorModel.fit(TABLE, 3, "minres", "promax").scores(TABLE)
    np.testing.assert_allclose(scores[:5], GOLDEN["promax_scores"], atol=1e-4)


def test_principal_components_need_no_other_package(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)
    stored = next(f for f in GOLDEN["fits"] if f["method"] == "principal" and f["rotation"] is None)
    model = FactorModel.fit(TABLE, 3, "principal")
    np.testing.assert_allclose(model.loadings, stored["loadings"], atol=1e-6)
    np.testing.assert_allclose(model.ss_loadings, np.linalg.eigvalsh(np.corrcoef(TABLE.T))[::-1][:3])
    with pytest.raises(ImportError, match=r"softde\[factors\]"):
        FactorModel.fit(TABLE, 3, "minres")
    with pytest.raises(ImportError, match=r"softde\[factors\]"):
        FactorModel.fit(TABLE, 3, "principal", "varimax")


@needs_factor_analyzer
def test_published_maximum_likelihood_example() -> None:
    subjects = ("Gaelic", "English", "History", "Arithmetic", "Algebra", "Geometry")
    c = Correlations(subjects, np.zeros(6), np.ones(6), SUBJECTS, 220, 220.0, "Lawley and Maxwell 1971")
    model = FactorModel.fit(c, 2, "ml").aligned_to(SUBJECT_LOADINGS)
    np.testing.assert_allclose(model.loadings, SUBJECT_LOADINGS, atol=1e-3)
    np.testing.assert_allclose(model.uniquenesses, SUBJECT_UNIQUENESSES, atol=1e-3)
    np.testing.assert_allclose(model.score_weights("regression"), SUBJECT_SCORE_WEIGHTS, atol=1e-3)


# -- what issue and literature ask of it


@needs_factor_analyzer
def test_simulated_respondents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, truth = simulated()
    model = FactorModel.fit(values, 4, "minres", "varimax")
    np.testing.assert_allclose(model.loadings, factor_analyzer_loadings(values, 4, "minres", "varimax"), atol=1e-6)
    aligned = model.aligned_to(truth)
    assert np.diag(congruence(aligned.loadings, truth)).min() >= 0.98
    scores = aligned.scores(values)
    aligned.save(tmp_path / "model.safetensors")
    without(monkeypatch)
    loaded = FactorModel.load(tmp_path / "model.safetensors")
    assert loaded == aligned
    np.testing.assert_array_equal(loaded.scores(values), scores)


def test_region_means_by_principal_components(shared_data: Path, tmp_path: Path) -> None:
    means, regions, items = region_means(shared_data)
    assert means.shape == (19, 259)
    model = FactorModel.fit(means, 2, "principal", items=items)
    filled = np.where(np.isnan(means), np.nanmean(means, axis=0), means)
    standard = (filled - filled.mean(axis=0)) / filled.std(axis=0)
    left, values, right = np.linalg.svd(standard, full_matrices=False)
    signs = np.sign(right[:2].sum(axis=1))
    np.testing.assert_allclose(model.loadings, right[:2].T * values[:2] / np.sqrt(19) * signs, atol=1e-9)
    np.testing.assert_allclose(model.scores(means, missing="mean"), left[:, :2] * np.sqrt(19) * signs, atol=1e-9)
    assert np.isnan(model.scores(means)).any(axis=1).tolist() == np.isnan(means).any(axis=1).tolist()
    model.save(tmp_path / "regions.safetensors")
    assert FactorModel.load(tmp_path / "regions.safetensors") == model
    assert (model.rows, len(regions)) == (19, 19)


@needs_factor_analyzer
def test_region_means_equal_factor_analyzer(shared_data: Path) -> None:
    means, _, items = region_means(shared_data)
    np.testing.assert_allclose(  # factor_analyzer's randomised SVD is exact for nine of 19 components, not for two
        FactorModel.fit(means, 9, "principal", "varimax", items=items).loadings,
        factor_analyzer_loadings(means, 9, "principal", "varimax"),
        atol=1e-6,
    )
    some = means[:, ~np.isnan(means).any(axis=0)][:, :40]  # still more items than rows
    np.testing.assert_allclose(
        FactorModel.fit(some, 2, "minres", "varimax").loadings,
        factor_analyzer_loadings(some, 2, "minres", "varimax"),
        atol=1e-6,
    )


@needs_factor_analyzer
@pytest.mark.slow
def test_all_region_means_by_minres_equal_factor_analyzer(shared_data: Path) -> None:
    means, _, _ = region_means(shared_data)
    np.testing.assert_allclose(
        FactorModel.fit(means, 2, "minres", "varimax").loadings,
        factor_analyzer_loadings(means, 2, "minres", "varimax"),
        atol=1e-6,
    )


# -- tables


def slow_correlation(values: np.ndarray, weights: np.ndarray, pairwise: bool) -> np.ndarray:
    """One pair of items after the other."""
    count = values.shape[1]
    found = np.empty((count, count))
    filled = values.copy()
    for i in range(count):
        known = ~np.isnan(values[:, i])
        filled[~known, i] = np.average(values[known, i], weights=weights[known])
    for i in range(count):
        for j in range(count):
            both = ~np.isnan(values[:, [i, j]]).any(axis=1) if pairwise else np.ones(len(values), dtype=bool)
            x, y, w = (
                (values if pairwise else filled)[both, i],
                (values if pairwise else filled)[both, j],
                weights[both],
            )
            x, y = x - np.average(x, weights=w), y - np.average(y, weights=w)
            found[i, j] = (w * x * y).sum() / np.sqrt((w * x * x).sum() * (w * y * y).sum())
    return found


@pytest.mark.parametrize("missing", ["mean", "pairwise"])
def test_weighted_correlations_with_gaps(missing: str) -> None:
    rng = np.random.default_rng(0)
    values = np.where(rng.random(TABLE.shape) < 0.15, np.nan, TABLE)
    weights = rng.uniform(0.2, 3, len(TABLE))
    c = correlations(values, weights, missing=missing)
    np.testing.assert_allclose(c.matrix, slow_correlation(values, weights, missing == "pairwise"), atol=1e-12)
    for item, column in enumerate(values.T):
        known = ~np.isnan(column)
        mean = np.average(column[known], weights=weights[known])
        assert c.means[item] == pytest.approx(mean)
        filled, w = (
            (column[known], weights[known]) if missing == "pairwise" else (np.where(known, column, mean), weights)
        )
        assert c.deviations[item] == pytest.approx(np.sqrt(np.average((filled - mean) ** 2, weights=w)))
    assert c.rows == 300
    assert c.effective_rows == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


@needs_factor_analyzer
def test_weights_count_rows_several_times() -> None:
    times = np.random.default_rng(1).integers(0, 4, len(TABLE))
    weighted = FactorModel.fit(TABLE, 2, "minres", "oblimin", weights=times)
    repeated = FactorModel.fit(TABLE.repeat(times, axis=0), 2, "minres", "oblimin")
    np.testing.assert_allclose(weighted.loadings, repeated.loadings, atol=1e-6)
    np.testing.assert_allclose(weighted.means, repeated.means)
    np.testing.assert_allclose(weighted.deviations, repeated.deviations)
    assert weighted.rows == (times > 0).sum()


def test_tables_with_names() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(TABLE, columns=list("abcdefghi"))
    assert FactorModel.fit(frame, 1, "principal").item_ids == tuple("abcdefghi")
    some = FactorModel.fit(frame, 1, "principal", items=["h", "b", "e"], names=["warmth"])
    assert (some.item_ids, some.factors) == (("h", "b", "e"), ("warmth",))
    assert some == FactorModel.fit(TABLE[:, [7, 1, 4]], 1, "principal", items=["h", "b", "e"], names=["warmth"])
    assert some != FactorModel.fit(TABLE[:, [7, 1, 4]], 1, "principal", items=["h", "b", "e"])
    of_correlations = FactorModel.fit(correlations(frame), 1, "principal", items=["h", "b", "e"], names=["warmth"])
    np.testing.assert_allclose(of_correlations.loadings, some.loadings)
    assert repr(some) == "FactorModel(3 items, warmth; principal, no rotation, 300 rows)"


def test_respondents_and_regions_as_tables() -> None:
    weights = np.random.default_rng(2).uniform(0.5, 2, 300)
    regions = np.array([f"R{i % 20:02}" for i in range(300)])
    respondents = Respondents(survey_of(9), TABLE.astype(int) - 1, regions, weights)
    model = FactorModel.fit(respondents, 2, "principal")
    assert model == replace(FactorModel.fit(TABLE, 2, "principal", weights=weights), source="300 respondents")
    np.testing.assert_allclose(model.scores(respondents), model.scores(TABLE))
    human = respondents.shares("a file")
    of_regions = FactorModel.fit(human, 2, "principal", items=["item9", "item2", "item5"])
    assert (of_regions.rows, of_regions.source) == (20, "a file, 20 regions")
    means = [np.average(TABLE[i::20], axis=0, weights=weights[i::20]) for i in range(20)]
    np.testing.assert_allclose(of_regions.means, np.mean(means, axis=0)[[8, 1, 4]])
    np.testing.assert_allclose(of_regions.scores(human), of_regions.scores(np.array(means)[:, [8, 1, 4]]))


# -- bad input


def test_wrong_tables() -> None:
    constant, empty, infinite = (TABLE.copy() for _ in range(3))
    constant[:, 3], empty[:, 4], infinite[2, 5] = 2, np.nan, np.inf
    for table, said in [
        (constant, r"same answer in every row: item4; leave"),
        (empty, r"without any answer: item5; leave"),
        (infinite, r"row 2, column 5 is infinite"),
        (TABLE[:2], r"three rows with answers or more, got 2"),
        (TABLE[0], r"expected \(rows, items\), got shape \(9,\)"),
        ("answers", r"expected numbers \(rows, items\), NaN for no answer, got str"),
    ]:
        with pytest.raises(ValueError, match=said):
            FactorModel.fit(table, 2, "principal")


def test_wrong_arguments() -> None:
    for change, said in [
        ({"n_factors": 10}, r"10 factors but only 9 items"),
        ({"n_factors": 0}, r"n_factors: expected a whole number from 1 up, got 0"),
        ({"n_factors": 2.5}, r"got 2.5"),
        ({"n_factors": 6, "method": "minres"}, r"9 items determine at most 5 common factors, got n_factors=6"),
        ({"table": TABLE[:5], "n_factors": 4}, r"5 rows are too few for 4 factors"),
        ({"method": "pca"}, r"'minres', 'ml' or 'principal', got 'pca'"),
        ({"rotation": "varymax"}, r"rotation: expected None or one of varimax"),
        ({"missing": "drop"}, r"'mean' or 'pairwise', got 'drop'"),
        ({"weights": np.ones(4)}, r"weights: expected one per row, \(300,\), got shape \(4,\)"),
        ({"weights": np.zeros(300)}, r"weights sum to zero"),
        ({"weights": np.where(np.arange(300) == 7, -1.0, 1)}, r"from 0 up, got -1.0 in row 7"),
        ({"items": ["a", "b"]}, r"one name per column \(9\), got 2"),
        ({"items": list("abcdefghh")}, r"named twice: h"),
        ({"names": ["one"]}, r"expected 2 different names of factors, got one"),
        ({"names": ["one", "one"]}, r"expected 2 different names"),
        ({"table": correlations(TABLE), "items": ["item1", "item22"]}, r"unknown item 'item22'; did you mean"),
        ({"table": correlations(TABLE), "weights": np.ones(300)}, r"weights go with a table"),
    ]:
        with pytest.raises(ValueError, match=said):
            FactorModel.fit(**{"table": TABLE, "n_factors": 2, "method": "principal", **change})


def test_correlations_that_cannot_be_inverted() -> None:
    twice = np.column_stack([TABLE, TABLE[:, 2]])
    with pytest.raises(
        ValueError, match=r"smallest eigenvalue .*\(nearly\) duplicates are item3 and item10; leave one"
    ):
        FactorModel.fit(twice, 2, "minres")
    summed = np.column_stack([TABLE, TABLE[:, :3].sum(axis=1)])
    with pytest.raises(ValueError, match=r"weighted sum of item10, item.* is \(nearly\) constant"):
        FactorModel.fit(summed, 2, "ml")
    with pytest.raises(ValueError, match=r"only 8 rows; take fewer items, or use method=\"principal\" or \"minres\""):
        FactorModel.fit(TABLE[:8], 2, "ml")
    assert FactorModel.fit(twice, 2, "principal").loadings[2] == pytest.approx(
        FactorModel.fit(twice, 2, "principal").loadings[9]
    )


def test_pairwise_correlations_that_do_not_fit_together() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(60)
    table = np.column_stack([x, x, x]) + 0.05 * rng.standard_normal((60, 3))
    table[40:, 2] = -table[40:, 0]  # the third item goes with the first in some rows, against it in others
    table[:20, 2], table[20:40, 0], table[40:, 1] = np.nan, np.nan, np.nan
    with pytest.raises(ValueError, match=r"not positive definite: its smallest eigenvalue is -.*missing=\"mean\""):
        FactorModel.fit(table, 1, "principal", missing="pairwise")
    table[20:, 1] = np.nan
    with pytest.raises(ValueError, match=r"items item2 and item3 were answered together in 0 rows, three are needed"):
        FactorModel.fit(table, 1, "principal", missing="pairwise")


def test_scikit_learn_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("factor_analyzer")
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.8.0" if name == "scikit-learn" else real(name))
    with pytest.raises(ImportError, match=r"cannot fit with scikit-learn 1.8.0; it needs scikit-learn>=1.5,<1.8"):
        FactorModel.fit(TABLE, 2)
    FactorModel.fit(TABLE, 2, "principal", "varimax")  # rotations work with every version


@needs_factor_analyzer
def test_a_fit_that_does_not_converge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from factor_analyzer import FactorAnalyzer

    fit = FactorAnalyzer.fit

    def stopped(self: FactorAnalyzer, matrix: np.ndarray) -> FactorAnalyzer:
        warnings.warn("Failed to converge: STOP", stacklevel=1)
        return fit(self, matrix)

    monkeypatch.setattr(FactorAnalyzer, "fit", stopped)
    with pytest.warns(UserWarning, match='method="minres" did not converge with 2 factors on 9 items'):
        FactorModel.fit(TABLE, 2)


@needs_factor_analyzer
def test_minres_of_a_matrix_without_any_inverse() -> None:
    items = tuple(
        "abcde"
    )  # always answered alike by five regions: one factor explains all that a bound of 0.005 lets it
    c = Correlations(items, np.zeros(5), np.ones(5), np.ones((5, 5)), 5, 5.0)
    np.testing.assert_allclose(FactorModel.fit(c, 1).communalities, 1, atol=0.006)
