"""Answer sheets as numbers: accuracy, paired differences, tests, and what answerers who know nothing reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from softde.abilities.asking import Sheet
from softde.abilities.quiz import Flags, Quiz
from softde.abilities.statistics import Estimate, mcnemar, mean_interval, share_interval, wilson
from softde.surveys.metrics import holm


@dataclass(frozen=True)
class Row:
    """One condition's outcome on one quiz.

    accuracy : share of questions that are right, with Wilson's interval. difference : from the first condition, on the
    same questions, with a bootstrap interval over questions. better, worse : questions that are right here and wrong
    there, and the other way round. p : McNemar's exact test of these two; p_holm, for all tests of the table.
    judgement_accuracy : share of items that are right where a question has several, questions drawn whole.
    probability : of the right option, mean over items. invalid : share of items without a valid answer, counted wrong.
    not_asked : questions that were left out since a condition has no room for them.
    """

    quiz: str
    condition: str
    questions: int
    accuracy: Estimate
    difference: Estimate
    better: int
    worse: int
    p: float
    p_holm: float
    judgements: int
    judgement_accuracy: Estimate
    probability: float
    invalid: float
    option_mass: float
    not_asked: int
    forward_tokens: int


def compared(sheets: Sequence[Sheet], names: Sequence[str], confidence: float = 0.95, seed: int = 0) -> list[Row]:
    """One quiz's row per condition, all over the questions that every condition was asked; p is not adjusted yet.

    Raises
    ------
    ValueError
        There are no such questions.
    """
    quiz, counted = sheets[0].quiz, asked_questions(sheets)
    if not counted.any():
        why = [reason for sheet in sheets for reason in sheet.not_asked.values()]
        raise ValueError(f"quiz {quiz.name!r}: no question of it can be asked under every condition; {why[0]}")
    first = quiz.all_of(sheets[0].right)[counted]
    rows = []
    for sheet, name in zip(sheets, names, strict=True):
        right = quiz.all_of(sheet.right)[counted]
        change = right.astype(np.float64) - first
        better, worse = int((change > 0).sum()), int((change < 0).sum())
        same = sheet is sheets[0]
        rows.append(
            Row(
                quiz=quiz.name,
                condition=name,
                questions=len(right),
                accuracy=wilson(int(right.sum()), len(right), confidence),
                difference=Estimate() if same else mean_interval(change, confidence, seed),
                better=better,
                worse=worse,
                p=math.nan if same else mcnemar(better, worse),
                p_holm=math.nan,
                **_of_items(sheet, counted, confidence, seed),
                not_asked=len(quiz.questions) - len(right),
                forward_tokens=sheet.forward_tokens,
            )
        )
    return rows


def _of_items(sheet: Sheet, counted: Flags, confidence: float, seed: int) -> dict[str, Any]:
    """What a row says of the items of the counted questions (questions,)."""
    quiz, items = sheet.quiz, counted[sheet.quiz.question_of]
    trials = quiz.counts(items)[counted]
    hits = quiz.counts(sheet.right & items)[counted]
    probability = sheet.right_probability[items]
    valid = ~np.isnan(probability)
    return {
        "judgements": int(trials.sum()),
        "judgement_accuracy": share_interval(hits, trials, confidence, seed) if quiz.judged else Estimate(),
        "probability": float(probability[valid].mean()) if valid.any() else math.nan,
        "invalid": float(1 - valid.mean()),
        "option_mass": float(sheet.option_mass[items].mean()),
    }


def adjusted(rows: Sequence[Row]) -> list[Row]:
    """The rows with every p adjusted for the number of tests (Holm)."""
    return [replace(row, p_holm=p) for row, p in zip(rows, holm([row.p for row in rows]), strict=True)]


def asked_questions(sheets: Sequence[Sheet]) -> Flags:
    """(questions,): was every item of it asked under every condition?"""
    return np.asarray(np.all([sheet.quiz.all_of(sheet.asked) for sheet in sheets], axis=0))


def null_answerers(quiz: Quiz, counted: Flags) -> dict[str, tuple[float, float]]:
    """Accuracy over the counted questions (questions,), and over their items, of answerers who know nothing.

    chance: all options alike. best single option: the same number throughout, the one with which most questions are
    right, or most items where no number makes a question right.
    """
    items = counted[quiz.question_of]
    sizes = np.array([len(item.options) for item in quiz.survey.items])
    constant = [
        (float(quiz.all_of(quiz.right == k)[counted].mean()), float((quiz.right == k)[items].mean()))
        for k in range(int(sizes.max()))
    ]
    chance = float(quiz.chance()[counted].mean()), float((1 / sizes)[items].mean())
    return {"chance": chance, "best single option": max(constant)}
