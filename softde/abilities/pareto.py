"""Alignment beside ability: which methods no other one beats in both."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softde.abilities.statistics import Estimate
from softde.abilities.table import Abilities
from softde.files import write_file

WIDTH = 100
HEADS = ("loss", "accuracy", "dominated by")


@dataclass(frozen=True)
class Point:
    """A method's loss (lower is better) and accuracy (a share, higher is better), as numbers or with intervals."""

    name: str
    loss: Estimate
    accuracy: Estimate

    def __post_init__(self) -> None:
        for name in ("loss", "accuracy"):
            given: Any = getattr(self, name)
            value = given if isinstance(given, Estimate) else Estimate(_number(given, f"{self.name!r}: {name}"))
            if not math.isfinite(value.value):
                raise ValueError(f"{self.name!r}: {name}: expected a finite number, got {value.value}")
            object.__setattr__(self, name, value)

    def beats(self, other: Point) -> bool:
        """Is it as good in both and better in one?"""
        no_worse = self.loss.value <= other.loss.value and self.accuracy.value >= other.accuracy.value
        return no_worse and (self.loss.value, self.accuracy.value) != (other.loss.value, other.accuracy.value)

    def clearly_beats(self, other: Point) -> bool:
        """Is it better in both by intervals that do not touch? No, where an interval is missing."""
        return self.loss.high < other.loss.low and self.accuracy.low > other.accuracy.high


@dataclass(frozen=True)
class Pareto:
    """Points by rising loss; see `front` and `dominated_by`."""

    points: tuple[Point, ...]
    chance: float | None = None

    @property
    def front(self) -> tuple[str, ...]:
        """Names of the points that none beats, by rising loss."""
        return tuple(p.name for p in self.points if not self.dominated_by(p))

    def dominated_by(self, point: Point) -> tuple[str, ...]:
        """Names of the points that beat it."""
        return tuple(other.name for other in self.points if other.beats(point))

    def clearly_dominated_by(self, point: Point) -> tuple[str, ...]:
        """Names of those that beat it beyond both intervals."""
        return tuple(other.name for other in self.points if other.clearly_beats(point))

    def records(self) -> list[dict[str, Any]]:
        """One flat dict per point."""
        return [
            {
                "name": p.name,
                **{f"{axis}{end}": v for axis, e in _axes(p) for end, v in _ends(e)},
                "front": not self.dominated_by(p),
                "dominated_by": ", ".join(self.dominated_by(p)),
                "clearly_dominated_by": ", ".join(self.clearly_dominated_by(p)),
            }
            for p in self.points
        ]

    def to_frame(self) -> Any:
        """The records as a pandas DataFrame."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_frame needs pandas: pip install 'softde[viz]'") from None
        return pandas.DataFrame(self.records())

    def to_markdown(self) -> str:
        """The table in Markdown."""
        rows = [["", *HEADS], ["---", "---:", "---:", "---"], *self._cells()]
        table = "\n".join(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in row)} |" for row in rows)
        return f"{table}\n\n{self.legend()}\n"

    def __str__(self) -> str:
        rows = [["", *HEADS], *self._cells()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS) + 1)]
        left = (0, len(HEADS))
        lines = [
            "  ".join(f"{c:<{w}}" if i in left else f"{c:>{w}}" for i, (c, w) in enumerate(zip(r, widths, strict=True)))
            for r in rows
        ]
        return "\n".join(
            [
                lines[0].rstrip(),
                "-" * len(lines[0]),
                *(line.rstrip() for line in lines[1:]),
                "",
                textwrap.fill(self.legend(), WIDTH),
            ]
        )

    def legend(self) -> str:
        """How to read it."""
        return (
            f"On the front, since no other has both a lower loss and a higher accuracy: {', '.join(self.front)}. "
            "An asterisk: beaten beyond the intervals of both."
        )

    def plot(self, path: str | Path | None = None) -> Any:
        """A figure of the points with their intervals, the front as steps; written as PNG if a path is given.

        Raises
        ------
        ImportError
            matplotlib is missing.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("plots need matplotlib; install it with pip install 'softde[viz]'") from error
        figure = Figure(figsize=(6.4, 4.4), layout="constrained", dpi=150)
        axes = figure.subplots()
        for p in self.points:
            colour = "tab:blue" if p.name in self.front else "0.6"
            axes.errorbar(
                p.loss.value, p.accuracy.value, xerr=_bars(p.loss), yerr=_bars(p.accuracy), fmt="o", color=colour,
                elinewidth=1,
            )  # fmt: skip
            axes.annotate(p.name, (p.loss.value, p.accuracy.value), (4, 4), textcoords="offset points", fontsize=8)
        best = [p for p in self.points if p.name in self.front]
        steps = [p.loss.value for p in best], [p.accuracy.value for p in best]
        axes.plot(*steps, color="tab:blue", linewidth=1, drawstyle="steps-post")  # no method lies between two
        if self.chance is not None:
            axes.axhline(self.chance, color="0.4", linestyle=":", linewidth=1)
            axes.annotate("chance", (1, self.chance), (-4, 3), xycoords=("axes fraction", "data"),
                          textcoords="offset points", ha="right", fontsize=8)  # fmt: skip
        axes.set_xlabel("loss (lower is better)")
        axes.set_ylabel("accuracy")
        if path is not None:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png")
            write_file(path, buffer.getvalue())
        return figure

    def _cells(self) -> list[list[str]]:
        rows = []
        for p in self.points:
            clear = self.clearly_dominated_by(p)
            beaten = [name + "*" * (name in clear) for name in self.dominated_by(p)]
            rows.append(
                [p.name, _text(p.loss, 1.0, 2), _text(p.accuracy, 100.0, 1), ", ".join(beaten) or "none: front"]
            )
        return rows


def pareto(points: Iterable[Point], chance: float | None = None) -> Pareto:
    """Points as a `Pareto`. chance : accuracy of guessing, a line in the figure.

    Raises
    ------
    ValueError
        No points, or two of one name.
    """
    found = sorted(points, key=lambda p: (p.loss.value, -p.accuracy.value))
    names = [p.name for p in found]
    if not found or len(set(names)) < len(names):
        twice = next((n for n in names if names.count(n) > 1), None)
        raise ValueError(f"points: expected names that differ, got {twice!r} twice" if found else "points: got none")
    return Pareto(tuple(found), chance)


def points_of(table: Abilities, losses: Mapping[str, float | Estimate], quiz: str | None = None) -> tuple[Point, ...]:
    """The conditions of a table that have a loss, with their accuracy on a quiz.

    Raises
    ------
    ValueError
        A loss of a condition that the table does not have.
    """
    return tuple(Point(name, loss, table.row(name, quiz).accuracy) for name, loss in losses.items())  # type: ignore[arg-type]


def _number(value: Any, what: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{what}: expected a number or an Estimate, got {value!r}") from None


def _axes(point: Point) -> tuple[tuple[str, Estimate], ...]:
    return ("loss", point.loss), ("accuracy", point.accuracy)


def _ends(estimate: Estimate) -> tuple[tuple[str, float | None], ...]:
    low, high = (None if math.isnan(v) else v for v in (estimate.low, estimate.high))
    return ("", estimate.value), ("_low", low), ("_high", high)


def _bars(estimate: Estimate) -> Sequence[Sequence[float]] | None:
    if math.isnan(estimate.low):
        return None
    return [[max(0.0, estimate.value - estimate.low)], [max(0.0, estimate.high - estimate.value)]]


def _text(estimate: Estimate, scale: float, digits: int) -> str:
    value, low, high = (scale * v for v in (estimate.value, estimate.low, estimate.high))
    return f"{value:.{digits}f}" + ("" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]")
