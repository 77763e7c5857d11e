"""Methods of bench_methods that are written down: personas, descriptions, worked examples, panels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from methods_exams import tiny_text

from softde.baselines import (
    combined,
    cross_culture,
    description,
    persona,
    personas_around,
    self_alignment,
    sequential,
)
from softde.compare import Entry
from softde.condition import UNPROMPTED, Condition, Panel, members
from softde.lm import LM
from softde.surveys import Survey
from softde.surveys.human import HumanAnswers

SEQUENTIAL = "sequential"
SPREAD, PEOPLE = 20.0, 10  # of value personas around the published scores, in index points; how many

Told: TypeAlias = Callable[[str, int], Condition | Panel]  # region, seed


def fixed(survey: Survey, human: HumanAnswers) -> dict[str, Told]:
    """Methods without a seed."""
    return {
        "persona": lambda region, _: persona(region),
        "cross-culture": lambda region, _: cross_culture(region, human),
        "description": lambda region, _: description(region, survey.target(region), survey),
        "self-alignment": lambda region, _: self_alignment(region, survey, human),
        "self-alignment, reversed": lambda region, _: self_alignment(region, survey, human, reverse=True),
        "persona + self-alignment": lambda region, _: combined(persona(region), self_alignment(region, survey, human)),
        "cross-culture + self-alignment": lambda region, _: combined(
            cross_culture(region, human), self_alignment(region, survey, human)
        ),
    }


def seeded(survey: Survey) -> dict[str, Told]:
    """Methods that draw something."""
    return {
        "description, tiny's words": lambda region, seed: in_tinys_words(survey, region, seed),
        "value personas": lambda region, seed: personas_around(
            region, survey.target(region), survey, SPREAD, PEOPLE, seed
        ),
    }


def in_tinys_words(survey: Survey, region: str, seed: int) -> Condition:
    """The published scores in a sentence of the kind that the embedded model was trained on, drawn by seed."""
    return Condition(tiny_text().describe(survey.target(region).scores, np.random.default_rng(seed))[0])


def told(
    lm: LM, survey: Survey, human: HumanAnswers, regions: Sequence[str], seeds: int, methods: Sequence[str]
) -> Iterator[Entry]:
    """Entries of these methods; of a method that draws nothing, one seed."""
    if UNPROMPTED in methods:
        yield Entry(UNPROMPTED, Condition())
    for made, count in ((fixed(survey, human), 1), (seeded(survey), seeds)):
        for name, condition in made.items():
            if name in methods:
                yield from (Entry(name, condition(r, seed), r, seed) for r in regions for seed in range(count))
    if SEQUENTIAL in methods:
        for region in regions:
            started = time.process_time()
            panel = sequential(region, survey, lm)
            seconds = time.process_time() - started
            yield Entry(SEQUENTIAL, panel, region, 0, conversation_tokens(lm, survey, panel), seconds)


def conversation_tokens(lm: LM, survey: Survey, panel: Panel) -> int:
    """Tokens of holding the conversations: every question but the last, after what was said before it."""
    total = 0
    for one in members(panel):
        asked = lm.plan(survey, one.system, orders="forward", examples=one.examples).questions
        total += sum(question.length for question in asked[:-1])
    return total
