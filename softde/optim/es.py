"""Searches that move one point: OpenAI-ES, simultaneous perturbation (SPSA), and the (1+1) evolution strategy.

Each asks for its start points first; the best of them is the first mean. Then it samples around the mean, and what the
losses say moves the mean. Lengths (``sigma``, ``c``, ``a``, ``lr``) are in units of x.

Losses enter OpenAI-ES as ranks, SPSA as differences relative to the usual one, and the (1+1)-ES as better or worse:
nothing depends on the units of the loss.

References: [ES] Salimans, Ho, Chen, Sidor, Sutskever (2017), arXiv:1703.03864; [A] Kingma, Ba (2015), arXiv:1412.6980;
[S92] Spall (1992), IEEE Trans. Automatic Control 37(3), 332; [S98] Spall (1998), IEEE Trans. Aerospace and Electronic
Systems 34(3), 817; [R] Rechenberg (1973), Evolutionsstrategie; [K] Kern et al. (2004), Natural Computing 3, 77.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from softde.checks import number, put, shown, whole
from softde.optim.base import Info, State, advance, as_losses, as_points, check_ask, check_tell, comparable, describe

EPS = 1e-8  # [A] algorithm 1


@dataclass(frozen=True, eq=False)
class MeanState(State):
    """A search around one point."""

    start: Tensor  # (population, dim) start points until they are told, then (0, dim)
    mean: Tensor  # (dim,)


M = TypeVar("M", bound=MeanState)


# ---- OpenAI-ES -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class OpenAIESState(MeanState):
    """With the running moments of the gradient."""

    m: Tensor  # (dim,)
    v: Tensor  # (dim,); (0,) without Adam


@dataclass(frozen=True)
class OpenAIES:
    """Gradient descent on the smoothed loss, E f(mean + sigma epsilon), estimated from antithetic pairs ([ES]).

    Parameters
    ----------
    population_size : candidates per generation, an even number: mean + sigma epsilon and mean - sigma epsilon.
    sigma : standard deviation of a coordinate around the mean.
    lr : learning rate; with Adam about the step of a coordinate per generation.
    momentum : share of the running mean of gradients that is kept, in [0, 1).
    beta2 : the same for their squares ([A]); None for plain momentum, whose step is lr times the running gradient.
    """

    state_type: ClassVar[type[OpenAIESState]] = OpenAIESState

    population_size: int = 16
    sigma: float = 0.3
    lr: float = 0.1
    momentum: float = 0.9
    beta2: float | None = 0.999

    def __post_init__(self) -> None:
        put(self, {
            "population_size": _even(self.population_size, "population_size"),
            "sigma": _positive(self.sigma, "sigma"),
            "lr": _positive(self.lr, "lr"),
            "momentum": _kept(self.momentum, "momentum"),
            "beta2": None if self.beta2 is None else _kept(self.beta2, "beta2"),
        })  # fmt: skip

    def init(self, points: Any) -> OpenAIESState:
        """Start from points (population_size, dim), float32 or float64."""
        start = as_points(points, self.population_size)
        zero = torch.zeros_like(start[0])
        return OpenAIESState(**_common(start), m=zero, v=(zero[:0] if self.beta2 is None else zero).clone())

    def ask(self, state: OpenAIESState, generator: torch.Generator) -> tuple[Tensor, OpenAIESState]:
        """Candidates to score, (population, dim): first the start points, then pairs, i with i + population / 2."""
        check_ask(self, state, generator)
        first = state.generation == 0
        candidates = state.start.clone() if first else self.propose(state, self.draw(state, generator))
        return candidates, replace(state, asked=True)

    def tell(self, state: OpenAIESState, candidates: Tensor, losses: Any) -> tuple[OpenAIESState, Info]:
        """Move the mean; ``Info`` describes the candidates and counts those better than the best before."""
        check_tell(self, state, candidates)
        losses = as_losses(losses, candidates)
        changes = (
            _chosen(state, candidates, losses) if state.generation == 0 else self._moved(state, candidates, losses)
        )
        return _told(state, candidates, losses, **changes)

    def recommend(self, state: OpenAIESState) -> Tensor:
        """The mean, (dim,): where the loss is noisy, a better answer than the luckiest candidate."""
        return state.mean

    def draw(self, state: OpenAIESState, generator: torch.Generator) -> Float[Tensor, "pairs dim"]:
        """One normal epsilon per pair, on the generator's device."""
        shape = (self.population_size // 2, len(state.mean))
        return torch.randn(shape, generator=generator, dtype=state.mean.dtype, device=generator.device)

    def propose(self, state: OpenAIESState, epsilon: Float[Tensor, "pairs dim"]) -> Tensor:
        """Pairs around the mean: a function of the state and the draws only."""
        return _pairs(state.mean, self.sigma, epsilon)

    def _moved(self, state: OpenAIESState, candidates: Tensor, losses: Tensor) -> dict[str, Tensor]:
        half, t = len(candidates) // 2, state.generation  # t = 1 in the first generation after the start points
        u = centred_ranks(losses)
        epsilon = (candidates[:half] - candidates[half:]) / (2 * self.sigma)
        g = (u[:half] - u[half:]).to(epsilon.dtype) @ epsilon / (len(candidates) * self.sigma)  # [ES] algorithm 2
        m = self.momentum * state.m + (1 - self.momentum) * g
        if self.beta2 is None:
            return {"mean": state.mean - self.lr * m, "m": m}
        v = self.beta2 * state.v + (1 - self.beta2) * g**2
        step = m / (1 - self.momentum**t) / ((v / (1 - self.beta2**t)).sqrt() + EPS)  # [A] algorithm 1
        return {"mean": state.mean - self.lr * step, "m": m, "v": v}


def centred_ranks(losses: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Ranks, from -1/2 for the best to 1/2 for the worst; equal losses, and all that are unscored, share one rank.

    Without ties the shaping of [ES]'s code; there, ties are broken by position, which moves the mean on a plateau.
    """
    y = comparable(losses)
    above = (y[:, None] > y).double().sum(dim=1) + ((y[:, None] == y).double().sum(dim=1) - 1) / 2
    return above / (len(y) - 1) - 0.5


# ---- SPSA ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SPSAState(MeanState):
    """With the usual size of a gradient's coordinate."""

    square: float  # running mean of squares
    weight: float  # of the generations in it; 1 in the end


@dataclass(frozen=True)
class SPSA:
    """Simultaneous perturbation stochastic approximation: two losses give the slope along a random sign vector.

    In generation k = 0, 1, ... the mean moves by a_k g / rms(g), with g the average over pairs of
    (y+ - y-) / (2 c_k) Delta, a_k = a ((A + 1) / (A + k + 1))^alpha and c_k = c / (k + 1)^gamma. Spall's own a is in
    units of x per gradient and has to be found anew for each loss; here g is divided by its running root mean square.

    Parameters
    ----------
    population_size : candidates per generation, an even number: two for each pair.
    a : step of a coordinate in the first generation. c : distance of a coordinate from the mean in the first.
    A : generations during which steps hardly shrink; [S98] proposes a tenth of all.
    alpha, gamma : how fast steps and distances shrink; [S98] gives the defaults.
    memory : share of the running mean of squares that is kept, in [0, 1).
    """

    state_type: ClassVar[type[SPSAState]] = SPSAState

    population_size: int = 8
    a: float = 0.4
    c: float = 0.3
    A: float = 0.0
    alpha: float = 0.602
    gamma: float = 0.101
    memory: float = 0.9

    def __post_init__(self) -> None:
        put(self, {
            "population_size": _even(self.population_size, "population_size"),
            "a": _positive(self.a, "a"),
            "c": _positive(self.c, "c"),
            "memory": _kept(self.memory, "memory"),
        })  # fmt: skip
        for name in ("A", "alpha", "gamma"):
            put(self, {name: number(getattr(self, name), f"{name} as a number of at least 0", lambda v: v >= 0)})

    def init(self, points: Any) -> SPSAState:
        """Start from points (population_size, dim), float32 or float64."""
        return SPSAState(**_common(as_points(points, self.population_size)), square=0.0, weight=0.0)

    def ask(self, state: SPSAState, generator: torch.Generator) -> tuple[Tensor, SPSAState]:
        """Candidates to score, (population, dim): first the start points, then pairs, i with i + population / 2."""
        check_ask(self, state, generator)
        first = state.generation == 0
        candidates = state.start.clone() if first else self.propose(state, self.draw(state, generator))
        return candidates, replace(state, asked=True)

    def tell(self, state: SPSAState, candidates: Tensor, losses: Any) -> tuple[SPSAState, Info]:
        """Move the mean; ``Info`` describes the candidates and counts those better than the best before."""
        check_tell(self, state, candidates)
        losses = as_losses(losses, candidates)
        changes = (
            _chosen(state, candidates, losses) if state.generation == 0 else self._moved(state, candidates, losses)
        )
        return _told(state, candidates, losses, **changes)

    def recommend(self, state: SPSAState) -> Tensor:
        """The mean, (dim,): where the loss is noisy, a better answer than the luckiest candidate."""
        return state.mean

    def gains(self, state: SPSAState) -> tuple[float, float]:
        """(a_k, c_k) of the generation after the state; k = 0 after the start points."""
        k = state.generation - 1
        return self.a * ((self.A + 1) / (self.A + k + 1)) ** self.alpha, self.c / (k + 1) ** self.gamma

    def draw(self, state: SPSAState, generator: torch.Generator) -> Float[Tensor, "pairs dim"]:
        """Delta: a sign for each coordinate of each pair, on the generator's device."""
        shape = (self.population_size // 2, len(state.mean))
        signs = torch.empty(shape, dtype=state.mean.dtype, device=generator.device)
        return signs.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)

    def propose(self, state: SPSAState, delta: Float[Tensor, "pairs dim"]) -> Tensor:
        """Pairs around the mean: a function of the state and the draws only."""
        return _pairs(state.mean, self.gains(state)[1], delta)

    def _moved(self, state: SPSAState, candidates: Tensor, losses: Tensor) -> dict[str, Any]:
        half, (a, c) = len(candidates) // 2, self.gains(state)
        slope = (losses[:half] - losses[half:]) / (2 * c)
        scored = slope.isfinite()  # a pair with one unscored member says nothing
        if not bool(scored.any()):
            return {}
        delta = (candidates[:half] - candidates[half:]) / (2 * c)
        g = slope.where(scored, 0.0).to(delta.dtype) @ delta / int(scored.sum())  # [S92] eq. 2.2, averaged
        square = self.memory * state.square + (1 - self.memory) * float(g.norm()) ** 2 / len(g)
        weight = self.memory * state.weight + (1 - self.memory)
        rms = math.sqrt(square / weight)
        mean = state.mean - a / rms * g if 0 < rms < math.inf else state.mean
        return {"mean": mean, "square": square, "weight": weight}


# ---- (1+1)-ES ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class OnePlusOneESState(MeanState):
    """The mean is the parent, and its loss the best so far."""

    sigma: float


@dataclass(frozen=True)
class OnePlusOneES:
    """The (1+1) evolution strategy: parent plus sigma times a normal vector replaces the parent unless it is worse.

    sigma follows the 1/5 success rule ([R]; [K] for this form): times ``growth`` after a success, divided by its fourth
    root after a failure, so that it stays where one child in five succeeds. A child as good as its parent counts as a
    success: on a loss with plateaus (one greedy answer per item) sigma would otherwise shrink until nothing changes.

    Parameters
    ----------
    population_size : start points, scored first; the best becomes the parent.
    children : candidates per generation after that; more than one make it a (1+children)-ES, whose best child competes
        and whose sigma follows the share of successes.
    sigma : standard deviation of a coordinate in the first generation.
    sigma_max : sigma never exceeds it, however wide a plateau is; None is ten times ``sigma``.
    growth : how fast sigma adapts, above 1.
    """

    state_type: ClassVar[type[OnePlusOneESState]] = OnePlusOneESState

    population_size: int = 16
    children: int = 1
    sigma: float = 0.3
    sigma_max: float | None = None
    growth: float = 1.1

    def __post_init__(self) -> None:
        put(self, {
            "population_size": whole(self.population_size, "population_size", 1),
            "children": whole(self.children, "children", 1),
            "sigma": _positive(self.sigma, "sigma"),
            "sigma_max": None if self.sigma_max is None else _positive(self.sigma_max, "sigma_max"),
            "growth": number(self.growth, "growth, the factor of sigma after a success, above 1", lambda v: v > 1),
        })  # fmt: skip
        if self.sigma_max is not None and self.sigma > self.sigma_max:
            raise ValueError(f"Expected sigma of at most sigma_max, {self.sigma_max!r}, but got {self.sigma!r}.")

    def init(self, points: Any) -> OnePlusOneESState:
        """Start from points (population_size, dim), float32 or float64."""
        return OnePlusOneESState(**_common(as_points(points, self.population_size)), sigma=float(self.sigma))

    def ask(self, state: OnePlusOneESState, generator: torch.Generator) -> tuple[Tensor, OnePlusOneESState]:
        """Candidates to score: first the start points, (population_size, dim), then (children, dim)."""
        check_ask(self, state, generator)
        first = state.generation == 0
        candidates = state.start.clone() if first else self.propose(state, self.draw(state, generator))
        return candidates, replace(state, asked=True)

    def tell(self, state: OnePlusOneESState, candidates: Tensor, losses: Any) -> tuple[OnePlusOneESState, Info]:
        """Select and adapt sigma; ``Info`` describes the parent with its children, and counts those that are better."""
        check_tell(self, state, candidates)
        losses = as_losses(losses, candidates)
        if state.generation == 0:
            return _told(state, candidates, losses, population_size=self.children, **_chosen(state, candidates, losses))
        family = torch.cat([state.mean[None], candidates]), torch.cat([losses.new_tensor([state.best_loss]), losses])
        return _told(state, candidates, losses, family, **self._selected(state, candidates, losses))

    def draw(self, state: OnePlusOneESState, generator: torch.Generator) -> Float[Tensor, "children dim"]:
        """A normal vector for each child, on the generator's device."""
        shape = (self.children, len(state.mean))
        return torch.randn(shape, generator=generator, dtype=state.mean.dtype, device=generator.device)

    def propose(self, state: OnePlusOneESState, normal: Float[Tensor, "children dim"]) -> Tensor:
        """Children: a function of the state and the draws only."""
        return state.mean + state.sigma * normal.to(state.mean.device)

    def _selected(self, state: OnePlusOneESState, candidates: Tensor, losses: Tensor) -> dict[str, Any]:
        y = comparable(losses)
        success = (y <= state.best_loss) & y.isfinite()
        share = float(success.double().mean())
        sigma = min(state.sigma * self.growth ** ((share - 1 / 5) / (4 / 5)), self.sigma_max or 10.0 * self.sigma)
        mean = candidates[int(y.argmin())].clone() if bool(success.any()) else state.mean
        return {"mean": mean, "sigma": sigma}


# ---- what they share -----------------------------------------------------------------------------------------------


def _common(start: Tensor) -> dict[str, Any]:
    """The fields of every MeanState before the first ask."""
    counts = {"generation": 0, "evaluations": 0, "asked": False, "population_size": len(start)}
    return {"best_x": start[0].clone(), "best_loss": math.inf, **counts, "start": start, "mean": start[0].clone()}


def _chosen(state: MeanState, candidates: Tensor, losses: Tensor) -> dict[str, Tensor]:
    """The best start point is the first mean; the first one, if none could be scored."""
    return {"mean": candidates[int(comparable(losses).argmin())].clone(), "start": state.start[:0].clone()}


def _told(
    state: M, candidates: Tensor, losses: Tensor, members: tuple[Tensor, Tensor] | None = None, /, **changes: Any
) -> tuple[M, Info]:
    """The next state and its record, of some members and their losses, or else of the candidates."""
    improved = int((comparable(losses) < state.best_loss).sum())
    state = advance(state, candidates, losses, **changes)
    return state, describe(state, *(members or (candidates, losses)), losses, improved)


def _pairs(mean: Tensor, distance: float, directions: Tensor) -> Tensor:
    steps = distance * directions.to(mean.device)
    return torch.cat([mean + steps, mean - steps])


# ---- bad input -----------------------------------------------------------------------------------------------------


def _positive(value: object, name: str) -> float:
    return number(value, f"{name} as a positive number", lambda v: v > 0)


def _kept(value: object, name: str) -> float:
    return number(value, f"{name}, the share of a running mean that is kept, in [0, 1)", lambda v: 0 <= v < 1)


def _even(value: Any, name: str) -> int:
    members = whole(value, name)
    if members < 2 or members % 2:
        raise ValueError(f"Expected {name} as an even number of at least 2 (pairs), but got {shown(value)}; 16 is one.")
    return members
