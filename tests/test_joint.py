"""A shared prompt and a small one per region."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from softde.joint import BehindShared, align_joint, evaluations_to, own_space, shared_floor
from softde.lm import LM
from softde.objective import AlignmentLoss
from softde.optim import DE, generator_for
from softde.space import PromptSpace
from softde.surveys import Survey
from softde.surveys.human import HumanAnswers
from softde.surveys.targets import ScoresTarget, SharesTarget

SETTINGS: dict[str, Any] = {"optimizer": DE(population_size=6), "orders": "forward", "progress": False}


def test_shared_tokens_stand_before_own_ones(llama: LM) -> None:
    shared = torch.randn(3, llama.hidden_size, generator=torch.Generator().manual_seed(0))
    space, own = own_space(llama, shared, 2, "late"), PromptSpace.random(llama, 2)
    x = space.sample(4, generator_for(0, 0))
    decoded = space.decode(x)
    assert space.dim == own.dim and space.num_virtual_tokens == 5 and isinstance(space, BehindShared)
    assert torch.equal(x, own.sample(4, generator_for(0, 0))) and torch.equal(decoded[:, 3:], own.decode(x))
    assert all(torch.equal(row, shared) for row in decoded[:, :3])
    other = own_space(llama, shared + 1, 2, "late")
    assert space.record()["shared_tokens"] == 3 and space.record() != other.record()


def test_a_joint_run(llama: LM, mini: Survey, tmp_path: Path) -> None:
    targets = [mini.target("Ireland"), mini.target("Italy")]
    space = PromptSpace.random(llama, 2)
    found = align_joint(llama, mini, targets, space, 1, budget=96, shared=0.5, checkpoint=tmp_path, **SETTINGS)
    assert found.evaluations == 96 and found.shared.evaluations == 48
    assert found.mean_loss == pytest.approx(np.mean([r.plain_loss for r in found.regions]))
    named = ", ".join(r.target.region for r in found.regions)
    assert repr(found) == f"<JointResult for {named}: mean loss {found.mean_loss:.4g}; {found.evaluations} candidates>"
    for result, target in zip(found.regions, targets, strict=True):
        prompt = result.prompt.embeddings
        assert prompt.shape[0] == 3 and torch.equal(prompt[:2], found.shared.prompt.embeddings)
        assert result.target.region == target.region
    # The shared loss is the mean over regions of what the shared prompt scores for each.
    alone = [AlignmentLoss(llama, mini, target, space, "forward") for target in targets]
    soft = found.shared.prompt.embeddings[None]
    answer = llama.option_logprobs(alone[0].plan, soft, plain=True)
    expected = np.mean([loss.evaluate(answer).losses[0] for loss in alone])
    assert found.shared.plain_loss == pytest.approx(expected, rel=1e-6)
    # Of two regions a factor has one pair, in the published order or not; without prompts there is no order.
    scores, goal = np.stack([r.scores for r in found.regions]), np.stack([t.scores for t in targets])
    order = np.sign(scores[0] - scores[1]) * np.sign(goal[0] - goal[1])
    assert found.tau == dict(zip(mini.factors, order.tolist(), strict=True)) and np.abs(order).sum() > 0
    assert list(found.unprompted_tau) == list(mini.factors) and np.isnan(list(found.unprompted_tau.values())).all()
    again = align_joint(llama, mini, targets, space, 1, budget=96, shared=0.5, checkpoint=tmp_path, **SETTINGS)
    assert torch.equal(again.regions[1].prompt.embeddings, found.regions[1].prompt.embeddings)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["region-1", "region-2", "shared"]


def test_what_no_shared_prompt_can_beat(mini: Survey) -> None:
    """Two targets of 130, 61.5 and 75, 30: any scores between them are half their distance from each, on average."""
    goals = [ScoresTarget(mini.target(region)) for region in ("Ireland", "Italy")]
    assert shared_floor(goals) == pytest.approx((55 + 31.5) / 2)
    assert math.isnan(shared_floor([goals[0], replace(goals[1], norm="L2")]))
    assert math.isnan(shared_floor([goals[0], ScoresTarget(mini.target("Italy", constants=0.0))]))


def test_evaluations_to_a_mean_loss() -> None:
    def line(evaluations: int, best: float | None) -> dict[str, Any]:
        return {"evaluations": evaluations, "best": best}

    one = [line(10, None), line(20, 8.0), line(30, 4.0)]
    other = [line(10, 3.0), line(20, 3.0), line(30, 2.0)]
    assert evaluations_to(6.0, [one, other]) == 40 and evaluations_to(3.0, [one, other], before=100) == 160
    assert evaluations_to(2.0, [one, other]) == math.inf


def test_targets_of_items_have_no_ranks(llama: LM, mini: Survey) -> None:
    shares = np.full((2, 4, 5), 0.0)
    shares[:, :, 0] = 1
    human = HumanAnswers(mini, ("Ireland", "Italy"), shares, np.full((2, 4), np.nan))
    goals = [SharesTarget.of(human, region) for region in human.regions]
    found = align_joint(llama, mini, goals, PromptSpace.random(llama, 1), 1, budget=18, shared=0.34, **SETTINGS)
    assert found.tau == {} and found.evaluations == 18


def test_bad_input_is_refused(llama: LM, mini: Survey) -> None:
    target = mini.target("Ireland")
    with pytest.raises(ValueError, match="targets: expected two or more, one per region, got 1; align is for one"):
        align_joint(llama, mini, [target])
    for wrong, said in ((target, "Target"), ("Ireland", "'Ireland'")):
        with pytest.raises(ValueError, match=f"targets: expected a list, one per region, got {said}; align is for one"):
            align_joint(llama, mini, wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shared: expected a share of the budget between 0 and 1, got '0.3'"):
        align_joint(llama, mini, [target, target], shared="0.3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shared: expected a share of the budget between 0 and 1, got 1"):
        align_joint(llama, mini, [target, target], shared=1)
    with pytest.raises(ValueError, match="budget: expected enough for 3 searches, got 2"):
        align_joint(llama, mini, [target, target], budget=2)
    with pytest.raises(ValueError, match="own_tokens: expected a whole number of at least 1, got 0"):
        align_joint(llama, mini, [target, target], own_tokens=0)
