"""Runs a plan: soft prompts in, option log-probabilities out.

Three paths give the same answer. `plain` is one forward per candidate and question, the reference. `batched` flattens
candidates × questions, padded on the left. `cached` (late placement) reuses the keys and values of each question's
prefix, the same for every candidate, so that only soft tokens and the answer cue go through the layers. Micro-batches
have a constant shape, so a candidate's answer does not depend on its company. Before a fast path is trusted it is
compared with `plain` on two candidates and the questions it pads most.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from softde.lm.layout import Plan, Question

GROUP_SIZE = 4  # candidates per forward; on a CPU 1 to 8 cost the same, and a lone candidate is padded to a whole group
MEMORY_BUDGET = {"cpu": 64 * 2**20, "cuda": 4 * 2**30}  # bytes of expanded cache and activations per forward
CACHED_PLANS = 2
PADDING_SLACK = 1.08  # longest over shortest question of a padded batch: about 4 % of its tokens are padding
UNREAD = -1e9  # stands for an option that an item does not have while logs are summed; finite, so gradients stay finite
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
HALF_TOLERANCE = 0.25

_log = logging.getLogger("softde")


@dataclass(frozen=True)
class OptionLogprobs:
    """Answers to all items.

    logprobs : (population, items, options) float32, log of the probability of each option, normalised over the item's
        options in each order and averaged over orders; −inf where an item has fewer options.
    option_mass : (population, items) float32, probability of the options together among all tokens, mean over orders.
    ledger : tokens pushed through the layers for this call, padding included; a run's one-off cached prefixes
        (`Plan.prefix_tokens`) are not.
    """

    logprobs: Float[Tensor, "population items options"]
    option_mass: Float[Tensor, "population items"]
    ledger: int


@dataclass(frozen=True)
class Chunk:
    """Questions that share one forward, with the prefix they need: keys and values per layer, padded on the left."""

    index: list[int]
    prefix: tuple[tuple[int, Tensor, Tensor], ...]  # (layer, keys, values), each (questions, heads, tokens, head_dim)
    prefix_lengths: list[int]


class Engine:
    """One frozen model, its cached prefixes, and which paths have passed their check."""

    def __init__(self, model: Any, group_size: int = GROUP_SIZE, memory_budget: int | None = None) -> None:
        if group_size < 1:
            raise ValueError(f"group_size: expected 1 or more candidates per forward, got {group_size}")
        self.model = model
        self.group_size = group_size
        self.memory_budget = memory_budget or MEMORY_BUDGET.get(self.device.type, MEMORY_BUDGET["cpu"])
        self._prefixes: OrderedDict[tuple[str, tuple[tuple[int, ...], ...]], list[Chunk]] = OrderedDict()
        self._failed: set[str] = set()
        self._passed: dict[tuple[str, bool], int] = {}  # (path, with padding) → longest question it was checked on
        self._forward_arguments = inspect.signature(model.forward).parameters

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype

    def run(
        self,
        plan: Plan,
        prompts: Float[Tensor, "population tokens hidden"] | None = None,
        plain: bool = False,
        grad: bool = False,
    ) -> OptionLogprobs:
        """Ask every question of every candidate; `prompts=None` asks without soft tokens (population 1).

        plain : one forward per candidate and question. grad : keep the graph, so that the answer can be differentiated
        with respect to `prompts`.

        Raises
        ------
        ValueError
            Prompts of another shape; a question beyond the model's context; a model that does not fit into memory.
        """
        prompts = self._checked_prompts(plan, prompts)
        while True:
            try:
                with torch.enable_grad() if grad else torch.inference_mode():
                    path = "plain" if plain else self.path(plan, prompts.shape[1])
                    raw, ledger = self._ask(path, plan.questions, prompts, plan.digest)
                return combine(plan, raw.to(prompts.device), ledger)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                self._shrink(error)

    def path(self, plan: Plan, tokens: int = 1) -> str:
        """The fastest path that agrees with the plain one: "cached", "batched" or "plain"."""
        wanted = ["cached"] if plan.placement == "late" and tokens else []
        for name in [*wanted, "batched"]:
            if name not in self._failed and self._trusted(name, plan):
                return name
        return "plain"

    # -- the three paths: (population, questions, options) log-probabilities over the whole vocabulary, and tokens used

    def _ask(self, path: str, questions: Sequence[Question], prompts: Tensor, digest: str | None) -> tuple[Tensor, int]:
        prompts = prompts.to(self.device, self.dtype)
        if path == "plain":
            return self._plain(questions, prompts)
        groups = list(constant_groups(prompts, self.group_size if prompts.shape[1] else 1))
        forward = self._cached if path == "cached" else self._batched
        chunks = self._chunks(path, questions, prompts.shape[1], digest)
        answers, ledger = [], 0
        for chunk in chunks:
            answer, tokens = forward(chunk, [questions[i] for i in chunk.index], groups)
            answers.append(answer)
            ledger += tokens
        return _in_order(chunks, answers)[: len(prompts)], ledger

    def _plain(self, questions: Sequence[Question], prompts: Tensor) -> tuple[Tensor, int]:
        width = max(len(q.option_ids) for q in questions)
        rows, ledger = [], 0
        for prompt in prompts:
            for q in questions:
                row = torch.cat([self.embed(q.prefix_ids), prompt, self.embed(q.suffix_ids)])[None]
                logits = self._logits(row, torch.arange(row.shape[1], device=self.device)[None])
                rows.append(option_logprobs(logits, [q], width))
                ledger += row.shape[1]
        return torch.cat(rows).view(len(prompts), len(questions), width), ledger

    def _batched(self, chunk: Chunk, questions: Sequence[Question], groups: Sequence[Tensor]) -> tuple[Tensor, int]:
        group, tokens, _ = groups[0].shape
        longest = max(q.length for q in questions)
        pads = [longest - q.length for q in questions]
        mask, positions = self._mask_and_positions(pads, longest + tokens, group)
        before = [
            self.embed((0,) * pad + q.prefix_ids).expand(group, -1, -1) for pad, q in zip(pads, questions, strict=True)
        ]
        after = [self.embed(q.suffix_ids).expand(group, -1, -1) for q in questions]
        answers = []
        for candidates in groups:
            rows = [torch.cat([b, candidates, a], dim=1) for b, a in zip(before, after, strict=True)]
            answers.append(self._read(self._logits(torch.cat(rows), positions, mask), questions, group))
        return torch.cat(answers), len(groups) * positions.numel()

    def _cached(self, chunk: Chunk, questions: Sequence[Question], groups: Sequence[Tensor]) -> tuple[Tensor, int]:
        group = len(groups[0])
        suffixes = torch.stack([self.embed(q.suffix_ids) for q in questions]).repeat_interleave(group, 0)
        longest = max(chunk.prefix_lengths)
        pads = [longest - length for length in chunk.prefix_lengths]
        new = groups[0].shape[1] + suffixes.shape[1]
        mask, positions = self._mask_and_positions(pads, longest + new, group)
        positions = positions[:, longest:]
        # One row per question and candidate, question by question; expanded once, and never written to.
        prefix = [(i, k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)) for i, k, v in chunk.prefix]
        answers = []
        for candidates in groups:
            rows = torch.cat([candidates.repeat(len(questions), 1, 1), suffixes], dim=1)
            answers.append(self._read(self._logits(rows, positions, mask, filled_cache(prefix)), questions, group))
        return torch.cat(answers), len(groups) * positions.numel()

    def _mask_and_positions(self, pads: Sequence[int], length: int, group: int) -> tuple[Tensor | None, Tensor]:
        """(rows, length) mask of real tokens, None if there is no padding, and positions that start after it."""
        pad = torch.tensor(pads, device=self.device).repeat_interleave(group)[:, None]
        steps = torch.arange(length, device=self.device)[None]
        return (steps >= pad).long() if any(pads) else None, (steps - pad).clamp(min=0)

    def _logits(
        self, rows: Tensor, positions: Tensor, mask: Tensor | None = None, cache: Any = None
    ) -> Float[Tensor, "rows vocabulary"]:
        """Next-token logits through the model's own head (which may soft-cap or scale them), last position only."""
        arguments = {
            "inputs_embeds": rows,
            "position_ids": positions,
            "attention_mask": mask,
            "past_key_values": cache,
            "use_cache": cache is not None,
            "logits_to_keep": 1,
        }
        open_ended = any(p.kind is p.VAR_KEYWORD for p in self._forward_arguments.values())
        known = {name: value for name, value in arguments.items() if open_ended or name in self._forward_arguments}
        logits: Tensor = self.model(**{name: value for name, value in known.items() if value is not None}).logits
        return logits[:, -1]

    def _read(self, logits: Tensor, questions: Sequence[Question], group: int) -> Tensor:
        width = max(len(q.option_ids) for q in questions)
        repeated = [q for q in questions for _ in range(group)]
        return option_logprobs(logits, repeated, width).view(len(questions), group, width).transpose(0, 1)

    def embed(self, ids: Sequence[int]) -> Float[Tensor, "tokens hidden"]:
        """Rows of the embedding module, which may scale them."""
        rows: Tensor = self.model.get_input_embeddings()(torch.tensor(ids, dtype=torch.long, device=self.device))
        return rows

    # -- chunks of questions, and the prefixes that are computed once

    def _cut(self, path: str, questions: Sequence[Question], tokens: int) -> list[list[int]]:
        """Question numbers per forward: a pure function of plan, tokens, group size and memory budget."""
        longest = max(q.length for q in questions)
        if path == "batched":
            return cut(questions, self._questions_per_forward(longest + tokens, 0), PADDING_SLACK)
        new = tokens + max(len(q.suffix_ids) for q in questions)
        return cut(questions, self._questions_per_forward(new, longest))

    def _chunks(self, path: str, questions: Sequence[Question], tokens: int, digest: str | None) -> list[Chunk]:
        """The chunks of a plan; those of the cached path are kept for the next call."""
        numbers = self._cut(path, questions, tokens)
        if path == "batched":
            return [Chunk(index, (), []) for index in numbers]
        key = (digest or "", tuple(map(tuple, numbers)))
        if key in self._prefixes:
            self._prefixes.move_to_end(key)
            return self._prefixes[key]
        with torch.inference_mode(False), torch.no_grad():  # ordinary tensors, which a later gradient may pass through
            chunks = [self._prefix([questions[i] for i in index], index) for index in numbers]
        if digest is not None:
            self._prefixes[key] = chunks
            while len(self._prefixes) > CACHED_PLANS:
                self._prefixes.popitem(last=False)
        return chunks

    def _questions_per_forward(self, tokens: int, cached_tokens: int) -> int:
        config = self.model.config.get_text_config()
        width = self.dtype.itemsize * self.model.get_input_embeddings().weight.shape[1]
        heads = getattr(config, "num_attention_heads", None) or 1
        shared = (getattr(config, "num_key_value_heads", None) or heads) / heads
        per_token = 2 * getattr(config, "num_hidden_layers", 1) * shared * width  # keys and values of all layers
        # A token's activations take some two dozen hidden widths; keys and values are held twice while a cache grows.
        row = 24 * tokens * width + (2 * per_token * (cached_tokens + tokens) if cached_tokens else 0)
        row += 12 * config.vocab_size  # logits and their float32 copies
        return max(1, int(self.memory_budget // (row * self.group_size)))

    def _prefix(self, questions: Sequence[Question], index: list[int]) -> Chunk:
        from transformers import DynamicCache

        caches = []
        for q in questions:
            cache = DynamicCache()  # without a configuration: sliding layers keep their whole history too
            self._logits(
                self.embed(q.prefix_ids)[None],
                torch.arange(len(q.prefix_ids), device=self.device)[None],
                cache=cache,
            )
            caches.append({i: (lay.keys, lay.values) for i, lay in enumerate(cache.layers) if lay.keys is not None})
        lengths = [len(q.prefix_ids) for q in questions]
        if not caches[0] or any(
            keys.shape[-2] != n for c, n in zip(caches, lengths, strict=True) for keys, _ in c.values()
        ):
            raise NotImplementedError("this architecture keeps no keys and values per token")
        prefix = tuple(
            (i, left_padded([c[i][0] for c in caches]), left_padded([c[i][1] for c in caches])) for i in caches[0]
        )
        return Chunk(index, prefix, lengths)

    # -- trust and memory

    def _trusted(self, path: str, plan: Plan) -> bool:
        """Has the path passed its check on questions as long as these, with padding if these are padded?"""
        lengths = [q.length for q in plan.questions]
        chunk = max(self._cut(path, plan.questions, 4), key=lambda c: lengths[c[-1]] - lengths[c[0]])
        padded = lengths[chunk[-1]] > lengths[chunk[0]]
        if self._passed.get((path, padded), -1) < plan.longest:
            some = dict.fromkeys([chunk[0], chunk[-1], lengths.index(plan.longest)])
            if not self._agrees(path, [plan.questions[i] for i in some]):
                self._failed.add(path)
                return False
            self._passed[path, padded] = plan.longest
        return True

    def _agrees(self, path: str, questions: Sequence[Question]) -> bool:
        """Does a path equal the plain one on two candidates of four tokens?"""
        ids = torch.randint(self.model.get_input_embeddings().weight.shape[0], (8,), generator=_generator())
        with torch.inference_mode(False), torch.no_grad():
            prompts = self.embed(ids.tolist()).view(2, 4, -1)
            expected, _ = self._plain(questions, prompts)
            try:
                got, _ = self._ask(path, questions, prompts, None)
                error = float((got - expected).nan_to_num(0.0, math.inf, math.inf).abs().max())
                same = bool((got.isnan() == expected.isnan()).all())
                reason = f"differs by {error:.2g} from one-by-one forwards"
            except Exception as failure:  # any failure of a fast path means that this model has to go without it
                if out_of_memory(failure):
                    raise
                same, error, reason = False, math.inf, f"fails ({type(failure).__name__}: {failure})"
        passed = same and error <= TOLERANCE.get(self.dtype, HALF_TOLERANCE)
        if not passed:
            _log.warning("the %s path %s on %s; using a slower one", path, reason, type(self.model).__name__)
        return passed

    def _shrink(self, error: Exception) -> None:
        """Half the candidates and half the memory per forward, or one sentence when nothing is left to halve."""
        self._prefixes.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.group_size == 1 and self.memory_budget < 2**20:
            raise ValueError(
                f"out of memory on {self.device} with one candidate and one question per forward; "
                "use a smaller model, dtype='bfloat16', or a device with more memory"
            ) from error
        self.group_size, self.memory_budget = max(1, self.group_size // 2), self.memory_budget // 2
        _log.warning("out of memory on %s: continuing with groups of %d candidates", self.device, self.group_size)

    def _checked_prompts(self, plan: Plan, prompts: Tensor | None) -> Tensor:
        hidden = self.model.get_input_embeddings().weight.shape[1]
        if prompts is None:
            prompts = torch.zeros(1, 0, hidden)
        elif prompts.ndim != 3 or 0 in prompts.shape or prompts.shape[2] != hidden or not prompts.is_floating_point():
            raise ValueError(
                f"prompts: expected a floating-point tensor (population, tokens, {hidden}), "
                f"got {tuple(prompts.shape)} {prompts.dtype}; take candidates from a space built for this model"
            )
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if context and plan.longest + prompts.shape[1] > context:
            raise ValueError(
                f"the longest question has {plan.longest} tokens and the prompt {prompts.shape[1]}, "
                f"but the model reads {context}; shorten the system text, the items or the prompt"
            )
        return prompts


def option_logprobs(logits: Tensor, questions: Sequence[Question], width: int) -> Float[Tensor, "rows options"]:
    """Log-probability of each option's token: a full softmax over the vocabulary, in float32."""
    logits = logits.float()
    ids = [q.option_ids + (-1,) * (width - len(q.option_ids)) for q in questions]
    index = torch.tensor(ids, device=logits.device)
    values = logits.gather(-1, index.clamp(min=0)) - logits.logsumexp(-1, keepdim=True)
    return values.masked_fill(index < 0, UNREAD)


def combine(plan: Plan, raw: Float[Tensor, "population questions options"], ledger: int) -> OptionLogprobs:
    """Normalise over the options of each question, then average the orders of each item."""
    orders = [[i for i, q in enumerate(plan.questions) if q.item == item] for item in range(plan.n_items)]
    by_item = raw[:, torch.tensor(orders, device=raw.device)]  # (population, items, orders, options)
    mass = by_item.logsumexp(-1, keepdim=True)
    mean = (by_item - mass).logsumexp(2) - math.log(len(orders[0]))
    counts = torch.tensor([len(plan.questions[o[0]].option_ids) for o in orders], device=raw.device)
    absent = torch.arange(plan.n_options, device=raw.device) >= counts[:, None]
    logprobs = torch.where(absent, torch.tensor(-math.inf, device=raw.device), mean)
    return OptionLogprobs(logprobs, mass.squeeze(-1).exp().mean(-1), ledger)


def constant_groups(prompts: Tensor, size: int) -> Iterator[Tensor]:
    """Groups of exactly `size` candidates; the last one is filled with copies of its last candidate."""
    for start in range(0, len(prompts), size):
        group = prompts[start : start + size]
        yield torch.cat([group, group[-1:].expand(size - len(group), -1, -1)]) if len(group) < size else group


def cut(questions: Sequence[Question], size: int, slack: float = math.inf) -> list[list[int]]:
    """Question numbers in chunks of at most `size`: equal suffix lengths in each, even sizes, similar lengths.

    slack : the longest question of a chunk over its shortest, at most.
    """
    by_suffix: dict[int, list[int]] = {}
    for i, q in enumerate(questions):
        by_suffix.setdefault(len(q.suffix_ids) if q.prefix_ids else 0, []).append(i)
    chunks: list[list[int]] = []
    for numbers in by_suffix.values():
        numbers.sort(key=lambda i: questions[i].length)
        even = math.ceil(len(numbers) / math.ceil(len(numbers) / size))
        chunk: list[int] = []
        for i in numbers:
            if len(chunk) == even or (chunk and questions[i].length > slack * questions[chunk[0]].length):
                chunks.append(chunk)
                chunk = []
            chunk.append(i)
        chunks.append(chunk)
    return chunks


def left_padded(tensors: Sequence[Tensor]) -> Tensor:
    """(1, heads, tokens, width) each → (questions, heads, longest, width), zeros on the left."""
    longest = max(t.shape[-2] for t in tensors)
    return torch.cat([torch.nn.functional.pad(t, (0, 0, longest - t.shape[-2], 0)) for t in tensors])


def filled_cache(prefix: Sequence[tuple[int, Tensor, Tensor]]) -> Any:
    """A fresh cache that starts with the given keys and values; growing it makes new tensors and leaves these alone."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer, keys, values in prefix:
        cache.update(keys[..., :0, :], values[..., :0, :], layer)  # makes the layer
        cache.layers[layer].keys, cache.layers[layer].values = keys, values
    return cache


def _in_order(chunks: Sequence[Chunk], answers: Sequence[Tensor]) -> Tensor:
    """Chunks' answers (candidates, questions, options) back in the plan's order, one width."""
    width = max(a.shape[-1] for a in answers)
    wide = torch.cat([torch.nn.functional.pad(a, (0, width - a.shape[-1]), value=UNREAD) for a in answers], dim=1)
    numbers = torch.tensor([i for chunk in chunks for i in chunk.index], device=wide.device)
    return wide[:, numbers.argsort()]


def out_of_memory(error: BaseException) -> bool:
    """Did an allocation fail, on a GPU or on the CPU?"""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
