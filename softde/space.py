"""PromptSpace: the chart between flat vectors, which an optimiser moves, and soft prompts, which a model reads.

embeddings = centre + scale · x, with x in units of the spread of the model's own token embeddings. With an intrinsic
dimension d, x = z A, where A (d, tokens · hidden) ~ N(0, 1/d) is drawn from a seed (Black-Box-Tuning, Sun et al. 2022,
§3.1), so z ~ N(0, 1) moves every coordinate by about one spread.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from softde.checks import shown, whole
from softde.lm import LM
from softde.lm.template import check_placement
from softde.prompt import SoftPrompt

POOL = 2048  # vocabulary rows kept for drawing start points


@dataclass(frozen=True, eq=False)
class PromptSpace:
    """Where soft prompts are searched.

    centre : (tokens, hidden) float32. scale : spread of the model's token embeddings, one number.
    placement : "late", "front", "after_bos", "system" or "user_start".
    intrinsic_dim : None searches all tokens · hidden numbers.
    start_spread : standard deviation of start points around the centre, in units of x.
    vocabulary : (rows, hidden) embeddings to draw start points from, or None to draw noise around the centre.
    """

    centre: Float[Tensor, "tokens hidden"]
    scale: float
    placement: str = "late"
    intrinsic_dim: int | None = None
    projection_seed: int = 0
    start_spread: float = 1.0
    vocabulary: Float[Tensor, "rows hidden"] | None = None
    origin: str = "given"

    def __post_init__(self) -> None:
        if self.centre.ndim != 2 or 0 in self.centre.shape:
            raise ValueError(f"centre: expected shape (tokens, hidden), got {tuple(self.centre.shape)}")
        check_placement(self.placement)
        if not self.scale > 0 or not self.start_spread > 0:
            raise ValueError(f"scale and start_spread: expected above 0, got {self.scale} and {self.start_spread}")
        if self.intrinsic_dim is not None and not 1 <= self.intrinsic_dim <= self.centre.numel():
            raise ValueError(
                f"intrinsic_dim: expected 1 to {self.centre.numel()} (tokens × hidden), got {self.intrinsic_dim}"
            )
        if self.vocabulary is not None and self.intrinsic_dim is not None:
            raise ValueError("vocabulary: its rows do not lie in a subspace; leave out vocabulary or intrinsic_dim")

    @classmethod
    def random(
        cls,
        lm: LM,
        num_virtual_tokens: int = 8,
        placement: str = "late",
        intrinsic_dim: int | None = None,
        init: str = "vocabulary",
        start_spread: float = 1.0,
        seed: int = 0,
    ) -> PromptSpace:
        """Around the mean token embedding; start points are random vocabulary rows, or noise of their spread.

        init : "vocabulary" or "noise"; with an intrinsic dimension always noise, since rows do not lie in the subspace.
        seed : of the projection and of the vocabulary rows that a large vocabulary is represented by.
        """
        if init not in ("vocabulary", "noise"):
            raise ValueError(f"init: expected 'vocabulary' or 'noise', got {init!r}")
        num_virtual_tokens = check_tokens(num_virtual_tokens)
        mean, spread = lm.embedding_stats
        rows = vocabulary_rows(lm, seed) if init == "vocabulary" and intrinsic_dim is None else None
        return cls(
            mean.expand(num_virtual_tokens, -1).clone(), spread, placement, intrinsic_dim, seed, start_spread, rows,
            origin="random vocabulary rows" if rows is not None else "noise around the mean embedding",
        )  # fmt: skip

    @classmethod
    def from_text(
        cls,
        lm: LM,
        text: str,
        num_virtual_tokens: int | None = None,
        placement: str = "late",
        intrinsic_dim: int | None = None,
        start_spread: float = 0.3,
        seed: int = 0,
    ) -> PromptSpace:
        """Around the embeddings of a text, repeated or cut to num_virtual_tokens (default: as long as the text)."""
        ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise ValueError(f"text: expected a text of at least one token, got {text!r}")
        count = len(ids) if num_virtual_tokens is None else num_virtual_tokens
        count = check_tokens(count)
        centre = lm.embed([ids[i % len(ids)] for i in range(count)]).float().cpu()
        return cls(centre, lm.embedding_stats[1], placement, intrinsic_dim, seed, start_spread, origin=f"text: {text}")

    @classmethod
    def from_prompt(
        cls, lm: LM, prompt: SoftPrompt, intrinsic_dim: int | None = None, start_spread: float = 0.3, seed: int = 0
    ) -> PromptSpace:
        """Around another soft prompt, with its placement."""
        prompt.check_model(lm)
        centre = prompt.embeddings.clone()
        return cls(
            centre, lm.embedding_stats[1], prompt.placement, intrinsic_dim, seed, start_spread, origin="soft prompt"
        )

    @property
    def num_virtual_tokens(self) -> int:
        return self.centre.shape[0]

    @property
    def dim(self) -> int:
        """Numbers that the optimiser moves."""
        return self.intrinsic_dim or self.centre.numel()

    @cached_property
    def projection(self) -> Float[Tensor, "intrinsic full"] | None:
        """A, the same for the same seed; None in the full space."""
        if self.intrinsic_dim is None:
            return None
        generator = torch.Generator().manual_seed(self.projection_seed)
        return torch.randn(self.intrinsic_dim, self.centre.numel(), generator=generator) / self.intrinsic_dim**0.5

    def decode(self, x: Float[Tensor, "population dim"]) -> Float[Tensor, "population tokens hidden"]:
        """Flat vectors → embeddings. An array is as good as a tensor; any other width is refused."""
        x = _tensor(x)
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(
                f"x: expected one row of {self.dim} numbers per candidate, (population, {self.dim}), got shape "
                f"{tuple(x.shape)}; take rows as space.sample draws them"
            )
        full = x.float()
        if self.projection is not None:  # row by row: the last bits of a matrix product depend on its number of rows
            full = torch.stack([row @ self.projection for row in full])
        return self.centre + self.scale * full.view(-1, *self.centre.shape)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "population dim"]:
        """Start points (n, dim). A centre that means something, a text or a prompt, is the first of them."""
        if self.vocabulary is not None:
            picks = torch.randint(len(self.vocabulary), (n, self.num_virtual_tokens), generator=generator)
            return ((self.vocabulary[picks] - self.centre) * (self.start_spread / self.scale)).flatten(1)
        x = self.start_spread * torch.randn(n, self.dim, generator=generator)
        if self.origin.startswith(("text", "soft prompt")):
            x[0] = 0.0
        return x

    def record(self) -> dict[str, Any]:
        """What a run writes down, and what must be the same for it to go on."""
        return {
            "num_virtual_tokens": self.num_virtual_tokens,
            "placement": self.placement,
            "intrinsic_dim": self.intrinsic_dim,
            "projection_seed": self.projection_seed,
            "origin": self.origin,
            "scale": float(self.scale),
            "start_spread": float(self.start_spread),
            "centre": digest(self.centre),
            "vocabulary": None if self.vocabulary is None else digest(self.vocabulary),
        }


def check_tokens(num_virtual_tokens: int) -> int:
    """The length of a soft prompt as an int."""
    count = whole(num_virtual_tokens, "num_virtual_tokens")
    if count < 1:
        raise ValueError(f"num_virtual_tokens: expected 1 or more, got {count}")
    return count


def _tensor(x: Any) -> Tensor:
    try:
        return x if isinstance(x, Tensor) else torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"x: expected a tensor or an array (population, dim), got {shown(x)}") from None


def vocabulary_rows(lm: LM, seed: int) -> Float[Tensor, "rows hidden"]:
    """Embeddings of ordinary tokens; of a large vocabulary, a random part."""
    special = set(lm.tokenizer.all_special_ids) | set(getattr(lm.tokenizer, "added_tokens_decoder", {}))
    count = min(len(lm.tokenizer), lm.model.get_input_embeddings().weight.shape[0])
    ids = torch.tensor([i for i in range(count) if i not in special])
    picks = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))[:POOL].sort().values
    return lm.embed(ids[picks]).float().cpu()


def digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's float32 bytes, shortened."""
    return hashlib.sha256(tensor.float().contiguous().numpy().tobytes()).hexdigest()[:16]
