"""optimizer="auto": what won the benchmark for a kind of read-out and a budget.

``python benchmarks/bench_optim_quality.py --auto-table --write`` makes TABLE from the records: the name with
the best mean rank, on the embedded model where it was searched with several. docs/optimizers.md shows the evidence.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, get_args

from softde.checks import shown, whole
from softde.optim.base import Optimizer, check_optimizer
from softde.optim.named import AUTO, named

ReadoutKind = Literal["smooth", "coarse", "noisy"]


class Row(NamedTuple):
    """Up to this budget, for this kind of read-out: the optimiser to take."""

    readout: ReadoutKind
    budget: float
    name: str


# rule: made by benchmarks/bench_optim_quality.py --auto-table --write
TABLE = (
    Row("smooth", 20_000, "cma-gn"),
    Row("coarse", 20_000, "shade-gn"),
    Row("noisy", 4_000, "es"),
    Row("noisy", 20_000, "es-wide"),
)
# end of the rule
NEED_CMA, WITHOUT_CMA = ("cma", "cma-gn", "cma-diagonal", "bbt"), "shade-gn"


class Choice(NamedTuple):
    """An optimiser, its name, and why it was chosen, in one sentence."""

    optimizer: Optimizer[Any]
    name: str
    why: str


def choose(dim: int, budget: int, readout: ReadoutKind = "smooth", population: int | None = None) -> Choice:
    """The optimiser for a search over `dim` numbers with `budget` candidates.

    readout : "smooth" (expected values), "coarse" (the most probable answer: a loss with plateaus) or "noisy" (sampled
        answers). population : candidates per generation; default: the chosen optimiser's own.
    """
    if readout not in get_args(ReadoutKind):
        raise ValueError(f"readout: expected 'smooth', 'coarse' or 'noisy', got {shown(readout)}")
    dim, budget = whole(dim, "dim"), whole(budget, "budget")
    rows = [row for row in TABLE if row.readout == readout]
    row = next((row for row in rows if budget <= row.budget), rows[-1])
    name, note = row.name, ""
    if name in NEED_CMA and (dim < 2 or find_spec("cma") is None):
        note = f"; {name} won, but needs {'two numbers' if dim < 2 else 'pip install cma'}"
        name = WITHOUT_CMA
    why = f"auto chose {name} for {dim:,} numbers, {budget:,} candidates and a {readout} read-out{note}"
    return Choice(named(name, dim, budget, population), name, why)


def resolve(optimizer: Optimizer[Any] | str, dim: int, budget: int, readout: ReadoutKind = "smooth") -> Choice:
    """The optimiser that is meant, by itself or by name, and why it was chosen if that is left to "auto"."""
    if isinstance(optimizer, str) and optimizer == AUTO:
        return choose(dim, budget, readout)
    if isinstance(optimizer, str):
        return Choice(named(optimizer, dim, budget), optimizer, "")
    check_optimizer(optimizer)
    return Choice(optimizer, type(optimizer).__name__, "")
