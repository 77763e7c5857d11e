"""The gradient oracle's search: Adam in rounds, from the best start points.

A round is a descent whose step size falls to zero as a cosine, after which the true loss of where it ended is asked.
While a round lowers the loss by a share, the next begins there, with smaller steps; once it stands still, the next best
start point has its turn, and when these are used up others are drawn. Only whole rounds are run, so that a run is the
beginning of one with a larger budget.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from softde import checkpoint as files
from softde.align.record import known_mean
from softde.align.result import finite
from softde.checks import number, put, whole
from softde.gradient import BACKWARD, FORWARD, GradientSteps, Slope, pieces, untouched
from softde.objective import AlignmentLoss, Evaluation
from softde.optim import generator_for
from softde.progress import Progress
from softde.start import START


@dataclass(frozen=True)
class Rounds:
    """Settings of the gradient oracle; docs/curves.md has the measurements behind them.

    Parameters
    ----------
    steps : of Adam in a round. lr : the first step size of the first round from a start point, in units of x. shrink :
        what it is multiplied with from round to round.
    gain : share by which a round must lower the loss for the next to begin where it ended.
    screen : start points that are drawn and asked at a time.
    items : questions of at most so many items in one graph; see `GradientSteps`.
    """

    steps: int = 80
    lr: float = 0.1
    shrink: float = 0.3
    gain: float = 0.1
    screen: int = 64
    items: int | None = None

    def __post_init__(self) -> None:
        first = self.descent(0)  # refuses steps, lr and items
        put(self, {
            "steps": first.steps,
            "shrink": number(self.shrink, "shrink, a factor in (0, 1]", lambda v: 0 < v <= 1),
            "gain": number(self.gain, "gain, a share in [0, 1)", lambda v: 0 <= v < 1),
            "screen": whole(self.screen, "screen", 1),
            "items": first.items,
        })  # fmt: skip

    def descent(self, depth: int) -> GradientSteps:
        """A round after so many others from the same start point."""
        return GradientSteps(self.steps, self.lr * self.shrink**depth, items=self.items)

    def cost(self, loss: AlignmentLoss) -> int:
        """Forward-equivalents of a round: its steps, and one to ask what it found."""
        return self.steps * (FORWARD + BACKWARD + pieces(loss, self.items).twice) + FORWARD


@dataclass(frozen=True, eq=False)
class Stand:
    """Where a search stands after a screening or a round.

    points, losses : (starts, dim), (starts,) float64: where rounds will begin, the next one first, and their losses.
    depth : rounds that led to the first. best_x, best_loss : the best that was asked. spent : forward-equivalents.
    log : one line of plain values per screening and round.
    """

    points: Float[Tensor, "starts dim"]
    losses: Float[Tensor, " starts"]
    depth: int
    best_x: Float[Tensor, " dim"]
    best_loss: float
    spent: int
    tokens: int
    seconds: float
    log: tuple[dict[str, Any], ...]

    @classmethod
    def new(cls, dim: int) -> Stand:
        """Before anything was asked."""
        none = torch.zeros(0, dtype=torch.float64)
        return cls(torch.zeros(0, dim), none, 0, torch.zeros(dim), math.inf, 0, 0, 0.0, ())

    @classmethod
    def of(cls, saved: files.Saved) -> Stand:
        """What `save` wrote."""
        known = saved.numbers
        return cls(
            **saved.tensors, depth=known["depth"], best_loss=float(known["best_loss"]), spent=known["spent"],
            tokens=saved.forward_tokens, seconds=saved.wall_seconds, log=saved.trajectory,
        )  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write the last line of the log, and the state after it."""
        tensors = {"points": self.points.contiguous(), "losses": self.losses.contiguous(), "best_x": self.best_x}
        numbers = {
            "generation": len(self.log), "depth": self.depth, "best_loss": repr(self.best_loss), "spent": self.spent,
        }  # fmt: skip
        files.log(folder, self.log[-1])
        files.save(folder, tensors, numbers, self.seconds, self.tokens)

    def told(self, points: Tensor, losses: Tensor, depth: int, spent: int, line: dict[str, Any]) -> Stand:
        """After the first of these points was asked; the line says how."""
        lowest = float(losses[0])
        best_x, best_loss = (points[0].clone(), lowest) if lowest < self.best_loss else (self.best_x, self.best_loss)
        counted = {"generation": len(self.log) + 1, "evaluations": self.spent + spent, "best": best_loss}
        new = {name: finite(value) for name, value in {**counted, **line}.items()}
        return replace(
            self, points=points, losses=losses, depth=depth, best_x=best_x, best_loss=best_loss,
            spent=self.spent + spent, tokens=self.tokens + line["tokens"], log=(*self.log, new),
        )  # fmt: skip


@dataclass(frozen=True)
class Search:
    """One run with its settings."""

    loss: AlignmentLoss
    rounds: Rounds
    seed: int
    budget: int
    target_loss: float | None

    def check(self) -> None:
        """Refuse a budget that does not pay for a round, and a loss without a gradient."""
        least = self.rounds.screen + self.rounds.cost(self.loss)
        Slope.of(self.loss, self.rounds.items)
        if self.budget < least:
            raise ValueError(
                f"Expected a budget of at least {least}, which pays for {self.rounds.screen} start points and a round "
                f"of {self.rounds.steps} steps, but got {self.budget}: raise it, or lower screen or steps of Rounds."
            )

    def run(self, stand: Stand, folder: Path | None, report: Callable[[Progress], None] | None) -> Stand:
        """Screenings and rounds until the budget or the target loss is reached; each is written down."""
        started, before = time.perf_counter(), stand
        with untouched(self.loss.lm.model), torch.inference_mode(False):
            slope = Slope.of(self.loss, self.rounds.items)
            while not self.ended(stand):
                stand = self.descended(stand, slope) if len(stand.points) else self.screened(stand)
                elapsed = time.perf_counter() - started
                stand = replace(stand, seconds=before.seconds + elapsed)
                if folder is not None:
                    stand.save(folder)
                if report is not None:
                    line, last = stand.log[-1], self.ended(stand)
                    report(Progress(line, self.budget, elapsed, stand.spent - before.spent, last, (line,)))
        return stand

    def ended(self, stand: Stand) -> bool:
        """Is the loss low enough, or the next turn more than the budget pays for?"""
        if self.target_loss is not None and stand.best_loss <= self.target_loss:
            return True
        turn = self.rounds.cost(self.loss) if len(stand.points) else self.rounds.screen
        return stand.spent + turn > self.budget

    def screened(self, stand: Stand) -> Stand:
        """Ask new start points, and line them up by their losses."""
        number = sum(line["steps"] == 0 for line in stand.log)
        points = self.loss.space.sample(self.rounds.screen, generator_for(self.seed, START - number))
        evaluation = self.loss(points)
        losses = comparable(evaluation)
        order = losses.argsort(stable=True)
        line = {"median": float(losses.median()), "option_mass": known_mean(evaluation.option_mass), "steps": 0}
        return stand.told(
            points[order], losses[order], 0, self.rounds.screen, {**line, "losses": [], "tokens": evaluation.tokens}
        )

    def descended(self, stand: Stand, slope: Slope) -> Stand:
        """A round from the first point, which gives way to where it ended, or to the point behind it."""
        with torch.enable_grad():
            descent = self.rounds.descent(stand.depth).descend(slope, stand.points[0])
        end = descent.x[None].to(stand.points)
        evaluation = self.loss(end)
        points = torch.cat([end, stand.points[1:]])
        losses = torch.cat([comparable(evaluation), stand.losses[1:]])
        on_the_way = [finite(value) for value in descent.losses.tolist()]
        line: dict[str, Any] = {"median": float(losses[0]), "option_mass": known_mean(evaluation.option_mass)}
        line |= {"steps": len(on_the_way), "losses": on_the_way, "tokens": descent.tokens + evaluation.tokens}
        new = stand.told(points, losses, stand.depth + 1, self.rounds.cost(self.loss), line)
        if float(losses[0]) < (1 - self.rounds.gain) * float(stand.losses[0]):
            return new
        return replace(new, points=points[1:], losses=losses[1:], depth=0)


def comparable(evaluation: Evaluation) -> Float[Tensor, " candidates"]:
    """The losses, NaN as +inf."""
    return torch.from_numpy(np.nan_to_num(evaluation.losses, nan=math.inf))
