"""Splits: what a method may see while it is found, and exams on what it saw and on what it did not.

Each function takes a whole exam and returns a `Split`: ``softde.align(lm, **split.training.arguments("India"))``
searches on its training part, and `compare_methods(lm, split.exams, entries)` examines all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from softde.checks import plain_number, shown
from softde.compare.entries import Entry, Exam
from softde.surveys import Survey
from softde.surveys.human import HumanAnswers
from softde.surveys.item_targets import ItemTarget
from softde.surveys.metrics import js_divergence
from softde.surveys.regions import region_name
from softde.surveys.targets import ScoresTarget
from softde.surveys.values import FrozenDict, listed, nearest


@dataclass(frozen=True, eq=False)
class Training:
    """What a method may see: a survey, region → target, and in which orders options are listed."""

    survey: Survey
    targets: Mapping[str, Any]
    orders: str = "both"

    def arguments(self, region: str) -> dict[str, Any]:
        """survey, target and orders, by the names that `softde.align` gives them."""
        name = region_name(region) or region
        if name not in self.targets:
            raise ValueError(f"region: no training target for {region!r}; {nearest(region, self.targets)}")
        return {"survey": self.survey, "target": self.targets[name], "orders": self.orders}


@dataclass(frozen=True, eq=False)
class Split:
    """The training part, and exams: first on what was seen, then on what was held out."""

    training: Training
    exams: tuple[Exam, ...]


def hold_out_factors(exam: Exam, factors: Collection[str]) -> Split:
    """Train on some factors' published scores, examine on the others: do they come along, or are they in the way?

    Held-out factors have weight 0 in the training targets. Their items are asked during a search, but count nothing.
    What is measured on human answers rests on the items of the trained factors, and on those that only the others need.
    """
    goals = {region: _scores(exam, goal) for region, goal in exam.goals.items()}
    known = exam.survey.factors
    held = _some(factors, known, "factors", f"survey {exam.survey.id!r}")

    def weighted(keep: Collection[str]) -> dict[str, Any]:
        return {
            region: replace(
                goal, weights=tuple(w if f in keep else 0.0 for f, w in zip(known, _ones(goal), strict=True))
            )
            for region, goal in goals.items()
        }

    rest = [factor for factor in known if factor not in held]
    seen = weighted(rest)
    trained = np.any([row for factor, row in zip(known, exam.survey.uses, strict=True) if factor in rest], axis=0)
    others = exam.survey.uses.any(axis=0) & ~trained
    human, unseen = (
        _of_items(exam.human, np.array(exam.survey.item_ids)[which].tolist()) for which in (trained, others)
    )
    exams = (
        replace(exam, name=f"{exam.name}, trained factors", targets=seen, norm="L1", weights=None, human=human),
        replace(exam, name=f"{exam.name}, factors held out", targets=weighted(held), norm="L1", weights=None,
                human=unseen, held_out="factors"),
    )  # fmt: skip
    return Split(Training(exam.survey, FrozenDict(seen), exam.orders), exams)


def hold_out_items(exam: Exam, items: float | Collection[str] | None = None, seed: int = 0) -> Split:
    """Train on some items that humans answered, examine on the others.

    items : a share of the survey's items, drawn by seed, as `SharesTarget.of` draws it; or ids; None takes what the
    targets hold out already. A search does not ask them.
    """
    for goal in exam.goals.values():
        if not isinstance(goal, ItemTarget):
            raise ValueError(
                f"exam {exam.name!r}: only targets of items hold items out, not {type(goal).__name__}; factors of "
                "published scores are held out by hold_out_factors"
            )
    held = _drawn(exam, items, seed)
    seen = {
        region: replace(goal, held_out=tuple(item for item in goal.items if item in held))
        for region, goal in exam.goals.items()
    }
    bare = [region for region, goal in seen.items() if not goal.held_out]
    if bare:
        raise ValueError(f"items: region {bare[0]} has no answers to any of them; hold out others, or more")
    rest = [item for item in exam.survey.item_ids if item not in held]
    exams = (
        replace(exam, name=f"{exam.name}, trained items", human=_of_items(exam.human, rest),
                targets={region: goal.without(held) for region, goal in exam.goals.items()}),
        replace(exam, name=f"{exam.name}, items held out", human=_of_items(exam.human, held), held_out="items",
                targets={region: goal.held_out_target for region, goal in seen.items()}),
    )  # fmt: skip
    return Split(Training(exam.survey, FrozenDict(seen), exam.orders), exams)


def hold_out_phrasings(exam: Exam, phrasings: Mapping[str, Sequence[str]] | None = None) -> Split:
    """Train on the items' own texts, examine on other wordings.

    phrasings : item → other wordings; None takes those of the survey. An item without any is asked in its own text.
    """
    others = {item.id: item.phrasings for item in exam.survey.items} if phrasings is None else dict(phrasings)
    own = {item.id: item.text.strip() for item in exam.survey.items}
    for item, texts in others.items():
        if item not in own:
            raise ValueError(f"phrasings: no item {item!r}; {nearest(str(item), own)}")
        if isinstance(texts, str):
            raise ValueError(f"phrasings: item {item!r}: expected a list of texts, got {texts!r}; put it in brackets")
        if own[item] in map(str.strip, texts):
            raise ValueError(f"phrasings: item {item!r}: its own text is among them, which is not held out; remove it")
    if not any(others.values()):
        raise ValueError(
            f"phrasings: survey {exam.survey.id!r} has no other wordings; give some, {{{exam.survey.item_ids[0]!r}: "
            '["..."]}'
        )
    seen = replace(exam.survey, items=tuple(replace(item, phrasings=()) for item in exam.survey.items))
    asked = tuple(
        replace(item, text=given[0], phrasings=tuple(given[1:])) if (given := others.get(item.id)) else item
        for item in seen.items
    )
    exams = (
        replace(exam, name=f"{exam.name}, trained wording", survey=seen),
        replace(exam, name=f"{exam.name}, other wordings", survey=replace(seen, items=asked), held_out="phrasings"),
    )
    return Split(Training(seen, FrozenDict(exam.goals), exam.orders), exams)


def hold_out_orders(exam: Exam) -> Split:
    """Train with the options listed forward, examine with them reversed."""
    exams = (
        replace(exam, name=f"{exam.name}, forward", orders="forward"),
        replace(exam, name=f"{exam.name}, reversed", orders="reversed", held_out="orders"),
    )
    return Split(Training(exam.survey, FrozenDict(exam.goals), "forward"), exams)


def hold_out_regions(exam: Exam, regions: Collection[str]) -> Split:
    """Train for some regions, examine on others, each among all.

    A held-out region has no condition of its own. It is examined under entries for every region (region=None), such as
    a prompt that was searched for all training regions together, and under what `borrowed` gives it: the conditions of
    its nearest training region.
    """
    named = [region_name(region) or region for region in _listed(regions, "regions")]
    held = _some(named, exam.regions, "regions", f"exam {exam.name!r}")
    rest = tuple(region for region in exam.regions if region not in held)
    seen = {region: goal for region, goal in exam.goals.items() if region not in held}
    exams = (
        replace(exam, name=f"{exam.name}, trained regions", scored=rest),
        replace(exam, name=f"{exam.name}, regions held out", scored=tuple(held), held_out="regions"),
    )
    return Split(Training(exam.survey, FrozenDict(seen), exam.orders), exams)


def hold_out_survey(exam: Exam, *others: Exam) -> Split:
    """Train on one survey, examine on others for the same regions: VSM 2013, then Inglehart-Welzel and WVS items.

    Raises
    ------
    ValueError
        Another exam asks an item of the same text, which is then not held out, or shares no region.
    """
    if not others:
        raise ValueError("others: expected one exam of another survey or more, got none")
    texts = {text.strip() for item in exam.survey.items for text in (item.text, *item.phrasings)}
    for other in others:
        same = [item.id for item in other.survey.items if {t.strip() for t in (item.text, *item.phrasings)} & texts]
        if same:
            raise ValueError(
                f"exam {other.name!r} asks {listed(same, 5)}, as exam {exam.name!r} does: these are not held out; "
                "leave them out of one of the two"
            )
        if not set(other.regions) & set(exam.regions):
            raise ValueError(f"exam {other.name!r} has no region in common with exam {exam.name!r}; give it some")
    held = tuple(replace(other, held_out="survey") for other in others)
    return Split(Training(exam.survey, FrozenDict(exam.goals), exam.orders), (exam, *held))


# -- conditions for regions that have none


def nearest_regions(split: Split) -> dict[str, str]:
    """Held-out region → the training region whose humans are nearest to its own.

    By Jensen-Shannon divergence of option shares over the items that all have; without human answers, by the loss of
    the training region's published scores. That uses what is known of the held-out region: it says how far a borrowed
    prompt can go, not how to choose one for a region of which nothing is known.
    """
    exam = split.exams[-1]
    trained, held = list(split.training.targets), [r for r in exam.regions if r not in split.training.targets]
    if exam.human is not None:
        bits = js_divergence(exam.human.shares[:, None], exam.human.shares[None])
        common = ~np.isnan(bits).any(axis=(0, 1))
        if not common.any():
            raise ValueError(
                f"exam {exam.name!r}: no item has human answers of all regions, so that none is nearest; leave regions "
                "out, or give `borrowed` a mapping of your own"
            )
        far = bits[..., common].mean(axis=-1)
        row = {region: exam.human.row(region) for region in exam.regions}
        return {one: min(trained, key=lambda other: far[row[one], row[other]]) for one in held}
    goals = {region: _scores(exam, goal) for region, goal in exam.goals.items()}

    def loss(one: str, other: str) -> float:
        return float(goals[one].loss(goals[one].errors(goals[other].target.scores[None]))[0])

    return {one: min(trained, key=lambda other: loss(one, other)) for one in held}


def borrowed(entries: Iterable[Entry], nearest: Mapping[str, str]) -> list[Entry]:
    """The conditions of other regions as entries for regions without any, held-out region → region that lends.

    They keep their method's name, seed and cost: give them to `compare_methods` beside the others.
    """
    lent = {region_name(to) or to: region_name(of) or of for to, of in nearest.items()}
    return [replace(entry, region=to) for to, of in lent.items() for entry in entries if entry.region == of]


# -- checks


def _scores(exam: Exam, goal: Any) -> ScoresTarget:
    if not isinstance(goal, ScoresTarget):
        raise ValueError(f"exam {exam.name!r}: expected published scores, got {type(goal).__name__}; give it human=")
    return goal


def _ones(goal: ScoresTarget) -> Sequence[float]:
    return goal.weights if goal.weights is not None else [1.0] * len(goal.terms)


def _listed(given: Any, what: str) -> Collection[str]:
    if isinstance(given, str) or not isinstance(given, Collection):
        raise ValueError(f"{what}: expected a list of those to hold out, got {shown(given)}")
    return given


def _some(given: Any, known: Collection[str], what: str, where: str) -> list[str]:
    """Those to hold out, in order, checked: known, and neither none nor all."""
    chosen = _listed(given, what)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"{what}: {where} has no {unknown[0]!r}; {nearest(str(unknown[0]), known)}")
    if not 0 < len(set(chosen)) < len(known):
        raise ValueError(
            f"{what}: expected some of {listed(known)} to hold out, and some to train on, got {listed(chosen)}"
        )
    return [name for name in known if name in chosen]


def _drawn(exam: Exam, items: Any, seed: int) -> list[str]:
    """Ids of the items to hold out."""
    known = exam.survey.item_ids
    if items is None:
        found = {item for goal in exam.goals.values() for item in goal.held_out}
        if not found:
            raise ValueError(
                f"items: the targets of exam {exam.name!r} hold none out; give a share, such as 0.2, or ids"
            )
        return _some(found, known, "items", f"survey {exam.survey.id!r}")
    share = plain_number(items)
    if share is not None:
        if not 0 < share < 1:
            raise ValueError(f"items: expected a share of the items between 0 and 1, or ids, got {items!r}")
        count = max(1, round(share * len(known)))
        items = [known[i] for i in np.random.default_rng(seed).permutation(len(known))[:count].tolist()]
    return _some(items, known, "items", f"survey {exam.survey.id!r}")


def _of_items(human: HumanAnswers | None, items: Collection[str]) -> HumanAnswers | None:
    if human is None:
        return None
    some = [item for item in human.survey.item_ids if item in items]
    return human.select(some) if some else None
