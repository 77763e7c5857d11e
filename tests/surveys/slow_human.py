"""Weighted shares and means of a CSV of respondents, cell by cell: slow, obvious, independent of softde."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path


def shares(
    path: Path, items: Mapping[str, Sequence[float]], region: str, weight: str | None, separator: str = ","
) -> dict[tuple[str, str], list[float]]:
    """(region, item) → share of each option, given the options' codes; no entry where a region gave no valid answer."""
    sums: dict[tuple[str, str], list[float]] = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file, delimiter=separator):
            for item, codes in items.items():
                if row[item] in ("", "NA", ".") or float(row[item]) not in codes:
                    continue
                cell = sums[row[region], item]
                cell.extend([0.0] * (len(codes) - len(cell)))
                cell[list(codes).index(float(row[item]))] += float(row[weight]) if weight else 1.0
    return {key: [x / sum(cell) for x in cell] for key, cell in sums.items()}
