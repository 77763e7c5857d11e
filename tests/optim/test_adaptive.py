"""Adaptive DE: each step equals the slow reference, the draws have their distributions, runs agree with slow runs."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch

from softde.optim import generator_for, minimize, state_from_tensors, state_to_tensors
from softde.optim.adaptive import JADE, JDE, JSO, LSHADE, SHADE, cauchy, normal
from tests.optim import functions
from tests.optim.test_de import listed
from tests.reference import slow_adaptive, slow_de

N, DIM = 12, 6
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "adaptive.json").read_text())
OPTIMIZERS = {
    "jade": JADE(N, c=0.3, p=0.2),
    "jade-no-archive": JADE(N, r_arc=0),
    "shade": SHADE(N, H=3),
    "shade-units": SHADE(N, H=3, unit=3, bounds=(-2.0, 2.0), r_arc=0.4),
    "lshade": LSHADE(N, H=2, budget=10 * N),
    "jso": JSO(N, H=3, budget=10 * N, bounds=(-2.0, 2.0), bounds_handling="clip"),
}


def columns(tensor):
    """A memory as a list; None is the terminal value."""
    return [None if math.isnan(x) else x for x in tensor.tolist()]


def told_state(optimizer):
    points = torch.rand(N, DIM, generator=generator_for(7, 0), dtype=torch.float64) * 3 - 1
    candidates, state = optimizer.ask(optimizer.init(points), generator_for(7, 0))
    losses = (candidates**2).sum(dim=1)
    losses[2], losses[5], losses[7] = math.nan, math.inf, losses[8]
    return optimizer.tell(state, candidates, losses)[0]


# ---- one step equals the slow one, with the same draws ---------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_step_equals_the_slow_reference(name):
    optimizer, kind, archived, learnt = OPTIMIZERS[name], name.partition("-")[0], 0, 0
    state = told_state(optimizer)
    bounds = optimizer.bounds and [[side] * DIM for side in optimizer.bounds]
    for generation in range(14):
        draws = optimizer.draw(state, generator_for(1, generation))
        expected = slow_de.trials(
            state.population.tolist(), state.losses.tolist(), "currenttopbest1bin", listed(draws), bounds,
            optimizer.bounds_handling, optimizer.unit, archive=state.A.tolist(),
        )  # fmt: skip
        candidates, asked = optimizer.ask(state, generator_for(1, generation))
        torch.testing.assert_close(candidates, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14)
        archived += int((draws.donors[:, 1] >= len(state.population)).sum())

        losses = (candidates**2).sum(dim=1)
        losses[1] = math.nan if generation % 3 else state.losses[1]  # unscored, or a tie
        told, info = optimizer.tell(asked, candidates, losses)
        before, after = state.losses.tolist(), losses.tolist()
        population, kept = slow_de.select(state.population.tolist(), before, candidates.tolist(), after)
        rows = slow_adaptive.successes(before, after)
        cells = slow_adaptive.memory(
            kind, columns(state.M_F), columns(state.M_CR), state.k, draws.F.tolist(), draws.CR.tolist(), before, after,
            rows, getattr(optimizer, "c", 0.0),
        )  # fmt: skip
        assert columns(told.M_F) == pytest.approx(cells[0], rel=1e-12)
        assert columns(told.M_CR) == pytest.approx(cells[1], rel=1e-12) and told.k == cells[2]
        size = len(population)
        if kind in ("lshade", "jso"):
            size = min(size, round(N + (4 - N) * min(1.0, told.evaluations / optimizer.budget)))
            best = sorted(sorted(range(len(kept)), key=lambda i: slow_de.scored(kept[i]))[:size])
            population, kept = [population[i] for i in best], [kept[i] for i in best]
        A = slow_adaptive.archive(
            state.A.tolist(), state.population.tolist(), rows, draws.keys.tolist(), round(optimizer.r_arc * size)
        )
        assert told.population.tolist() == population and told.A.tolist() == A
        assert told.population_size == size == len(told.losses)
        assert torch.equal(told.losses.nan_to_num(-1.0), torch.tensor(kept, dtype=torch.float64).nan_to_num(-1.0))
        assert info.improved == len(rows)
        state, learnt = told, learnt + len(rows)
    assert learnt > 10 and (archived > 10) == (optimizer.r_arc > 0)
    assert len(state.population) == (4 if kind in ("lshade", "jso") else N)


def test_a_step_of_jde_equals_the_slow_reference():
    optimizer = JDE(N, tau1=0.4, tau2=0.4)
    state = told_state(optimizer)
    F, CR = [0.5] * N, [0.9] * N
    for generation in range(8):
        draws = optimizer.draw(state, generator_for(1, generation))
        expected = slow_de.trials(state.population.tolist(), state.losses.tolist(), "rand1bin", listed(draws))
        candidates, asked = optimizer.ask(state, generator_for(1, generation))
        torch.testing.assert_close(candidates, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14)
        losses = (candidates**2).sum(dim=1)
        told, _ = optimizer.tell(asked, candidates, losses)
        for i, (old, new) in enumerate(zip(state.losses.tolist(), losses.tolist(), strict=True)):
            if slow_de.scored(new) <= slow_de.scored(old):
                F[i], CR[i] = float(draws.F[i]), float(draws.CR[i])
        assert told.F.tolist() == F and told.CR.tolist() == CR
        state = told
    assert len(set(F)) > 4


def test_an_unscored_parent_gives_a_finite_weight():
    optimizer = SHADE(N, H=1)
    state = told_state(optimizer)
    candidates, asked = optimizer.ask(state, generator_for(0, 1))
    for losses in (state.losses - 1, torch.where(state.losses.isfinite(), state.losses + 1, 1e9)):
        losses = losses.where(losses.isfinite(), 3.0)
        told, info = optimizer.tell(asked, candidates, losses)
        assert info.improved and bool(told.M_F.isfinite().all()) and 0 < float(told.M_F[0]) <= 1
        assert 0 <= float(told.M_CR[0]) <= 1


def test_a_generation_without_success_teaches_nothing():
    for optimizer in (JADE(N), SHADE(N)):
        state = told_state(optimizer)
        candidates, asked = optimizer.ask(state, generator_for(0, 1))
        told, info = optimizer.tell(asked, candidates, torch.full((N,), math.nan))
        assert info.improved == 0 and torch.equal(told.M_F, state.M_F) and told.k == state.k and not len(told.A)


def test_a_crossover_rate_of_zero_is_terminal():
    optimizer = LSHADE(N, H=2, budget=1000)
    state = told_state(optimizer)
    candidates, asked = optimizer.ask(state, generator_for(0, 1))
    asked = replace(asked, CR=torch.zeros(N, dtype=torch.float64))
    state, _ = optimizer.tell(asked, candidates, torch.zeros(N))
    assert columns(state.M_CR) == [None, 0.5]
    for _ in range(2):  # round the memory and back: it stays
        candidates, asked = optimizer.ask(state, generator_for(0, 2))
        state, _ = optimizer.tell(asked, candidates, torch.full((N,), -1.0) * state.generation)
    assert columns(state.M_CR)[0] is None and columns(state.M_CR)[1] is not None
    assert normal(state.M_CR[:1].expand(50), generator_for(0, 0)).tolist() == [0.0] * 50


# ---- statistics of the draws -----------------------------------------------------------------------------------------


def test_rates_are_normal_and_cut():
    CR = normal(torch.full((40000,), 0.5, dtype=torch.float64), generator_for(0, 0))
    assert abs(float(CR.mean()) - 0.5) < 4 * 0.1 / 200 and abs(float(CR.std()) - 0.1) < 4 * 0.1 / 280
    low = normal(torch.full((40000,), 0.05, dtype=torch.float64), generator_for(0, 1))
    share = 0.5 * math.erfc(0.5 / math.sqrt(2))  # P(N(0.05, 0.1) < 0)
    assert abs(float((low == 0).double().mean()) - share) < 4 * math.sqrt(share * (1 - share) / 40000)
    assert float(low.min()) == 0 and float(normal(torch.ones(1000).double(), generator_for(0, 2)).max()) == 1


@pytest.mark.parametrize("location", [0.02, 0.5, 0.95])
def test_weights_are_cauchy_above_zero_and_cut_at_one(location):
    n = 40000
    F = cauchy(torch.full((n,), location, dtype=torch.float64), generator_for(0, 3))
    assert float(F.min()) > 0 and float(F.max()) == 1

    def distribution(x):
        return 0.5 + math.atan((x - location) / 0.1) / math.pi

    for x in (0.05, 0.3, 0.6, 0.99):
        expected = (distribution(x) - distribution(0)) / (1 - distribution(0))  # given that F > 0
        share = float(F.le(x).double().mean())
        assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / n)
    rng = np.random.default_rng(0)
    again = [slow_adaptive.positive_cauchy(rng, location) for _ in range(4000)]
    assert abs(median(again) - float(F.median())) < 0.02


def test_the_cells_of_the_memory_are_drawn_evenly():
    optimizer = SHADE(2000, H=4)
    state = optimizer.init(torch.zeros(2000, 2))
    state = replace(
        state, M_F=torch.tensor([0.2, 0.4, 0.6, 0.8]).double(), M_CR=torch.tensor([0.1, 0.35, 0.6, 0.85]).double()
    )
    drawn = optimizer.parameters(state, generator_for(0, 0))
    counts = torch.histc(drawn.CR, 4, -0.025, 0.975)
    assert float((counts - 500).abs().max()) < 100  # cells overlap a little
    assert float(torch.corrcoef(torch.stack([drawn.F, drawn.CR]))[0, 1]) > 0.5  # both come from one cell


def test_jso_takes_care_early():
    optimizer = JSO(2000, budget=100_000, H=5)
    first = optimizer.init(torch.zeros(2000, 2))
    for used, w, F, CR, elite in (
        (10_000, 0.7, 0.7, 0.7, 475),
        (30_000, 0.8, 0.7, 0.6, 425),
        (70_000, 1.2, 1.0, 0.0, 325),
    ):
        state = replace(first, evaluations=used)
        drawn = optimizer.parameters(state, generator_for(0, 0))
        assert set(drawn.w.tolist()) == {w} and float(drawn.F.max()) == F and float(drawn.CR.min()) >= CR
        assert optimizer.elite(state) == elite  # p from 0.25 to 0.125
        assert abs(float((drawn.CR > 0.8).double().mean()) - (0.8 * 0.5 + 0.2 * 0.841)) < 0.05
    assert float(optimizer.parameters(first, generator_for(0, 0)).F.min()) > 0
    late = replace(first, evaluations=90_000, M_F=torch.full((5,), 0.1).double(), M_CR=torch.zeros(5).double())
    drawn = optimizer.parameters(late, generator_for(0, 0))
    assert abs(float((drawn.CR > 0.5).double().mean()) - 0.2) < 0.04  # the last cell is 0.9 whatever is written there


def test_jde_draws_anew_at_its_rates():
    optimizer = JDE(4000)
    drawn = optimizer.parameters(optimizer.init(torch.zeros(4000, 2)), generator_for(0, 0))
    for values, old, low, high in ((drawn.F, 0.5, 0.1, 1.0), (drawn.CR, 0.9, 0.0, 1.0)):
        new = values[values != old]
        assert abs(len(new) / 4000 - 0.1) < 4 * math.sqrt(0.09 / 4000)
        assert low <= float(new.min()) and float(new.max()) <= high
        assert abs(float(new.mean()) - (low + high) / 2) < 4 * (high - low) / math.sqrt(12 * len(new))


# ---- whole runs ------------------------------------------------------------------------------------------------------


def ackley(x):
    near = (-0.2 * (x**2).mean(dim=1).sqrt()).exp()
    return 20 + math.e - 20 * near - (2 * math.pi * x).cos().mean(dim=1).exp()


FUNCTIONS = {
    "sphere": functions.sphere,
    "rosenbrock": functions.rosenbrock,
    "rastrigin": functions.rastrigin,
    "ackley": ackley,
}


def fitted(row):
    size, options = row["size"], {"p": row["p"], "r_arc": row["r_arc"]}
    bounds = (GOLDEN["settings"]["low"], GOLDEN["settings"]["high"])
    if row["kind"] == "jade":
        return JADE(size, bounds=bounds, **options)
    if row["kind"] == "shade":
        return SHADE(size, H=row["H"], bounds=bounds, **options)
    kind = {"lshade": LSHADE, "jso": JSO}[row["kind"]]
    return kind(size, H=row["H"], budget=GOLDEN["settings"]["budget"], bounds=bounds, **options)


def best(row, seed):
    settings = GOLDEN["settings"]
    shape = (row["size"], settings["dim"])
    width = settings["high"] - settings["low"]
    points = settings["low"] + width * torch.rand(shape, generator=generator_for(seed, -1), dtype=torch.float64)
    return minimize(FUNCTIONS[row["function"]], fitted(row), points, settings["budget"], seed).best_loss


def ranks_apart(ours, theirs):
    """The rank sum's distance from its mean, in standard deviations."""
    wins = sum((a < b) + 0.5 * (a == b) for a in ours for b in theirs)
    n, m = len(ours), len(theirs)
    return (wins - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)


@pytest.mark.slow
@pytest.mark.parametrize("row", GOLDEN["runs"], ids=lambda row: f"{row['kind']}-{row['function']}")
def test_runs_agree_with_slow_runs_within_their_spread(row):
    ours, theirs = sorted(best(row, seed) for seed in range(20)), sorted(row["best"])
    assert theirs[2] <= median(ours) <= theirs[17]
    assert abs(ranks_apart(ours, theirs)) < 3


# ---- state, bounds on losses, bad input ------------------------------------------------------------------------------

ALL = {**OPTIMIZERS, "jde": JDE(N), "again": SHADE(N, reevaluate=2, margin=0.1), "old": LSHADE(N, budget=99, age=2)}


@pytest.mark.parametrize("name", ALL)
def test_losses_above_the_bound_do_not_matter(name):
    optimizer, dropped = ALL[name], 0
    state = told_state(optimizer)
    for generation in range(8):
        candidates, asked = optimizer.ask(state, generator_for(4, generation))
        bound, losses = optimizer.bound(asked), (candidates**2).sum(dim=1)
        above = losses > bound
        dropped += int(above.sum())
        state, _ = optimizer.tell(asked, candidates, losses)
        told, _ = optimizer.tell(asked, candidates, torch.where(above, math.nan, losses))
        for field in fields(state):
            a, b = getattr(told, field.name), getattr(state, field.name)
            same = torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0)) if isinstance(a, torch.Tensor) else a == b
            assert same, field.name
    assert dropped


@pytest.mark.parametrize("name", ALL)
def test_saved_between_ask_and_tell_goes_on_the_same(name):
    optimizer = ALL[name]
    state = told_state(optimizer)
    for generation in range(5):
        candidates, asked = optimizer.ask(state, generator_for(4, generation))
        tensors, numbers = state_to_tensors(asked)
        loaded = state_from_tensors(optimizer, tensors, json.loads(json.dumps(numbers, allow_nan=False)))
        state, info = optimizer.tell(asked, candidates, candidates.abs().sum(dim=1))
        again, same = optimizer.tell(loaded, candidates, candidates.abs().sum(dim=1))
        assert info == same
        for field in fields(state):
            a, b = getattr(again, field.name), getattr(state, field.name)
            assert torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0)) if isinstance(a, torch.Tensor) else a == b


def test_population_archive_and_trials_are_three_populations():
    optimizer = SHADE(16, unit=64)
    candidates, state = optimizer.ask(optimizer.init(torch.rand(16, 6400)), generator_for(0, 0))
    for generation in range(4):
        state, _ = optimizer.tell(state, candidates, candidates.sum(dim=1) - generation)
        candidates, state = optimizer.ask(state, generator_for(0, generation + 1))
    assert len(state.A) == 16
    tensors = [getattr(state, field.name) for field in fields(state)]
    held = sum(t.untyped_storage().nbytes() for t in tensors if isinstance(t, torch.Tensor))
    assert held + candidates.untyped_storage().nbytes() < 3.2 * 16 * 6400 * 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JADE(2), "needs a population of at least 3"),
        (lambda: JADE(8, c=0.0), r"c, how fast the means move, in \(0, 1\], but got 0.0"),
        (lambda: JADE(8, p=1.5), r"p, the share .* in \(0, 1\], but got 1.5"),
        (lambda: SHADE(8, H=0), "H: expected a whole number of at least 1"),
        (lambda: SHADE(8, r_arc=-1), "r_arc, the archive's size per member"),
        (lambda: SHADE(8, bounds=(1.0, -1.0)), "low below high"),
        (lambda: LSHADE(8), "budget, the candidates .* which is 8, but got 0: give the budget"),
        (lambda: LSHADE(8, budget=7), "at least the population size, which is 8, but got 7"),
        (lambda: LSHADE(8, budget=99.5), "budget: expected a whole number"),
        (lambda: LSHADE(8, budget=99, N_min=3), "N_min: expected a whole number of at least 4"),
        (lambda: LSHADE(8, budget=99, N_min=9), "N_min, the smallest population, of at most population_size=8"),
        (lambda: LSHADE(8, budget=99, reevaluate=5), "at most N_min=4, but got 5"),
        (lambda: JSO(8), "budget, the candidates"),
        (lambda: JDE(3), "needs a population of at least 4"),
        (lambda: JDE(8, tau1=1.1), r"tau1, a probability, in \(0, 1\], but got 1.1"),
        (lambda: JDE(8, F_low=0.0), "F_low above 0"),
        (lambda: JDE(8, F_low=0.5, F_up=1.6), "at most 2"),
    ],
)
def test_refuses_settings_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_start_points_must_fit():
    with pytest.raises(ValueError, match="population_size=8 rows"):
        SHADE(8).init(torch.zeros(7, 3))
    with pytest.raises(ValueError, match="multiple of unit=4"):
        JSO(8, budget=99, unit=4).init(torch.zeros(8, 6))
    with pytest.raises(ValueError, match="within the bounds"):
        JADE(8, bounds=(1.0, 2.0)).init(torch.zeros(8, 6))
