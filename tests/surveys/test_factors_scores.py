"""Factor models as values: scores, alignment, surveys, files. Needs no factor_analyzer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softde.surveys import load_survey
from softde.surveys.factors import FactorModel
from softde.surveys.factors.alignment import assignment, congruence, procrustes
from softde.surveys.human import Respondents
from tests.surveys.factor_tables import GOLDEN, TABLE, survey_of

METHODS = ("regression", "bartlett", "tenberge")


def stored(rotation: str | None) -> FactorModel:
    """The model that factor_analyzer's stored minres loadings of TABLE make."""
    loadings = {f["rotation"]: np.array(f["loadings"]) for f in GOLDEN["fits"] if f["method"] == "minres"}
    turn = np.linalg.lstsq(loadings[None], loadings[rotation], rcond=None)[0]
    return FactorModel(
        item_ids=tuple(f"item{i}" for i in range(1, 10)),
        factors=("A", "B", "C"),
        means=TABLE.mean(axis=0),
        deviations=TABLE.std(axis=0),
        loadings=loadings[rotation],
        rotation_matrix=turn,
        phi=np.linalg.inv(turn.T @ turn),
        correlation=np.corrcoef(TABLE.T),
        method="minres",
        rotation=rotation,
        rows=300,
        source="a made-up table",
    )


PROMAX, VARIMAX = stored("promax"), stored("varimax")
STANDARD = (TABLE - TABLE.mean(axis=0)) / TABLE.std(axis=0)


# -- scores


def test_regression_scores_equal_factor_analyzers() -> None:
    np.testing.assert_allclose(PROMAX.scores(TABLE[:5]), GOLDEN["promax_scores"], atol=1e-6)


def test_regression_weights_are_those_of_a_regression_on_the_items() -> None:
    # Regressing factors on items takes the items' correlations with each other and with the factors, nothing else.
    R, S = np.corrcoef(TABLE.T), PROMAX.structure
    np.testing.assert_allclose(R @ PROMAX.score_weights(), S, atol=1e-12)


def test_scores_of_one_factor_by_hand() -> None:
    # Two items with loadings .8 and .6, so r = .48, means 3 and 2, deviations 2 and 1; answers 5 and 2: z = (1, 0).
    model = FactorModel(
        ("a", "b"), ("F",), [3, 2], [2, 1], [[0.8], [0.6]], [[1]], [[1]], [[1, 0.48], [0.48, 1]], "minres", None, 100
    )
    assert model.uniquenesses == pytest.approx([0.36, 0.64])
    # R⁻¹λ = (.8 - .48·.6, .6 - .48·.8) / (1 - .48²) = (.512, .216) / .7696
    assert model.scores([5, 2]) == pytest.approx([0.512 / 0.7696])
    # λ/ψ = (.8/.36, .6/.64) = (2.2222, .9375); λ'Ψ⁻¹λ = 1.7778 + .5625 = 2.3403
    assert model.scores([5, 2], "bartlett") == pytest.approx([(0.8 / 0.36) / (0.64 / 0.36 + 0.36 / 0.64)])
    # one factor: ten Berge's weights are the regression's, scaled to variance one: w'Rw = λ'R⁻¹λ
    length = np.sqrt((0.8 * 0.512 + 0.6 * 0.216) / 0.7696)
    assert model.scores([5, 2], "tenberge") == pytest.approx([0.512 / 0.7696 / length])


@pytest.mark.parametrize("model", [PROMAX, VARIMAX], ids=["promax", "varimax"])
def test_what_each_method_promises(model: FactorModel) -> None:
    R = np.corrcoef(TABLE.T)
    W = model.score_weights("tenberge")
    np.testing.assert_allclose(W.T @ R @ W, model.phi, atol=1e-9)  # scores correlate as the factors do
    W = model.score_weights("bartlett")
    np.testing.assert_allclose(W.T @ model.loadings, np.eye(3), atol=1e-9)  # unbiased, and blind to other factors
    for method in METHODS:
        scores = model.scores(TABLE, method)
        np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(scores, STANDARD @ model.score_weights(method), atol=1e-12)


def test_components_have_one_kind_of_scores() -> None:
    model = FactorModel.fit(TABLE, 3, "principal")
    scores = model.scores(TABLE)
    np.testing.assert_allclose(np.cov(scores.T, ddof=0), np.eye(3), atol=1e-9)
    for method in METHODS:
        np.testing.assert_allclose(model.scores(TABLE, method), scores, atol=1e-12)
    np.testing.assert_allclose(model.score_weights(), np.linalg.solve(model.correlation, model.structure), atol=1e-9)


def test_new_rows_are_standardised_with_the_fitted_statistics() -> None:
    one = PROMAX.scores(TABLE[:1])
    np.testing.assert_allclose(PROMAX.scores(TABLE)[:1], one)
    assert PROMAX.scores(TABLE.reshape(3, 100, 9)).shape == (3, 100, 3)


def test_missing_answers() -> None:
    gaps = TABLE[:2].copy()
    gaps[0, 4] = np.nan
    assert np.isnan(PROMAX.scores(gaps)).tolist() == [[True] * 3, [False] * 3]
    filled = gaps.copy()
    filled[0, 4] = PROMAX.means[4]
    np.testing.assert_allclose(PROMAX.scores(gaps, missing="mean"), PROMAX.scores(filled))


def test_fewer_rows_than_items_score_with_the_models_own_correlations() -> None:
    few = replace(PROMAX, correlation=np.corrcoef(TABLE[:6].T))
    W = few.score_weights()
    np.testing.assert_allclose(few.implied @ W, few.structure, atol=1e-9)
    sigma = PROMAX.loadings @ PROMAX.phi @ PROMAX.loadings.T + np.diag(PROMAX.uniquenesses)
    np.testing.assert_allclose(few.implied, sigma, atol=1e-12)
    W = few.score_weights("tenberge")
    np.testing.assert_allclose(W.T @ sigma @ W, few.phi, atol=1e-9)


# -- an ordinary factor model of a survey


@given(st.lists(st.floats(1, 7), min_size=10, max_size=10), st.sampled_from(METHODS))
def test_survey_scores_are_the_models(means: list[float], method: str) -> None:
    survey = PROMAX.as_survey(survey_of(10), method=method)  # one item more than the model has
    np.testing.assert_allclose(survey.score(means), PROMAX.scores(means[:9], method), atol=1e-9)
    assert survey.factors == ("A", "B", "C")


def test_survey_with_human_scores_is_a_target() -> None:
    answers = TABLE[:4].astype(int) - 1
    answers[3, 0] = -1
    names = np.array(["Brazil", "Kenya", "Norway", "Chile"])
    human = Respondents(survey_of(9), answers, names, np.ones(4)).shares("made up")
    survey = PROMAX.as_survey(survey_of(9), human)
    assert survey.regions() == ("Brazil", "Kenya", "Norway")
    assert PROMAX.as_survey(survey_of(9), human, missing="mean").regions() == human.regions
    target = survey.target("Kenya", constants=0)
    np.testing.assert_allclose(target.scores, PROMAX.scores(TABLE[1]))
    np.testing.assert_allclose(survey.score(TABLE[1]) - survey.target("KEN").scores, 0, atol=1e-12)
    assert target.edition == "human answers"


def test_survey_of_a_shipped_instrument() -> None:
    vsm = load_survey("vsm13")
    model = replace(VARIMAX, item_ids=vsm.item_ids[:9], means=np.full(9, 2.5))
    fitted = model.as_survey(vsm)
    assert (fitted.id, fitted.factors, fitted.published) == ("vsm13:fitted", ("A", "B", "C"), ())
    np.testing.assert_allclose(fitted.score(np.full(24, 2.5)), 0, atol=1e-12)  # the mean answerer, no constant of 50


def test_surveys_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"survey 'made-up' lacks item 'item9'; did you mean"):
        PROMAX.as_survey(survey_of(8))
    with pytest.raises(ValueError, match=r"item 'item1': the model was fitted on answers with mean .* go from 0 to 2"):
        PROMAX.as_survey(survey_of(9, 0, 2))


# -- alignment


def slow_assignment(similar: np.ndarray) -> float:
    from itertools import permutations

    n = len(similar)
    return max(sum(abs(similar[order[j], j]) for j in range(n)) for order in permutations(range(n)))


@given(st.integers(1, 5), st.integers(0, 10_000))
def test_assignment_is_the_best(n: int, seed: int) -> None:
    similar = np.random.default_rng(seed).uniform(-1, 1, (n, n))
    turn = assignment(similar)
    assert np.array_equal(np.abs(turn).sum(axis=0), np.ones(n))
    assert np.trace(turn.T @ similar) == pytest.approx(slow_assignment(similar))


@given(st.permutations([0, 1, 2]), st.lists(st.sampled_from([-1.0, 1.0]), min_size=3, max_size=3))
def test_signs_and_order_come_back(order: list[int], signs: list[float]) -> None:
    turn = np.eye(3)[:, order] * signs
    turned = replace(
        PROMAX,
        loadings=PROMAX.loadings @ turn,
        rotation_matrix=PROMAX.rotation_matrix @ turn,
        phi=turn.T @ PROMAX.phi @ turn,
        factors=("x", "y", "z"),
    )
    assert turned.aligned_to(PROMAX) == PROMAX
    np.testing.assert_allclose(turned.aligned_to(PROMAX.loadings).scores(TABLE), PROMAX.scores(TABLE))


def test_procrustes_undoes_a_rotation() -> None:
    scipy_linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(4)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    rotated, found = procrustes(VARIMAX.loadings @ turn, VARIMAX.loadings)
    np.testing.assert_allclose(rotated, VARIMAX.loadings, atol=1e-12)
    np.testing.assert_allclose(found, turn.T, atol=1e-12)
    noisy = VARIMAX.loadings @ turn + 0.1 * rng.standard_normal((9, 3))
    np.testing.assert_allclose(
        procrustes(noisy, VARIMAX.loadings)[1],
        scipy_linalg.orthogonal_procrustes(noisy, VARIMAX.loadings)[0],
        atol=1e-12,
    )


def test_aligning_by_rotation_keeps_what_is_explained() -> None:
    unrotated = stored(None)
    turned = unrotated.aligned_to(VARIMAX, rotate=True)
    np.testing.assert_allclose(turned.communalities, unrotated.communalities)
    np.testing.assert_allclose(turned.loadings, VARIMAX.loadings, atol=1e-6)  # varimax was a rotation of it
    np.testing.assert_allclose(turned.scores(TABLE), VARIMAX.scores(TABLE), atol=1e-5)
    some = replace(VARIMAX, item_ids=("new", *VARIMAX.item_ids[1:]), factors=("p", "q", "r"))  # eight items in common
    assert unrotated.aligned_to(some, rotate=True).factors == ("p", "q", "r")


def test_congruence_by_hand() -> None:
    # (1·1 + 2·0) / √(5·1) and (1·3 + 2·4) / √(5·25)
    np.testing.assert_allclose(congruence([[1], [2]], [[1, 3], [0, 4]]), [[1 / 5**0.5, 11 / 125**0.5]])
    np.testing.assert_allclose(np.diag(congruence(PROMAX.loadings, -2 * PROMAX.loadings)), -1)


def test_what_cannot_be_aligned() -> None:
    for reference, said in [
        (PROMAX.loadings[:, :2], r"expected loadings of shape \(9, 3\) \(items, factors\), got \(9, 2\)"),
        (replace(PROMAX, item_ids=tuple("abcdefghi")), r"at least 3 items in common, got 0"),
        (np.zeros((9, 3)), r"a factor on which nothing loads"),
    ]:
        with pytest.raises(ValueError, match=said):
            PROMAX.aligned_to(reference)
    with pytest.raises(ValueError, match=r"arrays of one shape, got \(9, 3\), \(2, 2\)"):
        procrustes(PROMAX.loadings, np.eye(2))
    with pytest.raises(ValueError, match=r"congruence: expected two \(items, factors\) arrays"):
        congruence(PROMAX.loadings, np.eye(2))


# -- one file


def test_round_trip_is_equality(tmp_path: Path) -> None:
    for number, model in enumerate((PROMAX, VARIMAX, stored(None), FactorModel.fit(TABLE, 2, "principal"))):
        path = tmp_path / f"{number}.safetensors"
        model.save(path)
        loaded = FactorModel.load(path)
        assert loaded == model
        assert hash(loaded) == hash(model)
        first = path.read_bytes()
        loaded.save(path)
        assert path.read_bytes() == first
    assert PROMAX != VARIMAX
    assert replace(PROMAX, source="another") != PROMAX
    assert PROMAX != "a model"


def rewritten(path: Path, header: dict, leave_out: tuple[str, ...] = ()) -> Path:
    """The file of PROMAX with other entries in its header and without some arrays."""
    from safetensors.numpy import load_file, save_file

    PROMAX.save(path)
    arrays = {name: array for name, array in load_file(path).items() if name not in leave_out}
    record = {"format": 1, **PROMAX.record(), **header}
    save_file(arrays, path, {"softde_factor_model": json.dumps({k: v for k, v in record.items() if v is not ...})})
    return path


def test_files_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for header, leave_out, said in [
        ({"format": 2}, (), r"model.safetensors: file format 2, but this softde reads format 1"),
        ({"rows": ...}, (), r"model.safetensors: header: missing rows"),
        ({"more": 1}, (), r"model.safetensors: header: unknown key 'more'"),
        ({}, ("phi", "means"), r"model.safetensors: missing arrays means, phi"),
        ({"items": ["a"]}, (), r"model.safetensors: factor model: means: expected finite numbers of shape \(1,\)"),
        ({"items": 3}, (), r"model.safetensors: header: items: expected a list, got 3"),
        ({"factors": ["A", 3, "C"]}, (), r"model.safetensors: names: expected 3 different names"),
    ]:
        with pytest.raises(ValueError, match=said):
            FactorModel.load(rewritten(path, header, leave_out))
    with pytest.raises(ValueError, match=r"cannot read .*none.safetensors"):
        FactorModel.load(tmp_path / "none.safetensors")
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00not a header at all")
    with pytest.raises(ValueError, match=r"is damaged or no safetensors file"):
        FactorModel.load(path)
    from safetensors.numpy import save_file

    save_file({"weights": np.ones(2)}, path)
    with pytest.raises(ValueError, match=r"is no factor model of softde"):
        FactorModel.load(path)
    with pytest.raises(ValueError, match=r"there is no folder"):
        PROMAX.save(tmp_path / "none" / "model.safetensors")


def test_wrong_values() -> None:
    for change, said in [
        ({"means": np.ones(4)}, r"means: expected finite numbers of shape \(9,\), got \(4,\)"),
        ({"phi": np.full((3, 3), np.nan)}, r"phi: expected finite numbers"),
        ({"deviations": np.zeros(9)}, r"deviations: expected numbers above zero, got another for item 'item1'"),
    ]:
        with pytest.raises(ValueError, match=said):
            replace(PROMAX, **change)
    for call, said in [
        (lambda: PROMAX.scores(TABLE, "thurstone"), r"'regression', 'bartlett' or 'tenberge', got 'thurstone'"),
        (lambda: PROMAX.scores(TABLE, missing="drop"), r"'nan' or 'mean', got 'drop'"),
        (lambda: PROMAX.scores(TABLE[:, :4]), r"values end in 9 numbers, one per item .* got \(300, 4\)"),
    ]:
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(ValueError, match="read-only"):
        PROMAX.means[0] = 1
