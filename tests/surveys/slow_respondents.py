"""One respondent after another, one item after another: slow, obvious, without numpy and without softde's scoring.

A respondent is {item: option value}, an unanswered item left out. A form is described in plain tuples:

("weights", {variable: weight}, offset), ("mean", [(variable, low + high or None for not reversed)], least) and
("component", [(variable, mean, deviation, coefficient)], scale, offset, least).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Person = Mapping[str, float]
Composite = Callable[[Person], float | None]


def centred(person: Person, items: Sequence[str]) -> dict[str, float]:
    there = [person[i] for i in items if i in person]
    if not items:
        return dict(person)
    return {i: x - sum(there) / len(there) for i, x in person.items()} if there else {}


def score(person: Person, form: Any) -> float | None:
    kind = form[0]
    if kind == "weights":
        _, weights, offset = form
        if any(v not in person for v in weights):
            return None
        return sum(w * person[v] for v, w in weights.items()) + offset
    if kind == "mean":
        _, keys, least = form
        there = [person[v] if turned is None else turned - person[v] for v, turned in keys if v in person]
        return sum(there) / len(there) if len(there) >= least else None
    _, rows, scale, offset, least = form
    if sum(v in person for v, *_ in rows) < least:
        return None
    return scale * sum(c * (person[v] - m) / d for v, m, d, c in rows if v in person) + offset


def people(
    answers: Sequence[Person], centre: Sequence[str], least: int, composites: Mapping[str, Composite]
) -> list[dict[str, float]]:
    """Everyone with composites and centred items; nobody's answers are left where too few were given."""
    out = []
    for person in answers:
        if len(person) < least:
            out.append({})
            continue
        variables = centred(person, centre)
        for name, composite in composites.items():
            value = composite(person)
            if value is not None:
                variables[name] = value
        out.append(variables)
    return out


def mean_and_error(values: Sequence[float | None], weights: Sequence[float]) -> tuple[float, float]:
    there = [(v, w) for v, w in zip(values, weights, strict=True) if v is not None and w > 0]
    if not there:
        return math.nan, math.nan
    total = sum(w for _, w in there)
    mean = sum(v * w for v, w in there) / total
    n = len(there)
    if n < 2:
        return mean, math.nan
    return mean, math.sqrt(sum((w * (v - mean)) ** 2 for v, w in there) * n / (n - 1)) / total
