"""Differential evolution written out: one candidate, one coordinate at a time, plain Python numbers."""

from __future__ import annotations

import math

# One coordinate of v, from a dictionary of members: x target, b best, p pbest, r the donors. SciPy's documentation of
# `differential_evolution` lists the formulas; currenttopbest1 is eq. 6 of Zhang and Sanderson (2009).
FORMULAS = {
    "best1": lambda F, x, b, p, r: b + F * (r[0] - r[1]),
    "best2": lambda F, x, b, p, r: b + F * (r[0] + r[1] - r[2] - r[3]),
    "rand1": lambda F, x, b, p, r: r[0] + F * (r[1] - r[2]),
    "rand2": lambda F, x, b, p, r: r[0] + F * (r[1] + r[2] - r[3] - r[4]),
    "randtobest1": lambda F, x, b, p, r: r[0] + F * (b - r[0]) + F * (r[1] - r[2]),
    "currenttobest1": lambda F, x, b, p, r: x + F * (b - x) + F * (r[0] - r[1]),
    "currenttopbest1": lambda F, x, b, p, r: x + F * (p - x) + F * (r[0] - r[1]),
}


def scored(loss):
    """A loss for comparing."""
    return loss if math.isfinite(loss) else math.inf


def crossed(kind, dim, CR, start, u, words):
    """The coordinates that come from v."""
    chosen = {start}
    if kind == "bin":
        threshold = math.floor(CR * 65536 + u)
        for j in range(dim):
            if words[j] + 32768 < threshold:
                chosen.add(j)
    else:
        position, length = start, 1
        while length < dim and 1 - u <= CR**length:
            position = position + 1 if position + 1 < dim else 0
            chosen.add(position)
            length += 1
    return chosen


def repaired(value, parent, low, high, handling):
    """One coordinate brought back within its bounds."""
    if handling == "clip":
        return low if value < low else high if value > high else value
    if handling == "bounce":
        return (low + parent) / 2 if value < low else (high + parent) / 2 if value > high else value
    return value


def trials(population, losses, strategy, draws, bounds, handling):
    """All trials of one generation; lists of lists in, list of lists out."""
    base, kind = strategy[:-3], strategy[-3:]
    ranked = sorted(range(len(population)), key=lambda i: scored(losses[i]))
    result = []
    for i, parent in enumerate(population):
        chosen = crossed(
            kind, len(parent), draws["CR"][i], draws["start"][i], draws["u"][i], draws["words"] and draws["words"][i]
        )
        best, pbest = population[ranked[0]], population[ranked[draws["elite"][i]]]
        donors = [population[k] for k in draws["donors"][i]]
        trial = []
        for j, x in enumerate(parent):
            value = x
            if j in chosen:
                value = FORMULAS[base](draws["F"][i], x, best[j], pbest[j], [donor[j] for donor in donors])
            if bounds is not None:
                value = repaired(value, x, bounds[0][j], bounds[1][j], handling)
            trial.append(value)
        result.append(trial)
    return result


def select(population, losses, candidates, told):
    """The next population and its losses."""
    next_population, next_losses = [], []
    for x, loss, candidate, new in zip(population, losses, candidates, told, strict=True):
        better = scored(new) <= scored(loss)
        next_population.append(candidate if better else x)
        next_losses.append(new if better else loss)
    return next_population, next_losses
