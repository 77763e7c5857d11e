"""Published scores: editions, and the target a model is aligned to."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from softde.surveys.regions import find_region
from softde.surveys.scoring import Array, Constants, ConstantsLike, constants_array
from softde.surveys.values import FrozenDict, listed, nearest

if TYPE_CHECKING:
    from softde.surveys.survey import Survey

log = logging.getLogger("softde")


@dataclass(frozen=True)
class Edition:
    """One edition of published scores: region → factor → score. A missing score is left out, never filled in."""

    name: str
    source: str
    scores: Mapping[str, Mapping[str, float]]

    def __post_init__(self) -> None:
        rows = {r: FrozenDict({f: float(v) for f, v in row.items()}) for r, row in self.scores.items()}
        object.__setattr__(self, "scores", FrozenDict(rows))
        for region, row in rows.items():
            wrong = [f for f, v in row.items() if not np.isfinite(v)]
            if wrong:
                raise ValueError(
                    f"edition {self.name}, region {region!r}: {listed(wrong)} must be finite; leave it out"
                )


@dataclass(frozen=True, eq=False)
class Target:
    """The published factor scores of one region in one edition, with the constants a model's scores are given.

    scores : (factors,) float64, read-only. constants : factor → number. anchors : regions the constants were fitted on.
    """

    region: str
    edition: str
    factors: tuple[str, ...]
    scores: Array
    source: str
    constants: dict[str, float]
    anchors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        scores = np.array(self.scores, dtype=np.float64)
        factors = tuple(self.factors)
        if scores.shape != (len(factors),) or not np.isfinite(scores).all():
            raise ValueError(f"a target has one finite score per factor ({listed(factors)}), got {self.scores!r}")
        scores.setflags(write=False)
        constants = constants_array(self.constants, factors).tolist()
        object.__setattr__(self, "factors", factors)
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "constants", FrozenDict(zip(factors, constants, strict=True)))
        object.__setattr__(self, "anchors", tuple(self.anchors))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON record; `Target.from_dict` turns them back."""
        return {
            "region": self.region,
            "edition": self.edition,
            "source": self.source,
            "scores": dict(zip(self.factors, self.scores.tolist(), strict=True)),
            "constants": dict(self.constants),
            "anchors": list(self.anchors),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Target:
        """The target that `as_dict` wrote."""
        scores = record["scores"]
        return cls(
            record["region"],
            record["edition"],
            tuple(scores),
            np.array(list(scores.values()), dtype=np.float64),
            record["source"],
            record["constants"],
            tuple(record["anchors"]),
        )

    def __eq__(self, other: object) -> bool:
        return self.as_dict() == other.as_dict() if isinstance(other, Target) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.region, self.edition, self.factors, self.scores.tobytes(), self.constants, self.anchors))

    def __str__(self) -> str:
        scores = ", ".join(f"{f} {s:g}" for f, s in zip(self.factors, self.scores, strict=True))
        values = dict.fromkeys(self.constants.values())
        constants = (
            f"{next(iter(values)):g}" if len(values) == 1 else ", ".join(f"{c:g}" for c in self.constants.values())
        )
        fitted = f" fitted on {listed(self.anchors)}" if self.anchors else ""
        return f"{self.region}, edition {self.edition}: {scores} (constants {constants}{fitted})"


def edition_named(survey: Survey, name: str) -> Edition:
    """The survey's edition of that name."""
    for edition in survey.published:
        if edition.name == str(name):
            return edition
    if not survey.published:
        raise ValueError(f"survey {survey.id!r} has no published scores; add a [[published]] table to its file")
    raise ValueError(f"unknown edition {name!r} of survey {survey.id!r}; known: {listed(survey.editions)}")


def regions(survey: Survey, edition: str | None = None, complete: bool = False) -> tuple[str, ...]:
    """Names of the regions with published scores; with `complete`, only those that lack no factor in some edition."""
    chosen = survey.published if edition is None else (edition_named(survey, edition),)
    names = dict.fromkeys(r for e in chosen for r in e.scores if not complete or not _missing(survey, e, r))
    return tuple(names)


def published_scores(survey: Survey, region: str, edition: str) -> Array:
    """(factors,) published scores as they stand, missing ones NaN; all NaN where the edition has no such row."""
    row = edition_named(survey, edition).scores.get(find_region(region, regions(survey)), {})
    return np.array([row.get(factor, np.nan) for factor in survey.factors])


def target(survey: Survey, region: str, edition: str | None = None, constants: ConstantsLike = 50.0) -> Target:
    """The published scores of a region as a target; `edition=None` takes the newest one that lacks nothing.

    Raises
    ------
    ValueError
        Unknown region or edition, or missing scores; names what is missing and the editions that have it.
    """
    if not survey.published:
        raise ValueError(f"survey {survey.id!r} has no published scores; add a [[published]] table to its file")
    name = find_region(region, regions(survey))
    complete = [e for e in survey.published if not _missing(survey, e, name)]
    if edition is not None:
        chosen = edition_named(survey, edition)
        if chosen not in complete:
            raise ValueError(f"{name}: edition {chosen.name} lacks {_lacks(survey, chosen, name)}; {_advice(complete)}")
    elif complete:
        chosen = complete[-1]
        log.info("%s: edition %s, the newest with all %s scores", name, chosen.name, len(survey.factors))
    else:
        lacks = "; ".join(f"edition {e.name} lacks {_lacks(survey, e, name)}" for e in survey.published)
        raise ValueError(f"{name}: {lacks}; {_advice(complete)}")
    return Target(
        region=name,
        edition=chosen.name,
        factors=survey.factors,
        scores=np.array([chosen.scores[name][factor] for factor in survey.factors]),
        source=chosen.source,
        constants=dict(zip(survey.factors, constants_array(constants, survey.factors).tolist(), strict=True)),
        anchors=constants.anchors if isinstance(constants, Constants) else (),
    )


def _missing(survey: Survey, edition: Edition, region: str) -> list[str]:
    row = edition.scores.get(region, {})
    return [factor for factor in survey.factors if factor not in row]


def _lacks(survey: Survey, edition: Edition, region: str) -> str:
    missing = _missing(survey, edition, region)
    return "the region" if len(missing) == len(survey.factors) else listed(missing)


def _advice(complete: list[Edition]) -> str:
    if complete:
        return f"use edition {' or '.join(repr(e.name) for e in reversed(complete))}, which lacks nothing"
    return "no edition has them all, so choose another region from survey.regions(complete=True)"


def known_factors(edition: Edition, factors: tuple[str, ...]) -> None:
    """Refuse an edition with a score for a factor the survey does not have."""
    for region, row in edition.scores.items():
        for factor in row:
            if factor not in factors:
                raise ValueError(
                    f"edition {edition.name}, {region}: unknown factor {factor!r}; {nearest(factor, factors)}"
                )
