"""Optimisers by name, and the one that "auto" takes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from softde.optim import (
    CMAES,
    DE,
    JADE,
    LSHADE,
    SHADE,
    Choice,
    OnePlusOneES,
    Screen,
    Subspace,
    TwoStage,
    auto,
    bbt,
    choose,
    generations,
    generator_for,
    minimize,
    named,
)
from softde.optim.auto import Row
from softde.optim.base import settings
from softde.optim.named import BY_NAME, INTRINSIC_DIM, NAMES, STARTS
from tests.optim.functions import sphere

pytest.importorskip("cma")

every = pytest.mark.parametrize("name", BY_NAME)


def two_generations(optimizer, dim):
    """The first generation scores the start points, the second is what the search asks."""
    points = torch.randn(optimizer.population_size, dim, generator=generator_for(0, 10**6))
    steps = []
    for step in generations(optimizer, optimizer.init(points), sphere, 10**6):
        steps.append(step)
        if len(steps) == 2:
            return steps
    raise AssertionError


# ---- named -----------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("dim", [2, 3, INTRINSIC_DIM, INTRINSIC_DIM + 1])
@pytest.mark.parametrize("budget", [200, 2_000])
def test_every_name_searches_in_any_dimension(name, dim, budget):
    optimizer = named(name, dim, budget)
    first, second = two_generations(optimizer, dim)
    assert len(first.candidates) == optimizer.population_size <= budget
    assert second.candidates.shape[1] == dim and bool(second.candidates.isfinite().all())
    assert second.state.best_loss <= first.state.best_loss


@every
def test_one_number_is_searched_or_refused(name):
    optimizer = named(name, 1, 200)
    if name in auto.NEED_CMA:
        with pytest.raises(ValueError, match="at least 2 coordinates for CMAES, but got 1: choose another optimiser"):
            two_generations(optimizer, 1)
    else:
        two_generations(optimizer, 1)


@every
def test_a_population_of_ones_own(name):
    optimizer = named(name, 300, 2_000, population=10)
    _, second = two_generations(optimizer, 300)
    assert len(second.candidates) == (1 if name == "1+1" else 10)
    if name == "1+1":
        assert isinstance(optimizer, OnePlusOneES) and optimizer.population_size == 10


@pytest.mark.parametrize(("budget", "starts"), [(200, 20), (639, 63), (640, 64), (20_000, STARTS)])
def test_a_tenth_of_the_budget_goes_into_start_points(budget, starts):
    assert named("shade", 10, budget) == Screen(SHADE(8), starts)
    assert named("cma", INTRINSIC_DIM, budget) == Screen(CMAES(16), starts)
    assert named("cma", INTRINSIC_DIM + 1, budget) == Subspace(CMAES(16), INTRINSIC_DIM, starts=starts)


def test_small_budgets_leave_no_choice_of_start_points():
    assert named("shade", 10, 80) == named("shade", 10, 20) == SHADE(8)
    assert named("cma", 1_000, 20) == Subspace(CMAES(16), INTRINSIC_DIM, starts=16)
    assert named("shade", 10, 900, population=80) == SHADE(80)


def test_settings_that_follow_the_task():
    assert named("lshade", 10, 500) == LSHADE(32, budget=500)
    assert named("bbt", 10, 500) == bbt(20, 10) and named("bbt", 10_000, 500) == bbt(20, 500)
    assert named("jade", 10, 500, population=12) == JADE(12)


@every
def test_a_budget_below_the_start_points_is_refused(name):
    need = 1 if name == "bbt" else named(name, 10, 40).population_size
    with pytest.raises(ValueError, match="udget"):
        minimize(sphere, name, [1.0] * 10, need - 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nelder-mead", 10, 100), "optimizer: expected one of auto, de, jde, .* got 'nelder-mead'"),
        (("auto", 10, 100), "optimizer: expected one of .* got 'auto'"),
        (("de", 0, 100), "dim: expected a whole number of at least 1, got 0"),
        (("de", 10, 0.5), "budget: expected a whole number"),
        (("de", 10, 100, 0), "population: expected a whole number of at least 1, got 0"),
        (("de", 10, 100, 2.5), "population: expected a whole number"),
        (("de", 10, 100, 2), "population_size is 2: raise it to"),
        (("es", 10, 100, 7), "even number"),
        (("cma", 10, 100, 3), "at least 4"),
        (("lshade", 10, 20), "budget, .* which is 32, but got 20"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        named(*arguments)


# ---- auto ------------------------------------------------------------------------------------------------------------

ROWS = (
    Row("smooth", 500, "shade"), Row("smooth", 5_000, "cma"), Row("coarse", 5_000, "1+1"), Row("noisy", 5_000, "es"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("budget", "readout", "name"),
    [
        (499, "smooth", "shade"), (500, "smooth", "shade"), (501, "smooth", "cma"), (5_000, "smooth", "cma"),
        (10**6, "smooth", "cma"), (500, "coarse", "1+1"), (10**6, "noisy", "es"),
    ],
)  # fmt: skip
def test_the_row_of_the_read_out_and_the_budget(monkeypatch, budget, readout, name):
    monkeypatch.setattr(auto, "TABLE", ROWS)
    choice = choose(1_000, budget, readout)
    assert isinstance(choice, Choice) and choice.name == name and choice.optimizer == named(name, 1_000, budget)
    assert choice.why == f"auto chose {name} for 1,000 numbers, {budget:,} candidates and a {readout} read-out"
    assert choose(1_000, budget, readout, 8).optimizer == named(name, 1_000, budget, 8)


def test_the_table_names_optimisers_for_every_read_out():
    assert {row.readout for row in auto.TABLE} == {"smooth", "coarse", "noisy"}
    for readout in ("smooth", "coarse", "noisy"):
        rows = [row for row in auto.TABLE if row.readout == readout]
        assert [row.budget for row in rows] == sorted(row.budget for row in rows)  # the first that fits is taken
        for budget in (40, 300, 2_000, 10**6):
            choice = choose(5_000, budget, readout)
            two_generations(choice.optimizer, 5_000)
            assert choice.optimizer.population_size <= budget
    assert {row.name for row in auto.TABLE} | {auto.WITHOUT_CMA} <= set(NAMES) - {"auto"}


@pytest.mark.parametrize("name", ["cma", "cma-diagonal", "bbt"])
def test_without_the_package_another_is_taken_and_it_says_so(monkeypatch, name):
    monkeypatch.setattr(auto, "TABLE", (Row("noisy", 5_000, name),))
    assert choose(1_000, 500, "noisy").name == name
    monkeypatch.setattr(auto, "find_spec", lambda package: None if package == "cma" else object())
    choice = choose(1_000, 500, "noisy")
    assert choice.name == "shade-gn" and choice.optimizer == named("shade-gn", 1_000, 500)
    assert choice.why.endswith(f"a noisy read-out; {name} won, but needs pip install cma")
    monkeypatch.setattr(auto, "TABLE", (Row("noisy", 5_000, "shade"),))
    assert choose(1_000, 500, "noisy").name == "shade"


def test_one_number_is_too_few_for_a_covariance(monkeypatch):
    monkeypatch.setattr(auto, "TABLE", (Row("smooth", 5_000, "cma"),))
    choice = choose(1, 500)
    assert choice.name == "shade-gn" and choice.why.endswith("; cma won, but needs two numbers")
    assert minimize(sphere, "auto", [5.0], 500).best_loss < 1e-3


def test_an_unknown_read_out():
    for wrong in ("rough", None, 3):
        with pytest.raises(ValueError, match=f"readout: expected 'smooth', 'coarse' or 'noisy', got {wrong!r}"):
            choose(100, 500, wrong)


# ---- settings --------------------------------------------------------------------------------------------------------


@every
def test_settings_are_plain_and_whole(name):
    optimizer = named(name, 300, 2_000)
    values = settings(optimizer)
    assert values["name"] == type(optimizer).__name__
    assert json.loads(json.dumps(values, allow_nan=False)).keys() == values.keys()
    assert values != settings(replace(optimizer, **changed(optimizer)))


def changed(optimizer):
    """One setting, in the innermost optimiser."""
    inner = getattr(optimizer, "optimizer", None)
    if inner is None:
        return {"population_size": optimizer.population_size + 2}
    return {"optimizer": replace(inner, **changed(inner))}


def test_settings_name_the_optimisers_within():
    optimizer = Screen(TwoStage(DE(8, F=(0.4, 0.9)), Subspace(CMAES(6), 4), evaluations=40), starts=20)
    values = json.loads(json.dumps(settings(optimizer), allow_nan=False))
    assert values["name"] == "Screen" and values["starts"] == 20
    stages = values["optimizer"]
    assert stages["name"] == "TwoStage" and stages["evaluations"] == 40
    assert stages["first"]["name"] == "DE" and stages["first"]["F"] == [0.4, 0.9]
    assert stages["then"]["name"] == "Subspace" and stages["then"]["optimizer"]["name"] == "CMAES"
    assert stages["then"]["optimizer"]["population_size"] == 6
