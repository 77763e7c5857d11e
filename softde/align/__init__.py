"""align(): search a prompt space for the soft prompt under which a model answers a survey like a region.

A search is `Run.ask` → evaluate → `Run.told` → `Run.save`, generation by generation. Several seeds go through the same
loop side by side (`Session`): their candidates are evaluated together, and nothing else is shared.
"""

from __future__ import annotations

from softde.align.result import INTERRUPTED, Result, Results
from softde.align.run import FRESH, READINGS, Run
from softde.align.session import Session
from softde.align.settings import AUTO, BUDGET, kind_of_readout
from softde.align.stops import Stops
from softde.align.verb import align

__all__ = [
    "AUTO",
    "BUDGET",
    "FRESH",
    "INTERRUPTED",
    "READINGS",
    "Result",
    "Results",
    "Run",
    "Session",
    "Stops",
    "align",
    "kind_of_readout",
]
