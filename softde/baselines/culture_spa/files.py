"""Questions from files, of stage 1 or of others."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from softde.baselines.culture_spa.questions import Question, Sifted, sift, wvs_topic
from softde.baselines.culture_spa.records import many, read_rows


def load_questions(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], seeds: Sequence[Question] = ()
) -> Sifted:
    """Questions from files of stage 1, or of others: lists or lines of records in .json or .jsonl, gzipped or not.

    A record has the keys question and options and may have id and topic, or CultureSPA's question, option_lst, Q_id and
    class. Ids that repeat, as they do over CultureSPA's thirteen files, or are missing give way to "Q0", "Q1", … over
    all of them.
    They are sifted, since others may not have done it; rows that are no question are named and left out.

    paths : a file, several, or a folder of them.

    Raises
    ------
    ValueError
        A file cannot be read, or none holds a question.
    """
    found: list[Question] = []
    for path in many(paths):
        found += [question for question in read_rows(path).usable(_question) if question is not None]
    if not found:
        raise ValueError(f"{paths}: no row is a question; expected the keys question and options")
    ids = {question.id for question in found}
    if len(ids) < len(found) or "" in ids:
        found = [Question(f"Q{i}", q.text, q.options, q.topic) for i, q in enumerate(found)]
    return sift(found, seeds)


def load_seeds(path: str | os.PathLike[str]) -> tuple[Question, ...]:
    """Questions to write others after, from a file of records as `load_questions` takes them.

    Those of the World Values Survey have their topic by number, where the file gives none; others without are left out.
    """
    found = [q for q in read_rows(path).usable(_question) if q is not None]
    told = [Question(q.id, q.text, q.options, q.topic or wvs_topic(q.id)) for q in found]
    return tuple(question for question in told if question.topic)


def _question(row: Mapping[str, Any]) -> Question | None:
    """A record as a question; None for a text that stage 1 left out."""
    if "dropped" in row:
        return None
    text, options = row.get("question"), row.get("options", row.get("option_lst"))
    if not isinstance(text, str):
        raise ValueError("no question")
    if not isinstance(options, list) or not all(isinstance(o, (str, int, float)) for o in options):
        raise ValueError("options are no list of texts")
    name = row.get("id", row.get("Q_id"))
    topic = str(row.get("topic", row.get("class", "")))
    return Question("" if name is None else str(name), text, tuple(map(str, options)), topic)
