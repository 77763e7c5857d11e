"""Gauss-Newton steps in CMA-ES: against linear algebra by another library, and what they are good for."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from softde.optim import (
    CMAES,
    DE,
    JDE,
    LSHADE,
    PSO,
    SHADE,
    GaussNewton,
    Informed,
    Scored,
    Screen,
    Subspace,
    TwoStage,
    generator_for,
    minimize,
    named,
    state_from_tensors,
    state_to_tensors,
)
from softde.optim import base as optim_base
from softde.optim.base import informed
from softde.optim.gauss_newton import AROUND_MEAN, AT_BEST, DAMPING, STEPS, WINDOW, Fit, newton_step

pytest.importorskip("cma")

N, DIM, TERMS = 16, 30, 3


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=generator_for(seed, 10**6), dtype=torch.float64)


SLOPES, TARGET = drawn(TERMS, DIM, seed=1) / DIM**0.5, drawn(TERMS, seed=2)


def linear(x):
    """Residuals (population, TERMS) of a line, in [0, 1]-like units; their sum of sizes is the loss."""
    residuals = x.double() @ SLOPES.T + TARGET
    return Scored(residuals.abs().sum(1), residuals)


def curved(x):
    """Residuals of a random network."""
    generator = generator_for(7, 10**6)
    first, second = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((40, x.shape[1]), (6, 40))
    )
    residuals = (x.double() @ first.T / x.shape[1] ** 0.5).tanh() @ second.T + 3.0
    return Scored(residuals.abs().sum(1), residuals)


def walk(optimizer, fn=linear, generations=8, reload=False):
    """Candidates of every generation; with ``reload`` saved and loaded before ask, before inform and before tell."""

    def saved(state):
        if not reload:
            return state
        tensors, numbers = state_to_tensors(state)
        numbers = json.loads(json.dumps(numbers, allow_nan=False))
        return state_from_tensors(optimizer, {name: tensor.clone() for name, tensor in tensors.items()}, numbers)

    state, candidates = optimizer.init(drawn(optimizer.population_size, DIM, seed=3).float()), []
    for generation in range(generations):
        asked, state = optimizer.ask(saved(state), generator_for(5, generation))
        scored = fn(asked)
        state = informed(optimizer, saved(state), scored.residuals)
        state, _ = optimizer.tell(saved(state), asked, scored.losses)
        candidates.append(asked)
    return candidates, state


# ---- the step --------------------------------------------------------------------------------------------------------


def slow_step(points, residuals, centre, fit, there=None):
    """The same in NumPy and in the larger matrices: ridge regression over coordinates, and a pseudo-inverse."""
    away = points - centre
    distances = np.sqrt((away**2).sum(1))
    away, residuals, distances = away[distances > 0], residuals[distances > 0], distances[distances > 0]
    radius = np.sort(distances)[(len(distances) - 1) // 2]
    weights = np.diag((radius / distances) ** (2 * fit.power))
    middle = np.zeros(away.shape[1]) if there is not None else np.diag(weights) @ away / weights.trace()
    height = there if there is not None else np.diag(weights) @ residuals / weights.trace()
    x, y = away - middle, residuals - height
    penalty = fit.ridge * (weights @ x @ x.T).trace() / len(x)
    slopes = np.linalg.inv(x.T @ weights @ x + penalty * np.eye(x.shape[1])) @ x.T @ weights @ y
    damping = DAMPING * (slopes**2).sum() / slopes.shape[1]
    step = -slopes @ np.linalg.pinv(slopes.T @ slopes + damping * np.eye(slopes.shape[1])) @ (height - middle @ slopes)
    return step * min(1.0, radius / np.linalg.norm(step))


@pytest.mark.parametrize("fit", [AROUND_MEAN, AT_BEST, Fit(1, 0.5, 0.3)])
@pytest.mark.parametrize("known", [5, 12, 64])
@pytest.mark.parametrize("at_one", [False, True])
def test_the_step_is_that_of_a_slow_ridge_regression(fit, known, at_one):
    points, residuals = drawn(known, DIM, seed=4), drawn(known, TERMS, seed=5)
    centre, there = (points[2], residuals[2]) if at_one else (drawn(DIM, seed=6), None)
    step = newton_step(points, residuals, centre, fit, there)
    expected = slow_step(
        points.numpy(), residuals.numpy(), centre.numpy(), fit, None if there is None else there.numpy()
    )
    assert step is not None and np.allclose(step.numpy(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("known", [3, 12, 65])
@pytest.mark.parametrize("per_block", [1, 2, 7, 10_000])
def test_the_step_is_the_same_from_any_type_and_a_few_points_at_a_time(known, per_block, monkeypatch):
    points, residuals = drawn(known, DIM, seed=4).float(), drawn(known, TERMS, seed=5)
    arguments = [(points.mean(0).double(), AROUND_MEAN), (points[2].double(), AT_BEST, residuals[2])]
    expected = [newton_step(points.double(), residuals, *rest) for rest in arguments]
    before = points.clone()
    monkeypatch.setattr(optim_base, "BLOCK_NUMBERS", per_block * DIM)
    for step, rest in zip(expected, arguments, strict=True):
        assert step is not None and torch.equal(newton_step(points, residuals, *rest), step)
    assert torch.equal(points, before)


def test_of_linear_residuals_one_step_is_the_shortest_way_to_zero():
    points = 10 * drawn(DIM + 5, DIM)
    exact = Fit(1, 1e-13, 0.0)
    for centre, there in ((points.mean(0), None), (points[3], linear(points[3:4]).residuals[0])):
        step = newton_step(points, linear(points).residuals, centre, exact, there)
        residual = linear(centre[None]).residuals[0]
        shortest = -np.linalg.pinv(SLOPES.numpy()) @ residual.numpy()
        off = np.linalg.norm(step.numpy() - shortest) / np.linalg.norm(shortest)
        assert off < 5e-3  # as far as the damping lets it
        assert float(linear((centre + step)[None]).losses) < 5e-3 * float(linear(centre[None]).losses)


def test_a_step_stays_among_the_points():
    points, centre = drawn(9, DIM), torch.zeros(DIM, dtype=torch.float64)
    far = 1e6 * linear(points).residuals + 1e9
    step = newton_step(points, far, centre, AROUND_MEAN)
    assert float(step.norm()) == pytest.approx(float(points.norm(dim=1).median()))


def test_no_step_where_nothing_is_known():
    points, centre = drawn(9, DIM), torch.zeros(DIM, dtype=torch.float64)
    assert newton_step(points, torch.ones(9, TERMS).double(), centre, AROUND_MEAN) is None  # level
    assert newton_step(points, torch.zeros(9, TERMS).double(), centre, AT_BEST, torch.zeros(TERMS).double()) is None
    assert newton_step(points[:1], drawn(1, TERMS), centre, AROUND_MEAN) is None
    assert newton_step(centre.expand(9, -1), drawn(9, TERMS), centre, AROUND_MEAN) is None  # all in one place
    for place in (1.0, 1e-9, 1e9):
        assert newton_step((centre + place).expand(9, -1), drawn(9, TERMS), centre, AROUND_MEAN) is None


def test_a_search_that_has_ended_goes_on():
    def corner(x):
        residuals = x.double() - 5.3
        return Scored(residuals.abs().sum(1), residuals)

    assert minimize(corner, "cma-gn", [5.0, 5.0], 2_500).evaluations == 2_500 - 2_500 % 16  # all of them one float32


# ---- the search ------------------------------------------------------------------------------------------------------


def test_without_residuals_it_is_cma_number_for_number():
    plain = lambda x: Scored(linear(x).losses, None)  # noqa: E731
    for mine, theirs in ((GaussNewton(CMAES(N)), CMAES(N)),
                         (Subspace(GaussNewton(CMAES(N)), 9), Subspace(CMAES(N), 9))):  # fmt: skip
        (candidates, state), (expected, other) = walk(mine, plain), walk(theirs, plain)
        assert all(torch.equal(a, b) for a, b in zip(candidates, expected, strict=True))
        assert torch.equal(state.best_x, other.best_x) and state.evaluations == other.evaluations


@pytest.mark.parametrize(("n", "steps"), [(4, 1), (8, 2), (12, STEPS), (N, STEPS), (40, STEPS)])
def test_the_last_candidates_are_the_steps(n, steps):
    optimizer = GaussNewton(CMAES(n))
    state = optimizer.around(torch.zeros(DIM))
    asked, state = optimizer.ask(state, generator_for(0, 0))
    theirs, _ = CMAES(n).ask(CMAES(n).around(torch.zeros(DIM)), generator_for(0, 0))
    assert torch.equal(asked, theirs)  # nothing is known yet
    scored = linear(asked)
    state, _ = optimizer.tell(optimizer.inform(state, scored.residuals), asked, scored.losses)
    whole, best = steps_by_hand(asked, scored, optimizer.recommend(state))
    mean = optimizer.recommend(state).double()
    expected = {1: [whole], 2: [whole, best], 3: [whole, mean + (whole - mean) / 2, best]}[steps]
    again, _ = optimizer.ask(state, generator_for(0, 1))
    inner, _ = optimizer.optimizer.ask(state.optimizer, generator_for(0, 1))
    assert torch.allclose(again[-steps:], torch.stack(expected).float(), rtol=1e-6, atol=1e-6)
    assert torch.equal(again[:-steps], inner[:-steps])


def steps_by_hand(asked, scored, mean):
    """Where the steps of one generation lead."""
    points, best = asked.double(), int(scored.losses.argmin())
    mean = mean.double()
    first = newton_step(points, scored.residuals, mean, AROUND_MEAN)
    last = newton_step(points, scored.residuals, points[best], AT_BEST, scored.residuals[best])
    return mean + first, points[best] + last


@pytest.mark.parametrize("inner", [SHADE(8), LSHADE(8, budget=400), JDE(8), DE(8, "best1bin"), DE(8, unit=5)])
def test_steps_among_the_trials_of_de(inner):
    optimizer, start = GaussNewton(inner), drawn(8, DIM, seed=3).float()
    asked, state = optimizer.ask(optimizer.init(start), generator_for(0, 0))
    scored = linear(asked)
    state, _ = optimizer.tell(optimizer.inform(state, scored.residuals), asked, scored.losses)
    trials, _ = inner.ask(state.optimizer, generator_for(0, 1))
    asked_again, waiting = optimizer.ask(state, generator_for(0, 1))
    expected = torch.stack(steps_by_hand(asked, scored, start.mean(0)))
    assert torch.equal(asked_again[:-2], trials[:-2])
    assert torch.allclose(asked_again[-2:], expected.float(), rtol=1e-6, atol=1e-6)
    scored = linear(asked_again)
    state, _ = optimizer.tell(waiting, asked_again, scored.losses)
    for row in (6, 7):  # a step that is better than its parent takes its place
        won = bool(scored.losses[row] < linear(start[row : row + 1]).losses)
        assert torch.equal(state.optimizer.population[row], asked_again[row] if won else start[row])


def test_it_remembers_the_latest_candidates_and_the_best_of_all():
    optimizer = GaussNewton(CMAES(N))
    state, told = optimizer.around(torch.zeros(DIM)), []
    for generation in range(WINDOW + 3):
        asked, state = optimizer.ask(state, generator_for(0, generation))
        residuals = linear(asked).residuals
        losses = torch.arange(N).double() + 1 + generation  # never as good again as the first ever
        state, _ = optimizer.tell(optimizer.inform(state, residuals), asked, losses)
        told.append(asked)
    everything = torch.cat(told)
    assert torch.equal(state.points, torch.cat([everything[:1], everything[-WINDOW * N + 1 :]]))
    assert state.losses[0] == 1.0 and len(state.residuals) == WINDOW * N


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("inner", [SHADE(8), CMAES(8)])
def test_points_are_kept_in_the_type_of_the_population(inner, dtype):
    optimizer = GaussNewton(inner)
    state = optimizer.init(drawn(8, DIM, seed=3).to(dtype))
    for generation in range(WINDOW + 2):
        assert state.points.dtype == dtype
        asked, state = optimizer.ask(state, generator_for(0, generation))
        scored = linear(asked)
        state, _ = optimizer.tell(optimizer.inform(state, scored.residuals), asked, scored.losses)
    assert len(state.points) == 8 * WINDOW and state.residuals.dtype == state.losses.dtype == torch.float64


def test_a_state_saved_with_points_in_float64_goes_on_as_it_would_have():
    optimizer = GaussNewton(SHADE(8))
    _, state = walk(optimizer, curved, 6)
    tensors, numbers = state_to_tensors(replace(state, points=state.points.double()))
    loaded = state_from_tensors(optimizer, tensors, numbers)
    for generation in range(6, 9):
        (asked, state), (again, loaded) = (
            optimizer.ask(each, generator_for(5, generation)) for each in (state, loaded)
        )
        assert torch.equal(asked, again)
        scored = curved(asked)
        state, loaded = (
            optimizer.tell(optimizer.inform(each, scored.residuals), asked, scored.losses)[0]
            for each in (state, loaded)
        )
        assert loaded.points.dtype == torch.float32 and torch.equal(state.points, loaded.points)


def test_candidates_without_residuals_or_losses_are_no_points():
    optimizer = GaussNewton(CMAES(N))
    asked, state = optimizer.ask(optimizer.around(torch.zeros(DIM)), generator_for(0, 0))
    losses, residuals = linear(asked)
    losses[1], residuals[4, 2], residuals[5, 0] = np.nan, np.nan, np.inf
    state, info = optimizer.tell(optimizer.inform(state, residuals), asked, losses)
    kept = [i for i in range(N) if i not in (1, 4, 5)]
    assert torch.equal(state.points, asked[kept]) and info.nan_count == 1
    asked, state = optimizer.ask(state, generator_for(0, 1))
    state, _ = optimizer.tell(optimizer.inform(state, torch.full((N, TERMS), np.nan)), asked, linear(asked).losses)
    assert len(state.points) == len(kept)
    asked, state = optimizer.ask(state, generator_for(0, 2))
    state, _ = optimizer.tell(state, asked, linear(asked).losses)  # nothing said this time: what was is forgotten
    assert not len(state.points) and bool(asked.isfinite().all())
    theirs, _ = optimizer.optimizer.ask(state.optimizer, generator_for(0, 3))
    assert torch.equal(optimizer.ask(state, generator_for(0, 3))[0], theirs)


def test_what_is_told_is_copied():
    optimizer = GaussNewton(CMAES(N))
    _, state = optimizer.ask(optimizer.around(torch.zeros(DIM)), generator_for(0, 0))
    residuals = drawn(N, TERMS)
    state, before = optimizer.inform(state, residuals), residuals.clone()
    residuals.zero_()
    assert torch.equal(state.pending, before)


def two_valleys(x):
    """A shallow one around 3, where residuals point to a loss of 1, and the one around -3."""
    x = x.double()
    shallow, deep = (x - 3).square().mean(1) + 1, (x + 3).square().mean(1)
    first = torch.where(shallow < deep, shallow, deep)
    residuals = torch.stack([first, torch.where(shallow < deep, x[:, 0] - 3, x[:, 0] + 3)], dim=1)
    return Scored(residuals.abs().sum(1), residuals)


def test_a_restart_is_left_alone():
    points = 3 + drawn(8, 6).float() / 2
    points[1:4] -= 6  # where the restarts begin
    points[1:4, 0] -= 6  # worse at first
    optimizer = GaussNewton(CMAES(8, restarts="ipop", patience=8, start="first"))
    found = minimize(two_valleys, optimizer, points, 3_000)
    assert found.state.optimizer.runs > 0 and found.best_loss < 0.1


def test_a_restart_begins_with_nothing_known():
    optimizer = GaussNewton(CMAES(N, restarts="ipop", patience=2))
    state = optimizer.init(drawn(N, DIM, seed=3).float())
    for generation in range(60):
        asked, state = optimizer.ask(state, generator_for(5, generation))
        state, _ = optimizer.tell(optimizer.inform(state, linear(asked).residuals), asked, torch.ones(len(asked)))
        if state.optimizer.runs:
            break
    assert state.optimizer.runs == 1 and not len(state.points) and len(state.residuals) == len(state.losses) == 0
    theirs, _ = optimizer.optimizer.ask(state.optimizer, generator_for(5, 99))
    assert torch.equal(optimizer.ask(state, generator_for(5, 99))[0], theirs)


@pytest.mark.parametrize(
    "optimizer",
    [GaussNewton(CMAES(N)), Subspace(GaussNewton(CMAES(N)), 12), Screen(GaussNewton(CMAES(N)), 20),
     TwoStage(DE(N), GaussNewton(CMAES(N)), 3 * N), GaussNewton(CMAES(N, restarts="ipop", patience=2)),
     GaussNewton(SHADE(8)), Screen(GaussNewton(LSHADE(12, budget=100)), 20),
     GaussNewton(CMAES(N, covariance="vkd")), GaussNewton(CMAES(N, covariance="diagonal"))],
)  # fmt: skip
def test_saving_and_loading_at_every_step_changes_no_bit(optimizer):
    unbroken, state = walk(optimizer, curved, 12)
    broken, loaded = walk(optimizer, curved, 12, reload=True)
    assert all(torch.equal(a, b) for a, b in zip(unbroken, broken, strict=True))
    assert torch.equal(state.best_x, loaded.best_x)
    silent, _ = walk(optimizer, lambda x: Scored(curved(x).losses, None), 12)
    assert not all(torch.equal(a, b) for a, b in zip(unbroken, silent, strict=False))  # it was used


def test_residuals_save_most_of_the_candidates():
    for name, seed in (("cma-gn", 0), ("cma-gn", 1), ("cma-gn", 2), ("shade-gn", 0), ("shade-gn", 1)):
        found = minimize(curved, name, [0.0] * 1_000, 320, seed)
        without = minimize(lambda x: curved(x).losses, name, [0.0] * 1_000, 320, seed)
        assert found.best_loss < 1e-3 < 0.01 * without.best_loss


def test_a_named_one():
    assert named("cma-gn", 1_000, 2_000) == Subspace(GaussNewton(CMAES(16)), 200, starts=64)
    assert named("shade-gn", 1_000, 2_000) == Screen(GaussNewton(SHADE(8)), 64)
    assert named("cma-gn", 30, 200, population=8) == Screen(GaussNewton(CMAES(8)), 20)
    assert isinstance(named("cma-gn", 1_000, 2_000), Informed) and not isinstance(CMAES(16), Informed)


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_refuses():
    with pytest.raises(
        ValueError, match="optimizer: expected a CMAES or one of the DE family, got PSO; CMAES\\(16\\) is one"
    ):
        GaussNewton(PSO(16))  # type: ignore[arg-type]
    for inner in (DE(8, bounds=(-1.0, 1.0)), SHADE(8, reevaluate=1)):
        with pytest.raises(ValueError, match="Gauss-Newton steps know no bounds and no re-evaluation; leave both out"):
            GaussNewton(inner)
    with pytest.raises(ValueError, match="SHADE begins with start points, not around one; call init"):
        GaussNewton(SHADE(8)).around(torch.zeros(DIM))
    optimizer = GaussNewton(CMAES(N))
    state = optimizer.around(torch.zeros(DIM))
    with pytest.raises(ValueError, match="inform came before ask"):
        optimizer.inform(state, torch.zeros(N, TERMS))
    _, state = optimizer.ask(state, generator_for(0, 0))
    for wrong in (torch.zeros(N), torch.zeros(N - 1, TERMS), torch.zeros(N, 0), torch.zeros(N, 2, 2)):
        with pytest.raises(ValueError, match=f"Expected the residuals of each candidate, shape \\({N}, residuals\\)"):
            optimizer.inform(state, wrong)
    for outer in (Screen(optimizer, N), Subspace(optimizer, DIM)):
        _, first = outer.ask(outer.init(drawn(N, DIM).float()), generator_for(0, 0))
        with pytest.raises(ValueError, match="Expected the residuals of each candidate"):
            outer.inform(first, torch.zeros(N))
    with pytest.raises(ValueError, match="Expected residuals as a tensor, array or list of numbers, but got str"):
        optimizer.inform(state, "no")
    asked, state = optimizer.ask(optimizer.around(torch.zeros(DIM)), generator_for(0, 0))
    scored = linear(asked)
    state, _ = optimizer.tell(optimizer.inform(state, scored.residuals), asked, scored.losses)
    _, state = optimizer.ask(state, generator_for(0, 1))
    with pytest.raises(ValueError, match=f"Expected {TERMS} residuals of each candidate, as before, but got 2"):
        optimizer.inform(state, torch.zeros(N, 2))
