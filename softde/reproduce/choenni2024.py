"""Choenni and Shutova 2024, *Self-Alignment*: in-context learning from human answers (arXiv 2408.16482)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from softde.abilities import Quiz
from softde.baselines.combined import combined
from softde.baselines.cross_culture import region_similarity
from softde.baselines.persona import persona
from softde.baselines.self_alignment import self_alignment
from softde.baselines.wording import spoken
from softde.compare import Entry, Exam
from softde.condition import UNPROMPTED, Condition
from softde.reproduce import probes
from softde.reproduce.parts import (
    LLAMA,
    Model,
    PathLike,
    People,
    check_orders,
    folder_of,
    loaded,
    numbers,
    people,
    quizzes_of,
    regions_of,
    shares_digest,
)
from softde.reproduce.study import Study, written
from softde.surveys import Survey, load_survey
from softde.surveys.checks import unique
from softde.surveys.human import HumanAnswers
from softde.surveys.item_targets import Distance, SharesTarget

GROWING = frozenset({"regions", "k", "quizzes", "translations"})


def choenni2024(
    lm: Model = LLAMA,
    out: PathLike = "runs/choenni2024",
    *,
    human: People | None = None,
    survey: Survey | str | None = None,
    translations: Sequence[Survey | str] = (),
    regions: Sequence[str] | None = None,
    k: Sequence[int] = (1, 3, 5, 10),
    ablated: int = 5,
    distance: Distance = "js",
    orders: str = "both",
    quizzes: Sequence[Quiz] = (),
) -> Study:
    """In-context learning from a region's human answers, against its option shares and majority answers.

    Conditions: unprompted, persona (P1), k worked examples of the same region (P3), of the region least like it,
    reversed, and persona with examples (P1+P3). Everything is checked before the model is loaded.

    Parameters
    ----------
    lm : a model, the name or folder of one, or a function that loads one. out : the study's folder.
    human : answers of people to the items that are asked, such as CultureSPA's folder of World Values Survey items.
    survey : the items, where the human answers' file has no texts. translations : the same items, by id, in other
        languages; each is an exam of its own, with the texts of its language.
    regions : all of the human answers' by default. k : numbers of examples. ablated : that of the other conditions.
    distance : of the loss, see `SharesTarget`. quizzes : see `masoud2025`.

    Raises
    ------
    ValueError
        No human answers, or none of a region; fewer than k other items with answers and texts; a translation with
        other items; a folder of another design; or a model that cannot be loaded.
    """
    own = load_survey(survey) if isinstance(survey, str) else survey
    given = people(human, own, "this design compares with answers of people to survey items")
    main = own or given.survey
    asked = [main, *(_translated(other, main) for other in translations)]
    unique((one.id for one in asked), "survey id in translations:")
    counts = numbers(k, "k", 1)
    names, quizzes = regions_of(given, regions), quizzes_of(quizzes)
    check_orders(orders)
    exams = tuple(_exam(one, given, names, distance, orders) for one in asked)
    entries = [Entry(UNPROMPTED, Condition())]
    for exam in exams:
        entries += _entries(exam, given, names, counts, ablated, exam.survey.id if translations else None)
    settings = {
        "design": "choenni2024", "human": shares_digest(given), "survey": main.digest, "regions": list(names),
        "translations": [one.id for one in asked[1:]], "k": list(counts), "ablated": ablated, "distance": distance,
        "orders": orders, "quizzes": [quiz.name for quiz in quizzes],
    }  # fmt: skip
    folder = folder_of(out, settings, GROWING)
    lm = loaded(lm)
    return Study(
        "choenni2024", lm, folder, settings, tuple(map(written, entries)), exams, probes.asking(lm, main, orders),
        SHARED, OURS, quizzes, (), GROWING,
    )  # fmt: skip


def least_similar(human: HumanAnswers, region: str) -> str:
    """The region whose majority answers are least like a region's.

    Raises
    ------
    ValueError
        No other region has answers to the same items.
    """
    row = human.row(region)
    likeness = region_similarity(human)[row]
    likeness[row] = np.nan
    if np.isnan(likeness).all():
        raise ValueError(f"human: no other region has answers to the items of {region}; give answers of two or more")
    return human.regions[int(np.nanargmin(likeness))]


def _translated(given: Survey | str, main: Survey) -> Survey:
    """The same items in another language, under an id of their own."""
    survey = load_survey(given) if isinstance(given, str) else given
    strange = [item for item in survey.item_ids if item not in main.item_ids]
    if strange:
        raise ValueError(
            f"translations: survey {survey.id!r} has item {strange[0]!r}, which {main.id!r} has not; give the same "
            "items by the same ids in another language"
        )
    return replace(survey, id=f"{survey.id}:{survey.language}") if survey.id == main.id else survey


def _exam(survey: Survey, human: HumanAnswers, regions: Sequence[str], distance: Distance, orders: str) -> Exam:
    here = human.select([item for item in human.survey.item_ids if item in survey.item_ids])
    targets = {region: SharesTarget.of(here, region, distance) for region in regions}
    return Exam(survey.id, survey, targets, orders, human=here)


def _entries(
    exam: Exam, human: HumanAnswers, regions: Sequence[str], counts: Sequence[int], ablated: int, of: str | None
) -> Iterator[Entry]:
    """Every method for every region, in an exam's language; `of` names the exam's survey where there are several."""
    survey, language = exam.survey, exam.survey.language
    for region in regions:
        told = persona(spoken(region) if language == "en" else region, language=language)
        shown = {
            n: self_alignment(region, survey, human, n, language=language) for n in dict.fromkeys((*counts, ablated))
        }
        other = least_similar(human, region)
        wrong = self_alignment(region, survey, human, ablated, from_region=other, language=language)
        conditions = {
            "P1: persona": told,
            **{f"P3: k = {count}": shown[count] for count in counts},
            f"P3: k = {ablated}, other region": wrong,
            f"P3: k = {ablated}, reversed": self_alignment(
                region, survey, human, ablated, reverse=True, language=language
            ),
            f"P1 + P3: k = {ablated}": combined(told, shown[ablated]),
        }
        yield from (Entry(method, condition, region, survey=of) for method, condition in conditions.items())


SHARED = (
    "a frozen model that is shown how people of the same region answered other survey items, a persona, examples of "
    "other regions, and items in other languages where they are given."
)
OURS = (
    "as CultureSPA re-implements it, since the paper's items, numbers of examples and tables were not found: k items "
    "nearest by chrF++ with the region's majority answers, never the asked item's own; option probabilities instead of "
    "written answers; reversed answers are an ablation of CultureSPA's. SPA is CultureSPA's score."
)
