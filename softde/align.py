"""align(): search a prompt space for the soft prompt under which a model answers a survey like a region."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softde import checkpoint as files
from softde.condition import Condition
from softde.files import write_file
from softde.lm import LM
from softde.objective import AlignmentLoss, Evaluation
from softde.optim import DE, Info, Optimizer, generator_for, state_from_tensors, state_to_tensors, stop_reason
from softde.optim.base import check_budget
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
    generation. wall_seconds : over all sessions of a resumed run. forward_tokens : pushed through the model's layers by
    the search. interrupted : ended by Ctrl-C; the same call goes on.
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
    resume : False starts over. progress : print to standard error, or a function called after every generation.

    Ctrl-C ends the search with the best prompt so far; the same call goes on.

    Raises
    ------
    ValueError
        Bad input, before any question is asked or file written; or no candidate of the first generation can be scored.
    """
    space = space or PromptSpace.random(lm)
    optimizer = optimizer or OPTIMIZER
    check_budget(optimizer, budget)
    loss = AlignmentLoss(lm, survey, target, space, orders, norm, weights)
    _ = loss.plan  # a model that cannot be asked these questions is refused before a folder is made
    budget, seed = int(budget), int(seed)  # numpy's numbers are no JSON
    config = configuration(loss, optimizer, budget, seed)
    run = Run(loss, optimizer, budget, seed, config, Path(checkpoint) if checkpoint is not None else None)
    report = progress if callable(progress) else printer() if progress else None
    return run.finish(*run.search(resume, report))


@dataclass(frozen=True)
class Run:
    """One search with its settings; its two steps are the loop and the record."""

    loss: AlignmentLoss
    optimizer: Optimizer[Any]
    budget: int
    seed: int
    config: dict[str, Any]
    folder: Path | None

    def search(self, resume: bool, report: Callable[[Progress], None] | None) -> tuple[Any, ...]:
        """Generation after generation, a checkpoint after each; (state, trajectory, reason, seconds, tokens)."""
        points = self.loss.space.sample(self.optimizer.population_size, generator_for(self.seed, START))
        state, trajectory, before, tokens = self.optimizer.init(points), list[dict[str, Any]](), 0.0, 0
        saved = files.open_run(self.folder, self.config, resume) if self.folder else None
        if saved is not None:
            state = state_from_tensors(self.optimizer, saved.tensors, saved.numbers)
            trajectory, before, tokens = list(saved.trajectory), saved.wall_seconds, saved.forward_tokens
        started, first = time.perf_counter(), state.evaluations
        reason: str | None
        try:
            while (reason := stop_reason(state, self.budget)) is None:
                candidates, asked = self.optimizer.ask(state, generator_for(self.seed, state.generation))
                evaluation = self.loss(candidates)
                state, info = self.optimizer.tell(asked, candidates, evaluation.losses)
                tokens += evaluation.tokens
                trajectory.append(line(info, evaluation, self.loss.survey.factors))
                seconds = time.perf_counter() - started
                if self.folder is not None:
                    files.log(self.folder, trajectory[-1])
                    files.save(self.folder, *state_to_tensors(state), before + seconds, tokens)
                if report is not None:
                    last = stop_reason(state, self.budget) is not None
                    report(Progress(trajectory[-1], self.budget, seconds, state.evaluations - first, last))
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

    def finish(
        self, state: Any, trajectory: tuple[dict[str, Any], ...], reason: str, seconds: float, tokens: int
    ) -> Result:
        """Score the winner once more the plain way, and write the record."""
        loss = self.loss
        plain, unprompted = loss(state.best_x[None], plain=True), loss.unprompted(plain=True)
        provenance = {
            **model_provenance(loss.lm),
            **self.config,
            "evaluations": state.evaluations,
            "loss_before": finite(float(unprompted.losses[0])),
            "loss_after": finite(float(plain.losses[0])),
        }
        prompt = SoftPrompt(loss.space.decode(state.best_x[None])[0], loss.space.placement, provenance)
        prompt = prompt.with_provenance({"verification": make_verification(loss.lm, loss.survey, prompt)})
        result = Result(
            prompt, loss.survey, loss.target, state.best_loss, float(plain.losses[0]), float(unprompted.losses[0]),
            plain.scores[0], unprompted.scores[0], float(plain.option_mass[0]), trajectory, reason, state.evaluations,
            self.seed, seconds, tokens,
        )  # fmt: skip
        if self.folder is not None:
            prompt.save(self.folder / "prompt.safetensors")
            write_file(self.folder / "result.json", (json.dumps(result.record(), indent=1) + "\n").encode())
        return result


def line(info: Info, evaluation: Evaluation, factors: Sequence[str]) -> dict[str, Any]:
    """One generation as plain values, NaN and infinity as None; nothing in it depends on the clock."""
    best = int(np.argmin(np.nan_to_num(evaluation.losses, nan=np.inf)))
    mass = evaluation.option_mass
    values = {
        "generation": info.generation,
        "evaluations": info.evaluations,
        "best": info.best,
        "median": info.median,
        "worst": info.worst,
        "spread": info.spread,
        "improved": info.improved,
        "nan_count": info.nan_count,
        "option_mass": float(np.nanmean(mass)) if not np.isnan(mass).all() else None,
        "tokens": evaluation.tokens,
    }
    values |= {f"candidate_{f}": float(s) for f, s in zip(factors, evaluation.scores[best], strict=True)}
    return {k: finite(v) for k, v in values.items()}


def finite(value: Any) -> Any:
    """None for NaN and infinity, which strict JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def configuration(loss: AlignmentLoss, optimizer: Optimizer[Any], budget: int, seed: int) -> dict[str, Any]:
    """Everything that decides what a run finds, as plain values."""
    lm, survey = loss.lm, loss.survey
    config = {
        **{k: v for k, v in model_provenance(lm).items() if k not in ("transformers", "softde")},
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
