"""Screen and TwoStage: who is asked, who goes on, and nothing is asked twice."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from softde.optim import (
    CMAES,
    DE,
    PSO,
    SHADE,
    GaussNewton,
    Screen,
    Subspace,
    TwoStage,
    generations,
    generator_for,
    minimize,
    state_from_tensors,
    state_to_tensors,
)
from softde.optim.base import State, advance, describe
from tests.optim.functions import rastrigin, sphere

DIM = 6


def points(n):
    return torch.rand(n, DIM, generator=generator_for(0, 10**6)) * 6 - 3


def steps(optimizer, budget, fn=sphere, seed=3):
    return list(generations(optimizer, optimizer.init(points(optimizer.population_size)), fn, budget, seed))


def test_screen_goes_on_with_the_best_start_points_and_asks_none_twice():
    inner = DE(population_size=5, strategy="best1bin")
    run = steps(Screen(inner, starts=20), budget=20 + 5 * 6)
    ranked = sorted(points(20).tolist(), key=lambda row: sum(x * x for x in row))
    assert run[0].state.optimizer.population.tolist() == ranked[:5]
    assert [len(s.candidates) for s in run] == [20, 5, 5, 5, 5, 5, 5]
    assert run[0].info.evaluations == 20 and run[-1].info.evaluations == 50 and run[-1].info.generation == 7
    state = run[0].state.optimizer  # from there on it is the inner optimiser's own search
    for generation, step in enumerate(run[1:], start=1):
        candidates, state = inner.ask(state, generator_for(3, generation))
        assert torch.equal(step.candidates, candidates)
        state, _ = inner.tell(state, candidates, sphere(candidates))
    assert run[-1].state.best_loss == state.best_loss == min(min(s.info.losses) for s in run)


def test_screen_survives_start_points_that_cannot_be_scored():
    def fn(x):
        losses = sphere(x)
        losses[x[:, 0] > -2] = math.nan
        return losses

    run = steps(Screen(DE(population_size=5), starts=20), budget=60, fn=fn)
    assert run[0].info.nan_count > 12
    assert bool((run[0].state.optimizer.population[0, 0] <= -2).all()) and math.isfinite(run[-1].info.best)


def test_screen_bounds_only_what_the_search_bounds():
    optimizer = Screen(DE(population_size=5), starts=9)
    state = optimizer.init(points(9))
    candidates, state = optimizer.ask(state, generator_for(0, 0))
    assert optimizer.bound(state) is None  # every start point is needed for the choice
    state, _ = optimizer.tell(state, candidates, sphere(candidates))
    _, state = optimizer.ask(state, generator_for(0, 1))
    assert torch.equal(optimizer.bound(state), sphere(candidates).sort().values[:5].double())


def test_two_stages_hand_over_the_best_of_all_candidates():
    first, then = DE(population_size=12), DE(population_size=7, strategy="best1bin")
    run = steps(TwoStage(first, then, evaluations=12 * 4 + 5), budget=12 * 4 + 7 * 3, fn=rastrigin)
    assert [len(s.candidates) for s in run] == [12] * 4 + [7] * 3
    seen = torch.cat([s.candidates for s in run[:4]])
    ranked = sorted(seen.tolist(), key=lambda row: float(rastrigin(torch.tensor([row]))))
    assert run[3].state.then.population.tolist() == ranked[:7]
    assert run[-1].state.best_loss <= run[3].state.best_loss and run[-1].info.evaluations == 69
    state = run[3].state.then
    candidates, _ = then.ask(state, generator_for(3, 4))
    assert torch.equal(run[4].candidates, candidates)


def test_two_stages_bound_only_the_second():
    optimizer = TwoStage(DE(population_size=6), DE(population_size=5), evaluations=6)
    state = optimizer.init(points(6))
    for bounded in (False, True):
        candidates, state = optimizer.ask(state, generator_for(0, state.generation))
        assert (optimizer.bound(state) is not None) == bounded
        state, _ = optimizer.tell(state, candidates, sphere(candidates))


def test_a_saved_search_goes_on_in_its_second_stage():
    optimizer = Screen(TwoStage(DE(population_size=6), DE(population_size=5), evaluations=24), starts=10)
    whole = steps(optimizer, budget=80)
    for at in (0, 2, 6):
        tensors, numbers = state_to_tensors(whole[at].state)
        state = state_from_tensors(optimizer, tensors, numbers)
        rest = list(generations(optimizer, state, sphere, 80, 3))
        assert [s.info for s in rest] == [s.info for s in whole[at + 1 :]]


def test_budgets_pay_for_the_start_points():
    with pytest.raises(ValueError, match="at least the population size, which is 64, but it is 50"):
        minimize(sphere, Screen(DE(population_size=8)), points(64), budget=50)


@pytest.mark.parametrize(
    ("optimizer", "dim", "message"),
    [
        (TwoStage(DE(8), CMAES(8), 400), 3000, "at most 2,000 coordinates for a full covariance"),
        (TwoStage(DE(8), Subspace(CMAES(8), 500), 400), 100, "intrinsic_dim of at most the 100 coordinates"),
        (TwoStage(DE(8), DE(16, unit=3), 400), 100, "multiple of unit=3"),
        (Screen(CMAES(8), 64), 3000, "at most 2,000 coordinates for a full covariance"),
        (Screen(DE(8, unit=7), 64), 100, "multiple of unit=7"),
        (Screen(DE(8, bounds=([-4.0] * 7, 4.0)), 64), 2000, "one number for each of the 2000 coordinates"),
        (Subspace(CMAES(8), 2500), 3000, "at most 2,000 coordinates for a full covariance"),
        (Subspace(CMAES(8), 1), 3000, "at least 2 coordinates"),
        (Subspace(DE(8, unit=7), 20), 3000, "multiple of unit=7"),
        (Screen(TwoStage(DE(8), Subspace(DE(8, unit=7), 20), 80), 64), 3000, "multiple of unit=7"),
    ],
)
def test_what_a_search_would_refuse_later_is_refused_before_anything_is_scored(optimizer, dim, message):
    pytest.importorskip("cma")
    scored = []
    with pytest.raises(ValueError, match=message):
        minimize(lambda x: scored.append(len(x)) or sphere(x), optimizer, [0.0] * dim, 2000)
    assert not scored


@pytest.mark.parametrize(
    "optimizer",
    [
        Screen(DE(12, bounds=(-2.0, 2.0)), 64),  # start points beyond are put on them
        Screen(Subspace(DE(12, bounds=(-0.2, 0.2)), 2, starts=12), 64),  # put within where they are drawn
        Subspace(GaussNewton(SHADE(8)), 2),
    ],
)
def test_what_a_search_begins_with_counts(optimizer):
    start = 2 * torch.randn(64, 2, generator=generator_for(0, 0))
    assert minimize(sphere, optimizer, start[: optimizer.population_size], 2000).best_loss < 0.1


def beyond(x):
    """The distance to a point that lies beyond the bounds of the searches below."""
    return ((x - 2.5) ** 2).sum(dim=1)


@pytest.mark.parametrize(
    "optimizer",
    [
        Screen(DE(8, bounds=(-1.0, 1.0)), 20),
        Screen(PSO(8, bounds=(-1.0, 1.0)), 20),
        Screen(SHADE(8, bounds=((-1.0,) * DIM, 1.0)), 20),
        Screen(TwoStage(DE(8, bounds=(-1.0, 1.0)), PSO(8, bounds=(-1.0, 1.0)), 24), 20),
        Screen(Screen(DE(8, bounds=(-1.0, 1.0)), 12), 20),
    ],
)
def test_start_points_are_put_on_the_bounds_of_the_search_before_they_are_scored(optimizer):
    run = steps(optimizer, budget=200, fn=beyond)
    assert torch.equal(run[0].candidates, points(20).clamp(-1, 1))
    seen = torch.cat([step.candidates for step in run])
    assert float(seen.abs().max()) <= 1 and len(seen) > 190
    assert run[-1].state.best_loss == run[-1].info.best == float(beyond(seen).min()) < float(beyond(seen[:20]).min())


@pytest.mark.parametrize("first", [DE(8), DE(8, bounds=(-2.0, 2.0)), Screen(DE(8), 20), Subspace(DE(8), 2)])
def test_two_stages_share_their_bounds(first):
    for then in (DE(8, bounds=(-1.0, 1.0)), Screen(PSO(8, bounds=(-1.0, 1.0)), 12)):
        with pytest.raises(ValueError, match=r"two searches within the same bounds.* and \(-1.0, 1.0\); give both"):
            TwoStage(first, then, 80)
    TwoStage(first, DE(8), 80)


class Rounding:
    """An optimiser from elsewhere that asks float32 whatever it is given."""

    population_size, state_type = 12, State

    def init(self, points):
        return State(points[0].clone(), math.inf, 0, 0, False, len(points))

    def ask(self, state, generator):
        return state.best_x.float() + torch.randn(12, DIM, generator=generator), replace(state, asked=True)

    def tell(self, state, candidates, losses):
        state = advance(state, candidates, losses)
        return state, describe(state, candidates, losses, losses, improved=0)


@pytest.mark.parametrize("optimizer", [Screen(Rounding(), 64), TwoStage(Rounding(), DE(12), 60)])
def test_what_an_optimiser_within_asks_is_told_as_it_was_asked(optimizer):
    start = torch.randn(optimizer.population_size, DIM, generator=generator_for(0, 0), dtype=torch.float64)
    assert minimize(sphere, optimizer, start, 300).evaluations > 250


def test_refuses_what_cannot_work():
    with pytest.raises(ValueError, match="at least as many starts as the population has candidates, 32, but got 16"):
        Screen(DE(), starts=16)
    with pytest.raises(ValueError, match="starts: expected a whole number, got 64.5"):
        Screen(DE(), starts=64.5)
    with pytest.raises(ValueError, match="the larger of the two populations, 32, but got 20"):
        TwoStage(DE(population_size=8), DE(), evaluations=20)
