"""Surveys as data: items, factor formulas, published scores. Knows no models; numpy and the standard library only."""

from softde.surveys.composites import Pair, Subset
from softde.surveys.factors import FactorModel
from softde.surveys.human import HumanAnswers, Respondents, answers_of, load_human
from softde.surveys.loaders import load_survey, shipped_surveys, survey_languages
from softde.surveys.policy import Projection, Scoring
from softde.surveys.published import Edition, Target
from softde.surveys.regions import Region, find_region, known_regions
from softde.surveys.respondents import Scores
from softde.surveys.scoring import Constants, distance, fit_constants, nulls
from softde.surveys.survey import Factor, Item, Option, Survey, options

__all__ = [
    "Constants",
    "Edition",
    "Factor",
    "FactorModel",
    "HumanAnswers",
    "Item",
    "Option",
    "Pair",
    "Projection",
    "Region",
    "Respondents",
    "Scores",
    "Scoring",
    "Subset",
    "Survey",
    "Target",
    "answers_of",
    "distance",
    "find_region",
    "fit_constants",
    "known_regions",
    "load_human",
    "load_survey",
    "nulls",
    "options",
    "shipped_surveys",
    "survey_languages",
]
