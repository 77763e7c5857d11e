"""Survey questions as data: what one is, which are kept, and the thirteen topics. Nothing here asks a model."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from softde.surveys import Item, Survey, options
from softde.surveys.regions import normalised
from softde.surveys.values import FrozenDict, listed

T = TypeVar("T")

# The parts of the World Values Survey's wave 7 questionnaire, with the last number of each (Xu et al. 2024, table 1).
TOPICS: Mapping[str, int] = FrozenDict(
    {
        "Social Values, Attitudes & Stereotypes": 45,
        "Happiness and Well-being": 56,
        "Social Capital, Trust & Organizational Membership": 105,
        "Economic Values": 111,
        "Corruption": 120,
        "Migration": 130,
        "Security": 151,
        "Postmaterialist Index": 157,
        "Science & Technology": 163,
        "Religious Values": 175,
        "Ethical Values and Norms": 198,
        "Political Interest & Political Participation": 234,
        "Political Culture & Political Regimes": 259,
    }
)
TWICE, BARE, FEW, SAME, BLANK = (
    "asked before", "numbers without words for them", "fewer than two options", "the same option twice", "a blank text",
)  # fmt: skip
SCALE = re.compile(r"\bscale\b|\bcard\b|\b\d+['\"]?\s*(?:means|meaning|being|stands|is|=|\()", re.IGNORECASE)
NUMBERED = re.compile(r"\s*\(?\d+(?:\s*\)|\.(?=\s)|:(?=\s)|\s+[-–—](?=\s))\s*(?=\D)|\s*\d+\s+(?=\(\D)")


@dataclass(frozen=True)
class Question:
    """One question with its options, in the order in which they are listed."""

    id: str
    text: str
    options: tuple[str, ...]
    topic: str = ""

    @cached_property
    def key(self) -> str:
        """What two spellings of the same question have in common: its letters and digits."""
        return normalised(self.text)


@dataclass(frozen=True)
class Sifted:
    """Questions that are kept, and the ids of the others → why."""

    kept: tuple[Question, ...]
    dropped: Mapping[str, str]

    def __str__(self) -> str:
        why = Counter(self.dropped.values())
        rest = f" ({', '.join(f'{count} {reason}' for reason, count in why.most_common())})" if why else ""
        return f"{len(self.kept)} of {len(self.kept) + len(self.dropped)} questions kept{rest}"


def sift(questions: Iterable[Question], seeds: Sequence[Question] = ()) -> Sifted:
    """The questions that can be asked, in their order, without the numbers that some options begin with.

    Left out are a question asked before, by a seed too (by its letters and digits); one whose options are all bare
    numbers while its text says of none what it means; and one that has fewer than two options, two of the same text, or
    a blank text.
    """
    seen, kept, dropped = {seed.key for seed in seeds}, [], {}
    for question in map(unnumbered, questions):
        why = fault(question, seen)
        if why:
            dropped[question.id] = why
        else:
            seen.add(question.key)
            kept.append(question)
    return Sifted(tuple(kept), FrozenDict(dropped))


def fault(question: Question, seen: set[str]) -> str:
    """Why a question is left out, empty if it is not; `seen` holds the keys of those before it."""
    texts = [text.strip() for text in question.options]
    if not question.text.strip() or not all(texts):
        return BLANK
    if len(texts) < 2:
        return FEW
    if len(set(texts)) < len(texts):
        return SAME
    if question.key in seen:
        return TWICE
    return BARE if all(map(str.isdecimal, texts)) and not SCALE.search(question.text) else ""


def unnumbered(question: Question) -> Question:
    """Without "1. ", "2) " or "3 - " before option texts, since options are numbered when they are listed."""
    texts = tuple(_unnumbered(text) for text in question.options)
    return Question(question.id, question.text.strip(), texts, question.topic)


def _unnumbered(text: str) -> str:
    rest = NUMBERED.sub("", text, count=1) if NUMBERED.match(text) else text
    whole = re.fullmatch(r"\((\D[^()]*)\)", rest.strip()) if rest != text else None
    return (whole[1] if whole else rest).strip()


def digest(questions: Sequence[Question]) -> str:
    """SHA-256 of ids, texts and options: which questions answers are answers to."""
    content = [[q.id, q.text, q.options] for q in questions]
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()


def as_survey(questions: Sequence[Question]) -> Survey:
    """The questions as items, options valued from 1, asked for the number only."""
    items = tuple(Item(q.id, q.text, options(q.options), q.topic) for q in questions)
    return Survey("culture-spa-questions", "Generated questions", items, source="Xu et al., arXiv 2410.12971, stage 1")


def batches(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Neighbours together."""
    return (rows[i : i + size] for i in range(0, len(rows), size))


def wvs_topic(item: str) -> str:
    """The topic of an item of the World Values Survey's wave 7 by its number, "Q46"; empty for any other."""
    number = re.fullmatch(r"Q(\d+)[A-Z]?", item)
    return next((topic for topic, last in TOPICS.items() if number and 0 < int(number[1]) <= last), "")


def seeds_of(survey: Survey, topics: Mapping[str, str] | None = None) -> tuple[Question, ...]:
    """A survey's items as seeds; `topics` says what each is about (item id → topic), else the items' own topics do.

    Raises
    ------
    ValueError
        The texts do not come with the survey, or items have no topic.
    """
    survey.need_texts()
    known = {item.id: (topics or {}).get(item.id) or item.topic or wvs_topic(item.id) for item in survey.items}
    without = [item for item, topic in known.items() if not topic]
    if without:
        raise ValueError(f"seeds: items {listed(without)} have no topic; give topics={{item id: topic}}")
    return tuple(
        Question(item.id, item.text, tuple(option.text for option in item.options), known[item.id])
        for item in survey.items
    )
