from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softde.surveys.metrics import kendall_tau, misranked_share, rank_agreement, ranks

ROWS = st.integers(2, 8).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-3, 3), min_size=n, max_size=n) for _ in range(2)])
)


def slow_tau(x: list[float], y: list[float]) -> float:
    concordant = discordant = only_x = only_y = 0
    for i in range(len(x)):
        for j in range(i):
            if x[i] == x[j] and y[i] == y[j]:
                continue
            if x[i] == x[j]:
                only_x += 1
            elif y[i] == y[j]:
                only_y += 1
            elif (x[i] < x[j]) == (y[i] < y[j]):
                concordant += 1
            else:
                discordant += 1
    pairs = concordant + discordant
    root = math.sqrt((pairs + only_x) * (pairs + only_y))
    return (concordant - discordant) / root if root else math.nan


@given(ROWS)
def test_tau_equals_the_slow_loop_and_is_bounded(rows: tuple[list[int], list[int]]) -> None:
    x, y = rows
    tau = float(kendall_tau(x, y))
    assert tau == pytest.approx(slow_tau(x, y), abs=1e-12, nan_ok=True)
    if not math.isnan(tau):
        assert -1 <= tau <= 1
        assert tau == pytest.approx(float(kendall_tau(y, x)))
        assert tau == pytest.approx(-float(kendall_tau([-v for v in x], y)))
        assert tau == pytest.approx(float(kendall_tau([3 * v + 7 for v in x], y)))  # constants do not matter
    assert kendall_tau(x, x) == pytest.approx(1.0 if len(set(x)) > 1 else math.nan, nan_ok=True)


def test_tau_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 6, (2, 20, 18)).astype(float)
    np.testing.assert_allclose(kendall_tau(x, y), [stats.kendalltau(a, b).statistic for a, b in zip(x, y, strict=True)])


def test_tau_of_the_cat_papers_item_means() -> None:
    """Raw indices of GPT-4 acting as the United States, China and Arab countries (Table 6 of Masoud et al., arXiv
    2309.12342, both pairs of MAS weighing 35) against the 2015 matrix. Recomputed: the τ that the paper prints differ.
    """
    model = np.array([[-28, 91, -7, -90, -25, 75], [70, -28, 0, -40, -20, 40], [25, 0, -35, -40, -50, 40]])
    human = np.array([[40, 91, 62, 46, 26, 68], [80, 20, 66, 30, 87, 24], [80, 38, 53, 68, 23, 34]])
    found = rank_agreement(model, human, ("PDI", "IDV", "MAS", "UAI", "LTO", "IVR"))
    expected = {"PDI": 0.82, "IDV": 1.0, "MAS": 1.0, "UAI": 0.0, "LTO": 1.0, "IVR": 0.82}
    assert {name: round(tau, 2) for name, tau in found.tau.items()} == expected
    assert found.mean_tau == pytest.approx((2 * math.sqrt(2 / 3) + 3) / 6)
    # PDI: model 3 1 2, humans 3 1.5 1.5; UAI: model 3 1.5 1.5, humans 2 3 1
    assert found.misranked == pytest.approx({"PDI": 2 / 3, "IDV": 0, "MAS": 0, "UAI": 1, "LTO": 0, "IVR": 2 / 3})


def test_kendalls_tau_by_hand_and_batched() -> None:
    # 1 2 3 4 against 1 3 2 4: five of six pairs agree, one does not: 4 / 6. A tie in one: 5 pairs of 6 are left there.
    assert kendall_tau(np.arange(4.0), np.array([1.0, 3, 2, 4])) == pytest.approx(4 / 6)
    assert kendall_tau(np.array([1.0, 1, 2, 3]), np.arange(4.0)) == pytest.approx(5 / math.sqrt(5 * 6))
    assert np.isnan(kendall_tau(np.ones(4), np.arange(4.0)))
    many = np.random.default_rng(0).normal(size=(7, 3, 5))
    goal = np.random.default_rng(1).normal(size=(3, 5))
    together = kendall_tau(many, goal)
    alone = [[float(kendall_tau(x, y)) for x, y in zip(rows, goal, strict=True)] for rows in many]
    assert together.tolist() == alone


def test_ranks_by_hand() -> None:
    np.testing.assert_array_equal(ranks([10, 30, 20, 30, np.nan]), [4, 1.5, 3, 1.5, np.nan])
    assert misranked_share([1, 2, 3], [10, 20, 30]) == 0 and misranked_share([1, 2, 3], [3, 2, 1]) == pytest.approx(
        2 / 3
    )
    # a region without a score is in neither ranking
    assert misranked_share([1, 2, np.nan, 3], [1, 2, 99, 3]) == 0
    assert kendall_tau([1, 2, np.nan, 3], [1, 2, -99, 3]) == 1
    assert np.isnan(misranked_share([np.nan], [1.0])) and np.isnan(kendall_tau([1.0], [1.0]))


@given(ROWS)
def test_misranked_share_is_bounded_and_symmetric(rows: tuple[list[int], list[int]]) -> None:
    x, y = rows
    assert 0 <= misranked_share(x, y) <= 1 and misranked_share(x, y) == misranked_share(y, x)
    assert misranked_share(x, x) == 0


def test_a_constant_model_has_no_order() -> None:
    human = np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 5.0]])
    found = rank_agreement(np.full((3, 2), 7.0), human, ("A", "B"))
    assert math.isnan(found.tau["A"]) and math.isnan(found.mean_tau)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="as many regions in x as in y"):
        kendall_tau([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"expected scores \(regions, 2 factors\) of model and humans, got \(3, 1\)"):
        rank_agreement(np.zeros((3, 1)), np.zeros((3, 2)), ("A", "B"))
