"""Ways to steer a model without searching; each is a function that returns a Condition."""

from softde.baselines.persona import persona

__all__ = ["persona"]
