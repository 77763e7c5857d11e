"""What is random about a generation of differential evolution: donors, parameters, and what crosses over.

References: [JADE] Zhang, Sanderson (2009), IEEE Trans. Evolutionary Computation 13(5), 945.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int16
from torch import Tensor

from softde.optim import base, memory


@dataclass(frozen=True, eq=False)
class Draws:
    """Everything random about one generation. A unit is one coordinate, or several that cross over together."""

    donors: Int[Tensor, "members donors"]  # distinct, none of them the target; beyond the members: the archive's
    elite: Int[Tensor, " members"]  # rank of each candidate's pbest, 0 the best
    F: Float[Tensor, " members"]
    CR: Float[Tensor, " members"]
    start: Int[Tensor, " members"]  # the unit that always comes from v; an exponential run starts there
    w: Float[Tensor, " members"] | None = None
    end: Int[Tensor, " members"] | None = None  # exponential: units from start up to end cross, and those below wrap
    wrap: Int[Tensor, " members"] | None = None
    words: Int16[Tensor, "members units"] | None = None  # binomial: units whose word is below the threshold cross
    threshold: Int16[Tensor, " members"] | None = None
    jitter: Int16[Tensor, "members dim"] | None = None  # uniform, one half of 2**16 on either side of zero
    within: Float[Tensor, "members dim"] | None = None  # uniform in [0, 1), for what has left its bounds
    fresh: Float[Tensor, "new dim"] | None = None  # normal, for members that are given up
    keys: Float[Tensor, " rows"] | None = None  # uniform: who stays in an archive that overflows

    def to(self, device: torch.device) -> Draws:
        """The same draws beside their population."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return Draws(**{name: value.to(device) for name, value in values.items() if value is not None})


def distinct_donors(n: int, k: int, generator: torch.Generator) -> Int[Tensor, "members donors"]:
    """For each of n targets, k members in random order, distinct and not the target: the k smallest of uniform keys."""
    keys = torch.rand((n, n), generator=generator, dtype=torch.float64, device=generator.device)
    return keys.fill_diagonal_(math.inf).topk(k, dim=1, largest=False).indices


def donors_with_archive(n: int, archived: int, generator: torch.Generator) -> Int[Tensor, "members 2"]:
    """For each of n targets, a member r1, and r2 from the members and the archive: distinct and not the target."""
    target = torch.arange(n, device=generator.device)
    r1 = torch.randint(n - 1, (n,), generator=generator, device=generator.device)
    r1 = r1 + (r1 >= target)  # counting past the target keeps the others equally likely
    r2 = torch.randint(n + archived - 2, (n,), generator=generator, device=generator.device)
    r2 = r2 + (r2 >= torch.minimum(target, r1))
    return torch.stack([r1, r2 + (r2 >= torch.maximum(target, r1))], dim=1)


def random_words(n: int, dim: int, generator: torch.Generator) -> Int16[Tensor, "members dim"]:
    """Uniform 16-bit integers, four from each 64-bit draw.

    On a CPU they are NumPy's SFC64, seeded by the generator: it takes a third of the time of torch's Mersenne twister,
    which would be the longest part of a generation.
    """
    wide = memory.empty((-(-n * dim // 4),), torch.int64, generator.device)
    if generator.device.type == "cpu":
        bits = np.random.SFC64(int(torch.randint(2**63 - 1, (1,), generator=generator, device="cpu")))
        for part in wide.split(base.BLOCK_NUMBERS):
            part.copy_(torch.from_numpy(bits.random_raw(len(part)).view(np.int64)))
    else:
        wide.random_(-(2**63), None, generator=generator)
    return wide.view(torch.int16)[: n * dim].view(n, dim)


def binomial(
    CR: Float[Tensor, " members"],
    u: Float[Tensor, " members"],
    start: Int[Tensor, " members"],
    words: Int16[Tensor, "members units"],
) -> Int16[Tensor, " members"]:
    """The thresholds below which a unit's word makes it cross: each with probability CR, always ``start``.

    CR is rounded to 16 bits, up or down at random (by ``u``), so that the mean rate is CR exactly ([JADE] eq. 4).
    ``words`` change at ``start``, and in rows in which all units cross or none, which no threshold of 16 bits says.
    """
    level = (CR * 2**16 + u).floor() - 2**15
    words.index_fill_(0, (level <= -(2**15)).nonzero().flatten(), 2**15 - 1)
    words.index_fill_(0, (level >= 2**15).nonzero().flatten(), -(2**15))
    words.scatter_(1, start[:, None], -(2**15))
    return level.clamp(1 - 2**15, 2**15 - 1).to(torch.int16)


def exponential(CR: Float[Tensor, " members"], u: Float[Tensor, " members"], units: int) -> Int[Tensor, " members"]:
    """Lengths of runs, each longer with probability CR: P(length >= k) = CR^(k - 1) for k <= units."""
    return 1 + ((1 - u).log() / CR.log().clamp(max=-1e-300)).floor().clamp(max=units - 1).long()


def crossing(
    scheme: str,
    CR: Float[Tensor, " members"],
    u: Float[Tensor, " members"],
    start: Int[Tensor, " members"],
    units: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Fields of ``Draws`` that say which units cross; ``start`` always does."""
    if scheme.endswith("exp"):
        end = start + exponential(CR, u, units)
        return {"end": end, "wrap": end - units}
    words = random_words(len(CR), units, generator)
    return {"threshold": binomial(CR, u, start, words), "words": words}
