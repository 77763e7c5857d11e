"""Models with the shapes that matter for speed and with random weights: nothing to download."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

import softde

TINY = "tiny"


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes; the vocabulary decides how much of the work is the head."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int
    rope_theta: float


SHAPES = {
    # Llama-3's proportions: intermediate 3.5 × hidden, four query heads to a key head, a head of 6.2 % of the layers.
    "random-llama-4x640": Shape(4, 640, 2240, 8, 2, 2048, 2048, 500_000.0),
    "llama-3-8b-random": Shape(32, 4096, 14336, 32, 8, 128_256, 8192, 500_000.0),
}


def load(name: str, device: str | None, dtype: str | None, seed: int = 0) -> softde.LM:
    """A random shape by name, or what `LM.from_pretrained` takes: "tiny", a folder, a Hub name."""
    if name not in SHAPES:
        return softde.LM.from_pretrained(name, device=device, dtype=dtype)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    kind = getattr(torch, dtype) if dtype else torch.float32 if where.type == "cpu" else torch.bfloat16
    tokenizer = softde.LM.from_pretrained(TINY, device="cpu").tokenizer
    return softde.LM(random_llama(SHAPES[name], tokenizer, where, kind, seed), tokenizer, name)


def random_llama(shape: Shape, tokenizer: Any, device: torch.device, dtype: torch.dtype, seed: int) -> Any:
    """Weights are drawn where they stay: the host never holds them.

    Their spread is 1/√hidden, with which a layer keeps the size of what passes through it. With the usual 0.02 a narrow
    random model answers nearly the same whatever it is asked, and no error would show.
    """
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.context,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        initializer_range=1 / math.sqrt(shape.hidden),
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval().requires_grad_(False)
