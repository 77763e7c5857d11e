"""Stage 3: a question is kept for a region where being from there changes the answer; and what that is good for."""

from __future__ import annotations

import os
from collections.abc import Collection as Ids
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from softde.baselines.culture_spa.answers import ORDERS, UNAWARE, Answers
from softde.baselines.culture_spa.questions import Question, as_survey, digest, unnumbered
from softde.baselines.culture_spa.records import KIND, Row, jsonl, read_rows, write_rows
from softde.surveys import Survey
from softde.surveys.human import HumanAnswers
from softde.surveys.item_targets import Distance, SharesTarget
from softde.surveys.values import FrozenDict, nearest

COLLECTION = "culture-spa collection"


@dataclass(frozen=True)
class Collected:
    """A question whose answer changes in a region; options by number, from 0, in their own order."""

    question: Question
    region: str
    unaware: int
    aware: int


@dataclass(frozen=True)
class Collection:
    """What was kept, and what the model was told in each region, as stage 4 tells it again.

    systems : region → that text, None where nobody said. compared : region → questions with both answers. order : in
    which options were listed.
    """

    rows: tuple[Collected, ...]
    systems: Mapping[str, str | None]
    compared: Mapping[str, int]
    order: str = "forward"

    @property
    def regions(self) -> tuple[str, ...]:
        """Those that kept a question, in the order of the answers."""
        kept = {row.region for row in self.rows}
        return tuple(region for region in self.systems if region in kept)

    def of(self, region: str) -> tuple[Collected, ...]:
        """The questions of a region.

        Raises
        ------
        ValueError
            It has none.
        """
        found = tuple(row for row in self.rows if row.region == region)
        if not found:
            raise ValueError(f"region {region!r} kept no question; {nearest(region, self.regions)}")
        return found

    def told(self, region: str) -> str:
        """What the model is told in a region.

        Raises
        ------
        ValueError
            Nobody said.
        """
        if (text := self.systems.get(region)) is None:
            raise ValueError(
                f"the collection does not say what the model is told in {region!r}; give systems={{region: text}} to "
                "load_collection, or --systems on the command line"
            )
        return text

    def __str__(self) -> str:
        lines = [f"{'region':<24}{'compared':>10}{'kept':>8}{'share':>8}"]
        for region, compared in self.compared.items():
            kept = sum(row.region == region for row in self.rows)
            lines.append(f"{region:<24}{compared:>10}{kept:>8}{kept / max(compared, 1):>8.1%}")
        return "\n".join(lines)


def collect(questions: Sequence[Question], answers: Answers, out: str | os.PathLike[str] | None = None) -> Collection:
    """Keep a question for a region where the answer there is another than nobody's; one without both is not compared.

    out : a .jsonl file to write it to, whole or not at all.
    """
    if answers.questions and answers.questions != digest(questions):
        raise ValueError("answers: they are to other questions; give those they were made from, in their order")
    nobody, kept, compared = answers.given[UNAWARE], [], {}
    for region in answers.regions:
        mine = answers.given[region]
        both = [q for q in questions if q.id in mine and q.id in nobody]
        compared[region] = len(both)
        kept += [Collected(q, region, nobody[q.id], mine[q.id]) for q in both if mine[q.id] != nobody[q.id]]
    systems = {region: answers.systems.get(region) for region in answers.regions}
    collection = Collection(tuple(kept), FrozenDict(systems), FrozenDict(compared), answers.order)
    if out is not None:
        header = {KIND: COLLECTION, "questions": digest(questions), "systems": systems, "compared": compared,
                  "order": answers.order}  # fmt: skip
        write_rows(jsonl(out), header, map(_row, collection.rows))
    return collection


def _row(kept: Collected) -> Row:
    question = kept.question
    return {
        "id": question.id, "topic": question.topic, "question": question.text, "options": list(question.options),
        "region": kept.region, "unaware": kept.unaware + 1, "aware": kept.aware + 1,
    }  # fmt: skip


def load_collection(path: str | os.PathLike[str], systems: Mapping[str, str | None] | None = None) -> Collection:
    """A collection from a file of stage 3, or of others; rows not usable are named and left out.

    Others' files have records with id, question, options, region and aware, the number of the answer from 1; or
    CultureSPA's Q_id, question, option_lst, country and answer. What the model is told in each region, which stage 4
    has to know, is then `systems`; a file of ours has it itself.

    Raises
    ------
    ValueError
        No row is usable.
    """
    file = read_rows(path)
    told = dict(file.header.get("systems", {})) | dict(systems or {})

    known: dict[str, Question] = {}
    seen: set[tuple[str, str]] = set()

    def read(row: Row) -> Collected:
        question, region = _asked(row), row.get("region", row.get("country"))
        question = question if file.header else unnumbered(question)
        if not isinstance(region, str) or not region:
            raise ValueError("no region")
        if known.setdefault(question.id, question) != question or (question.id, region) in seen:
            raise ValueError(f"id {question.id!r} of region {region!r} was there before")
        seen.add((question.id, region))
        chosen = _number(row.get("aware", row.get("answer")), question)
        other = row.get("unaware")
        return Collected(question, region, -1 if other is None else _number(other, question), chosen)

    rows = tuple(file.usable(read))
    if not rows:
        raise ValueError(f"{file.name}: no row is a question that a region answers differently")
    for row in rows:
        told.setdefault(row.region, None)
    counts = {region: sum(row.region == region for row in rows) for region in told}
    order = file.header.get("order", "forward")
    return Collection(rows, FrozenDict(told), FrozenDict(file.header.get("compared") or counts),
                      order if order in ORDERS else "forward")  # fmt: skip


def _asked(row: Row) -> Question:
    name, text = row.get("id", row.get("Q_id")), row.get("question")
    texts: Any = row.get("options", row.get("option_lst"))
    if name is None or not isinstance(text, str) or not isinstance(texts, list) or len(texts) < 2:
        raise ValueError("no id, question or options")
    question = Question(str(name), text, tuple(map(str, texts)), str(row.get("topic", row.get("class", ""))))
    as_survey([question])  # refuses what cannot be asked
    return question


def _number(value: Any, question: Question) -> int:
    found = int(value) if str(value).isdecimal() else 0
    if not 1 <= found <= len(question.options):
        raise ValueError(f"answer {str(value)[:40]!r} is none of {len(question.options)} options")
    return found - 1


def collected_answers(collection: Collection, regions: Sequence[str] | None = None) -> HumanAnswers:
    """The changed answers as if each region were one human, who is sure; for any target of human answers."""
    chosen = tuple(regions or collection.regions)
    if not chosen:
        raise ValueError("collection: no region kept a question; ask more questions, or more different regions")
    rows = [row for region in chosen for row in collection.of(region)]
    questions = list({row.question.id: row.question for row in rows}.values())
    survey = as_survey(questions)
    place = {q.id: i for i, q in enumerate(questions)}
    shares = np.zeros((len(chosen), *survey.option_values.shape))
    answered = np.zeros(shares.shape[:2], dtype=bool)
    for row in rows:
        at = chosen.index(row.region), place[row.question.id]
        shares[(*at, row.aware)], answered[at] = 1.0, True
    shares[~answered] = np.nan
    return HumanAnswers(survey, chosen, shares, answered.astype(np.float64), "answers of the model itself")


def collected_target(
    collection: Collection, region: str, distance: Distance = "kl", held_out: float | Ids[str] = 0.0, seed: int = 0,
    most: int | None = None,
) -> tuple[Survey, SharesTarget]:  # fmt: skip
    """A region's questions as a survey, and its changed answers as a loss: for `softde.align`, no weight touched.

    distance : "kl" is −log₂ of the answer's probability among the options; stage 4 trains with that among all tokens.
        See `SharesTarget`. held_out : a share of the questions, or ids, that a search does not ask. most : take no more
        than so many questions, drawn by `seed`.
    """
    rows = collection.of(region)
    if most is not None and most < len(rows):
        drawn = np.sort(np.random.default_rng(seed).permutation(len(rows))[:most])
        rows = tuple(rows[i] for i in drawn)
    human = collected_answers(Collection(rows, collection.systems, collection.compared, collection.order), [region])
    return human.survey, SharesTarget.of(human, region, distance, held_out, seed, edition="CultureSPA, collected")
