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


def crossed(kind, units, draws, i):
    """The units that come from v."""
    chosen = {draws["start"][i]}
    if kind == "bin":
        for j in range(units):
            if draws["words"][i][j] < draws["threshold"][i]:
                chosen.add(j)
    else:
        position = draws["start"][i]
        for _ in range(draws["end"][i] - draws["start"][i]):
            chosen.add(position)
            position = position + 1 if position + 1 < units else 0
    return chosen


def run_length(CR, u, units):
    """The length of an exponential run: go on while a uniform number allows."""
    length = 1
    while length < units and 1 - u <= CR**length:
        length += 1
    return length


def repaired(value, parent, low, high, handling, u):
    """One coordinate brought back within its bounds."""
    if handling == "resample":
        return low + u * (high - low) if value < low or value > high else value
    if handling == "clip":
        return low if value < low else high if value > high else value
    if handling == "bounce":
        return (low + parent) / 2 if value < low else (high + parent) / 2 if value > high else value
    return value


def trials(population, losses, strategy, draws, bounds=None, handling=None, unit=1, jitter=0.0, archive=()):
    """All trials of one generation; lists of lists in, list of lists out."""
    base, kind = strategy[:-3], strategy[-3:]
    ranked = sorted(range(len(population)), key=lambda i: scored(losses[i]))
    rows = [*population, *archive]
    result = []
    for i, parent in enumerate(population):
        chosen = crossed(kind, len(parent) // unit, draws, i)
        best, pbest = population[ranked[0]], population[ranked[draws["elite"][i]]]
        donors = [rows[k] for k in draws["donors"][i]]
        trial = []
        for j, x in enumerate(parent):
            value = x
            if j // unit in chosen:
                F = draws["F"][i]
                if jitter:
                    F = F * (1 + jitter * (draws["jitter"][i][j] + 0.5) / 65536)
                r = [donor[j] for donor in donors]
                if draws["w"] is None:
                    value = FORMULAS[base](F, x, best[j], pbest[j], r)
                else:  # current-to-pbest-w/1 of Brest, Maucec and Boskovic (2017)
                    value = x + draws["w"][i] * F * (pbest[j] - x) + F * (r[0] - r[1])
            if bounds is not None:
                u = draws["within"][i][j] if draws["within"] else None
                value = repaired(value, x, bounds[0][j], bounds[1][j], handling, u)
            trial.append(value)
        result.append(trial)
    return result


def replaced(trials, given, start, fresh, bounds=None):
    """The trials with new points in the place of members that were given up; start is (means, deviations)."""
    result, normal = [], iter(fresh or ())
    for trial, gone in zip(trials, given, strict=True):
        if gone:
            row = next(normal)
            trial = [mean + deviation * z for mean, deviation, z in zip(*start, row, strict=True)]
            if bounds is not None:
                trial = [min(max(x, low), high) for x, low, high in zip(trial, *bounds, strict=True)]
        result.append(trial)
    return result


def remeasured(losses, counts, again):
    """Means and counts once the best members have been scored again."""
    losses, counts = list(losses), list(counts)
    ranked = sorted(range(len(losses)), key=lambda i: scored(losses[i]))
    for i, loss in zip(ranked, again, strict=False):
        if math.isfinite(loss):
            total = losses[i] * counts[i] if counts[i] else 0.0
            counts[i] += 1
            losses[i] = (total + loss) / counts[i]
    return losses, counts


def select(population, losses, candidates, told, margin=0.0, given=None):
    """The next population and its losses."""
    next_population, next_losses = [], []
    given = given or [False] * len(population)
    for x, loss, candidate, new, gone in zip(population, losses, candidates, told, given, strict=True):
        better = gone or scored(new) <= scored(loss) - margin
        next_population.append(candidate if better else x)
        next_losses.append(new if better else loss)
    return next_population, next_losses
