"""Ways to steer a model without searching; each is a function that returns a Condition."""

from softde.baselines.chrf import chrf
from softde.baselines.combined import combined
from softde.baselines.cross_culture import cross_culture, region_similarity, similar_regions
from softde.baselines.description import description
from softde.baselines.persona import persona
from softde.baselines.random_prompt import random_prompt
from softde.baselines.self_alignment import self_alignment
from softde.baselines.sequential import sequential
from softde.baselines.value_personas import personas_around, value_personas
from softde.baselines.wording import Pole, Wording, languages, spoken, wording

__all__ = [
    "Pole",
    "Wording",
    "chrf",
    "combined",
    "cross_culture",
    "description",
    "languages",
    "persona",
    "personas_around",
    "random_prompt",
    "region_similarity",
    "self_alignment",
    "sequential",
    "similar_regions",
    "spoken",
    "value_personas",
    "wording",
]
