"""Start points that cover their space more evenly than independent draws do, and opposites of points.

A start population is one composition::

    points = to_normal(latin_hypercube(32, dim, generator))                 # standard normal in each coordinate
    points = to_box(sobol_points(32, dim, generator), low, high)            # uniform between bounds
    points = torch.cat([points, opposite(points, low, high)])               # twice as many, to keep the better half

References: [LHS] McKay, Beckman, Conover (1979), Technometrics 21(2), 239; [SOBOL] Owen (1998), J. Complexity 14(4),
466, on scrambling; [OBL] Rahnamayan, Tizhoosh, Salama (2008), IEEE Trans. Evolutionary Computation 12(1), 64.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.quasirandom import SobolEngine

from softde.checks import whole

SOBOL_DIM = SobolEngine.MAXDIM  # coordinates for which torch has direction numbers: 21,201


def latin_hypercube(
    n: int, dim: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "n dim"]:
    """Uniform points in (0, 1), (n, dim): in every coordinate one in each of n equal intervals [LHS].

    On the generator's device. ValueError if n or dim is no whole number of at least 1.
    """
    n, dim, device = whole(n, "n", 1), whole(dim, "dim", 1), generator.device
    rank = torch.rand((n, dim), generator=generator, dtype=torch.float64, device=device).argsort(dim=0)
    within = torch.rand((n, dim), generator=generator, dtype=torch.float64, device=device)
    return _inside((rank + within) / n, dtype)


def sobol_points(
    n: int, dim: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "n dim"]:
    """The first n points of a scrambled Sobol sequence in (0, 1), (n, dim); best with n a power of two [SOBOL].

    Direction numbers end at ``SOBOL_DIM`` coordinates. Beyond that, each further ``SOBOL_DIM`` coordinates are a
    sequence of their own, scrambled apart, with its rows in random order: even within each such part, independent
    between them. With few points the evenness is that of single coordinates, which ``latin_hypercube`` has too, in a
    hundredth of the time: scrambling 20,000 coordinates takes seconds.

    On the generator's device. ValueError if n or dim is no whole number of at least 1.
    """
    n, dim = whole(n, "n", 1), whole(dim, "dim", 1)
    parts = [_sobol(n, min(SOBOL_DIM, dim - first), generator) for first in range(0, dim, SOBOL_DIM)]
    return _inside(torch.cat(parts, dim=1).to(generator.device), dtype)


def to_normal(u: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """Standard normal from uniform points in (0, 1), by the inverse of the distribution function."""
    return math.sqrt(2) * (2 * u - 1).erfinv()


def to_box(
    u: Float[Tensor, "n dim"], low: float | Float[Tensor, " dim"], high: float | Float[Tensor, " dim"]
) -> Float[Tensor, "n dim"]:
    """Uniform between low and high, numbers or one per coordinate, from uniform points in (0, 1)."""
    return low + (high - low) * u


def opposite(
    points: Float[Tensor, "n dim"], low: float | Float[Tensor, " dim"], high: float | Float[Tensor, " dim"]
) -> Float[Tensor, "n dim"]:
    """The points on the other side of the box's centre: low + high - x ([OBL] definition 2).

    About any other centre c: ``opposite(points, c, c)``.
    """
    return low + high - points


def _sobol(n: int, dim: int, generator: torch.Generator) -> Float[Tensor, "n dim"]:
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    order = torch.randperm(n, generator=generator, device=generator.device).cpu()
    u: Tensor = SobolEngine(dim, scramble=True, seed=seed).draw(n, dtype=torch.float64)
    return u[order] + 2.0**-31  # multiples of 2**-30 from 0 up: to the middle of their cells


def _inside(u: Tensor, dtype: torch.dtype) -> Tensor:
    """In the type asked for, and not rounded to 1, whose normal would be infinite."""
    return u.to(dtype).clamp(max=1 - torch.finfo(dtype).eps)
