"""Searches side by side: generation after generation, until all of them have ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from softde.align.result import INTERRUPTED
from softde.align.run import Asked, Run
from softde.align.stops import Stand
from softde.objective import Evaluation
from softde.optim import stop_reason
from softde.parallel import Evaluate, Ranks, Workers, cut, ranks
from softde.progress import Progress, summary
from softde.start import Start


@dataclass
class Session:
    """Searches side by side, from where each stands to where it ends."""

    runs: Sequence[Run]
    stands: list[Stand]
    report: Callable[[Progress], None] | None
    stopped: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.started = time.perf_counter()
        self.before = [stand.seconds for stand in self.stands]
        self.evaluations_before = self.evaluations
        self.notes: tuple[str, ...] = ()
        self.said: tuple[str, ...] = ()

    @property
    def evaluations(self) -> int:
        return sum(stand.state.evaluations for stand in self.stands)

    def search(self, evaluate: Evaluate) -> list[tuple[Stand, str]]:
        """Generation after generation, a checkpoint after each, until all have ended: where, and why."""
        self.started = time.perf_counter()  # not when its workers began to load
        try:
            while due := self.due():
                self.generation(due, evaluate)
                self.keep(due)
        except KeyboardInterrupt:
            live = self.live()
            if any(math.isinf(self.stands[i].state.best_loss) for i in live):
                raise
            self.clock(live, time.perf_counter() - self.started)
            self.stopped |= dict.fromkeys(live, INTERRUPTED)
        return [(stand, self.stopped[i]) for i, stand in enumerate(self.stands)]

    def say(self, text: str) -> None:
        """A note beside the first generation's, unless the search goes on from a checkpoint."""
        if text and all(stand.state.generation == 0 for stand in self.stands):
            self.said = (text,)

    def name(self, i: int) -> str:
        """What to put before a message on one of several searches."""
        return f"seed {self.runs[i].seed}: " if len(self.runs) > 1 else ""

    def live(self) -> list[int]:
        return [i for i in range(len(self.runs)) if i not in self.stopped]

    def due(self) -> list[int]:
        """The searches that go on and have come least far: after a crash, the others wait for them."""
        for i in self.live():
            try:
                reason = self.runs[i].reason(self.stands[i])
            except ValueError as error:
                raise ValueError(self.name(i) + str(error)) from None
            if reason is not None:
                self.stopped[i] = str(reason)
        generations = {i: self.stands[i].state.generation for i in self.live()}
        return [i for i, generation in generations.items() if generation == min(generations.values())]

    def generation(self, due: Sequence[int], evaluate: Evaluate) -> None:
        """Ask the candidates of all in one evaluation, and tell each search its own."""
        asked = [self.runs[i].ask(self.stands[i]) for i in due]
        generation = self.stands[due[0]].state.generation
        parts = self.scored(asked, generation, evaluate)
        told = dict[int, Stand]()
        self.notes, self.said = self.said, ()
        for i, mine, part in zip(due, asked, parts, strict=True):
            found: tuple[Asked, Evaluation, Start | None] = mine, part, None
            if generation == 0:
                found = self.runs[i].verified(mine, part, evaluate)
                self.notes += tuple(self.name(i) + message for message in found[2].messages) if found[2] else ()
            told[i] = self.runs[i].told(self.stands[i], *found)
        for i, stand in told.items():
            self.stands[i] = stand

    def scored(self, asked: Sequence[Asked], generation: int, evaluate: Evaluate) -> list[Evaluation]:
        """What the candidates of each search score; with halving, only the better ones are asked the second part."""
        loss, x, sizes = self.runs[0].loss, joined([a.candidates for a in asked]), [len(a.candidates) for a in asked]
        draw = loss.draw_of(generation)
        if loss.halving is None:
            return cut(evaluate(x, bound=joined_bounds(asked), order=self.order(generation), draw=draw), sizes)
        one, other = loss.halving.stages
        firsts = cut(evaluate(x, draw=draw, part=one), sizes)
        kept = [loss.halving.kept(first.losses) for first in firsts]
        if not (counts := [len(rows) for rows in kept if len(rows)]):
            return [loss.halved(first, rows, None) for first, rows in zip(firsts, kept, strict=True)]
        some = joined([a.candidates[torch.from_numpy(rows)] for a, rows in zip(asked, kept, strict=True)])
        seconds = iter(cut(evaluate(some, draw=draw, part=other), counts))
        pairs = [(first, rows, next(seconds) if len(rows) else None) for first, rows in zip(firsts, kept, strict=True)]
        return [loss.halved(*each) for each in pairs]

    def order(self, generation: int) -> Any:
        """In which order the factors are asked, learnt from the generations so far, of all searches alike."""
        lines = [step for stand in self.stands for step in stand.trajectory if step["generation"] <= generation]
        lines.sort(key=lambda step: int(step["generation"]))  # the same if some have to catch up
        return self.runs[0].loss.order(lines) if self.runs[0].early_rejection and lines else None

    def keep(self, due: Sequence[int]) -> None:
        """The first rank writes a generation down and shows it; the others wait until that is done, for its clock."""

        def write() -> bytes:
            elapsed = time.perf_counter() - self.started
            self.clock(due, elapsed)
            for i in due:
                self.runs[i].save(self.stands[i])
            if self.report is not None:
                self.report(self.progress(elapsed))
            return repr(elapsed).encode()

        self.clock(due, float(self.runs[0].ranks.from_first(write)))

    def clock(self, due: Sequence[int], elapsed: float) -> None:
        for i in due:
            self.stands[i] = replace(self.stands[i], seconds=self.before[i] + elapsed)

    def progress(self, elapsed: float) -> Progress:
        lines = tuple(stand.trajectory[-1] for stand in self.stands if stand.trajectory)
        pairs = zip(self.runs, self.stands, strict=True)
        last = all(ended(run, stand) for run, stand in pairs)
        budget = sum(run.budget for run in self.runs)
        evaluations = self.evaluations - self.evaluations_before
        return Progress(summary(lines), budget, elapsed, evaluations, last, lines, self.notes)


def opened(runs: Sequence[Run], resume: bool) -> list[Stand]:
    """Where each search starts; group sizes are those of the last generation that is saved, the smallest of them."""
    stands = [run.open(resume) for run in runs]
    sizes = [stand.trajectory[-1].get("group_size") for stand in stands if stand.trajectory]
    if known := [size for size in sizes if size is not None]:
        runs[0].loss.lm.engine.group_size = min(known)
    return stands


def ended(run: Run, stand: Stand) -> bool:
    """Will nothing more come of this search?"""
    unscored = math.isinf(stand.state.best_loss) and stop_reason(stand.state, run.budget) is not None
    return unscored or run.reason(stand) is not None


def joined(parts: Sequence[Tensor]) -> Tensor:
    """One population of all; alone, the very same tensor."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def joined_bounds(asked: Sequence[Asked]) -> Tensor | None:
    """The bounds of all; one without any is not bounded."""
    if all(a.bound is None for a in asked):
        return None
    return joined([torch.full((len(a.candidates),), math.inf) if a.bound is None else a.bound for a in asked])


def own_ranks(workers: Workers | None) -> Ranks:
    """The processes that share the search with this one."""
    if isinstance(workers, Ranks):
        return workers
    found = ranks()
    if workers is not None and found.size > 1:
        raise ValueError(
            f"workers: got {type(workers).__name__} in one of {found.size} processes that torchrun started; start one "
            "process with workers, or leave workers out"
        )
    return found
