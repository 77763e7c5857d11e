"""align(): search a prompt space for the soft prompt under which a model answers a survey like a region.

A search is `Run.ask` → evaluate → `Run.told` → `Run.save`, generation by generation. Several seeds go through the same
loop side by side: their candidates are evaluated together, and nothing else is shared.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softde import checkpoint as files
from softde.checks import check_kinds, whole
from softde.condition import Condition
from softde.files import expanded, write_file
from softde.gradient import GradientSteps, WarmStart
from softde.lm import LM
from softde.objective import AlignmentLoss, Evaluation, Halving, is_noisy
from softde.optim import Bounded, Info, Optimizer, generator_for, state_from_tensors, state_to_tensors, stop_reason
from softde.optim.auto import Choice, ReadoutKind, choose
from softde.optim.base import StopReason, check_budget, check_patience, recommendation, settings, stale
from softde.optim.named import named
from softde.parallel import Evaluate, Ranks, Workers, cut, ranks
from softde.progress import Progress, printer, summary
from softde.prompt import SoftPrompt, model_provenance
from softde.readouts import Expected, Readout, SequenceLogprob
from softde.space import PromptSpace
from softde.start import START, Start, checked_start
from softde.surveys import Survey, Target
from softde.surveys.scoring import Norm, by_factor
from softde.verify import make_verification

Array = NDArray[np.float64]

AUTO, BUDGET = "auto", 3_200
INTERRUPTED = "interrupted"
FRESH = 2**20  # the first set of draws that no generation of a search uses
READINGS = 5  # fresh sets of draws with which the winner of a noisy search is read again


@dataclass(frozen=True, eq=False)
class Result:
    """What a search found.

    loss : of the best candidate as the search scored it. plain_loss : of the prompt, asked one question at a time; with
    a read-out that draws, under draws that the search never saw. expected_loss : of the prompt by the expected values
    of the options, None if that is what was minimised. rescored : how the winner of a search under random draws was
    chosen, see `Run.winner`; None for any other. start : how the start population was found, see `softde.start`: its
    spread and option mass, that of the unprompted model, and what it cost; candidates of draws that broke the model are
    in its evaluations and tokens and in forward_tokens, but not in evaluations.
    scores, unprompted_scores : (factors,). option_mass : under the prompt, mean over items. trajectory : one dict per
    generation. wall_seconds : over all sessions of a resumed run. forward_tokens : pushed through the model's layers
    by the search for its candidates; copies that fill up groups are not counted, so it is the same on any number of
    processes. engine : how questions were asked at the end (path, candidates per forward, what did not go as planned).
    interrupted : ended by Ctrl-C; the same call goes on.
    """

    prompt: SoftPrompt
    survey: Survey
    target: Target
    loss: float
    plain_loss: float
    unprompted_loss: float
    scores: Array
    unprompted_scores: Array
    option_mass: float
    trajectory: tuple[dict[str, Any], ...]
    stop_reason: str
    evaluations: int
    seed: int
    wall_seconds: float
    forward_tokens: int
    engine: Mapping[str, Any]
    expected_loss: float | None = None
    rescored: Mapping[str, Any] | None = None
    start: Mapping[str, Any] | None = None
    warm_start: Mapping[str, Any] | None = None

    @property
    def interrupted(self) -> bool:
        return self.stop_reason == INTERRUPTED

    @property
    def condition(self) -> Condition:
        """The model under the prompt that was found."""
        return Condition(name="soft prompt", prompt=self.prompt)

    def record(self) -> dict[str, Any]:
        """Plain values for result.json; the trajectory is in log.jsonl."""
        factors = self.survey.factors
        return {
            "target": self.target.as_dict(),
            "loss": self.loss,
            "plain_loss": finite(self.plain_loss),
            "expected_loss": finite(self.expected_loss),
            "unprompted_loss": finite(self.unprompted_loss),
            "scores": {f: finite(s) for f, s in zip(factors, self.scores.tolist(), strict=True)},
            "unprompted_scores": {f: finite(s) for f, s in zip(factors, self.unprompted_scores.tolist(), strict=True)},
            "option_mass": self.option_mass,
            "start": self.start,
            "warm_start": self.warm_start,
            "rescored": self.rescored,
            "stop_reason": self.stop_reason,
            "generations": len(self.trajectory),
            "evaluations": self.evaluations,
            "seed": self.seed,
            "wall_seconds": round(self.wall_seconds, 3),
            "forward_tokens": self.forward_tokens,
            "tokens_saved": sum(line.get("tokens_saved", 0) for line in self.trajectory),
            "engine": self.engine,
        }


class Results(tuple[Result, ...]):
    """One result per seed, in the order of the seeds."""

    __slots__ = ()

    @property
    def best(self) -> Result:
        """The one with the lowest plain loss."""
        return min(self, key=lambda result: math.inf if math.isnan(result.plain_loss) else result.plain_loss)

    @property
    def interrupted(self) -> bool:
        """Was any of them ended by Ctrl-C?"""
        return any(result.interrupted for result in self)


Report = bool | Callable[[Progress], None]


@overload
def align(
    lm: LM, survey: Survey, target: Target, space: PromptSpace | None = None, optimizer: Optimizer[Any] | str = AUTO,
    budget: int = BUDGET, seed: int = 0, norm: Norm = "L1", weights: Sequence[float] | None = None,
    orders: str = "both", checkpoint: str | Path | None = None, resume: bool = True, progress: Report = True,
    early_rejection: bool = True, workers: Workers | None = None, readout: Readout | None = None,
    draws: Literal["fixed", "fresh"] = "fixed", seeds: None = None, target_loss: float | None = None,
    patience: int | None = None, min_improvement: float = 0.0, max_seconds: float | None = None,
    max_tokens: int | None = None, halving: Halving | None = None, warm_start: GradientSteps | None = None,
) -> Result: ...  # fmt: skip
@overload
def align(
    lm: LM, survey: Survey, target: Target, space: PromptSpace | None = None, optimizer: Optimizer[Any] | str = AUTO,
    budget: int = BUDGET, seed: int = 0, norm: Norm = "L1", weights: Sequence[float] | None = None,
    orders: str = "both", checkpoint: str | Path | None = None, resume: bool = True, progress: Report = True,
    early_rejection: bool = True, workers: Workers | None = None, readout: Readout | None = None,
    draws: Literal["fixed", "fresh"] = "fixed", *, seeds: Sequence[int], target_loss: float | None = None,
    patience: int | None = None, min_improvement: float = 0.0, max_seconds: float | None = None,
    max_tokens: int | None = None, halving: Halving | None = None, warm_start: GradientSteps | None = None,
) -> Results: ...  # fmt: skip
def align(
    lm: LM,
    survey: Survey,
    target: Target,
    space: PromptSpace | None = None,
    optimizer: Optimizer[Any] | str = AUTO,
    budget: int = BUDGET,
    seed: int = 0,
    norm: Norm = "L1",
    weights: Sequence[float] | None = None,
    orders: str = "both",
    checkpoint: str | Path | None = None,
    resume: bool = True,
    progress: Report = True,
    early_rejection: bool = True,
    workers: Workers | None = None,
    readout: Readout | None = None,
    draws: Literal["fixed", "fresh"] = "fixed",
    seeds: Sequence[int] | None = None,
    target_loss: float | None = None,
    patience: int | None = None,
    min_improvement: float = 0.0,
    max_seconds: float | None = None,
    max_tokens: int | None = None,
    halving: Halving | None = None,
    warm_start: GradientSteps | None = None,
) -> Result | Results:
    """Find a soft prompt under which the model's factor scores come close to a target's.

    Parameters
    ----------
    space : where to search; default 8 virtual tokens late in the user's turn, from random vocabulary rows.
    optimizer : an optimiser of ``softde.optim``, or the name of one: "auto" (default: what won the benchmark for this
        dimension, budget and read-out), "de", "shade", "lshade", "jso", "cma", "bbt", "es", "spsa", "pso", "random" and
        the others of ``softde.optim.NAMES``. budget : candidates scored, in whole generations.
    norm : "L1" (default, Masoud et al. 2025) or "L2". weights : one number per factor.
    orders : "both", "forward" or "reversed" listing of the options.
    checkpoint : a folder for run.yaml, log.jsonl, checkpoint.safetensors, prompt.safetensors and result.json. The same
        call on the same folder goes on where the last one ended, to the same bytes; another configuration is refused,
        but for a larger budget and other stops (target_loss to max_tokens), with which a finished run goes on too.
        Not so an optimiser that plans with its budget: "lshade", "jso", and the number of start points of "auto", "cma"
        and "shade" below 640 candidates.
    resume : False starts over, and moves what is there into a folder "previous-1" inside.
    progress : print to standard error, or a function called after every generation.
    early_rejection : stop asking a candidate once it cannot beat its parent, for optimisers that then need no exact
        loss. The search is the same, bit by bit; the log shows fewer tokens. Other read-outs than `Expected` ask all.
    workers : who scores the populations: ``RayWorkers(...)`` of a cluster, or ``Ranks()``, this process on its own.
        Default: the processes of ``torchrun``, which share every population, or else this one. See docs/distributed.md.
    readout : what counts as an answer, default ``Expected()``; see `AlignmentLoss`. draws : "fixed" or "fresh", for one
        that draws. After such a search the winner is read again under draws that the search never saw.
    seeds : several searches instead of one, ``seeds=[0, 1, 2]``: each finds what it would find alone, bit by bit, but
        their candidates are asked together. Returns `Results`, one per seed; each has its own budget, its own stops and
        its own folder, ``checkpoint/seed-0`` and so on. The order in which early rejection asks the factors is learnt
        from all, so that a log may show other tokens and errors than that of a search alone.
    target_loss : stop at a best loss at or below it. patience : stop after so many candidates without a best loss that
        is lower by min_improvement. max_seconds : stop after the generation in which the wall clock, over all sessions,
        reaches it. max_tokens : the same for tokens pushed through the model's layers.
    halving : ``Halving()`` asks only the better candidates everything, for read-outs other than `Expected` and
        optimisers that do not mind; see there. The log counts the tokens that it saves.
    warm_start : ``GradientSteps()`` begins with a few steps down the gradient of the expected-value loss, which the
        budget pays for: a step costs as much as three candidates.

    Ctrl-C ends the search with the best prompt so far; the same call goes on.

    Raises
    ------
    ValueError
        Bad input, before any question is asked or file written; or no candidate of the first generation can be scored;
        or no worker is left to score them.
    """
    check_kinds(
        {
            "lm": (lm, LM), "survey": (survey, Survey), "target": (target, Target),
            "space": (space, PromptSpace | None), "optimizer": (optimizer, Optimizer | str),
            "halving": (halving, Halving | None), "warm_start": (warm_start, GradientSteps | None),
        }
    )  # fmt: skip
    space = space or PromptSpace.random(lm)
    stops = Stops(target_loss, patience, min_improvement, max_seconds, max_tokens)
    loss = AlignmentLoss(lm, survey, target, space, orders, norm, weights, readout, draws, halving)
    budget, chosen = whole(budget, "budget", 1), chosen_seeds(seed, seeds)
    choice, left = resolved(optimizer, loss, budget), budget
    check_budget(choice.optimizer, budget)
    if warm_start is not None:  # an optimiser that plans with its budget has what is left of it
        choice = resolved(optimizer, loss, warm_start.left(loss, choice.optimizer.population_size, budget))
        left = warm_start.left(loss, choice.optimizer.population_size, budget)
    optimizer = choice.optimizer
    _ = loss.plan  # a model that cannot be asked these questions is refused before a folder is made
    mine = own_ranks(workers)
    folder = expanded(checkpoint) if checkpoint is not None else None
    runs = []
    for number in chosen:
        config = configuration(loss, choice, budget, number, stops, warm_start)
        place = folder if folder is None or seeds is None else folder / f"seed-{number}"
        runs.append(Run(loss, optimizer, left, number, config, place, early_rejection, mine, stops, warm_start))
        optimizer.init(runs[-1].points())  # start points that it refuses, it refuses before a folder is made
    together = {} if seeds is None else {"seeds": list(chosen)}
    with mine.together():
        mine.check_equal({**dict(files.flatten(runs[0].config)), **together}, files.uncompared)
        session = Session(
            runs, opened(runs, resume), progress if callable(progress) else printer() if progress else None
        )
        session.say(choice.why)
        with (workers or mine).start(loss) as evaluate:
            found = session.search(evaluate)
        results = mine.agree(lambda: [r.finish(*f) for r, f in zip(runs, found, strict=True)], interruptible=False)
    return results[0] if seeds is None else Results(results)


# ---- one search ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stops:
    """What ends a search before its budget does; see `align`."""

    target_loss: float | None = None
    patience: int | None = None
    min_improvement: float = 0.0
    max_seconds: float | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        check_patience(self.patience, self.min_improvement)
        if self.max_tokens is not None:
            whole(self.max_tokens, "max_tokens", 1)
        if self.max_seconds is not None and not 0 < self.max_seconds < math.inf:
            raise ValueError(f"max_seconds: expected a positive number of seconds, got {self.max_seconds!r}")
        if self.target_loss is not None and not math.isfinite(self.target_loss):
            raise ValueError(f"target_loss: expected a finite number, got {self.target_loss!r}")

    def reason(self, stand: Stand) -> StopReason | None:
        """Why a search of one generation or more must not go on."""
        if self.patience is not None:
            lines = ((e["evaluations"], math.inf if e["best"] is None else e["best"]) for e in stand.trajectory)
            if stale(lines, self.min_improvement) >= self.patience:
                return StopReason.PLATEAU
        if self.max_tokens is not None and stand.tokens >= self.max_tokens:
            return StopReason.TOKENS
        if self.max_seconds is not None and stand.seconds >= self.max_seconds:
            return StopReason.TIME
        return None


@dataclass(frozen=True, eq=False)
class Stand:
    """Where a search stands after a generation, or before its first. seconds and tokens are of all sessions."""

    state: Any
    trajectory: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    tokens: int = 0
    warm: WarmStart | None = None  # before the first generation only


class Asked(NamedTuple):
    """A generation of a search that waits for its losses."""

    candidates: Tensor
    state: Any
    bound: Tensor | None


@dataclass(frozen=True)
class Run:
    """One search with its settings: where it starts or goes on, a generation, and the record."""

    loss: AlignmentLoss
    optimizer: Optimizer[Any]
    budget: int
    seed: int
    config: dict[str, Any]
    folder: Path | None
    early_rejection: bool
    ranks: Ranks  # of which the first alone reads and writes the folder
    stops: Stops
    warm_start: GradientSteps | None = None

    def open(self, resume: bool) -> Stand:
        """Prepare the folder, and go on with the search that is saved there, if there is one."""
        folder = self.folder
        if folder is None:
            return self.begin()

        def read() -> bytes:
            found = files.open_run(folder, self.config, resume)
            return b"" if found is None else found.to_bytes()

        message = self.ranks.from_first(read)
        if not message:
            return self.begin()
        saved = files.Saved.from_bytes(message)
        state = state_from_tensors(self.optimizer, saved.tensors, saved.numbers)
        return Stand(state, saved.trajectory, saved.wall_seconds, saved.forward_tokens)

    def begin(self) -> Stand:
        """Before the first generation: at the start points, or where a few steps down the gradient lead from them."""
        size, settings, started = self.optimizer.population_size, self.warm_start, time.perf_counter()
        if settings is None:
            return Stand(self.optimizer.init(self.points()))
        points = self.loss.space.sample(settings.wanted(size), generator_for(self.seed, START))
        made = WarmStart.from_bytes(
            self.ranks.from_first(lambda: settings(self.loss, points, size, self.seed).to_bytes())
        )
        seconds = self.ranks.from_first(lambda: repr(time.perf_counter() - started).encode())
        return Stand(self.optimizer.init(made.points), (), float(seconds), made.tokens, made)

    def reason(self, stand: Stand) -> str | None:
        """Why the search must not go on, or None.

        Raises
        ------
        ValueError
            Because nothing could be scored.
        """
        reason = stop_reason(stand.state, self.budget, self.stops.target_loss)
        if reason is None and stand.state.generation:
            reason = self.stops.reason(stand)
        if reason is not None and math.isinf(stand.state.best_loss):
            raise ValueError(
                f"{reason}: every loss was NaN or infinite; load the model in another dtype (float32) or search from a "
                "smaller start_spread"
            )
        return reason

    def ask(self, stand: Stand) -> Asked:
        """The candidates of the next generation, and the losses above which each need not be asked further."""
        candidates, state = self.optimizer.ask(stand.state, generator_for(self.seed, stand.state.generation))
        bounded = self.early_rejection and isinstance(self.optimizer, Bounded)
        return Asked(candidates, state, self.optimizer.bound(state) if bounded else None)  # type: ignore[attr-defined]

    def told(self, stand: Stand, asked: Asked, evaluation: Evaluation, start: Start | None = None) -> Stand:
        """Where the search stands once the losses are known; the first line says how the start was found."""
        state, info = self.optimizer.tell(asked.state, asked.candidates, evaluation.losses)
        new = line(info, evaluation, self.loss.target, self.loss.lm.engine.group_size) | started(start)
        if self.loss.halving is not None:
            new["tokens_saved"] = evaluation.saved
        if stand.warm is not None:
            new["warm_start"] = stand.warm.record()
        return Stand(state, (*stand.trajectory, new), stand.seconds, stand.tokens + evaluation.tokens)

    def verified(
        self, asked: Asked, evaluation: Evaluation, evaluate: Evaluate
    ) -> tuple[Asked, Evaluation, Start | None]:
        """The start population, or one nearer to the centre if that broke the model, with all that was spent on it.

        An optimiser that asks something else than the start points it was given has its way.
        """
        if not torch.equal(asked.candidates, self.points()):
            return asked, evaluation, None
        known = iter([evaluation])
        start = checked_start(self.loss, len(asked.candidates), self.seed, lambda x: next(known, None) or evaluate(x))
        if start.evaluation is not evaluation:
            asked = self.ask(Stand(self.optimizer.init(start.points)))
        return asked, start.evaluation._replace(tokens=start.tokens), start

    def points(self) -> Tensor:
        """Where the search starts, (population, dim)."""
        return self.loss.space.sample(self.optimizer.population_size, generator_for(self.seed, START))

    def save(self, stand: Stand) -> None:
        """Write a generation down."""
        if self.folder is not None:
            files.log(self.folder, stand.trajectory[-1])
            files.save(self.folder, *state_to_tensors(stand.state), stand.seconds, stand.tokens)

    def finish(self, stand: Stand, reason: str) -> Result:
        """Score the winner once more the plain way, and write the record."""
        loss, state, trajectory = self.loss, stand.state, stand.trajectory
        x, rescored = self.winner(state)
        draw = FRESH if loss.noisy else 0
        plain, unprompted = loss(x[None], plain=True, draw=draw), loss.unprompted(plain=True, draw=draw)
        provenance = {
            **model_provenance(loss.lm),
            **self.config,
            "group_size": trajectory[-1].get("group_size"),
            "evaluations": state.evaluations,
            "loss_before": finite(float(unprompted.losses[0])),
            "loss_after": finite(float(plain.losses[0])),
        }
        prompt = SoftPrompt(loss.space.decode(x[None])[0], loss.space.placement, provenance)
        prompt = prompt.with_provenance({"verification": make_verification(loss.lm, loss.survey, prompt)})
        expected = None if loss.exact else float(replace(loss, readout=None, halving=None)(x[None]).losses[0])
        result = Result(
            prompt, loss.survey, loss.target, state.best_loss, float(plain.losses[0]), float(unprompted.losses[0]),
            plain.scores[0], unprompted.scores[0], float(plain.option_mass[0]), trajectory, reason, state.evaluations,
            self.seed, stand.seconds, stand.tokens, loss.lm.engine.record(loss.plan, loss.space.num_virtual_tokens),
            expected, rescored, start_record(trajectory[0]), trajectory[0].get("warm_start"),
        )  # fmt: skip
        if self.folder is not None and self.ranks.first:
            prompt.save(self.folder / "prompt.safetensors")
            write_file(self.folder / "result.json", (json.dumps(result.record(), indent=1) + "\n").encode())
        return result

    def winner(self, state: Any) -> tuple[Tensor, dict[str, Any] | None]:
        """The point (dim,) to keep, and how it was chosen.

        The best candidate under random draws is a lucky one. So it and the point that the optimiser would return
        (`Recommends`, a distribution's mean say) are read with the same fresh draws, and the lower mean loss wins.
        """
        if not self.loss.noisy:
            return state.best_x, None
        points = {"best": state.best_x, "recommended": recommendation(self.optimizer, state)}
        if torch.equal(points["best"], points["recommended"]) or not points["recommended"].isfinite().all():
            del points["recommended"]
        x = torch.stack(list(points.values()))
        readings = [self.loss(x, draw=FRESH + number) for number in range(READINGS)]
        means = dict(zip(points, np.mean([r.losses for r in readings], axis=0).tolist(), strict=True))
        taken = min(means, key=lambda name: math.inf if math.isnan(means[name]) else means[name])
        record = {f"{name}_loss": finite(mean) for name, mean in means.items()}
        spent = {"evaluations": READINGS * len(x), "tokens": sum(r.tokens for r in readings)}
        return points[taken], {"taken": taken, **record, "readings": READINGS, **spent}


# ---- the loop ------------------------------------------------------------------------------------------------------


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
        """What the candidates of each search score; with halving, those of both orders that are still in."""
        loss, x, sizes = self.runs[0].loss, joined([a.candidates for a in asked]), [len(a.candidates) for a in asked]
        draw = loss.draw_of(generation)
        if loss.halving is None:
            return cut(evaluate(x, bound=joined_bounds(asked), order=self.order(generation), draw=draw), sizes)
        firsts = cut(evaluate(x, draw=draw, part=loss.halving.first), sizes)
        kept = [loss.halving.kept(first.losses) for first in firsts]
        if not (counts := [len(rows) for rows in kept if len(rows)]):
            return [loss.halved(first, rows, None) for first, rows in zip(firsts, kept, strict=True)]
        some = joined([a.candidates[torch.from_numpy(rows)] for a, rows in zip(asked, kept, strict=True)])
        seconds = iter(cut(evaluate(some, draw=draw, part=loss.halving.second), counts))
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


def chosen_seeds(seed: int, seeds: Sequence[int] | None) -> tuple[int, ...]:
    """The seeds of all searches."""
    if seeds is None:
        return (whole(seed, "seed"),)
    if not hasattr(seeds, "__iter__") or not (seeds := list(seeds)):
        raise ValueError(f"seeds: expected whole numbers, at least one, such as [0, 1, 2], got {seeds!r}")
    chosen = tuple(whole(each, "seeds") for each in seeds)
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"seeds: expected each number once, got {list(chosen)}")
    if whole(seed, "seed"):
        raise ValueError(f"seed: got {seed} beside seeds={list(chosen)}; give one or the other")
    return chosen


def line(info: Info, evaluation: Evaluation, target: Target, group_size: int) -> dict[str, Any]:
    """One generation as plain values, NaN and infinity as None; nothing in it depends on the clock.

    candidate_FACTOR : scores of the best candidate that was asked everything. error_FACTOR : mean absolute error of the
    candidates that were asked this factor.
    """
    whole = np.isfinite(evaluation.losses) & ~np.isnan(evaluation.scores).any(axis=1)
    best = int(np.argmin(np.where(whole, evaluation.losses, np.inf)))
    scores = np.where(whole[best], evaluation.scores[best], np.nan)
    errors = np.abs(evaluation.scores - target.scores)
    values = {
        "generation": info.generation,
        "evaluations": info.evaluations,
        "best": info.best,
        "median": info.median,
        "worst": info.worst,
        "spread": info.spread,
        "improved": info.improved,
        "nan_count": info.nan_count,
        "option_mass": known_mean(evaluation.option_mass),
        "tokens": evaluation.tokens,
        "group_size": group_size,
    }
    values |= {f"candidate_{f}": float(s) for f, s in zip(target.factors, scores, strict=True)}
    values |= {f"error_{f}": known_mean(e) for f, e in zip(target.factors, errors.T, strict=True)}
    return {k: finite(v) for k, v in values.items()}


def started(start: Start | None) -> dict[str, Any]:
    """What the first line of a log says of the start."""
    if start is None:
        return {}
    return {
        "start_spread": start.start_spread,
        "start_option_mass": [finite(mass) for mass in start.option_mass],
        "start_evaluations": start.evaluations,
        "start_tokens": start.tokens,
        "unprompted_option_mass": finite(start.unprompted_mass),
    }


def start_record(first: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same, read from the first line of a log; None if that says nothing of it."""
    names = ("start_spread", "start_option_mass", "start_evaluations", "start_tokens", "unprompted_option_mass")
    return {name: first[name] for name in names} if names[0] in first else None


def known_mean(values: Array) -> float:
    """Mean of all that are not NaN; NaN where there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


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


def finite(value: Any) -> Any:
    """None for NaN and infinity, which strict JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def resolved(optimizer: Optimizer[Any] | str, loss: AlignmentLoss, budget: int) -> Choice:
    """The optimiser that is meant, and why it was chosen if it was left to "auto"."""
    if not isinstance(optimizer, str):
        return Choice(optimizer, type(optimizer).__name__, "")
    if optimizer != AUTO:
        return Choice(named(optimizer, loss.space.dim, budget), optimizer, "")
    return choose(loss.space.dim, budget, kind_of_readout(loss.readout, loss.draws))


def kind_of_readout(readout: Readout | None, draws: str) -> ReadoutKind:
    """What a read-out makes of the loss; draws that stay the same make steps, not noise."""
    if readout is None or isinstance(readout, (Expected, SequenceLogprob)):
        return "smooth"
    return "noisy" if is_noisy(readout) and draws == "fresh" else "coarse"


def configuration(
    loss: AlignmentLoss, choice: Choice, budget: int, seed: int, stops: Stops, warm_start: GradientSteps | None
) -> dict[str, Any]:
    """Everything that decides what a run finds, as plain values."""
    lm, survey = loss.lm, loss.survey
    config = {
        **{k: v for k, v in model_provenance(lm).items() if k not in ("transformers", "softde")},
        "model_weights": lm.weights_sample,
        "questions": loss.plan.digest,
        "compiles": lm.compiles,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "group_size": lm.engine.group_size,
        "survey": {"id": survey.id, "version": survey.version, "digest": survey.digest},
        "target": loss.target.as_dict(),
        "orders": loss.orders,
        "norm": loss.norm,
        "weights": None if loss.weights is None else by_factor(loss.weights, survey.factors, "weights"),
        "space": loss.space.record(),
        "readout": described(Expected() if loss.readout is None else loss.readout),
        "draws": loss.draws,
        "halving": None if loss.halving is None else dataclasses.asdict(loss.halving),
        "optimizer": settings(choice.optimizer),
        "optimizer_choice": choice.why,
        "warm_start": None if warm_start is None else dataclasses.asdict(warm_start),
        "budget": budget,
        "seed": seed,
        "stops": dataclasses.asdict(stops),
        "versions": files.versions(),
    }
    return plain_values(config)


def described(readout: Readout) -> dict[str, Any]:
    """A read-out's name and settings; a function among them, such as a parser, by its name."""
    given: Any = dataclasses.fields(readout) if dataclasses.is_dataclass(readout) else ()
    values = {f.name: getattr(readout, f.name) for f in given}
    named = {k: f"{v.__module__}.{v.__qualname__}" if hasattr(v, "__qualname__") else v for k, v in values.items()}
    return {"name": type(readout).__name__, **named}


def plain_values(value: Any) -> Any:
    """Tuples as lists and numpy's numbers as Python's, for YAML and JSON."""
    if isinstance(value, dict):
        return {k: plain_values(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain_values(v) for v in value]
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return value.tolist() if hasattr(value, "tolist") else value
