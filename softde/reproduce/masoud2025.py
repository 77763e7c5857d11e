"""Masoud et al. 2025, *Cultural Alignment in Large Language Models Using Soft Prompt Tuning* (arXiv 2503.16094)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from softde.abilities import Quiz
from softde.baselines.self_alignment import self_alignment
from softde.checks import whole
from softde.compare import Entry, Exam
from softde.condition import UNPROMPTED, Condition
from softde.lm.template import check_placement
from softde.optim import DE
from softde.optim.base import check_budget
from softde.reproduce import probes
from softde.reproduce.parts import (
    LLAMA,
    Model,
    PathLike,
    People,
    Search,
    check_orders,
    folder_of,
    loaded,
    numbers,
    people,
    quizzes_of,
    shares_digest,
)
from softde.reproduce.study import Study, written
from softde.space import PromptSpace, check_tokens
from softde.surveys import Survey, Target, load_survey
from softde.surveys.checks import unique
from softde.surveys.human import HumanAnswers, Respondents
from softde.surveys.nearest_respondent import nearest_respondent

REGIONS = ("Saudi Arabia", "United States", "China", "India")
GROWING = frozenset({"regions", "seeds", "budget", "quizzes"})


def masoud2025(
    lm: Model = LLAMA,
    out: PathLike = "runs/masoud2025",
    *,
    regions: Sequence[str] = REGIONS,
    survey: Survey | str = "vsm13",
    edition: str | None = "2023",
    human: People | None = None,
    k: int = 5,
    budget: int = 6_400,
    population: int = 32,
    strategy: str = "rand1bin",
    F: float = 0.5,
    CR: float = 0.9,
    num_virtual_tokens: int = 8,
    placement: str = "late",
    seeds: Sequence[int] = (0, 1, 2),
    orders: str = "both",
    quizzes: Sequence[Quiz] = (),
) -> Study:
    """Unprompted ("naive"), in-context learning and differential evolution, against published scores in the L1 norm.

    Everything is checked before the model is loaded. docs/reproduce.md says what is known of the paper's own settings.

    Parameters
    ----------
    lm : a model, the name or folder of one, or a function that loads one. out : the study's folder.
    regions, survey, edition : whose published scores; edition None is the newest complete one of each.
    human : answers of the regions' people to the survey, for in-context learning. Without them its examples are the
        answers of the one respondent nearest to the region's published scores (`nearest_respondent`).
    k : examples before an item. budget : candidates of a search. population, strategy, F, CR : of DE.
    quizzes : such as ``load_quiz("CulturalBench-Easy.csv")``, asked unprompted and under every soft prompt.

    Raises
    ------
    ValueError
        An unknown region or edition, scores that are missing, settings that DE does not take, a region without human
        answers, a folder of another design; or a model that cannot be loaded.
    """
    asked = load_survey(survey) if isinstance(survey, str) else survey
    targets = [asked.target(region, edition) for region in regions]
    unique((target.region for target in targets), "region in regions:")
    optimizer = DE(population, strategy, F, CR)
    check_budget(optimizer, budget)
    check_tokens(num_virtual_tokens)
    check_placement(placement)
    seeds = numbers(seeds, "seeds", 0)
    quizzes = quizzes_of(quizzes)
    exam = Exam(asked.id, asked, {target.region: target for target in targets}, check_orders(orders))
    known = nearest_people(asked, targets) if human is None else people(human, asked, "")
    examples = [Entry("ICL", self_alignment(region, asked, known, whole(k, "k", 1)), region) for region in exam.regions]
    settings = {
        "design": "masoud2025", "regions": list(exam.regions), "survey": asked.digest, "edition": edition,
        "human": None if human is None else shares_digest(known), "k": k, "budget": budget,
        "optimizer": repr(optimizer), "num_virtual_tokens": num_virtual_tokens, "placement": placement,
        "seeds": list(seeds), "orders": orders, "quizzes": [quiz.name for quiz in quizzes],
    }  # fmt: skip
    folder = folder_of(out, settings, GROWING)

    lm = loaded(lm)
    how = Search(PromptSpace.random(lm, num_virtual_tokens, placement), optimizer, budget, orders)
    asking = probes.asking(lm, asked, orders)
    work = partial(how.work, lm, asked, asking, probes.searching(lm, asked, how.space, orders))
    searches = [
        how.step(lm, "DE", target.region, seed, folder, work, partial(_problem, asked, target))
        for target in targets
        for seed in seeds
    ]
    steps = (written(Entry(UNPROMPTED, Condition())), *map(written, examples), *searches)
    return Study(
        "masoud2025", lm, folder, settings, steps, (exam,), asking, SHARED, _ours(settings, optimizer), quizzes,
        NOTES, GROWING,
    )  # fmt: skip


def _problem(survey: Survey, target: Target) -> tuple[Survey, Target]:
    return survey, target


def nearest_people(survey: Survey, targets: Sequence[Target]) -> HumanAnswers:
    """One respondent per region, the nearest to its published scores, as if these were its human answers."""
    answers = np.stack([nearest_respondent(survey, target) for target in targets])
    regions = np.array([target.region for target in targets])
    return Respondents(survey, answers, regions, np.ones(len(targets))).shares("nearest respondents")


SHARED = (
    "a frozen model, soft prompt embeddings searched by differential evolution without gradients, the L1 distance of "
    "the six VSM 2013 factor scores from the published ones, Saudi Arabia, United States, China and India, the "
    "baselines naive (here: unprompted) and in-context learning."
)
NOTES = (
    "Hours of DE are at most: early rejection leaves out questions that cannot change a selection.",
    "Tokens include those before late soft tokens, which the table does not count, since they are computed once.",
)


def _ours(settings: Mapping[str, Any], optimizer: DE) -> str:
    """Of what the abstract and summaries do not say, what was taken here."""
    shown = f"{optimizer.strategy} of {optimizer.population_size} with F {optimizer.F} and CR {optimizer.CR}"
    given = (
        "answers of humans" if settings["human"] else "answers of the one respondent nearest to the published scores"
    )
    return (
        f"{settings['num_virtual_tokens']} virtual tokens, placement {settings['placement']}, {shown}, "
        f"{settings['budget']} candidates from random vocabulary rows; expected-value read-out, orders "
        f"{settings['orders']}, items in softde's own words, constants 50, edition {settings['edition'] or 'newest'}; "
        f"ICL: the {settings['k']} items nearest by chrF++ with {given}, never the asked item's own. The paper's "
        "result table is not known, so only the design is compared, not the digits."
    )
