"""align(): search a prompt space for the soft prompt under which a model answers a survey like a region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from softde import checkpoint as files
from softde.align.beside import askable, checked_target
from softde.align.record import configuration
from softde.align.result import Result, Results
from softde.align.run import Run
from softde.align.session import Session, opened, own_ranks
from softde.align.settings import AUTO, BUDGET, check_halving, chosen_seeds, resolved
from softde.align.stops import Stops
from softde.checks import check_kinds, whole
from softde.files import expanded
from softde.gradient import GradientSteps
from softde.halving import Halving
from softde.lm import LM
from softde.lm.neutral import SideEffects
from softde.objective import AlignmentLoss
from softde.optim import Optimizer
from softde.optim.base import check_budget
from softde.parallel import Workers
from softde.progress import Progress, printer
from softde.readouts import Readout
from softde.space import PromptSpace
from softde.surveys import Survey, Target
from softde.surveys.scoring import Norm
from softde.surveys.targets import TargetLike

Report = bool | Callable[[Progress], None]


@overload
def align(
    lm: LM, survey: Survey, target: Target | TargetLike, space: PromptSpace | None = None,
    optimizer: Optimizer[Any] | str = AUTO,
    budget: int = BUDGET, seed: int = 0, norm: Norm = "L1", weights: Sequence[float] | None = None,
    orders: str = "both", checkpoint: str | Path | None = None, resume: bool = True, progress: Report = True,
    early_rejection: bool = True, workers: Workers | None = None, readout: Readout | None = None,
    draws: Literal["fixed", "fresh"] = "fixed", seeds: None = None, target_loss: float | None = None,
    patience: int | None = None, min_improvement: float = 0.0, max_seconds: float | None = None,
    max_tokens: int | None = None, halving: Halving | None = None, warm_start: GradientSteps | None = None,
    side_effects: SideEffects | None = None,
) -> Result: ...  # fmt: skip
@overload
def align(
    lm: LM, survey: Survey, target: Target | TargetLike, space: PromptSpace | None = None,
    optimizer: Optimizer[Any] | str = AUTO,
    budget: int = BUDGET, seed: int = 0, norm: Norm = "L1", weights: Sequence[float] | None = None,
    orders: str = "both", checkpoint: str | Path | None = None, resume: bool = True, progress: Report = True,
    early_rejection: bool = True, workers: Workers | None = None, readout: Readout | None = None,
    draws: Literal["fixed", "fresh"] = "fixed", *, seeds: Sequence[int], target_loss: float | None = None,
    patience: int | None = None, min_improvement: float = 0.0, max_seconds: float | None = None,
    max_tokens: int | None = None, halving: Halving | None = None, warm_start: GradientSteps | None = None,
    side_effects: SideEffects | None = None,
) -> Results: ...  # fmt: skip
def align(
    lm: LM,
    survey: Survey,
    target: Target | TargetLike,
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
    side_effects: SideEffects | None = None,
) -> Result | Results:
    """Find a soft prompt under which the model's answers come close to a target.

    Parameters
    ----------
    target : published scores, ``survey.target("India")``, or another of `softde.surveys.targets`, such as
        ``SharesTarget.of(human, "India")``. Items that it does not use are not asked; of a target of items, those with
        an option label that is no single token for this model are left out, and named.
    space : where to search; default 8 virtual tokens late in the user's turn, from random vocabulary rows.
    optimizer : an optimiser of ``softde.optim``, or the name of one: "auto" (default: what won the benchmark for this
        dimension, budget and read-out), "de", "shade", "lshade", "jso", "cma", "cma-gn", "shade-gn", "bbt", "es",
        "spsa", "pso", "random" and others, ``softde.optim.NAMES``. budget : candidates scored, in whole generations.
    norm : of published scores, "L1" (default, Masoud et al. 2025) or "L2". weights : one number per factor.
    orders : "both", "forward" or "reversed" listing of the options.
    checkpoint : a folder for run.yaml, log.jsonl, checkpoint.safetensors, prompt.safetensors and result.json. The same
        call on the same folder goes on where the last one ended, to the same bytes; another configuration is refused,
        but for a larger budget and other stops (target_loss to max_tokens), with which a finished run goes on too.
        Not so an optimiser that plans with its budget: "lshade", "jso", and the number of start points of "auto",
        "cma", "cma-gn", "shade" and "shade-gn" below 640 candidates.
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
    side_effects : ``SideEffects(weight)`` adds to the loss what a prompt changes in answers to neutral texts.

    Ctrl-C ends the search with the best prompt so far; the same call goes on.

    Raises
    ------
    ValueError
        Bad input, before any question is asked or file written; or no candidate of the first generation can be scored;
        or no worker is left to score them.
    """
    check_kinds(
        {
            "lm": (lm, LM), "survey": (survey, Survey), **checked_target(target),
            "space": (space, PromptSpace | None), "optimizer": (optimizer, Optimizer | str),
            "halving": (halving, Halving | None), "warm_start": (warm_start, GradientSteps | None),
            "side_effects": (side_effects, SideEffects | None),
        }
    )  # fmt: skip
    space = space or PromptSpace.random(lm)
    stops = Stops(target_loss, patience, min_improvement, max_seconds, max_tokens)
    target, left_out = askable(lm, survey, target, orders, space.placement, space.num_virtual_tokens)
    loss = AlignmentLoss(lm, survey, target, space, orders, norm, weights, readout, draws, halving, side_effects)
    budget, chosen = whole(budget, "budget", 1), chosen_seeds(seed, seeds)
    choice, left = resolved(optimizer, loss, budget), budget
    check_budget(choice.optimizer, budget)
    if halving is not None and halving.keep < 1:
        check_halving(choice.optimizer)
    if warm_start is not None:  # an optimiser that plans with its budget has what is left of it
        choice = resolved(optimizer, loss, warm_start.left(loss, choice.optimizer.population_size, budget))
        left = warm_start.left(loss, choice.optimizer.population_size, budget)
    optimizer = choice.optimizer
    _ = loss.plan, loss.parts_of_halving  # what cannot be asked like this is refused before a folder is made
    mine = own_ranks(workers)
    folder = expanded(checkpoint) if checkpoint is not None else None
    runs = []
    for number in chosen:
        config = configuration(loss, choice, budget, number, stops, warm_start)
        place = folder if folder is None or seeds is None else folder / f"seed-{number}"
        runs.append(
            Run(loss, optimizer, left, number, config, place, early_rejection, mine, stops, warm_start, left_out)
        )
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
