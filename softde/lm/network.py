"""A causal language model as the engine sees it: embeddings in, next-token logits out, keys and values in between."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from softde.lm.compat import attention_masks, embed, extra_arguments, placeholder_id, reads_padding


@dataclass(frozen=True)
class KeysValues:
    """Of some positions, in the layers that keep them: (layer, keys, values), each (rows, heads, tokens, width)."""

    layers: tuple[tuple[int, Tensor, Tensor], ...]

    @property
    def tokens(self) -> int:
        return int(self.layers[0][1].shape[-2])

    def rows(self, index: Tensor) -> KeysValues:
        """Some rows, in a new order; layers may be on several devices."""
        return KeysValues(
            tuple(
                (i, k.index_select(0, index.to(k.device)), v.index_select(0, index.to(v.device)))
                for i, k, v in self.layers
            )
        )

    def repeated(self, times: int) -> KeysValues:
        """Each row several times in succession."""
        if times == 1:
            return self
        return KeysValues(
            tuple((i, k.repeat_interleave(times, 0), v.repeat_interleave(times, 0)) for i, k, v in self.layers)
        )

    def after(self, first: KeysValues | None) -> KeysValues:
        """These positions behind the one row of others."""
        if first is None:
            return self
        pairs = zip(first.layers, self.layers, strict=True)
        return KeysValues(tuple((i, _behind(a, k), _behind(b, v)) for (_, a, b), (i, k, v) in pairs))

    def last(self, tokens: int) -> KeysValues:
        """The last positions only."""
        if tokens == self.tokens:
            return self
        return KeysValues(tuple((i, k[..., -tokens:, :], v[..., -tokens:, :]) for i, k, v in self.layers))

    @staticmethod
    def joined(parts: Sequence[KeysValues]) -> KeysValues:
        """The rows of several that are equally long."""
        columns = zip(*(part.layers for part in parts), strict=True)
        return KeysValues(
            tuple((c[0][0], torch.cat([k for _, k, _ in c]), torch.cat([v for _, _, v in c])) for c in columns)
        )

    @staticmethod
    def stacked(parts: Sequence[KeysValues]) -> KeysValues:
        """The rows of several, padded on the left with zeros to the longest."""
        if len(parts) == 1:
            return parts[0]
        columns = zip(*(part.layers for part in parts), strict=True)
        return KeysValues(
            tuple((c[0][0], left_padded([k for _, k, _ in c]), left_padded([v for _, _, v in c])) for c in columns)
        )


class Network:
    """One frozen model. Logits come through the model's own head, which may soft-cap or scale them."""

    def __init__(self, model: Any) -> None:
        self.model = model
        parameters = inspect.signature(model.forward).parameters
        self._open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self._known = frozenset(parameters)
        self.soft = placeholder_id(model)  # stands for a soft token where an architecture wants ids beside embeddings
        self.call = model  # what runs a forward: the model, or a compiled form of it

    def compiled(self) -> Network:
        """The same, compiled; on a GPU with CUDA graphs, whose outputs last until the next forward only."""
        other = copy.copy(self)
        other.call = torch.compile(self.model, mode="reduce-overhead" if self.device.type == "cuda" else "default")
        return other

    @property
    def table(self) -> Any:
        """The input embedding module, which may scale its rows."""
        return self.model.get_input_embeddings()

    @property
    def config(self) -> Any:
        """The part of the configuration that is about text."""
        return self.model.config.get_text_config()

    @property
    def device(self) -> torch.device:
        """Where embeddings enter."""
        device: torch.device = self.table.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Of the input embeddings."""
        dtype: torch.dtype = self.table.weight.dtype
        return dtype

    @property
    def hidden(self) -> int:
        """Width of an input embedding."""
        return int(self.table.weight.shape[1])

    @property
    def reads_padding(self) -> bool:
        """Must rows not be padded?"""
        return reads_padding(self.model)

    def row_bytes(self, new: int, total: int, kept: int = 1) -> float:
        """Of a row's forward: activations of its new tokens, keys and values of `total`, and the logits that are kept.

        A token's activations take some two dozen hidden widths; keys and values are held twice while a cache grows, and
        logits have float32 copies.
        """
        width = self.dtype.itemsize * self.hidden
        heads = getattr(self.config, "num_attention_heads", None) or 1
        shared = (getattr(self.config, "num_key_value_heads", None) or heads) / heads
        per_token = 2 * getattr(self.config, "num_hidden_layers", 1) * shared * width  # keys and values of all layers
        return 24 * new * width + 2 * per_token * total + 12 * self.config.vocab_size * kept

    def ids(self, ids: Sequence[Any]) -> Tensor:
        """Token ids on the model's device."""
        return torch.tensor(ids, dtype=torch.long, device=self.device)

    def embed(self, ids: Sequence[int]) -> Float[Tensor, "tokens hidden"]:
        """Rows of the embedding module."""
        return embed(self.model, self.ids(ids))

    def logits(
        self,
        rows: Float[Tensor, "rows tokens hidden"],
        positions: Tensor,
        ids: Tensor,
        mask: Any = None,
        cache: Any = None,
        keep: int | Tensor = 1,
    ) -> Float[Tensor, "rows kept vocabulary"]:
        """Logits of the next token at the kept positions (a number of last ones, or their indices).

        positions : (rows or 1, tokens). ids : (rows or 1, tokens), `soft` where a soft token stands.
        mask : 2-D of real tokens, what `masks` made, or None. cache : one that the forward grows.
        """
        output = self._forward(rows, positions, ids, mask, cache, cache is not None, keep)
        logits: Tensor = output.logits
        return logits if isinstance(keep, Tensor) else logits[:, -keep:]

    def start(self, rows: Tensor, positions: Tensor, ids: Tensor) -> Any:
        """Run some first tokens and return the model's own cache of them, whatever it is."""
        output = self._forward(rows, positions, ids, None, None, True, 1)
        for name in ("past_key_values", "cache_params"):
            cache = getattr(output, name, None)
            if cache is not None:
                return name, cache
        raise NotImplementedError("this architecture returns no cache")

    def resume(self, started: Any, rows: Tensor, positions: Tensor, ids: Tensor) -> Tensor:
        """Last logits after more tokens; what `start` returned stays as it was."""
        name, cache = started
        output = self._forward(rows, positions, ids, None, copy.deepcopy(cache), True, 1, name)
        logits: Tensor = output.logits
        return logits[:, -1]

    def keys_values(self, rows: Tensor, positions: Tensor, ids: Tensor, before: KeysValues | None = None) -> KeysValues:
        """Keys and values of some tokens behind others, without those."""
        from transformers import DynamicCache

        # Without a configuration: sliding layers keep their whole history too.
        cache = DynamicCache() if before is None else filled_cache(before)
        self.logits(rows, positions, ids, cache=cache)
        layers = tuple((i, lay.keys, lay.values) for i, lay in enumerate(cache.layers) if lay.keys is not None)
        total = rows.shape[1] + (before.tokens if before else 0)
        if not layers or any(keys.shape[-2] != total for _, keys, _ in layers):
            raise NotImplementedError("this architecture keeps no keys and values per token")
        return KeysValues(layers).last(rows.shape[1])

    def masks(self, visible: Tensor, query: Tensor, key: Tensor) -> Any:
        """What to pass as a mask so that new tokens see some positions only; see `compat.attention_masks`."""
        return attention_masks(self.model, visible, query[None], key[None])

    def _forward(
        self, rows: Tensor, positions: Tensor, ids: Tensor, mask: Any, cache: Any, use_cache: bool,
        keep: int | Tensor, cache_name: str = "past_key_values",
    ) -> Any:  # fmt: skip
        arguments = {
            "inputs_embeds": rows,
            "position_ids": positions.expand(len(rows), -1),
            "attention_mask": mask,
            cache_name: cache,
            "use_cache": use_cache,
            "logits_to_keep": keep,
            **extra_arguments(self.model, ids.expand(len(rows), -1)),
        }
        known = {k: v for k, v in arguments.items() if v is not None and (self._open_ended or k in self._known)}
        return self.call(**known)


def filled_cache(past: KeysValues) -> Any:
    """A fresh cache that starts with the given keys and values; growing it makes new tensors and leaves these alone."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer, keys, values in past.layers:
        cache.update(keys[..., :0, :], values[..., :0, :], layer)  # makes the layer
        cache.layers[layer].keys, cache.layers[layer].values = keys, values
    return cache


def padding(network: Network, pads: Sequence[int], length: int, group: int) -> tuple[Tensor, Tensor | None]:
    """(positions, mask of real tokens or None) of rows of one length, each `group` times, with padding on the left."""
    pad = network.ids(pads).repeat_interleave(group)[:, None]
    steps = torch.arange(length, device=network.device)[None]
    return (steps - pad).clamp(min=0), (steps >= pad).long() if any(pads) else None


def left_padded(tensors: Iterable[Tensor]) -> Tensor:
    """(1, heads, tokens, width) each → (rows, heads, longest, width), zeros on the left."""
    tensors = list(tensors)
    longest = max(t.shape[-2] for t in tensors)
    return torch.cat([torch.nn.functional.pad(t, (0, 0, longest - t.shape[-2], 0)) for t in tensors])


def _behind(first: Tensor, rest: Tensor) -> Tensor:
    return torch.cat([first.expand(len(rest), -1, -1, -1), rest], dim=-2)
