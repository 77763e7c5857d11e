"""Runs a plan: soft prompts in, option log-probabilities out, by the fastest path that gives the plain path's answer.

Candidates go through the layers in groups of one size, the last one filled up, and questions in chunks that depend on
nothing but the plan, so a candidate's answer does not depend on its company, nor on which questions it is asked.
Before a path is trusted it is compared with one forward per question on two candidates.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from softde.lm.compiling import compile_if_faster
from softde.lm.layout import Plan
from softde.lm.network import KeysValues, Network
from softde.lm.paths import PATHS, Chunk, Fits, prefix_of, stem_of

# Candidates per forward: on a CPU 1 to 8 cost the same, on a GPU a forward needs a thousand tokens to keep it busy.
GROUP_SIZE = {"cpu": 4, "cuda": 16}
MEMORY = {"cpu": 64 * 2**20, "cuda": 256 * 2**20}  # bytes per candidate of a group, for keys, values and activations
CACHED_PLANS = 2
TRIED = 4  # soft tokens of the two candidates on which a path is checked that has none of its own
UNREAD = -1e9  # stands for an option that an item does not have while logs are summed; finite, so gradients stay finite
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
HALF_TOLERANCE = 0.25

_log = logging.getLogger("softde")


@dataclass(frozen=True)
class OptionLogprobs:
    """Answers to the items.

    logprobs : (population, items, options) float32, log of the probability of each option, normalised over the item's
        options in each question (order, wording) and averaged over them; −inf where an item has fewer options.
    option_mass : (population, items) float32, probability of the options together among all tokens, their mean.
    asked : (population, items); what was not asked is NaN in the other two.
    ledger : tokens pushed through the layers for these candidates, padding included; a run's one-off cached prefixes
        (`Plan.prefix_tokens`) are not. filler : the same for copies that filled up groups.
    """

    logprobs: Float[Tensor, "population items options"]
    option_mass: Float[Tensor, "population items"]
    asked: Bool[Tensor, "population items"]
    ledger: int
    filler: int = 0


Survives = Callable[[OptionLogprobs], Bool[Tensor, "population"]]


@dataclass(frozen=True)
class Ready:
    """A plan cut into chunks for a number of soft tokens, with what a run computes once."""

    chunks: tuple[tuple[Chunk, ...], ...]  # per block
    prefix: KeysValues | None  # one row, before the stem


class Engine:
    """One frozen model, its cached prefixes, and which paths have passed their check."""

    def __init__(self, model: Any, group_size: int | None = None, compiles: bool = False) -> None:
        if group_size is not None and group_size < 1:
            raise ValueError(f"group_size: expected 1 or more candidates per forward, got {group_size}")
        self.model = model
        self.network = Network(model)
        self.fast = self.network  # what answers chunks: the same, or a compiled form of it
        self.memory = MEMORY.get(self.device.type, MEMORY["cpu"])
        self.group_size = group_size or self._groups_that_fit()
        self.notes: list[str] = []  # what did not go as planned, in words, once each
        self.compiles = compiles
        self._compiled = False
        self._ready: OrderedDict[tuple[Any, ...], Ready] = OrderedDict()
        # (path, with a stem, with a prefix, padded) → the longest row it was checked on, infinite if it failed
        self._checked: dict[tuple[str, bool, bool, bool], float] = {}
        self._trust: dict[tuple[Any, ...], bool] = {}  # the same, plan by plan

    @property
    def device(self) -> torch.device:
        """Where prompts enter."""
        return self.network.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the input embeddings."""
        return self.network.dtype

    def run(
        self,
        plan: Plan,
        prompts: Float[Tensor, "population tokens hidden"] | None = None,
        plain: bool = False,
        grad: bool = False,
        order: Sequence[int] | None = None,
        survives: Survives | None = None,
    ) -> OptionLogprobs:
        """Ask the questions of every candidate; `prompts=None` asks without soft tokens (population 1).

        plain : one forward per candidate and question. grad : keep the graph, so that the answer can be differentiated
        with respect to `prompts`. order : the plan's blocks in the order in which they are asked. survives : after each
        block but the last, from all answers so far, which candidates are asked on.

        Raises
        ------
        ValueError
            Prompts of another shape; a question beyond the model's context; a model that does not fit into memory.
        """
        prompts = self._checked_prompts(plan, prompts)
        blocks = range(len(plan.blocks)) if order is None else order
        if sorted(blocks) != list(range(len(plan.blocks))):
            raise ValueError(f"order: expected each of {len(plan.blocks)} blocks once, got {list(blocks)}")
        while True:
            path = "plain"  # which the checks of the others run as well
            try:
                with torch.enable_grad() if grad else torch.inference_mode():
                    path = "plain" if plain else self.path(plan, prompts.shape[1])
                    return self._ask(path, plan, prompts, blocks, survives)
            except PathError as failure:
                self._give_up(path, plan, failure)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                self.shrink(error)

    def path(self, plan: Plan, tokens: int = 1) -> str:
        """The first path that agrees with the plain one, of those that can ask this plan."""
        for name in list(PATHS)[:-1]:
            possible = name == "batched" or (tokens > 0 and plan.shared and (plan.stemmed or name != "packed"))
            if possible and self._trusted_before(name, plan, tokens or TRIED):
                return name
        return "plain"

    def record(self, plan: Plan, tokens: int) -> dict[str, Any]:
        """How a plan is asked here, as plain values: path, candidates per forward, and what did not go as planned."""
        return {"path": self.path(plan, tokens), "group_size": self.group_size, "notes": list(self.notes)}

    # -- asking

    def _ask(
        self, path: str, plan: Plan, prompts: Tensor, order: Sequence[int], survives: Survives | None
    ) -> OptionLogprobs:
        home = prompts.device
        prompts = prompts.to(self.device, self.dtype)
        group = 1 if path == "plain" or not prompts.shape[1] else self.group_size
        with failing_as_path():
            ready = self._prepared(path, plan, prompts.shape[1], group)
            stems, per_candidate = self._stems(path, plan, prompts, group, ready.prefix)
        n, fillers = len(prompts), -len(prompts) % group
        ledger, filler = n * per_candidate, fillers * per_candidate
        width = max(len(q.option_ids) for q in plan.questions)
        raw = torch.full((n, len(plan.questions), width), math.nan, device=self.device)
        asked = torch.zeros((n, len(plan.questions)), dtype=torch.bool, device=self.device)
        alive = torch.arange(n, device=self.device)

        def ask(network: Network, chunk: Chunk, options: Tensor, index: Tensor) -> Tensor:
            stem = stems.rows(index).after(ready.prefix) if stems else None
            with failing_as_path():
                logits = chunk.ask(network, prompts.index_select(0, index), stem)
            return option_logprobs(logits, options)

        fast = path != "plain" and not torch.is_grad_enabled()
        if fast and plan.digest:
            largest = max((c for block in ready.chunks for c in block), key=lambda c: c.tokens)
            options = option_index(plan, largest.questions, width, self.device)
            self._compile_once(lambda network: ask(network, largest, options, next(constant_groups(alive, group))[0]))
        network = self.fast if fast else self.network
        for block in order:
            for chunk in ready.chunks[block]:
                columns = torch.tensor(chunk.questions, device=self.device)
                options = option_index(plan, chunk.questions, width, self.device)
                for index, real in constant_groups(alive, group):
                    answer = ask(network, chunk, options, index)
                    raw[index[:real, None], columns] = answer[:real].to(self.device)
                    asked[index[:real, None], columns] = True
                    ledger += real * chunk.tokens
                    filler += (group - real) * chunk.tokens
            if survives is not None and block != order[-1]:
                keep = survives(combine(plan, raw.to(home), asked.to(home), ledger, filler)).to(self.device)
                alive = alive[keep[alive]]
                if not len(alive):
                    break
        return combine(plan, raw.to(home), asked.to(home), ledger, filler)

    def _compile_once(self, ask: Callable[[Network], Tensor]) -> None:
        """If it was wished for: try it on a forward, once."""
        if self.compiles and not self._compiled:
            self._compiled = True
            self.fast, found = compile_if_faster(self.network, ask, TOLERANCE.get(self.dtype, HALF_TOLERANCE))
            self.note(found)

    def _stems(
        self, path: str, plan: Plan, prompts: Tensor, group: int, prefix: KeysValues | None
    ) -> tuple[KeysValues | None, int]:
        """Keys and values of every candidate's stem, and their tokens per candidate."""
        if not plan.stemmed or path not in ("packed", "expanded"):
            return None, 0
        everyone = torch.arange(len(prompts), device=self.device)
        parts = [
            stem_of(self.network, plan, prompts.index_select(0, index), prefix).rows(everyone[:real])
            for index, real in constant_groups(everyone, group)
        ]
        return KeysValues.joined(parts), prompts.shape[1] + plan.stem

    def _prepared(self, path: str, plan: Plan, tokens: int, group: int) -> Ready:
        """The plan's chunks; those of a whole plan are kept for the next call."""
        key = (path, plan.digest, tokens, group, self.memory)
        if key in self._ready:
            self._ready.move_to_end(key)
            return self._ready[key]

        with torch.inference_mode(False), torch.no_grad():  # ordinary tensors, which a later gradient may pass through
            kind = PATHS[path]
            chunks = tuple(
                tuple(
                    kind.chunk(self.network, plan, piece, tokens, group)
                    for piece in kind.pieces(self.network, plan, block, tokens, self._fits(group))
                )
                for block in plan.blocks
            )
            before = plan.questions[0].prefix_ids if plan.stemmed and path in ("packed", "expanded") else ()
            ready = Ready(chunks, prefix_of(self.network, before) if before else None)
        if plan.digest:
            self._ready[key] = ready
            while len(self._ready) > CACHED_PLANS:
                self._ready.popitem(last=False)
        return ready

    def _fits(self, group: int) -> Fits:
        """Rows per candidate in one forward: a pure function of lengths, group size and memory budget."""

        def fits(new: int, cached: int) -> int:
            return self.rows_that_fit(self.network.row_bytes(new, cached + new if cached else 0), group)

        return fits

    def rows_that_fit(self, row_bytes: float, group: int) -> int:
        """Rows per candidate in a forward of a group: none, if one is too large."""
        return int(self.memory * self.group_size // (row_bytes * group))

    def _groups_that_fit(self) -> int:
        """Candidates per forward: what keeps the device busy, halved until it takes at most half the free memory."""
        size = GROUP_SIZE.get(self.device.type, GROUP_SIZE["cpu"])
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            while size > 1 and size * self.memory > free / 2:
                size //= 2
        return size

    # -- trust and memory

    def _trusted_before(self, path: str, plan: Plan, tokens: int) -> bool:
        """`_trusted`, worked out once per plan."""
        key = (path, plan.digest, tokens, self.group_size, self.memory)
        if key not in self._trust:
            self._trust[key] = self._trusted(path, plan, tokens)
        return self._trust[key]

    def _trusted(self, path: str, plan: Plan, tokens: int) -> bool:
        """Has the path passed its check on rows as long as these, with padding if these are padded?"""
        kind, lengths = PATHS[path], [q.length for q in plan.questions]
        fits = self._fits(self.group_size)
        pieces = [p for block in plan.blocks for p in kind.pieces(self.network, plan, block, tokens, fits)]
        widest = max(pieces, key=lambda p: max(lengths[i] for i in p) - min(lengths[i] for i in p))
        longest = max(pieces, key=lambda p: kind.longest_row(plan, p))
        key = self._key(path, plan, padded=len({lengths[i] for i in widest}) > 1)
        extent = tokens + kind.longest_row(plan, longest)
        if self._checked.get(key, -1) < extent:
            by_length = sorted(widest, key=lengths.__getitem__)
            some = dict.fromkeys([*by_length[:2], *by_length[-2:], lengths.index(plan.longest)])
            some |= dict.fromkeys(longest if path == "packed" else ())
            if len(some) == 1 and plan.stemmed:  # a stem needs two questions
                some[next(i for i in range(len(lengths)) if i not in some)] = None
            self._checked[key] = extent if self._agrees(path, part(plan, list(some)), tokens) else math.inf
        return self._checked[key] < math.inf

    @staticmethod
    def _key(path: str, plan: Plan, padded: bool) -> tuple[str, bool, bool, bool]:
        return path, plan.stemmed, bool(plan.questions[0].prefix_ids), padded

    def _agrees(self, path: str, plan: Plan, tokens: int) -> bool:
        """Does a path equal the plain one on two candidates?"""
        ids = torch.randint(self.network.table.weight.shape[0], (2 * tokens,), generator=_generator())
        with torch.inference_mode(False), torch.no_grad():
            prompts = self.network.embed(ids.tolist()).view(2, tokens, -1)
            expected = self._ask("plain", plan, prompts, [0], None)
            try:
                got = self._ask(path, plan, prompts, [0], None)
                error = difference(got, expected)
                same = bool((got.logprobs.isnan() == expected.logprobs.isnan()).all())
                reason = f"differs by {error:.2g} from one-by-one forwards"
            except Exception as failure:  # any failure of a fast path means that this model has to go without it
                if out_of_memory(failure):
                    raise
                same, error, reason = False, math.inf, f"fails ({failed(failure)})"
        passed = same and error <= TOLERANCE.get(self.dtype, HALF_TOLERANCE)
        if not passed:
            self.note(f"the {path} path {reason} on {type(self.model).__name__}; using a slower one")
        return passed

    def _give_up(self, path: str, plan: Plan, failure: PathError) -> None:
        """What failed in the middle, though its check went well, is not tried again."""
        if self.fast is not self.network:  # a compiler that fails on later shapes
            self.fast = self.network
            self.note(f"the compiled model fails ({failure}); going on without torch.compile")
        elif path == "plain":
            assert failure.__cause__ is not None
            raise failure.__cause__
        else:
            self._trust.clear()
            self._checked |= {self._key(path, plan, padded): math.inf for padded in (False, True)}
            self.note(f"the {path} path fails ({failure}) on {type(self.model).__name__}; using a slower one")

    def note(self, message: str) -> None:
        """Say something once, and keep it for the record."""
        if message not in self.notes:
            self.notes.append(message)
            _log.warning(message)

    def shrink(self, error: Exception) -> None:
        """Half the candidates per forward, then fewer questions, or one sentence when nothing is left to halve."""
        self._ready.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.group_size == 1 and self.memory < 2**20:
            raise ValueError(
                f"out of memory on {self.device} with one candidate and one question per forward; "
                "use a smaller model, dtype='bfloat16', or a device with more memory"
            ) from error
        if self.group_size == 1:
            self.memory //= 2
        self.group_size = max(1, self.group_size // 2)
        self.note(f"out of memory on {self.device}: continuing with groups of {self.group_size} candidates")

    def _checked_prompts(self, plan: Plan, prompts: Tensor | None) -> Tensor:
        hidden = self.network.hidden
        if prompts is None:
            prompts = torch.zeros(1, 0, hidden)
        elif prompts.ndim != 3 or 0 in prompts.shape or prompts.shape[2] != hidden or not prompts.is_floating_point():
            raise ValueError(
                f"prompts: expected a floating-point tensor (population, tokens, {hidden}), "
                f"got {tuple(prompts.shape)} {prompts.dtype}; take candidates from a space built for this model"
            )
        self.check_room(plan, prompts.shape[1])
        return prompts

    def check_room(self, plan: Plan, tokens: int) -> None:
        """Refuse more soft tokens than the context has room for beside the longest question."""
        context = getattr(self.network.config, "max_position_embeddings", None)
        if context and plan.longest + tokens > context:
            raise ValueError(
                f"the longest question has {plan.longest} tokens and the prompt {tokens}, "
                f"but the model reads {context}; shorten the system text, the items or the prompt"
            )


def option_index(plan: Plan, questions: Sequence[int], width: int, device: torch.device) -> Tensor:
    """(questions, width) token ids of the options, −1 beyond them."""
    ids = [plan.questions[i].option_ids for i in questions]
    return torch.tensor([row + (-1,) * (width - len(row)) for row in ids], device=device)


def option_logprobs(
    logits: Float[Tensor, "candidates questions vocabulary"], index: Tensor
) -> Float[Tensor, "candidates questions options"]:
    """Log-probability of each option's token: a full softmax over the vocabulary, in float32."""
    logits, index = logits.float(), index.to(logits.device).expand(len(logits), -1, -1)
    values = logits.gather(-1, index.clamp(min=0)) - logits.logsumexp(-1, keepdim=True)
    return values.masked_fill(index < 0, UNREAD)


def combine(
    plan: Plan,
    raw: Float[Tensor, "population questions options"],
    asked: Bool[Tensor, "population questions"],
    ledger: int,
    filler: int,
) -> OptionLogprobs:
    """Normalise over the options of each question, then average the questions of each item."""
    index = torch.tensor(plan.by_item, device=raw.device)
    by_item = raw[:, index]  # (population, items, slots, options)
    mass = by_item.logsumexp(-1, keepdim=True)
    mean = (by_item - mass).logsumexp(2) - math.log(index.shape[1])
    counts = torch.tensor([len(plan.questions[slots[0]].option_ids) for slots in plan.by_item], device=raw.device)
    absent = torch.arange(plan.n_options, device=raw.device) >= counts[:, None]
    mean = mean.masked_fill((mass <= UNREAD / 2).any(2), math.nan)  # no option at all has a finite logit
    logprobs = torch.where(absent, torch.tensor(-math.inf, device=raw.device), mean)
    return OptionLogprobs(logprobs, mass.squeeze(-1).exp().mean(-1), asked[:, index].all(-1), ledger, filler)


def constant_groups(rows: Tensor, size: int) -> Iterator[tuple[Tensor, int]]:
    """(`size` rows, how many are real): the last group is filled with copies of its last row."""
    for start in range(0, len(rows), size):
        group = rows[start : start + size]
        yield torch.cat([group, group[-1:].expand(size - len(group))]), len(group)


def part(plan: Plan, numbers: Sequence[int]) -> Plan:
    """Some questions as a plan of its own, each an item of its own."""
    questions = tuple(replace(plan.questions[i], item=item) for item, i in enumerate(numbers))
    widest = max(len(q.option_ids) for q in questions)
    blocks = (tuple(range(len(questions))),)
    return replace(plan, questions=questions, n_items=len(questions), n_options=widest, blocks=blocks, digest="")


def difference(one: OptionLogprobs, other: OptionLogprobs) -> float:
    """The largest difference of log-probabilities, those over the whole vocabulary included."""
    pairs = ((one.logprobs, other.logprobs), (one.option_mass.log(), other.option_mass.log()))
    return max(float((a - b).nan_to_num(0.0, math.inf, math.inf).abs().max()) for a, b in pairs)


class PathError(Exception):
    """A path failed on a forward; what failed is the cause."""


@contextmanager
def failing_as_path() -> Iterator[None]:
    """Whatever a forward raises, but for a lack of memory, as a `PathError`."""
    try:
        yield
    except Exception as error:
        if out_of_memory(error):
            raise
        raise PathError(failed(error)) from error


def failed(error: Exception) -> str:
    """An exception in words."""
    return str(error) if isinstance(error, PathError) else f"{type(error).__name__}: {error}"


def out_of_memory(error: BaseException) -> bool:
    """Did an allocation fail, on a GPU or on the CPU?"""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
