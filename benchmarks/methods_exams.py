"""What bench_methods asks: the VSM 2013 as methods see it, in another order, in other words; and who the people are."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np

from softde.compare import Exam
from softde.compare.splits import Training, hold_out_orders, hold_out_phrasings
from softde.surveys import Item, Survey, load_survey
from softde.surveys.human import HumanAnswers
from softde.surveys.item_targets import SharesTarget

REGIONS = ("Japan", "Russia", "France", "Saudi Arabia", "India", "China")  # tiny never heard of the last three
SEEN, REVERSED, REWORDED = "forward", "reversed", "reworded"
BOTH_ORDERS, BOTH_WORDINGS, PEOPLE = "both orders", "both wordings", "people"

# Items of one sentence, the same words in another order; of two, the first comes last.
TURNED = {
    "m15": "Do you feel nervous or under tension, and how often?",
    "m16": "Are you a happy person, and how often?",
    "m17": "Do other people or circumstances keep you from doing what you really want, and how often?",
    "m18": "How is your health nowadays, all in all?",
    "m19": "Being a citizen of your country, how proud are you?",
    "m20": "How often are employees afraid to contradict their boss, from what you have seen?",
}


@dataclass(frozen=True, eq=False)
class Papers:
    """What a search may see, and all exams; human : the people whose answers examples are."""

    training: Training
    exams: tuple[Exam, ...]
    human: HumanAnswers


def papers(regions: Sequence[str]) -> Papers:
    """Exams on these regions; all with published scores are there to be mistaken for."""
    survey = load_survey("vsm13")
    human = people(survey)
    whole = Exam("VSM 2013", survey, {r: survey.target(r) for r in human.regions}, scored=tuple(regions))
    split = hold_out_orders(whole)
    seen, other = split.exams
    wordings = {item.id: [reworded(item)] for item in survey.items}
    worded = hold_out_phrasings(seen, wordings).exams[1]
    both = replace(survey, items=tuple(replace(item, phrasings=tuple(wordings[item.id])) for item in survey.items))
    answers = {region: SharesTarget.of(human, region) for region in human.regions}
    exams = (
        replace(seen, name=SEEN),
        replace(other, name=REVERSED),
        replace(worded, name=REWORDED),
        replace(whole, name=BOTH_ORDERS),
        replace(seen, name=BOTH_WORDINGS, survey=both),
        Exam(PEOPLE, survey, answers, "forward", human=human, scored=tuple(regions)),
    )
    return Papers(split.training, exams, human)


def people(survey: Survey) -> HumanAnswers:
    """Made-up people: what the embedded model learnt a region's people answer, from the region's published scores.

    The VSM 2013 has no published answers. By the rule of tools/tiny_text.py a region's item means are those of minimum
    norm that give its scores, and its answers the distribution of maximum entropy with these means.
    """
    rule, regions = tiny_text(), survey.regions(complete=True)
    values = np.array([option.value for option in survey.items[0].options], dtype=float)
    means = [rule.item_means(survey, survey.target(region).scores) for region in regions]
    shares = np.stack([rule.answer_distribution(mean, values) for mean in means])
    return HumanAnswers(survey, tuple(regions), shares, np.full(shares.shape[:2], np.nan), "the embedded model's rule")


def reworded(item: Item) -> str:
    """The item's words in another order."""
    if item.id in TURNED:
        return TURNED[item.id]
    first, rest = re.split(r"(?<=[.?]) ", item.text, maxsplit=1)
    return f"{rest} {first}"


def named(region: str) -> bool:
    """Did the embedded model learn from this region's name?"""
    return region not in tiny_text().HELD_OUT


def tiny_text() -> ModuleType:
    """What the embedded model was trained on."""
    tools = str(Path(__file__).parents[1] / "tools")
    if tools not in sys.path:
        sys.path.append(tools)
    import tiny_text

    return tiny_text
