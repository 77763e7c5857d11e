"""What is compared, and on what: a method's condition for a region and seed, and a survey as it is asked and scored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from softde.align.beside import checked_target
from softde.checks import check_kinds, plain_number, shown, whole
from softde.condition import Condition, Panel, as_condition, members
from softde.lm.layout import ORDERS
from softde.surveys import Survey, Target
from softde.surveys.checks import naming, need_text, unique
from softde.surveys.human import HumanAnswers
from softde.surveys.regions import region_name
from softde.surveys.scoring import Norm
from softde.surveys.targets import TargetLike, as_target_like
from softde.surveys.values import FrozenDict, listed, nearest

HELD_OUT = ("", "factors", "items", "phrasings", "orders", "regions", "survey")


@dataclass(frozen=True, eq=False)
class Entry:
    """One method's condition for one region and seed.

    condition : also a soft prompt or a `Result`, which stand for theirs. region : None is the same condition for every
    region, such as the unprompted model. forward_tokens, seconds : spent on finding the condition, 0 for one that was
    written down; a backward pass counts as two forwards. survey : id of the survey that the condition was made for, as
    one with worked examples is; None is for any.
    """

    method: str
    condition: Condition | Panel
    region: str | None = None
    seed: int = 0
    forward_tokens: float = 0.0
    seconds: float = 0.0
    survey: str | None = None

    def __post_init__(self) -> None:
        need_text(self.method, "method")
        with naming(f"entry {self.method!r}"):
            object.__setattr__(self, "condition", as_condition(self.condition))
            object.__setattr__(self, "seed", whole(self.seed, "seed", 0))
            if self.region is not None:
                need_text(self.region, "region")
                object.__setattr__(self, "region", region_name(self.region) or self.region)
            for name in ("forward_tokens", "seconds"):
                value = plain_number(getattr(self, name))
                if value is None or not value >= 0:
                    raise ValueError(f"{name}: expected a number from 0 up, got {shown(getattr(self, name))}")
                object.__setattr__(self, name, float(value))

    @classmethod
    def of(cls, method: str, found: Any, region: str | None = None, seed: int | None = None) -> Entry:
        """What a search or a training found (``align``'s `Result`, a `Trained`), with what it cost.

        seed : default is that of the search.
        """
        seconds = getattr(found, "seconds", None)
        return cls(
            method, found.condition, region, getattr(found, "seed", 0) if seed is None else seed,
            found.forward_tokens, found.wall_seconds if seconds is None else seconds,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.method}, {self.region or 'every region'}, seed {self.seed}"

    def is_for(self, exam: Exam, regions: Collection[str]) -> bool:
        """Is it asked in an exam that scores these regions?"""
        return self.survey in (None, exam.survey.id) and (self.region is None or self.region in regions)


@dataclass(frozen=True, eq=False)
class Exam:
    """One survey as it is asked and scored. Several exams are several surveys, or trained and held-out parts of one.

    targets : region, by any of its names, → published scores, or another of `softde.surveys.targets`, all of one kind.
        Those that are not scored are there to be mistaken for.
    orders : "both", "forward" or "reversed" listing of the options. norm, weights : the loss of published scores.
    human : human answers to items of the survey, for CultureSPA's score, identification and divergence preserved; of
        every region in targets, and of more if others are to be told apart from.
    held_out : what the methods did not see: "" nothing, "factors", "items", "phrasings", "orders", "regions", "survey".
    scored : regions that are scored; None takes those that an entry is for, and all if every entry is for every region.

    Raises
    ------
    ValueError
        A target of another survey or region, targets of different losses, human answers of another survey or without
        one of the regions.
    """

    name: str
    survey: Survey
    targets: Mapping[str, Target | TargetLike]
    orders: str = "both"
    norm: Norm = "L1"
    weights: float | Mapping[str, float] | Sequence[float] | None = None
    human: HumanAnswers | None = field(default=None, repr=False)
    held_out: str = ""
    scored: Sequence[str] | None = None

    def __post_init__(self) -> None:
        need_text(self.name, "exam: name")
        with naming(f"exam {self.name!r}"):
            check_kinds({"survey": (self.survey, Survey)})
            self.survey.need_texts()
            for name, value, known in (("orders", self.orders, ORDERS), ("held_out", self.held_out, HELD_OUT)):
                if value not in known:
                    raise ValueError(f"{name}: expected one of {', '.join(map(repr, known))}, got {value!r}")
            given: Any = self.targets
            if not isinstance(given, Mapping) or not given:
                raise ValueError(
                    f"targets: expected region → target, one or more, got {shown(given) if given else 'none'}; "
                    '{"India": survey.target("India")} is one'
                )
            names = [region_name(region) or region for region in given]
            unique(names, "region in targets:")
            object.__setattr__(self, "targets", FrozenDict(zip(names, given.values(), strict=True)))
            if self.scored is not None:
                chosen: Any = self.scored
                if isinstance(chosen, str) or not chosen:
                    raise ValueError(f"scored: expected a list of one region or more, got {shown(chosen)}")
                object.__setattr__(self, "scored", tuple(region_name(region) or region for region in chosen))
                unique(self.scored, "region in scored:")
                for region in self.scored:
                    if region not in names:
                        raise ValueError(f"scored: no target for region {region!r}; {nearest(region, names)}")
            labels = {goal.label() for goal in self.goals.values()}
            if len(labels) > 1:
                raise ValueError(f"targets: expected one loss for all regions, got {listed(sorted(labels))}")
            if self.human is not None:
                check_human(self.survey, self.human, self.targets)

    @property
    def regions(self) -> tuple[str, ...]:
        """Those with a target."""
        return tuple(self.targets)

    @cached_property
    def goals(self) -> dict[str, Any]:
        """Region → its target with its loss, each checked against the survey."""
        goals: dict[str, Any] = {}
        for region, target in self.targets.items():
            with naming(f"region {region!r}"):
                check_kinds(checked_target(target))
                goal = as_target_like(target, self.norm, self.weights)
                goal.check(self.survey)
                if region != (region_name(goal.region) or goal.region):
                    raise ValueError(f"its target is of {goal.region!r}; give each region its own")
            goals[region] = goal
        return goals


def check_human(survey: Survey, human: HumanAnswers, regions: Iterable[str]) -> None:
    """Refuse human answers of another survey, or without a region; options are told apart by their place alone."""
    known = {item.id: [option.value for option in item.options] for item in survey.items}
    asked = [item for item in human.survey.items if item.id in known]
    if not asked:
        raise ValueError(
            f"human: answers of another survey: none of their items ({listed(human.survey.item_ids, 3)}) is in survey "
            f"{survey.id!r} ({listed(known, 3)}); load them with load_human(path, survey)"
        )
    for item in asked:
        values = [option.value for option in item.options]
        if values != known[item.id]:
            raise ValueError(
                f"human: item {item.id!r} has options of the values {_numbers(values)} in the human answers and "
                f"{_numbers(known[item.id])} in survey {survey.id!r}; load them with load_human(path, survey)"
            )
    for region in regions:
        row = human.row(region)  # refuses a region that is not there
        if not any(item.id in known and there for item, there in _answered(human, row)):
            raise ValueError(f"human: no item of survey {survey.id!r} has answers from {region}; leave the region out")


def _numbers(values: Iterable[float]) -> str:
    return listed([f"{value:g}" for value in values])


def _answered(human: HumanAnswers, row: int) -> Iterable[tuple[Any, bool]]:
    return zip(human.survey.items, ~np.isnan(human.shares[row, :, 0]), strict=True)


def checked(exams: Exam | Sequence[Exam], entries: Iterable[Entry]) -> tuple[tuple[Exam, ...], tuple[Entry, ...]]:
    """Exams and entries that fit each other.

    Raises
    ------
    ValueError
        None of either, two exams of one name, two entries of one method, region and seed, an entry for a region or
        survey that no exam has, a method with and without regions, or an exam that no entry is for.
    """
    several: Any = (exams,) if isinstance(exams, Exam) else exams
    for what, given, kind in (("exams", several, Exam), ("entries", entries, Entry)):
        if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
            raise ValueError(f"{what}: expected a list of softde.compare.{kind.__name__}, got {shown(given)}")
    chosen, found = tuple(several), tuple(entries)
    for what, group, kind in (("exams", chosen, Exam), ("entries", found, Entry)):
        wrong = next((one for one in group if not isinstance(one, kind)), None)
        if wrong is not None or not group:
            got = "none" if not group else shown(wrong)
            raise ValueError(f"{what}: expected one softde.compare.{kind.__name__} or more, got {got}")
    unique((exam.name for exam in chosen), "exam")
    regions = list(dict.fromkeys(region for exam in chosen for region in exam.regions))
    surveys = list(dict.fromkeys(exam.survey.id for exam in chosen))
    for entry in found:
        for what, value, known in (("region", entry.region, regions), ("survey", entry.survey, surveys)):
            if value is not None and value not in known:
                raise ValueError(f"entry {entry.method!r}: no exam has {what} {value!r}; {nearest(value, known)}")
    for method in dict.fromkeys(entry.method for entry in found):
        if len({entry.region is None for entry in found if entry.method == method}) > 1:
            raise ValueError(
                f"method {method!r} has entries with a region and one for every region; give the latter another name"
            )
    for exam in chosen:
        scored = scored_regions(exam, found)
        mine = [entry for entry in found if entry.is_for(exam, scored)]
        if not mine:
            raise ValueError(
                f"exam {exam.name!r}: no entry is for one of its regions ({listed(scored, 5)}); leave it out, or add "
                "entries"
            )
        unique((one.name for one in mine), f"entry in exam {exam.name!r}:")
        for entry in mine:
            _check_examples(exam, entry)
    return chosen, found


def _check_examples(exam: Exam, entry: Entry) -> None:
    """Refuse worked examples for the items of another survey: they would not be shown."""
    for member in members(entry.condition):
        if member.examples is not None and not set(member.examples.by_item) & set(exam.survey.item_ids):
            raise ValueError(
                f"entry {entry.name}: its examples are for other items than those of exam {exam.name!r}; make one for "
                f"each survey, and give each its Entry(..., survey={exam.survey.id!r})"
            )


def scored_regions(exam: Exam, entries: Iterable[Entry]) -> tuple[str, ...]:
    """The exam's own choice, else its regions that some entry is for, else all."""
    if exam.scored is not None:
        return tuple(exam.scored)
    named = {entry.region for entry in entries}
    return tuple(region for region in exam.regions if region in named) or exam.regions
