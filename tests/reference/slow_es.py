"""Searches that move one point, written out: one coordinate at a time, plain Python numbers.

Written from the papers' algorithms (see softde/optim/es.py), not from the fast code.
"""

from __future__ import annotations

import math


def scored(loss):
    """A loss for comparing."""
    return loss if math.isfinite(loss) else math.inf


def best(points, losses):
    """The first point of the lowest loss."""
    return list(points[min(range(len(points)), key=lambda i: scored(losses[i]))])


def pairs(mean, distance, directions):
    """mean + distance · direction for all directions, then mean - distance · direction."""
    return [
        [m + sign * distance * d for m, d in zip(mean, direction, strict=True)]
        for sign in (1, -1)
        for direction in directions
    ]


def ranks(losses):
    """From -1/2 for the lowest to 1/2: the mean position among equals, in a sorted list."""
    ordered = sorted(scored(loss) for loss in losses)
    shares = []
    for loss in losses:
        places = [place for place, other in enumerate(ordered) if other == scored(loss)]
        shares.append(sum(places) / len(places) / (len(losses) - 1) - 0.5)
    return shares


class OpenAIES:
    """Salimans et al. (2017), algorithm 2 with antithetic pairs; the step is Adam's (Kingma and Ba, algorithm 1)."""

    def __init__(self, mean, sigma, lr, beta1, beta2):
        self.mean, self.sigma, self.lr, self.beta1, self.beta2 = mean, sigma, lr, beta1, beta2
        self.m, self.v, self.t = [0.0] * len(mean), [0.0] * len(mean), 0

    def ask(self, epsilon):
        self.epsilon = [list(row) for row in epsilon] + [[-e for e in row] for row in epsilon]
        return pairs(self.mean, self.sigma, epsilon)

    def tell(self, losses):
        n, shaped = len(losses), ranks(losses)
        self.t += 1
        for j in range(len(self.mean)):
            g = sum(shaped[i] * self.epsilon[i][j] for i in range(n)) / (n * self.sigma)
            self.m[j] = self.beta1 * self.m[j] + (1 - self.beta1) * g
            if self.beta2 is None:
                self.mean[j] -= self.lr * self.m[j]
                continue
            self.v[j] = self.beta2 * self.v[j] + (1 - self.beta2) * g * g
            m_hat, v_hat = self.m[j] / (1 - self.beta1**self.t), self.v[j] / (1 - self.beta2**self.t)
            self.mean[j] -= self.lr * m_hat / (math.sqrt(v_hat) + 1e-8)


class SPSA:
    """Spall (1998), section III, with the gradient divided by its running root mean square."""

    def __init__(self, mean, a, c, A, alpha, gamma, memory):
        self.mean, self.a, self.c, self.A, self.alpha, self.gamma = mean, a, c, A, alpha, gamma
        self.memory, self.squares, self.k = memory, [], 0

    def ask(self, delta):
        self.delta, self.c_k = delta, self.c / (self.k + 1) ** self.gamma
        return pairs(self.mean, self.c_k, delta)

    def tell(self, losses):
        half, terms = len(losses) // 2, []
        for i in range(half):
            plus, minus = losses[i], losses[half + i]
            if math.isfinite(plus) and math.isfinite(minus):
                terms.append([(plus - minus) / (2 * self.c_k * d) for d in self.delta[i]])  # Spall (1992), eq. 2.2
        a_k = self.a * (self.A + 1) ** self.alpha / (self.A + self.k + 1) ** self.alpha
        self.k += 1
        if not terms:
            return
        g = [sum(column) / len(terms) for column in zip(*terms, strict=True)]
        self.squares.append(sum(x * x for x in g) / len(g))
        weights = [self.memory**age for age in reversed(range(len(self.squares)))]
        usual = sum(w * s for w, s in zip(weights, self.squares, strict=True)) / sum(weights)
        if usual > 0:
            self.mean = [m - a_k * x / math.sqrt(usual) for m, x in zip(self.mean, g, strict=True)]


class OnePlusOneES:
    """Rechenberg's rule as Kern et al. (2004) write it: times alpha, or alpha to the power -1/4, for one child."""

    def __init__(self, mean, loss, sigma, sigma_max, growth):
        self.mean, self.loss, self.sigma, self.sigma_max, self.growth = mean, loss, sigma, sigma_max, growth

    def ask(self, normal):
        self.children = [[m + self.sigma * z for m, z in zip(self.mean, row, strict=True)] for row in normal]
        return self.children

    def tell(self, losses):
        good = [scored(loss) < math.inf and loss <= self.loss for loss in losses]
        up, down = sum(good), len(good) - sum(good)
        self.sigma *= self.growth ** ((up - down / 4) / len(good))
        self.sigma = min(self.sigma, self.sigma_max)
        if up:
            self.mean, self.loss = best(self.children, losses), min(scored(loss) for loss in losses)
