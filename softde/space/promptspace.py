"""PromptSpace: the chart between flat vectors, which an optimiser moves, and soft prompts, which a model reads.

embeddings = centre + scale · offsets(x), with x in units of the spread of the model's own token embeddings. The chart
says what the offsets are: x itself, a random projection of it, a product of low rank, a mixture of vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from softde.checks import check_kinds, put, shown, whole
from softde.lm import LM
from softde.lm.template import check_placement
from softde.prompt import SoftPrompt
from softde.space.charts import Chart, Convex, Frame, Full, Projected, check_axes, digest, positive
from softde.space.interpolation import check_alike

POOL = 2048  # vocabulary rows kept for drawing start points


@dataclass(frozen=True, eq=False)
class PromptSpace:
    """Where soft prompts are searched.

    centre : (tokens, hidden) float32. scale : spread of the model's token embeddings, one number or one per token.
    placement : "late", "front", "after_bos", "system" or "user_start".
    intrinsic_dim : None searches all tokens · hidden numbers; d is short for ``Projected("gaussian", d, seed)``.
    start_spread : standard deviation of start points around the centre, in units of x.
    vocabulary : (rows, hidden) embeddings to draw start points from, or None to draw noise around the centre.
    chart : what x stands for; see `softde.space.charts`.
    trust_region : no token moves further from the centre than this, in units of scale (root mean square over hidden; a
        random vocabulary row is about 1 away from the mean). What would is set back to the sphere, along the line to
        the centre; within it nothing changes. None: no limit.
    starts : (prompts, tokens, hidden) that come first among start points, mixtures of them following.
    """

    centre: Float[Tensor, "tokens hidden"]
    scale: float | Float[Tensor, "tokens"]
    placement: str = "late"
    intrinsic_dim: int | None = None
    projection_seed: int = 0
    start_spread: float = 1.0
    vocabulary: Float[Tensor, "rows hidden"] | None = None
    origin: str = "given"
    chart: Chart | None = None
    trust_region: float | None = None
    starts: Float[Tensor, "prompts tokens hidden"] | None = None

    def __post_init__(self) -> None:
        check_axes(self.centre, "centre: expected shape (tokens, hidden)", (1, 1))
        check_placement(self.placement)
        radius, what = self.trust_region, "trust_region, a radius in units of the embeddings' spread"
        put(self, {
            "scale": _scale(self.scale, len(self.centre)),
            "start_spread": positive(self.start_spread, "start_spread, a standard deviation in units of x"),
            "trust_region": None if radius is None else positive(radius, what),
        })  # fmt: skip
        self._check_chart()

    def _check_chart(self) -> None:
        if self.chart is not None and (isinstance(self.chart, type) or not isinstance(self.chart, Chart)):
            raise ValueError(
                f"chart: expected Full(), Projected(...), LowRank(...) or Convex(...), got {self.chart!r}; make one, "
                "such as LowRank(rank=2)"
            )
        if self.chart is not None and self.intrinsic_dim is not None:
            raise ValueError("chart, intrinsic_dim: expected one of them; intrinsic_dim is short for a Projected chart")
        if self.vocabulary is not None and isinstance(self._chart, (Projected, Convex)):
            raise ValueError("vocabulary: its rows do not lie in a subspace; leave out vocabulary or intrinsic_dim")
        if self.starts is not None and isinstance(self._chart, (Projected, Convex)):
            raise ValueError("starts: other prompts do not lie in this chart; search the full space or a LowRank one")
        if self.starts is not None and self.starts.shape[1:] != self.centre.shape:
            raise ValueError(
                f"starts: expected prompts of the centre's shape {tuple(self.centre.shape)}, got "
                f"{tuple(self.starts.shape[1:])}"
            )
        _ = self.dim  # refuses a chart that does not fit

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
        chart: Chart | None = None,
    ) -> PromptSpace:
        """Around the mean token embedding; start points are random vocabulary rows, or noise of their spread.

        init : "vocabulary" or "noise". A low-rank chart takes what is nearest to the rows; a subspace or mixtures,
            where they do not lie, always noise.
        seed : of the projection and of the vocabulary rows that a large vocabulary is represented by.
        """
        check_kinds({"lm": (lm, LM)})
        if init not in ("vocabulary", "noise"):
            raise ValueError(f"init: expected 'vocabulary' or 'noise', got {init!r}")
        num_virtual_tokens = check_tokens(num_virtual_tokens)
        mean, spread = lm.embedding_stats
        rows = None
        if init == "vocabulary" and intrinsic_dim is None and not isinstance(chart, (Projected, Convex)):
            rows = vocabulary_rows(lm, seed)
        return cls(
            mean.expand(num_virtual_tokens, -1).clone(), spread, placement, intrinsic_dim, seed, start_spread, rows,
            origin="random vocabulary rows" if rows is not None else "noise around the mean embedding", chart=chart,
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
        chart: Chart | None = None,
        trust_region: float | None = None,
        per_token_scale: bool = False,
    ) -> PromptSpace:
        """Around the embeddings of a text, repeated or cut to num_virtual_tokens (default: as long as the text).

        per_token_scale : every token moves in units of its own distance from the mean embedding.
        """
        check_kinds({"lm": (lm, LM)})
        ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"] if isinstance(text, str) else []
        if not ids:
            raise ValueError(f'text: expected a text of at least one token, got {shown(text)}; "You are ..." is one')
        count = len(ids) if num_virtual_tokens is None else num_virtual_tokens
        count = check_tokens(count)
        centre = lm.embed([ids[i % len(ids)] for i in range(count)]).float().cpu()
        return cls(
            centre, _spread(lm, centre, per_token_scale), placement, intrinsic_dim, seed, start_spread,
            origin=f"text: {text}", chart=chart, trust_region=trust_region,
        )  # fmt: skip

    @classmethod
    def from_prompt(
        cls,
        lm: LM,
        prompt: SoftPrompt,
        intrinsic_dim: int | None = None,
        start_spread: float = 0.3,
        seed: int = 0,
        chart: Chart | None = None,
        trust_region: float | None = None,
        per_token_scale: bool = False,
    ) -> PromptSpace:
        """Around another soft prompt, with its placement."""
        check_kinds({"lm": (lm, LM), "prompt": (prompt, SoftPrompt)})
        prompt.check_model(lm)
        centre = prompt.embeddings.clone()
        return cls(
            centre, _spread(lm, centre, per_token_scale), prompt.placement, intrinsic_dim, seed, start_spread,
            origin="soft prompt", chart=chart, trust_region=trust_region,
        )  # fmt: skip

    @classmethod
    def from_prompts(
        cls,
        lm: LM,
        prompts: Sequence[SoftPrompt],
        start_spread: float = 0.1,
        chart: Chart | None = None,
        trust_region: float | None = None,
        per_token_scale: bool = False,
    ) -> PromptSpace:
        """Around the mean of other soft prompts, of other regions say.

        Start points are the prompts themselves, then random mixtures of them (uniform over the simplex) with noise of
        start_spread.

        Raises
        ------
        ValueError
            No prompts; prompts of another length, width, placement or model; a chart in which they do not lie.
        """
        listed = isinstance(prompts, Sequence) and not isinstance(prompts, str)
        if not listed or not prompts:
            got = "none" if listed else shown(prompts)
            raise ValueError(f"prompts: expected one or more soft prompts, got {got}; give a list of them")
        check_kinds({"lm": (lm, LM), **{f"prompts[{i}]": (prompt, SoftPrompt) for i, prompt in enumerate(prompts)}})
        check_alike(prompts)
        for prompt in prompts:
            prompt.check_model(lm)
        starts = torch.stack([prompt.embeddings for prompt in prompts])
        centre = starts.mean(dim=0)
        return cls(
            centre, _spread(lm, centre, per_token_scale), prompts[0].placement, start_spread=start_spread,
            origin=f"{len(prompts)} soft prompts", chart=chart, trust_region=trust_region, starts=starts,
        )  # fmt: skip

    @property
    def num_virtual_tokens(self) -> int:
        return self.centre.shape[0]

    @property
    def dim(self) -> int:
        """Numbers that the optimiser moves."""
        return self._chart.dim(self._frame)

    @cached_property
    def _chart(self) -> Chart:
        if self.chart is not None:
            return self.chart
        if self.intrinsic_dim is None:
            return Full()
        return Projected("gaussian", self.intrinsic_dim, self.projection_seed)

    @cached_property
    def _frame(self) -> Frame:
        return Frame(self.centre, self.scale[:, None] if isinstance(self.scale, Tensor) else self.scale)

    @property
    def projection(self) -> Float[Tensor, "intrinsic full"] | None:
        """A of a dense Gaussian projection, the same for the same seed; None where no matrix is kept."""
        if not isinstance(self._chart, Projected):
            return None
        return getattr(self._chart.projection(self.centre.numel()), "matrix", None)

    def decode(self, x: Float[Tensor, "population dim"]) -> Float[Tensor, "population tokens hidden"]:
        """Flat vectors → embeddings. An array is as good as a tensor; any other width is refused.

        Gradients flow through it, but for what a trust region sets back: there only along the sphere.
        """
        x = _tensor(x)
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(
                f"x: expected one row of {self.dim} numbers per candidate, (population, {self.dim}), got shape "
                f"{tuple(x.shape)}; take rows as space.sample draws them"
            )
        return self.centre + self._frame.scale * self._trusted(self._chart.offsets(x.float(), self._frame))

    def _trusted(self, offsets: Tensor) -> Tensor:
        """Offsets within the trust region; those in it keep their bits."""
        if self.trust_region is None:
            return offsets
        # Clamped before the root, which has no gradient at zero.
        length = offsets.square().mean(dim=-1, keepdim=True).clamp(min=self.trust_region**2).sqrt()
        return torch.where(length > self.trust_region, offsets * (self.trust_region / length), offsets)

    def encode(self, embeddings: Float[Tensor, "population tokens hidden"]) -> Float[Tensor, "population dim"]:
        """Embeddings → the x whose decoding is nearest, to put a text or a prompt among start points.

        Exact (to rounding) in the full space, and in another chart for what lies in it: `Projected` and `LowRank` take
        the nearest point, `Convex` the nearest row for every token.
        """
        embeddings = _tensor(embeddings)
        if embeddings.ndim != 3 or embeddings.shape[1:] != self.centre.shape:
            raise ValueError(
                f"embeddings: expected (population, {', '.join(map(str, self.centre.shape))}), got shape "
                f"{tuple(embeddings.shape)}; one prompt is embeddings[None]"
            )
        return self._chart.encode((embeddings.float() - self.centre) / self._frame.scale, self._frame)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "population dim"]:
        """Start points (n, dim). A centre that means something, a text or a prompt, is the first of them."""
        if self.starts is not None:
            return self._mixtures(self.starts, n, generator)
        if self.vocabulary is not None:
            picks = torch.randint(len(self.vocabulary), (n, self.num_virtual_tokens), generator=generator)
            offsets = (self.vocabulary[picks] - self.centre) * (self.start_spread / self._frame.scale)
            return self._chart.encode(offsets, self._frame)
        centred = self.origin.startswith(("text", "soft prompt"))
        return self._chart.start(n, self._frame, self.start_spread, centred, generator)

    def _mixtures(self, starts: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """The prompts themselves, then mixtures with noise."""
        more = max(0, n - len(starts))
        weights = -torch.rand(more, len(starts), generator=generator).clamp(min=1e-30).log()
        weights = weights / weights.sum(dim=1, keepdim=True)
        x = self.encode(torch.cat([starts[:n], torch.einsum("np,pth->nth", weights, starts)]))
        x[n - more :] += self.start_spread * torch.randn(more, self.dim, generator=generator)
        return x

    def record(self) -> dict[str, Any]:
        """What a run writes down, and what must be the same for it to go on."""
        scale = self.scale.tolist() if isinstance(self.scale, Tensor) else float(self.scale)
        record = {
            "num_virtual_tokens": self.num_virtual_tokens,
            "placement": self.placement,
            "intrinsic_dim": self.intrinsic_dim,
            "projection_seed": self.projection_seed,
            "origin": self.origin,
            "scale": scale,
            "start_spread": float(self.start_spread),
            "centre": digest(self.centre),
            "vocabulary": None if self.vocabulary is None else digest(self.vocabulary),
        }
        # Only where they are used, so that runs from before there were any go on.
        if self.chart is not None:
            record["chart"] = self.chart.record()
        if self.trust_region is not None:
            record["trust_region"] = float(self.trust_region)
        if self.starts is not None:
            record["starts"] = digest(self.starts)
        return record


def check_tokens(num_virtual_tokens: int) -> int:
    """The length of a soft prompt as an int."""
    count = whole(num_virtual_tokens, "num_virtual_tokens")
    if count < 1:
        raise ValueError(f"num_virtual_tokens: expected 1 or more, got {count}")
    return count


def _scale(scale: float | Tensor, tokens: int) -> float | Tensor:
    """One number, or a tensor of one per token."""
    if not isinstance(scale, Tensor) or scale.ndim == 0:
        return positive(scale, "scale, the embeddings' spread, one number or a tensor of one per token")
    if scale.shape != (tokens,):
        raise ValueError(f"scale: expected one number or one per token, ({tokens},), got shape {tuple(scale.shape)}")
    scale = scale.detach().float().cpu().clone()
    if not bool((scale.gt(0) & scale.isfinite()).all()):
        raise ValueError(f"scale: expected finite numbers above 0, got {scale.tolist()}")
    return scale


def _spread(lm: LM, centre: Tensor, per_token: bool) -> float | Tensor:
    """Of the model's token embeddings, or of every token of the centre on its own."""
    mean, spread = lm.embedding_stats
    return (centre - mean).square().mean(dim=1).sqrt() if per_token else spread


def _tensor(x: Any) -> Tensor:
    try:
        return x if isinstance(x, Tensor) else torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"x: expected a tensor or an array (population, dim), got {shown(x)}") from None


def _ordinary(lm: LM) -> Tensor:
    """The ids of all tokens but special ones."""
    special = set(lm.tokenizer.all_special_ids) | set(getattr(lm.tokenizer, "added_tokens_decoder", {}))
    count = min(len(lm.tokenizer), lm.model.get_input_embeddings().weight.shape[0])
    return torch.tensor([i for i in range(count) if i not in special])


def vocabulary_rows(lm: LM, seed: int, count: int = POOL) -> Float[Tensor, "rows hidden"]:
    """Embeddings of ordinary tokens; of a large vocabulary, a random part of ``count`` rows."""
    ids = _ordinary(lm)
    picks = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))[:count].sort().values
    return lm.embed(ids[picks]).float().cpu()


def nearest_rows(lm: LM, centre: Float[Tensor, "tokens hidden"], count: int) -> Float[Tensor, "rows hidden"]:
    """Embeddings of the ordinary tokens nearest to any token of the centre, in the order of their ids.

    A centre's own tokens are among them. Nearness is the cosine after the mean embedding is taken away.
    """
    ids, mean = _ordinary(lm), lm.embedding_stats[0]
    rows = lm.embed(ids).float().cpu()
    cosine = torch.nn.functional.normalize(rows - mean, dim=1) @ torch.nn.functional.normalize(centre - mean, dim=1).T
    return rows[cosine.max(dim=1).values.topk(min(count, len(rows))).indices.sort().values]
