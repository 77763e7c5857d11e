"""Factor scores in words: the model is told where a region stands on each factor of its target."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from softde.baselines.wording import Pole, Wording, fill, spoken, wording
from softde.condition import Condition
from softde.surveys import Survey, Target
from softde.surveys.scoring import Array
from softde.surveys.values import listed, nearest

# A score's rank among those it is compared with, from 0 to 1, where the next of the five levels begins.
BOUNDS = (0.1, 0.35, 0.65, 0.9)
FEWEST = 10  # scores to compare with; among fewer, the outer levels are hardly ever reached


def description(
    region: str,
    target: Target,
    survey: Survey,
    *,
    reference: npt.ArrayLike | None = None,
    poles: Mapping[str, Pole] | None = None,
    line: str | None = None,
    template: str | None = None,
    language: str | None = None,
) -> Condition:
    """A system text that says in words how the target's factor scores compare with those of other regions.

    It gives the model what a search aims at, so it shows how far plain words go. Each factor gets one of five levels by
    the rank of its score among the published ones: very low below 10 %, low below 35, medium to 65, high to 90, very
    high above.

    Parameters
    ----------
    region : as it stands in the sentence.
    reference : (regions, factors) scores to compare with, NaN for missing; None takes every region with published
        scores, in the target's edition where that has them, since an edition may have few regions.
    poles : factor id → words of its own, for factors that have none in the language or should have others.
    line : one factor, with the places {name} and {level}; None is `wording(language).line`. The longer
        `wording(language).pole_line` has {pole}, too: what stands at that end of a factor of Hofstede's or of the
        Inglehart-Welzel map, or of one in `poles`.
    template : a text with the place {values}, and {region} if you like; None is `wording(language).description`.
    language : None is the survey's.

    Raises
    ------
    ValueError
        No published scores to compare with, no words for a factor in the language, a place is missing.
    """
    texts = wording(language or survey.language)
    if target.factors != survey.factors:
        raise ValueError(
            f"target has factors {listed(target.factors)}, but survey {survey.id!r} has {listed(survey.factors)}; give "
            "the survey that the target belongs to"
        )
    scores = published(target, survey) if reference is None else np.asarray(reference, dtype=np.float64)
    values = in_words(survey, levels(target.scores[None], scores, survey)[0], texts, poles or {}, line or texts.line)
    text = texts.description if template is None else template
    places = {"region": spoken(region, language or survey.language), "values": values}
    return Condition(fill(text, ("values",), places), name="description")


def published(target: Target, survey: Survey) -> Array:
    """(regions, factors) scores of all editions, NaN where missing: the target's own edition first, then newer ones."""
    if not survey.published:
        raise ValueError(
            f"survey {survey.id!r} has no published scores to compare with; give reference=, scores of other regions"
        )
    rows: dict[str, dict[str, float]] = {}
    for edition in sorted(survey.published, key=lambda edition: edition.name == target.edition):  # later ones win
        for region, scores in edition.scores.items():
            rows.setdefault(region, {}).update(scores)
    return np.array([[row.get(factor, np.nan) for factor in survey.factors] for row in rows.values()])


def levels(scores: Array, reference: Array, survey: Survey) -> npt.NDArray[np.int64]:
    """(people, factors) scores → levels from 0, very low, to 4, by their rank among (others, factors) scores.

    Of a score that is there already, half count as below it.
    """
    if reference.ndim != 2 or reference.shape[1] != len(survey.factors):
        raise ValueError(f"reference: expected (regions, {len(survey.factors)} factors), got shape {reference.shape}")
    there = (~np.isnan(reference)).sum(0)
    for factor, count in zip(survey.factors, there, strict=True):
        if count < FEWEST:
            raise ValueError(f"reference: expected {FEWEST} scores or more of factor {factor}, got {count}; give more")
    below, same = (reference < scores[:, None]).sum(1), (reference == scores[:, None]).sum(1)
    return np.searchsorted(BOUNDS, (below + same / 2) / there, side="right")


def in_words(survey: Survey, level: npt.NDArray[np.int64], texts: Wording, poles: Mapping[str, Pole], line: str) -> str:
    """Each factor's line, one after the other."""
    for given in poles:
        if given not in survey.factors:
            raise ValueError(f"poles: survey {survey.id!r} has no factor {given!r}; {nearest(given, survey.factors)}")
    parts = []
    for factor, n in zip(survey.factor_models, level.tolist(), strict=True):
        pole = poles.get(factor.id) or texts.factors.get(factor.name) or _by_name(factor.name or factor.id, texts)
        places = {"name": pole.name, "level": texts.levels[n]}
        if "{pole}" in line:
            places["pole"] = _end(pole, n, texts)
        parts.append(fill(line, ("name", "level"), places))
    return texts.separator.join(parts)


def _by_name(name: str, texts: Wording) -> Pole:
    if texts is not wording("en"):
        raise ValueError(f"factor {name!r} has no words in this language; give poles= with a Pole of yours")
    return Pole(name)


def _end(pole: Pole, level: int, texts: Wording) -> str:
    if not (pole.low and pole.high):
        raise ValueError(
            f"factor {pole.name!r} has no words for its ends; give poles= with a Pole that has low and high, or a line "
            "without {pole}"
        )
    middle = len(texts.levels) // 2
    if level == middle:
        return fill(texts.between, ("low", "high"), {"low": pole.low, "high": pole.high})
    return pole.low if level < middle else pole.high
