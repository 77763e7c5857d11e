"""Answers to questions, as stage 2 writes them and stage 3 reads them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softde.baselines.culture_spa.questions import Question, digest
from softde.baselines.culture_spa.records import SHOWN, Row, read_rows, spent
from softde.surveys.values import FrozenDict, listed

ANSWERS = "culture-spa answers"
UNAWARE = ""  # the region of nobody in particular
ORDERS = ("forward", "reversed")

_log = logging.getLogger("softde")


@dataclass(frozen=True)
class Answers:
    """Region → question's id → number of the option chosen, from 0; "" is the region of nobody in particular.

    systems : region → what the model was told there, None for nothing. left_out : questions the model could not be
    asked → why. questions : their digest, empty where a file does not say. order : in which options were listed.
    """

    given: Mapping[str, Mapping[str, int]]
    systems: Mapping[str, str | None]
    left_out: Mapping[str, str]
    questions: str = ""
    order: str = "forward"
    forward_tokens: float = 0.0

    @property
    def regions(self) -> tuple[str, ...]:
        """All but nobody's."""
        return tuple(region for region in self.given if region != UNAWARE)

    def __str__(self) -> str:
        counts = ", ".join(f"{region or 'unaware'} {len(mine)}" for region, mine in self.given.items())
        rest = f"; {len(self.left_out)} questions cannot be asked: {listed(self.left_out, 6)}" if self.left_out else ""
        return f"answers: {counts}{rest}"


def load_answers(
    paths: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]], questions: Sequence[Question]
) -> Answers:
    """Answers from a file of stage 2, or, region → file, from files of others; rows not usable are named and left out.

    Others' files are lists or lines of records in .json or .jsonl, gzipped or not, with the keys question or Q_id (an
    id) and answer: a number, or a text whose first one it is. It counts from 1, or from 0 where the first option is
    "0", as CultureSPA numbers them. The region "" is nobody's.

    Raises
    ------
    ValueError
        The answers are to other questions, or none is usable.
    """
    known = {q.id: q for q in questions}
    if isinstance(paths, Mapping):
        given = {region: dict(_theirs(path, known)) for region, path in paths.items()}
        return _checked(Answers(given, dict.fromkeys(given), {}), str(list(paths.values())))
    file = read_rows(paths)
    made = file.header.get("questions")
    if made is not None and made != digest(questions):
        raise ValueError(
            f"{file.name} holds answers to other questions; give those it was made from, unchanged and in their order"
        )
    systems = dict(file.header.get("systems", {}))
    given, left_out = {region: {} for region in systems}, {}
    there: set[tuple[str, str]] = set()

    def read(row: Row) -> None:
        question = _known(row.get("question"), known)
        if "left_out" in row:
            left_out[question.id] = str(row["left_out"])
            there.update((question.id, region) for region in systems)
            return
        region, chosen = row.get("region"), row.get("answer")
        if not isinstance(region, str) or (systems and region not in systems):
            raise ValueError(f"region {region!r} is none of this file")
        if chosen is not None:
            given.setdefault(region, {})[question.id] = _number(chosen, question, 1)
        there.add((question.id, region))

    file.usable(read)
    lacking = [name for name in known if any((name, region) not in there for region in systems)]
    if lacking:
        _log.warning("%s: %d of %d questions lack the answer of a region: %s; what wrote the file can go on with it",
                     file.name, len(lacking), len(known), listed(lacking, 6))  # fmt: skip
    return _checked(
        Answers(FrozenDict(given), systems or dict.fromkeys(given), FrozenDict(left_out), made or "",
                file.header.get("order", "forward"), spent(paths)),
        file.name,
    )  # fmt: skip


def _theirs(path: str | os.PathLike[str], known: Mapping[str, Question]) -> Iterator[tuple[str, int]]:
    def read(row: Row) -> tuple[str, int]:
        question = _known(row.get("question") if "Q_id" not in row else row["Q_id"], known)
        return question.id, _number(row.get("answer"), question, 0 if question.options[0].strip() == "0" else 1)

    yield from read_rows(path).usable(read)


def _known(name: Any, known: Mapping[str, Question]) -> Question:
    if str(name) not in known:
        raise ValueError(f"no question {str(name)[:SHOWN]!r}")
    return known[str(name)]


def _number(value: Any, question: Question, first: int) -> int:
    found = [value] if isinstance(value, float) else re.findall(r"-?\d+", str(value))  # -1, -2: surveys' codes for none
    number = float(found[0]) - first if found else -1
    if number not in range(len(question.options)):
        raise ValueError(f"answer {str(value)[:40]!r} to {question.id!r} is none of {len(question.options)} options")
    return int(number)


def _checked(answers: Answers, name: str) -> Answers:
    if not answers.given.get(UNAWARE) or not any(answers.given[region] for region in answers.regions):
        raise ValueError(
            f"{name}: expected answers to these questions, of nobody in particular (region '') and of a region, "
            f"got {answers}"
        )
    return answers
