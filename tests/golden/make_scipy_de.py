"""Write scipy_de.json: how many evaluations SciPy's differential evolution needs to reach a target.

Run from the repository root: ``python tests/golden/make_scipy_de.py`` (a few seconds).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import scipy
from scipy.optimize import differential_evolution

POPULATION, LOW, HIGH, LIMIT, SEEDS = 20, -5.0, 5.0, 8000, 20
FUNCTIONS = {
    "sphere": lambda x: float((x**2).sum()),
    "rosenbrock": lambda x: float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()),
    "rastrigin": lambda x: float((x**2 - 10 * np.cos(2 * np.pi * x) + 10).sum()),
}
PROBLEMS = [  # function, dim, target, strategy, F, CR
    ("sphere", 5, 1e-6, "rand1bin", 0.5, 0.9),
    ("sphere", 5, 1e-6, "best1bin", (0.5, 1.0), 0.7),
    ("sphere", 5, 1e-6, "currenttobest1bin", (0.5, 1.0), 0.9),
    ("sphere", 5, 1e-6, "rand2bin", 0.4, 0.9),
    ("sphere", 5, 1e-6, "best2bin", 0.5, 0.9),
    ("sphere", 5, 1e-6, "rand1exp", 0.5, 0.9),
    ("rosenbrock", 2, 1e-6, "rand1bin", 0.7, 0.9),
    ("rosenbrock", 2, 1e-6, "randtobest1bin", 0.7, 0.9),
    ("rastrigin", 2, 1e-6, "rand1bin", 0.5, 0.5),
    ("rastrigin", 2, 1e-6, "best2exp", 0.5, 0.5),
]


def evaluations(function: str, dim: int, target: float, strategy: str, F, CR: float, seed: int) -> int | None:
    """Evaluations until the target is first reached, or None."""
    count, reached = 0, None

    def counted(x: np.ndarray) -> float:
        nonlocal count, reached
        count, loss = count + 1, FUNCTIONS[function](x)
        if reached is None and loss <= target:
            reached = count
        return loss

    rng = np.random.default_rng(seed)
    differential_evolution(
        counted,
        [(LOW, HIGH)] * dim,
        init=rng.uniform(LOW, HIGH, (POPULATION, dim)),
        strategy=strategy,
        mutation=F,
        recombination=CR,
        maxiter=LIMIT // POPULATION - 1,
        tol=0,
        atol=0,
        polish=False,
        updating="deferred",
        rng=rng,
        callback=lambda intermediate_result: reached is not None,
    )
    return reached


def main() -> None:
    """Score every problem and write the file beside this script."""
    settings = {"population": POPULATION, "low": LOW, "high": HIGH, "limit": LIMIT, "scipy": scipy.__version__}
    rows = [
        {**dict(zip(("function", "dim", "target", "strategy", "F", "CR"), problem, strict=True)),
         "evaluations": [evaluations(*problem, seed) for seed in range(SEEDS)]}
        for problem in PROBLEMS
    ]  # fmt: skip
    path = Path(__file__).with_name("scipy_de.json")
    text = ",\n    ".join(json.dumps(row) for row in rows)
    path.write_text(f'{{\n  "settings": {json.dumps(settings)},\n  "problems": [\n    {text}\n  ]\n}}\n')


if __name__ == "__main__":
    main()
