"""The start of a search, verified on the model: candidates under which it still answers the questions.

Embeddings far from everything a model was trained on can break it: it then puts its probability on none of the options,
and the loss of what is left says nothing. Most candidates of a start must not be like that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from softde.checks import whole
from softde.optim import generator_for
from softde.space import PromptSpace

if TYPE_CHECKING:
    from softde.objective import AlignmentLoss, Evaluation

START = -1  # the generation whose generator draws the start points
# A candidate is broken below this share of the unprompted model's option mass. No absolute number would do: models
# that were not tuned to follow instructions put a few hundredths on the options and answer all the same.
BROKEN = 0.1
HALVINGS = 4  # of the spread, at most: to a sixteenth


@dataclass(frozen=True, eq=False)
class Start:
    """Start points that were asked.

    points : (population, dim), drawn with start_spread from the search's own seed. evaluation : theirs, exact: an
    optimiser whose first ask returns its start points can be told these losses without asking again. option_mass :
    (attempts,) mean over the candidates of the first draw, of the second with half its spread, and so on.
    unprompted_mass : of the model without a soft prompt. evaluations, tokens : spent by all attempts; the last one's,
    ``len(points)`` evaluations and ``evaluation.tokens``, are generation 0 of the search. messages : for the user.
    """

    points: Tensor
    evaluation: Evaluation
    start_spread: float
    option_mass: tuple[float, ...]
    unprompted_mass: float
    evaluations: int
    tokens: int
    messages: tuple[str, ...]


def checked_start(
    loss: AlignmentLoss,
    population_size: int,
    seed: int,
    evaluate: Callable[[Tensor], Evaluation] | None = None,
) -> Start:
    """Draw start points and ask them; where most break the model, draw them again nearer to the space's centre.

    A candidate is broken if its option mass is below a tenth of the unprompted model's, or no number. While more than
    half are, the same draw is repeated with half the spread, at most four times; the draw with the most candidates that
    are not broken is kept, the widest of several. A start that needs no shrinking is ``space.sample`` bit by bit, and
    costs nothing but one question of the unprompted model, which is not counted: its evaluation is generation 0's.

    loss : whose space is sampled. evaluate : scores a population, for example `softde.parallel`'s; default the loss.
    """
    count, ask = whole(population_size, "population_size", 1), evaluate or loss
    unprompted, widest = float(loss.unprompted().option_mass[0]), float(loss.space.start_spread)
    tries: list[Try] = []
    for spread in (widest / 2**halving for halving in range(HALVINGS + 1)):
        points = draw(replace(loss.space, start_spread=spread), count, seed)
        evaluation = ask(points)
        tries.append(Try(spread, points, evaluation, sound(evaluation, unprompted)))
        if tries[-1].sound >= count / 2:
            break
    kept = max(tries, key=lambda attempt: attempt.sound)  # the first, so the widest, of several
    return Start(
        kept.points,
        kept.evaluation,
        kept.spread,
        tuple(mean_mass(attempt.evaluation) for attempt in tries),
        unprompted,
        count * len(tries),
        sum(attempt.evaluation.tokens for attempt in tries),
        messages(tries[0], kept, unprompted),
    )


class Try(NamedTuple):
    """One draw of start points: with which spread, what they scored, and how many leave the model able to answer."""

    spread: float
    points: Tensor
    evaluation: Evaluation
    sound: int


def draw(space: PromptSpace, count: int, seed: int) -> Tensor:
    """The start points of a search with this seed, (count, dim)."""
    return space.sample(count, generator_for(seed, START))


def sound(evaluation: Evaluation, unprompted_mass: float) -> int:
    """How many candidates have a loss and enough option mass."""
    mass = np.nan_to_num(evaluation.option_mass)
    return int((np.isfinite(evaluation.losses) & (mass >= BROKEN * np.nan_to_num(unprompted_mass))).sum())


def mean_mass(evaluation: Evaluation) -> float:
    """Mean option mass of the candidates; one without a number counts as zero."""
    return float(np.nan_to_num(evaluation.option_mass).mean())


def messages(first: Try, kept: Try, unprompted_mass: float) -> tuple[str, ...]:
    """What was found and done, in sentences."""
    count, before, after = len(kept.points), mean_mass(first.evaluation), mean_mass(kept.evaluation)
    found = [f"option mass of the start points: {before:.3g} (unprompted model: {unprompted_mass:.3g})"]
    if kept.spread != first.spread:
        found.append(
            f"{count - first.sound} of {count} start points broke the model: start_spread lowered from "
            f"{first.spread:g} to {kept.spread:g}, where their option mass is {after:.3g}"
        )
    if kept.sound < count / 2:
        found.append(
            f"{count - kept.sound} of {count} start points still break the model; start from a text or another prompt"
        )
    return tuple(found)
