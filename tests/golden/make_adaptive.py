"""Write adaptive.json: best losses of JADE, SHADE, L-SHADE and jSO by tests/reference/slow_adaptive.py.

Run from the repository root: ``python -m tests.golden.make_adaptive`` (a minute or two).
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.reference.slow_adaptive import FUNCTIONS, run

DIM, LOW, HIGH, BUDGET, SEEDS = 10, -5.0, 5.0, 2400, 20
KINDS = {
    "jade": {"size": 24, "p": 0.1, "H": 1, "r_arc": 1.0},
    "shade": {"size": 24, "p": 0.1, "H": 10, "r_arc": 1.0},
    "lshade": {"size": 48, "p": 0.11, "H": 6, "r_arc": 2.6},
    "jso": {"size": 48, "p": 0.25, "H": 5, "r_arc": 1.0},
}


def main() -> None:
    """Run every kind on every function and write the file beside this script."""
    settings = {"dim": DIM, "low": LOW, "high": HIGH, "budget": BUDGET}
    rows = [
        {"kind": kind, "function": name, **options,
         "best": [float(f"{run(kind, name, DIM, budget=BUDGET, low=LOW, high=HIGH, seed=seed, **options):.6g}")
                  for seed in range(SEEDS)]}
        for kind, options in KINDS.items() for name in FUNCTIONS
    ]  # fmt: skip
    text = ",\n    ".join(json.dumps(row) for row in rows)
    path = Path(__file__).with_name("adaptive.json")
    path.write_text(f'{{\n  "settings": {json.dumps(settings)},\n  "runs": [\n    {text}\n  ]\n}}\n')


if __name__ == "__main__":
    main()
