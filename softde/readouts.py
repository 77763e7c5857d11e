"""Read-outs: what counts as a model's answer, from the expected value of the options to text that it writes.

Each is a frozen value with one function, `read`, from a plan and soft prompts to a `Reading` of the whole population.
Random draws are a function of (seed, order, wording, respondent, item, token): every candidate and every condition is
asked with the same ones, so that differences between them are not differences of luck.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from softde.checks import whole
from softde.lm import LM, OptionLogprobs, Plan, Question
from softde.lm.decode import Choice, generate, sequence_logprobs
from softde.lm.template import render, token_ids
from softde.surveys import Item, Survey
from softde.surveys.parsing import find_option, is_refusal

Array = NDArray[np.float64]
Answers = NDArray[np.int64]
Parser = Callable[[str, Item], int | None]
Prompts = Float[Tensor, "population tokens hidden"]
NONE = -1


@dataclass(frozen=True, eq=False)
class Reading:
    """What a population answered, in each item's own order of options.

    probabilities : (population, items, options), zero beyond an item's options. Of single answers, their shares among
        the valid ones; NaN where there is none.
    option_mass : (population, items), probability of what can be read as an answer among all that could be written.
    invalid, refused : (population, items), shares of answers that name no option: those that refuse, and all others.
    tokens : pushed through the model's layers for these candidates.
    answers : (population, respondents, items) option numbers, -1 for none; None where nobody answers singly.
    values : the same as numbers, where respondents answer by expected values and not by options.
    texts : what was written, in the same three axes; None where nothing was.
    """

    probabilities: Array
    option_mass: Array
    invalid: Array
    refused: Array
    tokens: int
    answers: Answers | None = None
    texts: tuple[tuple[tuple[str, ...], ...], ...] | None = None
    values: Array | None = None


class Readout(Protocol):
    """Anything that reads answers."""

    def read(self, lm: LM, plan: Plan, survey: Survey, prompts: Prompts | None, plain: bool = False) -> Reading:
        """Ask every question of the plan of every candidate; `prompts=None` is the unprompted model, one candidate."""


@dataclass(frozen=True)
class Expected:
    """The probabilities of the option labels, averaged over orders and wordings; item means are expected values."""

    def read(self, lm: LM, plan: Plan, survey: Survey, prompts: Prompts | None, plain: bool = False) -> Reading:
        """See `Readout`."""
        answer = lm.option_logprobs(plan, prompts, plain=plain)
        found = probabilities(answer.logprobs)
        return Reading(found, _numbers(answer.option_mass), *none_invalid(found), answer.ledger)


@dataclass(frozen=True)
class Argmax:
    """The most probable option label of each question; of equally probable ones the first in the item's own order.

    Each order of each wording is a respondent: with two orders and one wording the shares are 0, ½ or 1. Where items
    have different numbers of wordings, the questions of those with fewer count several times.
    """

    def read(self, lm: LM, plan: Plan, survey: Survey, prompts: Prompts | None, plain: bool = False) -> Reading:
        """See `Readout`."""
        answer = question_by_question(lm, plan, prompts, plain)
        found = probabilities(answer.logprobs)
        chosen = np.where(np.isnan(found).any(-1), NONE, found.argmax(-1))
        return pooled(plan, survey, chosen[..., None], answer.option_mass, answer.ledger)


@dataclass(frozen=True)
class Sampled:
    """`n` respondents per item, order and wording, each drawing a label by its probability among the labels.

    With orders="both" that makes 2n respondents: the first n saw the options forward, the others reversed. Drawn by
    inverse cumulative probability from uniforms that depend on seed, order, wording, respondent and item alone.
    """

    n: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        whole(self.n, "n", 1)
        whole(self.seed, "seed", 0)

    def read(self, lm: LM, plan: Plan, survey: Survey, prompts: Prompts | None, plain: bool = False) -> Reading:
        """See `Readout`."""
        answer = question_by_question(lm, plan, prompts, plain)
        draws = uniforms(self.seed, plan, self.n, 1)[..., 0]  # (questions, respondents)
        cumulative = probabilities(answer.logprobs).cumsum(-1)[:, :, None]
        chosen = (cumulative <= draws[None, ..., None] * cumulative[..., -1:]).sum(-1)
        chosen = np.where(np.isnan(cumulative).any(-1), NONE, chosen)
        return pooled(plan, survey, chosen, answer.option_mass, answer.ledger)


@dataclass(frozen=True)
class SequenceLogprob:
    """Probabilities of the option texts, whole, as the model's answer; averaged over orders and wordings.

    Scored is the option's text as the survey has it, without its label and without an end ("very important"), directly
    after the answer cue, or after "Answer:" and a space without a chat template. Option mass is the sum of these
    probabilities (a text that continues another is counted in both).

    normalize : divide every log-probability by its number of tokens before options are compared.
    """

    normalize: bool = False

    def read(self, lm: LM, plan: Plan, survey: Survey, prompts: Prompts | None, plain: bool = False) -> Reading:
        """See `Readout`."""
        questions, sequences = text_continuations(lm, plan, survey)
        answer = sequence_logprobs(lm.engine, questions, sequences, prompts, plain)
        logprobs = answer.logprobs.double()
        mass = logprobs.logsumexp(-1).exp()
        if self.normalize:
            lengths = torch.ones_like(logprobs[0])
            for row, those in zip(lengths, sequences, strict=True):
                row[: len(those)] = torch.tensor([len(ids) for ids in those])
            logprobs = logprobs / lengths
        found = _mean_over_questions(plan, probabilities(logprobs.log_softmax(-1)))
        return Reading(found, _mean_over_questions(plan, _numbers(mass)), *none_invalid(found), answer.ledger)


@dataclass(frozen=True)
class Generated:
    """Text, written token by token and read by a parser; `n` texts per item and order, as in `Sampled`.

    temperature : 0 takes the most probable token every time (then n is 1); otherwise tokens are drawn by inverse
        cumulative probability, over the vocabulary in the order of its ids, from uniforms that depend on seed, order,
        respondent, item and position in the text alone.
    constrained : only the option labels can be written, one token: the same as `Argmax` (temperature 0) and `Sampled`
        (temperature 1).
    parser : (text, item as it was shown) → number of the option shown, from 0, or None. Of a text that it cannot read,
        `softde.surveys.parsing.is_refusal` tells whether it is refused or invalid.
    """

    n: int = 1
    max_new_tokens: int = 8
    temperature: float = 0.0
    seed: int = 0
    constrained: bool = False
    parser: Parser = find_option

    def __post_init__(self) -> None:
        whole(self.n, "n", 1)
        whole(self.max_new_tokens, "max_new_tokens", 1)
        whole(self.seed, "seed", 0)
        if isinstance(self.temperature, bool) or not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature: expected 0 (greedy) or a positive number, got {self.temperature!r}")
        if self.temperature == 0 and self.n > 1:
            raise ValueError(
                f"n: temperature 0 writes the same text {self.n} times; use n=1, or a temperature above 0 to sample"
            )
        if not callable(self.parser):
            raise ValueError(f"parser: expected a function (text, item) → option number or None, got {self.parser!r}")

    def read(self, lm: LM, plan: Plan, survey: Survey, prompts: Prompts | None, plain: bool = False) -> Reading:
        """See `Readout`."""
        steps = 1 if self.constrained else self.max_new_tokens
        draws = torch.from_numpy(uniforms(self.seed, plan, self.n, steps)) if self.temperature else None
        choice = Choice(self.temperature, draws, self.constrained)
        written = generate(lm.engine, plan.questions, prompts, choice, steps, stop_ids(lm), plain)
        shape = tuple(written.ids.shape[:3])
        chosen, refused = np.full(shape, NONE), np.zeros(shape, dtype=bool)
        texts = np.empty(shape, dtype=object)
        known: dict[tuple[int, ...], tuple[str, int, bool]] = {}  # short answers repeat
        for place in np.ndindex(*shape):
            key = (place[1], *(i for i in written.ids[place].tolist() if i >= 0))
            if key not in known:
                text = lm.tokenizer.decode(key[1:], skip_special_tokens=True).strip()
                option = self._parsed(text, survey, plan.questions[place[1]])
                known[key] = text, option, option == NONE and is_refusal(text)
            texts[place], chosen[place], refused[place] = known[key]
        return pooled(plan, survey, chosen, written.option_mass, written.ledger, refused, texts)

    def _parsed(self, text: str, survey: Survey, question: Question) -> int:
        """The option in the item's own order, NONE for none."""
        item = survey.items[question.item]
        shown = shown_item(item.worded(question.phrasing), question.order)
        given = self.parser(text, shown)
        if given is None:
            return NONE
        try:
            number = operator.index(given)
        except TypeError:
            number = NONE
        if not 0 <= number < len(item.options):
            raise ValueError(
                f"parser: for the text {text!r} of item {item.id!r} it returned {given!r}; expected the number of an "
                f"option, 0 to {len(item.options) - 1}, or None"
            )
        return number if question.order == "forward" else len(item.options) - 1 - number


def check_readout(readout: object) -> None:
    """Refuse what cannot read answers."""
    if isinstance(readout, type) and callable(getattr(readout, "read", None)):
        raise ValueError(f"readout: expected a read-out, got the class {readout.__name__}; write {readout.__name__}()")
    if not callable(getattr(readout, "read", None)):
        raise ValueError(
            "readout: expected softde.Expected(), Argmax(), Sampled(), SequenceLogprob(), Generated() or an object "
            f"that has their `read`, got {readout!r}"
        )


def probabilities(logprobs: Tensor) -> Array:
    """(..., items, options) log-probabilities → float64 probabilities."""
    values: Array = logprobs.detach().double().exp().cpu().numpy()
    return values


def uniforms(seed: int, plan: Plan, respondents: int, steps: int) -> Array:
    """(questions, respondents, steps) numbers in [0, 1), of seed, order, wording, respondent, item and step alone.

    More respondents, steps or wordings leave the numbers of the others as they are.
    """
    ways = list(dict.fromkeys((q.order, q.phrasing) for q in plan.questions))
    streams = {
        (*way, step): _stream(seed, *way, step).random((respondents, plan.n_items))
        for way in ways
        for step in range(steps)
    }
    return np.stack(
        [
            np.stack([streams[q.order, q.phrasing, step][:, q.item] for step in range(steps)], axis=-1)
            for q in plan.questions
        ]
    )


def _stream(seed: int, order: str, phrasing: int, step: int) -> np.random.Generator:
    wording = [phrasing] if phrasing else []
    return stream([seed, *order.encode(), step, *wording])


def stream(key: Sequence[int]) -> np.random.Generator:
    """Random numbers that a key of whole numbers names."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def shown_item(item: Item, order: str) -> Item:
    """The item with its options as they were listed: labels from the top."""
    listed = item.options if order == "forward" else item.options[::-1]
    return replace(
        item,
        options=tuple(replace(new, label=old.label) for old, new in zip(item.options, listed, strict=True)),
    )


def stop_ids(lm: LM) -> frozenset[int]:
    """Tokens that end a text: the tokenizer's, the configuration's and the generation settings'."""
    sources = (lm.tokenizer, lm.model.config.get_text_config(), getattr(lm.model, "generation_config", None))
    found: set[int] = set()
    for source in sources:
        ids: Any = getattr(source, "eos_token_id", None)
        found.update(ids if isinstance(ids, (list, tuple)) else [] if ids is None else [ids])
    return frozenset(found)


def text_continuations(lm: LM, plan: Plan, survey: Survey) -> tuple[list[Question], list[list[tuple[int, ...]]]]:
    """Questions that end before any white space of the labels, and per question its option texts as ids behind that.

    Ids are the difference between the answer context with and without the text, so that they are what the tokenizer
    makes of the text in its place.
    """
    context = "".join(render(lm.tokenizer, "x"))
    space = "" if getattr(lm.tokenizer, "chat_template", None) else " "
    known = token_ids(lm.tokenizer, context)

    def behind(text: str) -> tuple[int, ...]:
        whole = token_ids(lm.tokenizer, context + space + text)
        stable = whole[: len(known)] == known
        return tuple(whole[len(known) :] if stable else token_ids(lm.tokenizer, space + text))

    questions, sequences = [], []
    for q in plan.questions:
        item = survey.items[q.item]
        cue = behind(item.options[0].label)[:-1]
        if cue and q.suffix_ids[-len(cue) :] == cue:
            q = replace(q, suffix_ids=q.suffix_ids[: -len(cue)])
        questions.append(q)
        sequences.append([behind(option.text) for option in item.options])
    return questions, sequences


def question_by_question(lm: LM, plan: Plan, prompts: Prompts | None, plain: bool) -> OptionLogprobs:
    """Option probabilities of every question, not averaged: each is an item of its own."""
    apart = replace(
        plan,
        questions=tuple(replace(q, item=i) for i, q in enumerate(plan.questions)),
        n_items=len(plan.questions),
        digest=f"{plan.digest}, orders apart",
    )
    return lm.option_logprobs(apart, prompts, plain=plain)


def _mean_over_questions(plan: Plan, values: Array) -> Array:
    """(population, questions, ...) → (population, items, ...)."""
    mean: Array = values[:, np.array(plan.by_item)].mean(axis=2)
    return mean


def pooled(
    plan: Plan,
    survey: Survey,
    chosen: Answers,
    option_mass: Tensor,
    tokens: int,
    refused: NDArray[np.bool_] | None = None,
    texts: NDArray[np.object_] | None = None,
) -> Reading:
    """Single answers (population, questions, respondents) → shares; those of an item's questions one after another."""
    numbers = np.array(plan.by_item)

    def by_item(values: NDArray[Any]) -> NDArray[Any]:
        return values[:, numbers].reshape(len(values), plan.n_items, -1)

    answers = by_item(chosen)
    given = answers[..., None] == np.arange(plan.n_options)
    valid = given.any(-1)
    with np.errstate(invalid="ignore"):  # no valid answer: 0 / 0 is the NaN that says so
        shares = given.sum(-2) / valid.sum(-1)[..., None]
    shares = np.where(_absent(survey), 0.0, shares)
    no = np.zeros_like(valid) if refused is None else by_item(refused)
    return Reading(
        shares,
        _mean_over_questions(plan, _numbers(option_mass)),
        (~valid & ~no).mean(-1),
        no.mean(-1),
        tokens,
        answers.transpose(0, 2, 1),
        None if texts is None else _nested(by_item(texts).transpose(0, 2, 1)),
    )


def _absent(survey: Survey) -> NDArray[np.bool_]:
    """(items, options) where an item has fewer."""
    return np.isnan(survey.option_values)


def none_invalid(found: Array) -> tuple[Array, Array]:
    """Shares (population, items) of invalid and refused answers where there are probabilities: a NaN is invalid."""
    invalid = np.asarray(np.isnan(found).any(-1), dtype=np.float64)
    return invalid, np.zeros_like(invalid)


def _numbers(values: Tensor) -> Array:
    numbers: Array = values.double().cpu().numpy()
    return numbers


def _nested(texts: NDArray[np.object_]) -> tuple[tuple[tuple[str, ...], ...], ...]:
    return tuple(tuple(tuple(row) for row in rows) for rows in texts.tolist())
