"""Particle swarm optimisation written out: one particle, one coordinate at a time, plain Python numbers."""

from __future__ import annotations

import math


def scored(loss):
    """A loss for comparing."""
    return loss if math.isfinite(loss) else math.inf


class PSO:
    """Clerc and Kennedy's constricted swarm; a ring of three, or everybody."""

    def __init__(self, positions, losses, neighbourhood, chi, c1, c2, speed, bounds):
        self.x, self.p, self.v = [list(row) for row in positions], [list(row) for row in positions], None
        self.f, self.neighbourhood = [scored(loss) for loss in losses], neighbourhood
        self.chi, self.c1, self.c2, self.speed, self.bounds = chi, c1, c2, speed, bounds

    def neighbours(self, i):
        n = len(self.x)
        return range(n) if self.neighbourhood == "global" else [i, (i - 1) % n, (i + 1) % n]

    def ask(self, words1, words2, partner):
        """r = (word + 32768 + 1/2) / 65536."""
        if self.v is None:
            self.v = [
                [self.speed * (other - own) for other, own in zip(self.x[partner[i]], row, strict=True)]
                for i, row in enumerate(self.x)
            ]
        moved = []
        for i, row in enumerate(self.x):
            lead = min(self.neighbours(i), key=lambda k: self.f[k])
            places = []
            for j, x in enumerate(row):
                r1, r2 = (words1[i][j] + 32768.5) / 65536, (words2[i][j] + 32768.5) / 65536
                pull = self.c1 * r1 * (self.p[i][j] - x) + self.c2 * r2 * (self.p[lead][j] - x)
                place = x + self.chi * (self.v[i][j] + pull)
                places.append(place if self.bounds is None else max(self.bounds[0], min(self.bounds[1], place)))
            moved.append(places)
        self.moved = moved
        return moved

    def tell(self, losses):
        self.v = [[b - a for a, b in zip(x, y, strict=True)] for x, y in zip(self.x, self.moved, strict=True)]
        self.x = self.moved
        for i, loss in enumerate(losses):
            if scored(loss) < self.f[i]:
                self.f[i], self.p[i] = loss, list(self.x[i])
