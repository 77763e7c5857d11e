"""Targets: what a model's answers are aligned to, and the loss that says how far they are from it.

A target has terms, a factor or an item each. `values` measures them from option probabilities, `errors` says how far
off each is (0 is a hit), `loss` makes one number of them that never falls when an error grows: so the loss with terms
left out is a lower bound, and a search can drop a candidate before it was asked everything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from softde.surveys.item_targets import CultureSPATarget, ItemTarget, MeansTarget, SharesTarget
from softde.surveys.policy import Scoring
from softde.surveys.published import Target
from softde.surveys.regions import region_name
from softde.surveys.score_targets import Addable, ScoresTarget, check_weights
from softde.surveys.scoring import Array, by_factor
from softde.surveys.values import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from softde.surveys.survey import Item, Survey

__all__ = [
    "CultureSPATarget", "ItemTarget", "MeansTarget", "ScoresTarget", "SharesTarget", "SumTarget", "TargetLike",
    "as_target_like", "bare", "items_asked", "needs_factors", "nulls", "only_items", "target_from_dict",
]  # fmt: skip


class TargetLike(Protocol):
    """Anything a model can be aligned to. All arrays are float64; a term is NaN where one of its items is."""

    @property
    def region(self) -> str: ...
    @property
    def edition(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def terms(self) -> tuple[str, ...]:
        """Names of what is measured, each once."""

    @property
    def smooth(self) -> bool:
        """Has the loss a gradient in the probabilities?"""

    @property
    def held_out_target(self) -> TargetLike | None:
        """The same for the items that are held out; None if none are."""

    def check(self, survey: Survey) -> None:
        """Refuse a survey that it does not fit."""

    def uses(self, survey: Survey) -> NDArray[np.bool_]:
        """(terms, items): which items a term needs."""

    def values(self, survey: Survey, probabilities: Array) -> Array:
        """(population, items, options) → (population, terms): factor scores, or errors where these are all there is."""

    def errors(self, values: Array) -> Array:
        """(population, terms) → (population, terms), from 0 up."""

    def costs(self, errors: Array) -> Array:
        """(population, terms): what each term adds to the loss, or to the sum under its root."""

    def loss(self, errors: Array) -> Array:
        """(population, terms) → (population,)."""

    def slopes(self, survey: Survey, probabilities: Array) -> Array:
        """(items, options) of one candidate → ∂loss/∂probability (items, options), 0 where it has no part or is NaN."""

    def without(self, items: Collection[str]) -> TargetLike:
        """The same without some items."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON record; `target_from_dict` turns them back."""

    def label(self) -> str:
        """What the loss is, in a few words."""


@dataclass(frozen=True)
class SumTarget(Addable):
    """Σ weight · loss of several targets, as in ``0.01 * scores + shares``; terms are numbered by their part."""

    parts: tuple[tuple[float, Any], ...]

    kind: ClassVar[str] = "sum"

    def __post_init__(self) -> None:
        parts = tuple((float(w), as_target_like(part)) for w, part in self.parts)
        object.__setattr__(self, "parts", parts)
        if not parts:
            raise ValueError("a sum of targets has one part or more, got none")
        check_weights(np.array([w for w, _ in parts]), "weights of the targets")

    def _joined(self, name: str) -> str:
        return ", ".join(dict.fromkeys(text for _, part in self.parts if (text := getattr(part, name))))

    @property
    def region(self) -> str:
        return ", ".join(dict.fromkeys(region_name(part.region) or part.region for _, part in self.parts))

    @property
    def edition(self) -> str:
        return self._joined("edition")

    @property
    def source(self) -> str:
        return self._joined("source")

    @cached_property
    def terms(self) -> tuple[str, ...]:
        return tuple(f"{n}:{term}" for n, (_, part) in enumerate(self.parts, start=1) for term in part.terms)

    @property
    def smooth(self) -> bool:
        return all(part.smooth for _, part in self.parts)

    @property
    def held_out_target(self) -> SumTarget | None:
        held = tuple((w, part.held_out_target) for w, part in self.parts if part.held_out_target is not None)
        return SumTarget(held) if held else None

    def check(self, survey: Survey) -> None:
        for _, part in self.parts:
            part.check(survey)
        held = self.held_out_target
        if held is not None:
            both = held.uses(survey).any(axis=0) & self.uses(survey).any(axis=0)
            if both.any():
                item = survey.item_ids[int(np.flatnonzero(both)[0])]
                raise ValueError(f"target: item {item!r} is held out by one part of the sum and asked for by another")

    def uses(self, survey: Survey) -> NDArray[np.bool_]:
        return np.concatenate([part.uses(survey) for _, part in self.parts])

    def values(self, survey: Survey, probabilities: Array) -> Array:
        return np.concatenate([part.values(survey, probabilities) for _, part in self.parts], axis=1)

    def _cut(self, values: Array) -> list[Array]:
        stops = np.cumsum([len(part.terms) for _, part in self.parts])
        return [np.ascontiguousarray(piece) for piece in np.split(values, stops[:-1], axis=-1)]

    def errors(self, values: Array) -> Array:
        pieces = zip(self._cut(values), self.parts, strict=True)
        return np.concatenate([part.errors(piece) for piece, (_, part) in pieces], axis=1)

    def residuals(self, values: Array) -> Array | None:
        """Signed errors of all parts, each with its weight; None if one of them has none."""
        found = [residuals_of(part, piece) for piece, (_, part) in zip(self._cut(values), self.parts, strict=True)]
        weighted = [w * piece for piece, (w, _) in zip(found, self.parts, strict=True) if piece is not None]
        return np.concatenate(weighted, axis=1) if len(weighted) == len(self.parts) else None

    def costs(self, errors: Array) -> Array:
        pieces = zip(self._cut(errors), self.parts, strict=True)
        return np.concatenate([w * part.costs(piece) for piece, (w, part) in pieces], axis=1)

    def loss(self, errors: Array) -> Array:
        total = np.zeros(len(errors))
        for piece, (w, part) in zip(self._cut(errors), self.parts, strict=True):
            total = total + w * part.loss(piece)
        return total

    def slopes(self, survey: Survey, probabilities: Array) -> Array:
        total = np.zeros(probabilities.shape)
        for w, part in self.parts:
            total = total + w * part.slopes(survey, probabilities)
        return total

    def without(self, items: Collection[str]) -> SumTarget:
        return SumTarget(tuple((w, part.without(items)) for w, part in self.parts))

    def as_dict(self) -> dict[str, Any]:
        named = {"region": self.region, "edition": self.edition, "source": self.source}
        return {"kind": self.kind, **named, "parts": [{"weight": w, **part.as_dict()} for w, part in self.parts]}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SumTarget:
        """The target that `as_dict` wrote."""
        # A published target's own weights are under the same name in its record, a part's under "weight".
        return cls(tuple((part["weight"], target_from_dict(part)) for part in record["parts"]))

    def label(self) -> str:
        return " + ".join(f"{w:g} × {part.label()}" for w, part in self.parts)

    def __str__(self) -> str:
        return " + ".join(f"{w:g} × ({part})" for w, part in self.parts)


KINDS: dict[str, Any] = {
    kind.kind: kind for kind in (ScoresTarget, SharesTarget, MeansTarget, CultureSPATarget, SumTarget)
}
PARTS = ("terms", "uses", "values", "errors", "loss", "as_dict")


def residuals_of(target: TargetLike, values: Array) -> Array | None:
    """Signed errors (population, terms) of a target that has some: all 0 where its loss is."""
    signed = getattr(target, "residuals", None)
    return None if signed is None else signed(values)


def as_target_like(target: Any, norm: str = "L1", weights: Any = None) -> Any:
    """Published scores with their norm, anything else as it is.

    Raises
    ------
    ValueError
        Not a target; or a norm or weights beside a target that has its own.
    """
    if isinstance(target, Target):
        given = None if weights is None else tuple(by_factor(weights, target.factors, "weights").tolist())
        if norm not in ("L1", "L2"):
            raise ValueError(f"norm: expected 'L1' or 'L2', got {norm!r}")
        return ScoresTarget(target, norm, given)
    if isinstance(target, type) or not all(hasattr(target, name) for name in PARTS):
        raise ValueError(
            f"target: expected Target, got {target!r}; survey.target('India') is one, and SharesTarget.of(human, "
            "'India') one of human answers"
        )
    if norm != "L1" or weights is not None:
        raise ValueError(
            f"norm, weights: they are of published scores; {type(target).__name__} has its own, so give them to it"
        )
    return target


def target_from_dict(record: Mapping[str, Any]) -> Any:
    """The target that `as_dict` wrote, of any kind; published scores have no kind."""
    kind = record.get("kind")
    if kind is None:
        return Target.from_dict(record)
    if kind not in KINDS:
        raise ValueError(f"target: unknown kind {kind!r}; {nearest(str(kind), KINDS)}")
    return KINDS[kind].from_dict(record)


def items_asked(target: TargetLike, survey: Survey) -> Survey:
    """The survey with the items that a target uses, and with its factors where the target needs those."""
    used = np.asarray(target.uses(survey).any(axis=0))
    part = only_items(survey, [item for item, asked in zip(survey.item_ids, used, strict=True) if asked])
    return survey if needs_factors(target) and not part.factors else part


def only_items(survey: Survey, items: Collection[str]) -> Survey:
    """The survey with some items; its factors stay if they are plain and none of them lacks an item."""
    kept = np.array([item in items for item in survey.item_ids])
    if kept.all():
        return survey
    chosen = tuple(item for item, keep in zip(survey.items, kept, strict=True) if keep)
    plain = bool(survey.factors) and not survey.composites and survey.projection is None
    if plain and bool(kept[survey.uses.any(axis=0)].all()):
        return replace(survey, items=chosen, variants={})
    return bare(survey, chosen)


def bare(survey: Survey, items: Sequence[Item]) -> Survey:
    """Some items in the survey's own way of asking, without anything that scores them."""
    return replace(
        survey, items=tuple(items), variants={}, factor_models=(), published=(), composites=(), projection=None,
        scoring=Scoring(),
    )  # fmt: skip


def needs_factors(target: TargetLike) -> bool:
    """Does it compare factor scores?"""
    parts = [part for _, part in target.parts] if isinstance(target, SumTarget) else [target]
    return any(isinstance(part, ScoresTarget) for part in parts)


def nulls(target: TargetLike, survey: Survey) -> dict[str, float]:
    """What answerers who know nothing lose, by the target's own loss; NaN where there is none."""
    values = survey.option_values
    present = ~np.isnan(values)
    counts = present.sum(axis=1)
    spread = np.where(present, values - values[:, :1], np.nan)
    middle = (np.nanmin(values, axis=1) + np.nanmax(values, axis=1)) / 2
    near = np.nanargmin(np.abs(spread + values[:, :1] - middle[:, None]), axis=1)
    numbers = np.arange(values.shape[1])
    sure = [numbers == np.full((len(counts), 1), k) for k in range(int(counts.min()))]
    answerers = [np.where(present, 1 / counts[:, None], 0.0), (numbers == near[:, None]), *sure]
    found = target.loss(target.errors(target.values(survey, np.stack(answerers).astype(np.float64))))
    return {
        "one option throughout": float(found[2:].min()),
        "option nearest the midpoint": float(found[1]),
        "uniform answerer": float(found[0]),
    }


def summands(target: Any) -> tuple[tuple[float, Any], ...]:
    """The parts of a sum, or the target as its only one."""
    return target.parts if isinstance(target, SumTarget) else ((1.0, target),)
