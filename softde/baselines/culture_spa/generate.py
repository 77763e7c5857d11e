"""Stage 1: a model writes questions on each topic, after examples (Xu et al. 2024, arXiv 2410.12971, section 3.1)."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from softde.baselines.culture_spa.counting import Count
from softde.baselines.culture_spa.prompts import EXAMPLE, RESEARCHER, TASK, parsed, task
from softde.baselines.culture_spa.questions import Question, digest, fault, unnumbered
from softde.baselines.culture_spa.records import BATCH, KIND, Row, append, jsonl, resumed, spent
from softde.baselines.culture_spa.writing import LMWriter, Writer
from softde.checks import whole
from softde.lm import LM
from softde.readouts import stream

QUESTIONS = "culture-spa questions"
GENERATED, EXEMPLARS = 2, 5  # at most so many of those written before; the others are seeds
TRIES = 3  # texts per question wanted, before a topic is given up
HOPELESS = 40  # texts without one question among them
UNREADABLE = "no question in JSON"

_log = logging.getLogger("softde")


@dataclass(frozen=True)
class Generated:
    """What stage 1 wrote: questions, how many texts were left out and why, and what it cost in forward tokens."""

    questions: tuple[Question, ...]
    dropped: Mapping[str, int]
    forward_tokens: float

    def __str__(self) -> str:
        why = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
        return f"{len(self.questions)} questions written" + (f"; left out: {why}" if why else "")


@dataclass
class Topic:
    """How far a topic is: its seeds, what was written on it, and how many texts that took."""

    number: int
    name: str
    seeds: tuple[Question, ...]
    pool: list[Question]
    tried: int = 0


def generate(
    writer: LM | Writer,
    seeds: Sequence[Question],
    out: str | os.PathLike[str],
    n: int = 1000,
    seed: int = 0,
    at_once: int = 1,
    progress: bool = True,
) -> Generated:
    """Have `n` questions written on every topic of the seeds, into a file; goes on where an earlier call stopped.

    Each text follows five examples in random order: up to two questions written before on the topic, the rest seeds.
    What holds no question in JSON is left out, and so is what `sift` leaves out; both are counted in the file. Draws
    depend on seed, topic and the text's number alone, so that a file made with interruptions is the same.

    Parameters
    ----------
    writer : a model, which writes at temperature 0.9 among the tokens that make 0.95 of the probability
        (`LMWriter(lm, ...)` sets these), or anything else with a `write`.
    seeds : with a topic each; see `seeds_of` and `load_seeds`.
    out : a .jsonl file. A larger `n` continues a finished one.
    at_once : questions of a topic that are written together, and do not see each other; topics are written side by side
        whatever it is.

    Raises
    ------
    ValueError
        Seeds without topics, a file of other settings, or a model that writes no JSON.
    """
    n, seed, at_once, path = whole(n, "n", 1), whole(seed, "seed", 0), whole(at_once, "at_once", 1), jsonl(out)
    if isinstance(writer, LM):
        writer = LMWriter(writer)
    topics = _topics(seeds)
    texts = [RESEARCHER, TASK, EXAMPLE]
    header = {KIND: QUESTIONS, "topics": list(topics), "seeds": digest(seeds), "seed": seed, "at_once": at_once,
              "prompt": texts, **writer.record()}  # fmt: skip
    rows, rounds = resumed(path, header, ("topic", "text_number"))
    seen, dropped = {s.key for s in seeds}, Counter[str]()
    for row in rows:
        _count(row, topics, seen, dropped)
    count = Count("questions", n * len(topics), sum(len(t.pool) for t in topics.values()), progress)
    while open_topics := [t for t in topics.values() if len(t.pool) < n and t.tried < TRIES * n + HOPELESS]:
        slots = [(t, t.tried + i) for t in open_topics for i in range(min(at_once, n - len(t.pool)))]
        keys = [(seed, *t.name.encode(), number) for t, number in slots]
        tasks = [task(t.name, _examples(t, key)) for (t, _), key in zip(slots, keys, strict=True)]
        written = writer.write(tasks, [(*key, 1) for key in keys])
        new = [_row(t, number, text, seen) for (t, number), text in zip(slots, written.texts, strict=True)]
        for row in new:
            _count(row, topics, seen, dropped)
        append(path, [*new, {BATCH: rounds, "forward_tokens": written.tokens}])
        rounds += 1
        done = sum(len(t.pool) for t in topics.values())
        count(done, f"{sum(dropped.values())} texts left out")
        if not done and dropped[UNREADABLE] >= HOPELESS:
            raise ValueError(
                f"the model wrote no question in {dropped[UNREADABLE]} texts, such as {new[-1]['text']!r}; take a "
                "model that follows instructions, or questions from elsewhere"
            )
    for topic in topics.values():
        if len(topic.pool) < n:
            _log.warning("topic %r has %d of %d questions after %d texts", topic.name, len(topic.pool), n, topic.tried)
    questions = tuple(q for t in topics.values() for q in t.pool)
    return Generated(questions, dict(dropped), spent(path))


def _topics(seeds: Sequence[Question]) -> dict[str, Topic]:
    by_topic: dict[str, list[Question]] = defaultdict(list)
    for question in seeds:
        by_topic[question.topic].append(question)
    without = by_topic.get("")
    if not by_topic or without:
        got = f"none of {without[0].id!r}" if without else "no questions"
        raise ValueError(f"seeds: expected questions with a topic each, got {got}; see seeds_of(survey, topics)")
    return {name: Topic(i, name, tuple(mine), []) for i, (name, mine) in enumerate(by_topic.items(), start=1)}


def _examples(topic: Topic, key: tuple[int, ...]) -> list[Question]:
    """Five in random order: at most two of those written before, the others seeds, as far as there are any."""
    draw = stream((*key, 0))
    before = draw.permutation(len(topic.pool))[:GENERATED]
    given = draw.permutation(len(topic.seeds))[: EXEMPLARS - len(before)]
    examples = [topic.pool[i] for i in before] + [topic.seeds[i] for i in given]
    return [examples[i] for i in draw.permutation(len(examples))]


def _row(topic: Topic, number: int, text: str, seen: set[str]) -> Row:
    """A text as a line of the file: a question, or why there is none."""
    found = parsed(text)
    row: Row = {"topic": topic.name, "text_number": number}
    if found is None:
        return {**row, "dropped": UNREADABLE, "text": text[:200]}
    question = unnumbered(Question(f"{topic.number}.{number}", *found, topic.name))
    why = fault(question, seen)
    if not why:
        seen.add(question.key)
    return {"id": question.id, **row, "question": question.text, "options": list(question.options),
            **({"dropped": why} if why else {})}  # fmt: skip


def _count(row: Row, topics: Mapping[str, Topic], seen: set[str], dropped: Counter[str]) -> None:
    """Take a line of the file into account."""
    topic = topics[row["topic"]]
    topic.tried = max(topic.tried, row["text_number"] + 1)
    if "dropped" in row:
        dropped[row["dropped"]] += 1
    else:
        topic.pool.append(Question(row["id"], row["question"], tuple(row["options"]), topic.name))
        seen.add(topic.pool[-1].key)
