"""AlignmentLoss: how far the factor scores of every candidate are from the target's."""

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

from softde.administer import item_means, probabilities
from softde.lm import LM, OptionLogprobs, Plan
from softde.readouts import Expected, Readout, check_readout
from softde.space import PromptSpace
from softde.surveys import Survey, Target, distance
from softde.surveys.scoring import Norm, by_factor

Array = NDArray[np.float64]

SLACK = 1e-9  # a partial loss counts as above a bound only beyond rounding, so that no sum in another order disagrees
DRAWS = ("fixed", "fresh")
ORDERS = ("forward", "reversed")
MEMORY = 0.7  # weight of the past when the order of the factors is learnt


class Evaluation(NamedTuple):
    """What a population scored.

    losses (population,), NaN for a candidate under which the model gave no finite answer; a rejected candidate has the
    loss of the factors it was asked, which is above its bound. scores (population, factors), NaN where not asked.
    option_mass (population,), mean over the items asked. spent (population,): tokens pushed through the model's layers
    for each; tokens: their sum; filler: the same for copies that fill up groups; saved: what candidates that `Halving`
    dropped would have cost more. answers (population, items, options): of one order of the options, see
    `AlignmentLoss.halved`; (population, 0, 0) otherwise.
    """

    losses: Array
    scores: Array
    option_mass: Array
    spent: Array
    answers: Array
    tokens: int
    filler: int = 0
    saved: int = 0


@dataclass(frozen=True)
class Halving:
    """Successive halving for costly read-outs: all are asked with the options in one order, the better in the other.

    A dropped candidate has the loss of the order it was asked, put beyond the worst loss of those that were kept. That
    is harmless for optimisers that only compare a candidate with its parent, or go by ranks and make little of the
    lower half: differential evolution, random search, particle swarms, CMA-ES; not for SPSA and other estimates of a
    gradient that use the losses themselves. With keep=0.5 a quarter of the tokens is saved. A candidate that gives no
    valid answer to an item in the first order is not asked the other, and has no loss.

    keep : share of the candidates of a generation that are asked the other order. first : "forward" or "reversed".
    """

    keep: float = 0.5
    first: str = "forward"

    def __post_init__(self) -> None:
        if isinstance(self.keep, bool) or not 0 < self.keep <= 1:
            raise ValueError(f"keep: expected a share above 0, up to 1, got {self.keep!r}")
        if self.first not in ORDERS:
            raise ValueError(f"first: expected one of {', '.join(ORDERS)}, got {self.first!r}")

    @property
    def second(self) -> str:
        return ORDERS[1 - ORDERS.index(self.first)]

    def kept(self, losses: Array) -> NDArray[np.int64]:
        """The better candidates, in their order; one without a loss is never among them."""
        known = np.where(np.isnan(losses), np.inf, losses)
        best = np.argsort(known, kind="stable")[: math.ceil(self.keep * len(losses))]
        rows: NDArray[np.int64] = np.sort(best[np.isfinite(known[best])])
        return rows


@dataclass(frozen=True)
class AlignmentLoss:
    """Distance between the factor scores under a soft prompt and a target; call it with (population, dim).

    norm : "L1", the sum of absolute errors (Masoud et al. 2025), or "L2". weights : one non-negative number per factor.
    orders : "both" averages over the options listed forward and reversed.
    readout : what counts as an answer: `Expected()` (None means it too), `Argmax()`, `Sampled()`, `SequenceLogprob()`,
        `Generated()`, or anything with their `read`. An item to which a candidate gives no valid answer makes its loss
        NaN.
    draws : of a read-out that draws. All candidates of a population are always read with the same draws; "fixed" uses
        the same ones in every generation, so that a loss is a function of the candidate alone, and "fresh" others in
        each, so that nobody stays ahead by luck with one set of draws.
    halving : how a search asks only the better candidates everything, for read-outs other than `Expected` and orders
        "both". A call scores all in full; the search calls for one order at a time.
    """

    lm: LM
    survey: Survey
    target: Target
    space: PromptSpace
    orders: str = "both"
    norm: Norm = "L1"
    weights: Sequence[float] | None = None
    readout: Readout | None = None
    draws: str = "fixed"
    halving: Halving | None = None

    def __post_init__(self) -> None:
        if self.halving is not None and (self.exact or self.orders != "both"):
            raise ValueError(
                "halving: expected a read-out other than Expected (for which early rejection saves more) and "
                f"orders='both', got {type(self.readout or Expected()).__name__} and {self.orders!r}; leave halving out"
            )
        if self.readout is not None:
            check_readout(self.readout)
        if self.draws not in DRAWS:
            raise ValueError(f"draws: expected one of {', '.join(DRAWS)}, got {self.draws!r}")
        if tuple(self.target.factors) != tuple(self.survey.factors):
            raise ValueError(
                f"target: expected the factors of survey {self.survey.id!r}, {', '.join(self.survey.factors)}, got "
                f"{', '.join(self.target.factors)}; take the target from this survey"
            )
        hidden = self.space.centre.shape[1]
        if hidden != self.lm.hidden_size:
            raise ValueError(
                f"space: expected the model's hidden size {self.lm.hidden_size}, got {hidden}; build it from this model"
            )
        self.distance(np.zeros((1, len(self.survey.factors))))  # refuses an unknown norm or wrong weights

    @cached_property
    def plan(self) -> Plan:
        """The questions as token ids; raises for a model that cannot be asked them."""
        plan = self.lm.plan(self.survey, placement=self.space.placement, orders=self.orders)
        self.lm.engine.check_room(plan, self.space.num_virtual_tokens)
        return plan

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
        part : "forward" or "reversed" asks one order of the options alone, for `halved`.
        """
        limit = None if bound is None else self._limit(bound, len(x))
        blocks = None if order is None else self.block_order(order)
        prompts = self.space.decode(x)
        if not self.exact:
            return self._read(self.plan if part is None else self._plan(part), prompts, plain, draw, part is not None)
        if limit is None or self.stages == 1:
            return self.evaluate(self.lm.option_logprobs(self.plan, prompts, plain, blocks, None))
        stages: list[OptionLogprobs] = []

        def survives(answer: OptionLogprobs) -> Tensor:
            if stages and answer.asked.sum() <= stages[-1].asked.sum():
                stages.clear()  # the engine began again, with smaller groups
            stages.append(answer)
            losses = self.evaluate(answer).losses
            return torch.from_numpy(losses <= limit + SLACK * np.abs(limit))  # NaN does not survive either

        answer = self.lm.option_logprobs(self.plan, prompts, plain, blocks, survives)
        return self.evaluate(answer)._replace(spent=spent_by(stages, answer))

    def unprompted(self, plain: bool = False, draw: int = 0) -> Evaluation:
        """The model without a soft prompt, as a population of one."""
        plan = self.lm.plan(self.survey, orders=self.orders)  # a placement may add an empty system turn
        if not self.exact:
            return self._read(plan, None, plain, draw)
        return self.evaluate(self.lm.option_logprobs(plan, None, plain))

    def evaluate(self, answer: OptionLogprobs) -> Evaluation:
        """Option log-probabilities → item means → factor scores → loss."""
        asked = answer.asked.cpu().numpy()
        means = item_means(self.survey, probabilities(answer.logprobs))
        scores = self._scores(means)
        known = ~(~asked @ (self.survey.weights != 0).T)
        losses = self.distance(np.where(known, scores, self.target.scores))
        mass = np.where(asked, answer.option_mass.double().cpu().numpy(), 0.0).sum(axis=1) / asked.sum(axis=1)
        spent, none = shares(answer.ledger, len(asked)), np.zeros((len(asked), 0, 0))
        return Evaluation(losses, scores, mass, spent, none, answer.ledger, answer.filler)

    def _scores(self, means: Array) -> Array:
        """(population, items) → (population, factors)."""
        # One candidate at a time: the last bits of a matrix product depend on its number of rows.
        return np.stack([self.survey.score(row, self.target.constants) for row in means])

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

    def _read(
        self, plan: Plan, prompts: Tensor | None, plain: bool, draw: int, with_answers: bool = False
    ) -> Evaluation:
        readout: Any = self.readout
        if self.noisy:
            readout = replace(readout, seed=readout.seed + draw)
        reading = readout.read(self.lm, plan, self.survey, prompts, plain=plain)
        answers = np.zeros((len(reading.probabilities), 0, 0))
        if with_answers:
            answers = reading.probabilities
            if reading.answers is not None:  # as counts: some are more than others where not all are valid
                valid = (reading.answers >= 0).sum(axis=1)[..., None]
                answers = np.where(valid, np.rint(answers * valid), 0.0)
        mass = np.asarray(reading.option_mass, dtype=np.float64).mean(axis=1)
        return self._evaluated(reading.probabilities, mass, shares(reading.tokens, len(mass)), answers)

    def _evaluated(self, probabilities: Array, mass: Array, spent: Array, answers: Array) -> Evaluation:
        scores = self._scores(item_means(self.survey, probabilities))
        return Evaluation(self.distance(scores), scores, mass, spent, answers, int(spent.sum()))

    def _plan(self, orders: str) -> Plan:
        return self.lm.plan(self.survey, placement=self.space.placement, orders=orders)

    def halved(self, first: Evaluation, rows: NDArray[np.int64], second: Evaluation | None) -> Evaluation:
        """One evaluation of a population in the first order of the options, and some of its rows in the second.

        Answers of both orders count alike, probabilities or single valid answers. The losses of all other rows are put
        beyond those of `rows`, in the same order.
        """
        if second is None:
            return first._replace(answers=first.answers[:, :0, :0])
        answers = first.answers[rows] + second.answers
        with np.errstate(invalid="ignore"):  # no valid answer: 0 / 0 is the NaN that says so
            both = answers / np.rint(answers.sum(axis=-1, keepdims=True))
        mass = (first.option_mass[rows] + second.option_mass) / 2
        kept = self._evaluated(both, mass, first.spent[rows] + second.spent, answers)
        worst = kept.losses[np.isfinite(kept.losses)].max(initial=0.0)
        losses = np.nextafter(first.losses + worst, np.inf)
        scores, option_mass, spent = first.scores.copy(), first.option_mass.copy(), first.spent.copy()
        for all_rows, values in zip((losses, scores, option_mass, spent), kept[:4], strict=True):
            all_rows[rows] = values
        saved = round(second.spent.mean() * (len(first.losses) - len(rows)))
        tokens, filler = first.tokens + second.tokens, first.filler + second.filler
        return Evaluation(losses, scores, option_mass, spent, first.answers[:, :0, :0], tokens, filler, saved)

    # -- early rejection: one factor after the other, in the order that rejects soonest

    @property
    def stages(self) -> int:
        """In how many parts the survey is asked; after each, some factors are settled or none is left."""
        return len(self.plan.blocks)

    def order(self, trajectory: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        """The factors, those that cost candidates most in the generations so far first.

        trajectory : lines of a run's log, with the mean absolute error of every factor as ``error_FACTOR``.
        """
        cost = dict.fromkeys(self.survey.factors, 0.0)
        weights = by_factor(1.0 if self.weights is None else self.weights, self.survey.factors, "weights")
        for line in trajectory:
            for factor, weight in zip(cost, weights.tolist(), strict=True):
                error = line.get(f"error_{factor}")
                if error is not None:
                    share = weight * (error if self.norm == "L1" else error**2)
                    cost[factor] = MEMORY * cost[factor] + (1 - MEMORY) * share
        return tuple(sorted(cost, key=lambda factor: -cost[factor]))

    def block_order(self, order: Sequence[str]) -> list[int]:
        """The plan's blocks in the order of the factors they settle."""
        if sorted(order) != sorted(self.survey.factors):
            raise ValueError(f"order: expected each of {', '.join(self.survey.factors)} once, got {list(order)}")
        used = [f for f in order if self.survey.weights[self.survey.factors.index(f)].any()]
        blocks = dict.fromkeys(self._block(factor) for factor in used)
        return [*blocks, *(b for b in range(len(self.plan.blocks)) if b not in blocks)]

    def _block(self, factor: str) -> int:
        """The block whose items a factor uses."""
        used = self.survey.weights[self.survey.factors.index(factor)] != 0
        return next(
            b for b, block in enumerate(self.plan.blocks) if any(used[self.plan.questions[i].item] for i in block)
        )

    def distance(self, scores: Array) -> Array:
        """(..., factors) → (...,)."""
        return np.asarray(distance(scores, self.target, self.norm, self.weights))


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
