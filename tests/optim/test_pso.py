"""PSO: equal to the slow reference, draws of the right statistics, targets reached."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch

from softde.optim import base, generator_for, minimize
from softde.optim.pso import PSO, leader, uniform
from tests.optim import functions
from tests.reference import slow_pso

DIM = 11
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "peers_es.json").read_text())
PROBLEMS = [problem for problem in GOLDEN["problems"] if problem["optimizer"] == "PSO"]


def points(n, dim=DIM, dtype=torch.float64):
    return torch.rand(n, dim, generator=generator_for(7, n), dtype=dtype) * 2 - 1


def losses_of(candidates, generation):
    """A loss with ties and values that are not finite; the third generation cannot be scored at all."""
    losses = ((candidates - 0.5) ** 2).sum(dim=1).mul(4).round() / 4
    losses[generation % len(losses)] = (math.nan, math.inf, -math.inf)[generation % 3]
    return torch.full_like(losses, math.nan) if generation == 3 else losses


@pytest.mark.parametrize("bounds", [None, (-1.0, 1.1)])
@pytest.mark.parametrize("speed", [0.5, 0.0])
@pytest.mark.parametrize(("neighbourhood", "n"), [("ring", 9), ("ring", 2), ("global", 9)])
def test_steps_equal_the_slow_reference(neighbourhood, n, speed, bounds):
    optimizer = PSO(n, neighbourhood, speed=speed, bounds=bounds)
    candidates, state = optimizer.ask(optimizer.init(points(n)), generator_for(1, 0))
    losses = losses_of(candidates, 0)
    slow = slow_pso.PSO(candidates.tolist(), losses.tolist(), neighbourhood, 0.7298, 2.05, 2.05, speed, bounds)
    state, _ = optimizer.tell(state, candidates, losses)
    outside = 0
    for generation in range(1, 8):
        draws = optimizer.draw(state, generator_for(1, generation))
        expected = slow.ask(draws.words1.tolist(), draws.words2.tolist(), draws.partner.tolist())
        candidates, state = optimizer.ask(state, generator_for(1, generation))
        torch.testing.assert_close(candidates, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)
        outside += int((candidates.abs() > 1.1).sum())
        losses = losses_of(candidates, generation)
        slow.tell(losses.tolist())
        state, info = optimizer.tell(state, candidates, losses)
        torch.testing.assert_close(state.bests, torch.tensor(slow.p, dtype=torch.float64), rtol=1e-10, atol=1e-10)
        assert [slow_pso.scored(loss) for loss in state.losses.tolist()] == slow.f
        assert info.worst == max(slow.f) and info.median == median(slow.f)
    assert (outside > 0) == (bounds is None)


def test_blocks_of_rows_change_nothing(monkeypatch):
    optimizer = PSO(9)
    candidates, state = optimizer.ask(optimizer.init(points(9, dtype=torch.float32)), generator_for(0, 0))
    state, _ = optimizer.tell(state, candidates, functions.sphere(candidates))
    draws = optimizer.draw(state, generator_for(0, 1))
    whole = optimizer.propose(state, draws)
    monkeypatch.setattr(base, "BLOCK_NUMBERS", 2 * DIM)
    assert torch.equal(optimizer.propose(state, draws), whole)


def test_constriction_is_clerc_and_kennedys():
    phi = PSO().c1 + PSO().c2
    assert PSO().chi == pytest.approx(2 / (phi - 2 + math.sqrt(phi**2 - 4 * phi)), abs=5e-5)  # [CK] eq. 14, kappa = 1


def test_leaders_by_hand():
    losses = torch.tensor([5.0, 1.0, 7.0, 7.0, 2.0, math.inf])
    # 0 sees 5 and 1; 1 itself; 2 sees 1; 3 sees 4; 4 itself; 5 sees 4 and 0.
    assert leader(losses, "ring").tolist() == [1, 1, 1, 4, 4, 4]
    assert leader(losses, "global").tolist() == [1] * 6
    assert leader(torch.full((4,), math.inf), "ring").tolist() == [0, 1, 2, 3]


def test_partners_are_others_and_uniform():
    optimizer, n = PSO(6), 6
    state = replace(optimizer.init(points(n)), generation=1)
    counts = torch.zeros(n, n)
    for generation in range(1500):
        partner = optimizer.draw(state, generator_for(0, generation)).partner
        counts[torch.arange(n), partner] += 1
    assert counts.diagonal().tolist() == [0.0] * n
    expected = 1500 / (n - 1)
    others = counts[~torch.eye(n, dtype=torch.bool)]
    chi2, freedom = float(((others - expected) ** 2 / expected).sum()), n * (n - 2)
    assert abs(chi2 - freedom) < 4 * math.sqrt(2 * freedom)


def test_uniform_numbers_are_the_middles_of_equal_intervals():
    words = torch.tensor([[-(2**15), 0, 2**15 - 1]], dtype=torch.int16)
    expected = [0.5 / 2**16, (2**15 + 0.5) / 2**16, 1 - 0.5 / 2**16]
    assert uniform(words, torch.zeros(1, dtype=torch.float64))[0].tolist() == expected
    assert uniform(words, torch.zeros(1))[0].tolist() == expected  # exact in float32 too
    drawn = PSO(200).draw(PSO(200).init(points(200, 500)), generator_for(0, 0))
    for word in (drawn.words1, drawn.words2):
        u = uniform(word, torch.zeros(1, dtype=torch.float64))
        assert abs(float(u.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / u.numel())
        assert abs(float(u.var()) - 1 / 12) < 4 * math.sqrt(1 / 180 / u.numel())
    assert not torch.equal(drawn.words1, drawn.words2)


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: f"{p['ours']['neighbourhood']}-{p['function']}")
def test_reaches_the_targets_that_its_peer_reaches(problem):
    """In up to three times the evaluations: nevergrad starts from a normal distribution around the minimum, moves one
    particle at a time, and everybody follows the best of all."""
    optimizer, fn, needed = PSO(**problem["ours"], bounds=(-5.0, 5.0)), getattr(functions, problem["function"]), []
    for seed in range(7):
        start = np.random.default_rng(seed).uniform(-5, 5, (optimizer.population_size, GOLDEN["dim"]))
        result = minimize(fn, optimizer, start, GOLDEN["limit"], seed=seed, target_loss=problem["target"])
        needed.append(result.evaluations if result.best_loss <= problem["target"] else GOLDEN["limit"])
    assert median(needed) < GOLDEN["limit"] and median(needed) < 3 * median(problem["evaluations"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"population_size": 1}, "population_size: expected a whole number of at least 2, got 1"),
        ({"neighbourhood": "star"}, "Expected neighbourhood 'ring' or 'global', but got 'star'"),
        ({"chi": 0}, r"chi, the constriction factor, in \(0, 1\], but got 0"),
        ({"chi": 1.1}, r"chi, the constriction factor, in \(0, 1\], but got 1.1"),
        ({"c1": -1}, "c1 as a number of at least 0, but got -1"),
        ({"c2": math.nan}, "c2 as a number of at least 0, but got nan"),
        ({"c1": 0, "c2": 0}, "c1 or c2 above 0, but both are 0"),
        ({"speed": None}, "speed as a number of at least 0, but got None"),
        ({"bounds": (1.0, 1.0)}, r"two numbers with low below high, but got \(1.0, 1.0\)"),
        ({"bounds": (1.0,)}, r"two numbers with low below high, but got \(1.0,\)"),
    ],
)
def test_bad_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        PSO(**wrong)
    with pytest.raises(ValueError, match="within the bounds, but some lie outside"):
        PSO(4, bounds=(-0.1, 0.1)).init(points(4))
