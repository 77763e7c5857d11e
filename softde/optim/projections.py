"""Random linear maps from a few numbers to many: x = z A, A (intrinsic, dim) drawn from a seed.

Three kinds, all scaled so that z ~ N(0, I) moves every coordinate of x by about one:

- "gaussian": A ~ N(0, 1/d) (Black-Box-Tuning, Sun et al. 2022, §3.1). One matrix product; stored while it fits.
- "sparse": every coordinate of x is the sum of a few coordinates of z with signs (Achlioptas 2003; the blocks of Kane
  and Nelson 2014; with one non-zero the count sketch of Charikar et al. 2002). O(dim) per vector.
- "fastfood": stacked H G Π H B with fast Walsh-Hadamard transforms (Le, Sarlós and Smola 2013). O(dim · log d) per
  vector, and as dense as the Gaussian.

The bits of a row do not depend on how many rows are mapped with it: a search that is resumed, batched otherwise or
spread over processes sees the same candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from softde.checks import shown, whole

KINDS = ("gaussian", "sparse", "fastfood")
LIMIT = 2**28  # numbers of a Gaussian matrix that are kept, 1 GiB; a larger one is drawn anew for every product
BLOCK = 2**21  # numbers of a matrix that all rows pass before the next: 8 MiB, which stays in a CPU's last cache
NONZEROS = 8  # of every coordinate in a sparse projection


class Projection(Protocol):
    """x = z A; differentiable with respect to z, once."""

    @property
    def intrinsic_dim(self) -> int: ...
    @property
    def dim(self) -> int: ...
    def __call__(self, z: Float[Tensor, "n intrinsic"]) -> Float[Tensor, "n dim"]: ...
    def adjoint(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n intrinsic"]: ...


def projection(kind: str, intrinsic_dim: int, dim: int, seed: int = 0) -> Projection:
    """The random map of a kind, "gaussian", "sparse" or "fastfood"; the same for the same seed.

    Called with z (n, intrinsic_dim) it gives x = z A, (n, dim) float32. ``adjoint(x)`` is the scaled transpose
    (intrinsic_dim / dim) · x Aᵀ: since A Aᵀ ≈ (dim / intrinsic_dim) · I, it is the z of the nearest point up to a
    relative error of about √(intrinsic_dim / dim); `nearest` solves for that z exactly.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {shown(kind)}")
    made: tuple[type[Gaussian], type[Sparse], type[Fastfood]] = (Gaussian, Sparse, Fastfood)
    return made[KINDS.index(kind)](intrinsic_dim, dim, whole(seed, "seed"))


def nearest(project: Projection, x: Float[Tensor, "n dim"], steps: int = 50) -> Float[Tensor, "n intrinsic"]:
    """The z whose x is nearest: (A Aᵀ) z = A x by conjugate gradients, every row on its own.

    A Gaussian A with dim ≥ 4 · intrinsic_dim needs about two dozen steps in float32; a row that is solved stays.
    """
    z = torch.zeros(len(x), project.intrinsic_dim, dtype=x.dtype, device=x.device)
    residual = project.adjoint(x)
    direction, size = residual, residual.square().sum(1, keepdim=True)
    enough = 1e-14 * size
    for _ in range(steps):
        if bool((size <= enough).all()):
            break
        image = project.adjoint(project(direction))
        curvature = (direction * image).sum(1, keepdim=True)
        step = torch.where(size > enough, size / curvature.where(curvature > 0, 1), 0)
        z, residual = z + step * direction, residual - step * image
        new = residual.square().sum(1, keepdim=True)
        direction, size = residual + new / size.where(size > 0, 1) * direction, new
    return z


def rowwise_product(z: Float[Tensor, "n k"], matrix: Float[Tensor, "k m"]) -> Float[Tensor, "n m"]:
    """z @ matrix, every row with the bits of ``row @ matrix``; differentiable with respect to z.

    The last bits of a matrix product depend on its number of rows, those of a product with one vector do not. Every
    row passes a block of columns while that is in the cache: about twice the time of one product of all rows.
    """
    return _apply(z, _Matrix(matrix))


# ---- dense ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Checked:
    """What all kinds have."""

    intrinsic_dim: int
    dim: int
    seed: int = 0

    def __post_init__(self) -> None:
        small, large = whole(self.intrinsic_dim, "intrinsic_dim"), whole(self.dim, "dim")
        if not 1 <= small <= large:
            raise ValueError(
                f"intrinsic_dim: expected 1 to {large}, the dimension that is projected to, got {small}; lower it or "
                "search the full space"
            )
        object.__setattr__(self, "intrinsic_dim", small)
        object.__setattr__(self, "dim", large)

    @property
    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def __call__(self, z: Float[Tensor, "n intrinsic"]) -> Float[Tensor, "n dim"]:
        """z A."""
        return _apply(_rows(z, self.intrinsic_dim, "z"), self)

    def adjoint(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n intrinsic"]:
        """(d / D) · x Aᵀ."""
        return self.intrinsic_dim / self.dim * self.transposed(_rows(x, self.dim, "x").detach())

    def forwarded(self, z: Tensor) -> Tensor:
        """z A without a gradient."""
        raise NotImplementedError

    def transposed(self, x: Tensor) -> Tensor:
        """x Aᵀ."""
        raise NotImplementedError


@dataclass(frozen=True)
class Gaussian(_Checked):
    """Dense, A_ij ~ N(0, 1/d). Above ``limit`` numbers A is never stored: every product draws it again in blocks.

    Drawing costs about 10 ns per number: for 500 × 2,000,000 ten seconds per call, however many rows it has.
    """

    limit: int = LIMIT

    @cached_property
    def matrix(self) -> Float[Tensor, "intrinsic dim"] | None:
        """A; None where it is too large to be kept."""
        if self.intrinsic_dim * self.dim > self.limit:
            return None
        return torch.randn(self.intrinsic_dim, self.dim, generator=self._generator) / self.intrinsic_dim**0.5

    def blocks(self) -> Any:
        """A in blocks of rows, drawn one after the other: (slice, rows), the very numbers of the stored matrix."""
        # torch draws normal numbers in groups of 16: blocks of 16 rows are whole groups for any number of columns.
        generator, size = self._generator, 16 * max(1, BLOCK // (16 * self.dim))
        bounds = [*range(0, max(1, self.intrinsic_dim - 15), size), self.intrinsic_dim]  # the last: no fewer than 16
        for start, end in pairwise(bounds):
            rows = torch.randn(end - start, self.dim, generator=generator)
            yield slice(start, end), rows.div_(self.intrinsic_dim**0.5)

    def forwarded(self, z: Tensor) -> Tensor:
        if self.matrix is not None:
            return _Matrix(self.matrix.to(z.device)).forwarded(z)
        x = torch.zeros(len(z), self.dim, device=z.device)
        for part, rows in self.blocks():
            x += _Matrix(rows.to(z.device)).forwarded(z[:, part].contiguous())
        return x

    def transposed(self, x: Tensor) -> Tensor:
        if self.matrix is not None:
            return _Matrix(self.matrix.to(x.device)).transposed(x)
        return torch.cat([_Matrix(rows.to(x.device)).transposed(x) for _, rows in self.blocks()], dim=1)


@dataclass(frozen=True, eq=False)
class _Matrix:
    """Products of rows with a matrix, bit for bit the same for any number of rows."""

    A: Tensor

    def forwarded(self, z: Tensor) -> Tensor:
        return self._products(self.A.T, z, max(1, BLOCK // (64 * len(self.A))))

    def transposed(self, x: Tensor) -> Tensor:
        return self._products(self.A, x, max(1, BLOCK // (64 * self.A.shape[1])))

    @staticmethod
    def _products(matrix: Tensor, vectors: Tensor, blocks: int) -> Tensor:
        """matrix @ every vector, 64 · blocks results at a time."""
        # A library may add up in another order for vectors that begin elsewhere in a cache line, and for the last few
        # results of a block: so every vector is a tensor of its own, and blocks are of whole cache lines.
        own = [vector.clone() for vector in vectors]
        parts = [[torch.mv(block, vector) for vector in own] for block in matrix.split(64 * blocks)]
        return torch.cat([torch.stack(part) for part in parts], dim=1) if own else vectors.new_empty(0, len(matrix))


class _Linear(torch.autograd.Function):
    """A linear map whose gradient is its transpose: nothing but the map itself is kept for it."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, linear: Any) -> Tensor:
        ctx.linear = linear
        return linear.forwarded(z.contiguous())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.linear.transposed(grads[0].contiguous()), None


def _apply(z: Tensor, linear: Any) -> Tensor:
    result: Tensor = _Linear.apply(z, linear)  # type: ignore[no-untyped-call]
    return result


# ---- sparse --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sparse(_Checked):
    """Every coordinate of x is the sum of ``nonzeros`` coordinates of z with random signs, over √nonzeros.

    They come from as many equal parts of z, one from each, so none comes twice. Stored: 2 · dim · nonzeros numbers.
    """

    nonzeros: int = NONZEROS

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "nonzeros", min(whole(self.nonzeros, "nonzeros", 1), self.intrinsic_dim))

    @cached_property
    def _draw(self) -> tuple[Tensor, Tensor]:
        """Which coordinates of z, (nonzeros, dim), and what they are multiplied by."""
        shape, generator = (self.nonzeros, self.dim), self._generator
        edges = torch.arange(self.nonzeros + 1) * self.intrinsic_dim // self.nonzeros
        low, size = edges[:-1, None], edges.diff()[:, None]
        chosen = low + torch.randint(2**62, shape, generator=generator) % size
        sign = 1.0 - 2.0 * torch.randint(2, shape, generator=generator)
        return chosen, sign / self.nonzeros**0.5

    def forwarded(self, z: Tensor) -> Tensor:
        columns, x = z.T.contiguous(), z.new_zeros(self.dim, len(z))
        for chosen, factor in zip(*(part.to(z.device) for part in self._draw), strict=True):
            x += columns.index_select(0, chosen) * factor[:, None]
        return x.T.contiguous()

    def transposed(self, x: Tensor) -> Tensor:
        z = x.new_zeros(len(x), self.intrinsic_dim)
        for chosen, factor in zip(*(part.to(x.device) for part in self._draw), strict=True):
            z.index_add_(1, chosen, x * factor)
        return z


# ---- structured ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fastfood(_Checked):
    """Blocks of V = H G Π H B / √(p d), p the power of two at or above d, stacked until dim is reached.

    B: random signs, H: Walsh-Hadamard, Π: a permutation, G: Gaussian, here with ‖G‖² = p so that with d = p every
    coordinate has a variance of exactly one (Le et al.'s S, which varies the lengths of rows, is left out).
    Stored: 3 · dim numbers.
    """

    @property
    def _size(self) -> tuple[int, int]:
        """(blocks, p)."""
        p = 1 << (self.intrinsic_dim - 1).bit_length()
        return -(-self.dim // p), p

    @cached_property
    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """B and G (blocks, p), G with all factors in it, and Π as places in the flat (blocks · p)."""
        (blocks, p), generator = self._size, self._generator
        B = 1.0 - 2.0 * torch.randint(2, (blocks, p), generator=generator)
        order = torch.rand(blocks, p, generator=generator).argsort(dim=1)
        G = torch.randn(blocks, p, generator=generator)
        G *= (p / G.square().sum(1, keepdim=True)).sqrt() / (p * self.intrinsic_dim) ** 0.5
        return B, (order + p * torch.arange(blocks)[:, None]).flatten(), G

    def forwarded(self, z: Tensor) -> Tensor:
        (blocks, p), (B, order, G) = self._size, (part.to(z.device) for part in self._draw)
        padded = torch.nn.functional.pad(z, (0, p - self.intrinsic_dim))
        mixed = hadamard(padded[:, None] * B)
        mixed = mixed.flatten(1).index_select(1, order).view(-1, blocks, p)
        return hadamard(mixed * G).flatten(1)[:, : self.dim].contiguous()

    def transposed(self, x: Tensor) -> Tensor:
        (blocks, p), (B, order, G) = self._size, (part.to(x.device) for part in self._draw)
        padded = torch.nn.functional.pad(x, (0, blocks * p - self.dim)).view(-1, blocks, p)
        mixed = (hadamard(padded) * G).flatten(1).index_select(1, order.argsort()).view(-1, blocks, p)
        return (hadamard(mixed) * B).sum(1)[:, : self.intrinsic_dim]


def hadamard(values: Float[Tensor, "*batch p"]) -> Float[Tensor, "*batch p"]:
    """The Walsh-Hadamard transform along the last axis, whose length is a power of two; not normalised (H H = p I)."""
    # The transformed axis comes first, so that every sum and difference runs over long contiguous pieces.
    p, batch = values.shape[-1], values.shape[:-1]
    y, width = values.reshape(-1, p).T.contiguous(), 1
    while width < p:
        pairs = y.view(p // (2 * width), 2, -1)
        y = torch.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], dim=1)
        width *= 2
    return y.reshape(p, -1).T.reshape(*batch, p)


def _rows(given: Tensor, width: int, name: str) -> Tensor:
    if given.ndim != 2 or given.shape[1] != width:
        raise ValueError(f"{name}: expected one row of {width} numbers each, (n, {width}), got {tuple(given.shape)}")
    return given.float()
