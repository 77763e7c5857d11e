"""Are these the same factors? Tucker's congruence, Procrustes rotation, signs and order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from softde.surveys.scoring import Array


def congruence(a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """Tucker's congruence of every factor of a (items, factors) with every factor of b: Σab / √(Σa² Σb²)."""
    first, second = (np.asarray(x, dtype=np.float64) for x in (a, b))
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise ValueError(f"congruence: expected two (items, factors) arrays, got {first.shape} and {second.shape}")
    lengths = np.sqrt((first**2).sum(axis=0))[:, None] * np.sqrt((second**2).sum(axis=0))
    if (lengths == 0).any():
        raise ValueError("congruence: a factor on which nothing loads has none; leave it out")
    return np.asarray(first.T @ second / lengths)


def procrustes(loadings: npt.ArrayLike, reference: npt.ArrayLike) -> tuple[Array, Array]:
    """The rotated loadings ΛT closest to the reference in squared error, and the orthogonal T (Schönemann 1966)."""
    given, goal = (np.asarray(x, dtype=np.float64) for x in (loadings, reference))
    if given.ndim != 2 or given.shape != goal.shape:
        raise ValueError(
            f"procrustes: expected two (items, factors) arrays of one shape, got {given.shape}, {goal.shape}"
        )
    left, _, right = np.linalg.svd(given.T @ goal)
    turn = left @ right
    return given @ turn, turn


def assignment(similar: Array) -> Array:
    """(factors, factors) signed permutation that maximises the sum of |similar| (row: own factor, column: reference).

    Exact, by dynamic programming over the set of own factors already used.
    """
    best: dict[frozenset[int], tuple[float, tuple[int, ...]]] = {frozenset(): (0.0, ())}
    for column in similar.T:
        longer: dict[frozenset[int], tuple[float, tuple[int, ...]]] = {}
        for used, (value, order) in best.items():
            for row in set(range(len(similar))) - used:
                grown = (value + abs(column[row]), (*order, row))
                longer[used | {row}] = max(longer.get(used | {row}, grown), grown)
        best = longer
    chosen = list(best[frozenset(range(len(similar)))][1])
    signs = np.where(similar[chosen, range(len(chosen))] < 0, -1.0, 1.0)
    return np.asarray(np.eye(len(chosen))[:, chosen] * signs)
