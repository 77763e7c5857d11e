"""Published factor scores as a target, with the norm of its loss."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from softde.surveys import losses
from softde.surveys.published import Target
from softde.surveys.scoring import Array, by_factor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from softde.surveys.survey import Survey
    from softde.surveys.targets import SumTarget

DELTA = 10.0  # score points up to which a Huber loss is quadratic


class Addable:
    """Targets add up: ``0.5 * shares + scores``."""

    def __add__(self: Any, other: Any) -> SumTarget:
        from softde.surveys.targets import SumTarget, summands

        return SumTarget((*summands(self), *summands(other)))

    def __rmul__(self: Any, weight: float) -> SumTarget:
        from softde.surveys.targets import SumTarget, summands

        return SumTarget(tuple((float(weight) * w, part) for w, part in summands(self)))

    __mul__ = __rmul__


@dataclass(frozen=True)
class ScoresTarget(Addable):
    """Published factor scores: a `Target` with its norm.

    norm : "L1" is Σ w|e| (Masoud et al., arXiv 2503.16094), "L2" is √(Σ w e²), "huber" Σ w·huber(e), quadratic up to
    delta score points and a line beyond, so that one factor far off does not rule the search.
    weights : one non-negative number per factor.
    """

    target: Target
    norm: str = "L1"
    weights: tuple[float, ...] | None = None
    delta: float = DELTA

    kind: ClassVar[str] = "scores"
    held_out_target: ClassVar[None] = None

    def __post_init__(self) -> None:
        if self.norm not in ("L1", "L2", "huber"):
            raise ValueError(f"norm: expected 'L1', 'L2' or 'huber', got {self.norm!r}")
        delta: Any = self.delta
        if not isinstance(delta, Real) or not float(delta) > 0:
            raise ValueError(f"delta: expected a number of score points above 0, got {self.delta!r}")
        if self.norm != "huber" and self.delta != DELTA:
            raise ValueError(f"delta: only norm 'huber' has one, not {self.norm!r}; leave it out")
        given = by_factor(1.0 if self.weights is None else self.weights, self.target.factors, "weights")
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(given.tolist()))
        check_weights(given, "weights")

    @property
    def region(self) -> str:
        return self.target.region

    @property
    def edition(self) -> str:
        return self.target.edition

    @property
    def source(self) -> str:
        return self.target.source

    @property
    def terms(self) -> tuple[str, ...]:
        return self.target.factors

    @property
    def smooth(self) -> bool:
        return True

    @cached_property
    def _weights(self) -> Array:
        return by_factor(1.0 if self.weights is None else self.weights, self.target.factors, "weights")

    def check(self, survey: Survey) -> None:
        if self.target.factors != survey.factors:
            raise ValueError(
                f"target: expected the factors of survey {survey.id!r}, {', '.join(survey.factors)}, got "
                f"{', '.join(self.target.factors)}; take the target from this survey"
            )

    def uses(self, survey: Survey) -> NDArray[np.bool_]:
        return survey.uses

    def values(self, survey: Survey, probabilities: Array) -> Array:
        # One candidate at a time: the last bits of a matrix product depend on its number of rows.
        if survey.compiled.pairs:
            return np.stack([survey.score_probabilities(row, self.target.constants) for row in probabilities])
        means = losses.item_means(probabilities, survey.option_values)
        return np.stack([survey.score(row, self.target.constants) for row in means])

    def errors(self, values: Array) -> Array:
        return np.abs(values - self.target.scores)

    def residuals(self, values: Array) -> Array:
        """Weighted signed errors (population, terms), whose L1 or L2 norm is the loss, by the target's norm."""
        weights = np.sqrt(self._weights) if self.norm == "L2" else self._weights
        return np.asarray(weights * (values - self.target.scores))

    def costs(self, errors: Array) -> Array:
        if self.norm == "huber":
            return self._weights * losses.huber(errors, self.delta)
        return self._weights * (errors if self.norm == "L1" else errors**2)

    def loss(self, errors: Array) -> Array:
        total = self.costs(errors).sum(-1)
        return np.asarray(np.sqrt(total) if self.norm == "L2" else total)

    def signed_slopes(self, scores: Array) -> Array:
        """∂loss/∂score (factors,), of L2 times the loss; NaN where a score is."""
        signed = scores - self.target.scores
        if self.norm == "L1":
            return np.asarray(self._weights * np.sign(signed))
        return np.asarray(self._weights * (signed if self.norm == "L2" else np.clip(signed, -self.delta, self.delta)))

    def slopes(self, survey: Survey, probabilities: Array) -> Array:
        values = self.values(survey, probabilities[None])
        outer = self.signed_slopes(values[0])
        if self.norm == "L2":
            outer = outer / max(float(self.loss(np.nan_to_num(self.errors(values)))[0]), losses.TINIEST)
        by_item = np.nan_to_num(outer) @ survey.weights
        return np.asarray(by_item[:, None] * np.nan_to_num(survey.option_values))

    def without(self, items: Collection[str]) -> ScoresTarget:
        return self

    def as_dict(self) -> dict[str, Any]:
        delta = {"delta": self.delta} if self.norm == "huber" else {}
        weights = None if self.weights is None else list(self.weights)
        return {"kind": self.kind, **self.target.as_dict(), "norm": self.norm, "weights": weights, **delta}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ScoresTarget:
        """The target that `as_dict` wrote."""
        weights = None if record["weights"] is None else tuple(record["weights"])
        return cls(Target.from_dict(record), record["norm"], weights, record.get("delta", DELTA))

    def label(self) -> str:
        how = {"L1": "sum of absolute errors", "L2": "root of the sum of squared errors"}
        return f"{how.get(self.norm, f'Huber loss, delta {self.delta:g},')} over the factors"

    def __str__(self) -> str:
        return str(self.target)


def check_weights(weights: Array, what: str) -> None:
    """Refuse numbers that do not weigh."""
    if not np.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any():
        raise ValueError(f"{what}: expected numbers from 0 up with at least one above, got {weights.tolist()}")
