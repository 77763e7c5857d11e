"""More than one next token: generated text, and the log-probability of given continuations.

A row is a candidate and a question. `prefill` runs the prompts once, and what stands before the soft tokens once a run;
everything after that grows from their keys and values: a token at a time for generated text, all options of a question
in one forward for given continuations. Candidates go in groups of constant size, rows that have ended stay in the
batch, and so a candidate's text and numbers do not depend on its company. A model is first compared with whole rows run
one by one, without a cache; if it disagrees or raises, that is how it is run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from softde.lm.engine import HALF_TOLERANCE, TOLERANCE, Engine, constant_groups, out_of_memory
from softde.lm.layout import Question
from softde.lm.network import KeysValues, Network, filled_cache, padding
from softde.lm.paths import prefix_of

NOTHING = -1  # stands where a text has ended, and for an option that a question does not have
PADDING_SLACK = 1.08  # longest over shortest prompt of a prefill
CHECKED_TOKENS = 8  # the most probable ones of each row, on which two paths are compared

# engine → (with prefixes, with padding) → longest prompt on which continued rows were checked; infinite: they failed
_checked: WeakKeyDictionary[Any, dict[tuple[bool, bool], float]] = WeakKeyDictionary()
_prefixes: WeakKeyDictionary[Any, dict[tuple[int, ...], KeysValues]] = WeakKeyDictionary()  # of the last questions


Ask = Callable[["State", Tensor, list[int], int], tuple[list[Tensor], int]]


@dataclass(frozen=True)
class Continuations:
    """Generated tokens.

    ids : (population, questions, respondents, steps) int64, on the CPU; NOTHING from the token that ended the text on.
    option_mass : (population, questions), probability of the option labels together as first token.
    ledger : tokens pushed through the layers for the candidates asked for, padding included.
    """

    ids: Int[Tensor, "population questions respondents steps"]
    option_mass: Float[Tensor, "population questions"]
    ledger: int


@dataclass(frozen=True)
class SequenceLogprobs:
    """Log-probabilities (population, questions, options) of sequences, −inf where a question has fewer; ledger."""

    logprobs: Float[Tensor, "population questions options"]
    ledger: int


@dataclass(frozen=True)
class Choice:
    """How a next token is chosen: the most probable, or, with `uniforms`, by inverse cumulative probability.

    uniforms : (questions, respondents, steps) in [0, 1), the same for every candidate.
    constrained : among the option labels of the question only, in the item's own order.
    """

    temperature: float = 0.0
    uniforms: Float[Tensor, "questions respondents steps"] | None = None
    constrained: bool = False

    @property
    def respondents(self) -> int:
        """How many answer each question."""
        return 1 if self.uniforms is None else int(self.uniforms.shape[1])


def generate(
    engine: Engine,
    questions: Sequence[Question],
    prompts: Float[Tensor, "population tokens hidden"] | None,
    choice: Choice,
    steps: int,
    stop_ids: Collection[int],
    plain: bool = False,
) -> Continuations:
    """Up to `steps` tokens after every question of every candidate, once per respondent.

    stop_ids : tokens that end a text. plain : whole rows one by one, without a cache: slow, and the reference.
    """
    network = engine.network
    prompts = _checked_prompts(network, questions, prompts, steps)
    stop = torch.tensor(sorted(stop_ids), dtype=torch.long, device=network.device)

    def ask(state: State, logits: Tensor, numbers: list[int], group: int) -> tuple[list[Tensor], int]:
        mine = [questions[i] for i in numbers for _ in range(group)]
        options = _padded([q.option_ids for q in mine], network.device)
        draws = None
        if choice.uniforms is not None:
            draws = choice.uniforms[numbers].to(network.device).repeat_interleave(group, 0)
        texts, ledger = [], 0
        for block in _blocks(choice.respondents, _copies(engine, network, questions, prompts, steps)):
            texts_of_block, cost = _write(state, logits, options, draws, block, choice, steps, stop)
            texts.append(texts_of_block)
            ledger += cost
        return [torch.cat(texts, dim=1), _option_mass(logits, options)], ledger

    copies = min(choice.respondents, _copies(engine, network, questions, prompts, steps))
    (ids, mass), ledger = _run(engine, network, questions, prompts, ask, copies, steps, 1, plain)
    return Continuations(ids.cpu(), mass, ledger)


def sequence_logprobs(
    engine: Engine,
    questions: Sequence[Question],
    sequences: Sequence[Sequence[Sequence[int]]],
    prompts: Float[Tensor, "population tokens hidden"] | None,
    plain: bool = False,
) -> SequenceLogprobs:
    """Σ log p(token | prompt and tokens before) of each given continuation of each question.

    sequences : for each question its continuations, as token ids. plain : whole rows one by one, without a cache.
    """
    network = engine.network
    longest = max(len(ids) for those in sequences for ids in those)
    most = max(len(those) for those in sequences)
    prompts = _checked_prompts(network, questions, prompts, longest)

    def ask(state: State, logits: Tensor, numbers: list[int], group: int) -> tuple[list[Tensor], int]:
        per_row = [sequences[i] for i in numbers for _ in range(group)]
        row = network.ids([r for r, those in enumerate(per_row) for _ in those])
        column = network.ids([c for those in per_row for c in range(len(those))])
        ids = _padded([ids for those in per_row for ids in those], network.device)
        scores, cost = _gathered(logits[row], ids[:, 0]), 0
        if ids.shape[1] > 1:
            state = state.rows(row)
            cost = state.price(ids.shape[1] - 1)
            after, _ = state.feed(ids[:, :-1].clamp(min=0))
            scores = scores + _gathered(after, ids[:, 1:]).sum(-1)
        table = torch.full((len(per_row), most), -math.inf, device=network.device)
        return [table.index_put((row, column), scores)], cost

    (logprobs,), ledger = _run(engine, network, questions, prompts, ask, most, longest, longest, plain)
    return SequenceLogprobs(logprobs, ledger)


def run_questions(
    engine: Engine,
    questions: Sequence[Question],
    prompts: Float[Tensor, "population tokens hidden"] | None,
    ask: Ask,
    plain: bool = False,
) -> tuple[list[Tensor], int]:
    """What `ask` makes of the next-token logits of every question, each (population, questions, ...), and the ledger.

    ask : (rows so far, logits (rows, vocabulary), numbers of the questions, candidates per question) → (answers with a
    row per question and candidate, tokens that it pushed itself).
    """
    prompts = _checked_prompts(engine.network, questions, prompts, 0)
    return _run(engine, engine.network, questions, prompts, ask, 0, 1, 1, plain)


def prefill(
    engine: Engine, questions: Sequence[Question], prompts_group: Float[Tensor, "candidates tokens hidden"]
) -> tuple[KeysValues, Float[Tensor, "rows vocabulary"], Tensor | None, Int[Tensor, "rows"]]:
    """Run prompts once: (keys and values, last logits, mask, lengths), question by question, a row per candidate.

    What stands before the soft tokens is the same for every candidate: it is run once and kept for the next call.
    mask : (rows, tokens) of real tokens, None without padding; lengths : real tokens of each row.
    """
    network = engine.network
    group, soft = prompts_group.shape[:2]
    last = max(len(q.suffix_ids) for q in questions)
    # A shorter question runs some of its prefix again: padding may only stand at the very left, since sliding windows
    # count places in the row. Only where the prefix is too short for that, padding goes before it.
    gaps = [last - len(q.suffix_ids) for q in questions]
    heads = [max(0, len(q.prefix_ids) - gap) for q, gap in zip(questions, gaps, strict=True)]
    before = [q.prefix_ids[head:] for q, head in zip(questions, heads, strict=True)]
    before = [(network.soft,) * (gap - len(ids)) + ids for gap, ids in zip(gaps, before, strict=True)]
    pads = [max(heads) + last - q.length for q in questions]
    ids = [[*b, *[network.soft] * soft, *q.suffix_ids] for b, q in zip(before, questions, strict=True)]
    rows = [
        torch.cat([_for_all(network, b, group), prompts_group, _for_all(network, q.suffix_ids, group)], dim=1)
        for b, q in zip(before, questions, strict=True)
    ]
    past = None
    if max(heads):
        kept = [_first(_kept_prefix(engine, q.prefix_ids), head) for q, head in zip(questions, heads, strict=True)]
        past = KeysValues.stacked(kept).repeated(group)
    positions, mask = padding(network, pads, max(heads) + last + soft, group)
    tokens = torch.tensor(ids, device=network.device).repeat_interleave(group, 0)
    past, logits = _grown(network, past, torch.cat(rows), positions[:, max(heads) :], tokens, mask, 1)
    return past, logits[:, -1], mask, positions[:, -1] + 1


def _for_all(network: Network, ids: Sequence[int], group: int) -> Tensor:
    """(group, tokens, hidden) of the same tokens."""
    return network.embed(ids).expand(group, -1, -1)


def _kept_prefix(engine: Engine, ids: tuple[int, ...]) -> KeysValues:
    """Keys and values of what stands before the soft tokens."""
    kept = _prefixes.setdefault(engine, {})
    if ids not in kept:
        kept[ids] = prefix_of(engine.network, ids)
    return kept[ids]


def _first(kept: KeysValues, tokens: int) -> KeysValues:
    return KeysValues(tuple((i, k[..., :tokens, :], v[..., :tokens, :]) for i, k, v in kept.layers))


def _forget_prefixes(engine: Engine, questions: Sequence[Question]) -> None:
    """Keep those of these questions only."""
    kept, wanted = _prefixes.setdefault(engine, {}), {q.prefix_ids for q in questions}
    for ids in kept.keys() - wanted:
        del kept[ids]


# -- rows that can be continued: with keys and values, or by running them whole


class State(Protocol):
    """Rows that have been read so far; continuing them leaves them as they are."""

    def rows(self, index: Tensor) -> State:
        """Some rows, in a new order, or several times."""

    def feed(self, tokens: Int[Tensor, "rows new"]) -> tuple[Float[Tensor, "rows new vocabulary"], State]:
        """Next-token logits after each new token, and the longer rows."""

    def price(self, new: int) -> int:
        """Tokens that go through the layers when every row is fed that many."""


@dataclass(frozen=True)
class Cached:
    """Rows as keys and values."""

    network: Network
    past: KeysValues
    mask: Tensor | None
    lengths: Tensor

    def rows(self, index: Tensor) -> Cached:
        """See `State`."""
        mask = None if self.mask is None else self.mask[index]
        return Cached(self.network, self.past.rows(index), mask, self.lengths[index])

    def feed(self, tokens: Tensor) -> tuple[Tensor, Cached]:
        """See `State`."""
        new = tokens.shape[1]
        mask = None if self.mask is None else pad(self.mask, (0, new), value=1)
        positions = self.lengths[:, None] + torch.arange(new, device=tokens.device)
        past, logits = _grown(self.network, self.past, self.network.table(tokens), positions, tokens, mask, new)
        return logits, Cached(self.network, past, mask, self.lengths + new)

    def price(self, new: int) -> int:
        """See `State`."""
        return len(self.lengths) * new


@dataclass(frozen=True)
class Whole:
    """Rows as embeddings, one by one and without a cache: right for every architecture."""

    network: Network
    embeddings: tuple[Tensor, ...]  # (tokens, hidden) each
    ids: tuple[Tensor, ...]  # (tokens,) each, `soft` where a soft token stands

    def rows(self, index: Tensor) -> Whole:
        """See `State`."""
        numbers = index.tolist()
        return Whole(self.network, tuple(self.embeddings[i] for i in numbers), tuple(self.ids[i] for i in numbers))

    def feed(self, tokens: Tensor) -> tuple[Tensor, Whole]:
        """See `State`."""
        embeddings = tuple(
            torch.cat([old, new]) for old, new in zip(self.embeddings, self.network.table(tokens), strict=True)
        )
        ids = tuple(torch.cat([old, new]) for old, new in zip(self.ids, tokens, strict=True))
        longer = Whole(self.network, embeddings, ids)
        return longer.logits(tokens.shape[1]), longer

    def logits(self, keep: int) -> Tensor:
        """(rows, keep, vocabulary): a forward per row."""
        device = self.network.device
        return torch.cat(
            [
                self.network.logits(row[None], torch.arange(len(row), device=device)[None], ids[None], keep=keep)
                for row, ids in zip(self.embeddings, self.ids, strict=True)
            ]
        )

    def price(self, new: int) -> int:
        """See `State`."""
        return sum(len(ids) + new for ids in self.ids)


def _start(
    engine: Engine, network: Network, questions: Sequence[Question], group: Tensor, cached: bool
) -> tuple[State, Tensor, int]:
    """(state, last logits, tokens pushed) after the prompts."""
    if cached:
        past, logits, mask, lengths = prefill(engine, questions, group)
        fed = group.shape[1] + max(len(q.suffix_ids) for q in questions)
        return Cached(network, past, mask, lengths), logits, len(lengths) * fed
    soft = group.shape[1]
    whole = Whole(
        network,
        tuple(
            torch.cat([network.embed(q.prefix_ids), c, network.embed(q.suffix_ids)]) for q in questions for c in group
        ),
        tuple(network.ids([*q.prefix_ids, *[network.soft] * soft, *q.suffix_ids]) for q in questions for _ in group),
    )
    return whole, whole.logits(1)[:, -1], whole.price(0)


def _grown(
    network: Network,
    past: KeysValues | None,
    rows: Tensor,
    positions: Tensor,
    ids: Tensor,
    mask: Tensor | None,
    keep: int,
) -> tuple[KeysValues, Tensor]:
    """Keys and values of all tokens, old and new, and the logits at the last `keep`; `past` stays as it was."""
    from transformers import DynamicCache

    # Without a configuration: sliding layers keep their whole history too.
    cache = DynamicCache() if past is None else filled_cache(past)
    logits = network.logits(rows, positions, ids, mask, cache, keep)
    layers = tuple((i, lay.keys, lay.values) for i, lay in enumerate(cache.layers) if lay.keys is not None)
    total = rows.shape[1] + (past.tokens if past else 0)
    if not layers or any(keys.shape[-2] != total for _, keys, _ in layers):
        raise NotImplementedError("this architecture keeps no keys and values per token")
    return KeysValues(layers), logits


# -- choosing and scoring tokens


def pick(
    logits: Float[Tensor, "rows vocabulary"],
    allowed: Int[Tensor, "rows options"] | None,
    temperature: float,
    uniforms: Float[Tensor, "rows"] | None,
) -> Int[Tensor, "rows"]:
    """The next token of every row; NOTHING where the logits are not finite enough to choose.

    allowed : the only tokens to choose from, padded with NOTHING. Of equals, the first is taken.
    """
    values = logits.float()
    if allowed is not None:
        values = values.gather(-1, allowed.clamp(min=0)).masked_fill(allowed < 0, -math.inf)
    if uniforms is None:
        chosen = values.argmax(-1)
    else:
        cumulative = (values.double() / temperature).softmax(-1).cumsum(-1)
        level = uniforms.to(cumulative)[:, None] * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative.nan_to_num(), level.nan_to_num(), right=True)[:, 0]
        chosen = chosen.clamp(max=values.shape[-1] - 1)
    tokens = chosen if allowed is None else allowed.gather(-1, chosen[:, None])[:, 0]
    return tokens.masked_fill(values.isnan().any(-1), NOTHING)


def _write(
    state: State,
    logits: Tensor,
    options: Tensor,
    draws: Tensor | None,
    block: range,
    choice: Choice,
    steps: int,
    stop: Tensor,
) -> tuple[Int[Tensor, "rows respondents steps"], int]:
    """The texts of a block of respondents, and what they cost."""
    count = len(logits)
    index = torch.arange(count, device=logits.device).repeat_interleave(len(block))
    uniforms = None if draws is None else draws[:, block.start : block.stop].reshape(len(index), -1)
    allowed = options[index] if choice.constrained else None
    written = torch.full((len(index), steps), NOTHING, device=logits.device)
    ended = torch.zeros(len(index), dtype=torch.bool, device=logits.device)
    ledger, logits = 0, logits[index]
    for step in range(steps):
        if step:
            state = state.rows(index) if step == 1 else state
            ledger += state.price(1)
            after, state = state.feed(written[:, step - 1 : step].clamp(min=0))
            logits = after[:, -1]
        token = pick(logits, allowed, choice.temperature, None if uniforms is None else uniforms[:, step])
        ended = ended | (token < 0) | torch.isin(token, stop)
        written[:, step] = token.masked_fill(ended, NOTHING)
        if bool(ended.all()):
            break
    return written.view(count, len(block), steps), ledger


def _gathered(logits: Tensor, ids: Tensor) -> Tensor:
    """log p of some tokens: a full softmax over the vocabulary in float32; 0 where the token is NOTHING."""
    logits = logits.float()
    values = logits.gather(-1, ids.clamp(min=0)[..., None])[..., 0] - logits.logsumexp(-1)
    return values.masked_fill(ids < 0, 0.0)


def _option_mass(logits: Tensor, options: Tensor) -> Tensor:
    """(rows,) probability of the option labels together."""
    logits = logits.float()
    values = logits.gather(-1, options.clamp(min=0)).masked_fill(options < 0, -math.inf)
    return (values.logsumexp(-1) - logits.logsumexp(-1)).exp()


def _padded(ids: Sequence[Sequence[int]], device: torch.device) -> Int[Tensor, "rows longest"]:
    width = max(map(len, ids))
    return torch.tensor([[*row, *[NOTHING] * (width - len(row))] for row in ids], device=device)


# -- chunks of questions, groups of candidates, trust and memory


def _run(
    engine: Engine,
    network: Network,
    questions: Sequence[Question],
    prompts: Tensor,
    ask: Ask,
    copies: int,
    new: int,
    kept: int,
    plain: bool,
) -> tuple[list[Tensor], int]:
    """Ask chunks of questions to groups of candidates; answers (rows, ...) become (population, questions, ...)."""
    while True:
        try:
            with torch.inference_mode():
                cached = not plain and _cache_is_right(engine, network, questions)
                given = prompts.to(network.device, network.dtype)
                size = engine.group_size if cached and given.shape[1] else 1
                numbers = _cut(engine, network, questions, given.shape[1], size, copies, new, kept)
                _forget_prefixes(engine, questions)
                columns, ledger = [], 0
                for chunk in numbers:
                    mine, parts = [questions[i] for i in chunk], []
                    for index, real in constant_groups(torch.arange(len(given), device=given.device), size):
                        state, logits, cost = _start(engine, network, mine, given[index], cached)
                        answers, more = ask(state, logits, chunk, size)
                        ledger += (cost + more) * real // size
                        parts.append([_by_candidate(a, len(mine))[:real] for a in answers])
                    columns.append([torch.cat(column) for column in zip(*parts, strict=True)])
                order = torch.tensor([i for chunk in numbers for i in chunk], device=network.device).argsort()
                return [torch.cat(answer, dim=1)[:, order] for answer in zip(*columns, strict=True)], ledger
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            _prefixes.pop(engine, None)
            engine.shrink(error)


def _by_candidate(rows: Tensor, questions: int) -> Tensor:
    """(questions × candidates, ...) → (candidates, questions, ...)."""
    return rows.view(questions, -1, *rows.shape[1:]).transpose(0, 1)


def _cache_is_right(engine: Engine, network: Network, questions: Sequence[Question]) -> bool:
    """Do continued rows equal whole ones, on the longest and the shortest of prompts as long as these?"""
    some = sorted(questions, key=lambda q: q.length)
    shortest, longest = some[0].length, some[-1].length
    known, kind = _checked.setdefault(engine, {}), (bool(some[0].prefix_ids), shortest < longest)
    if known.get(kind, -1) < longest:
        reason = _disagreement(engine, network, [some[0], some[-1]])
        if reason and math.inf not in known.values():
            engine.note(
                f"decoding from cached keys and values {reason} on {type(engine.model).__name__}; "
                "running whole rows instead"
            )
        known[kind] = math.inf if reason else longest
    return known[kind] < math.inf


def _disagreement(engine: Engine, network: Network, questions: Sequence[Question]) -> str:
    """What is wrong with the cached path, on two candidates of four tokens, two and then one token on; "" if none."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(network.table.weight.shape[0], (8 + 12,), generator=generator)
    group = network.embed(ids[:8].tolist()).view(2, 4, -1)
    tokens = ids[8:].view(4, 3).to(network.device).repeat_interleave(2, 0)  # each row twice, as options and respondents

    def seen(cached: bool) -> Tensor:
        state, first, _ = _start(engine, network, questions, group, cached)
        state = state.rows(torch.arange(4, device=network.device).repeat_interleave(2))
        two, state = state.feed(tokens[:, :2])
        one, _ = state.feed(tokens[:, 2:])
        return torch.cat([first, two.flatten(0, 1), one.flatten(0, 1)]).float().log_softmax(-1)

    expected = seen(cached=False)
    try:
        got = seen(cached=True)
    except Exception as failure:  # any failure of the cache means that this model has to go without it
        if out_of_memory(failure):
            raise
        return f"fails ({type(failure).__name__}: {failure})"
    likely = expected.nan_to_num().topk(min(CHECKED_TOKENS, expected.shape[-1]), dim=-1).indices
    difference = (got - expected).gather(-1, likely)
    error = float(difference.nan_to_num(0.0, math.inf, math.inf).abs().mean(-1).max())
    if error <= TOLERANCE.get(network.dtype, HALF_TOLERANCE) and torch.equal(got.isnan(), expected.isnan()):
        return ""
    return f"differs by {error:.2g} from whole rows"


def _cut(
    engine: Engine,
    network: Network,
    questions: Sequence[Question],
    soft: int,
    group: int,
    copies: int,
    new: int,
    kept: int,
) -> list[list[int]]:
    """Question numbers per forward, of similar lengths: a function of questions and budget, not of the candidates."""
    context = max(q.length for q in questions) + soft
    fed = [len(q.suffix_ids) + soft for q in questions]
    row = network.row_bytes(max(fed), context) + copies * network.row_bytes(new, context + new, kept)
    size = max(1, engine.rows_that_fit(row, group))
    chunks: list[list[int]] = []
    for i in sorted(range(len(questions)), key=lambda i: (fed[i], questions[i].length)):
        if not chunks or len(chunks[-1]) == size or fed[i] > PADDING_SLACK * fed[chunks[-1][0]]:
            chunks.append([])
        chunks[-1].append(i)
    return chunks


def _copies(engine: Engine, network: Network, questions: Sequence[Question], prompts: Tensor, steps: int) -> int:
    """Respondents of one row whose keys and values fit beside each other."""
    context = max(q.length for q in questions) + prompts.shape[1]
    group = engine.group_size if prompts.shape[1] else 1
    return max(1, engine.rows_that_fit(2 * network.row_bytes(1, context + steps), group))


def _blocks(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def _checked_prompts(network: Network, questions: Sequence[Question], prompts: Tensor | None, new: int) -> Tensor:
    if prompts is None:
        prompts = torch.zeros(1, 0, network.hidden)
    elif prompts.ndim != 3 or 0 in prompts.shape or prompts.shape[2] != network.hidden:
        raise ValueError(
            f"prompts: expected a tensor (population, tokens, {network.hidden}), got {tuple(prompts.shape)}; "
            "take candidates from a space built for this model"
        )
    context = getattr(network.config, "max_position_embeddings", None)
    longest = max(q.length for q in questions) + prompts.shape[1]
    if context and longest + new > context:
        raise ValueError(
            f"the longest question has {longest} tokens with its soft prompt and the answer may have {new}, but the "
            f"model reads {context}; shorten the system text, the items or the prompt, or let the answer be shorter"
        )
    return prompts
