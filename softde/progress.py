"""What a search shows while it runs, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

SHOWN = 5  # seeds whose best losses are shown
FINE = 2.0  # below it a loss has four digits
INTERVAL = 5.0  # seconds between lines where the terminal cannot rewrite one


@dataclass(frozen=True)
class Progress:
    """After one generation: its line of the log, and how fast this session goes.

    Of several seeds, `lines` has the last line of each that has one, and `line` sums them up; see `summary`.
    """

    line: dict[str, Any]
    budget: int
    seconds: float
    evaluations: int  # in this session
    last: bool  # nothing more will come
    lines: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()  # on the generation, in sentences

    @property
    def rate(self) -> float:
        """Candidates per second."""
        return self.evaluations / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        return max(0, self.budget - self.line["evaluations"]) / max(self.rate, 1e-9)

    def __str__(self) -> str:
        line = self.line
        bests = [number(one["best"]) for one in self.lines[:SHOWN]] if len(self.lines) > 1 else [number(line["best"])]
        more = f" (lowest of {len(self.lines)}{number(line['best'])})" if len(self.lines) > SHOWN else ""
        mass = " n/a" if line["option_mass"] is None else f"{line['option_mass']:4.2f}"
        return (
            f"{line['evaluations']:>{len(str(self.budget))}}/{self.budget}  best {' '.join(bests)}{more}  "
            f"median {number(line['median'])}  option mass {mass}  {self.rate:5.1f}/s  {clock(self.seconds_left)} left"
        )


def summary(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One line for several seeds: candidates added up, the best of the best, medians of all else; one seed's own."""
    if len(lines) == 1:
        return lines[0]
    known = {k: [e[k] for e in lines if e[k] is not None] for k in ("best", "median", "option_mass")}
    return {
        "generation": max(e["generation"] for e in lines),
        "evaluations": sum(e["evaluations"] for e in lines),
        "best": min(known["best"], default=None),
        **{k: median(known[k]) if known[k] else None for k in ("median", "option_mass")},
    }


def printer() -> Callable[[Progress], None]:
    """Rewrites one line on a terminal; elsewhere prints the first, the last and one every few seconds."""
    last = [-INTERVAL]

    def show(progress: Progress) -> None:
        for note in progress.notes:
            sys.stderr.write(f"{note}\n")
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K" + str(progress) + ("\n" if progress.last else ""))
        elif progress.last or time.monotonic() - last[0] >= INTERVAL:
            last[0] = time.monotonic()
            sys.stderr.write(str(progress) + "\n")
        sys.stderr.flush()

    return show


def number(value: float | None) -> str:
    return "   n/a" if value is None else f"{value:6.1f}" if value >= FINE else f"{value:6.4f}"


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
