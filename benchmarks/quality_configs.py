"""The rows of the quality benchmark: every optimiser of softde by its name, and settings that could replace one."""

from __future__ import annotations

from typing import Any

from quality_peers import PEERS
from quality_runs import Case, Config, Ours

from softde.optim import DE, Optimizer
from softde.optim.auto import choose
from softde.optim.cmaes import CMAES
from softde.optim.named import named
from softde.optim.policies import TwoStage
from softde.optim.subspace import Subspace


def auto(case: Case) -> Optimizer[Any]:
    """What `align` takes by default."""
    return choose(case.dim, case.budget, case.kind).optimizer


def two_stage(case: Case) -> Optimizer[Any]:
    """A quarter of the budget for a global search, the rest for a local one around the best that it found."""
    return TwoStage(named("de", case.dim, case.budget), Subspace(CMAES(16), min(200, case.dim)), case.budget // 4)


def called(name: str, spread: float = 1.0) -> Ours:
    """The optimiser that `align --optimizer NAME` takes."""
    return Ours(name, lambda case: named(name, case.dim, case.budget), spread)


# `auto` comes last: where it chooses what another row is, that row's record is its own.
OURS = (
    Ours("rand1bin n32", lambda _: DE(32, "rand1bin", F=0.5, CR=0.9)),
    Ours("best1bin n24 s.3", lambda _: DE(24, "best1bin", F=0.5, CR=0.9), spread=0.3),
    called("de"),
    called("cma", spread=0.3),
    called("cma-gn", spread=0.3),
    called("shade", spread=0.3),
    called("shade-gn", spread=0.3),
    called("lshade"),
    called("jso"),
    called("cma-diagonal"),
    called("bbt"),
    called("es"),
    called("es-wide"),
    called("spsa"),
    called("1+1"),
    called("pso"),
    called("random"),
    Ours("cma d200 n16 s.3", lambda case: Subspace(CMAES(16), min(200, case.dim)), spread=0.3),
    Ours("auto", auto, spread=0.3),
)
ASIDE = (  # questions of their own: run by name only
    Ours("two-stage", two_stage),
    Ours("two-stage s.3", two_stage, spread=0.3),
)
ROWS: tuple[Config, ...] = (*OURS, *PEERS, *ASIDE)
CONFIGS = {config.name: config for config in ROWS}
SLOW = ("scipy rand1bin n32", "cmaes SepCMA n32", "EvoX JaDE n32", "evosax CR-FM-NES n16",
        "nevergrad LognormalDiscrete(1+1)")  # fmt: skip
DEFAULT = tuple(row.name for row in (*OURS, *PEERS) if row.name not in SLOW)
