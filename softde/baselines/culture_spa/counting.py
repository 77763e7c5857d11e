"""How far a stage is."""

from __future__ import annotations

import sys
import time

from softde.progress import INTERVAL, clock


class Count:
    """Says on standard error how far a stage is, by rewriting a line on a terminal and else every few seconds."""

    def __init__(self, what: str, total: int, done: int = 0, on: bool = True) -> None:
        self.what, self.total, self.first, self.on = what, total, done, on
        self.began, self.last = time.monotonic(), -INTERVAL

    def __call__(self, done: int, more: str = "") -> None:
        now, end = time.monotonic(), done >= self.total
        terminal = sys.stderr.isatty()
        if not self.on or not (terminal or end or now - self.last >= INTERVAL):
            return
        self.last = now
        left = (now - self.began) / max(done - self.first, 1) * (self.total - done)
        line = f"{self.what} {done}/{self.total}  {more}{'  ' if more else ''}{clock(left)} left"
        sys.stderr.write(f"\r\x1b[K{line}" + ("\n" if end else "") if terminal else f"{line}\n")
        sys.stderr.flush()
