"""align(): search a prompt space for the soft prompt under which a model answers a survey like a region."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from softde import checkpoint as files
from softde.checks import check_kinds, whole
from softde.condition import Condition
from softde.files import expanded, write_file
from softde.lm import LM
from softde.objective import AlignmentLoss, Evaluation
from softde.optim import DE, Bounded, Info, Optimizer, generator_for, state_from_tensors, state_to_tensors, stop_reason
from softde.optim.base import check_budget
from softde.parallel import Evaluate, Ranks, Workers, ranks
from softde.progress import Progress, printer
from softde.prompt import SoftPrompt, model_provenance
from softde.space import PromptSpace
from softde.surveys import Survey, Target
from softde.surveys.scoring import Norm, by_factor
from softde.verify import make_verification

Array = NDArray[np.float64]

BUDGET = 3_200
OPTIMIZER = DE(population_size=24, strategy="currenttopbest1bin", F=(0.4, 0.9), CR=0.9, p=0.15)  # docs/log.md
START = -1  # the generation whose generator draws the start points
INTERRUPTED = "interrupted"


@dataclass(frozen=True, eq=False)
class Result:
    """What a search found.

    loss : of the best candidate as the search scored it. plain_loss : the same prompt, asked one question at a time.
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
            "unprompted_loss": finite(self.unprompted_loss),
            "scores": {f: finite(s) for f, s in zip(factors, self.scores.tolist(), strict=True)},
            "unprompted_scores": {f: finite(s) for f, s in zip(factors, self.unprompted_scores.tolist(), strict=True)},
            "option_mass": self.option_mass,
            "stop_reason": self.stop_reason,
            "generations": len(self.trajectory),
            "evaluations": self.evaluations,
            "seed": self.seed,
            "wall_seconds": round(self.wall_seconds, 3),
            "forward_tokens": self.forward_tokens,
            "engine": self.engine,
        }


def align(
    lm: LM,
    survey: Survey,
    target: Target,
    space: PromptSpace | None = None,
    optimizer: Optimizer[Any] | None = None,
    budget: int = BUDGET,
    seed: int = 0,
    norm: Norm = "L1",
    weights: Sequence[float] | None = None,
    orders: str = "both",
    checkpoint: str | Path | None = None,
    resume: bool = True,
    progress: bool | Callable[[Progress], None] = True,
    early_rejection: bool = True,
    workers: Workers | None = None,
) -> Result:
    """Find a soft prompt under which the model's factor scores come close to a target's.

    Parameters
    ----------
    space : where to search; default 8 virtual tokens late in the user's turn, from random vocabulary rows.
    optimizer : default ``align.OPTIMIZER``. budget : candidates scored, in whole generations.
    norm : "L1" (default, Masoud et al. 2025) or "L2". weights : one number per factor.
    orders : "both", "forward" or "reversed" listing of the options.
    checkpoint : a folder for run.yaml, log.jsonl, checkpoint.safetensors, prompt.safetensors and result.json. The same
        call on the same folder goes on where the last one ended, to the same bytes; another configuration is refused.
    resume : False starts over, and moves what is there into a folder "previous-1" inside.
    progress : print to standard error, or a function called after every generation.
    early_rejection : stop asking a candidate once it cannot beat its parent, for optimisers that then need no exact
        loss. The search is the same, bit by bit; the log shows fewer tokens.
    workers : who scores the populations: ``RayWorkers(...)`` of a cluster, or ``Ranks()``, this process on its own.
        Default: the processes of ``torchrun``, which share every population, or else this one. See docs/distributed.md.

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
            "space": (space, PromptSpace | None), "optimizer": (optimizer, Optimizer | None),
        }
    )  # fmt: skip
    space = space or PromptSpace.random(lm)
    optimizer = optimizer or OPTIMIZER
    check_budget(optimizer, budget)
    loss = AlignmentLoss(lm, survey, target, space, orders, norm, weights)
    _ = loss.plan  # a model that cannot be asked these questions is refused before a folder is made
    budget, seed = whole(budget, "budget"), whole(seed, "seed")
    config = configuration(loss, optimizer, budget, seed)
    mine = own_ranks(workers)
    folder = expanded(checkpoint) if checkpoint is not None else None
    run = Run(loss, optimizer, budget, seed, config, folder, early_rejection, mine)
    report = progress if callable(progress) else printer() if progress else None
    with mine.together():
        mine.check_equal(dict(files.flatten(config)), files.uncompared)
        begun = run.open(resume)
        with (workers or mine).start(loss) as evaluate:
            found = run.search(evaluate, begun, report)
        return mine.agree(lambda: run.finish(*found), interruptible=False)


class Begun(NamedTuple):
    """Where a session starts: at the beginning, or after the last checkpoint."""

    state: Any
    trajectory: tuple[dict[str, Any], ...]
    seconds: float
    tokens: int


@dataclass(frozen=True)
class Run:
    """One search with its settings; its three steps are where it starts or goes on, the loop and the record."""

    loss: AlignmentLoss
    optimizer: Optimizer[Any]
    budget: int
    seed: int
    config: dict[str, Any]
    folder: Path | None
    early_rejection: bool
    ranks: Ranks  # of which the first alone reads and writes the folder

    def open(self, resume: bool) -> Begun:
        """Prepare the folder, and go on with the search that is saved there, if there is one."""
        points = self.loss.space.sample(self.optimizer.population_size, generator_for(self.seed, START))
        begun, folder = Begun(self.optimizer.init(points), (), 0.0, 0), self.folder
        if folder is None:
            return begun

        def read() -> bytes:
            found = files.open_run(folder, self.config, resume)
            return b"" if found is None else found.to_bytes()

        message = self.ranks.from_first(read)
        if not message:
            return begun
        saved = files.Saved.from_bytes(message)
        if saved.group_size is not None:
            self.loss.lm.engine.group_size = saved.group_size
        state = state_from_tensors(self.optimizer, saved.tensors, saved.numbers)
        return Begun(state, saved.trajectory, saved.wall_seconds, saved.forward_tokens)

    def search(self, evaluate: Evaluate, begun: Begun, report: Callable[[Progress], None] | None) -> tuple[Any, ...]:
        """Generation after generation, a checkpoint after each; (state, trajectory, reason, seconds, tokens)."""
        state, trajectory, before, tokens = begun.state, list(begun.trajectory), begun.seconds, begun.tokens
        started, first = time.perf_counter(), state.evaluations
        reason: str | None
        try:
            while (reason := stop_reason(state, self.budget)) is None:
                candidates, asked = self.optimizer.ask(state, generator_for(self.seed, state.generation))
                evaluation = evaluate(candidates, bound=self.bound(asked), order=self.order(trajectory))
                state, info = self.optimizer.tell(asked, candidates, evaluation.losses)
                tokens += evaluation.tokens
                trajectory.append(line(info, evaluation, self.loss.target, self.loss.lm.engine.group_size))
                seconds = time.perf_counter() - started
                last = stop_reason(state, self.budget) is not None
                step = Progress(trajectory[-1], self.budget, seconds, state.evaluations - first, last)
                self.keep(state, step, before + seconds, tokens, report)
        except KeyboardInterrupt:
            if math.isinf(state.best_loss):
                raise
            reason = INTERRUPTED
        if math.isinf(state.best_loss):
            raise ValueError(
                f"{reason}: every loss was NaN or infinite; load the model in another dtype (float32) or search from a "
                "smaller start_spread"
            )
        return state, tuple(trajectory[: state.generation]), str(reason), before + time.perf_counter() - started, tokens

    def bound(self, asked: Any) -> Tensor | None:
        """The losses above which a candidate need not be asked further."""
        if not self.early_rejection or not isinstance(self.optimizer, Bounded):
            return None
        return self.optimizer.bound(asked)

    def order(self, trajectory: Sequence[Mapping[str, Any]]) -> Any:
        """In which order the factors are asked, learnt from the generations so far."""
        return self.loss.order(trajectory) if self.early_rejection and trajectory else None

    def keep(
        self, state: Any, step: Progress, seconds: float, tokens: int, report: Callable[[Progress], None] | None
    ) -> None:
        """The first rank writes a generation down and shows it; the others wait until it is safe."""

        def write() -> bytes:
            if self.folder is not None:
                files.log(self.folder, step.line)
                files.save(self.folder, *state_to_tensors(state), seconds, tokens)
            if report is not None:
                report(step)
            return b""

        self.ranks.from_first(write)

    def finish(
        self, state: Any, trajectory: tuple[dict[str, Any], ...], reason: str, seconds: float, tokens: int
    ) -> Result:
        """Score the winner once more the plain way, and write the record."""
        loss = self.loss
        plain, unprompted = loss(state.best_x[None], plain=True), loss.unprompted(plain=True)
        provenance = {
            **model_provenance(loss.lm),
            **self.config,
            "group_size": trajectory[-1].get("group_size"),
            "evaluations": state.evaluations,
            "loss_before": finite(float(unprompted.losses[0])),
            "loss_after": finite(float(plain.losses[0])),
        }
        prompt = SoftPrompt(loss.space.decode(state.best_x[None])[0], loss.space.placement, provenance)
        prompt = prompt.with_provenance({"verification": make_verification(loss.lm, loss.survey, prompt)})
        result = Result(
            prompt, loss.survey, loss.target, state.best_loss, float(plain.losses[0]), float(unprompted.losses[0]),
            plain.scores[0], unprompted.scores[0], float(plain.option_mass[0]), trajectory, reason, state.evaluations,
            self.seed, seconds, tokens, loss.lm.engine.record(loss.plan, loss.space.num_virtual_tokens),
        )  # fmt: skip
        if self.folder is not None and self.ranks.first:
            prompt.save(self.folder / "prompt.safetensors")
            write_file(self.folder / "result.json", (json.dumps(result.record(), indent=1) + "\n").encode())
        return result


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


def configuration(loss: AlignmentLoss, optimizer: Optimizer[Any], budget: int, seed: int) -> dict[str, Any]:
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
        "optimizer": {"name": type(optimizer).__name__, **dataclasses.asdict(optimizer)},  # type: ignore[call-overload]
        "budget": budget,
        "seed": seed,
        "versions": files.versions(),
    }
    return plain_values(config)


def plain_values(value: Any) -> Any:
    """Tuples as lists and numpy's numbers as Python's, for YAML and JSON."""
    if isinstance(value, dict):
        return {k: plain_values(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain_values(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value
