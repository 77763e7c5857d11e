"""How trials are made of donors: mutation, crossover and repair, some columns at a time.

Names of strategies are SciPy's. References: [SP] Storn, Price (1997), J. Global Optimization 11, 341; [JADE] Zhang,
Sanderson (2009), IEEE Trans. Evolutionary Computation 13(5), 945.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from softde.optim import base
from softde.optim.draws import Draws


class Strategy(NamedTuple):
    """v = base + F (plus[0] - minus[0] + ...); x is the target, pbest one of the best, r0, r1, ... are donors."""

    base: str
    plus: tuple[str, ...]
    minus: tuple[str, ...]

    @property
    def donors(self) -> int:
        return len({name for name in (self.base, *self.plus, *self.minus) if name.startswith("r")})


STRATEGIES = {
    "best1": Strategy("best", ("r0",), ("r1",)),
    "best2": Strategy("best", ("r0", "r1"), ("r2", "r3")),
    "rand1": Strategy("r0", ("r1",), ("r2",)),  # [SP] eq. 3
    "rand2": Strategy("r0", ("r1", "r2"), ("r3", "r4")),
    "randtobest1": Strategy("r0", ("best", "r1"), ("r0", "r2")),
    "currenttobest1": Strategy("x", ("best", "r0"), ("x", "r1")),
    "currenttopbest1": Strategy("x", ("pbest", "r0"), ("x", "r1")),  # [JADE] eq. 6
}
NAMES = tuple(f"{base}{crossover}" for base in STRATEGIES for crossover in ("bin", "exp"))


class Crossing(NamedTuple):
    """Which units cross, of units of several coordinates."""

    mask: Float[Tensor, "members units"]  # 1 for each unit that the trial takes from the mutant, else 0
    F: Float[Tensor, "units members 1"]  # 0 where a unit does not cross
    base: Int[Tensor, "units members"]  # the strategy's base where a unit crosses, else the target


def members(draws: Draws, order: Int[Tensor, " members"]) -> dict[str, Tensor]:
    """Who is who for each candidate: a strategy's names -> rows; ``order`` lists the best first."""
    n, device = len(draws.elite), order.device
    donors = {f"r{k}": donor for k, donor in enumerate(draws.donors.T)}
    return {"x": torch.arange(n, device=device), "best": order[:1].expand(n), "pbest": order[draws.elite], **donors}


def column_blocks(population: Float[Tensor, "members dim"], unit: int) -> Iterator[slice]:
    """Columns so few that what is computed of them stays in a CPU's cache: whole units, or a part of one."""
    n, dim = population.shape
    numbers = base.BLOCK_NUMBERS if population.device.type == "cpu" else 32 * base.BLOCK_NUMBERS
    if 8 * n * unit < numbers:
        size = numbers // (n * unit) * unit
        return (slice(first, min(first + size, dim)) for first in range(0, dim, size))
    size = -(-unit // -(-n * unit // numbers))
    return (
        slice(first, min(first + size, end))
        for end in range(unit, dim + 1, unit)
        for first in range(end - unit, end, size)
    )


def mutate(
    pool: Float[Tensor, "rows columns"],
    strategy: Strategy,
    index: Mapping[str, Int[Tensor, " members"]],
    F: Float[Tensor, "members ..."],
    w: Float[Tensor, " members"] | None,
    spare: Sequence[Float[Tensor, "members columns"]],
    out: Float[Tensor, "members columns"],
) -> Float[Tensor, "members columns"]:
    """v = base + F (plus - minus), into ``out``, which may be the first of ``spare``.

    Differences are taken first, so that they keep their precision.
    """
    scratch, difference, further = spare
    for k, (plus, minus) in enumerate(zip(strategy.plus, strategy.minus, strict=True)):
        first, second = (scratch, further) if k else (difference, scratch)
        torch.index_select(pool, 0, index[plus], out=first)
        first.sub_(torch.index_select(pool, 0, index[minus], out=second))
        if k:
            difference.add_(first)
        elif w is not None:
            difference.mul_(w.to(out.dtype)[:, None])
    torch.index_select(pool, 0, index[strategy.base], out=out)
    return out.addcmul_(difference, F)


def crossover(draws: Draws, units: slice, out: Float[Tensor, "members units"]) -> Float[Tensor, "members units"]:
    """Into ``out``, 1 for each unit that the trial takes from the mutant, 0 for those it keeps of its parent."""
    if draws.words is not None and draws.threshold is not None:
        return torch.lt(draws.words[:, units], draws.threshold[:, None], out=out)
    assert draws.end is not None and draws.wrap is not None  # binomial or exponential
    position = torch.arange(units.start, units.stop, device=out.device)
    run = (position >= draws.start[:, None]) & (position < draws.end[:, None])
    return out.copy_(run.logical_or_(position < draws.wrap[:, None]))


def repair(
    trials: Float[Tensor, "members columns"],
    parents: Float[Tensor, "members columns"],
    low: Float[Tensor, "..."],
    high: Float[Tensor, "..."],
    handling: str,
    within: Float[Tensor, "members columns"] | None = None,
) -> None:
    """Bring trials back within the bounds, in place; ``within`` is uniform in [0, 1)."""
    if handling == "clip":
        trials.clamp_(low, high)
    elif handling == "bounce":
        trials.copy_(torch.where(trials < low, (low + parents) / 2, trials))  # not lerp: a bound may be infinite
        trials.copy_(torch.where(trials > high, (high + parents) / 2, trials))
    elif handling == "resample" and within is not None:
        outside = (trials < low).logical_or_(trials > high).to(trials.dtype)
        trials.lerp_(torch.lerp(low.expand_as(trials), high.expand_as(trials), within), outside)
