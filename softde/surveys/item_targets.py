"""Targets of items: what humans of one region answered, by their shares, means or majorities."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from softde.surveys import losses
from softde.surveys.regions import region_name
from softde.surveys.score_targets import Addable, check_weights
from softde.surveys.scoring import Array
from softde.surveys.values import listed, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from softde.surveys.human.answers import HumanAnswers
    from softde.surveys.survey import Survey

Distance = Literal["js", "kl", "wasserstein"]
DISTANCES = {
    "js": "Jensen-Shannon divergence in bits",
    "kl": "Kullback-Leibler divergence of the model from the humans, in bits",
    "wasserstein": "Wasserstein distance over the range of the options",
}
ANSWERS = ("expected", "majority")


@dataclass(frozen=True, kw_only=True)
class ItemTarget(Addable):
    """What humans of one region answered, item by item; a kind of it says how an item's error is measured.

    items : ids. options : how many each has. weights : one non-negative number per item, or None.
    held_out : items that a search does not ask; the report shows their loss beside that of the others.
    missing : items of the survey without an answer from this region, which are left out.
    """

    region: str
    items: tuple[str, ...]
    options: tuple[int, ...]
    weights: tuple[float, ...] | None = None
    held_out: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    edition: str = ""
    source: str = ""

    kind: ClassVar[str] = ""
    per_item: ClassVar[tuple[str, ...]] = ("items", "options", "weights")  # fields with an entry per item
    smooth: ClassVar[Any] = True

    def __post_init__(self) -> None:
        for name in (*self.per_item, "held_out", "missing"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value))
                if name in self.per_item and len(value) != len(self.items):
                    raise ValueError(f"{name}: expected one entry per item, {len(self.items)}, got {len(value)}")
        if len(set(self.items)) < len(self.items):
            raise ValueError("items: expected each id once")
        unknown = [item for item in self.held_out if item not in self.items]
        if unknown:
            raise ValueError(f"held_out: the target has no item {unknown[0]!r}; {nearest(unknown[0], self.items)}")
        if not self.terms:
            raise ValueError(
                f"{self.region}: no item is left to align to, of {len(self.items)} items {len(self.held_out)} are held "
                "out; hold out fewer, or take a region with more answers"
            )
        if self.weights is not None:
            check_weights(self._weights, "weights")
            held = [w for item, w in zip(self.items, self.weights, strict=True) if item in self.held_out]
            if held and not any(held):
                raise ValueError("weights: the items held out all have weight 0, so their loss would be of nothing")
        _ = self.held_out_target  # which has to stand alone, too

    @cached_property
    def terms(self) -> tuple[str, ...]:
        held = frozenset(self.held_out)
        return tuple(item for item in self.items if item not in held)

    @cached_property
    def _rows(self) -> list[int]:
        """The terms' places among the items."""
        place = {item: i for i, item in enumerate(self.items)}
        return [place[item] for item in self.terms]

    @cached_property
    def _weights(self) -> Array:
        """(terms,), in shares of their sum."""
        if self.weights is None:
            return np.full(len(self.terms), 1 / len(self.terms))
        weights = np.asarray(self.weights, dtype=np.float64)[self._rows]
        check_weights(weights, "weights")
        return np.asarray(weights / weights.sum())

    @property
    def held_out_target(self) -> Self | None:
        """The held-out items as a target of their own."""
        return self._only(self.held_out) if self.held_out else None

    def without(self, items: Collection[str]) -> Self:
        """The same without some items, held out or not."""
        left = [item for item in self.items if item not in items]
        return replace(self._only(left), held_out=tuple(item for item in self.held_out if item not in items))

    def _only(self, items: Sequence[str]) -> Self:
        rows = [self.items.index(item) for item in items]
        cut = {n: tuple(v[i] for i in rows) for n in self.per_item if (v := getattr(self, n)) is not None}
        return replace(self, **cut, held_out=())  # type: ignore[arg-type]

    def check(self, survey: Survey) -> None:
        """Refuse a survey that lacks an item or has other numbers of options."""
        known = {item.id: len(item.options) for item in survey.items}
        for item, count in zip(self.items, self.options, strict=True):
            if item not in known:
                raise ValueError(
                    f"target: survey {survey.id!r} has no item {item!r}; {nearest(item, known)}; take the human "
                    "answers of this survey"
                )
            if known[item] != count:
                raise ValueError(
                    f"target: item {item!r} has {count} options in the human answers and {known[item]} in survey "
                    f"{survey.id!r}; take the human answers of this survey"
                )

    def places(self, survey: Survey) -> list[int]:
        """The terms' places among a survey's items."""
        place = {item: i for i, item in enumerate(survey.item_ids)}
        return [place[item] for item in self.terms]

    def uses(self, survey: Survey) -> NDArray[np.bool_]:
        used = np.zeros((len(self.terms), len(survey.items)), dtype=bool)
        used[np.arange(len(self.terms)), self.places(survey)] = True
        return used

    def values(self, survey: Survey, probabilities: Array) -> Array:
        places = self.places(survey)
        mine = np.take(probabilities, places, axis=1)  # of one layout, whatever the population
        return np.where(np.isnan(mine).any(axis=-1), np.nan, self.item_errors(mine, survey.option_values[places]))

    def errors(self, values: Array) -> Array:
        return values

    def costs(self, errors: Array) -> Array:
        return self._weights * errors

    def loss(self, errors: Array) -> Array:
        return np.asarray(self.costs(errors).sum(axis=-1))

    def slopes(self, survey: Survey, probabilities: Array) -> Array:
        places = self.places(survey)
        mine = probabilities[places]
        known = np.asarray(~np.isnan(mine).any(axis=-1))
        inner = self.item_slopes(np.where(known[:, None], mine, 0.0), survey.option_values[places])
        outer = self.outer_slopes(np.nan_to_num(self.values(survey, probabilities[None])))
        slopes = np.zeros(probabilities.shape)
        slopes[places] = np.where(known[:, None], outer[:, None] * inner, 0.0)
        return np.where(np.isnan(survey.option_values), 0.0, slopes)

    def outer_slopes(self, errors: Array) -> Array:
        """∂loss/∂error (terms,); errors (1, terms)."""
        return self._weights

    def item_errors(self, model: Array, values: Array) -> Array:
        """(population, terms, options), option values (terms, options) → (population, terms), from 0 up."""
        raise TypeError(f"{type(self).__name__} measures nothing; use SharesTarget, MeansTarget or CultureSPATarget")

    def item_slopes(self, model: Array, values: Array) -> Array:
        """∂error/∂probability (terms, options) of one candidate."""
        raise TypeError(f"{type(self).__name__} measures nothing; use SharesTarget, MeansTarget or CultureSPATarget")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON record; `target_from_dict` turns them back."""
        return {"kind": self.kind, **{f.name: _plain(getattr(self, f.name)) for f in fields(self)}}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """The target that `as_dict` wrote."""
        return cls(**{f.name: _tuples(record[f.name]) for f in fields(cls)})

    def label(self) -> str:
        return self.kind

    def __str__(self) -> str:
        edition = f", edition {self.edition}" if self.edition else ""
        left = f"; {len(self.missing)} without an answer there are left out" if self.missing else ""
        held = f", {len(self.held_out)} more held out" if self.held_out else ""
        return f"{self.region}{edition}: {self.label()}, mean over {len(self.terms)} items{held}{left}"


@dataclass(frozen=True, kw_only=True)
class SharesTarget(ItemTarget):
    """The shares of a region's humans that chose each option; the loss is the mean distance over items.

    shares : per item, one share per option. distance : "js", the Jensen-Shannon divergence in bits (0 to 1); "kl",
    KL(human ‖ model) in bits, with model probabilities below `floor` counted as floor; "wasserstein", of the ordered
    options, in units of an item's range (0 to 1).
    """

    shares: tuple[tuple[float, ...], ...]
    distance: str = "js"
    floor: float = losses.FLOOR

    kind: ClassVar[str] = "shares"
    per_item: ClassVar[tuple[str, ...]] = (*ItemTarget.per_item, "shares")

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise ValueError(f"distance: expected one of {', '.join(DISTANCES)}, got {self.distance!r}")
        if not 0 < self.floor < 1:
            raise ValueError(f"floor: expected a probability between 0 and 1, got {self.floor!r}")
        object.__setattr__(self, "shares", tuple(tuple(map(float, row)) for row in self.shares))
        super().__post_init__()
        for item, row, count in zip(self.items, self.shares, self.options, strict=True):
            if len(row) != count or not (np.array(row) >= 0).all() or not abs(sum(row) - 1) < 1e-6:
                raise ValueError(f"item {item!r}: expected {count} shares from 0 up with the sum 1, got {row}")

    @classmethod
    def of(
        cls, human: HumanAnswers, region: str, distance: Distance = "js", held_out: float | Collection[str] = 0.0,
        seed: int = 0, weights: Mapping[str, float] | None = None, floor: float = losses.FLOOR, edition: str = "",
    ) -> SharesTarget:  # fmt: skip
        """From human answers; items without an answer from the region are left out.

        held_out : a share of the survey's items, drawn by `seed`, the same for every region; or ids.
        weights : item → number, 1 for the others.
        """
        known = _known(human, region, held_out, seed, weights, edition)
        row = human.shares[human.row(region)]
        return cls(shares=_ragged(row, human, known["items"]), distance=distance, floor=floor, **known)

    def human(self, width: int) -> Array:
        """(terms, width), zero beyond an item's options."""
        rows = np.zeros((len(self.terms), width))
        for row, place in zip(rows, self._rows, strict=True):
            row[: self.options[place]] = self.shares[place]
        return rows

    def item_errors(self, model: Array, values: Array) -> Array:
        """See `ItemTarget`."""
        human = self.human(model.shape[-1])
        if self.distance == "js":
            return losses.jensen_shannon(model, human)
        if self.distance == "kl":
            return losses.kullback_leibler(model, human, self.floor)
        return losses.wasserstein(model, human, values)

    def item_slopes(self, model: Array, values: Array) -> Array:
        """See `ItemTarget`."""
        human = self.human(model.shape[-1])
        if self.distance == "js":
            return losses.jensen_shannon_slope(model, human)
        if self.distance == "kl":
            return losses.kullback_leibler_slope(model, human, self.floor)
        return losses.wasserstein_slope(model, human, values)

    def label(self) -> str:
        """See `TargetLike`."""
        return DISTANCES[self.distance]


@dataclass(frozen=True, kw_only=True)
class MeansTarget(ItemTarget):
    """The item means of a region's humans; an item's error is |difference| in units of its range.

    norm : "L1" is the mean error over items, "L2" the root of the mean squared one.
    """

    means: tuple[float, ...]
    norm: str = "L1"

    kind: ClassVar[str] = "means"
    per_item: ClassVar[tuple[str, ...]] = (*ItemTarget.per_item, "means")

    def __post_init__(self) -> None:
        if self.norm not in ("L1", "L2"):
            raise ValueError(f"norm: expected 'L1' or 'L2', got {self.norm!r}")
        if not np.isfinite(np.asarray(self.means, dtype=np.float64)).all():
            raise ValueError("means: expected finite numbers; leave out items without one")
        object.__setattr__(self, "means", tuple(map(float, self.means)))
        super().__post_init__()

    @classmethod
    def of(
        cls, human: HumanAnswers, region: str, norm: str = "L1", held_out: float | Collection[str] = 0.0,
        seed: int = 0, weights: Mapping[str, float] | None = None, edition: str = "",
    ) -> MeansTarget:  # fmt: skip
        """From human answers; see `SharesTarget.of`."""
        known = _known(human, region, held_out, seed, weights, edition)
        row = human.item_means[human.row(region)]
        places = _places(human, known["items"])
        return cls(means=tuple(float(row[i]) for i in places), norm=norm, **known)

    def check(self, survey: Survey) -> None:
        """Refuse a survey that it does not fit, by its option values too."""
        super().check(survey)
        place = {item: i for i, item in enumerate(survey.item_ids)}
        for item, mean in zip(self.items, self.means, strict=True):
            values = survey.option_values[place[item]]
            low, high = float(np.nanmin(values)), float(np.nanmax(values))
            if not low - 1e-6 <= mean <= high + 1e-6:
                raise ValueError(
                    f"target: item {item!r} has a human mean of {mean:g}, but values from {low:g} to {high:g} in "
                    f"survey {survey.id!r}; take the human answers of this survey"
                )

    def _off(self, model: Array, values: Array) -> Array:
        """(..., terms), signed, in units of the range."""
        human = np.array([self.means[i] for i in self._rows])
        return np.asarray((losses.item_means(model, values) - human) / _range(values))

    def item_errors(self, model: Array, values: Array) -> Array:
        """See `ItemTarget`."""
        return np.abs(self._off(model, values))

    def item_slopes(self, model: Array, values: Array) -> Array:
        """See `ItemTarget`."""
        signs = np.sign(self._off(model, values)) / _range(values)
        return np.asarray(signs[:, None] * np.nan_to_num(values))

    def costs(self, errors: Array) -> Array:
        """See `TargetLike`."""
        return self._weights * (errors if self.norm == "L1" else errors**2)

    def loss(self, errors: Array) -> Array:
        """See `TargetLike`."""
        total = self.costs(errors).sum(axis=-1)
        return np.asarray(np.sqrt(total) if self.norm == "L2" else total)

    def outer_slopes(self, errors: Array) -> Array:
        """See `ItemTarget`."""
        if self.norm == "L1":
            return self._weights
        return np.asarray(self._weights * errors[0] / max(float(self.loss(errors)[0]), losses.TINIEST))

    def label(self) -> str:
        """See `TargetLike`."""
        how = "distance" if self.norm == "L1" else "root mean squared distance"
        return f"{how} of the item means over the range of the options"


@dataclass(frozen=True, kw_only=True)
class CultureSPATarget(ItemTarget):
    """The majority answers of a region's humans; the loss is 1 − CultureSPA's score (arXiv 2410.12971).

    Their score of answers a against majority answers g is 1 − ‖a − g‖₂ / ‖options − 1‖₂ over the items, both as option
    numbers. answer : "expected" puts the expected square E[(a − g)²] under the root, which is smooth and equals theirs
    for a model that is sure of its answers; "majority" takes the model's most probable answer, the first of several:
    it is theirs, and moves in steps.
    """

    majority: tuple[int, ...]
    answer: str = "expected"

    kind: ClassVar[str] = "culture-spa"
    per_item: ClassVar[tuple[str, ...]] = (*ItemTarget.per_item, "majority")

    def __post_init__(self) -> None:
        if self.answer not in ANSWERS:
            raise ValueError(f"answer: expected one of {', '.join(ANSWERS)}, got {self.answer!r}")
        if self.weights is not None:
            raise ValueError(
                "weights: CultureSPA's distance weighs items by their number of options; leave weights out"
            )
        super().__post_init__()
        for item, number, count in zip(self.items, self.majority, self.options, strict=True):
            if not 0 <= number < count:
                raise ValueError(f"item {item!r}: expected an option number from 0 to {count - 1}, got {number}")

    @classmethod
    def of(
        cls, human: HumanAnswers, region: str, answer: str = "expected", held_out: float | Collection[str] = 0.0,
        seed: int = 0, edition: str = "",
    ) -> CultureSPATarget:  # fmt: skip
        """From human answers; see `SharesTarget.of`."""
        known = _known(human, region, held_out, seed, None, edition)
        row = human.majority[human.row(region)]
        return cls(majority=tuple(int(row[i]) for i in _places(human, known["items"])), answer=answer, **known)

    @property
    def smooth(self) -> bool:
        """See `TargetLike`."""
        return self.answer == "expected"

    def _squares(self, options: int) -> Array:
        """(terms, options): squared distance of every option number from the majority's."""
        majority = np.array([self.majority[i] for i in self._rows])
        return np.asarray((np.arange(options) - majority[:, None]) ** 2, dtype=np.float64)

    @cached_property
    def _most(self) -> float:
        """‖options − 1‖₂²."""
        return float(sum((self.options[i] - 1) ** 2 for i in self._rows))

    def item_errors(self, model: Array, values: Array) -> Array:
        """See `ItemTarget`."""
        squares = self._squares(model.shape[-1])
        if self.answer == "expected":
            return np.asarray((model * squares).sum(axis=-1))
        chosen = model.argmax(axis=-1)
        return np.take_along_axis(np.broadcast_to(squares, model.shape), chosen[..., None], axis=-1)[..., 0]

    def item_slopes(self, model: Array, values: Array) -> Array:
        """See `ItemTarget`."""
        return self._squares(model.shape[-1])

    def costs(self, errors: Array) -> Array:
        """See `TargetLike`."""
        return errors / self._most

    def loss(self, errors: Array) -> Array:
        """See `TargetLike`."""
        return np.asarray(np.sqrt(self.costs(errors).sum(axis=-1)))

    def outer_slopes(self, errors: Array) -> Array:
        """See `ItemTarget`."""
        return np.full(len(self.terms), 0.5 / (self._most * max(float(self.loss(errors)[0]), losses.TINIEST)))

    def label(self) -> str:
        """See `TargetLike`."""
        return "1 − CultureSPA's score" + (" of the most probable answers" if self.answer == "majority" else "")


def _known(
    human: HumanAnswers, region: str, held_out: Any, seed: int, weights: Mapping[str, float] | None, edition: str
) -> dict[str, Any]:
    """What all targets of human answers have in common."""
    row, survey = human.row(region), human.survey
    answered = ~np.isnan(human.shares[row]).any(axis=-1)
    items = tuple(item for item, there in zip(survey.item_ids, answered, strict=True) if there)
    if not items:
        raise ValueError(f"{region}: no item has an answer from this region; choose another region")
    counts = {item.id: len(item.options) for item in survey.items}
    if not isinstance(weights, Mapping | None):
        raise ValueError(f"weights: expected item → number, such as {{{items[0]!r}: 3}}, got {weights!r}")
    unknown = [item for item in weights or () if item not in counts]
    if unknown:
        raise ValueError(f"weights: unknown item {unknown[0]!r}; {nearest(unknown[0], counts)}")
    return {
        "region": region_name(human.regions[row]) or human.regions[row],
        "items": items,
        "options": tuple(counts[item] for item in items),
        "weights": None if weights is None else tuple(float(weights.get(item, 1.0)) for item in items),
        "held_out": _held_out(survey.item_ids, items, held_out, seed),
        "missing": tuple(item for item in survey.item_ids if item not in items),
        "edition": edition or f"{survey.id}, version {survey.version}",
        "source": human.source,
    }


def _held_out(asked: tuple[str, ...], items: tuple[str, ...], held_out: Any, seed: int) -> tuple[str, ...]:
    """Ids as given; or a share of all that are asked anywhere, so that regions that lack some hold out the same."""
    if not isinstance(held_out, bool) and isinstance(held_out, Real) and 0 <= float(held_out) < 1:
        count = max(1, round(float(held_out) * len(asked))) if held_out else 0
        drawn = frozenset(asked[i] for i in np.random.default_rng(seed).permutation(len(asked))[:count].tolist())
        held = tuple(item for item in items if item in drawn)
        if drawn and not held:
            raise ValueError(
                f"held_out: none of the items that {held_out!r} and seed {seed} draw, {listed(sorted(drawn))}, has an "
                "answer from this region; take a larger share, another seed, or ids"
            )
        return held
    if isinstance(held_out, (str, Real)) or not isinstance(held_out, Collection):
        raise ValueError(f"held_out: expected a share of the items from 0 up, below 1, or ids, got {held_out!r}")
    given = frozenset(map(str, held_out))
    unknown = sorted(item for item in given if item not in items)
    if unknown:
        raise ValueError(
            f"held_out: {listed(unknown)} has no answer from this region or is no item; {nearest(unknown[0], items)}"
        )
    return tuple(item for item in items if item in given)


def _places(human: HumanAnswers, items: Sequence[str]) -> list[int]:
    place = {item: i for i, item in enumerate(human.survey.item_ids)}
    return [place[item] for item in items]


def _ragged(rows: Array, human: HumanAnswers, items: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """Each item's shares, as many as it has options."""
    counts = [len(item.options) for item in human.survey.items]
    return tuple(tuple(rows[i, : counts[i]].tolist()) for i in _places(human, items))


def _range(values: Array) -> Array:
    return np.asarray(np.nanmax(values, axis=-1) - np.nanmin(values, axis=-1))


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
