"""Search in a random subspace: the map, the start, the nested state, and what it is good for."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from softde.optim import DE, generator_for, minimize, state_from_tensors, state_to_tensors
from softde.optim.base import recommendation
from softde.optim.cmaes import CMAES
from softde.optim.projections import projection
from softde.optim.subspace import Subspace, bbt
from tests.optim.functions import sphere

pytest.importorskip("cma")

N, DIM = 12, 60
OPTIMIZERS = {
    "cma": Subspace(CMAES(N), 20),
    "cma-ipop": Subspace(CMAES(N, restarts="ipop", patience=3), 20, kind="sparse"),
    "de": Subspace(DE(N), 20, kind="fastfood"),
    "bbt": bbt(N, 20),
}
every = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


def start(dim=DIM, n=N, dtype=torch.float32):
    return torch.randn(n, dim, generator=generator_for(0, 10**6), dtype=dtype)


def saved_and_loaded(optimizer, state):
    tensors, numbers = state_to_tensors(state)
    numbers = json.loads(json.dumps(numbers, allow_nan=False))
    return state_from_tensors(optimizer, {name: tensor.clone() for name, tensor in tensors.items()}, numbers)


def walk(optimizer, fn=sphere, generations=14, reload=False, dtype=torch.float32):
    state, candidates = optimizer.init(start(n=optimizer.population_size, dtype=dtype)), []
    for generation in range(generations):
        if reload:
            state = saved_and_loaded(optimizer, state)
        asked, state = optimizer.ask(state, generator_for(2, generation))
        if reload:
            state = saved_and_loaded(optimizer, state)
        assert asked.shape == state.shape
        state, info = optimizer.tell(state, asked, fn(asked))
        candidates.append(asked)
    assert info.generation == generations and info.evaluations == sum(map(len, candidates)) == state.evaluations
    return candidates, state


@every
def test_saving_and_loading_at_every_step_changes_no_bit(optimizer):
    fn = lambda x: sphere(x).round()  # noqa: E731
    unbroken, state = walk(optimizer, fn)
    broken, loaded = walk(optimizer, fn, reload=True)
    assert all(torch.equal(a, b) for a, b in zip(unbroken, broken, strict=True))
    assert torch.equal(state.best_x, loaded.best_x) and state.evaluations == loaded.evaluations


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_candidates_lie_in_the_subspace_through_the_anchor(optimizer, dtype):
    (points, *later), state = walk(optimizer, generations=4, dtype=dtype)
    assert torch.equal(points, start(n=optimizer.population_size, dtype=dtype))
    row = int(sphere(points).argmin())
    assert torch.equal(state.anchor, points[row])
    A = projection(optimizer.kind, 20, DIM, optimizer.seed)(torch.eye(20))
    for candidates in later:
        assert candidates.dtype == dtype
        steps = (candidates - state.anchor).double()
        z = torch.linalg.lstsq(A.double().T, steps.T).solution
        assert torch.allclose(A.double().T @ z, steps.T, atol=1e-4)


def test_a_cma_begins_around_the_anchor_without_further_cost():
    optimizer = Subspace(CMAES(200, sigma=0.3), 20, starts=3)
    state = optimizer.init(start(n=3))
    asked, state = optimizer.ask(state, generator_for(0, 0))
    state, _ = optimizer.tell(state, asked, sphere(asked))
    candidates, state = optimizer.ask(state, generator_for(0, 1))
    assert len(candidates) == 200 and state.evaluations == 3
    steps = candidates - state.anchor
    assert float(steps.std()) == pytest.approx(0.3, rel=0.2) and float(steps.mean(dim=0).abs().max()) < 0.1
    assert torch.equal(optimizer.x(state.anchor, state.z), candidates)
    assert torch.allclose(optimizer.x(state.anchor, state.z[5:6]), candidates[5:6], rtol=0, atol=0)


def test_another_optimiser_begins_with_the_anchor_and_a_cloud_around_it():
    optimizer = Subspace(DE(200), 20, starts=3, start_spread=0.5, scale=2.0)
    state = optimizer.init(start(n=3))
    asked, state = optimizer.ask(state, generator_for(0, 0))
    state, _ = optimizer.tell(state, asked, sphere(asked))
    candidates, _ = optimizer.ask(state, generator_for(0, 1))
    assert torch.equal(candidates[0], state.anchor)
    assert float((candidates[1:] - state.anchor).std()) == pytest.approx(1.0, rel=0.2)


def test_black_box_tuning_starts_at_the_first_point_with_one_embedding_spread():
    optimizer = bbt(population_size=200, intrinsic_dim=20, sigma=0.2, alpha=0.5)
    state = optimizer.init(start(n=1))
    asked, state = optimizer.ask(state, generator_for(0, 0))
    state, _ = optimizer.tell(state, asked, sphere(asked))
    candidates, state = optimizer.ask(state, generator_for(0, 1))
    assert torch.equal(state.anchor, start(n=1)[0])
    assert float((candidates - state.anchor).std()) == pytest.approx(0.5, rel=0.2)
    assert float(state.z.std()) == pytest.approx(0.2, rel=0.1)
    assert bbt().population_size == 1 and bbt().optimizer.population_size == 20 and bbt().intrinsic_dim == 500
    assert bbt().optimizer.adaptation == "tpa" and bbt(intrinsic_dim=299).optimizer.adaptation == "csa"  # pycma's rule


def test_sigma_only_rescales_z_in_black_box_tuning():
    first, second = (walk(bbt(N, 20, sigma=sigma, alpha=0.5), generations=6)[0] for sigma in (1.0, 0.25))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(first, second, strict=True))


def test_the_recommended_point_is_that_of_the_inner_mean():
    optimizer = OPTIMIZERS["cma"]
    _, state = walk(optimizer)
    mean = state.optimizer.tensors["mean"].float()
    assert torch.equal(recommendation(optimizer, state), optimizer.x(state.anchor, mean[None])[0])
    searched = walk(OPTIMIZERS["de"])[1]
    assert torch.equal(recommendation(OPTIMIZERS["de"], searched), searched.best_x)
    fresh = optimizer.init(start())
    assert torch.equal(recommendation(optimizer, fresh), fresh.best_x)


def test_bounds_on_losses_are_those_of_the_inner_search():
    optimizer = OPTIMIZERS["de"]
    _, state = walk(optimizer)
    _, asked = optimizer.ask(state, generator_for(0, 0))
    assert torch.equal(optimizer.bound(asked), asked.optimizer.losses)
    assert optimizer.bound(optimizer.init(start())) is None and OPTIMIZERS["cma"].bound(asked) is None


@every
def test_start_points_that_cannot_be_scored_leave_the_first_as_anchor(optimizer):
    state = optimizer.init(start(n=optimizer.population_size))
    asked, state = optimizer.ask(state, generator_for(0, 0))
    state, info = optimizer.tell(state, asked, [math.nan] * len(asked))
    assert torch.equal(state.anchor, asked[0]) and info.nan_count == len(asked) and math.isinf(state.best_loss)
    candidates, _ = optimizer.ask(state, generator_for(0, 1))
    assert bool(candidates.isfinite().all())


def test_a_few_dimensions_that_matter_are_found_among_five_thousand():
    dim, g = 5_000, generator_for(1, 0)
    Q = torch.linalg.qr(torch.randn(dim, 10, generator=g))[0]
    y = torch.randn(10, generator=g)

    def few(x):
        return sphere(x @ Q - y)

    points = 0.3 * torch.randn(16, dim, generator=g)
    inside = minimize(few, Subspace(CMAES(16), 100), points, 1_200)
    full = minimize(few, DE(16), points, 1_200)
    assert inside.best_loss < 1e-3 < 0.03 < full.best_loss


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"intrinsic_dim": 0}, "intrinsic_dim of at least 1, but got 0"),
        ({"intrinsic_dim": 2.5}, "whole number"),
        ({"kind": "dense"}, "Unknown kind 'dense': expected one of gaussian, sparse, fastfood"),
        ({"anchor": "last"}, "Unknown anchor 'last'"),
        ({"starts": 0}, "starts of at least 1"),
        ({"scale": 0.0}, "scale, a standard deviation, above 0, but got 0.0"),
        ({"start_spread": -1.0}, "start_spread"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Subspace(CMAES(N), **arguments)


def test_refuses_more_dimensions_inside_than_outside():
    with pytest.raises(ValueError, match="at most the 60 coordinates of x, but got 61: lower it, or use CMAES without"):
        replace(OPTIMIZERS["cma"], intrinsic_dim=61).init(start())
    walk(replace(OPTIMIZERS["cma"], intrinsic_dim=60), generations=3)
