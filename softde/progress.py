"""What a search shows while it runs, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

INTERVAL = 5.0  # seconds between lines where the terminal cannot rewrite one


@dataclass(frozen=True)
class Progress:
    """After one generation: its line of the log, and how fast this session goes."""

    line: dict[str, Any]
    budget: int
    seconds: float
    evaluations: int  # in this session
    last: bool  # nothing more will come

    @property
    def rate(self) -> float:
        """Candidates per second."""
        return self.evaluations / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        return max(0, self.budget - self.line["evaluations"]) / max(self.rate, 1e-9)

    def __str__(self) -> str:
        line = self.line
        mass = " n/a" if line["option_mass"] is None else f"{line['option_mass']:4.2f}"
        return (
            f"{line['evaluations']:>{len(str(self.budget))}}/{self.budget}  best {number(line['best'])}  "
            f"median {number(line['median'])}  option mass {mass}  {self.rate:5.1f}/s  {clock(self.seconds_left)} left"
        )


def printer() -> Callable[[Progress], None]:
    """Rewrites one line on a terminal; elsewhere prints the first, the last and one every few seconds."""
    last = [-INTERVAL]

    def show(progress: Progress) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K" + str(progress) + ("\n" if progress.last else ""))
        elif progress.last or time.monotonic() - last[0] >= INTERVAL:
            last[0] = time.monotonic()
            sys.stderr.write(str(progress) + "\n")
        sys.stderr.flush()

    return show


def number(value: float | None) -> str:
    return f"{value:6.1f}" if value is not None else "   n/a"


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
