"""A survey is data: items with options, factor formulas, published scores. Frozen, and checked when built."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from softde.surveys import published as _published
from softde.surveys import scoring as _scoring
from softde.surveys.published import Edition, Target
from softde.surveys.scoring import Array, ConstantsLike
from softde.surveys.values import FrozenDict, listed, nearest


@dataclass(frozen=True)
class Option:
    """One answer: the label the model answers with, its text, and the value it counts as."""

    label: str
    text: str
    value: float

    def __post_init__(self) -> None:
        _need_text(self.text, f"option {self.label}: text")
        object.__setattr__(self, "value", _number(self.value, f"option {self.label}: value"))


def options(texts: Iterable[str], values: Iterable[float] | None = None) -> tuple[Option, ...]:
    """Options labelled "1", "2", … by position, with those numbers as values unless others are given."""
    texts = list(texts)
    numbers = list(values) if values is not None else list(range(1, len(texts) + 1))
    if len(numbers) != len(texts):
        raise ValueError(f"{len(texts)} options but {len(numbers)} values; give one value per option")
    return tuple(Option(str(i), t, v) for i, (t, v) in enumerate(zip(texts, numbers, strict=True), start=1))


@dataclass(frozen=True)
class Item:
    """One question with its own options; the topic is a short name for tables."""

    id: str
    text: str
    options: tuple[Option, ...]
    topic: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        _need_text(self.id, "item: id")
        _need_text(self.text, f"item {self.id!r}: text")
        if len(self.options) < 2:
            raise ValueError(f"item {self.id!r}: expected two options or more, got {len(self.options)}")
        labels = [option.label for option in self.options]
        if labels != [str(i) for i in range(1, len(labels) + 1)]:
            raise ValueError(f"item {self.id!r}: option labels are their positions, '1', '2', …; got {listed(labels)}")
        _unique((option.text.strip() for option in self.options), f"option text in item {self.id!r}:")


@dataclass(frozen=True)
class Factor:
    """A linear form in item means: item id → weight. The constant is no part of it."""

    id: str
    name: str
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        _need_text(self.id, "factor: id")
        if not self.weights:
            raise ValueError(f"factor {self.id!r}: expected a weight for one item or more, got none")
        weights = {item: _number(w, f"factor {self.id!r}, item {item!r}: weight") for item, w in self.weights.items()}
        object.__setattr__(self, "weights", FrozenDict(weights))


@dataclass(frozen=True)
class Survey:
    """Items, factor formulas and published scores under one id.

    variants : name → the factors that replace those of the same id. published : editions, oldest first.
    common_first : show instruction and options before the item's text, so that items can share their tokens.
    """

    id: str
    title: str
    items: tuple[Item, ...]
    factor_models: tuple[Factor, ...] = ()
    version: str = "1"
    source: str = ""
    note: str = ""
    language: str = "en"
    instruction: str = "Answer with the number only."
    variants: Mapping[str, tuple[Factor, ...]] = field(default_factory=FrozenDict)
    published: tuple[Edition, ...] = ()
    common_first: bool = False

    def __post_init__(self) -> None:
        for name in ("items", "factor_models", "published"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("id", "title", "version", "instruction"):
            _need_text(getattr(self, name), f"survey: {name}")
        if not isinstance(self.common_first, bool):
            raise ValueError(f"survey {self.id!r}: common_first: expected true or false, got {self.common_first!r}")
        if not self.items:
            raise ValueError(f"survey {self.id!r}: expected one item or more, got none")
        _unique((item.id for item in self.items), "item id")
        _unique(self.factors, "factor id")
        _unique(self.editions, "edition")
        for factor in self.factor_models:
            self._known_items(factor, f"factor {factor.id!r}")
        variants = {name: self._variant_factors(name, factors) for name, factors in self.variants.items()}
        object.__setattr__(self, "variants", FrozenDict(variants))
        for edition in self.published:
            _published.known_factors(edition, self.factors)

    def _variant_factors(self, variant: str, factors: Iterable[Factor]) -> tuple[Factor, ...]:
        """The variant's factors under the survey's own names, checked."""
        factors = tuple(factors)
        _unique((factor.id for factor in factors), f"factor id in variant {variant!r}:")
        names = {factor.id: factor.name for factor in self.factor_models}
        for factor in factors:
            if factor.id not in names:
                raise ValueError(f"variant {variant!r}: unknown factor {factor.id!r}; {nearest(factor.id, names)}")
            self._known_items(factor, f"variant {variant!r}, factor {factor.id!r}")
        return tuple(replace(factor, name=names[factor.id]) for factor in factors)

    def _known_items(self, factor: Factor, where: str) -> None:
        for item in factor.weights:
            if item not in self.item_ids:
                raise ValueError(
                    f"{where}: weight for item {item!r}, which does not exist; {nearest(item, self.item_ids)}"
                )

    @cached_property
    def item_ids(self) -> tuple[str, ...]:
        """Item ids in the order of every (..., items) array."""
        return tuple(item.id for item in self.items)

    @cached_property
    def factors(self) -> tuple[str, ...]:
        """Factor ids in the order of every (..., factors) array."""
        return tuple(factor.id for factor in self.factor_models)

    @property
    def editions(self) -> tuple[str, ...]:
        """Editions of the published scores, oldest first."""
        return tuple(edition.name for edition in self.published)

    @cached_property
    def weights(self) -> Array:
        """(factors, items) float64, read-only."""
        weights = np.array(
            [[factor.weights.get(item, 0.0) for item in self.item_ids] for factor in self.factor_models],
            dtype=np.float64,
        ).reshape(len(self.factor_models), len(self.items))
        weights.setflags(write=False)
        return weights

    @cached_property
    def option_values(self) -> Array:
        """(items, most options) float64, read-only, NaN where an item has fewer options."""
        values = np.full((len(self.items), max(len(item.options) for item in self.items)), np.nan)
        for row, item in zip(values, self.items, strict=True):
            row[: len(item.options)] = [option.value for option in item.options]
        values.setflags(write=False)
        return values

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what a model is shown and how it is scored: instruction, items, options, weights."""
        content = {
            "instruction": self.instruction,
            "items": [[i.id, i.text, [[o.label, o.text, o.value] for o in i.options]] for i in self.items],
            "factors": [[f.id, sorted(f.weights.items())] for f in self.factor_models],
            **({"common_first": True} if self.common_first else {}),
        }
        return hashlib.sha256(json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()

    def score(self, item_means: npt.ArrayLike | Mapping[str, npt.ArrayLike], constants: ConstantsLike = 50.0) -> Array:
        """(..., items) item means → (..., factors) scores; see `scoring.score`."""
        return _scoring.score(self, item_means, constants)

    def variant(self, name: str) -> Survey:
        """The same survey with a named variant's formulas; its id becomes "id:name"."""
        if name not in self.variants:
            raise ValueError(f"survey {self.id!r} has no variant {name!r}; {nearest(name, self.variants)}")
        changed = {factor.id: factor for factor in self.variants[name]}
        models = tuple(changed.get(factor.id, factor) for factor in self.factor_models)
        return replace(self, id=f"{self.id}:{name}", factor_models=models)

    def regions(self, edition: str | None = None, complete: bool = False) -> tuple[str, ...]:
        """Regions with published scores in one edition or any; `complete`: only those that lack none."""
        return _published.regions(self, edition, complete)

    def published_scores(self, region: str, edition: str) -> Array:
        """(factors,) scores as published, NaN where missing."""
        return _published.published_scores(self, region, edition)

    def target(self, region: str, edition: str | None = None, constants: ConstantsLike = 50.0) -> Target:
        """The published scores of a region; `edition=None` takes the newest complete one (see `Target.edition`)."""
        return _published.target(self, region, edition, constants)

    def to_toml(self) -> str:
        """The whole survey as TOML text that `load_survey` reads back to an equal survey."""
        from softde.surveys.toml import write

        return write(self)


def _need_text(value: object, what: str) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{what}: expected a text that is not empty, got {value!r}")


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
        raise ValueError(f"{what}: expected a finite number, got {value!r}")
    return float(value)


def _unique(names: Iterable[str], what: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"duplicate {what} {listed(map(repr, twice))}; each may appear once, so rename or remove one")
