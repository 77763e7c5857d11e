from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softde.surveys.human.answers import HumanAnswers
from softde.surveys.metrics import (
    answer_shares,
    cultural_divergence,
    divergence_preserved,
    divergences,
    human_majority,
    js_divergence,
    null_shares,
    one_hot,
)
from tests.surveys import spa


@st.composite
def shares(draw: st.DrawFn, options: int = 4) -> np.ndarray:
    row = np.array(draw(st.lists(st.integers(0, 9), min_size=options, max_size=options)), dtype=float)
    return row / row.sum() if row.any() else np.full(options, 1 / options)


@pytest.fixture(scope="module")
def human(shared_data: Path) -> HumanAnswers:
    path = shared_data / "culturespa"
    if not path.is_dir():
        pytest.skip(f"no CultureSPA data at {path}")
    return spa.human(path).select(regions=spa.REGIONS)


@given(shares(), shares(), shares())
def test_divergence_is_symmetric_bounded_and_its_root_a_distance(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> None:
    d = float(js_divergence(p, q))
    assert 0 <= d <= 1 and d == pytest.approx(float(js_divergence(q, p)), abs=1e-12)
    assert d == pytest.approx(spa.slow_js(p.tolist(), q.tolist()), abs=1e-12)
    assert (d < 1e-12) == np.allclose(p, q)
    assert d**0.5 <= float(js_divergence(p, r)) ** 0.5 + float(js_divergence(r, q)) ** 0.5 + 1e-7  # Endres & Schindelin


def test_divergence_by_hand_and_by_scipy() -> None:
    assert js_divergence([1, 0], [0, 1]) == 1 and js_divergence([0.5, 0.5], [0.5, 0.5]) == 0
    # H(3/4, 1/4) - H(1/2, 1/2) / 2 = 0.811278 - 0.5
    assert float(js_divergence([1, 0], [0.5, 0.5])) == pytest.approx(0.3112781245, abs=1e-9)
    assert np.isnan(js_divergence([np.nan, np.nan], [0.5, 0.5]))
    distance = pytest.importorskip("scipy.spatial.distance")
    p, q = np.random.default_rng(0).dirichlet(np.ones(5), (2, 7))
    np.testing.assert_allclose(
        js_divergence(p, q), [distance.jensenshannon(a, b, 2) ** 2 for a, b in zip(p, q, strict=True)]
    )


def test_divergences_equal_the_slow_loop() -> None:
    generator = np.random.default_rng(1)
    table = generator.dirichlet(np.ones(3), (4, 6))
    table[0, 2] = table[1:, 3] = np.nan
    weights = np.array([1.0, 2.0, 0.5, 0.0])
    found = divergences(table, weights)
    total = weight = 0.0
    for i in range(6):
        there = [r for r in range(4) if not np.isnan(table[r, i]).any()]
        counted = [r for r in there if weights[r] > 0]
        if len(counted) < 2:
            assert np.isnan(found[:, i]).all()
            continue
        centroid = sum(weights[r] * table[r, i] for r in there) / sum(weights[r] for r in there)
        for r in range(4):
            if r not in there:
                assert np.isnan(found[r, i])
                continue
            expected = spa.slow_js(table[r, i].tolist(), centroid.tolist())
            assert found[r, i] == pytest.approx(expected, abs=1e-12)
            total, weight = total + weights[r] * expected, weight + weights[r]
    assert cultural_divergence(table, weights) == pytest.approx(total / weight)


def test_human_divergence_as_published_data_give(human: HumanAnswers) -> None:
    assert round(cultural_divergence(human.shares), 4) == 0.0398  # bits, 18 regions and 259 items
    assert round(cultural_divergence(human_majority(human)), 3) == 0.255


def test_stored_answers_flatten_the_nine_cultures(shared_data: Path, human: HumanAnswers) -> None:
    nine = human.select(regions=spa.AWARE)
    own = {region: spa.stored(shared_data / "culturespa", f"culture_aware_{region}") for region in spa.AWARE}
    found = divergence_preserved(answer_shares(own, nine), human_majority(nine))
    # the figures for all 18 outputs are .186 and .255; nine have their answers in the test data
    assert found.model == pytest.approx(0.18, abs=0.005) and found.human == pytest.approx(0.241, abs=0.005)
    assert found.ratio == found.model / found.human and found.ratio < 0.8
    assert (found.by_region < 1).sum() >= 8 and found.items == 259 and found.pairs < 9 * 259


def test_preserved_divergence_by_hand() -> None:
    human = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])  # each 0.3112781 from the middle (½, ½)
    assert divergence_preserved(human, human).ratio == 1
    same = np.full((2, 1, 2), 0.5)
    assert divergence_preserved(same, human).ratio == 0  # flat
    assert divergence_preserved(human, 0.5 * human + 0.25).ratio > 1  # a caricature
    assert np.isnan(divergence_preserved(human, same).ratio)  # humans who do not differ
    assert cultural_divergence(human) == pytest.approx(0.3112781245, abs=1e-9)
    # pairs that one lacks are left out of both
    more = np.concatenate([human, human[:, :, ::-1]], axis=1)
    lacking = more.copy()
    lacking[1, 1] = np.nan
    found = divergence_preserved(lacking, more)
    assert found.ratio == 1 and (found.items, found.pairs) == (1, 2)
    flat = np.concatenate([human, same], axis=1)
    found = divergence_preserved(flat, lacking)  # on the first item alone nothing is lost
    assert found.ratio == 1 and (found.items, found.pairs) == (1, 2)
    assert divergence_preserved(flat, more).ratio == 0.5


@given(st.lists(st.tuples(shares(), shares(), shares()), min_size=1, max_size=3))
def test_mixing_all_regions_with_their_centroid_flattens(rows: list[tuple[np.ndarray, ...]]) -> None:
    table = np.array(rows).transpose(1, 0, 2)
    mixed = 0.5 * table + 0.5 * table.mean(axis=0)
    assert cultural_divergence(mixed) <= cultural_divergence(table) + 1e-12
    assert 0 <= cultural_divergence(table) <= 1


def test_nulls_keep_no_divergence(human: HumanAnswers) -> None:
    nulls = null_shares(human)
    for name in ("uniform answerer", "midpoint"):
        assert divergence_preserved(nulls[name], human.shares).ratio == pytest.approx(0, abs=1e-12)
        np.testing.assert_allclose(nulls[name].sum(-1)[~np.isnan(human.shares[..., 0])], 1)
    assert divergence_preserved(nulls["leave-one-region-out mean"], human.shares).ratio < 0.02
    i = human.survey.item_ids.index("Q1")
    np.testing.assert_allclose(nulls["leave-one-region-out mean"][3, i], np.delete(human.shares[:, i], 3, 0).mean(0))
    np.testing.assert_allclose(nulls["midpoint"][0, i, :4], [0, 0.5, 0.5, 0])
    np.testing.assert_allclose(nulls["uniform answerer"][0, i, :5], [0.25] * 4 + [0])


def test_one_hot() -> None:
    np.testing.assert_array_equal(one_hot([[0, -1], [2, 1]], 3)[:, 0], [[1, 0, 0], [0, 0, 1]])
    assert np.isnan(one_hot([-1], 3)).all()
    for wrong in ([3], [-2], [0.5]):
        with pytest.raises(ValueError, match="whole numbers from 0 to 2, or -1"):
            one_hot(wrong, 3)


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        (np.full((3, 1, 2), 0.5), None, r"same regions and items of both, got \(3, 1\) of the model"),
        (np.full((1, 2), 0.5), None, r"expected \(regions, items, options\), got shape \(1, 2\)"),
        (np.full((2, 1, 2), np.nan), None, "no item is answered by two regions in both"),
        (np.full((2, 1, 2), 0.5), [1.0, -1.0], "one finite number from 0 up for each of 2 regions"),
        (np.full((2, 1, 2), 0.5), [0.0, 0.0], "with one above 0 at least"),
    ],
)
def test_bad_input(model: np.ndarray, weights: list[float] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        divergence_preserved(model, np.full((2, 1, 2), 0.5), weights)
