"""Ways to ask some questions of a group of candidates. All give the same answer, each needs more than the one before.

`Packed`: the questions of a chunk in one row per candidate, behind the candidate's stem, joined where they begin alike;
a 4-D mask keeps them apart. `Expanded`: a row per question and candidate, behind the keys and values of the question's
prefix or the candidate's stem. `Copied`: the same with a copy of the model's own cache, a question at a time, for
architectures that keep a state and not keys and values. `Batched`: whole prompts, padded on the left. `Plain`: one
forward per candidate and question, the reference.

A chunk is what one forward asks; it is made once and holds all that does not depend on the candidates. Late prompts are
not packed: a candidate's last bits would depend on its place in the row, and so on its company.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from softde.lm.layout import Node, Plan
from softde.lm.network import KeysValues, Network, filled_cache, padding

PADDING_SLACK = 1.03  # longest over shortest row of a padded forward, so that padding stays below 3 %
PACKED = 1024  # tokens of a packed row at most: attention looks at all pairs of them, also at those the mask hides

Fits = Callable[[int, int], int]  # (new, cached) tokens of a row → rows per candidate that fit into one forward


class Chunk(Protocol):
    """Some questions of a plan, ready to be asked.

    A class of chunks is a path. Its `pieces(network, plan, block, soft, fits)` are the questions of each chunk of a
    block, its `chunk(network, plan, piece, soft, group)` makes one, for so many soft tokens and candidates per group,
    and raises `NotImplementedError` where the plan or the architecture does not allow it. `longest_row(plan, piece)` is
    the longest row of a forward in hard tokens.
    """

    @property
    def questions(self) -> tuple[int, ...]:
        """Their numbers, in the order of the answers."""

    @property
    def tokens(self) -> int:
        """Tokens that go through the layers for one candidate, padding included."""

    def ask(
        self, network: Network, group: Tensor, stem: KeysValues | None
    ) -> Float[Tensor, "candidates questions vocabulary"]:
        """Next-token logits for candidates (candidates, tokens, hidden); `stem` has a row for each, if there is one."""


def longest_question(plan: Plan, piece: Sequence[int]) -> int:
    """Hard tokens of the longest question of a piece."""
    return max(plan.questions[i].length for i in piece)


@dataclass(frozen=True)
class Packed:
    """See the module."""

    questions: tuple[int, ...]
    ids: Tensor  # (1, tokens)
    rows: Tensor  # (1, tokens, hidden)
    positions: Tensor  # (1, tokens)
    mask: Any
    ends: Tensor  # (questions,) where each question is read

    @property
    def tokens(self) -> int:
        return int(self.ids.shape[1])

    @staticmethod
    def longest_row(plan: Plan, piece: Sequence[int]) -> int:
        """All of the piece behind the stem."""
        return len(plan.questions[0].prefix_ids) + plan.stem + size(plan.tree(piece))

    @classmethod
    def pieces(cls, network: Network, plan: Plan, block: Sequence[int], soft: int, fits: Fits) -> list[list[int]]:
        """Items of a block together, as many as fit."""
        context = len(plan.questions[0].prefix_ids) + soft + plan.stem
        parts = 1
        while True:
            pieces = split(plan, block, parts)
            sizes = [size(plan.tree(piece)) for piece in pieces]
            if parts >= len(block) or all(s <= PACKED and fits(s, context) for s in sizes):
                return pieces
            parts += 1

    @classmethod
    def chunk(cls, network: Network, plan: Plan, piece: Sequence[int], soft: int, group: int) -> Packed:
        """Make it."""
        if not plan.stemmed:
            raise NotImplementedError("only a stem can be grown")
        tree, context = plan.tree(piece), len(plan.questions[0].prefix_ids) + soft + plan.stem
        total = size(tree)
        starts = [sum(len(n.ids) for n in tree[:i]) for i in range(len(tree))]
        depth: list[int] = []
        sees = torch.zeros(total, context + total, dtype=torch.bool)
        sees[:, :context] = True
        for node, start in zip(tree, starts, strict=True):
            stop = start + len(node.ids)
            depth.append(0 if node.parent < 0 else depth[node.parent] + len(tree[node.parent].ids))
            sees[start:stop, context + start : context + stop] = torch.ones(stop - start, stop - start).tril().bool()
            ancestor = node.parent
            while ancestor >= 0:
                first = context + starts[ancestor]
                sees[start:stop, first : first + len(tree[ancestor].ids)] = True
                ancestor = tree[ancestor].parent
        positions = torch.cat([torch.arange(d, d + len(n.ids)) for d, n in zip(depth, tree, strict=True)]) + context
        ids = [i for node in tree for i in node.ids]
        ends = [(n.question, start + len(n.ids) - 1) for n, start in zip(tree, starts, strict=True) if n.question >= 0]
        query, key = positions.to(network.device), torch.cat([torch.arange(context), positions]).to(network.device)
        return cls(
            tuple(question for question, _ in ends),
            network.ids(ids)[None],
            network.embed(ids)[None],
            query[None],
            network.masks(sees[None, None].to(network.device), query, key),
            network.ids([end for _, end in ends]),
        )

    def ask(self, network: Network, group: Tensor, stem: KeysValues | None) -> Tensor:
        assert stem is not None
        rows = self.rows.expand(len(group), -1, -1)
        return network.logits(rows, self.positions, self.ids, self.mask, filled_cache(stem), self.ends)


@dataclass(frozen=True)
class Expanded:
    """See the module. The prefix of a late chunk is expanded over the group once, and never written to."""

    questions: tuple[int, ...]
    prefix: KeysValues | None  # (questions × group rows), None where a stem comes with the candidates
    ids: Tensor  # (questions × group, tokens)
    rows: Tensor  # (questions, tokens, hidden): what follows the soft tokens, or the stem
    positions: Tensor  # (questions × group, tokens)
    mask: Tensor | None  # (questions × group, context and tokens)

    @property
    def tokens(self) -> int:
        return len(self.questions) * int(self.ids.shape[1])

    longest_row = staticmethod(longest_question)

    @classmethod
    def pieces(cls, network: Network, plan: Plan, block: Sequence[int], soft: int, fits: Fits) -> list[list[int]]:
        """Questions with equally long rests: padding inside a row would shift what a sliding window sees."""
        rests = {i: len(plan.rest(i)) for i in block}
        before = 0 if plan.stemmed else soft
        cached = len(plan.questions[0].prefix_ids) + soft + plan.stem if plan.stemmed else plan.longest
        return cut(block, rests, fits(before + max(rests.values()), cached), slack=1.0)

    @classmethod
    def chunk(cls, network: Network, plan: Plan, piece: Sequence[int], soft: int, group: int) -> Expanded:
        """Make it; keys and values of late prefixes are computed here."""
        if not plan.shared:
            raise NotImplementedError("nothing is shared")
        rests, prefix = [plan.rest(i) for i in piece], None
        context = [len(plan.questions[i].prefix_ids) for i in piece]
        if plan.stemmed:
            context, soft = [c + soft + plan.stem for c in context], 0
        else:
            each = [prefix_of(network, plan.questions[i].prefix_ids) for i in piece]
            prefix = KeysValues.stacked(each).repeated(group)
        widest, new = max(context), soft + len(rests[0])
        positions, mask = padding(network, [widest - c for c in context], widest + new, group)
        return cls(
            tuple(piece),
            prefix,
            network.ids([[network.soft] * soft + list(rest) for rest in rests]).repeat_interleave(group, 0),
            torch.stack([network.embed(rest) for rest in rests]),
            positions[:, widest:],
            mask,
        )

    def ask(self, network: Network, group: Tensor, stem: KeysValues | None) -> Tensor:
        size, many = len(group), len(self.questions)
        rows = self.rows.repeat_interleave(size, 0)
        if self.prefix is None:
            assert stem is not None
            past = stem.rows(torch.arange(size, device=network.device).repeat(many))
        else:
            past, rows = self.prefix, torch.cat([group.repeat(many, 1, 1), rows], dim=1)
        logits = network.logits(rows, self.positions, self.ids, self.mask, filled_cache(past))[:, -1]
        return logits.view(many, size, -1).transpose(0, 1)


@dataclass(frozen=True)
class Copied:
    """See the module."""

    questions: tuple[int, ...]
    plan: Plan
    soft: int
    started: tuple[Any, ...]  # the model's own caches of late prefixes, a row per candidate of a group; none for a stem

    @property
    def tokens(self) -> int:
        rests = sum(len(self.plan.rest(i)) for i in self.questions)
        if self.started:
            return rests + self.soft * len(self.questions)
        return len(self.plan.questions[0].prefix_ids) + self.soft + self.plan.stem + rests

    longest_row = staticmethod(longest_question)

    @classmethod
    def pieces(cls, network: Network, plan: Plan, block: Sequence[int], soft: int, fits: Fits) -> list[list[int]]:
        """The whole block; its questions are asked one after the other."""
        return [list(block)]

    @classmethod
    def chunk(cls, network: Network, plan: Plan, piece: Sequence[int], soft: int, group: int) -> Copied:
        """Make it; late prefixes go through the layers here."""
        if not plan.shared:
            raise NotImplementedError("nothing is shared")
        if plan.stemmed:
            return cls(tuple(piece), plan, soft, ())
        prefixes = [plan.questions[i].prefix_ids for i in piece]
        empty = torch.empty(group, 0, network.hidden, device=network.device, dtype=network.dtype)
        return cls(tuple(piece), plan, soft, tuple(network.start(*row(network, ids, empty, (), 0)) for ids in prefixes))

    def ask(self, network: Network, group: Tensor, stem: KeysValues | None) -> Tensor:
        first = self.plan.questions[0].prefix_ids
        if self.started:
            started, soft, context = (
                self.started,
                group,
                [len(self.plan.questions[i].prefix_ids) for i in self.questions],
            )
        else:
            shared = self.plan.questions[0].suffix_ids[: self.plan.stem]
            once = network.start(*row(network, first, group, shared, 0))
            started, soft = (once,) * len(self.questions), group[:, :0]
            context = [len(first) + self.soft + self.plan.stem] * len(self.questions)
        answers = [
            network.resume(begun, *row(network, (), soft, self.plan.rest(i), at))
            for begun, i, at in zip(started, self.questions, context, strict=True)
        ]
        return torch.stack(answers, dim=1)


@dataclass(frozen=True)
class Batched:
    """See the module."""

    questions: tuple[int, ...]
    before: tuple[Tensor, ...]  # (1, tokens, hidden) each, with the padding
    behind: tuple[Tensor, ...]
    ids: Tensor
    positions: Tensor  # (questions × group, tokens)
    mask: Tensor | None

    @property
    def tokens(self) -> int:
        return len(self.questions) * int(self.ids.shape[1])

    longest_row = staticmethod(longest_question)

    @classmethod
    def pieces(cls, network: Network, plan: Plan, block: Sequence[int], soft: int, fits: Fits) -> list[list[int]]:
        """Questions of nearly the same length."""
        lengths = {i: plan.questions[i].length + soft for i in block}
        slack = 1.0 if network.reads_padding else PADDING_SLACK
        return cut(block, lengths, fits(max(lengths.values()), 0), slack)

    @classmethod
    def chunk(cls, network: Network, plan: Plan, piece: Sequence[int], soft: int, group: int) -> Batched:
        """Make it."""
        questions = [plan.questions[i] for i in piece]
        longest = max(q.length for q in questions)
        befores = [(network.soft,) * (longest - q.length) + q.prefix_ids for q in questions]
        ids = network.ids(
            [[*b, *[network.soft] * soft, *q.suffix_ids] for b, q in zip(befores, questions, strict=True)]
        ).repeat_interleave(group, 0)
        return cls(
            tuple(piece),
            tuple(network.embed(b)[None] for b in befores),
            tuple(network.embed(q.suffix_ids)[None] for q in questions),
            ids,
            *padding(network, [longest - q.length for q in questions], longest + soft, group),
        )

    def ask(self, network: Network, group: Tensor, stem: KeysValues | None) -> Tensor:
        size = len(group)
        rows = [
            torch.cat([b.expand(size, -1, -1), group, a.expand(size, -1, -1)], dim=1)
            for b, a in zip(self.before, self.behind, strict=True)
        ]
        logits = network.logits(torch.cat(rows), self.positions, self.ids, self.mask)[:, -1]
        return logits.view(len(rows), size, -1).transpose(0, 1)


@dataclass(frozen=True)
class Plain:
    """See the module."""

    questions: tuple[int]
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    soft: int

    @property
    def tokens(self) -> int:
        return len(self.prefix_ids) + self.soft + len(self.suffix_ids)

    longest_row = staticmethod(longest_question)

    @classmethod
    def pieces(cls, network: Network, plan: Plan, block: Sequence[int], soft: int, fits: Fits) -> list[list[int]]:
        """A question each."""
        return [[i] for i in block]

    @classmethod
    def chunk(cls, network: Network, plan: Plan, piece: Sequence[int], soft: int, group: int) -> Plain:
        """Make it."""
        (i,) = piece
        return cls((i,), plan.questions[i].prefix_ids, plan.questions[i].suffix_ids, soft)

    def ask(self, network: Network, group: Tensor, stem: KeysValues | None) -> Tensor:
        rows, positions, ids = row(network, self.prefix_ids, group, self.suffix_ids, 0)
        return torch.stack([network.logits(one[None], positions, ids)[:, -1] for one in rows])


Path = type[Packed] | type[Expanded] | type[Copied] | type[Batched] | type[Plain]
PATHS: dict[str, Path] = {
    "packed": Packed,
    "expanded": Expanded,
    "copied": Copied,
    "batched": Batched,
    "plain": Plain,
}


def row(
    network: Network, before: Sequence[int], soft: Tensor, behind: Sequence[int], start: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(rows, positions, ids) of ids, soft tokens (candidates, tokens, hidden) and ids, from a position on."""
    size = len(soft)
    parts = [network.embed(before).expand(size, -1, -1), soft, network.embed(behind).expand(size, -1, -1)]
    ids = network.ids([*before, *[network.soft] * soft.shape[1], *behind])[None]
    return torch.cat(parts, dim=1), torch.arange(start, start + ids.shape[1], device=network.device)[None], ids


def prefix_of(network: Network, ids: Sequence[int]) -> KeysValues:
    """Keys and values of what stands before soft tokens."""
    empty = torch.empty(1, 0, network.hidden, device=network.device, dtype=network.dtype)
    return network.keys_values(*row(network, ids, empty, (), 0))


def stem_of(network: Network, plan: Plan, group: Tensor, prefix: KeysValues | None) -> KeysValues:
    """Keys and values of candidates' soft tokens and of what all questions have behind them."""
    start = prefix.tokens if prefix else 0
    rows = row(network, (), group, plan.questions[0].suffix_ids[: plan.stem], start)
    return network.keys_values(*rows, before=prefix.repeated(len(group)) if prefix else None)


def size(tree: Sequence[Node]) -> int:
    """Tokens of a tree."""
    return sum(len(node.ids) for node in tree)


def split(plan: Plan, block: Sequence[int], parts: int) -> list[list[int]]:
    """A block's questions in at most so many runs of nearly equal length; an item's questions stay together."""
    items = sorted({plan.questions[i].item for i in block})
    each = math.ceil(len(items) / parts)
    groups = [set(items[at : at + each]) for at in range(0, len(items), each)]
    pieces = [[i for i in block if plan.questions[i].item in group] for group in groups]
    return pieces if parts <= len(items) else [[i] for i in block]


def cut(block: Sequence[int], lengths: dict[int, int], most: int, slack: float) -> list[list[int]]:
    """A block's questions in runs of at most `most`, of similar lengths: the longest over the shortest is ≤ `slack`."""
    numbers = sorted(block, key=lambda i: lengths[i])
    even = math.ceil(len(numbers) / math.ceil(len(numbers) / max(1, most)))
    pieces: list[list[int]] = []
    for i in numbers:
        if not pieces or len(pieces[-1]) == even or lengths[i] > slack * lengths[pieces[-1][0]]:
            pieces.append([])
        pieces[-1].append(i)
    return pieces
