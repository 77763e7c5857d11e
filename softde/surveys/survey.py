"""A survey is data: items with options, factor formulas, published scores. Frozen, and checked when built."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from softde.surveys import forms as _forms
from softde.surveys import published as _published
from softde.surveys import respondents as _respondents
from softde.surveys import scoring as _scoring
from softde.surveys.checks import finite, need_text, unique
from softde.surveys.composites import Pair, Subset
from softde.surveys.forms import Compiled
from softde.surveys.policy import Projection, Scoring
from softde.surveys.published import Edition, Target
from softde.surveys.respondents import Scores
from softde.surveys.scoring import Array, ConstantsLike
from softde.surveys.values import FrozenDict, listed, nearest

NO_TEXT = "(text not included)"  # what stands for the text of an item that users bring themselves


@dataclass(frozen=True)
class Option:
    """One answer: the label the model answers with, its text, and the value it counts as."""

    label: str
    text: str
    value: float

    def __post_init__(self) -> None:
        need_text(self.text, f"option {self.label}: text")
        object.__setattr__(self, "value", finite(self.value, f"option {self.label}: value"))


def options(texts: Iterable[str], values: Iterable[float] | None = None) -> tuple[Option, ...]:
    """Options labelled "1", "2", … by position, with those numbers as values unless others are given."""
    texts = list(texts)
    numbers = list(values) if values is not None else list(range(1, len(texts) + 1))
    if len(numbers) != len(texts):
        raise ValueError(f"{len(texts)} options but {len(numbers)} values; give one value per option")
    return tuple(Option(str(i), t, v) for i, (t, v) in enumerate(zip(texts, numbers, strict=True), start=1))


@dataclass(frozen=True)
class Item:
    """One question with its own options; the topic is a short name for tables.

    phrasings : other wordings of the same question, asked beside `text`.
    missing : codes in files of human answers that are no answer to it, besides those below zero.
    """

    id: str
    text: str
    options: tuple[Option, ...]
    topic: str = ""
    phrasings: tuple[str, ...] = ()
    missing: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        need_text(self.id, "item: id")
        need_text(self.text, f"item {self.id!r}: text")
        self._check_phrasings()
        if len(self.options) < 2:
            raise ValueError(f"item {self.id!r}: expected two options or more, got {len(self.options)}")
        labels = [option.label for option in self.options]
        if labels != [str(i) for i in range(1, len(labels) + 1)]:
            raise ValueError(f"item {self.id!r}: option labels are their positions, '1', '2', …; got {listed(labels)}")
        unique((option.text.strip() for option in self.options), f"option text in item {self.id!r}:")
        missing = tuple(finite(code, f"item {self.id!r}: missing") for code in self.missing)
        object.__setattr__(self, "missing", missing)
        for option in self.options:
            if option.value in missing:
                raise ValueError(f"item {self.id!r}: missing: {option.value:g} is the value of option {option.label}")

    def _check_phrasings(self) -> None:
        given: object = self.phrasings
        if isinstance(given, str):
            raise ValueError(f"item {self.id!r}: phrasings: expected a list of texts, got the text {self.phrasings!r}")
        object.__setattr__(self, "phrasings", tuple(self.phrasings))
        for text in self.phrasings:
            need_text(text, f"item {self.id!r}: phrasing")
        unique((text.strip() for text in (self.text, *self.phrasings)), f"wording in item {self.id!r}:")

    def listing(self, order: str) -> list[str]:
        """A line per option, labels from the top, texts in the item's own order ("forward") or from the last one."""
        texts = [option.text for option in self.options]
        listed = texts if order == "forward" else texts[::-1]
        return [f"{option.label} = {text}" for option, text in zip(self.options, listed, strict=True)]

    def worded(self, phrasing: int) -> Item:
        """The item as one of its wordings asks it; 0 is its `text`."""
        return replace(self, text=self.phrasings[phrasing - 1], phrasings=()) if phrasing else self


@dataclass(frozen=True)
class Factor:
    """A formula in items and composites, in one of three forms; the constants that users choose are no part of it.

    weights : id → weight; the score is Σ weight · mean + offset (the VSM's form).
    mean : ids, "-id" for reversed ones; the score is the mean of a respondent's answers (a scale's form) + offset.
    component : number from 1 of a component of the survey's projection; the score is scale · component + offset.
    min_valid : with mean or component, how many of its variables a respondent must have answered, all if None. A mean
        is then that of the answered ones; in a projection, the others stand at their fitted means.
    """

    id: str
    name: str
    weights: Mapping[str, float] = field(default_factory=FrozenDict)
    offset: float = 0.0
    mean: tuple[str, ...] = ()
    component: int = 0
    scale: float = 1.0
    min_valid: int | None = None

    def __post_init__(self) -> None:
        need_text(self.id, "factor: id")
        where = f"factor {self.id!r}"
        weights = {item: finite(w, f"{where}, item {item!r}: weight") for item, w in self.weights.items()}
        object.__setattr__(self, "weights", FrozenDict(weights))
        object.__setattr__(self, "mean", tuple(self.mean))
        for name in ("offset", "scale"):
            object.__setattr__(self, name, finite(getattr(self, name), f"{where}: {name}"))
        for name, least in (("component", 0), ("min_valid", 1)):
            number = getattr(self, name)
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < least):
                raise ValueError(f"{where}: {name}: expected a whole number from 1 up, got {number!r}")
        forms = [name for name in ("weights", "mean", "component") if getattr(self, name)]
        if not forms:
            raise ValueError(f"{where}: expected a weight for one item or more, or mean, or component; got none")
        if len(forms) > 1:
            raise ValueError(f"{where}: expected one of weights, mean and component, got {' and '.join(forms)}")
        if self.weights and self.min_valid is not None:
            raise ValueError(f"{where}: min_valid goes with mean or component; item means need no least number")
        if self.scale != 1 and not self.component:
            raise ValueError(f"{where}: scale goes with component; put it into the weights")
        if self.mean and self.min_valid is not None and self.min_valid > len(self.mean):
            raise ValueError(f"{where}: min_valid: {self.min_valid} of {len(self.mean)} items; give at most that many")


Composite: TypeAlias = Pair | Subset | Factor


@dataclass(frozen=True)
class Survey:
    """Items, factor formulas and published scores under one id.

    variants : name → the factors that replace those of the same id. published : editions, oldest first.
    common_first : show instruction and options before the item's text, so that items can share their tokens.
    composites : variables made of items that formulas may use like items; a `Factor` (weights or mean) is one, too.
    scoring, projection : how respondents are treated; frozen statistics for factors given as components.
    constant : what a score gets where no constants are given; None is 50 for formulas without numbers of their own
        (the VSM 2013's), 0 for others. human : path of a file with human answers, no part of the digest.
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
    human: str = ""
    composites: tuple[Composite, ...] = ()
    scoring: Scoring = field(default_factory=Scoring)
    projection: Projection | None = None
    constant: float | None = None

    def __repr__(self) -> str:
        of = f", factors {', '.join(self.factors)}" if self.factors else ""
        since = f", published scores of {', '.join(self.editions)}" if self.editions else ""
        return f"<Survey {self.id}: {len(self.items)} items{of}{since}>"

    def __post_init__(self) -> None:
        for name in ("items", "factor_models", "published", "composites"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("id", "title", "version", "instruction"):
            need_text(getattr(self, name), f"survey: {name}")
        if not isinstance(self.common_first, bool):
            raise ValueError(f"survey {self.id!r}: common_first: expected true or false, got {self.common_first!r}")
        if not self.items:
            raise ValueError(f"survey {self.id!r}: expected one item or more, got none")
        unique((item.id for item in self.items), "item id")
        unique(self.factors, "factor id")
        unique(self.editions, "edition")
        if not isinstance(self.human, str):
            raise ValueError(f"survey {self.id!r}: human: expected the path of a file, got {self.human!r}")
        if self.constant is not None:
            object.__setattr__(self, "constant", finite(self.constant, f"survey {self.id!r}: constant"))
        _forms.check(self)
        variants = {name: self._variant_factors(name, factors) for name, factors in self.variants.items()}
        object.__setattr__(self, "variants", FrozenDict(variants))
        for edition in self.published:
            _published.known_factors(edition, self.factors)

    def _variant_factors(self, variant: str, factors: Iterable[Factor]) -> tuple[Factor, ...]:
        """The variant's factors under the survey's own names, checked."""
        factors = tuple(factors)
        unique((factor.id for factor in factors), f"factor id in variant {variant!r}:")
        names = {factor.id: factor.name for factor in self.factor_models}
        variables = dict.fromkeys((*self.item_ids, *(composite.id for composite in self.composites)))
        for factor in factors:
            if factor.id not in names:
                raise ValueError(f"variant {variant!r}: unknown factor {factor.id!r}; {nearest(factor.id, names)}")
            _forms.check_factor(factor, self, variables, f"variant {variant!r}, factor {factor.id!r}")
            if factor.component:
                raise ValueError(f"variant {variant!r}, factor {factor.id!r}: expected weights or mean, got component")
        return tuple(replace(factor, name=names[factor.id]) for factor in factors)

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
    def compiled(self) -> Compiled:
        """The factors as one matrix on item means and pair values."""
        return _forms.compile_factors(self)

    @property
    def weights(self) -> Array:
        """(factors, items) float64, read-only: what a mean answer counts, all in (keys, centring, projection).

        Joint answers of a pair count beside it: `uses` says which items a factor needs.
        """
        return self.compiled.weights

    @property
    def offsets(self) -> Array:
        """(factors,) float64, read-only: what the formulas add to the weighted item means."""
        return self.compiled.offsets

    @property
    def uses(self) -> npt.NDArray[np.bool_]:
        """(factors, items), read-only: does a factor need an item's answers, alone or in a pair?"""
        return self.compiled.uses

    @property
    def missing_texts(self) -> tuple[str, ...]:
        """Items whose text does not come with the survey."""
        return tuple(item.id for item in self.items if item.text == NO_TEXT)

    def need_texts(self) -> None:
        """Refuse to be asked without the items' texts."""
        if self.missing_texts:
            raise ValueError(
                f"survey {self.id!r} comes without the texts of {len(self.missing_texts)} items; write "
                f"`softde surveys template {self.id.partition(':')[0]} > my.toml`, fill them in and use my.toml"
            )

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
        """SHA-256 of what a model is shown and how it is scored: instruction, items, options, formulas."""
        phrasings = {item.id: item.phrasings for item in self.items if item.phrasings}
        content = {
            "instruction": self.instruction,
            "items": [[i.id, i.text, [[o.label, o.text, o.value] for o in i.options]] for i in self.items],
            "factors": [_scored(f) for f in self.factor_models],
            **({"common_first": True} if self.common_first else {}),
            **({"composites": [_scored(c) for c in self.composites]} if self.composites else {}),
            **({"scoring": asdict(self.scoring)} if self.scoring != Scoring() else {}),
            **({"projection": asdict(self.projection)} if self.projection is not None else {}),
            **({"phrasings": phrasings} if phrasings else {}),
        }
        return hashlib.sha256(json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()

    def score(
        self, item_means: npt.ArrayLike | Mapping[str, npt.ArrayLike], constants: ConstantsLike | None = None
    ) -> Array:
        """(..., items) item means → (..., factors) scores; see `scoring.score`."""
        return _scoring.score(self, item_means, self._constants(constants))

    def score_probabilities(self, probabilities: npt.ArrayLike, constants: ConstantsLike | None = None) -> Array:
        """(..., items, options) option probabilities → (..., factors) scores; see `scoring.score_probabilities`."""
        return _scoring.score_probabilities(self, probabilities, self._constants(constants))

    def standard_errors(self, probabilities: npt.ArrayLike, respondents: npt.ArrayLike) -> Array:
        """(..., factors): how far scores of that many independent respondents stray; see `scoring.standard_errors`."""
        return _scoring.standard_errors(self, probabilities, respondents)

    def standard_errors_of_means(self, variances: npt.ArrayLike, respondents: npt.ArrayLike) -> Array:
        """(..., factors) from (..., items) variances of answers; see `scoring.standard_errors_of_means`."""
        return _scoring.standard_errors_of_means(self, variances, respondents)

    def score_respondents(
        self, values: npt.ArrayLike, weights: npt.ArrayLike | None = None, constants: ConstantsLike | None = None
    ) -> Scores:
        """(respondents, items) option values, NaN for none → `Scores`; see `respondents.score_respondents`."""
        return _respondents.score_respondents(self, values, weights, self._constants(constants))

    def _constants(self, given: ConstantsLike | None = None) -> ConstantsLike:
        """The constants given, or the survey's own (see `constant`)."""
        if given is not None:
            return given
        if self.constant is not None:
            return self.constant
        own = any(f.mean or f.component or f.offset for f in self.factor_models)
        return 0.0 if own else 50.0

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

    def target(self, region: str, edition: str | None = None, constants: ConstantsLike | None = None) -> Target:
        """The published scores of a region; `edition=None` takes the newest complete one (see `Target.edition`)."""
        return _published.target(self, region, edition, self._constants(constants))

    def to_toml(self) -> str:
        """The whole survey as TOML text that `load_survey` reads back to an equal survey."""
        from softde.surveys.toml import write

        return write(self)


def _scored(form: Composite) -> list[object]:
    """What a formula scores by: id, weights, and whatever else differs from a plain weighted sum."""
    if not isinstance(form, Factor):
        return [form.id, {**asdict(form), "name": ""}]
    more = {f.name: value for f in fields(form) if (value := getattr(form, f.name)) != f.default}
    more = {name: value for name, value in more.items() if name not in ("id", "name", "weights")}
    return [form.id, sorted(form.weights.items()), *([more] if more else [])]
