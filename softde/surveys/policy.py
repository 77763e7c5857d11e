"""How an instrument treats a respondent (centring, answers needed), and frozen statistics of a fitted projection."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from softde.surveys.checks import finite, unique
from softde.surveys.values import listed

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scoring:
    """What happens to a respondent's answers before the factor formulas.

    centre : items whose mean, over those a respondent answered, is taken from each of that respondent's answers
        (Schwartz's MRAT); none where empty. min_valid : a respondent with fewer answered items is left out.
    """

    centre: tuple[str, ...] = ()
    min_valid: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "centre", tuple(self.centre))
        unique(self.centre, "item in scoring: centre:")
        if isinstance(self.min_valid, bool) or not isinstance(self.min_valid, int) or self.min_valid < 0:
            raise ValueError(f"scoring: min_valid: expected a whole number from 0 up, got {self.min_valid!r}")


@dataclass(frozen=True)
class Projection:
    """Standardise, project, rotate, with statistics fitted once.

    components = (x - means) / deviations · loadings · rotation. New answers are standardised with these means and
    deviations, never with their own.

    variables : ids of items and composites. means, deviations : one per variable.
    loadings : a row per variable, a column per component. rotation : components × components.
    """

    variables: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    loadings: tuple[tuple[float, ...], ...]
    rotation: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "variables", tuple(self.variables))
        unique(self.variables, "variable in the projection:")
        for name in ("means", "deviations"):
            object.__setattr__(self, name, _row(getattr(self, name), name))
        for name in ("loadings", "rotation"):
            rows = tuple(_row(row, name) for row in getattr(self, name))
            object.__setattr__(self, name, rows)
            if len({len(row) for row in rows}) != 1:
                raise ValueError(f"projection: {name}: expected rows of one length, got {[len(row) for row in rows]}")
        count = len(self.variables)
        for name in ("means", "deviations", "loadings"):
            if len(getattr(self, name)) != count:
                raise ValueError(f"projection: {name}: {len(getattr(self, name))} for {count} variables; give one each")
        flat = [v for v, deviation in zip(self.variables, self.deviations, strict=True) if deviation <= 0]
        if flat:
            raise ValueError(f"projection: deviations: expected numbers above 0, got another for {listed(flat)}")
        if len(self.rotation) != self.components or len(self.rotation[0]) != self.components:
            raise ValueError(
                f"projection: rotation: expected {self.components} × {self.components} numbers, as loadings have "
                f"{self.components} columns; got {len(self.rotation)} × {len(self.rotation[0])}"
            )

    @property
    def components(self) -> int:
        """How many components there are."""
        return len(self.loadings[0])

    @property
    def coefficients(self) -> Array:
        """(variables, components): what a standardised variable adds to each rotated component."""
        return np.array(self.loadings) @ np.array(self.rotation)


def _row(values: Iterable[float], name: str) -> tuple[float, ...]:
    return tuple(finite(value, f"projection: {name}") for value in values)
