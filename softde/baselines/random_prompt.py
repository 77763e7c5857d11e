"""The random prompt: what any soft prompt of the same size does to a model, whatever it was searched for."""

from __future__ import annotations

import torch

from softde.checks import check_kinds, whole
from softde.condition import Condition
from softde.prompt import SoftPrompt


def random_prompt(prompt: SoftPrompt, seed: int = 0) -> Condition:
    """Random directions, each virtual token with its own norm in `prompt`, at the same place: a null for it.

    An effect that such prompts have too is no effect of the search; several seeds show its spread.
    """
    check_kinds({"prompt": (prompt, SoftPrompt)})
    like = prompt.embeddings.float()
    noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(whole(seed, "seed", 0)))
    noise *= like.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)
    return Condition(name="random prompt", prompt=SoftPrompt(noise.to(prompt.embeddings.dtype), prompt.placement))
