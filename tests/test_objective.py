"""The loss: against a slow loop over plain forwards, in every norm, weight, order and placement."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from softde.lm import LM, OptionLogprobs
from softde.objective import AlignmentLoss
from softde.optim import generator_for
from softde.space import PromptSpace
from softde.surveys import Survey, Target, load_survey
from tests.reference import slow_lm


def slow_loss(scores: list[float], target: Target, norm: str, weights: list[float]) -> float:
    errors = [abs(a - b) for a, b in zip(scores, target.scores.tolist(), strict=True)]
    if norm == "L1":
        return sum(w * e for w, e in zip(weights, errors, strict=True))
    return math.sqrt(sum(w * e * e for w, e in zip(weights, errors, strict=True)))


@pytest.mark.parametrize("norm", ["L1", "L2"])
@pytest.mark.parametrize("weights", [None, (2.0, 0.5)])
@pytest.mark.parametrize(("placement", "orders"), [("late", "both"), ("front", "forward"), ("late", "reversed")])
def test_losses_are_those_of_plain_forwards(
    llama: LM, mini: Survey, ireland: Target, norm: Any, weights: Any, placement: str, orders: str
) -> None:
    space = PromptSpace.random(llama, 2, placement)
    x = space.sample(3, generator_for(0, 0))
    loss = AlignmentLoss(llama, mini, ireland, space, orders, norm, weights)
    got, plain = loss(x), loss(x, plain=True)
    for row, vector in enumerate(x):
        soft = space.centre + space.scale * vector.view(2, -1)
        condition = {"soft": soft, "placement": placement}
        expected = slow_lm.scores(llama, mini, 50.0, orders, **condition)
        masses = [mass for _, mass in slow_lm.answers(llama, mini, orders, **condition)]
        for found in (got, plain):
            assert found.scores[row] == pytest.approx(expected, abs=4e-3)
            assert found.losses[row] == pytest.approx(slow_loss(expected, ireland, norm, weights or [1, 1]), abs=1e-2)
            assert found.option_mass[row] == pytest.approx(sum(masses) / len(masses), abs=2e-5)
    assert got.losses.shape == (3,) and got.scores.shape == (3, 2) and got.option_mass.shape == (3,)
    assert got.losses.dtype == got.scores.dtype == np.float64
    assert got.tokens > 0


def test_the_unprompted_model(llama: LM, mini: Survey, ireland: Target) -> None:
    loss = AlignmentLoss(llama, mini, ireland, PromptSpace.random(llama, 2))
    expected = slow_lm.scores(llama, mini)
    for found in (loss.unprompted(), loss.unprompted(plain=True)):
        assert found.scores.shape == (1, 2)
        assert found.scores[0] == pytest.approx(expected, abs=4e-3)
        assert found.losses[0] == pytest.approx(slow_loss(expected, ireland, "L1", [1, 1]), abs=1e-2)


def test_constants_are_the_targets(llama: LM, mini: Survey) -> None:
    space = PromptSpace.random(llama, 2)
    x = space.sample(2, generator_for(0, 0))
    plain, moved = (
        AlignmentLoss(llama, mini, mini.target("Italy", constants=c), space)(x)
        for c in (0.0, {"BOS": 3.0, "CAL": -7.0})
    )
    assert moved.scores == pytest.approx(plain.scores + np.array([3.0, -7.0]))


def test_a_candidate_has_the_same_loss_in_any_company(llama: LM, mini: Survey, ireland: Target) -> None:
    space = PromptSpace.random(llama, 2)
    x = space.sample(9, generator_for(1, 0))
    loss = AlignmentLoss(llama, mini, ireland, space)
    together = loss(x).losses
    assert [float(loss(row[None]).losses[0]) for row in x] == together.tolist()


def test_a_candidate_that_cannot_be_scored_is_nan(llama: LM, mini: Survey, ireland: Target) -> None:
    loss = AlignmentLoss(llama, mini, ireland, PromptSpace.random(llama, 2))
    x = loss.space.sample(3, generator_for(0, 0))
    answer = llama.option_logprobs(loss.plan, loss.space.decode(x))
    whole = loss.evaluate(answer)
    logprobs, mass = answer.logprobs.clone(), answer.option_mass.clone()
    logprobs[1, 2], mass[1, 2] = torch.nan, torch.nan
    broken = loss.evaluate(OptionLogprobs(logprobs, mass, answer.ledger))
    assert np.isnan(broken.losses).tolist() == [False, True, False]
    assert np.isnan(broken.option_mass).tolist() == [False, True, False]
    assert broken.losses[[0, 2]].tolist() == whole.losses[[0, 2]].tolist()


def test_bad_input_is_refused(llama: LM, mini: Survey, ireland: Target) -> None:
    space = PromptSpace.random(llama, 2)
    with pytest.raises(ValueError, match="target: expected the factors of survey 'vsm13', PDI, .*got BOS, CAL; take"):
        AlignmentLoss(llama, load_survey("vsm13"), ireland, space)
    with pytest.raises(ValueError, match="space: expected the model's hidden size 32, got 8; build it from this model"):
        AlignmentLoss(llama, mini, ireland, replace(space, centre=torch.zeros(2, 8), vocabulary=None))
    with pytest.raises(ValueError, match="norm: expected .*L3"):
        AlignmentLoss(llama, mini, ireland, space, norm="L3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weights: expected 2 values"):
        AlignmentLoss(llama, mini, ireland, space, weights=[1, 2, 3])
    with pytest.raises(ValueError, match="weights: expected numbers from 0 up with at least one above"):
        AlignmentLoss(llama, mini, ireland, space, weights=[-1, 2])
    with pytest.raises(ValueError, match="orders: expected one of"):
        _ = AlignmentLoss(llama, mini, ireland, space, orders="sideways").plan
