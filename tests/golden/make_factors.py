"""Write factors.json: what factor_analyzer gives for a simulated table, for tests where it is not installed.

Run from the repository root, with the extra `factors` installed: ``python tests/golden/make_factors.py`` (seconds).
"""

from __future__ import annotations

import json
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
from factor_analyzer import FactorAnalyzer, calculate_bartlett_sphericity, calculate_kmo

ROWS, ITEMS, FACTORS, SEED = 300, 9, 3, 7
METHODS = ("minres", "ml", "principal")
ROTATIONS = (
    None, "varimax", "quartimax", "oblimax", "equamax", "geomin_ort", "promax", "oblimin", "quartimin", "geomin_obl",
)  # fmt: skip


def table() -> np.ndarray:
    """(300, 9) answers from 1 to 7 with three correlated factors, three items each, one of each reversed."""
    rng = np.random.default_rng(SEED)
    phi = np.full((FACTORS, FACTORS), 0.3) + 0.7 * np.eye(FACTORS)
    scores = rng.standard_normal((ROWS, FACTORS)) @ np.linalg.cholesky(phi).T
    loadings = np.zeros((ITEMS, FACTORS))
    for item in range(ITEMS):
        loadings[item, item // 3] = (0.8, 0.7, -0.6)[item % 3]
    noise = rng.standard_normal((ROWS, ITEMS)) * np.sqrt(1 - (loadings**2).sum(axis=1))
    return np.clip(np.round(4 + 1.3 * (scores @ loadings.T + noise)), 1, 7)


def main() -> None:
    """Fit every method with every rotation and write the file beside this script."""
    values = table()
    warnings.simplefilter("ignore", FutureWarning)
    fits = []
    for method in METHODS:
        for rotation in ROTATIONS:
            if rotation == "oblimax" and method != "minres":  # takes factor_analyzer a second each
                continue
            fitted = FactorAnalyzer(FACTORS, rotation=rotation, method=method).fit(values)
            fits.append({"method": method, "rotation": rotation, "loadings": fitted.loadings_.round(9).tolist()})
    rotated = FactorAnalyzer(FACTORS, rotation="promax", method="minres").fit(values)
    kmo_items, kmo = calculate_kmo(values)
    statistic, p_value = calculate_bartlett_sphericity(values)
    content = {
        "versions": {name: metadata.version(name) for name in ("factor-analyzer", "scikit-learn", "numpy", "scipy")},
        "table": values.astype(int).tolist(),
        "promax_scores": rotated.transform(values)[:5].round(9).tolist(),
        "kmo": [float(kmo), kmo_items.tolist()],
        "bartlett": [float(statistic), float(p_value)],
        "fits": fits,
    }
    lines = ",\n  ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items() if key != "fits")
    rows = ",\n    ".join(json.dumps(fit) for fit in fits)
    path = Path(__file__).with_name("factors.json")
    path.write_text(f'{{\n  {lines},\n  "fits": [\n    {rows}\n  ]\n}}\n')


if __name__ == "__main__":
    main()
