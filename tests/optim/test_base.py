"""What the record of a generation says of its population."""

from __future__ import annotations

import math

import pytest
import torch

from softde.optim import generator_for
from softde.optim.base import spread


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 2.0, 4.0, 1e3, 1e5])
def test_the_spread_is_the_one_around_the_mean_however_far_that_is(offset, dtype):
    points = torch.randn(7, 90_000, generator=generator_for(0, 0)).to(dtype) * 0.5 + offset
    expected = float(points.double().var(dim=0, correction=0).mean().sqrt())
    rounding = 3e-3 if offset == 1e5 and dtype == torch.float32 else 2e-6  # float32's means are 0.008 apart there
    assert spread(points) == pytest.approx(expected, rel=rounding)


@pytest.mark.parametrize("value", [0.0, 0.3, -1e4])
def test_equal_members_have_no_spread(value):
    assert spread(torch.full((5, 1000), value)) <= 1e-6 * abs(value)
    assert spread(torch.full((1, 3), value)) == 0.0


def test_a_member_that_ran_off_does_not_stop_the_record():
    points = torch.randn(4, 10, generator=generator_for(0, 0))
    points[1, 2] = math.inf
    assert not math.isfinite(spread(points))
    assert spread(points.nan_to_num(posinf=1e25)) > 1e20
