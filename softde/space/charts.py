"""Charts: which embeddings a flat vector x stands for, as offsets from a centre in units of spread.

A chart is chosen for what it leaves out: nothing (`Full`), all but a random subspace (`Projected`), all but a few
directions that the tokens share (`LowRank`), all but mixtures of vocabulary rows (`Convex`). In each, x ~ N(0, 1) moves
embeddings by about one spread, so an optimiser's step sizes mean the same. Every row's bits are the same for any number
of rows, and gradients flow from offsets to x.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from softde.checks import number, put, shown, whole
from softde.optim.projections import KINDS, Projection, nearest, projection, rowwise_product

CERTAIN = 1e-6  # what `Convex.encode` leaves to all other rows together


class Frame(NamedTuple):
    """What offsets are relative to: embeddings = centre + scale · offsets."""

    centre: Float[Tensor, "tokens hidden"]
    scale: float | Float[Tensor, "tokens 1"]

    @property
    def tokens(self) -> int:
        return self.centre.shape[0]

    @property
    def hidden(self) -> int:
        return self.centre.shape[1]


@runtime_checkable
class Chart(Protocol):
    """x (n, dim) ↔ offsets (n, tokens, hidden)."""

    def dim(self, frame: Frame) -> int:
        """Numbers per candidate; ValueError where the chart does not fit the shape."""
        ...

    def offsets(self, x: Tensor, frame: Frame) -> Tensor:
        """x → offsets."""
        ...

    def encode(self, offsets: Tensor, frame: Frame) -> Tensor:
        """Offsets → the x of the nearest point that the chart reaches."""
        ...

    def start(self, n: int, frame: Frame, spread: float, centred: bool, generator: torch.Generator) -> Tensor:
        """Random x (n, dim) whose offsets have about this spread; centred: the first of them is the centre."""
        ...

    def record(self) -> dict[str, Any]:
        """Everything that decides what an x stands for, as plain values."""
        ...


def _noise(n: int, dim: int, spread: float, centred: bool, generator: torch.Generator) -> Tensor:
    x = spread * torch.randn(n, dim, generator=generator)
    if centred:
        x[0] = 0.0
    return x


@dataclass(frozen=True)
class Full:
    """Every number of the embeddings; dim = tokens · hidden."""

    def dim(self, frame: Frame) -> int:
        """Tokens · hidden."""
        return frame.centre.numel()

    def offsets(self, x: Tensor, frame: Frame) -> Tensor:
        """x itself."""
        return x.view(-1, *frame.centre.shape)

    def encode(self, offsets: Tensor, frame: Frame) -> Tensor:
        """Exact."""
        return offsets.flatten(1)

    def start(self, n: int, frame: Frame, spread: float, centred: bool, generator: torch.Generator) -> Tensor:
        """Noise."""
        return _noise(n, self.dim(frame), spread, centred, generator)

    def record(self) -> dict[str, Any]:
        """Its name."""
        return {"name": "full"}


@dataclass(frozen=True)
class Projected:
    """A random subspace of ``intrinsic_dim`` numbers: x A, with A drawn from the seed.

    kind : "gaussian" (Black-Box-Tuning, Sun et al. 2022, §3.1), "sparse" or "fastfood"; see `softde.optim.projections`.
    """

    kind: str
    intrinsic_dim: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        put(self, {"intrinsic_dim": whole(self.intrinsic_dim, "intrinsic_dim"), "seed": whole(self.seed, "seed")})

    @cached_property
    def _made(self) -> dict[int, Projection]:
        return {}

    def projection(self, dim: int) -> Projection:
        """The map to so many numbers, drawn once."""
        if dim not in self._made:
            self._made[dim] = projection(self.kind, self.intrinsic_dim, dim, self.seed)
        return self._made[dim]

    def dim(self, frame: Frame) -> int:
        """Intrinsic dimensions."""
        full = frame.centre.numel()
        if not 1 <= self.intrinsic_dim <= full:
            raise ValueError(f"intrinsic_dim: expected 1 to {full} (tokens × hidden), got {self.intrinsic_dim}")
        return self.intrinsic_dim

    def offsets(self, x: Tensor, frame: Frame) -> Tensor:
        """x A."""
        return self.projection(frame.centre.numel())(x).view(-1, *frame.centre.shape)

    def encode(self, offsets: Tensor, frame: Frame) -> Tensor:
        """Least squares: of a point outside the subspace, about intrinsic_dim / dim of it is left."""
        return nearest(self.projection(frame.centre.numel()), offsets.flatten(1))

    def start(self, n: int, frame: Frame, spread: float, centred: bool, generator: torch.Generator) -> Tensor:
        """Noise within the subspace."""
        return _noise(n, self.dim(frame), spread, centred, generator)

    def record(self) -> dict[str, Any]:
        """Its name and fields."""
        return {"name": "projected", "kind": self.kind, "intrinsic_dim": self.intrinsic_dim, "seed": self.seed}


@dataclass(frozen=True)
class LowRank:
    """Offsets U V / √rank, U (tokens, rank), V (rank, hidden); dim = (tokens + hidden) · rank.

    Start points draw both factors from N(0, spread), so the product has the spread asked for and neither factor is
    nearer to zero than the other. The centre is a random U with V = 0, as in LoRA (Hu et al. 2022), where both would be
    zero: from there a move of either factor alone would change nothing.
    """

    rank: int

    def __post_init__(self) -> None:
        put(self, {"rank": whole(self.rank, "rank")})

    def dim(self, frame: Frame) -> int:
        """(tokens + hidden) · rank."""
        most = min(frame.tokens, frame.hidden)
        if not 1 <= self.rank <= most:
            raise ValueError(f"rank: expected 1 to {most}, the smaller of tokens and hidden size, got {self.rank}")
        return (frame.tokens + frame.hidden) * self.rank

    def _factors(self, x: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
        cut = frame.tokens * self.rank
        return x[:, :cut].view(-1, frame.tokens, self.rank), x[:, cut:].view(-1, self.rank, frame.hidden)

    def offsets(self, x: Tensor, frame: Frame) -> Tensor:
        """U V / √rank, rank by rank: the bits of a batched product depend on the batch."""
        U, V = self._factors(x, frame)
        total = U[:, :, 0, None] * V[:, None, 0]
        for k in range(1, self.rank):
            total = total + U[:, :, k, None] * V[:, None, k]
        return total / self.rank**0.5

    def encode(self, offsets: Tensor, frame: Frame) -> Tensor:
        """The nearest matrix of this rank (Eckart and Young 1936), its singular values shared by both factors."""
        left, size, right = torch.linalg.svd(offsets * self.rank**0.5, full_matrices=False)
        root = size[:, : self.rank].sqrt()
        U, V = left[:, :, : self.rank] * root[:, None], right[:, : self.rank] * root[:, :, None]
        return torch.cat([U.flatten(1), V.flatten(1)], dim=1)

    def start(self, n: int, frame: Frame, spread: float, centred: bool, generator: torch.Generator) -> Tensor:
        """Both factors of standard deviation √spread."""
        x = spread**0.5 * torch.randn(n, self.dim(frame), generator=generator)
        if centred:
            x[0, frame.tokens * self.rank :] = 0.0
        return x

    def record(self) -> dict[str, Any]:
        """Its name and rank."""
        return {"name": "low-rank", "rank": self.rank}


@dataclass(frozen=True, eq=False)
class Convex:
    """Every token a mixture of given rows: softmax(sharpness · x) over them; dim = tokens · rows.

    rows : (rows, hidden) embeddings, of random tokens (`vocabulary_rows`) or of those near a text (`nearest_rows`).
    sharpness : at 0 every mixture is the mean of all rows; at 8 and x ~ N(0, 1) the largest of 256 rows has about
    two thirds of the weight and mixtures three quarters of the rows' spread.
    """

    rows: Float[Tensor, "rows hidden"] = field(repr=False)
    sharpness: float = 8.0

    def __post_init__(self) -> None:
        check_axes(self.rows, "rows: expected two or more, (rows, hidden)", (2, 1))
        put(self, {"sharpness": positive(self.sharpness, "sharpness")})

    def dim(self, frame: Frame) -> int:
        """Tokens · rows."""
        if self.rows.shape[1] != frame.hidden:
            width = self.rows.shape[1]
            raise ValueError(f"rows: expected the hidden size {frame.hidden} as their width, got {width}")
        return frame.tokens * len(self.rows)

    def weights(self, x: Tensor, frame: Frame) -> Tensor:
        """(n, tokens, rows), each token's sum to one."""
        return (self.sharpness * x.view(-1, frame.tokens, len(self.rows))).softmax(dim=-1)

    def offsets(self, x: Tensor, frame: Frame) -> Tensor:
        """(weights @ rows − centre) / scale."""
        mixed = rowwise_product(self.weights(x, frame).flatten(0, 1), self.rows)
        return (mixed.view(-1, *frame.centre.shape) - frame.centre) / frame.scale

    def encode(self, offsets: Tensor, frame: Frame) -> Tensor:
        """The row nearest to each token, with all but a millionth of the weight; other mixtures are not looked for."""
        found = torch.cdist((frame.centre + frame.scale * offsets).flatten(0, 1), self.rows).argmin(dim=1)
        height = math.log((len(self.rows) - 1) / CERTAIN) / self.sharpness
        x = torch.zeros(len(found), len(self.rows)).scatter_(1, found[:, None], height)
        return x.view(len(offsets), -1)

    def start(self, n: int, frame: Frame, spread: float, centred: bool, generator: torch.Generator) -> Tensor:
        """Noise in the weights' logits; a smaller spread is nearer to the mean of all rows."""
        x = _noise(n, self.dim(frame), spread, False, generator)
        if centred:
            x[0] = self.encode(torch.zeros(1, *frame.centre.shape), frame)[0]
        return x

    def record(self) -> dict[str, Any]:
        """Its name, sharpness and the rows' digest."""
        return {"name": "convex", "rows": len(self.rows), "digest": digest(self.rows), "sharpness": self.sharpness}


def check_axes(tensor: object, what: str, least: tuple[int, ...]) -> None:
    """Refuse all but a tensor with so many numbers or more along each axis; ``what`` is wanted."""
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{what}, got {shown(tensor)}: give a tensor")
    if tensor.ndim != len(least) or any(size < few for size, few in zip(tensor.shape, least, strict=True)):
        raise ValueError(f"{what}, got shape {tuple(tensor.shape)}")


def positive(value: object, what: str) -> float:
    """A finite number above 0."""
    return number(value, f"{what}, above 0", lambda v: v > 0)


def digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's float32 bytes, shortened."""
    return hashlib.sha256(tensor.float().contiguous().numpy().tobytes()).hexdigest()[:16]
