"""Optimisers with one contract, ask and tell; they know nothing of language."""

from softde.optim.adaptive import JADE, JDE, JSO, LSHADE, SHADE
from softde.optim.auto import Choice, choose
from softde.optim.base import (
    Bounded,
    Info,
    Informed,
    Optimizer,
    Recommends,
    Scored,
    State,
    Step,
    StopReason,
    generations,
    generator_for,
    state_from_tensors,
    state_to_tensors,
    step,
    stop_reason,
)
from softde.optim.cmaes import CMAES
from softde.optim.de import DE, DEState
from softde.optim.es import SPSA, OnePlusOneES, OpenAIES
from softde.optim.foreign import Foreign
from softde.optim.gauss_newton import GaussNewton
from softde.optim.minimize import MinimizeResult, minimize
from softde.optim.named import NAMES, named
from softde.optim.policies import Screen, TwoStage
from softde.optim.projections import projection
from softde.optim.pso import PSO
from softde.optim.random_search import RandomSearch
from softde.optim.starts import latin_hypercube, opposite, sobol_points
from softde.optim.subspace import Subspace, bbt

__all__ = [
    "CMAES", "DE", "JADE", "JDE", "JSO", "LSHADE", "NAMES", "PSO", "SHADE", "SPSA", "Bounded", "Choice", "DEState",
    "Foreign", "GaussNewton", "Info", "Informed", "MinimizeResult", "OnePlusOneES", "OpenAIES", "Optimizer",
    "RandomSearch", "Recommends", "Scored", "Screen", "State", "Step", "StopReason", "Subspace", "TwoStage", "bbt",
    "choose", "generations", "generator_for", "latin_hypercube", "minimize", "named", "opposite", "projection",
    "sobol_points", "state_from_tensors", "state_to_tensors", "step", "stop_reason",
]  # fmt: skip
