"""Surveys as data: items, factor formulas, published scores. Knows no models; numpy and the standard library only."""

from softde.surveys.loaders import load_survey, shipped_surveys
from softde.surveys.published import Edition, Target
from softde.surveys.regions import Region, find_region, known_regions
from softde.surveys.scoring import Constants, distance, fit_constants, nulls
from softde.surveys.survey import Factor, Item, Option, Survey, options

__all__ = [
    "Constants",
    "Edition",
    "Factor",
    "Item",
    "Option",
    "Region",
    "Survey",
    "Target",
    "distance",
    "find_region",
    "fit_constants",
    "known_regions",
    "load_survey",
    "nulls",
    "options",
    "shipped_surveys",
]
