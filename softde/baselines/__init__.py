"""Ways to steer a model without searching; each is a function that returns a Condition."""

from softde.baselines.persona import persona
from softde.baselines.random_prompt import random_prompt

__all__ = ["persona", "random_prompt"]
