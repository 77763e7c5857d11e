"""Start points: strata, evenness, moments, opposites."""

from __future__ import annotations

import math

import pytest
import torch

from softde.optim import DE, generator_for, minimize, starts
from softde.optim.starts import latin_hypercube, opposite, sobol_points, to_box, to_normal
from tests.optim import functions

both = pytest.mark.parametrize("points", [latin_hypercube, sobol_points])


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_type_range_and_seed(points, dtype):
    u = points(16, 50, generator_for(0, 0), dtype)
    assert u.shape == (16, 50) and u.dtype == dtype
    assert float(u.min()) > 0 and float(u.max()) < 1
    assert torch.equal(u, points(16, 50, generator_for(0, 0), dtype))
    assert not torch.equal(u, points(16, 50, generator_for(1, 0), dtype))
    assert bool(to_normal(u).isfinite().all())


@both
@pytest.mark.parametrize("n", [8, 32])
def test_every_coordinate_has_one_point_in_each_interval(points, n):
    u = points(n, 40, generator_for(0, 1), torch.float64)
    assert torch.equal((u * n).long().sort(dim=0).values, torch.arange(n)[:, None].expand(n, 40))


def test_latin_hypercube_pairs_are_independent_and_uniform_within_intervals():
    u = torch.stack([latin_hypercube(5, 3, generator_for(seed, 2), torch.float64) for seed in range(800)])
    within = (u * 5).frac()
    assert abs(float(within.mean()) - 0.5) < 4 / math.sqrt(12 * within.numel())
    cells = ((u[..., 0] * 5).long() * 5 + (u[..., 1] * 5).long()).flatten().bincount(minlength=25).double()
    assert float(((cells - 160) ** 2 / 160).sum()) < 16 + 4 * math.sqrt(2 * 16)  # 4 x 4 degrees of freedom


def test_sobol_points_fill_squares():
    u = sobol_points(64, 2, generator_for(0, 3), torch.float64)  # a (0, 6, 2)-net: one in each box of volume 1/64
    for rows in (2, 4, 8, 16, 32):
        boxes = (u[:, 0] * rows).long() * (64 // rows) + (u[:, 1] * (64 // rows)).long()
        assert len(boxes.unique()) == 64


def test_sobol_goes_on_beyond_its_direction_numbers(monkeypatch):
    monkeypatch.setattr(starts, "SOBOL_DIM", 6)
    u = sobol_points(256, 15, generator_for(0, 4), torch.float64)
    assert u.shape == (256, 15)
    assert torch.equal((u * 256).long().sort(dim=0).values, torch.arange(256)[:, None].expand(256, 15))
    correlation = torch.corrcoef(to_normal(u).T) - torch.eye(15)
    assert float(correlation.abs().max()) < 4.5 / 16  # coordinate k and k + 6 come from one sequence, yet are unrelated
    nets = (u[:, [0, 6]] * 16).long()
    assert len((nets[:, 0] * 16 + nets[:, 1]).unique()) < 256  # no net across the seam: they are independent


@pytest.mark.slow
def test_more_coordinates_than_torch_has_direction_numbers():
    u = sobol_points(2, starts.SOBOL_DIM + 3, generator_for(0, 5))
    assert u.shape == (2, 21204) and bool(((u < 0.5).sum(dim=0) == 1).all())


@both
def test_normal_points_have_the_moments(points):
    x = to_normal(points(64, 200, generator_for(0, 6), torch.float64))
    assert float(x.mean(dim=0).abs().max()) < 0.1  # of independent draws one in two columns would be beyond 1/8
    assert float((x.std(dim=0) - 1).abs().max()) < 0.2


def test_boxes_and_opposites():
    low, high = torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 6.0])
    u = torch.tensor([[0.0, 0.25], [1.0, 0.5]])
    points = to_box(u, low, high)
    assert points.tolist() == [[-1.0, 3.0], [1.0, 4.0]]
    assert opposite(points, low, high).tolist() == [[1.0, 5.0], [-1.0, 4.0]]
    assert torch.equal(opposite(opposite(points, low, high), low, high), points)
    assert opposite(points, 1.0, 1.0).tolist() == [[3.0, -1.0], [1.0, -2.0]]
    assert torch.equal(to_box(u, -2.0, 2.0), 4 * u - 2)


def test_they_start_a_search():
    points = to_box(sobol_points(8, 4, generator_for(0, 7)), -5.0, 5.0)
    points = torch.cat([points, opposite(points, -5.0, 5.0)])
    result = minimize(functions.sphere, DE(16, bounds=(-5.0, 5.0)), points, 800)
    assert result.best_loss < 1


@both
@pytest.mark.parametrize("arguments", [(0, 3), (3, 0), (2.5, 3), (3, "a")])
def test_refuses_what_is_no_number_of_points(points, arguments):
    with pytest.raises(ValueError, match="expected a whole number of at least 1"):
        points(*arguments, generator_for(0, 0))
