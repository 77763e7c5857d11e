"""Objectives that are cheap and known, shaped like a survey under a soft prompt, and the textbook's functions.

x is in units of the spread of a model's token embeddings, x0 = 0 is where a search begins, and every problem is a value
that follows from (name, dim, seed). Only a few directions matter, as in a model: 256 of a network's first layer, or 20.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from softde.optim import Scored
from softde.surveys import load_survey

UNITS = 256  # of the hidden layer
ANSWERS = 8  # paraphrases or respondents per item
EFFECTIVE = 20  # directions that matter to the textbook's functions
TRUTH = 256  # noisy evaluations whose mean counts as the true loss
CONSTANT = 50.0  # of every index
# Chosen so that x0 and random prompts score as the notes measured them (f(x0) 28 to 33, random ones 34 to 49 by
# read-out, half of the greedy answers flipped): spreads of an item's favourite option, of its logits, of a paraphrase
# and of what the network adds, and how steeply logits fall away from the favourite.
FAVOURITE, BASE, PARAPHRASE, NETWORK, STEEP = 0.25, 0.3, 0.5, 2.0, 0.7


class Problem(Protocol):
    """What is minimised."""

    @property
    def noisy(self) -> bool: ...
    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor | Scored:
        """(population, dim) → (population,), or with what the losses are made of."""

    def true(self, x: Tensor) -> float:
        """The loss of one point (dim,) without luck."""


# ---- survey-like ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Network:
    """A random tanh network from prompts to item logits, the same for all read-outs of a seed."""

    first: Tensor  # (units, dim)
    second: Tensor  # (items · options, units)
    base: Tensor  # (items, options): the answers without a prompt
    paraphrases: Tensor  # (paraphrases, items, options)
    weights: Tensor  # (factors, items): the index formulas
    target: Tensor  # (factors,)

    def logits(self, x: Tensor) -> Tensor:
        """(population, items, options)."""
        hidden = (x.float() @ self.first.T).tanh()
        return (hidden @ self.second.T).view(-1, *self.base.shape) + self.base

    def errors(self, means: Tensor) -> Tensor:
        """Item means (..., items) → signed errors of the indices (..., factors)."""
        return means @ self.weights.T + CONSTANT - self.target

    def distance(self, means: Tensor) -> Tensor:
        """Item means (..., items) → mean absolute error of the indices (...,)."""
        return self.errors(means).abs().mean(dim=-1)


@lru_cache(maxsize=2)
def network(dim: int, seed: int) -> Network:
    """Weights, base answers and a region's published indices, all from the seed."""
    survey = load_survey("vsm13")
    items, options = survey.option_values.shape
    generator = torch.Generator().manual_seed(1_000_003 * seed + dim)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    places = torch.arange(options) - (options - 1) / 2
    favourite = FAVOURITE * normal(items, 1)
    regions = survey.regions(edition="2023", complete=True)
    target = survey.target(regions[seed % len(regions)], edition="2023").scores
    return Network(
        first=normal(UNITS, dim) / dim**0.5,
        second=NETWORK * normal(items * options, UNITS) / UNITS**0.5,
        base=BASE * normal(items, options) - STEEP * (places - favourite) ** 2,
        paraphrases=PARAPHRASE * normal(ANSWERS, items, options),
        weights=torch.from_numpy(np.array(survey.weights)).float(),
        target=torch.from_numpy(np.array(target)).float(),
    )


def greedy(logits: Tensor) -> Tensor:
    """(..., items, options) → (..., items): number of the likeliest option, from 1."""
    return logits.argmax(dim=-1) + 1.0


def expected(logits: Tensor) -> Tensor:
    """(..., items, options) → (..., items): expected number of the option."""
    return logits.softmax(dim=-1) @ torch.arange(1.0, logits.shape[-1] + 1)


def sampled(logits: Tensor, generator: torch.Generator) -> Tensor:
    """(population, items, options) → (population, items): mean number over respondents who draw."""
    cumulative = logits.softmax(dim=-1).cumsum(dim=-1)[..., :-1]
    draws = torch.rand((*logits.shape[:-1], ANSWERS), generator=generator)
    return 1 + (draws[..., None] > cumulative[..., None, :]).sum(dim=-1).float().mean(dim=-1)


@dataclass(frozen=True, eq=False)
class SurveyLike:
    """The survey's loss under one read-out: argmax1, argmax8, soft or sample8."""

    network: Network
    readout: str

    @property
    def noisy(self) -> bool:
        return self.readout == "sample8"

    def __call__(self, x: Tensor, generator: torch.Generator) -> Scored:
        """(population, dim) → losses (population,) and the errors they are made of; only sample8 draws."""
        errors = self.network.errors(self.means(self.network.logits(x), generator))
        return Scored(errors.abs().mean(dim=-1), errors)

    def means(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Item means (population, items)."""
        if self.readout == "argmax8":
            return greedy(logits[:, None] + self.network.paraphrases).mean(dim=1)
        if self.readout == "argmax1":
            return greedy(logits)
        return expected(logits) if self.readout == "soft" else sampled(logits, generator)

    def true(self, x: Tensor) -> float:
        """The mean loss of many surveys, each with its own respondents, the same for all points."""
        logits = self.network.logits(x[None]).expand(TRUTH if self.noisy else 1, -1, -1)
        return float(self.network.distance(self.means(logits, torch.Generator().manual_seed(0))).mean())


# ---- the textbook's ------------------------------------------------------------------------------------------------


def sphere(z: Tensor) -> Tensor:
    return (z**2).sum(dim=1)


def rosenbrock(z: Tensor) -> Tensor:
    y = z + 1
    return (100 * (y[:, 1:] - y[:, :-1] ** 2) ** 2 + (1 - y[:, :-1]) ** 2).sum(dim=1)


def rastrigin(z: Tensor) -> Tensor:
    y = 2 * z
    return (y**2 - 10 * (2 * math.pi * y).cos() + 10).sum(dim=1)


def ackley(z: Tensor) -> Tensor:
    y = 4 * z
    waves = (2 * math.pi * y).cos().mean(dim=1).exp()
    return -20 * (-0.2 * (y**2).mean(dim=1).sqrt()).exp() - waves + 20 + math.e


@dataclass(frozen=True, eq=False)
class LowEffective:
    """f(Qx − y), with orthonormal rows Q (k, dim) and y ~ N(0, 1): the minimum, 0, is √k from x0."""

    fn: Callable[[Tensor], Tensor]
    Q: Tensor
    y: Tensor

    @property
    def noisy(self) -> bool:
        return False

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """(population, dim) → (population,); nothing is drawn."""
        return self.fn((x.float() @ self.Q.T - self.y).double())

    def true(self, x: Tensor) -> float:
        return float(self(x[None], torch.Generator()))


@lru_cache(maxsize=2)
def rotation(dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """Q (k, dim) and y (k,)."""
    generator = torch.Generator().manual_seed(2_000_003 * seed + dim)
    columns = torch.randn(dim, min(EFFECTIVE, dim), generator=generator)
    Q = torch.linalg.qr(columns).Q.T.contiguous()
    return Q, torch.randn(len(Q), generator=generator)


# ---- all of them ---------------------------------------------------------------------------------------------------

READOUTS = ("argmax8", "argmax1", "soft", "sample8")
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sphere": sphere, "rosenbrock": rosenbrock, "rastrigin": rastrigin, "ackley": ackley,
}  # fmt: skip
PROBLEMS = (*READOUTS, *FUNCTIONS)


def make(name: str, dim: int, seed: int) -> Problem:
    """The problem of a name: a read-out of the survey-like objective, or a function."""
    if name in READOUTS:
        return SurveyLike(network(dim, seed), name)
    return LowEffective(FUNCTIONS[name], *rotation(dim, seed))


def starts(dim: int, seed: int, n: int, spread: float) -> Tensor:
    """Start points (n, dim): x0, then noise around it; a smaller number is the beginning of a larger one."""
    generator = torch.Generator().manual_seed(3_000_017 * seed + dim)
    points = torch.stack([torch.randn(dim, generator=generator) for _ in range(n)]) * spread
    points[0] = 0.0
    return points
