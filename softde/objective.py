"""AlignmentLoss: how far the answers of every candidate are from a target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from softde.administer import probabilities
from softde.design import Design
from softde.halving import ITEMS, Halving, part_of
from softde.lm import LM, OptionLogprobs, Plan
from softde.lm.layout import part_blocks, with_blocks
from softde.lm.neutral import Shift, SideEffects, neutral_plan
from softde.readouts import Expected, Reading, Readout, check_readout
from softde.space import PromptSpace
from softde.surveys import Survey, Target
from softde.surveys.scoring import Norm
from softde.surveys.targets import (
    ScoresTarget,
    TargetLike,
    as_target_like,
    items_asked,
    only_items,
    residuals_of,
)

Array = NDArray[np.float64]

SLACK = 1e-9  # a partial loss counts as above a bound only beyond rounding, so that no sum in another order disagrees
DRAWS = ("fixed", "fresh")
MEMORY = 0.7  # weight of the past when the order of the factors is learnt
PARTS = 6  # in which the items of a target are asked, where its terms would make more
NOTHING = np.zeros(0)


class Evaluation(NamedTuple):
    """What a population scored.

    losses (population,), NaN for a candidate under which the model gave no finite answer; a rejected candidate has the
    loss of the terms it was asked, which is above its bound. scores (population, terms), NaN where not asked: factor
    scores, or an item's error for targets of items.
    option_mass (population,), mean over the items asked. spent (population,): tokens pushed through the model's layers
    for each; tokens: their sum; filler: the same for copies that fill up groups; saved: what candidates that `Halving`
    dropped would have cost more. answers (population, items, options): of one order of the options or of one part of
    the items, see `AlignmentLoss.halved`; (population, 0, 0) otherwise. side_effects (population,), in bits, NaN where
    not asked; (0,) without `SideEffects`.
    """

    losses: Array
    scores: Array
    option_mass: Array
    spent: Array
    answers: Array
    tokens: int
    filler: int = 0
    saved: int = 0
    side_effects: Array = NOTHING


@dataclass(frozen=True)
class AlignmentLoss:
    """How far answers under a soft prompt are from a target; call it with (population, dim).

    target : published scores (`Target`), or any of `softde.surveys.targets`: only the items that it uses are asked.
    norm : of published scores, "L1", the sum of absolute errors (Masoud et al. 2025), or "L2". weights : one
        non-negative number per factor. Other targets have their own.
    orders : "both" averages over the options listed forward and reversed.
    readout : what counts as an answer: `Expected()` (None means it too), `Argmax()`, `Sampled()`, `SequenceLogprob()`,
        `Generated()`, or anything with their `read`. An item to which a candidate gives no valid answer makes its loss
        NaN.
    draws : of a read-out that draws. All candidates of a population are always read with the same draws; "fixed" uses
        the same ones in every generation, so that a loss is a function of the candidate alone, and "fresh" others in
        each, so that nobody stays ahead by luck with one set of draws.
    halving : how a search asks only the better candidates everything, for read-outs other than `Expected`; by orders
        it needs orders "both". A call scores all in full; the search calls for one part at a time.
    side_effects : what is added for answers that change beside the survey.
    """

    lm: LM
    survey: Survey
    target: Target | TargetLike
    space: PromptSpace
    orders: str = "both"
    norm: Norm = "L1"
    weights: Sequence[float] | None = None
    readout: Readout | None = None
    draws: str = "fixed"
    halving: Halving | None = None
    side_effects: SideEffects | None = None

    def __post_init__(self) -> None:
        if self.halving is not None and (self.exact or (self.halving.by == "orders" and self.orders != "both")):
            raise ValueError(
                "halving: expected a read-out other than Expected (for which early rejection saves more) and "
                f"orders='both' or Halving(by='items'), got {type(self.readout or Expected()).__name__} and "
                f"{self.orders!r}; leave halving out"
            )
        if self.halving is not None and self.side_effects is not None:
            raise ValueError("side_effects: they are asked of all candidates, so leave halving out")
        if self.readout is not None:
            check_readout(self.readout)
        if self.draws not in DRAWS:
            raise ValueError(f"draws: expected one of {', '.join(DRAWS)}, got {self.draws!r}")
        self.goal.check(self.survey)  # an unknown norm and wrong weights are refused on the way
        hidden = self.space.centre.shape[1]
        if hidden != self.lm.hidden_size:
            raise ValueError(
                f"space: expected the model's hidden size {self.lm.hidden_size}, got {hidden}; build it from this model"
            )

    @cached_property
    def goal(self) -> TargetLike:
        """The target with its norm."""
        goal: TargetLike = as_target_like(self.target, self.norm, self.weights)
        return goal

    def residuals(self, evaluation: Evaluation) -> Array | None:
        """Signed errors (population, terms), all 0 where the target is hit; None for a target that has none.

        Nor has a halved population, in which not all candidates are asked the same. Side effects are no part of them.
        """
        return None if self.halving is not None else residuals_of(self.goal, evaluation.scores)

    @cached_property
    def published(self) -> bool:
        """Is the target factor scores alone?"""
        return isinstance(self.goal, ScoresTarget)

    @cached_property
    def asked(self) -> Survey:
        """What is asked: the survey, or the items of it that the target uses."""
        return self.survey if self.published else items_asked(self.goal, self.survey)

    @cached_property
    def plan(self) -> Plan:
        """The questions as token ids; raises for a model that cannot be asked them."""
        plan = self.lm.plan(self.asked, placement=self.space.placement, orders=self.orders)
        self.lm.engine.check_room(plan, self.space.num_virtual_tokens)
        return plan if self.published else with_blocks(plan, part_blocks(self.uses, PARTS))

    @cached_property
    def uses(self) -> NDArray[np.bool_]:
        """(terms, items asked): which items a term needs."""
        return self.goal.uses(self.asked)

    def __call__(
        self,
        x: Float[Tensor, "population dim"],
        plain: bool = False,
        bound: Float[Tensor, "population"] | None = None,
        order: Sequence[str] | None = None,
        draw: int = 0,
        part: str | None = None,
    ) -> Evaluation:
        """Score candidates; plain takes the one-by-one forward.

        bound : one number per candidate, above which its exact loss does not matter: it is then asked no further
        factor, and its loss comes back as a number above the bound. Every other loss is the same, bit by bit, as
        without a bound. order : the factors in the order in which they are asked; see `order`. Read-outs other than
        `Expected` need neither: they ask everything. draw : which of its sets of draws a read-out uses; see `draw_of`.
        part : one of the halving's `stages` asks one order of the options or one part of the items alone, for `halved`;
        of items the loss is that with the terms that are not settled at zero, and their scores are NaN.
        """
        limit = None if bound is None else self._limit(bound, len(x))
        blocks = None if order is None else self.block_order(order)
        prompts = self.space.decode(x)
        found = self._answered(prompts, plain, limit, blocks, draw, part)
        return found if self.side_effects is None else self._with_side_effects(found, prompts, plain, limit)

    def _answered(
        self, prompts: Tensor, plain: bool, limit: Array | None, blocks: list[int] | None, draw: int, part: str | None
    ) -> Evaluation:
        """What the answers to the survey score."""
        if not self.exact:
            if part is None:
                return self._read(self.plan, prompts, plain, draw)
            return self._part(prompts, plain, draw, part)
        if limit is None or self.stages == 1:
            return self.evaluate(self.lm.option_logprobs(self.plan, prompts, plain, blocks, None))
        stages: list[OptionLogprobs] = []

        def survives(answer: OptionLogprobs) -> Tensor:
            if stages and answer.asked.sum() <= stages[-1].asked.sum():
                stages.clear()  # the engine began again, with smaller groups
            stages.append(answer)
            return torch.from_numpy(self._within(self.evaluate(answer).losses, limit))  # NaN does not survive either

        answer = self.lm.option_logprobs(self.plan, prompts, plain, blocks, survives)
        return self.evaluate(answer)._replace(spent=spent_by(stages, answer))

    def unprompted(self, plain: bool = False, draw: int = 0) -> Evaluation:
        """The model without a soft prompt, as a population of one; it has no side effects."""
        plan = self.lm.plan(self.asked, orders=self.orders)  # a placement may add an empty system turn
        if not self.exact:
            found = self._read(plan, None, plain, draw)
        else:
            found = self.evaluate(self.lm.option_logprobs(plan, None, plain))
        return found if self.side_effects is None else found._replace(side_effects=np.zeros(1))

    def evaluate(self, answer: OptionLogprobs) -> Evaluation:
        """Option log-probabilities → factor scores or item errors → loss."""
        asked = answer.asked.cpu().numpy()
        values = self.goal.values(self.asked, probabilities(answer.logprobs))
        known = ~(~asked @ self.uses.T)
        losses = self.goal.loss(np.where(known, self.goal.errors(values), 0.0))
        mass = np.where(asked, answer.option_mass.double().cpu().numpy(), 0.0).sum(axis=1) / asked.sum(axis=1)
        spent, none = shares(answer.ledger, len(asked)), np.zeros((len(asked), 0, 0))
        return Evaluation(losses, values, mass, spent, none, answer.ledger, answer.filler)

    @cached_property
    def shift(self) -> Shift:
        """How far a prompt moves the next token after neutral texts."""
        assert self.side_effects is not None
        return Shift(self.lm, neutral_plan(self.lm, self.side_effects.texts, self.space.placement))

    def _with_side_effects(self, found: Evaluation, prompts: Tensor, plain: bool, limit: Array | None) -> Evaluation:
        """The same with side effects; candidates that are above their limit without them are not asked."""
        assert self.side_effects is not None
        asked = np.isfinite(found.losses) if limit is None else self._within(found.losses, limit)
        rows = np.flatnonzero(asked)
        bits, losses, spent = np.full(len(found.losses), np.nan), found.losses.copy(), found.spent.copy()
        if not len(rows):
            return found._replace(side_effects=bits)
        bits[rows], tokens = self.shift(prompts[torch.from_numpy(rows).to(prompts.device)], plain)
        losses[rows] += self.side_effects.weight * bits[rows]
        spent[rows] += shares(tokens, len(rows))
        return found._replace(losses=losses, spent=spent, tokens=found.tokens + tokens, side_effects=bits)

    @staticmethod
    def _within(losses: Array, limit: Array) -> NDArray[np.bool_]:
        """Is a loss not above its limit, beyond rounding? NaN is."""
        return np.asarray(losses <= limit + SLACK * np.abs(limit))

    def _limit(self, bound: Any, population: int) -> Array:
        given = torch.as_tensor(bound, dtype=torch.float64).cpu()
        if given.shape != (population,):
            raise ValueError(
                f"bound: expected one number per candidate, ({population},), got shape {tuple(given.shape)}"
            )
        limit: Array = given.nan_to_num(math.inf, math.inf, -math.inf).numpy()  # a parent without a loss bounds nothing
        return limit

    # -- read-outs

    @property
    def exact(self) -> bool:
        """Are answers expected values, for which the engine's own answers do?"""
        return self.readout is None or type(self.readout) is Expected

    @property
    def noisy(self) -> bool:
        """Does a loss depend on random draws?"""
        return is_noisy(self.readout)

    def draw_of(self, generation: int) -> int:
        """The `draw` of a generation of a search."""
        return generation if self.noisy and self.draws == "fresh" else 0

    def _reading(self, plan: Plan, survey: Survey, prompts: Tensor | None, plain: bool, draw: int) -> Reading:
        readout: Any = self.readout
        if self.noisy:
            readout = replace(readout, seed=readout.seed + draw)
        reading: Reading = readout.read(self.lm, plan, survey, prompts, plain=plain)
        return reading

    def _read(self, plan: Plan, prompts: Tensor | None, plain: bool, draw: int) -> Evaluation:
        reading = self._reading(plan, self.asked, prompts, plain, draw)
        mass = np.asarray(reading.option_mass, dtype=np.float64).mean(axis=1)
        none = np.zeros((len(mass), 0, 0))
        return self._evaluated(reading.probabilities, mass, shares(reading.tokens, len(mass)), none)

    def _evaluated(
        self, probabilities: Array, mass: Array, spent: Array, answers: Array, asked: NDArray[np.bool_] | None = None
    ) -> Evaluation:
        values = self.goal.values(self.asked, probabilities)
        errors = self.goal.errors(values)
        if asked is not None:
            errors = np.where(~(~asked @ self.uses.T), errors, 0.0)
        return Evaluation(self.goal.loss(errors), values, mass, spent, answers, int(spent.sum()))

    # -- halving

    @cached_property
    def parts_of_halving(self) -> tuple[NDArray[np.int64], ...]:
        """Numbers of the items in both parts, cut where two blocks of the plan meet; () unless halving is by items."""
        if self.halving is None or self.halving.by != "items":
            return ()
        blocks = [sorted({self.plan.questions[i].item for i in block}) for block in self.plan.blocks]
        if len(blocks) < 2:
            raise ValueError(
                "halving: expected items that can be asked in two parts, but every factor shares items with another; "
                "use Halving(by='orders')"
            )
        before = np.cumsum([len(block) for block in blocks])[:-1] / self.plan.n_items
        cut = 1 + int(np.argmin(np.abs(before - self.halving.share)))
        return tuple(np.sort(np.concatenate(some)) for some in (blocks[:cut], blocks[cut:]))

    @cached_property
    def _halves(self) -> tuple[tuple[Plan, Survey, NDArray[np.int64]], ...]:
        """Both parts of the items: their questions, a survey for these, and where the items are in what is read."""
        if not isinstance(self.readout, Design):
            return tuple((*part_of(self.plan, self.asked, numbers), numbers) for numbers in self.parts_of_halving)
        parts = []  # respondents are asked whatever is in the survey, and draw by an item's id
        for numbers in self.parts_of_halving:
            survey = only_items(self.asked, [self.asked.item_ids[i] for i in numbers])
            parts.append((self._plan(survey, self.orders), survey, np.arange(len(numbers))))
        return tuple(parts)

    def _plan(self, survey: Survey, orders: str) -> Plan:
        return self.lm.plan(survey, placement=self.space.placement, orders=orders)

    def _part(self, prompts: Tensor, plain: bool, draw: int, part: str) -> Evaluation:
        """What candidates answer in one order of the options, or to one part of the items."""
        if part in ITEMS:
            return self._some(prompts, plain, draw, ITEMS.index(part))
        reading = self._reading(self._plan(self.asked, part), self.asked, prompts, plain, draw)
        answers = reading.probabilities
        if reading.answers is not None:  # as counts: some are more than others where not all are valid
            valid = (reading.answers >= 0).sum(axis=1)[..., None]
            answers = np.where(valid, np.rint(answers * valid), 0.0)
        mass = np.asarray(reading.option_mass, dtype=np.float64).mean(axis=1)
        return self._evaluated(reading.probabilities, mass, shares(reading.tokens, len(mass)), answers)

    def _some(self, prompts: Tensor, plain: bool, draw: int, number: int) -> Evaluation:
        """What candidates answer to the items of one part; the others are NaN."""
        numbers, (plan, survey, places) = self.parts_of_halving[number], self._halves[number]
        reading = self._reading(plan, survey, prompts, plain, draw)
        read = reading.probabilities[:, places]
        answers = np.full((len(read), self.plan.n_items, self.plan.n_options), np.nan)
        answers[:, numbers] = 0.0
        answers[:, numbers, : read.shape[2]] = read
        mass = np.asarray(reading.option_mass, dtype=np.float64)[:, places].mean(axis=1)
        asked = np.isin(np.arange(self.plan.n_items), numbers)
        return self._evaluated(answers, mass, shares(reading.tokens, len(mass)), answers, asked)

    def _together(self, first: Array, second: Array) -> tuple[Array, Array]:
        """Answers to both parts, and probabilities from them."""
        if self.parts_of_halving:
            both = np.where(np.isin(np.arange(first.shape[1]), self.parts_of_halving[1])[:, None], second, first)
            return both, both
        answers = first + second
        with np.errstate(invalid="ignore"):  # no valid answer: 0 / 0 is the NaN that says so
            return answers, answers / np.rint(answers.sum(axis=-1, keepdims=True))

    def halved(self, first: Evaluation, rows: NDArray[np.int64], second: Evaluation | None) -> Evaluation:
        """One evaluation of a population that was asked the first part, and some of its rows that were asked the other.

        Answers in both orders of the options count alike, probabilities or single valid answers. The losses of all
        other rows are put beyond those of `rows`, in the same order.
        """
        if second is None:
            return first._replace(answers=first.answers[:, :0, :0])
        answers, both = self._together(first.answers[rows], second.answers)
        one, other = [len(numbers) for numbers in self.parts_of_halving] or (1, 1)
        mass = (one * first.option_mass[rows] + other * second.option_mass) / (one + other)
        kept = self._evaluated(both, mass, first.spent[rows] + second.spent, answers)
        worst = kept.losses[np.isfinite(kept.losses)].max(initial=0.0)
        losses = np.nextafter(first.losses + worst, np.inf)
        scores, option_mass, spent = first.scores.copy(), first.option_mass.copy(), first.spent.copy()
        for all_rows, values in zip((losses, scores, option_mass, spent), kept[:4], strict=True):
            all_rows[rows] = values
        saved = round(second.spent.mean() * (len(first.losses) - len(rows)))
        tokens, filler = first.tokens + second.tokens, first.filler + second.filler
        return Evaluation(losses, scores, option_mass, spent, first.answers[:, :0, :0], tokens, filler, saved)

    # -- early rejection: one part after the other, in the order that rejects soonest

    @property
    def stages(self) -> int:
        """In how many blocks the survey is asked; after each, some terms are settled or none is left."""
        return len(self.plan.blocks)

    @cached_property
    def parts(self) -> Mapping[str, NDArray[np.int64]]:
        """Names of what a log shows and an order names → numbers of its terms: every factor, or blocks of items."""
        if self.published:
            return {factor: np.array([i]) for i, factor in enumerate(self.goal.terms)}
        blocks = np.array([self._block(row) for row in self.uses])
        parts = [np.flatnonzero(blocks == b) for b in range(len(self.plan.blocks))]
        return {self._named(terms): terms for terms in parts if len(terms)}

    def _named(self, terms: NDArray[np.int64]) -> str:
        first, last = self.goal.terms[terms[0]], self.goal.terms[terms[-1]]
        return first if first == last else f"{first}..{last}"

    def measured(self, evaluation: Evaluation) -> tuple[Array, Array]:
        """What a log says of each part, (population, parts) twice, NaN where not asked: values and errors.

        Of published scores the score and its absolute error; of other targets twice what the part adds to the loss, or
        to the sum under its root.
        """
        errors = self.goal.errors(evaluation.scores)
        if self.published:
            return evaluation.scores, errors
        costs = self.goal.costs(errors)
        added = np.stack([costs[:, terms].sum(axis=1) for terms in self.parts.values()], axis=1)
        return added, added

    def order(self, trajectory: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        """The parts, those that cost candidates most in the generations so far first.

        trajectory : lines of a run's log, with the mean error of every part as ``error_PART``.
        """
        cost = dict.fromkeys(self.parts, 0.0)
        for line in trajectory:
            errors = [line.get(f"error_{part}") for part in cost]
            known = np.array([[0.0 if error is None else error for error in errors]])
            shares = (self.goal.costs(known) if self.published else known)[0].tolist()
            for part, error, share in zip(cost, errors, shares, strict=True):
                if error is not None:
                    cost[part] = MEMORY * cost[part] + (1 - MEMORY) * share
        return tuple(sorted(cost, key=lambda part: -cost[part]))

    def block_order(self, order: Sequence[str]) -> list[int]:
        """The plan's blocks in the order of the parts they settle."""
        if sorted(order) != sorted(self.parts):
            raise ValueError(f"order: expected each of {', '.join(self.parts)} once, got {list(order)}")
        rows = [self.uses[self.parts[part][0]] for part in order]
        blocks = dict.fromkeys(self._block(row) for row in rows if row.any())
        return [*blocks, *(b for b in range(len(self.plan.blocks)) if b not in blocks)]

    def _block(self, used: NDArray[np.bool_]) -> int:
        """The block with the items (items,) that a term uses."""
        return next(
            b for b, block in enumerate(self.plan.blocks) if any(used[self.plan.questions[i].item] for i in block)
        )

    def distance(self, scores: Array) -> Array:
        """(..., terms) → (...,)."""
        return self.goal.loss(self.goal.errors(scores))


def is_noisy(readout: Any) -> bool:
    """Does a read-out draw? So does one with a `seed`, unless its temperature is 0."""
    seeded = is_dataclass(readout) and any(field.name == "seed" for field in fields(readout))
    return seeded and bool(getattr(readout, "temperature", 1.0) > 0)


def shares(tokens: int, population: int) -> Array:
    """Tokens of candidates that were asked the same, (population,) whole numbers that add up."""
    each, more = divmod(tokens, population)
    return each + (np.arange(population) < more).astype(np.float64)


def spent_by(stages: Sequence[OptionLogprobs], last: OptionLogprobs) -> Array:
    """Tokens of each candidate, (population,), from what all had been asked after every stage."""
    spent, tokens, before = np.zeros(len(last.asked)), 0, torch.zeros_like(last.asked)
    for answer in (*stages, last):
        alive = (answer.asked != before).any(dim=1).cpu().numpy()
        if alive.any():
            spent[alive] += shares(answer.ledger - tokens, int(alive.sum()))
        tokens, before = answer.ledger, answer.asked
    return spent
