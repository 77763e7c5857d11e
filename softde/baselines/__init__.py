"""Ways to steer a model, prompted or trained; each function returns a Condition, a Panel, or what it trained."""

from softde.baselines import culture_spa
from softde.baselines.chrf import chrf
from softde.baselines.combined import combined
from softde.baselines.cross_culture import cross_culture, region_similarity, similar_regions
from softde.baselines.description import description
from softde.baselines.gradient_oracle import gradient_oracle
from softde.baselines.persona import persona
from softde.baselines.random_prompt import random_prompt
from softde.baselines.rounds import Rounds
from softde.baselines.searched import searched
from softde.baselines.self_alignment import self_alignment
from softde.baselines.sequential import sequential
from softde.baselines.trained import Trained
from softde.baselines.value_personas import personas_around, value_personas
from softde.baselines.wording import Pole, Wording, languages, spoken, wording

__all__ = [
    "Pole",
    "Rounds",
    "Trained",
    "Wording",
    "chrf",
    "combined",
    "cross_culture",
    "culture_spa",
    "description",
    "gradient_oracle",
    "languages",
    "persona",
    "personas_around",
    "random_prompt",
    "region_similarity",
    "searched",
    "self_alignment",
    "sequential",
    "similar_regions",
    "spoken",
    "value_personas",
    "wording",
]
