"""The settings of a search: made from options, and checked before a model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softde.cli.options import numbers
from softde.cli.printing import say

if TYPE_CHECKING:
    from softde.lm import LM
    from softde.space import PromptSpace

ANY_DIM = 10_000  # what is checked before a model is loaded does not depend on it


def budget_of(
    name: str, strategy: str | None, population: int | None, budget: int | None, readout: str, draws: str
) -> int:
    """How many candidates; refuses settings that cannot work, before anything is loaded."""
    from softde.align import BUDGET, kind_of_readout
    from softde.optim.auto import resolve
    from softde.optim.base import check_budget

    limit = BUDGET if budget is None else budget
    found = optimizer_of(name, strategy, population, limit, ANY_DIM, readout, draws)
    check_budget(resolve(found, ANY_DIM, limit, kind_of_readout(readout_of(readout), draws)).optimizer, limit)
    return limit


def optimizer_of(
    name: str, strategy: str | None, population: int | None, budget: int, dim: int, readout: str, draws: str
) -> Any:
    """The optimiser; its name alone where nothing else was asked for, since `align` knows what the budget is for."""
    from dataclasses import replace

    from softde.align import AUTO, kind_of_readout
    from softde.optim import choose, named

    if strategy is not None and name not in (AUTO, "de"):
        raise ValueError(f"--strategy: only differential evolution has strategies, not {name!r}; use --optimizer de")
    if strategy is None and population is None:
        return name
    if name == AUTO and strategy is None:
        choice = choose(dim, budget, kind_of_readout(readout_of(readout), draws), population)
        if dim != ANY_DIM:
            say(f"softde: {choice.why}")
        return choice.optimizer
    if strategy is None:
        return named(name, dim, budget, population)
    found: Any = named("de", dim, budget)
    size = found.population_size if population is None else population
    return replace(found, strategy=strategy, population_size=size)


def seeds_of(seed: int, seeds: str | None) -> list[int] | None:
    """Several seeds, or None where only one is asked for; refuses what `align` would, before anything is loaded."""
    from softde.align.settings import chosen_seeds

    return None if seeds is None else list(chosen_seeds(seed, numbers(seeds, "seeds")))


def check_stops(
    target_loss: float | None, patience: int | None, max_seconds: float | None, max_tokens: int | None
) -> None:
    from softde.align import Stops

    Stops(target_loss, patience, 0.0, max_seconds, max_tokens)


def readout_of(name: str) -> Any:
    from softde import readouts

    kinds = {
        "argmax": readouts.Argmax, "sampled": readouts.Sampled, "sequence": readouts.SequenceLogprob,
        "generated": readouts.Generated,
    }  # fmt: skip
    return kinds[name]() if name in kinds else None


def side_effects_of(weight: float | None) -> Any:
    from softde.lm.neutral import SideEffects

    return None if weight is None else SideEffects(weight)


def gradient_of(steps: int | None) -> Any:
    from softde.gradient import GradientSteps

    return None if steps is None else GradientSteps(steps)


def check_tokens(num_virtual_tokens: int | None) -> None:
    from softde.space import check_tokens

    if num_virtual_tokens is not None:
        check_tokens(num_virtual_tokens)


def space_of(lm: LM, text: str | None, tokens: int | None, placement: str | None) -> PromptSpace:
    """A space with align's own defaults where nothing was asked for."""
    from softde.space import PromptSpace

    asked: dict[str, Any] = {"num_virtual_tokens": tokens, "placement": placement}
    given = {name: value for name, value in asked.items() if value is not None}
    return PromptSpace.random(lm, **given) if text is None else PromptSpace.from_text(lm, text, **given)
