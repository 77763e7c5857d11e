"""An exam as one model is asked it: which items, on which sheets, scored how and for which regions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softde.align.beside import shown, unasked
from softde.compare.entries import Entry, Exam, scored_regions
from softde.compare.one import most_tokens
from softde.compare.sheets import Questions, Sheet, questions
from softde.lm import LM
from softde.surveys import Survey
from softde.surveys.human import HumanAnswers
from softde.surveys.scoring import Array
from softde.surveys.targets import ScoresTarget, SumTarget, needs_factors, only_items

_log = logging.getLogger("softde")


@dataclass(frozen=True, eq=False)
class Paper:
    """An exam without the items that nobody scores or that the model cannot be asked.

    goals : region → target. human : humans' answers to items that are asked. regions : those that are scored, of all in
    goals.
    """

    exam: Exam
    survey: Survey
    goals: Mapping[str, Any]
    human: HumanAnswers | None
    regions: tuple[str, ...]

    @cached_property
    def sheets(self) -> tuple[Questions, ...]:
        """What is asked."""
        return tuple(questions(self.survey, self.exam.orders))

    @cached_property
    def wordings(self) -> NDArray[np.int64]:
        """(items,) how many wordings each item has beside its own text."""
        return np.array([len(item.phrasings) for item in self.survey.items])

    @cached_property
    def human_places(self) -> list[int]:
        """The places of the humans' items among those that are asked."""
        place = {item: i for i, item in enumerate(self.survey.item_ids)}
        return [] if self.human is None else [place[item] for item in self.human.survey.item_ids]

    @cached_property
    def published(self) -> Array | None:
        """(regions in goals, factors) published scores; None if the targets are others."""
        if not all(isinstance(goal, ScoresTarget) for goal in self.goals.values()):
            return None
        return np.stack([goal.target.scores for goal in self.goals.values()])

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """(factors,) which factors of published scores have a weight."""
        goal = next(iter(self.goals.values()))
        return np.ones(len(goal.terms), dtype=bool) if goal.weights is None else np.array(goal.weights) > 0

    @cached_property
    def comparable(self) -> dict[str, Any]:
        """Region → its target over the items that all regions' targets use, so that losses can be ranked; or {}."""
        used = np.stack([goal.uses(self.survey).any(axis=0) for goal in self.goals.values()])
        if not used.all(axis=0).any():
            return {}
        some = [item for item, column in zip(self.survey.item_ids, used.T, strict=True) if not column.all()]
        return {region: goal.without(some) if some else goal for region, goal in self.goals.items()}

    def pooled(self, sheets: Iterable[Sheet], order: str | None = None, wording: int | None = None) -> Array:
        """(items, options) mean over sheets, or those of one order or wording; NaN for items on none of them."""
        total, count = np.zeros(self.survey.option_values.shape), np.zeros((len(self.survey.items), 1))
        for asked, sheet in zip(self.sheets, sheets, strict=True):
            if order in (None, asked.order) and wording in (None, asked.wording):
                total[list(asked.places), : sheet.probabilities.shape[1]] += sheet.probabilities
                count[list(asked.places)] += 1
        return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)

    def option_mass(self, sheets: Iterable[Sheet]) -> float:
        """Mean over all questions."""
        return float(np.concatenate([sheet.option_mass for sheet in sheets]).mean())


def paper_of(lm: LM, exam: Exam, entries: Iterable[Entry]) -> Paper:
    """What of an exam is asked: items that a target uses, held out or not, or that humans answered.

    Raises
    ------
    ValueError
        The model cannot be asked an item that a factor needs, or none at all.
    """
    entries = tuple(entries)
    goals = [*exam.goals.values(), *(g.held_out_target for g in exam.goals.values() if g.held_out_target is not None)]
    used: Any = np.concatenate([goal.uses(exam.survey) for goal in goals]).any(axis=0)
    people = () if exam.human is None else exam.human.survey.item_ids
    asked = [item for item, there in zip(exam.survey.item_ids, used, strict=True) if there or item in people]
    needed = _needed(exam)
    some = only_items(exam.survey, [item for item in asked if item not in needed]) if set(asked) - needed else None
    left: dict[str, str] = {}
    if some is not None:
        left = unasked(lm, some, exam.orders, "late", most_tokens(entry.condition for entry in entries))
    if left:
        _log.warning(
            "exam %s: %s of %s items are left out, which this model cannot be asked: %s; the first because %s",
            exam.name, len(left), len(asked), shown(list(left)), next(iter(left.values())),
        )  # fmt: skip
    kept = [item for item in asked if item not in left]
    if not kept:
        raise ValueError(f"exam {exam.name!r}: none of its items can be asked: {next(iter(left.values()))}")
    survey = only_items(exam.survey, kept)
    if any(map(needs_factors, goals)) and not survey.factors:
        survey = exam.survey
    return Paper(
        exam,
        survey,
        {region: goal.without(left) if left else goal for region, goal in exam.goals.items()},
        _human(exam, survey),
        scored_regions(exam, entries),
    )


def _needed(exam: Exam) -> set[str]:
    """Items that a factor cannot do without."""
    found: set[str] = set()
    for goal in exam.goals.values():
        for part in [part for _, part in goal.parts] if isinstance(goal, SumTarget) else [goal]:
            if isinstance(part, ScoresTarget):
                uses = np.asarray(part.uses(exam.survey).any(axis=0))
                found |= {item for item, used in zip(exam.survey.item_ids, uses, strict=True) if used}
    return found


def _human(exam: Exam, survey: Survey) -> HumanAnswers | None:
    if exam.human is None:
        return None
    items = [item for item in exam.human.survey.item_ids if item in survey.item_ids]
    return exam.human.select(items) if items else None
