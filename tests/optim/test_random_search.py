"""RandomSearch: its candidates are distributed as its start points are."""

from __future__ import annotations

import math

import pytest
import torch

from softde.optim import generations, generator_for
from softde.optim.random_search import RandomSearch, recombined
from tests.optim.functions import sphere


def test_numbers_have_the_start_points_moments():
    centre, spread = torch.tensor([5.0, -2.0, 0.0]).double(), torch.tensor([0.1, 3.0, 1.0]).double()
    points = centre + spread * torch.randn(2000, 3, generator=generator_for(0, 0), dtype=torch.float64)
    _, second = generations(RandomSearch(2000), RandomSearch(2000).init(points), sphere, 4000)
    x = second.candidates
    assert bool(((x.mean(dim=0) - points.mean(dim=0)).abs() < 4 * spread / math.sqrt(2000)).all())
    assert bool(((x.std(dim=0) / points.std(dim=0) - 1).abs() < 4 / math.sqrt(4000)).all())
    z = (x - points.mean(dim=0)) / points.std(dim=0)
    assert abs(float((z**4).mean()) - 3) < 4 * math.sqrt(96 / z.numel())
    assert float((torch.corrcoef(x.T) - torch.eye(3)).abs().max()) < 4 / math.sqrt(2000)


def test_a_generation_depends_on_the_start_points_and_its_draws_only():
    points = torch.randn(6, 5, generator=generator_for(0, 0), dtype=torch.float64)
    optimizer = RandomSearch(6)
    state = list(generations(optimizer, optimizer.init(points), sphere, 60))[-1].state
    draws = optimizer.draw(state, generator_for(1, 1))
    mean = [sum(column) / 6 for column in points.T.tolist()]
    std = [
        math.sqrt(sum((x - m) ** 2 for x in column) / 5) for column, m in zip(points.T.tolist(), mean, strict=True)
    ]  # of a sample
    expected = [[m + s * z for m, s, z in zip(mean, std, row, strict=True)] for row in draws.tolist()]
    torch.testing.assert_close(optimizer.propose(state, draws), torch.tensor(expected, dtype=torch.float64))


def test_blocks_are_copied_whole():
    points = torch.arange(12.0).view(2, 6)
    picks = torch.tensor([[0, 1], [1, 0], [1, 1]])
    # Runs of four: the first run has four coordinates, the second the two that are left.
    expected = [[0, 1, 2, 3, 10, 11], [6, 7, 8, 9, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert recombined(points, picks, 4).tolist() == expected


def test_blocks_come_from_every_start_point_alike():
    n, runs = 8, 500
    points = torch.arange(n).float()[:, None].expand(n, 3 * runs)
    optimizer = RandomSearch(n, block=3)
    _, second = generations(optimizer, optimizer.init(points), sphere, 2 * n)
    blocks = second.candidates.view(n, runs, 3)
    assert bool((blocks == blocks[:, :, :1]).all())
    counts = torch.bincount(blocks[:, :, 0].long().flatten(), minlength=n).double()
    chi2 = float(((counts - runs) ** 2 / runs).sum())
    assert abs(chi2 - (n - 1)) < 4 * math.sqrt(2 * (n - 1))


def test_the_best_stays():
    optimizer = RandomSearch(10)
    results = list(generations(optimizer, optimizer.init(torch.randn(10, 4)), sphere, 1000, seed=2))
    assert results[-1].state.best_loss == min(min(result.info.losses) for result in results)
    assert bool((optimizer.bound(results[-1].state) == results[-1].state.best_loss).all())


def test_bad_settings():
    with pytest.raises(ValueError, match="population_size: expected a whole number of at least 2, got 1"):
        RandomSearch(1)
    with pytest.raises(ValueError, match="block: expected a whole number of at least 1, got 0"):
        RandomSearch(4, block=0)
