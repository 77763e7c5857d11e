"""JADE, SHADE, L-SHADE, jSO and jDE written out from their papers.

First what a step changes besides the population, for the same draws: lists of plain numbers in and out. Then whole runs
with draws of their own, `run`, one trial after the other; they share no code with the former.
"""

from __future__ import annotations

import math

import numpy as np

# ---- one step, with draws injected -----------------------------------------------------------------------------------


def scored(loss):
    return loss if math.isfinite(loss) else math.inf


def successes(losses, told):
    """The trials that are better than their parents."""
    return [i for i, (old, new) in enumerate(zip(losses, told, strict=False)) if scored(new) < scored(old)]


def shares(losses, told, rows):
    """Each success's share of the improvement; an unscored parent counts as the worst of parents and successes."""
    worst = max(x for x in [*losses, *(told[i] for i in rows)] if math.isfinite(x))
    gains = [(losses[i] if math.isfinite(losses[i]) else worst) - told[i] for i in rows]
    return [gain / sum(gains) for gain in gains] if sum(gains) > 0 else [1 / len(gains)] * len(gains)


def lehmer(values, weights):
    return sum(w * x * x for w, x in zip(weights, values, strict=True)) / sum(
        w * x for w, x in zip(weights, values, strict=True)
    )


def arithmetic(values, weights):
    return sum(w * x for w, x in zip(weights, values, strict=True))


def archive(kept, population, rows, keys, capacity):
    """Old and new entries, those with the smallest keys, in their order."""
    entries = [*((keys[k], x) for k, x in enumerate(kept)), *((keys[len(kept) + i], population[i]) for i in rows)]
    limit = sorted(key for key, _ in entries)[:capacity]
    return [x for key, x in entries if key in limit]


def memory(kind, M_F, M_CR, k, F, CR, losses, told, rows, c=0.1):
    """M_F, M_CR and the next cell after a generation; None is the terminal value."""
    M_F, M_CR = list(M_F), list(M_CR)
    if not rows:
        return M_F, M_CR, k
    S_F, S_CR = [F[i] for i in rows], [CR[i] for i in rows]
    if kind == "jade":
        M_F[0] = (1 - c) * M_F[0] + c * sum(x * x for x in S_F) / sum(S_F)
        M_CR[0] = (1 - c) * M_CR[0] + c * sum(S_CR) / len(S_CR)
        return M_F, M_CR, k
    w = shares(losses, told, rows)
    new_F, new_CR = lehmer(S_F, w), arithmetic(S_CR, w)
    if kind != "shade":
        new_CR = None if M_CR[k] is None or max(S_CR) == 0 else lehmer(S_CR, w)
    if kind == "jso":
        new_F, new_CR = (new_F + M_F[k]) / 2, None if new_CR is None else (new_CR + M_CR[k]) / 2
    M_F[k], M_CR[k] = new_F, new_CR
    return M_F, M_CR, (k + 1) % len(M_F)


# ---- whole runs, with their own draws --------------------------------------------------------------------------------

FUNCTIONS = {
    "sphere": lambda x: float(np.sum(x * x)),
    "rosenbrock": lambda x: float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)),
    "rastrigin": lambda x: float(np.sum(x * x - 10 * np.cos(2 * np.pi * x) + 10)),
    "ackley": lambda x: float(
        20 + math.e - 20 * np.exp(-0.2 * np.sqrt(np.mean(x * x))) - np.exp(np.mean(np.cos(2 * np.pi * x)))
    ),
}


def positive_cauchy(rng, location):
    F = 0.0
    while F <= 0:
        F = location + 0.1 * rng.standard_cauchy()
    return min(F, 1.0)


def run(kind, function, dim, size, budget, low, high, seed, p, H, r_arc, c=0.1, smallest=4):
    """The best loss of a run of JADE, SHADE, L-SHADE or jSO, in whole generations."""
    rng, f = np.random.default_rng(seed), FUNCTIONS[function]
    X = [rng.uniform(low, high, dim) for _ in range(size)]
    Y = [f(x) for x in X]
    used, first, A, k = size, size, [], 0
    M_F, M_CR = ([0.3] * H, [0.8] * H) if kind == "jso" else ([0.5] * H, [0.5] * H)
    while used + len(X) <= budget:
        t, n = used / budget, len(X)
        ranked = sorted(range(n), key=lambda i: Y[i])
        share = p - p / 2 * t if kind == "jso" else p
        U, V, F, CR = [], [], [], []
        for i in range(n):
            r = int(rng.integers(H))
            m_F, m_CR = (0.9, 0.9) if kind == "jso" and r == H - 1 else (M_F[r], M_CR[r])
            cr = 0.0 if m_CR is None else min(max(m_CR + 0.1 * rng.standard_normal(), 0.0), 1.0)
            scale = positive_cauchy(rng, m_F)
            weight = scale
            if kind == "jso":
                cr = max(cr, 0.7) if t < 0.25 else max(cr, 0.6) if t < 0.5 else cr
                scale = min(scale, 0.7) if t < 0.6 else scale
                weight = (0.7 if t < 0.2 else 0.8 if t < 0.4 else 1.2) * scale
            pbest = X[ranked[int(rng.integers(max(2, round(share * n))))]]
            a = b = i
            while a == i:
                a = int(rng.integers(n))
            while b in (i, a):
                b = int(rng.integers(n + len(A)))
            other = X[b] if b < n else A[b - n]
            v = X[i] + weight * (pbest - X[i]) + scale * (X[a] - other)
            v = np.where(v < low, (low + X[i]) / 2, np.where(v > high, (high + X[i]) / 2, v))
            crossed = rng.random(dim) < cr
            crossed[rng.integers(dim)] = True
            u = np.where(crossed, v, X[i])
            U.append(u)
            V.append(f(u))
            F.append(scale)
            CR.append(cr)
        used += n
        S = [i for i in range(n) if V[i] < Y[i]]
        if S and kind == "jade":
            M_F[0] = (1 - c) * M_F[0] + c * sum(F[i] ** 2 for i in S) / sum(F[i] for i in S)
            M_CR[0] = (1 - c) * M_CR[0] + c * sum(CR[i] for i in S) / len(S)
        elif S:
            gain = np.array([Y[i] - V[i] for i in S])
            w, s_F, s_CR = gain / gain.sum(), np.array([F[i] for i in S]), np.array([CR[i] for i in S])
            new_F = float((w * s_F**2).sum() / (w * s_F).sum())
            if kind == "shade":
                new_CR = float((w * s_CR).sum())
            elif M_CR[k] is None or s_CR.max() == 0:
                new_CR = None
            else:
                new_CR = float((w * s_CR**2).sum() / (w * s_CR).sum())
            if kind == "jso":
                new_F, new_CR = (new_F + M_F[k]) / 2, None if new_CR is None else (new_CR + M_CR[k]) / 2
            M_F[k], M_CR[k] = new_F, new_CR
            k = (k + 1) % H
        A += [X[i] for i in S]
        for i in range(n):
            if V[i] <= Y[i]:
                X[i], Y[i] = U[i], V[i]
        if kind in ("lshade", "jso"):
            n = min(n, round(first + (smallest - first) * used / budget))
            best = sorted(sorted(range(len(X)), key=lambda i: Y[i])[:n])
            X, Y = [X[i] for i in best], [Y[i] for i in best]
        while len(A) > round(r_arc * n):
            A.pop(int(rng.integers(len(A))))
    return min(Y)
