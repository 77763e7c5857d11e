"""The loss: against a slow loop over plain forwards, in every norm, weight, order and placement."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from softde.halving import Halving
from softde.lm import LM
from softde.objective import AlignmentLoss
from softde.optim import generator_for
from softde.readouts import Argmax
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
    broken = loss.evaluate(replace(answer, logprobs=logprobs, option_mass=mass))
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


def vsm_loss(lm: LM, **settings: Any) -> AlignmentLoss:
    survey = load_survey("vsm13")
    space = PromptSpace.random(lm, 2)
    return AlignmentLoss(lm, survey, survey.target("Italy", edition="2015"), space, orders="forward", **settings)


@pytest.mark.parametrize("norm", ["L1", "L2"])
@pytest.mark.parametrize("weights", [None, [0.0, 1.0, 2.0, 0.5, 1.0, 3.0]])
def test_early_rejection_is_exact(llama: LM, norm: Any, weights: list[float] | None) -> None:
    loss = vsm_loss(llama, norm=norm, weights=weights)
    x = loss.space.sample(11, generator_for(0, 0))
    exact = loss(x)
    # Some bounds below the loss, some above, some that are the loss itself, one of a candidate without a parent.
    bound = torch.from_numpy(exact.losses * ([0.2, 0.6, 1.0, 1.3] * 3)[:11])
    bound[3] = math.inf
    some = loss(x, bound=bound, order=loss.survey.factors[::-1])
    survived = exact.losses <= bound.numpy()
    assert some.losses[survived].tolist() == exact.losses[survived].tolist()
    assert some.scores[survived].tolist() == exact.scores[survived].tolist()
    assert (some.losses[~survived] > bound.numpy()[~survived]).all() and survived.sum() == 5
    assert np.isnan(some.scores[~survived]).any() and (some.losses <= exact.losses * (1 + 1e-12)).all()
    assert some.tokens < exact.tokens and np.isfinite(some.option_mass).all()


def test_a_rejected_candidate_is_asked_no_more_than_it_takes(llama: LM) -> None:
    loss = vsm_loss(llama)
    x = loss.space.sample(4, generator_for(0, 0))
    errors = np.abs(loss(x).scores - loss.target.scores)
    order = loss.survey.factors[::-1]
    bound = torch.full((4,), 0.5 * errors.sum(1).min())
    partial = errors[:, ::-1].cumsum(1)
    needed = (partial > bound.numpy()[:, None]).argmax(1) + 1  # the first factor at which the sum is above
    asked = (~np.isnan(loss(x, bound=bound, order=order).scores)).sum(1)
    assert asked.tolist() == needed.tolist()


def test_a_broken_candidate_is_nan_under_a_bound_too(llama: LM) -> None:
    loss = vsm_loss(llama)
    x = loss.space.sample(3, generator_for(0, 0))
    x[1] = math.nan
    assert np.isnan(loss(x, bound=torch.full((3,), 1e9)).losses).tolist() == [False, True, False]


def test_factors_that_share_all_items_are_asked_at_once(llama: LM) -> None:
    survey = load_survey("vsm13")
    models = tuple(replace(f, weights={**f.weights, "m01": 1.0}) for f in survey.factor_models)
    joined = replace(survey, factor_models=models, variants={})
    loss = replace(vsm_loss(llama), survey=joined, target=joined.target("Italy", edition="2015"))
    x = loss.space.sample(3, generator_for(0, 0))
    assert loss.stages == 1
    assert loss(x, bound=torch.zeros(3, dtype=torch.float64)).losses.tolist() == loss(x).losses.tolist()


def test_the_order_is_learnt_from_the_log(llama: LM) -> None:
    loss = vsm_loss(llama)
    first, *rest = loss.survey.factors
    lines: list[dict[str, float | None]] = [{f"error_{f}": float(i) for i, f in enumerate(loss.survey.factors)}]
    assert loss.order([]) == loss.survey.factors
    assert loss.order(lines) == loss.survey.factors[::-1]
    lines += [{f"error_{first}": 100.0, **{f"error_{f}": None for f in rest}}]
    assert loss.order(lines) == (first, *rest[::-1])
    weighted = vsm_loss(llama, weights=[100.0, 1, 1, 1, 1, 1], norm="L2")
    assert weighted.order([{f"error_{f}": 2.0 for f in loss.survey.factors}])[0] == first
    blocks = loss.block_order(loss.order(lines))
    assert sorted(blocks) == list(range(6)) and loss.plan.questions[loss.plan.blocks[blocks[0]][0]].item == 1


def test_a_parent_without_a_loss_bounds_nothing(llama: LM) -> None:
    loss = vsm_loss(llama)
    x = loss.space.sample(3, generator_for(0, 0))
    assert loss(x, bound=[math.nan, math.inf, 1e9]).losses.tolist() == loss(x).losses.tolist()  # type: ignore[arg-type]


def test_a_factor_of_few_items_lets_the_others_go_unasked(llama: LM) -> None:
    survey = load_survey("vsm13")
    one = replace(survey, factor_models=survey.factor_models[:1], variants={}, published=())
    target = Target("Italy", "made up", one.factors, np.array([40.0]), "made up", {one.factors[0]: 50.0})
    loss = AlignmentLoss(llama, one, target, PromptSpace.random(llama, 2), orders="forward")
    x = loss.space.sample(3, generator_for(0, 0))
    whole, some = loss(x), loss(x, bound=torch.zeros(3))
    assert loss.stages == 2 and some.losses.tolist() == whole.losses.tolist() and some.tokens == whole.tokens / 6


def test_bounds_and_orders_that_do_not_fit(llama: LM) -> None:
    loss = vsm_loss(llama)
    x = loss.space.sample(3, generator_for(0, 0))
    with pytest.raises(ValueError, match=r"bound: expected one number per candidate, \(3,\), got shape \(2,\)"):
        loss(x, bound=torch.zeros(2))
    with pytest.raises(ValueError, match="order: expected each of PDI, IDV, .* once, got"):
        loss(x, order=["PDI"])


def test_residuals_are_the_weighted_signed_errors(llama: LM, mini: Survey, ireland: Target) -> None:
    space = PromptSpace.random(llama, 2)
    x = space.sample(3, generator_for(0, 0))
    loss = AlignmentLoss(llama, mini, ireland, space, weights=(2.0, 0.5))
    found = loss(x)
    residuals = loss.residuals(found)
    assert residuals is not None and np.allclose(np.abs(residuals).sum(axis=1), found.losses, rtol=1e-12)
    assert np.array_equal(np.sign(residuals), np.sign(found.scores - ireland.scores))
    halved = AlignmentLoss(llama, mini, ireland, space, readout=Argmax(), halving=Halving())
    assert halved.residuals(halved(x)) is None
