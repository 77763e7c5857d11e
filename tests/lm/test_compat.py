"""The one file that knows architectures: what it adds to a forward, against values worked out by hand."""

from __future__ import annotations

import pytest
import torch

from softde.lm import compat
from tests import tiny_random


def built(name):
    try:
        return tiny_random.make_family(name)
    except LookupError as error:
        pytest.skip(str(error))


def from_embeddings_error(model):
    """How far next-token logits from embeddings are from those of the same token ids: rounding, if all is well."""
    device = model.get_input_embeddings().weight.device
    ids = torch.arange(min(8, model.get_input_embeddings().weight.shape[0]), device=device)[None]
    rows = compat.embed(model, ids)
    plain = model(input_ids=ids, use_cache=False).logits
    return float(
        (model(inputs_embeds=rows, use_cache=False, **compat.extra_arguments(model, ids)).logits - plain).abs().max()
    )


@pytest.mark.parametrize("name", ["llama", "gemma2", "granite", "gemma3n", "gemma4 per-layer", "falcon_h1"])
def test_a_forward_from_embeddings_is_one_from_ids(name):
    model = built(name)
    with torch.no_grad():
        assert from_embeddings_error(model) < 1e-4


@pytest.mark.parametrize("name", ["gemma3n", "falcon_h1"])
def test_without_it_these_would_be_silently_wrong(name):
    model = built(name)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        bare = model(inputs_embeds=model.get_input_embeddings()(ids)).logits
        assert float((bare - model(input_ids=ids).logits).abs().max()) > 0.1


def test_a_window_is_counted_in_positions():
    """Two tokens at position 17, each behind its own token at 16, all behind sixteen cached ones; the window is 16."""
    model = built("gemma2")
    q, k = torch.tensor([[16, 17, 16, 17]]), torch.tensor([[*range(16), 16, 17, 16, 17]])
    own = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]).bool()
    visible = torch.cat([torch.ones(4, 16, dtype=torch.bool), own], dim=1)[None, None]
    masks = compat.attention_masks(model, visible, q, k)
    seen = {kind: mask[0, 0] if mask.dtype == torch.bool else mask[0, 0] == 0 for kind, mask in masks.items()}
    assert torch.equal(seen["full_attention"], visible[0, 0])
    expected = visible[0, 0].clone()
    expected[[0, 2], :1] = False  # 16 − 0 is 16: too far
    expected[[1, 3], :2] = False
    assert torch.equal(seen["sliding_attention"], expected)


def test_chunks_begin_at_multiples():
    model = built("llama4")
    q, k = torch.tensor([[16, 33]]), torch.tensor([[15, 16, 31, 32, 33]])
    visible = torch.ones(1, 1, 2, 5, dtype=torch.bool)
    masks = compat.attention_masks(model, visible, q, k)
    assert masks["chunked_attention"][0, 0].tolist() == [[False, True, True, False, False], [False] * 3 + [True] * 2]


@pytest.mark.parametrize("name", ["qwen3_next", "lfm2"])
def test_layers_without_attention_take_no_mask(name):
    ones = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    with pytest.raises(NotImplementedError, match="layers take no mask"):
        compat.attention_masks(built(name), ones, torch.zeros(1, 1), torch.zeros(1, 1))


def test_flash_attention_takes_no_mask():
    model = built("llama")
    model.config._attn_implementation = "flash_attention_2"
    ones = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    with pytest.raises(NotImplementedError, match="'flash_attention_2' attention takes no 4-D mask"):
        compat.attention_masks(model, ones, torch.zeros(1, 1), torch.zeros(1, 1))
