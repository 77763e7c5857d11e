"""What a search says beside its loss: items held out, items that cannot be asked, and answers that moved as well."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softde.align.result import finite
from softde.lm import LM
from softde.lm.layout import unasked_items
from softde.objective import AlignmentLoss
from softde.readouts import probabilities
from softde.surveys import Survey, Target
from softde.surveys.losses import jensen_shannon
from softde.surveys.targets import PARTS, ScoresTarget, TargetLike, items_asked, only_items

Array = NDArray[np.float64]

SHOWN = 8  # items that a message names

_log = logging.getLogger("softde")


def askable(
    lm: LM, survey: Survey, target: Target | TargetLike, orders: str, placement: str = "late", tokens: int = 0
) -> tuple[Any, dict[str, str]]:
    """The target without the items that the model cannot be asked, and these → why, said once as a warning.

    Published scores stay as they are: without an item there is no score, so planning refuses such a survey.
    """
    if isinstance(target, (Target, ScoresTarget)):
        return target, {}
    target.check(survey)
    held = target.held_out_target
    used = np.asarray(target.uses(survey).any(axis=0) | (False if held is None else held.uses(survey).any(axis=0)))
    part = only_items(survey, [item for item, asked in zip(survey.item_ids, used, strict=True) if asked])
    left_out = unasked(lm, part, orders, placement, tokens)
    if left_out:
        _log.warning(
            "%s of %s items are left out, which this model cannot be asked: %s; the first because %s",
            len(left_out), len(part.items), shown(list(left_out)), next(iter(left_out.values())),
        )  # fmt: skip
    return target.without(left_out) if left_out else target, left_out


def checked_target(target: object) -> dict[str, tuple[object, Any]]:
    """For `check_kinds`: published scores, or anything else with what a target has."""
    other = not isinstance(target, type) and all(hasattr(target, name) for name in PARTS)
    return {} if other else {"target": (target, Target)}


def unasked(lm: LM, survey: Survey, orders: str, placement: str, tokens: int) -> dict[str, str]:
    """Items that the model cannot be asked with so many soft tokens → why."""
    context = lm.context
    return unasked_items(lm.tokenizer, survey, placement, orders, context - tokens if context else None)


def shown(items: Sequence[str]) -> str:
    """Some ids, and how many more."""
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


def held_out(loss: AlignmentLoss, x: Tensor, draw: int) -> dict[str, Any] | None:
    """The loss of the held-out items under a point (dim,) and without a prompt; None if none are."""
    target = loss.goal.held_out_target
    if target is None:
        return None
    beside = replace(loss, target=target, norm="L1", weights=None, halving=None, side_effects=None)
    after, before = beside(x[None], plain=True, draw=draw), beside.unprompted(plain=True, draw=draw)
    return {
        "items": len(beside.asked.items),
        "loss": finite(float(after.losses[0])),
        "unprompted_loss": finite(float(before.losses[0])),
        "option_mass": finite(float(after.option_mass[0])),
    }


def moved(loss: AlignmentLoss, x: Tensor, left_out: Mapping[str, str]) -> dict[str, Any] | None:
    """How far answers moved that the target says nothing of, in units of how far those moved that it is about.

    An item moves by the Jensen-Shannon divergence, in bits, of its answers with the prompt (dim,) from those without,
    by option probabilities whatever the read-out; a factor by the difference of its scores. "target", "held_out" and
    "others" are means over items, "ratio" is others over target, and "factors" has, for every factor without a weight,
    its movement over the mean of those with one. None where the target uses every item and factor.
    """
    unweighted, held = idle_factors(loss.goal), loss.goal.held_out_target
    if loss.published and not unweighted:  # every item is some factor's, or nobody's
        return None
    space, of_target = loss.space, set(loss.asked.item_ids)
    of_held = set() if held is None else set(items_asked(held, loss.survey).item_ids) - of_target
    rest = [item for item in loss.survey.item_ids if item not in {*of_target, *of_held, *left_out}]
    beyond: Mapping[str, str] = {}
    if rest:
        others = only_items(loss.survey, rest)
        beyond = unasked(loss.lm, others, loss.orders, space.placement, space.num_virtual_tokens)
    kinds = {"target": of_target, "held_out": of_held, "others": set(rest) - set(beyond)}
    if not kinds["others"] and not unweighted:
        return None
    survey = only_items(loss.survey, set().union(*kinds.values()))
    before = answers(loss, survey, None)
    after = answers(loss, survey, loss.space.decode(x[None]))
    bits = jensen_shannon(after, before)
    means = {
        name: float(np.mean([b for b, item in zip(bits, survey.item_ids, strict=True) if item in items]))
        for name, items in kinds.items()
        if items
    }
    found: dict[str, Any] = {name: finite(value) for name, value in means.items()}
    if means.get("target") and "others" in means:
        found["ratio"] = finite(means["others"] / means["target"])
    if unweighted:
        goal = loss.goal
        change = np.abs(np.subtract(*(goal.values(survey, p[None])[0] for p in (after, before))))
        weighted = [i for i, factor in enumerate(goal.terms) if factor not in unweighted]
        found["factors"] = {f: finite(float(change[goal.terms.index(f)] / change[weighted].mean())) for f in unweighted}
    return found


def idle_factors(goal: TargetLike) -> list[str]:
    """Factors of published scores that have no weight in the loss."""
    if not isinstance(goal, ScoresTarget) or goal.weights is None:
        return []
    return [factor for factor, weight in zip(goal.terms, goal.weights, strict=True) if weight == 0]


def answers(loss: AlignmentLoss, survey: Survey, prompts: Tensor | None) -> Array:
    """(items, options) probabilities of one candidate, or of the unprompted model."""
    placement = loss.space.placement if prompts is not None else "late"
    plan = loss.lm.plan(survey, placement=placement, orders=loss.orders)
    with torch.no_grad():
        return probabilities(loss.lm.option_logprobs(plan, prompts).logprobs)[0]
