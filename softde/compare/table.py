"""The table of methods: a row per exam, method, region and seed; what they come to per method; paired tests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from softde.compare.entries import Exam
from softde.compare.measure import VALUES, Record
from softde.compare.show import as_markdown, as_text
from softde.compare.stats import mean_interval, sign_flip, smallest_p
from softde.condition import UNPROMPTED
from softde.files import expanded, write_file
from softde.surveys.metrics import holm
from softde.surveys.scoring import Array
from softde.surveys.values import nearest

HIGHER = ("culture_spa", "top1", "option_mass")  # better the higher; of all else, the lower
MEANS = ("culture_spa", "top1", "rank", "ranked_among", "option_mass", "order_shift", "wording_shift",
         "found_tokens", "found_seconds", "asked_tokens", "asked_seconds")  # fmt: skip


@dataclass(frozen=True, eq=False)
class MethodTable:
    """Methods side by side, with trivial answerers and floors.

    rows : one dict per exam, method, region and seed, of kind "condition", "null" or "floor"; every row has every key,
    NaN where it has no number. across : one per exam, method and seed, of what several regions say together.
    confidence : of all intervals.
    """

    model: str
    exams: tuple[Exam, ...]
    rows: tuple[Record, ...]
    across: tuple[Record, ...]
    confidence: float = 0.95

    @property
    def methods(self) -> tuple[str, ...]:
        """In the order in which they were given."""
        return tuple(dict.fromkeys(row["method"] for row in self.rows if row["kind"] == "condition"))

    @cached_property
    def _rows_of(self) -> dict[tuple[str, str], list[Record]]:
        """(exam, method) → its rows."""
        found: dict[tuple[str, str], list[Record]] = {}
        for row in self.rows:
            found.setdefault((row["exam"], row["method"]), []).append(row)
        return found

    def grid(self, exam: str, method: str, metric: str) -> Array:
        """(regions, seeds) of one exam and method, condition or null, NaN where there is none."""
        rows = self._rows_of.get((exam, method), [])
        regions, seeds = ([*dict.fromkeys(row[name] for row in rows)] for name in ("region", "seed"))
        values = np.full((len(regions), len(seeds)), np.nan)
        for row in rows:
            values[regions.index(row["region"]), seeds.index(row["seed"])] = row[metric]
        return values

    def summary(self) -> list[Record]:
        """One dict per exam and method, conditions first, then nulls, then floors.

        Numbers are means over regions of each one's mean over its seeds. loss and held_out_loss have an interval
        (loss_low, loss_high, …); chance_top1 and chance_rank are what answers get that ignore the region. Tokens and
        seconds are of one condition: spent on finding it, and on asking it this exam.
        """
        found = []
        for exam in self.exams:
            methods = dict.fromkeys((r["kind"], r["method"]) for r in self.rows if r["exam"] == exam.name)
            order = sorted(methods, key=lambda pair: ("condition", "null", "floor").index(pair[0]))
            found += [self._summed(exam, kind, method) for kind, method in order]
        return found

    def _summed(self, exam: Exam, kind: str, method: str) -> Record:
        losses = self.grid(exam.name, method, "loss")
        found: Record = {
            "exam": exam.name, "held_out": exam.held_out, "kind": kind, "method": method, "regions": losses.shape[0],
            "seeds": losses.shape[1],
        }  # fmt: skip
        for name in ("loss", "held_out_loss"):
            mean, low, high = mean_interval(self.grid(exam.name, method, name), self.confidence)
            found |= {name: mean, f"{name}_low": low, f"{name}_high": high}
        found |= {name: region_mean(self.grid(exam.name, method, name)) for name in MEANS}
        among = found["ranked_among"]
        found |= {"chance_top1": 1 / among, "chance_rank": (among + 1) / 2}
        together = [one for one in self.across if one["exam"] == exam.name and one["method"] == method]
        for name in ("divergence", "tau"):
            found[name] = known_mean([one[name] for one in together]) if kind == "condition" else math.nan
        return found

    def tests(self, baseline: str = UNPROMPTED, metric: str = "loss") -> list[Record]:
        """Paired tests of every method against one, on every exam.

        Pairs are regions, each with its mean over seeds; regions that only one of the two has are left out. difference
        is method − baseline with its interval over regions, better the number of regions where the method is (a higher
        culture_spa, top1 or option_mass, else a lower number), p that of `sign_flip`, p_holm corrected for all tests
        returned, smallest_p the lowest that so many regions can give.

        baseline : a method, or a null such as "uniform answerer". metric : a column of the rows.

        Raises
        ------
        ValueError
            No such baseline or metric.
        """
        known = list(dict.fromkeys(row["method"] for row in self.rows))
        for what, name, names in (("baseline", baseline, known), ("metric", metric, [*VALUES, *self._scores()])):
            if name not in names:
                raise ValueError(f"{what}: the table has none called {name!r}; {nearest(str(name), names)}")
        found = [
            record
            for exam in self.exams
            for method in self.methods
            if method != baseline and (record := self._test(exam.name, method, baseline, metric)) is not None
        ]
        return [{**one, "p_holm": p} for one, p in zip(found, holm([one["p"] for one in found]), strict=True)]

    def _test(self, exam: str, method: str, baseline: str, metric: str) -> Record | None:
        mine, theirs = (self.by_region(exam, name, metric) for name in (method, baseline))
        differences = np.array([mine[region] - theirs[region] for region in mine if region in theirs])
        if not differences.size:
            return None
        mean, low, high = mean_interval(differences[:, None], self.confidence)
        better = differences > 0 if metric in HIGHER else differences < 0
        return {
            "exam": exam, "method": method, "baseline": baseline, "metric": metric, "regions": len(differences),
            "difference": mean, "low": low, "high": high, "better": int(better.sum()), "p": sign_flip(differences),
            "smallest_p": smallest_p(len(differences)),
        }  # fmt: skip

    def by_region(self, exam: str, method: str, metric: str) -> dict[str, float]:
        """Region → mean over seeds, of the regions that have a number."""
        rows = [row for row in self._rows_of.get((exam, method), []) if not math.isnan(row[metric])]
        by: dict[str, list[float]] = {}
        for row in rows:
            by.setdefault(row["region"], []).append(row[metric])
        return {region: float(np.mean(values)) for region, values in by.items()}

    def _scores(self) -> list[str]:
        return [name for name in self.rows[0] if name.startswith("score_")]

    def to_frame(self) -> Any:
        """The rows as a pandas DataFrame."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_frame needs pandas: pip install 'softde[viz]'") from None
        return pandas.DataFrame(list(self.rows))

    def to_parquet(self, path: str | Path) -> None:
        """Write the rows as a Parquet file."""
        if expanded(path).suffix.lower() != ".parquet":
            raise ValueError(f"path: expected a name that ends in .parquet, got {str(path)!r}")
        self.save(path)

    def save(self, path: str | Path) -> None:
        """Write the rows as .parquet or .csv, or what a person reads as .md."""
        from softde.surveys.human.columns import write_table

        check_suffix(path)
        if expanded(path).suffix.lower() == ".md":
            write_file(path, self.to_markdown().encode())
        else:
            write_table(path, {name: [row[name] for row in self.rows] for name in self.rows[0]})

    def to_markdown(self) -> str:
        """Per exam: a line per method, paired tests, and losses by region."""
        return as_markdown(self)

    def __str__(self) -> str:
        return as_text(self)


def check_suffix(path: str | Path) -> None:
    """Refuse a file that `MethodTable.save` would not know how to write."""
    suffix = expanded(path).suffix.lower()
    if suffix not in (".parquet", ".csv", ".md"):
        raise ValueError(f"path: expected a name that ends in .parquet, .csv or .md, got {str(path)!r}")


def region_mean(grid: Array) -> float:
    """Mean over regions of each one's mean over seeds, of what is not NaN."""
    return known_mean([known_mean(row) for row in grid])


def known_mean(values: Sequence[float] | Iterable[float]) -> float:
    """Mean of what is not NaN; NaN where nothing is."""
    known = [float(value) for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
