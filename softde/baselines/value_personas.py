"""Sampled value personas: a panel of people of one region, each with a value profile that is drawn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from softde.baselines.cross_culture import row_of
from softde.baselines.description import in_words, levels, published
from softde.baselines.wording import Pole, fill, spoken, wording
from softde.checks import whole
from softde.condition import Condition, Panel
from softde.surveys import Survey, Target
from softde.surveys.human import HumanAnswers
from softde.surveys.scoring import Array, by_factor

DRAWN = 200  # people per region that are drawn where only shares are known


def value_personas(
    region: str,
    human: HumanAnswers,
    members: int = 20,
    seed: int = 0,
    *,
    poles: Mapping[str, Pole] | None = None,
    line: str | None = None,
    template: str | None = None,
    language: str | None = None,
) -> Panel:
    """A panel of a region's respondents, each described by the values that respondent has; their answers are averaged.

    After Abels et al. (arXiv 2605.16193), without their calibration: respondents are drawn by weight and with
    replacement; factor scores of each, by the formulas of `human.survey`, are told in five levels by their rank among
    all respondents of all regions in `human`. So regions have to be compared with others: load several. Where only
    option shares are known, people are drawn item by item as if answers were independent, which loses how values go
    together.

    Parameters
    ----------
    region : known to `human`, by name or code; in the sentence stands its name.
    human : answers to a survey with factors, such as "iw"; another than the asked one, or its items are given away.
    members : how many people. seed : which.
    poles, line, language : as in `description`. template : with the place {values}, and {region} if you like; None is
        `wording(language).value_persona`.

    Raises
    ------
    ValueError
        A region without human answers, a survey without factors, nobody with all scores.
    """
    row, people = row_of(human, region), whole(members, "members", 1)
    survey = human.survey
    random = np.random.default_rng(whole(seed, "seed", 0))
    regions, weights, scores = _scored(human, random)
    own = (regions == human.regions[row]) & ~np.isnan(scores).any(1) & (weights > 0)
    if not own.any():
        raise ValueError(
            f"nobody of {human.regions[row]} has scores on all factors of survey {survey.id!r}; the answers lack items "
            "that these need"
        )
    drawn = random.choice(np.flatnonzero(own), size=people, p=weights[own] / weights[own].sum())
    return _panel(region, survey, scores[drawn], scores, poles, line, template, language)


def personas_around(
    region: str,
    target: Target,
    survey: Survey,
    spread: float | Mapping[str, float],
    members: int = 20,
    seed: int = 0,
    *,
    reference: npt.ArrayLike | None = None,
    poles: Mapping[str, Pole] | None = None,
    line: str | None = None,
    template: str | None = None,
    language: str | None = None,
) -> Panel:
    """The same without human answers: profiles drawn around a target's scores, normal and independent by factor.

    spread : standard deviation of people's scores, one number or one per factor; published scores do not tell it.
    reference : what levels are told by, as in `description`.
    """
    deviation = by_factor(spread, survey.factors, "spread")
    if (deviation < 0).any():
        raise ValueError(f"spread: expected standard deviations from 0 up, got {spread!r}")
    others = published(target, survey) if reference is None else np.asarray(reference, dtype=np.float64)
    noise = np.random.default_rng(whole(seed, "seed", 0)).standard_normal(
        (whole(members, "members", 1), len(survey.factors))
    )
    return _panel(region, survey, target.scores + noise * deviation, others, poles, line, template, language)


def _panel(
    region: str,
    survey: Survey,
    scores: Array,
    reference: Array,
    poles: Mapping[str, Pole] | None,
    line: str | None,
    template: str | None,
    language: str | None,
) -> Panel:
    language = language or survey.language
    texts = wording(language)
    text, line = texts.value_persona if template is None else template, line or texts.line
    places = {"region": spoken(region, language)}
    made = [
        Condition(
            fill(text, ("values",), {**places, "values": in_words(survey, level, texts, poles or {}, line)}),
            name=f"value persona {n}",
        )
        for n, level in enumerate(levels(scores, reference, survey), start=1)
    ]
    return Panel(tuple(made), "value personas")


def _scored(human: HumanAnswers, random: np.random.Generator) -> tuple[npt.NDArray[np.str_], Array, Array]:
    """(people,) regions and weights, (people, factors) scores: of the respondents, or of people drawn from shares."""
    survey, known = human.survey, human.respondents
    if known is not None:
        return known.regions, known.weights, survey.score_respondents(known.values).per_respondent
    drawn = [_draw(survey, shares, random) for shares in human.shares]
    regions = np.repeat(np.array(human.regions), DRAWN)
    return regions, np.ones(len(regions)), survey.score_respondents(np.concatenate(drawn)).per_respondent


def _draw(survey: Survey, shares: Array, random: np.random.Generator) -> Array:
    """(DRAWN, items) option values of people drawn from (items, options) shares, NaN where there are none."""
    reached = np.cumsum(np.nan_to_num(shares), axis=-1)  # (items, options)
    last = np.array([len(item.options) - 1 for item in survey.items])
    number = np.minimum((random.random((DRAWN, len(last), 1)) >= reached).sum(-1), last)
    values = np.take_along_axis(survey.option_values, number.T, axis=1).T
    values[:, np.isnan(shares).all(-1)] = np.nan
    return np.asarray(values)
