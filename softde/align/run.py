"""One search with its settings: where it starts or goes on, a generation, and what it found."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from softde import checkpoint as files
from softde.align.beside import held_out, moved
from softde.align.record import line, start_record, started
from softde.align.result import Result, finite
from softde.align.stops import Stand, Stops
from softde.files import write_file
from softde.gradient import GradientSteps, WarmStart
from softde.objective import AlignmentLoss, Evaluation
from softde.optim import Bounded, Optimizer, generator_for, state_from_tensors, state_to_tensors, stop_reason
from softde.optim.base import informed, recommendation
from softde.parallel import Evaluate, Ranks
from softde.prompt import SoftPrompt, model_provenance
from softde.start import START, Start, checked_start
from softde.verify import make_verification

FRESH = 2**20  # the first set of draws that no generation of a search uses
READINGS = 5  # fresh sets of draws with which the winner of a noisy search is read again


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
    left_out: Mapping[str, str] = field(default_factory=dict)

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
            silent = f"; or {type(self.loss.readout).__name__} read no valid answer to an item, see softde.administer"
            raise ValueError(
                f"{reason}: every loss was NaN or infinite; load the model in another dtype (float32) or search from a "
                f"smaller start_spread{'' if self.loss.exact else silent}"
            )
        return reason

    def ask(self, stand: Stand) -> Asked:
        """The candidates of the next generation, and the losses above which each need not be asked further."""
        candidates, state = self.optimizer.ask(stand.state, generator_for(self.seed, stand.state.generation))
        bounded = self.early_rejection and isinstance(self.optimizer, Bounded)
        return Asked(candidates, state, self.optimizer.bound(state) if bounded else None)  # type: ignore[attr-defined]

    def told(self, stand: Stand, asked: Asked, evaluation: Evaluation, start: Start | None = None) -> Stand:
        """Where the search stands once the losses are known; the first line says how the start was found."""
        state = informed(self.optimizer, asked.state, self.loss.residuals(evaluation))
        state, info = self.optimizer.tell(state, asked.candidates, evaluation.losses)
        new = line(info, evaluation, self.loss, self.loss.lm.engine.group_size) | started(start)
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
        held = held_out(loss, x, draw)
        if held is not None:
            provenance["held_out"] = held
        prompt = SoftPrompt(loss.space.decode(x[None])[0], loss.space.placement, provenance)
        verification = make_verification(loss.lm, loss.survey, prompt, among=loss.asked.item_ids)
        prompt = prompt.with_provenance({"verification": verification})
        expected = None if loss.exact else float(replace(loss, readout=None, halving=None)(x[None]).losses[0])
        result = Result(
            prompt, loss.survey, loss.target, state.best_loss, float(plain.losses[0]), float(unprompted.losses[0]),
            plain.scores[0], unprompted.scores[0], float(plain.option_mass[0]), trajectory, reason, state.evaluations,
            self.seed, stand.seconds, stand.tokens, loss.lm.engine.record(loss.plan, loss.space.num_virtual_tokens),
            expected, rescored, start_record(trajectory[0]), trajectory[0].get("warm_start"), held, self.left_out,
            moved(loss, x, self.left_out), float(plain.side_effects[0]) if loss.side_effects is not None else None,
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
