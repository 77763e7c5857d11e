"""Rows of the engine benchmark: what one is, its numbers for a whole population, the table, and the targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from measuring import Work
from torch import Tensor

COLUMNS = ("", "way (candidates run)", "tokens", "seconds", "candidates/s", "× (c')", "× (a)", "memory, GB",
           "max error", "of token floor")  # fmt: skip
ON_A_GPU = "of matmul"
OURS = ("e", "f")
SAVED = 0.3  # of the tokens of a run on the embedded model, by early rejection


@dataclass(frozen=True)
class Way:
    """One row: how it is called, what it needs at least per candidate, and a function that asks and answers.

    row : the letter of the table. work : None where it depends on the answers; the floor then counts the tokens used.
    run : () → option log-probabilities (candidates, items, options), None where there are only losses; and tokens.
    """

    key: str
    row: str
    name: str
    placement: str
    candidates: int
    work: Work | None
    run: Callable[[], tuple[Tensor | None, int]]


@dataclass
class Measured:
    """What was seen of a row, for the candidates that were run."""

    tokens: int
    memory: int
    error: float | None
    times: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Yardsticks:
    """What the machine reaches in the same rounds.

    per_token : seconds, of a large plain forward. flops : operations per second of a large matrix product, on a GPU.
    """

    per_token: float
    forward_tokens: int
    flops: float | None


class Target(NamedTuple):
    """What one model on one device must reach; memory in bytes above the model."""

    late: float  # times as fast as the padded batch, last token
    front: float
    naive: float  # late, times as fast as the loop with `generate`
    floor: float  # share of the token-count floor
    memory: float
    error: float  # float32
    matmul: float | None = None  # share of a large matrix product's speed


TARGETS = {
    ("random-llama-4x640", "cpu"): Target(7.5, 2.0, 9.0, 0.85, 1.5e9, 1e-4),
    ("llama-3-8b-random", "cuda"): Target(8.0, 2.2, 200.0, 0.80, 8e9, 1e-3, 0.5),
}


def scaled(ways: Sequence[Way], seen: Mapping[str, Measured], population: int, yard: Yardsticks, model: Any,
           float32_errors: Mapping[str, float | None]) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Rows by key as plain values, scaled to the population."""
    each = {way.key: statistics.median(seen[way.key].times) / way.candidates for way in ways}
    rows = {}
    for way in ways:
        one, row, work = each[way.key], seen[way.key], way.work
        necessary = work.tokens if work else row.tokens / way.candidates
        rows[way.key] = {
            "row": way.row,
            "name": way.name,
            "candidates_run": way.candidates,
            "tokens": round(row.tokens * population / way.candidates),
            "seconds": one * population,
            "candidates_per_second": 1 / one,
            "speed_to_batch": each["c'"] / one,
            "speed_to_generate": each["a"] / one,
            "memory": row.memory,
            "error": row.error,
            "float32_error": float32_errors.get(way.key),
            "necessary_tokens": round(necessary * population),
            "floor_share": necessary * yard.per_token / one,
            "matmul_share": work.flops(model) / one / yard.flops if work and yard.flops else None,
            "times": row.times,
        }
    return rows


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown; the last column is there on a GPU only."""
    on_a_gpu = any(row["matmul_share"] is not None for row in rows.values())
    head = [*COLUMNS, *([ON_A_GPU] if on_a_gpu else [])]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows.values():
        cells = [
            f"({row['row']})",
            f"{row['name']} ({row['candidates_run']})",
            f"{row['tokens']:,}",
            f"{row['seconds']:.3g}",
            f"{row['candidates_per_second']:.3g}",
            f"{row['speed_to_batch']:.2f}",
            f"{row['speed_to_generate']:.2f}",
            f"{row['memory'] / 1e9:.2f}",
            "–" if row["error"] is None else f"{row['error']:.1e}",
            f"{row['floor_share']:.0%}",
            *(["–" if row["matmul_share"] is None else f"{row['matmul_share']:.0%}"] if on_a_gpu else []),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts(
    target: Target | None, rows: Mapping[str, Mapping[str, Any]], saved: float | None
) -> list[tuple[bool, str]]:
    """(reached, sentence) for every target; a value that was not measured is missed."""
    found = []

    def at_least(what: str, value: float | None, wanted: float) -> None:
        found.append((value is not None and value >= wanted, f"{what}: {shown(value)}, at least {wanted:g}"))

    def at_most(what: str, value: float | None, wanted: float) -> None:
        found.append((value is not None and value <= wanted, f"{what}: {shown(value)}, at most {wanted:g}"))

    if target is not None:
        at_least("late against (c')", rows["late"]["speed_to_batch"], target.late)
        at_least("front against (c')", rows["front"]["speed_to_batch"], target.front)
        at_least("late against (a)", rows["late"]["speed_to_generate"], target.naive)
        for key in ("late", "front"):
            at_least(f"{key}, share of the token floor", rows[key]["floor_share"], target.floor)
            if target.matmul is not None:
                at_least(f"{key}, share of a large matmul", rows[key]["matmul_share"], target.matmul)
        for key, row in rows.items():
            if row["row"] in OURS:
                at_most(f"{key}, bytes above the model", row["memory"], target.memory)
            if row["row"] == OURS[0]:
                at_most(f"{key}, error in float32", row["float32_error"], target.error)
    if target is not None or saved is not None:
        at_least("tokens saved by early rejection", saved, SAVED)
    return found


def shown(value: float | None) -> str:
    """Three digits."""
    return "not measured" if value is None else f"{value:.3g}"
