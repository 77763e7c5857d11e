"""What depends on the architecture or on the version of transformers, all in one place.

Three things that a forward from embeddings does not get right by itself: Falcon-H1 scales embeddings only where
it looks them up, models with per-layer embeddings read token ids beside them, and a mask made by hand has to know which
layers see only a window.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Mask = Bool[Tensor, "batch 1 new total"] | Float[Tensor, "batch 1 new total"]
WITH_4D_MASKS = ("sdpa", "eager")  # flash attention takes none, flex attention another kind


def placeholder_id(model: Any) -> int:
    """The token id that stands where soft tokens are: padding, as transformers does for images and sound."""
    config = model.config.get_text_config()
    return int(getattr(config, "pad_token_id", None) or 0)


def embed(model: Any, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape hidden"]:
    """Embeddings of token ids such that a forward from them equals one from the ids."""
    rows: Tensor = model.get_input_embeddings()(ids)
    config = model.config.get_text_config()
    # Others multiply inside the module (Gemma) or after `inputs_embeds` came in (Granite).
    return rows * config.embedding_multiplier if config.model_type == "falcon_h1" else rows


def extra_arguments(model: Any, ids: Int[Tensor, "batch tokens"]) -> dict[str, Tensor]:
    """What a forward needs beside `inputs_embeds`; nothing, except for per-layer embeddings (Gemma 3n, Gemma 4 E2B).

    ids : the tokens of this forward, `placeholder_id(model)` at soft positions. Without them Gemma 4 refuses soft
    tokens, and Gemma 3n answers, wrongly: even hard tokens lose their part.

    Raises
    ------
    ValueError
        This version of transformers computes them from `input_ids` only.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    if not getattr(decoder, "hidden_size_per_layer_input", None):
        return {}
    wrapped = decoder is not getattr(model, "model", decoder)  # the text part of a model that also sees and hears
    if wrapped and "per_layer_inputs" not in inspect.signature(model.forward).parameters:
        raise ValueError(
            f"{type(model).__name__} has per-layer embeddings, which the installed transformers cannot pass beside "
            "soft tokens; install a newer one (5.23 can)"
        )
    known = torch.where(ids < decoder.embed_tokens_per_layer.num_embeddings, ids, 0)
    return {"per_layer_inputs": decoder.get_per_layer_inputs(known)}


def reads_padding(model: Any) -> bool:
    """Do answers change when a row is padded on the left? They do where a recurrence or a convolution sees padding."""
    return model.config.get_text_config().model_type in ("recurrent_gemma", "rwkv")


def attention_masks(
    model: Any,
    visible: Bool[Tensor, "batch 1 new total"],
    positions_q: Int[Tensor, "batch new"],
    positions_k: Int[Tensor, "batch total"],
) -> Mask | dict[str, Mask]:
    """`attention_mask` for a forward in which new token i sees key j where `visible` says so.

    A layer that looks back only a window (or a chunk) sees the part of `visible` inside it, counted in positions, so
    several continuations may stand side by side in one row. Models whose layers differ get one mask per kind of layer.

    Raises
    ------
    NotImplementedError
        Layers that take no mask made by hand: state spaces, linear attention, convolutions, flash attention.
    """
    config = model.config.get_text_config()
    if config._attn_implementation not in WITH_4D_MASKS:
        raise NotImplementedError(f"{config._attn_implementation!r} attention takes no 4-D mask")
    q, k = positions_q[:, None, :, None], positions_k[:, None, None, :]
    masks = {kind: visible & _in_reach(config, kind, q, k) for kind in sorted(layer_kinds(config))}
    if config._attn_implementation == "eager":
        dtype = model.get_input_embeddings().weight.dtype
        lowest = torch.finfo(dtype).min
        masks = {
            kind: torch.zeros(m.shape, dtype=dtype, device=m.device).masked_fill(~m, lowest)
            for kind, m in masks.items()
        }
    return masks if len(masks) > 1 else next(iter(masks.values()))


def layer_kinds(config: Any) -> set[str]:
    """What the layers of a text model are, in transformers' words: "full_attention", "sliding_attention" ..."""
    window = getattr(config, "sliding_window", None)
    return set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])


def _in_reach(config: Any, kind: str, q: Tensor, k: Tensor) -> Tensor:
    """Is position k near enough to position q for this kind of layer?"""
    if kind == "full_attention":
        return torch.ones((), dtype=torch.bool, device=q.device)
    if kind == "sliding_attention":
        return (q - k < config.sliding_window) & (q >= k)
    if kind == "chunked_attention":
        return q // config.attention_chunk_size == k // config.attention_chunk_size
    raise NotImplementedError(f"{kind!r} layers take no mask")
