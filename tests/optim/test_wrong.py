"""What a user gets wrong with optimisers, and what once went wrong in silence."""

from __future__ import annotations

import math

import pytest
import torch

from softde.optim import DE, SHADE, Screen, StopReason, Subspace, TwoStage, choose, generator_for, minimize
from softde.optim import auto as rule
from tests.optim.functions import sphere


def points(n=32, dim=3):
    return torch.rand(n, dim, generator=generator_for(0, -1)) * 0.8 + 0.1


@pytest.mark.parametrize("bounds", [(0.0, math.inf), (-math.inf, 1.0)])
@pytest.mark.parametrize("handling", ["clip", "bounce"])
def test_a_side_may_be_without_a_bound(bounds, handling):
    result = minimize(sphere, DE(32, bounds=bounds, bounds_handling=handling), points(), 640)
    assert sum(info.nan_count for info in result.trajectory) == 0 and result.best_loss < 1e-2
    low, high = bounds
    assert bool(((result.state.population >= low) & (result.state.population <= high)).all())


@pytest.mark.parametrize("wrong", [DE, None, 3, "object"])
def test_an_optimiser_is_an_object(wrong):
    wrong = object() if wrong == "object" else wrong
    for make in (lambda: minimize(sphere, wrong, points(), 640), lambda: Subspace(wrong), lambda: Screen(wrong)):
        with pytest.raises(ValueError, match="optimizer: expected an optimiser of softde.optim, but got"):
            make()
    with pytest.raises(ValueError, match="then: expected an optimiser of softde.optim, but got"):
        TwoStage(SHADE(8), wrong, 100)


def test_one_start_point_that_cannot_be_scored_is_not_the_end():
    asked = []

    def fn(x):
        losses = sphere(x)
        losses[0] = losses[0] if asked else math.nan
        asked.append(len(x))
        return losses

    result = minimize(fn, "bbt", [1.0] * 50, 600)
    assert result.stop_reason is StopReason.BUDGET and asked[0] == 1 and math.isfinite(result.best_loss)
    never = minimize(lambda x: [math.nan] * len(x), "bbt", [1.0] * 50, 600)
    assert never.stop_reason is StopReason.UNSCORED and never.evaluations == 21


def test_numbers_are_numbers():
    for wrong in ("x", None, 1.5):
        with pytest.raises(ValueError, match="dim: expected a whole number, got"):
            choose(wrong, 100)
        with pytest.raises(ValueError, match="budget: expected a whole number, got"):
            choose(10, wrong)
    for wrong in ("x", math.nan, [1.0]):
        with pytest.raises(ValueError, match="target_loss: expected a number, got"):
            minimize(sphere, DE(32), points(), 64, target_loss=wrong)
    for wrong in ("x", None, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="min_improvement: expected a finite number from 0 up, got"):
            minimize(sphere, DE(32), points(), 64, min_improvement=wrong)
    assert minimize(sphere, DE(32), points(), 64, target_loss=-math.inf).stop_reason is StopReason.BUDGET


def test_without_cma_small_budgets_still_have_an_optimiser(monkeypatch):
    monkeypatch.setattr(rule, "find_spec", lambda name: None)
    assert minimize(sphere, choose(10, 20).optimizer, [1.0] * 10, 20).evaluations <= 20
    assert choose(10, 20).name == choose(10, 2_000).name == "shade-gn"
