"""Start points verified on a model: when they are drawn again, what is kept, what it costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from softde.lm import LM
from softde.objective import AlignmentLoss, Evaluation
from softde.optim import generator_for
from softde.space import PromptSpace
from softde.start import START, checked_start, draw
from softde.surveys import Survey, Target


@pytest.fixture(scope="module")
def loss(llama: LM, mini: Survey, ireland: Target) -> AlignmentLoss:
    return AlignmentLoss(llama, mini, ireland, PromptSpace.random(llama, 2, init="noise", start_spread=2.0))


def scored(loss: AlignmentLoss, losses: np.ndarray, mass: np.ndarray) -> Evaluation:
    """What the model really answers ten candidates, but for two columns."""
    real = loss(draw(loss.space, 10, 0))
    return real._replace(losses=losses, option_mass=np.asarray(mass, float), tokens=100)


def answering(loss: AlignmentLoss, limit: float, calls: list[torch.Tensor], nan: bool = False):
    """A model that answers candidates whose spread is below the limit, the wider the fewer."""
    unprompted = float(loss.unprompted().option_mass[0])

    def evaluate(x: torch.Tensor) -> Evaluation:
        calls.append(x)
        works = (x.std(dim=1) < limit * (1 + 0.2 * torch.arange(len(x)) / len(x))).numpy()
        mass = np.where(works, 0.9 * unprompted, np.nan if nan else 0.09 * unprompted)
        return scored(loss, np.where(works, 1.0, np.nan if nan else 5.0), mass)

    return evaluate


def test_a_start_that_answers_is_the_searchs_own_and_costs_one_generation(loss: AlignmentLoss) -> None:
    start = checked_start(loss, 6, 3)
    assert torch.equal(start.points, loss.space.sample(6, generator_for(3, START)))
    alone = loss(start.points)
    assert np.array_equal(start.evaluation.losses, alone.losses)
    assert np.array_equal(start.evaluation.option_mass, alone.option_mass)
    assert (start.evaluations, start.tokens, start.start_spread) == (6, alone.tokens, 2.0)
    assert start.option_mass == (pytest.approx(float(alone.option_mass.mean())),)
    assert start.unprompted_mass == float(loss.unprompted().option_mass[0])
    assert len(start.messages) == 1 and start.messages[0].startswith("option mass of the start points: ")


@pytest.mark.parametrize("nan", [False, True])
def test_a_start_that_breaks_the_model_is_shrunk(loss: AlignmentLoss, nan: bool) -> None:
    calls: list[torch.Tensor] = []
    start = checked_start(loss, 10, 0, answering(loss, 0.6, calls, nan))
    assert len(calls) == 3 and start.start_spread == 0.5  # 2, 1, 1/2
    assert torch.allclose(calls[1], calls[0] / 2) and torch.allclose(start.points, calls[0] / 4)  # the same draw
    assert (start.evaluations, start.tokens) == (30, 300)
    low = 0.0 if nan else 0.09
    shares = [mass / start.unprompted_mass for mass in start.option_mass]
    assert shares == pytest.approx([low, low, 0.9])
    assert len(start.messages) == 2
    assert start.messages[1].startswith(
        "10 of 10 start points broke the model: start_spread lowered from 2 to 0.5, where"
    )
    assert np.isfinite(start.evaluation.losses).all()


def test_half_of_the_candidates_is_enough(loss: AlignmentLoss) -> None:
    works = [5, 4, 6]

    def evaluate(x: torch.Tensor) -> Evaluation:
        answered = np.arange(10) < works[len(calls)]
        calls.append(x)
        return scored(loss, np.ones(10), answered)

    calls: list[torch.Tensor] = []
    assert checked_start(loss, 10, 0, evaluate).start_spread == 2.0
    works, calls = works[1:], []
    assert checked_start(loss, 10, 0, evaluate).start_spread == 1.0 and len(calls) == 2


def test_where_nothing_helps_the_best_draw_is_kept_and_the_user_told(loss: AlignmentLoss) -> None:
    calls: list[torch.Tensor] = []
    start = checked_start(loss, 10, 0, answering(loss, 0.0, calls))
    assert len(calls) == 5 and torch.equal(start.points, calls[0]) and start.start_spread == 2.0
    assert (
        start.messages[-1] == ("10 of 10 start points still break the model; start from a text or another prompt")
        and len(start.messages) == 2
    )
    counts = iter((0, 2, 4, 1, 4))

    def evaluate(x: torch.Tensor) -> Evaluation:
        return scored(loss, np.ones(len(x)), np.arange(10) < next(counts))

    kept = checked_start(loss, 10, 0, evaluate)  # the most that answer; of two such draws the wider
    assert kept.start_spread == 0.5 and kept.evaluations == 50
    assert [m.split(";")[0].split(",")[0] for m in kept.messages[1:]] == [
        "10 of 10 start points broke the model: start_spread lowered from 2 to 0.5",
        "6 of 10 start points still break the model",
    ]


def test_bad_input_is_refused(loss: AlignmentLoss) -> None:
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match="population_size: expected a whole number of at least 1"):
            checked_start(loss, wrong, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed: expected a whole number"):
        draw(loss.space, 2, "x")  # type: ignore[arg-type]
