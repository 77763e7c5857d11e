"""What a run writes down: its configuration, and a line for every generation, as plain values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softde import checkpoint as files
from softde.align.result import finite
from softde.align.stops import Stops
from softde.gradient import GradientSteps
from softde.objective import AlignmentLoss, Evaluation
from softde.optim import Info
from softde.optim.auto import Choice
from softde.optim.base import settings
from softde.prompt import model_provenance
from softde.readouts import Expected, Readout
from softde.start import Start
from softde.surveys.scoring import by_factor

Array = NDArray[np.float64]


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
        "norm": loss.norm if loss.published else None,
        "weights": None if loss.weights is None else by_factor(loss.weights, survey.factors, "weights"),
        "space": loss.space.record(),
        "readout": described(Expected() if loss.readout is None else loss.readout),
        "draws": loss.draws,
        "halving": None if loss.halving is None else loss.halving.record(),
        "optimizer": settings(choice.optimizer),
        "optimizer_choice": choice.why,
        "warm_start": None if warm_start is None else dataclasses.asdict(warm_start),
        "budget": budget,
        "seed": seed,
        "stops": dataclasses.asdict(stops),
        "versions": files.versions(),
    }
    if loss.side_effects is not None:
        config["side_effects"] = {"weight": loss.side_effects.weight, "prompts": loss.side_effects.texts}
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


def line(info: Info, evaluation: Evaluation, loss: AlignmentLoss, group_size: int) -> dict[str, Any]:
    """One generation as plain values, NaN and infinity as None; nothing in it depends on the clock.

    candidate_PART : scores of the best candidate that was asked everything. error_PART : mean absolute error of the
    candidates that were asked this factor. Of a target of items, what a part of them adds to the loss; see
    `AlignmentLoss.measured`.
    """
    shown, errors = loss.measured(evaluation)
    whole = np.isfinite(evaluation.losses) & ~np.isnan(evaluation.scores).any(axis=1)
    if loss.side_effects is not None:
        whole &= ~np.isnan(evaluation.side_effects)
    best = int(np.argmin(np.where(whole, evaluation.losses, np.inf)))
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
    kept = np.where(whole[best], shown[best], np.nan)
    values |= {f"candidate_{p}": float(v) for p, v in zip(loss.parts, kept, strict=True)}
    values |= {f"error_{p}": known_mean(e) for p, e in zip(loss.parts, errors.T, strict=True)}
    if loss.side_effects is not None:
        values["candidate_side_effects"] = float(evaluation.side_effects[best]) if whole[best] else math.nan
    return {k: finite(v) for k, v in values.items()}


def known_mean(values: Array) -> float:
    """Mean of all that are not NaN; NaN where there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


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
