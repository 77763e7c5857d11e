"""The table of abilities, its sub-scores, and how they are written."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from softde.abilities.asking import Sheet
from softde.abilities.quiz import Quiz
from softde.abilities.scoring import Row, asked_questions, null_answerers
from softde.abilities.statistics import Estimate, wilson
from softde.files import expanded, write_file

WIDTH = 100
LOW_MASS = 0.5  # below it, the model mostly says something else
LISTED = {"both": "listed both ways", "forward": "listed forward", "reversed": "listed in reverse"}
HEADS = ("accuracy", "difference", "better/worse", "p", "p (Holm)", "P(right)", "option mass")


@dataclass(frozen=True, eq=False)
class Abilities:
    """Quizzes × conditions of one model.

    sheets : for each quiz one per condition, in the order of `conditions`; rows in the same order. confidence : of
    all intervals.
    """

    model: str
    orders: str
    conditions: tuple[str, ...]
    sheets: tuple[tuple[Sheet, ...], ...]
    rows: tuple[Row, ...]
    confidence: float = 0.95

    @property
    def quizzes(self) -> tuple[Quiz, ...]:
        return tuple(sheets[0].quiz for sheets in self.sheets)

    def row(self, condition: str, quiz: str | None = None) -> Row:
        """One row by names; the quiz may be left out if there is one only."""
        found = [r for r in self.rows if r.condition == condition and quiz in (None, r.quiz)]
        if len(found) != 1:
            raise ValueError(
                f"expected one of conditions {', '.join(map(repr, self.conditions))} and quizzes "
                f"{', '.join(repr(q.name) for q in self.quizzes)}, got {condition!r}, {quiz!r}"
            )
        return found[0]

    def records(self) -> list[dict[str, Any]]:
        """One flat dict per condition and null answerer of each quiz; kind is "condition" or "null"."""
        found = []
        for sheets, quiz in zip(self.sheets, self.quizzes, strict=True):
            rows = [row for row in self.rows if row.quiz == quiz.name]
            mine = [{"model": self.model, "kind": "condition", **_flat(row)} for row in rows]
            blank = dict.fromkeys(mine[0])
            for name, (accuracy, judgement) in null_answerers(quiz, asked_questions(sheets)).items():
                known = {"model": self.model, "kind": "null", "quiz": quiz.name, "condition": name}
                shares = {"accuracy": accuracy, "judgement_accuracy": judgement if quiz.judged else None}
                mine.append({**blank, **known, "questions": rows[0].questions, **shares})
            found += mine
        return found

    def by_subject(self) -> list[dict[str, Any]]:
        """Accuracy by quiz, subject and condition, with Wilson's interval and the difference from the first one."""
        found = []
        for sheets, quiz in zip(self.sheets, self.quizzes, strict=True):
            counted, subjects = asked_questions(sheets), np.array(quiz.subjects)
            for subject in sorted(set(subjects[counted])):
                chosen = counted & (subjects == subject)
                right = [int(quiz.all_of(sheet.right)[chosen].sum()) for sheet in sheets]
                for name, hits in zip(self.conditions, right, strict=True):
                    share = wilson(hits, int(chosen.sum()), self.confidence)
                    found.append(
                        {
                            "model": self.model,
                            "quiz": quiz.name,
                            "subject": str(subject),
                            "condition": name,
                            "questions": int(chosen.sum()),
                            **_spread("accuracy", share),
                            "difference": (hits - right[0]) / int(chosen.sum()),
                        }
                    )
        return found

    def answers(self) -> list[dict[str, Any]]:
        """Every item under every condition: was it asked, is it right, the probability of the right option."""
        return [
            {
                "quiz": quiz.name,
                "question": quiz.groups[i],
                "item": item.id,
                "subject": item.topic,
                "condition": name,
                "asked": bool(sheet.asked[i]),
                "right": bool(sheet.right[i]) if sheet.asked[i] else None,
                "probability": float(sheet.right_probability[i]),
                "option_mass": float(sheet.option_mass[i]),
            }
            for sheets, quiz in zip(self.sheets, self.quizzes, strict=True)
            for sheet, name in zip(sheets, self.conditions, strict=True)
            for i, item in enumerate(quiz.survey.items)
        ]

    def to_frame(self) -> Any:
        """The records as a pandas DataFrame."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_frame needs pandas: pip install 'softde[viz]'") from None
        return pandas.DataFrame(self.records())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table: Markdown for .md, Parquet for .parquet, else CSV."""
        place = expanded(os.fspath(path))
        if place.suffix.lower() == ".md":
            write_file(place, self.to_markdown().encode())
            return
        from softde.surveys.human.columns import write_table

        records = self.records()
        empty = "" if place.suffix.lower() != ".parquet" else None
        columns = {k: [empty if r[k] is None else r[k] for r in records] for k in records[0]}
        write_table(place, columns)

    def to_markdown(self) -> str:
        """A table per quiz, with its null answerers."""
        lines = []
        for title, heads, body in self._blocks():
            rule = ["---", *["---:"] * len(heads)]
            shown = [["", *heads], rule, *([name, *cells] for name, cells in body)]
            lines += [
                title,
                "",
                *(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in row)} |" for row in shown),
                "",
            ]
        return "\n".join([*lines, self.legend()]) + "\n"

    def __str__(self) -> str:
        lines: list[str] = []
        for title, heads, body in self._blocks():
            table = [["", *heads], *([name, *cells] for name, cells in body)]
            widths = [max(len(row[i]) for row in table) for i in range(len(heads) + 1)]
            shown = [
                "  ".join(f"{c:<{w}}" if not i else f"{c:>{w}}" for i, (c, w) in enumerate(zip(r, widths, strict=True)))
                for r in table
            ]
            lines += [*textwrap.wrap(title, WIDTH), "", shown[0].rstrip(), "-" * len(shown[0])]
            lines += [*(line.rstrip() for line in shown[1:]), ""]
        return "\n".join([*lines, textwrap.fill(self.legend(), WIDTH)])

    def legend(self) -> str:
        """How to read the numbers."""
        judged = "; a question of several judgements is right if all are" if any(q.judged for q in self.quizzes) else ""
        change = (
            f"; difference: from {self.conditions[0]!r} on the same questions, with a bootstrap interval; better/"
            "worse: questions that became right and wrong; p: McNemar's exact test, Holm's over all tests of this table"
        )
        text = (
            f"accuracy: percentage of questions that are right, with its {self.confidence:.0%} interval (Wilson)"
            f"{judged}{change if len(self.conditions) > 1 else ''}; P(right): mean probability of the right option "
            "among the options; option mass: probability of the options among all tokens. Last rows: answerers who "
            "know nothing; 'best single option' knows which option is right most often."
        )
        low = dict.fromkeys(row.condition for row in self.rows if not row.option_mass >= LOW_MASS)
        if low:
            text += (
                f" Careful: under {', '.join(low)} the options hold less than {LOW_MASS:.0%} of the probability, so "
                "accuracy says little about what the model would write."
            )
        return text

    def _blocks(self) -> Iterator[tuple[str, list[str], list[tuple[str, list[str]]]]]:
        """(title, heads, rows of name and cells) of each quiz."""
        records, several = self.records(), len(self.conditions) > 1
        for quiz in self.quizzes:
            mine = [record for record in records if record["quiz"] == quiz.name]
            heads = [h for h in HEADS if several or h not in HEADS[1:5]]
            if quiz.judged:
                heads.insert(1, "judgements")
            yield self._title(quiz, mine[0]), heads, [(r["condition"], [_cell(r, h) for h in heads]) for r in mine]

    def _title(self, quiz: Quiz, record: Mapping[str, Any]) -> str:
        title = f"{quiz.name}: {_counted(record['questions'], 'question')}"
        if quiz.judged:
            title += f" of {_counted(record['judgements'], 'judgement')}"
        title += f", options {LISTED[self.orders]}, model {self.model}"
        if record["not_asked"]:
            title += f"; left out since the model cannot be asked them: {_counted(record['not_asked'], 'question')}"
        if quiz.left_out:
            title += f"; left out of the file: {_counted(len(quiz.left_out), 'row')}"
        return title


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for f in fields(row):
        value = getattr(row, f.name)
        flat |= _spread(f.name, value) if isinstance(value, Estimate) else {f.name: value}
    return {name: None if value != value else value for name, value in flat.items()}


def _spread(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _cell(record: Mapping[str, Any], head: str) -> str:
    """A column's text: percentages with their interval, probabilities with digits."""
    if head == "better/worse":
        return "" if record["p"] is None else f"{record['better']}/{record['worse']}"
    name = {"judgements": "judgement_accuracy", "p (Holm)": "p_holm", "P(right)": "probability"}.get(head, head)
    name = name.replace(" ", "_")
    value = record[name]
    if value is None:
        return ""
    if name.startswith("p_") or name == "p":
        return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
    if name in ("probability", "option_mass"):
        return f"{value:.2f}"
    sign = "+" if name == "difference" else ""
    low, high = record[f"{name}_low"], record[f"{name}_high"]
    interval = "" if low is None else f" [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"
    return f"{100 * value:{sign}.1f}{interval}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
