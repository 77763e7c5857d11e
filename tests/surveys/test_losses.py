"""Distances: against slow loops, other libraries, hand derivations and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from softde.surveys import losses

Array = NDArray[np.float64]

# Two items of four and three options, the second with values from high to low.
VALUES = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 2.0, 1.0, np.nan]])
HUMAN = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.0, 0.5, 0.0]])


def draws(*shape: int, seed: int = 0) -> Array:
    """Probabilities (..., 2, 4), zero where the second item has no option."""
    raw = np.random.default_rng(seed).gamma(1.0, size=(*shape, 2, 4))
    raw[..., 1, 3] = 0.0
    return np.asarray(raw / raw.sum(-1, keepdims=True))


def entropy(p: list[float]) -> float:
    return -sum(x * math.log2(x) for x in p if x > 0)


def test_jensen_shannon_is_the_entropy_of_the_mean_less_the_mean_entropy() -> None:
    model = draws(3)
    for c in range(3):
        for i in range(2):
            p, q = model[c, i].tolist(), HUMAN[i].tolist()
            mixed = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
            expected = entropy(mixed) - (entropy(p) + entropy(q)) / 2
            assert losses.jensen_shannon(model, HUMAN)[c, i] == pytest.approx(expected, abs=1e-12)


def test_values_by_hand() -> None:
    # JS of (1, 0) and (0, 1): each is one bit from their mean. Of (1, 0) and (½, ½): m = (¾, ¼), so
    # ½ log₂(4/3) + ½ (½ log₂(2/3) + ½ log₂ 2) = 0.311278.
    one = np.array([[1.0, 0.0]])
    assert losses.jensen_shannon(one, np.array([[0.0, 1.0]])) == 1.0
    assert losses.jensen_shannon(one, np.array([[0.5, 0.5]])) == pytest.approx(0.3112781244591328)
    # KL of (½, ½) from (¼, ¾): ½ log₂ 2 + ½ log₂(2/3) = 0.207519; a model that never says it: ½ log₂(½ / floor).
    half = np.array([[0.5, 0.5]])
    assert losses.kullback_leibler(np.array([[0.25, 0.75]]), half) == pytest.approx(0.20751874963942185)
    assert losses.kullback_leibler(one, half, 2.0**-10) == pytest.approx(0.5 * math.log2(0.5) + 0.5 * 9)
    # W1 on 1, 2, 4 of (1, 0, 0) and (0, 0, 1): all of the mass goes all of the way; of (0, 1, 0): one third of it.
    values = np.array([[4.0, 1.0, 2.0]])
    low, mid, high = np.eye(3)[[1, 2, 0]][:, None]
    assert losses.wasserstein(low, high, values) == 1.0
    assert losses.wasserstein(low, mid, values) == pytest.approx(1 / 3)
    # Huber with delta 2: 1 → ½, 2 → 2, 5 → 2 (5 − 1) = 8.
    assert losses.huber(np.array([1.0, 2.0, 5.0]), 2.0).tolist() == [0.5, 2.0, 8.0]


def test_distances_are_scipys() -> None:
    distance = pytest.importorskip("scipy.spatial.distance")
    stats = pytest.importorskip("scipy.stats")
    model = draws(4, seed=1)
    js, kl = losses.jensen_shannon(model, HUMAN), losses.kullback_leibler(model, HUMAN)
    w1 = losses.wasserstein(model, HUMAN, VALUES)
    for c in range(4):
        for i, count in enumerate((4, 3)):
            p, q, v = model[c, i, :count], HUMAN[i, :count], VALUES[i, :count]
            assert js[c, i] == pytest.approx(distance.jensenshannon(p, q, base=2) ** 2, abs=1e-12)
            assert kl[c, i] == pytest.approx(stats.entropy(q, p, base=2), abs=1e-12)
            assert w1[c, i] == pytest.approx(stats.wasserstein_distance(v, v, p, q) / np.ptp(v), abs=1e-12)


SLOPES = {
    "js": (losses.jensen_shannon, losses.jensen_shannon_slope),
    "kl": (losses.kullback_leibler, losses.kullback_leibler_slope),
    "w1": (lambda p, q: losses.wasserstein(p, q, VALUES), lambda p, q: losses.wasserstein_slope(p, q, VALUES)),
}


@pytest.mark.parametrize("name", SLOPES)
def test_slopes_are_finite_differences(name: str) -> None:
    distance, slope = SLOPES[name]
    model, step = draws(seed=2), 1e-7
    found = slope(model, HUMAN)
    for i, count in enumerate((4, 3)):
        for a in range(count):  # from option a to the next: probabilities keep their sum
            b = (a + 1) % count
            moved = [model.copy(), model.copy()]
            for sign, row in zip((1, -1), moved, strict=True):
                row[i, a] -= sign * step
                row[i, b] += sign * step
            expected = (distance(moved[0], HUMAN)[i] - distance(moved[1], HUMAN)[i]) / (2 * step)
            assert found[i, b] - found[i, a] == pytest.approx(expected, abs=1e-5)


def test_what_was_not_answered_stays_nan() -> None:
    model = draws(2)
    model[1, 0] = np.nan
    for found in (
        losses.jensen_shannon(model, HUMAN),
        losses.kullback_leibler(model, HUMAN),
        losses.wasserstein(model, HUMAN, VALUES),
    ):
        assert np.isnan(found).tolist() == [[False, False], [True, False]]


def probabilities() -> st.SearchStrategy[Array]:
    raw = arrays(np.float64, (2, 4), elements=st.floats(0, 1, allow_subnormal=True))
    return raw.filter(lambda x: bool((x.sum(-1) > 0.01).all())).map(lambda x: x / x.sum(-1, keepdims=True))


@settings(deadline=None)
@given(probabilities(), probabilities())
def test_bounds_and_symmetry(p: Array, q: Array) -> None:
    values = np.array([[1.0, 2.0, 3.0, 4.0], [3.0, 1.0, 0.0, 7.0]])
    js, w1 = losses.jensen_shannon(p, q), losses.wasserstein(p, q, values)
    assert (js >= 0).all() and (js <= 1).all() and (w1 >= 0).all() and (w1 <= 1 + 1e-12).all()
    assert js == pytest.approx(losses.jensen_shannon(q, p), abs=1e-12)
    assert w1 == pytest.approx(losses.wasserstein(q, p, values), abs=1e-12)
    assert (losses.jensen_shannon(p, p) == 0).all() and (losses.wasserstein(p, p, values) == 0).all()
    assert (losses.kullback_leibler(p, q) >= 0).all()
    apart = np.abs(p - q).max(-1) > 1e-4
    assert (js[apart] > 0).all() and (w1[apart] > 0).all()


def test_the_same_bits_alone_and_among_others() -> None:
    rng = np.random.default_rng(3)
    model = rng.dirichlet(np.ones(11), size=(64, 259))
    human = rng.dirichlet(np.ones(11), size=259)
    values = np.tile(np.arange(11.0), (259, 1))
    for found, alone in (
        (losses.jensen_shannon(model, human), lambda row: losses.jensen_shannon(row, human)),
        (losses.kullback_leibler(model, human), lambda row: losses.kullback_leibler(row, human)),
        (losses.wasserstein(model, human, values), lambda row: losses.wasserstein(row, human, values)),
    ):
        assert all(found[c].tolist() == alone(model[c : c + 1])[0].tolist() for c in range(64))


def test_how_far_regions_are_from_their_published_order() -> None:
    """Four regions. Factors: as published; reversed; one of six pairs swapped, τ 4/6; all equal, no order."""
    published = np.array([[1.0, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3], [4, 4, 4, 4]])
    scores = np.array([[10.0, 9, 2, 7], [20, 8, 1, 7], [30, 7, 3, 7], [40, 6, 4, 7]])
    parts = [0, 1, 1 / 6, 1 / 2]
    assert losses.rank_disagreement(scores, published) == pytest.approx(np.mean(parts))
    many = np.stack([scores, published, scores[::-1]])
    assert losses.rank_disagreement(many, published) == pytest.approx([np.mean(parts), 0, np.mean([1, 0, 5 / 6, 0.5])])
    level = published.copy()
    level[:, 1] = 5  # nothing to rank: left out
    assert losses.rank_disagreement(scores, level) == pytest.approx(np.mean([0, 1 / 6, 1 / 2]))
    assert np.isnan(losses.rank_disagreement(scores, np.full((4, 4), 5.0)))
    scores[2, 0] = np.nan
    assert np.isnan(losses.rank_disagreement(scores, published))
    for wrong in (scores[:2], scores[0], scores[:, :2]):
        with pytest.raises(ValueError, match="scores: expected .regions, factors. of two regions or more"):
            losses.rank_disagreement(wrong, published)
