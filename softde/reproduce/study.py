"""A published design as data: its steps, what is asked of what they find, and what it shares with the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softde.abilities import Quiz
from softde.compare import Entry, Exam
from softde.condition import members
from softde.lm import LM


@dataclass(frozen=True)
class Rate:
    """How fast a kind of work went: so many tokens, in so many seconds."""

    work: str
    tokens: float
    seconds: float

    @property
    def seconds_per_token(self) -> float:
        """Of this work, on this machine."""
        return self.seconds / self.tokens


@dataclass(frozen=True, eq=False)
class Probe:
    """A small piece of some steps' work. work : what it is, in words. measure : does it, to see how fast it goes."""

    work: str
    measure: Callable[[], Rate]


@dataclass(frozen=True, eq=False)
class Work:
    """Tokens that go through the model's layers, a backward pass as two forwards; and the probe of such work."""

    tokens: float
    probe: Probe


@dataclass(frozen=True, eq=False)
class Made:
    """What a step left: entries, or a file alone, and the forward tokens that it took, in whatever session."""

    entries: tuple[Entry, ...] = ()
    forward_tokens: float = 0.0


@dataclass(frozen=True, eq=False)
class Step:
    """One method for one region and seed, or a file that later steps read.

    run : does it, or finds it done in the folder; called with whether to show progress. work : counts what that takes,
    with what earlier steps have left by then; None for a method that is written down. like : entries that take as many
    tokens to ask as those that `run` will make; of a method that is written down, the very same.
    """

    name: str
    run: Callable[[bool], Made]
    work: Callable[[], tuple[Work, ...]] | None = None
    like: tuple[Entry, ...] = ()


@dataclass(frozen=True, eq=False)
class Study:
    """A design on one model, in one folder: `plan` says what it takes, `run` does it.

    settings : plain values that the folder is known by. growing : names of those that may change from call to call,
    since nothing made before is lost by it. asking : the probe of all questions of exams and quizzes. shared, ours :
    what the design has from the paper, and what it has not. notes : what the plan rests on.
    """

    name: str
    lm: LM
    folder: Path
    settings: Mapping[str, Any]
    steps: tuple[Step, ...]
    exams: tuple[Exam, ...]
    asking: Probe
    shared: str
    ours: str
    quizzes: tuple[Quiz, ...] = ()
    notes: tuple[str, ...] = ()
    growing: frozenset[str] = field(default=frozenset({"regions", "seeds", "budget", "quizzes"}))

    def exams_of(self, entries: Sequence[Entry]) -> list[Exam]:
        """The exams that some of the entries take."""
        return [exam for exam in self.exams if any(entry.is_for(exam, exam.regions) for entry in entries)]


def written(entry: Entry) -> Step:
    """The step of a method that is written down, not searched for."""
    name = entry.method if entry.region is None else f"{entry.method}, {entry.region}"
    made = f" ({entry.survey})" if entry.survey else ""
    return Step(name + made, lambda _: Made((entry,)), like=(entry,))


def quizzed(entry: Entry) -> bool:
    """Is it asked quizzes? Not with worked examples, which belong to a survey's items."""
    return all(member.examples is None for member in members(entry.condition))
