"""Successive halving: all candidates of a generation are asked a part of the questions, the better ones the rest."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softde.checks import plain_number, put, shown
from softde.lm import Plan
from softde.surveys import Survey
from softde.surveys.targets import bare

Array = NDArray[np.float64]

ORDERS = ("forward", "reversed")
ITEMS = ("first items", "other items")


@dataclass(frozen=True)
class Halving:
    """Successive halving for costly read-outs: all are asked a part of the questions, the better ones the rest.

    The parts are the two orders of the options, or items: those of the first factors (or blocks of items), and the
    others. A dropped candidate has the loss of the part it was asked, put beyond the worst loss of those that were
    kept; of items that is the loss with the other terms at zero, which is never above the whole. That is harmless for
    optimisers that only compare a candidate with its parent, or go by ranks and make little of the lower half:
    differential evolution, random search, particle swarms, CMA-ES; not for SPSA and other estimates of a gradient that
    use the losses themselves. With keep=0.5 a quarter of the tokens is saved. A candidate that gives no valid answer to
    an item in the first part is not asked the other, and has no loss.

    keep : share of the candidates of a generation that are asked the other part. by : "orders" or "items". first : the
    order that all are asked, "forward" or "reversed". share : of the items that all are asked, as near as blocks allow.
    """

    keep: float = 0.5
    first: str = "forward"
    by: str = "orders"
    share: float = 0.5

    def __post_init__(self) -> None:
        keep, share = plain_number(self.keep), plain_number(self.share)
        if keep is None or not 0 < keep <= 1:
            raise ValueError(f"keep: expected a share above 0, up to 1, got {shown(self.keep)}")
        if self.first not in ORDERS:
            raise ValueError(f"first: expected one of {', '.join(ORDERS)}, got {shown(self.first)}")
        if self.by not in ("orders", "items"):
            raise ValueError(f"by: expected 'orders' or 'items', got {shown(self.by)}")
        if share is None or not 0 < share < 1:
            raise ValueError(f"share: expected a share of the items between 0 and 1, got {shown(self.share)}")
        put(self, {"keep": keep, "share": share})

    @property
    def second(self) -> str:
        return ORDERS[1 - ORDERS.index(self.first)]

    @property
    def stages(self) -> tuple[str, str]:
        """The `part` of a loss that all are asked, and that of those that are kept."""
        return (self.first, self.second) if self.by == "orders" else ITEMS

    def record(self) -> dict[str, Any]:
        """What of it decides a search."""
        mine = {"first": self.first} if self.by == "orders" else {"by": self.by, "share": self.share}
        return {"keep": self.keep, **mine}

    def kept(self, losses: Array) -> NDArray[np.int64]:
        """The better candidates, in their order; one without a loss is never among them."""
        known = np.where(np.isnan(losses), np.inf, losses)
        best = np.argsort(known, kind="stable")[: math.ceil(self.keep * len(losses))]
        rows: NDArray[np.int64] = np.sort(best[np.isfinite(known[best])])
        return rows


@dataclass(frozen=True)
class PartPlan(Plan):
    """Some items' questions of a plan, under the same numbers, so that random draws for them are the same.

    What is read for any other item is what the first question says, and means nothing.
    """

    @cached_property
    def by_item(self) -> tuple[tuple[int, ...], ...]:
        numbers: list[list[int]] = [[] for _ in range(self.n_items)]
        for i, question in enumerate(self.questions):
            numbers[question.item].append(i)
        slots = math.lcm(*(len(mine) for mine in numbers if mine))
        return tuple(tuple((mine or [0]) * (slots // len(mine or [0]))) for mine in numbers)


def part_of(plan: Plan, survey: Survey, numbers: NDArray[np.int64]) -> tuple[PartPlan, Survey]:
    """The questions of some items, and a survey in which the others have no more options than these."""
    mine = frozenset(numbers.tolist())
    questions = tuple(q for q in plan.questions if q.item in mine)
    widest = max(len(q.option_ids) for q in questions)
    digest = hashlib.sha256(f"{plan.digest} {sorted(mine)}".encode()).hexdigest()
    blocks = (tuple(range(len(questions))),)
    like = survey.items[int(numbers[0])]
    items = [item if i in mine else replace(like, id=item.id) for i, item in enumerate(survey.items)]
    return PartPlan(plan.placement, questions, plan.n_items, widest, plan.system, blocks, digest), bare(survey, items)
