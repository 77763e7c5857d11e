"""What a study will take, before it is done: tokens of every step, and hours by a short measurement."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass

from softde.compare import Entry
from softde.reproduce.counting import SAMPLE, asking_tokens, check_longest
from softde.reproduce.records import done_steps
from softde.reproduce.study import Rate, Study, Work, quizzed
from softde.surveys.checks import naming

HOUR = 3600.0
WIDTH = 100
NAME = 48  # letters of a step's name that a line shows


@dataclass(frozen=True)
class Line:
    """A step: tokens to find what it finds, and to ask that everything; seconds, NaN where not measured."""

    name: str
    found: float
    asked: float
    seconds: float
    done: bool

    @property
    def tokens(self) -> float:
        """Both."""
        return self.found + self.asked


@dataclass(frozen=True)
class Plan:
    """A line per step, in the order in which they are run, and the rates that their seconds rest on."""

    title: str
    lines: tuple[Line, ...]
    rates: tuple[Rate, ...]
    notes: tuple[str, ...] = ()

    @property
    def seconds_left(self) -> float:
        """Of the steps that are not done; NaN where nothing was measured."""
        return sum(line.seconds for line in self.lines if not line.done)

    def __str__(self) -> str:
        width = max(len("step"), *(len(_short(line.name)) for line in self.lines))
        head = f"{'step':<{width}}{'to find':>16}{'to ask':>14}{'hours':>10}"
        rows = [
            f"{_short(line.name):<{width}}{_count(line.found):>16}{_count(line.asked):>14}{_hours(line.seconds):>10}"
            f"{'  done' * line.done}"
            for line in self.lines
        ]
        left = [line for line in self.lines if not line.done]
        last = (
            f"{'all' if len(left) == len(self.lines) else 'left':<{width}}{_count(sum(one.found for one in left)):>16}"
        )
        last += f"{_count(sum(one.asked for one in left)):>14}{_hours(self.seconds_left):>10}"
        rule = "-" * len(head)
        below = [textwrap.fill(text, WIDTH) for text in (*self._measured(), *self.notes)]
        return "\n".join([self.title, "", head, rule, *rows, rule, last, "", *below])

    def _measured(self) -> list[str]:
        rates = [
            f"{rate.work} {rate.tokens / rate.seconds:,.0f} tokens/s ({rate.tokens:,.0f} in {rate.seconds:.3g} s)"
            for rate in self.rates
        ]
        return [f"Measured just now: {'; '.join(rates)}."] if rates else []


def plan(study: Study, measure: bool = True) -> Plan:
    """The steps of a study with their tokens; and hours, by probes of a second or so on this model and machine.

    measure : False leaves the hours out, and asks the model nothing.

    Raises
    ------
    ValueError
        A question with its examples is longer than the model reads.
    """
    check_room(study)
    known: dict[tuple[str, str], float] = {}
    asked = [sum(_asked(study, entry, known) for entry in step.like) for step in study.steps]
    works = [() if step.work is None else step.work() for step in study.steps]
    probes = dict.fromkeys([study.asking, *(work.probe for some in works for work in some if work.tokens)])
    rates = {probe: probe.measure() for probe in probes} if measure else {}
    done = done_steps(study)
    lines = []
    for step, some, tokens in zip(study.steps, works, asked, strict=True):
        found = sum(work.tokens for work in some)
        pieces = [work for work in (*some, Work(tokens, study.asking)) if work.tokens]
        seconds = sum(work.tokens * rates[work.probe].seconds_per_token for work in pieces) if measure else math.nan
        lines.append(Line(step.name, found, tokens, seconds, step.name in done))
    model = f"{study.lm.name}, {str(study.lm.dtype).removeprefix('torch.')} on {study.lm.device}"
    return Plan(f"{study.name} on {model}, in {study.folder}", tuple(lines), tuple(rates.values()), study.notes)


def check_room(study: Study) -> None:
    """Refuse conditions whose examples make an item of an exam longer than the model reads."""
    for step in study.steps:
        for entry in step.like:
            for exam in study.exams_of([entry]):
                with naming(step.name):
                    check_longest(study.lm, exam.survey, entry.condition, exam.orders)


def _asked(study: Study, entry: Entry, known: dict[tuple[str, str], float]) -> float:
    """Tokens of all exams and quizzes of an entry; in a large survey the regions of a method are taken to be alike."""
    surveys = [(exam.survey, exam.orders) for exam in study.exams if entry.is_for(exam, exam.regions)]
    surveys += [(quiz.survey, "both") for quiz in study.quizzes] if quizzed(entry) else []
    total = 0.0
    for survey, orders in surveys:
        key = (survey.id, entry.method)
        if len(survey.items) <= SAMPLE or key not in known:
            known[key] = asking_tokens(study.lm, survey, entry.condition, orders)
        total += known[key]
    return total


def _short(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 3]}..."


def _count(tokens: float) -> str:
    return f"{tokens:,.0f}" if tokens else ""


def _hours(seconds: float) -> str:
    hours = seconds / HOUR
    return "" if math.isnan(hours) else f"{hours:.1f}" if hours >= 10 else f"{hours:.3f}"
