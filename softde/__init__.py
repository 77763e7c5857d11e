"""softde: align a frozen language model with published survey scores by searching a soft prompt without gradients.

Public names are imported on first use: ``import softde`` is instant, and ``import softde.surveys`` does not load torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softde import baselines, reproduce
    from softde.abilities import abilities, load_quiz
    from softde.abilities.pareto import pareto
    from softde.abilities.written import written
    from softde.administer import Responses, administer
    from softde.align import Result, Results, align
    from softde.cluster import RayWorkers
    from softde.compare import Entry, Exam, compare, compare_methods
    from softde.condition import Condition, Panel
    from softde.design import Design
    from softde.gradient import GradientSteps
    from softde.halving import Halving
    from softde.joint import align_joint
    from softde.lm import LM
    from softde.lm.neutral import SideEffects
    from softde.objective import AlignmentLoss
    from softde.optim import CMAES, DE, JSO, LSHADE, PSO, SHADE, Screen, Subspace, bbt, minimize
    from softde.prompt import SoftPrompt
    from softde.readouts import Argmax, Expected, Generated, Sampled, SequenceLogprob
    from softde.space import Convex, LowRank, Projected, PromptSpace, interpolate
    from softde.surveys import Survey, Target, load_human, load_survey
    from softde.surveys.examples import Example, Examples
    from softde.surveys.targets import CultureSPATarget, MeansTarget, ScoresTarget, SharesTarget

__version__ = "0.1.0"
__all__ = [
    "CMAES",
    "DE",
    "JSO",
    "LM",
    "LSHADE",
    "PSO",
    "SHADE",
    "AlignmentLoss",
    "Argmax",
    "Condition",
    "Convex",
    "CultureSPATarget",
    "Design",
    "Entry",
    "Exam",
    "Example",
    "Examples",
    "Expected",
    "Generated",
    "GradientSteps",
    "Halving",
    "LowRank",
    "MeansTarget",
    "Panel",
    "Projected",
    "PromptSpace",
    "RayWorkers",
    "Responses",
    "Result",
    "Results",
    "Sampled",
    "ScoresTarget",
    "Screen",
    "SequenceLogprob",
    "SharesTarget",
    "SideEffects",
    "SoftPrompt",
    "Subspace",
    "Survey",
    "Target",
    "abilities",
    "administer",
    "align",
    "align_joint",
    "baselines",
    "bbt",
    "compare",
    "compare_methods",
    "interpolate",
    "load_human",
    "load_quiz",
    "load_survey",
    "minimize",
    "pareto",
    "reproduce",
    "written",
]

_HOMES = {
    "abilities": ("abilities", "load_quiz", "pareto", "written"),
    "administer": ("Responses", "administer"),
    "align": ("Result", "Results", "align"),
    "cluster": ("RayWorkers",),
    "compare": ("Entry", "Exam", "compare", "compare_methods"),
    "condition": ("Condition", "Panel"),
    "design": ("Design",),
    "lm": ("LM",),
    "gradient": ("GradientSteps",),
    "joint": ("align_joint",),
    "halving": ("Halving",),
    "lm.neutral": ("SideEffects",),
    "objective": ("AlignmentLoss",),
    "optim": ("CMAES", "DE", "JSO", "LSHADE", "PSO", "SHADE", "Screen", "Subspace", "bbt", "minimize"),
    "prompt": ("SoftPrompt",),
    "readouts": ("Argmax", "Expected", "Generated", "Sampled", "SequenceLogprob"),
    "space": ("Convex", "LowRank", "Projected", "PromptSpace", "interpolate"),
    "surveys": ("Survey", "Target", "load_human", "load_survey"),
    "surveys.examples": ("Example", "Examples"),
    "surveys.targets": ("CultureSPATarget", "MeansTarget", "ScoresTarget", "SharesTarget"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in ("baselines", "reproduce"):
        return import_module(f"softde.{name}")
    if name in _HOME:
        value = getattr(import_module(f"softde.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    from softde.surveys.values import nearest

    raise AttributeError(f"softde has no public name {name!r}; {nearest(name, __all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Package(ModuleType):
    """Keeps `softde.align` the verb: importing the module `softde.align` would put the module in its place."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in _HOME):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
