"""What a study found: one table, printed and written, with what it shares with the paper and what not."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from softde.abilities import Abilities
from softde.abilities.scoring import asked_questions
from softde.compare import Entry, MethodTable
from softde.files import write_file
from softde.reproduce.study import Study, quizzed
from softde.surveys.regions import region_name

WIDTH = 100


def row_name(entry: Entry) -> str:
    """Method, region and seed."""
    return ", ".join([entry.method, *([entry.region, f"seed {entry.seed}"] if entry.region else [])])


@dataclass(frozen=True)
class Own:
    """One region's own questions in a quiz: share that is right, unprompted and under a method, a mean over seeds."""

    quiz: str
    region: str
    questions: int
    unprompted: float
    method: str
    share: float


@dataclass(frozen=True, eq=False)
class Outcome:
    """Entries with what they cost, the table of methods, and abilities where quizzes were given."""

    study: Study
    entries: tuple[Entry, ...]
    table: MethodTable
    abilities: Abilities | None = None

    @property
    def legend(self) -> tuple[str, str]:
        """What is the paper's, and what is not."""
        return f"As in the paper: {self.study.shared}", f"Ours, or not known of the paper: {self.study.ours}"

    def own_questions(self) -> list[Own]:
        """Of quizzes whose subjects are regions: how methods fare on their own region's questions."""
        found = self.abilities
        if found is None:
            return []
        rows = []
        asked = [entry for entry in self.entries if quizzed(entry)]
        for quiz, sheets in zip(found.quizzes, found.sheets, strict=True):
            counted, subjects = asked_questions(sheets), [region_name(s) or s for s in quiz.subjects]
            right = [quiz.all_of(sheet.right) for sheet in sheets]
            for region in dict.fromkeys(entry.region for entry in asked if entry.region):
                mine = counted & np.array([subject == region for subject in subjects])
                if not mine.any():
                    continue
                for method in dict.fromkeys(entry.method for entry in asked if entry.region == region):
                    shares = [
                        float(flags[mine].mean())
                        for entry, flags in zip(asked, right, strict=True)
                        if (entry.method, entry.region) == (method, region)
                    ]
                    before = float(right[0][mine].mean())
                    rows.append(Own(quiz.name, region, int(mine.sum()), before, method, float(np.mean(shares))))
        return rows

    def to_markdown(self) -> str:
        """Everything."""
        parts = [f"# {self.study.name}", self.table.to_markdown(), *self.legend]
        if self.abilities is not None:
            parts += ["## Abilities", self.abilities.to_markdown()]
            own = [f"- {line}" for line in self._own()]
            parts += ["\n".join(["Regions' own questions:", "", *own])] if own else []
        return "\n\n".join(part.strip() for part in parts) + "\n"

    def __str__(self) -> str:
        parts = [str(self.table), "\n".join(textwrap.fill(line, WIDTH) for line in self.legend)]
        if self.abilities is not None:
            own = list(self._own())
            parts += [str(self.abilities), *(["\n".join(["Regions' own questions:", *own])] if own else [])]
        return "\n\n".join(part.strip() for part in parts)

    def save(self) -> None:
        """Write table.md, rows.csv and, with pyarrow, rows.parquet into the folder; abilities.csv of quizzes."""
        folder = self.study.folder
        write_file(folder / "table.md", self.to_markdown().encode())
        self.table.save(folder / "rows.csv")
        if find_spec("pyarrow") is not None:
            self.table.save(folder / "rows.parquet")
        if self.abilities is not None:
            self.abilities.save(folder / "abilities.csv")

    def _own(self) -> Iterator[str]:
        for one in self.own_questions():
            yield (
                f"{one.quiz}, {one.region} ({one.questions}): unprompted {one.unprompted:.1%}, {one.method} "
                f"{one.share:.1%}"
            )
