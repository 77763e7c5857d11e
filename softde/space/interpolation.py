"""Soft prompts between two others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from softde.checks import check_kinds
from softde.prompt import SoftPrompt
from softde.space.charts import digest


def interpolate(a: SoftPrompt, b: SoftPrompt, t: float, spherical: bool = False) -> SoftPrompt:
    """The soft prompt at t between a (t = 0) and b (t = 1).

    spherical : every token turns along the great circle from a's direction to b's, and its length goes linearly
    (slerp, Shoemake 1985); a straight line instead passes nearer to zero than either end. Opposite or vanishing tokens
    have no such circle and go straight.

    Raises
    ------
    ValueError
        Something else than soft prompts; t outside [0, 1]; prompts of another length, width, placement or model.
    """
    check_kinds({"a": (a, SoftPrompt), "b": (b, SoftPrompt)})
    if not (isinstance(t, (int, float)) and 0 <= t <= 1):
        raise ValueError(f"t: expected a number from 0 (the first prompt) to 1 (the second), got {t!r}")
    check_alike([a, b])
    ends = a.embeddings.double(), b.embeddings.double()
    between = slerp(*ends, t) if spherical else (1 - t) * ends[0] + t * ends[1]
    shared = {key: value for key, value in a.provenance.items() if b.provenance.get(key) == value}
    made = {"t": float(t), "spherical": spherical, "from": [digest(a.embeddings), digest(b.embeddings)]}
    # A verification holds for the prompt that was verified, not for one between two that share it.
    shared.pop("verification", None)
    return SoftPrompt(between, a.placement, {**shared, "interpolated": made})


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Row by row, (rows, width): direction along the great circle, length linearly."""
    lengths = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    cosine = (a * b).sum(1, keepdim=True) / (lengths[0] * lengths[1]).clamp(min=1e-300)
    angle = cosine.clamp(-1, 1).arccos()
    straight = (angle.sin() < 1e-6) | (lengths[0] == 0) | (lengths[1] == 0)
    sine = torch.where(straight, 1.0, angle.sin())
    units = [end / length.clamp(min=1e-300) for end, length in zip((a, b), lengths, strict=True)]
    direction = (((1 - t) * angle).sin() * units[0] + (t * angle).sin() * units[1]) / sine
    return torch.where(straight, (1 - t) * a + t * b, ((1 - t) * lengths[0] + t * lengths[1]) * direction)


def check_alike(prompts: Sequence[SoftPrompt]) -> None:
    """Refuse prompts that have nothing between them: of another shape, placement or model."""
    first = prompts[0]
    for prompt in prompts[1:]:
        if prompt.embeddings.shape != first.embeddings.shape:
            shapes = [" × ".join(map(str, p.embeddings.shape)) for p in (first, prompt)]
            raise ValueError(f"prompts: expected one length and width, got {shapes[0]} and {shapes[1]}")
        if prompt.placement != first.placement:
            raise ValueError(f"prompts: expected one placement, got {first.placement!r} and {prompt.placement!r}")
        for key in ("model_config_hash", "tokenizer_hash"):
            ours, theirs = first.provenance.get(key), prompt.provenance.get(key)
            if ours is not None and theirs is not None and ours != theirs:
                raise ValueError(
                    f"prompts: expected one model, got {first.model_name!r} and {prompt.model_name!r}, whose "
                    "embeddings have nothing in common; align them with the same model"
                )
