"""A frozen language model as a function from (plan, soft prompts) to option log-probabilities."""

from softde.lm.engine import Engine, OptionLogprobs
from softde.lm.layout import Plan, Question, make_plan, question_text
from softde.lm.model import LM

__all__ = ["LM", "Engine", "OptionLogprobs", "Plan", "Question", "make_plan", "question_text"]
