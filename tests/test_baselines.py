from __future__ import annotations

import pytest
import torch

from softde import SoftPrompt, baselines


def prompt() -> SoftPrompt:
    return SoftPrompt(torch.randn(3, 16, generator=torch.Generator().manual_seed(7)) * torch.tensor([[1.0], [5], [0]]),
                      "front")  # fmt: skip


def test_a_random_prompt_keeps_size_place_and_norms_and_nothing_else() -> None:
    like = prompt()
    condition = baselines.random_prompt(like, seed=1)
    assert condition.name == "random prompt" and condition.prompt is not None
    found = condition.prompt
    assert found.placement == "front" and found.embeddings.shape == (3, 16)
    torch.testing.assert_close(found.embeddings.norm(dim=1), like.embeddings.norm(dim=1))
    cosine = torch.nn.functional.cosine_similarity(found.embeddings[:2], like.embeddings[:2])
    assert (cosine.abs() < 0.9).all()


def test_a_seed_makes_the_same_random_prompt_and_another_seed_another() -> None:
    one, same, other = (baselines.random_prompt(prompt(), seed).prompt for seed in (1, 1, 2))
    assert one == same and one != other


@pytest.mark.parametrize(("given", "seed", "message"), [("p.safetensors", 0, "prompt"), (None, -1, "seed")])
def test_a_random_prompt_refuses(given: object, seed: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        baselines.random_prompt(prompt() if given is None else given, seed)
