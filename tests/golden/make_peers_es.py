"""Write peers_es.json: how many evaluations optimisers of nevergrad and EvoTorch need to reach a target.

Run from the repository root, in an environment with both: ``python tests/golden/make_peers_es.py`` (minutes). Known to
work with nevergrad 1.0.12 (which needs bayesian-optimization 1.4.0) and EvoTorch 0.6.1.

A row: our optimiser and its settings, its peer, function, start (every coordinate; PSO starts uniform in [-5, 5]),
target, and the peer's evaluations for each seed, the limit where it did not get there.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import nevergrad as ng
import numpy as np
import torch
from evotorch.algorithms.functional import pgpe, pgpe_ask, pgpe_tell

DIM, LIMIT, SEEDS = 10, 3_000, 7
FUNCTIONS = {
    "sphere": lambda x: float((x**2).sum()),
    "rosenbrock": lambda x: float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()),
    "rastrigin": lambda x: float((x**2 - 10 * np.cos(2 * np.pi * x) + 10).sum()),
}
PROBLEMS = [  # our optimiser, its settings, peer, function, start, target
    ("OnePlusOneES", {"population_size": 1, "sigma": 1.0}, "OnePlusOne", "sphere", 3.0, 1e-6),
    ("OnePlusOneES", {"population_size": 1, "sigma": 1.0}, "OnePlusOne", "rosenbrock", 0.0, 8.0),
    ("SPSA", {"population_size": 2, "c": 0.1}, "SPSA", "sphere", 3.0, 0.1),
    ("OpenAIES", {"population_size": 16, "sigma": 0.1, "lr": 0.1}, "PGPE", "sphere", 3.0, 0.1),
    ("OpenAIES", {"population_size": 16, "sigma": 0.1, "lr": 0.1}, "PGPE", "rastrigin", 3.3, 100.0),
    ("PSO", {"population_size": 20, "neighbourhood": "global"}, "PSO", "sphere", None, 1e-2),
    ("PSO", {"population_size": 20, "neighbourhood": "global"}, "PSO", "rosenbrock", None, 50.0),
    ("PSO", {"population_size": 20, "neighbourhood": "ring"}, "PSO", "rastrigin", None, 30.0),
]


def nevergrad_evaluations(
    peer: str, function: str, start: float | None, settings: dict, target: float, seed: int
) -> int:
    """Ask and tell one at a time, as nevergrad does."""
    if start is None:
        array = ng.p.Array(shape=(DIM,), lower=-5.0, upper=5.0)
        build = ng.families.ConfPSO(popsize=settings["population_size"])
    else:
        array = ng.p.Array(init=np.full(DIM, start)).set_mutation(sigma=settings.get("sigma", 1.0))
        build = ng.optimizers.registry[peer]
    array.random_state = np.random.RandomState(seed)
    optimizer = build(array, budget=LIMIT)
    for count in range(1, LIMIT + 1):
        candidate = optimizer.ask()
        loss = FUNCTIONS[function](candidate.value)
        if loss <= target:
            return count
        optimizer.tell(candidate, loss)
    return LIMIT


def pgpe_evaluations(function: str, start: float, settings: dict, target: float, seed: int) -> int:
    """PGPE with a fixed spread, antithetic pairs, centred ranks and Adam is OpenAI-ES."""
    torch.manual_seed(seed)
    n, count = settings["population_size"], 0
    state = pgpe(
        center_init=torch.full((DIM,), start, dtype=torch.float64),
        center_learning_rate=settings["lr"],
        stdev_learning_rate=0.0,
        objective_sense="min",
        ranking_method="centered",
        optimizer="adam",
        stdev_init=settings["sigma"],
    )
    while count < LIMIT:
        x = pgpe_ask(state, popsize=n)
        losses = torch.tensor([FUNCTIONS[function](row) for row in x.numpy()])
        count += n
        if float(losses.min()) <= target:
            return count
        state = pgpe_tell(state, x, losses)
    return LIMIT


def main() -> None:
    """Run every problem and write the file beside this script."""
    rows = []
    for optimizer, settings, peer, function, start, target in PROBLEMS:
        needed = [
            pgpe_evaluations(function, start, settings, target, seed) if peer == "PGPE" else
            nevergrad_evaluations(peer, function, start, settings, target, seed)
            for seed in range(SEEDS)
        ]  # fmt: skip
        names = ("optimizer", "ours", "peer", "function", "start", "target", "evaluations")
        values = (optimizer, settings, peer, function, start, target, needed)
        rows.append(dict(zip(names, values, strict=True)))
    versions = {name: version(name) for name in ("nevergrad", "evotorch")}
    text = ",\n    ".join(json.dumps(row) for row in rows)
    head = f'"dim": {DIM}, "limit": {LIMIT}, "versions": {json.dumps(versions)}'
    path = Path(__file__).with_name("peers_es.json")
    path.write_text(f'{{\n  {head},\n  "problems": [\n    {text}\n  ]\n}}\n')


if __name__ == "__main__":
    main()
