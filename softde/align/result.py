"""What a search found, as values and as a record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softde.condition import Condition
from softde.prompt import SoftPrompt
from softde.surveys import Survey, Target
from softde.surveys.targets import TargetLike

Array = NDArray[np.float64]

INTERRUPTED = "interrupted"


@dataclass(frozen=True, eq=False)
class Result:
    """What a search found.

    loss : of the best candidate as the search scored it. plain_loss : of the prompt, asked one question at a time; with
    a read-out that draws, under draws that the search never saw. expected_loss : of the prompt by the expected values
    of the options, None if that is what was minimised. rescored : how the winner of a search under random draws was
    chosen, see `Run.winner`; None for any other. start : how the start population was found, see `softde.start`: its
    spread and option mass, that of the unprompted model, and what it cost; candidates of draws that broke the model are
    in its evaluations and tokens and in forward_tokens, but not in evaluations.
    scores, unprompted_scores : (terms,), factor scores; or the error of each item, for targets of items. held_out : how
    many items the search was not asked, their loss, and that of the unprompted model on them. left_out : items that the
    model cannot be asked → why. selectivity : how far answers moved that should not have, see `softde.align.beside`.
    side_effects : of the prompt, in bits, where they were part of the loss. option_mass : under the prompt, mean over
    items. trajectory : one dict per generation. wall_seconds : over all sessions of a resumed run. forward_tokens :
    pushed through the model's layers by the search for its candidates; copies that fill up groups are not counted, so
    it is the same on any number of processes. engine : how questions were asked at the end (path, candidates per
    forward, what did not go as planned). interrupted : ended by Ctrl-C; the same call goes on.
    """

    prompt: SoftPrompt
    survey: Survey
    target: Target | TargetLike
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
    held_out: Mapping[str, Any] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    selectivity: Mapping[str, Any] | None = None
    side_effects: float | None = None

    def __repr__(self) -> str:
        return (
            f"<Result for {self.target.region}: loss {self.unprompted_loss:.4g} unprompted, {self.plain_loss:.4g} "
            f"with the soft prompt; {self.evaluations:,} candidates; stopped: {self.stop_reason}>"
        )

    @property
    def terms(self) -> tuple[str, ...]:
        """What `scores` are of: factors, or items."""
        return self.target.factors if isinstance(self.target, Target) else self.target.terms

    @property
    def interrupted(self) -> bool:
        return self.stop_reason == INTERRUPTED

    @property
    def condition(self) -> Condition:
        """The model under the prompt that was found."""
        return Condition(name="soft prompt", prompt=self.prompt)

    def record(self) -> dict[str, Any]:
        """Plain values for result.json; the trajectory is in log.jsonl."""
        name = "scores" if isinstance(self.target, Target) else "values"
        return {
            "target": self.target.as_dict(),
            "loss": self.loss,
            "plain_loss": finite(self.plain_loss),
            "expected_loss": finite(self.expected_loss),
            "unprompted_loss": finite(self.unprompted_loss),
            name: self._by_term(self.scores),
            f"unprompted_{name}": self._by_term(self.unprompted_scores),
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
            **self._beside(),
        }

    def _by_term(self, values: Array) -> dict[str, float | None]:
        return {term: finite(value) for term, value in zip(self.terms, values.tolist(), strict=True)}

    def _beside(self) -> dict[str, Any]:
        """What not every search has."""
        found = {
            "held_out": self.held_out, "selectivity": self.selectivity, "side_effects": finite(self.side_effects),
            "left_out": dict(self.left_out) or None,
        }  # fmt: skip
        return {name: value for name, value in found.items() if value is not None}


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


def finite(value: Any) -> Any:
    """None for NaN and infinity, which strict JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
