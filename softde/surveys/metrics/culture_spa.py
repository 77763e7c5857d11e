"""CultureSPA's score: how near single answers are to a region's majority answers. And the same, corrected.

Xu et al., arXiv 2410.12971. With a the answers, g the region's majority answers and n the numbers of options, over the
items that have both:  score = 100 · (1 − ‖a − g‖₂ / ‖n − 1‖₂).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from softde.surveys.metrics.answers import Answer, AnswersLike, answer_sheet
from softde.surveys.scoring import Array
from softde.surveys.values import listed

if TYPE_CHECKING:
    from softde.surveys.human.answers import HumanAnswers
    from softde.surveys.survey import Item, Survey

Mask: TypeAlias = npt.NDArray[np.bool_]

HIGHEST = 10  # the highest number that CultureSPA accepts as an answer to any item


@dataclass(frozen=True)
class CultureSPAScore:
    """A score and what it rests on.

    score : percent; 100 is the majority answer throughout. items : how many were scored. invalid : items whose answer
    is none (no number, or out of range where that is checked); invalid_share : their share of the answered items with
    human answers. no_human : answered items that the region has no human answers to. not_answered : items of the survey
    that the sheet lacks. unknown : items that the survey lacks. left_out : rows of the sheet that were not usable.
    """

    score: float
    items: int
    invalid: tuple[str, ...]
    invalid_share: float
    no_human: tuple[str, ...]
    not_answered: tuple[str, ...]
    unknown: tuple[str, ...]
    left_out: tuple[str, ...]


def culture_spa_score(answers: AnswersLike, human_region: HumanAnswers) -> float:
    """CultureSPA's score in percent, as their code computes it: 100 at the top, no lower bound at zero.

    Parameters
    ----------
    answers : item id → text or number, records as in their result files, or an `AnswerSheet`. The answer in a text is
        its first whole number if that is 0 to 10, whatever the item's options; answers without one are dropped.
        Items whose values begin at 0 count from 0, others from 1; items valued otherwise (reversed, from -2) are
        answered by option value.
    human_region : human answers of exactly one region, such as ``human.select(regions=["BRA"])``.

    Raises
    ------
    ValueError
        Several regions, answers of another survey, or no item with both an answer and a human answer.
    """
    return culture_spa(answers, human_region).score


def culture_spa(answers: AnswersLike, human_region: HumanAnswers) -> CultureSPAScore:
    """`culture_spa_score` with what it rests on. Invalid answers are dropped, as CultureSPA drops them."""
    read = _read(answers, human_region.survey)
    gold = _gold_of_one(human_region)
    values = _theirs(_codes(read.numbers, human_region.survey))
    return _result(values - gold, span(human_region.survey), read, np.isnan(values), gold)


def culture_spa_corrected(
    answers: AnswersLike, human_region: HumanAnswers, *, labels: bool = False, equal_items: bool = False
) -> CultureSPAScore:
    """CultureSPA's score with its faults mended: 0 to 100.

    Differs from `culture_spa` in three points. An answer has to be one of the item's options; a number such as 5 for an
    item of four options is invalid, and so is a text that is a number of another kind, "-1" or "2.5". An invalid answer
    is not dropped: it counts as the option farthest from the majority answer, so that refusing cannot raise a score.
    Answers may be given as positions.

    Parameters
    ----------
    labels : the answers count from 1 for every item, as softde lists options, whatever the values. Without it, items
        whose values begin at 0 are answered from 0, as in CultureSPA's prompts, and items valued otherwise than from 0
        or 1 upwards by option value.
    equal_items : every item weighs the same. Without it, an item weighs as the square of its number of options less
        one: in CultureSPA's 259 items, those of ten and eleven options make 73 % of the denominator.
    """
    survey, size = human_region.survey, span(human_region.survey)
    read = _read(answers, survey, exact=True)
    gold = _gold_of_one(human_region) - first_codes(survey)
    values = in_range(read.numbers, survey, labels)
    errors = np.where(np.isnan(values), np.maximum(gold, size - gold), values - gold)
    errors = np.where(read.given, errors, np.nan)
    if equal_items:
        errors, size = errors / size, np.ones_like(size)
    return _result(errors, size, read, np.isnan(values), gold)


def culture_spa_by_region(answers: AnswersLike, human: HumanAnswers) -> Array:
    """`culture_spa_score` of one sheet against every region, as (regions,); NaN where a region shares no item."""
    errors = _theirs(_codes(_read(answers, human.survey).numbers, human.survey)) - gold_answers(human)
    size = np.where(np.isnan(errors), 0.0, span(human.survey))
    with np.errstate(invalid="ignore"):
        return np.asarray(100 * (1 - np.sqrt(np.nansum(errors**2, axis=-1) / (size**2).sum(axis=-1))))


def number_in(answer: Answer) -> float:
    """The first run of digits in a text as a number, or a number as it is; NaN for none."""
    if isinstance(answer, str):
        found = re.search(r"\d+", answer)
        return float(found.group()) if found else math.nan
    return math.nan if answer is None else float(answer)


def exact_number_in(answer: Answer) -> float:
    """The same, but a text that is a number as a whole is that number: "-1" is -1 and not 1."""
    whole = isinstance(answer, str) and re.fullmatch(r"\s*[-+]?\d+(?:\.\d*)?\s*", answer)
    return float(answer) if whole else number_in(answer)  # type: ignore[arg-type]


def read_positions(answers: AnswersLike, survey: Survey, labels: bool = False) -> Array:
    """(items,) positions from 0 of the options that a sheet names, NaN for none, read as in `culture_spa_corrected`."""
    return in_range(_read(answers, survey, exact=True).numbers, survey, labels)


def in_range(numbers: Array, survey: Survey, labels: bool) -> Array:
    """Answers as numbers → positions from 0; NaN where an item has no such option."""
    positions = numbers - 1.0 if labels else _codes(numbers, survey) - first_codes(survey)
    there = (positions >= 0) & (positions <= span(survey)) & (positions % 1 == 0)
    return np.asarray(np.where(there, positions, np.nan))


def first_codes(survey: Survey) -> Array:
    """(items,) the number of each item's first option: 0 where values are 0, 1, 2, …, else 1."""
    return np.array([0.0 if _from(0, item) else 1.0 for item in survey.items])


def span(survey: Survey) -> Array:
    """(items,) numbers of options less one: the largest error an answer can make."""
    return np.array([len(item.options) - 1.0 for item in survey.items])


def gold_answers(human: HumanAnswers) -> Array:
    """(regions, items) majority answers as numbers that begin at `first_codes`; NaN where a region has none."""
    majority = np.asarray(human.majority)
    return np.asarray(np.where(majority < 0, np.nan, majority + first_codes(human.survey)))


@dataclass(frozen=True)
class _Read:
    """A sheet in a survey's order: numbers (NaN for none), which items it has, and what is beside it."""

    numbers: Array
    given: Mask
    items: tuple[str, ...]
    unknown: tuple[str, ...]
    left_out: tuple[str, ...]

    def ids(self, mask: Mask) -> tuple[str, ...]:
        return tuple(item for item, there in zip(self.items, mask, strict=True) if there)


def _read(answers: AnswersLike, survey: Survey, exact: bool = False) -> _Read:
    sheet, items = answer_sheet(answers), survey.item_ids
    known = set(items)
    unknown = tuple(item for item in sheet if item not in known)
    if len(unknown) == len(sheet):
        raise ValueError(
            f"answers of another survey: none of their items ({listed(unknown, 3)}) is in survey {survey.id!r} "
            f"({listed(items, 3)}); give the survey that was asked"
        )
    numbers = np.array(
        [(exact_number_in if exact or not _in_turn(item) else number_in)(sheet.get(item.id)) for item in survey.items]
    )
    return _Read(numbers, np.array([item in sheet for item in items]), items, unknown, sheet.left_out)


def _codes(numbers: Array, survey: Survey) -> Array:
    """Option values of items valued otherwise than 0, 1, … or 1, 2, … as positions from 1; other numbers stay."""
    found = numbers.copy()
    for i, item in enumerate(survey.items):
        if not _in_turn(item):
            values = [option.value for option in item.options]
            found[i] = values.index(numbers[i]) + 1 if numbers[i] in values else np.nan
    return found


def _theirs(numbers: Array) -> Array:
    """0 to 10 whatever the item."""
    return np.asarray(np.where((numbers >= 0) & (numbers <= HIGHEST), numbers, np.nan))


def _result(errors: Array, size: Array, read: _Read, invalid: Mask, gold: Array) -> CultureSPAScore:
    used, human, invalid = ~np.isnan(errors), ~np.isnan(gold), read.given & invalid
    if not used.any():
        raise ValueError(
            f"no item has both a valid answer and a human answer of the region: {int(read.given.sum())} answered, "
            f"{int(invalid.sum())} of them invalid, {int((read.given & ~human).sum())} without human answers; check "
            "the answers and the region"
        )
    return CultureSPAScore(
        score=100 * (1 - float(np.linalg.norm(errors[used]) / np.linalg.norm(size[used]))),
        items=int(used.sum()),
        invalid=read.ids(invalid),
        invalid_share=float((invalid & human).sum() / (read.given & human).sum()),
        no_human=read.ids(read.given & ~human),
        not_answered=read.ids(~read.given),
        unknown=read.unknown,
        left_out=read.left_out,
    )


def _gold_of_one(human: HumanAnswers) -> Array:
    if len(human.regions) != 1:
        example = f"; take one with human.select(regions=[{human.regions[0]!r}])" if len(human.regions) else ""
        raise ValueError(
            f"human_region: expected the human answers of one region, got {len(human.regions)} regions{example}"
        )
    gold = gold_answers(human)[0]
    if np.isnan(gold).all():
        raise ValueError(f"region {human.regions[0]!r} has no human answers to any item; choose another region")
    return np.asarray(gold)


def _from(first: int, item: Item) -> bool:
    return all(option.value == number for number, option in enumerate(item.options, start=first))


def _in_turn(item: Item) -> bool:
    """Valued 0, 1, 2, … or 1, 2, 3, …?"""
    return _from(0, item) or _from(1, item)
