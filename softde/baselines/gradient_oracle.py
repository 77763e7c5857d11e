"""The gradient oracle: what a soft prompt reaches if one may differentiate through the model, for the same work.

Adam down the gradient of the expected-value loss (`softde.gradient`), in rounds from the best start points; see
`softde.baselines.rounds`. Work is counted in forward-equivalents, candidates asked the whole survey: a step is three of
them (a backward pass is two), or four where the loss has to be known before its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softde import checkpoint as files
from softde.align import BUDGET, FRESH, Stops
from softde.align.beside import askable, checked_target
from softde.align.record import configuration
from softde.align.result import finite
from softde.align.verb import Report
from softde.baselines.rounds import Rounds, Search, Stand
from softde.baselines.trained import Trained, improvements
from softde.checks import check_kinds, shown, whole
from softde.condition import Condition
from softde.files import expanded
from softde.lm import LM
from softde.objective import AlignmentLoss
from softde.optim.auto import Choice
from softde.progress import printer
from softde.prompt import SoftPrompt, model_provenance
from softde.readouts import Readout
from softde.space import PromptSpace
from softde.surveys import Survey, Target
from softde.surveys.scoring import Norm
from softde.surveys.targets import TargetLike
from softde.verify import make_verification

NAME = "gradient oracle"


def gradient_oracle(
    lm: LM,
    survey: Survey,
    target: Target | TargetLike,
    space: PromptSpace | None = None,
    budget: int = BUDGET,
    seed: int = 0,
    rounds: Rounds | None = None,
    *,
    orders: str = "both",
    norm: Norm = "L1",
    weights: Sequence[float] | None = None,
    readout: Readout | None = None,
    target_loss: float | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = True,
    progress: Report = True,
) -> Trained:
    """The soft prompt that Adam finds through the model; a yardstick for searches that see losses only.

    Parameters
    ----------
    space, orders, norm, weights, readout, target_loss, progress : as in `align`. Of read-outs other than `Expected` the
        expected values are a relaxation: descents follow it, and the read-out decides what is kept.
    budget : forward-equivalents that may be spent, those of the screening too.
    rounds : how it descends, default ``Rounds()``.
    checkpoint : a folder as `align` writes it, one line of the log per screening and round. The same call on it goes on
        where it ended, and so does one with a larger budget, to the prompt of a run that had it from the start.

    Raises
    ------
    ValueError
        Bad input, before any question is asked: a budget that does not pay for the screening and a round, a target
        without a gradient, a folder of another run. Or no gradient comes through the model or the space, or no
        candidate could be scored.
    KeyboardInterrupt
        Ctrl-C is passed on, so that no half-finished prompt is compared; with a checkpoint the same call goes on.
    """
    check_kinds(
        {"lm": (lm, LM), "survey": (survey, Survey), **checked_target(target), "space": (space, PromptSpace | None)}
    )
    if not isinstance(rounds, Rounds | None):
        raise ValueError(f"rounds: expected Rounds, got {shown(rounds)}; softde.baselines.Rounds(steps=40) is one")
    space, rounds, stops = space or PromptSpace.random(lm), rounds or Rounds(), Stops(target_loss=target_loss)
    target, _ = askable(lm, survey, target, orders, space.placement, space.num_virtual_tokens)
    loss = AlignmentLoss(lm, survey, target, space, orders, norm, weights, readout)
    search = Search(loss, rounds, whole(seed, "seed"), whole(budget, "budget", 1), target_loss)
    search.check()  # and what cannot be asked is refused before a folder is made
    settings: Any = rounds  # no optimiser, but written down like one
    config = configuration(loss, Choice(settings, NAME, ""), search.budget, search.seed, stops, None)
    stand = Stand.new(space.dim)
    folder = None if checkpoint is None else expanded(checkpoint)
    if folder is not None and (saved := files.open_run(folder, config, resume)) is not None:
        stand = Stand.of(saved)
    stand = search.run(stand, folder, progress if callable(progress) else printer() if progress else None)
    return trained(loss, stand, config, folder)


def trained(loss: AlignmentLoss, stand: Stand, config: dict[str, Any], folder: Path | None) -> Trained:
    """The best point as a soft prompt, scored once more the plain way."""
    if math.isinf(stand.best_loss):
        raise ValueError(
            f"none of {stand.spent} forward-equivalents gave a loss: load the model in another dtype (float32) or "
            "start from a smaller start_spread"
        )
    draw = FRESH if loss.noisy else 0
    plain = float(loss(stand.best_x[None], plain=True, draw=draw).losses[0])
    provenance = {
        **model_provenance(loss.lm),
        **config,
        "evaluations": stand.spent,
        "loss_before": finite(float(loss.unprompted(plain=True, draw=draw).losses[0])),
        "loss_after": finite(plain),
    }
    prompt = SoftPrompt(loss.space.decode(stand.best_x[None])[0], loss.space.placement, provenance)
    verification = make_verification(loss.lm, loss.survey, prompt, among=loss.asked.item_ids)
    prompt = prompt.with_provenance({"verification": verification})
    if folder is not None:
        prompt.save(folder / "prompt.safetensors")
    history = ((line["evaluations"], line["best"]) for line in stand.log)
    return Trained(Condition(name=NAME, prompt=prompt), stand.tokens, stand.seconds, plain, improvements(history))
