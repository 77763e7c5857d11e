"""A frozen language model as a function from (plan, soft prompts) to option log-probabilities."""

from softde.lm.engine import Engine, OptionLogprobs
from softde.lm.layout import Plan, Question, make_plan
from softde.lm.model import LM
from softde.lm.template import PLACEMENTS, question_text

__all__ = ["LM", "PLACEMENTS", "Engine", "OptionLogprobs", "Plan", "Question", "make_plan", "question_text"]
