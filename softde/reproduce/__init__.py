"""Published designs, each one resumable command: `plan` says what it takes, `run` does it and makes one table."""

from softde.reproduce.choenni2024 import choenni2024
from softde.reproduce.culturespa2024 import culturespa2024
from softde.reproduce.masoud2025 import masoud2025
from softde.reproduce.outcome import Outcome
from softde.reproduce.planning import Line, Plan, plan
from softde.reproduce.running import run
from softde.reproduce.study import Made, Probe, Rate, Step, Study, Work

__all__ = [
    "Line", "Made", "Outcome", "Plan", "Probe", "Rate", "Step", "Study", "Work", "choenni2024", "culturespa2024",
    "masoud2025", "plan", "run",
]  # fmt: skip
