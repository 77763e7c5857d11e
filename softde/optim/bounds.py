"""Bounds (low, high) on coordinates, each a number or one number for each coordinate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from softde.checks import plain_number

Bound = float | Sequence[float]
Bounds = tuple[Bound, Bound]


def as_bounds(bounds: Any) -> Bounds | None:
    """(low, high), each a number or a tuple of numbers, as Python's own; None for anything else."""
    try:
        low, high = map(_as_bound, bounds)
    except (TypeError, ValueError):
        return None
    return low, high


def _as_bound(bound: Any) -> Bound:
    found = plain_number(bound)
    if found is not None:
        return float(found)
    each = [plain_number(x) for x in bound]
    if None in each:
        raise ValueError
    return tuple(float(x) for x in each if x is not None)


def sides(bounds: Bounds | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """Low and high as tensors beside the points (n, dim); infinite without bounds. Refuses those of another length."""
    low, high = (torch.as_tensor(b, dtype=like.dtype, device=like.device) for b in bounds or (-math.inf, math.inf))
    for bound in (low, high):
        if bound.ndim and len(bound) != like.shape[1]:
            raise ValueError(
                f"Expected bounds that are numbers or have one number for each of the {like.shape[1]} coordinates, but "
                f"got {len(bound)}: give points and bounds of the same dimension."
            )
    return low, high


def check_within(points: Float[Tensor, "points dim"], bounds: Bounds | None) -> None:
    """Refuse start points beyond the bounds."""
    low, high = sides(bounds, points)
    if bool((points.amin(dim=0) < low).any() or (points.amax(dim=0) > high).any()):
        raise ValueError(
            "Expected start points within the bounds, but some lie outside: clamp them or widen the bounds."
        )


def bounds_of(optimizer: object) -> Any:
    """The bounds of an optimiser that has some, or None."""
    return getattr(optimizer, "bounds", None)


def within_bounds(points: Float[Tensor, "points dim"], optimizer: object) -> Float[Tensor, "points dim"]:
    """Points, put on the bounds of an optimiser that has some where they lie beyond."""
    bounds = bounds_of(optimizer)
    return points if bounds is None else points.clamp(*sides(bounds, points))
