"""Tables of answers that the tests of factor models share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from softde.surveys import Item, Survey, options

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "factors.json").read_text())
TABLE = np.array(GOLDEN["table"], dtype=np.float64)  # (300, 9) answers, made and fitted by tests/golden/make_factors.py

# Correlations of six school subjects for 220 boys and what maximum likelihood makes of them: NAG Library, Mark 27.2,
# routine G03CCF, example data and results (support.nag.com/numeric/nl/nagdoc_27.2/examples/baseresults/g03ccfe.r.html),
# which takes them from Lawley and Maxwell, Factor Analysis as a Statistical Method, 1971.
SUBJECTS = np.array(
    [
        [1.000, 0.439, 0.410, 0.288, 0.329, 0.248],
        [0.439, 1.000, 0.351, 0.354, 0.320, 0.329],
        [0.410, 0.351, 1.000, 0.164, 0.190, 0.181],
        [0.288, 0.354, 0.164, 1.000, 0.595, 0.470],
        [0.329, 0.320, 0.190, 0.595, 1.000, 0.464],
        [0.248, 0.329, 0.181, 0.470, 0.464, 1.000],
    ]
)
SUBJECT_LOADINGS = np.array(
    [[0.553, -0.429], [0.568, -0.288], [0.392, -0.450], [0.740, 0.273], [0.724, 0.211], [0.595, 0.132]]
)
SUBJECT_UNIQUENESSES = np.array([0.510, 0.594, 0.644, 0.377, 0.431, 0.628])
SUBJECT_SCORE_WEIGHTS = np.array(
    [[0.1932, -0.3920], [0.1703, -0.2265], [0.1085, -0.3262], [0.3495, 0.3374], [0.2989, 0.2286], [0.1688, 0.0978]]
)


def simulated(rows: int = 5_000, items: int = 24, factors: int = 4, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """(rows, items) answers from 1 to 10 and the (items, factors) loadings they were drawn with: simple structure."""
    rng = np.random.default_rng(seed)
    loadings = np.zeros((items, factors))
    for item in range(items):
        loadings[item, item % factors] = rng.uniform(0.5, 0.85)
        loadings[item, (item + 1) % factors] = rng.uniform(-0.1, 0.1)
    noise = rng.standard_normal((rows, items)) * np.sqrt(1 - (loadings**2).sum(axis=1))
    latent = rng.standard_normal((rows, factors)) @ loadings.T + noise
    return np.clip(np.round(5.5 + 2 * latent), 1, 10), loadings


def survey_of(items: int, low: int = 1, high: int = 7, prefix: str = "item") -> Survey:
    """A survey with items item1, item2, … and the options low … high."""
    scale = options([f"answer {value}" for value in range(low, high + 1)], values=range(low, high + 1))
    made = tuple(Item(f"{prefix}{i}", f"Question {i}?", scale) for i in range(1, items + 1))
    return Survey(id="made-up", title="Made up", items=made)


def region_means(folder: Path) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """(19 regions, 259 items) means of the shares in CultureSPA's file, NaN for no answers; region codes; item ids."""
    shares = json.loads((folder / "culturespa" / "proportions_group_by_country.json").read_text())
    items = tuple(
        sorted({item for region in shares.values() for item in region}, key=lambda i: (int(i[1:].rstrip("AB")), i))
    )
    means = np.full((len(shares), len(items)), np.nan)
    for row, region in enumerate(shares.values()):
        for column, item in enumerate(items):
            given = region.get(item, {})
            total = sum(given.values())
            if total > 0:
                means[row, column] = sum(float(value) * share for value, share in given.items()) / total
    return means, tuple(shares), items
