"""Test functions of many candidates, (population, dim) -> (population,); the minimum of each is 0."""

from __future__ import annotations

import math

from torch import Tensor


def sphere(x: Tensor) -> Tensor:
    return (x**2).sum(dim=1)


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(dim=1)


def rastrigin(x: Tensor) -> Tensor:
    return (x**2 - 10 * (2 * math.pi * x).cos() + 10).sum(dim=1)
