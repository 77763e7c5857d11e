"""Answers that are more than one item: a first and a second choice, and the chosen part of a list."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from softde.surveys.checks import finite, need_text, unique
from softde.surveys.values import listed

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """A first and a second choice from one list as one value: post-materialism (WVS variable Y002) is such a pair.

    items : the item of the first and of the second choice; both show the same options.
    groups : option numbers from 1; where both choices lie in a group, the pair has that group's value.
    values : one per group. otherwise : the value where they lie in no group together.
    """

    id: str
    items: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    values: tuple[float, ...]
    otherwise: float
    name: str = ""

    def __post_init__(self) -> None:
        need_text(self.id, "composite: id")
        where = f"pair {self.id!r}"
        object.__setattr__(self, "items", tuple(self.items))
        object.__setattr__(self, "groups", tuple(tuple(group) for group in self.groups))
        object.__setattr__(self, "values", tuple(finite(v, f"{where}: values") for v in self.values))
        object.__setattr__(self, "otherwise", finite(self.otherwise, f"{where}: otherwise"))
        if len(self.items) != 2 or self.items[0] == self.items[1]:
            raise ValueError(f"{where}: expected two items, the first and the second choice, got {listed(self.items)}")
        if not self.groups or len(self.groups) != len(self.values):
            raise ValueError(f"{where}: {len(self.groups)} groups but {len(self.values)} values; give one per group")
        numbers = [number for group in self.groups for number in group]
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in numbers):
            raise ValueError(f"{where}: groups hold option numbers, whole and from 1 up; got {numbers}")
        unique(map(str, numbers), f"option number in the groups of {where}:")

    def table(self, options: int) -> Array:
        """(options, options): the value of first choice i and second choice j; NaN where they are the same."""
        table = np.full((options, options), self.otherwise)
        for group, value in zip(self.groups, self.values, strict=True):
            chosen = np.array(group, dtype=np.int64) - 1
            table[np.ix_(chosen, chosen)] = value
        np.fill_diagonal(table, np.nan)
        return table


@dataclass(frozen=True)
class Subset:
    """How many items of a list were chosen, less how many of those with a minus: autonomy (Y003) is such a subset.

    items : ids; "-id" counts against. Each has two options. mentioned : the number of the option that says "chosen".
    """

    id: str
    items: tuple[str, ...]
    mentioned: int = 1
    name: str = ""

    def __post_init__(self) -> None:
        need_text(self.id, "composite: id")
        where = f"subset {self.id!r}"
        object.__setattr__(self, "items", tuple(self.items))
        if not self.items:
            raise ValueError(f"{where}: expected one item or more, got none")
        unique(self.items, f"item in {where}:")
        if isinstance(self.mentioned, bool) or self.mentioned not in (1, 2):
            raise ValueError(f"{where}: mentioned: expected option number 1 or 2, got {self.mentioned!r}")


def pair_joint(first: Array, second: Array) -> Array:
    """(..., options) twice → (..., options, options): independent choices, the same one twice left out.

    NaN where nothing is left: both choices certain, and the same.
    """
    joint = first[..., :, None] * second[..., None, :] * (1 - np.eye(first.shape[-1]))
    total = joint.sum(axis=(-2, -1), keepdims=True)
    return np.divide(joint, total, out=np.full_like(joint, np.nan), where=total > 0)
