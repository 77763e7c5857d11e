"""What trained methods hand back, and searches by forwards as such a method."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from softde import Condition, administer, align
from softde.baselines.searched import searched
from softde.baselines.trained import Trained, improvements
from softde.lm import LM
from softde.optim import DE
from softde.progress import Progress
from softde.space import PromptSpace
from softde.surveys import Survey, Target

SMALL = DE(4, "rand1bin")


@pytest.fixture
def go(llama: LM, mini: Survey, ireland: Target) -> Callable[..., Trained]:
    """`go(checkpoint=folder)`: three generations of four candidates."""

    def call(optimizer: Any = SMALL, budget: int = 12, **changes: Any) -> Trained:
        space = PromptSpace.random(llama, 2)
        return searched(llama, mini, ireland, space, optimizer, budget, **{"progress": False, **changes})

    return call


def test_only_improvements_are_kept() -> None:
    history = [(4, None), (8, 3.0), (12, 3.0), (16, 2.5), (20, 2.75)]
    found = improvements(history)
    assert found == ((8, 3.0), (16, 2.5))
    trained = Trained(Condition(), 0.0, 0.0, trajectory=found)
    assert [trained.best_after(n) for n in (7, 8, 15, 16, 99)] == [math.inf, 3.0, 3.0, 2.5, 2.5]
    assert math.isnan(trained.loss)


@pytest.mark.parametrize("optimizer", [SMALL, "bbt", "random"])
def test_a_search_is_align(
    go: Callable[..., Trained], llama: LM, mini: Survey, ireland: Target, optimizer: Any
) -> None:
    found = go(optimizer, 48, orders="forward", seed=3)
    result = align(
        llama, mini, ireland, PromptSpace.random(llama, 2), optimizer, 48, 3, orders="forward", progress=False
    )
    assert found.condition.prompt is not None and found.condition.name == (
        "DE" if isinstance(optimizer, DE) else optimizer
    )
    assert torch.equal(found.condition.prompt.embeddings, result.prompt.embeddings)
    assert found.forward_tokens == result.forward_tokens > 0 and found.seconds > 0
    assert found.loss == result.plain_loss == pytest.approx(found.trajectory[-1][1], abs=1e-3)
    assert [loss for _, loss in found.trajectory] == sorted({line["best"] for line in result.trajectory}, reverse=True)
    assert found.trajectory[0][0] == result.trajectory[0]["evaluations"]


def test_its_loss_is_that_of_the_administered_condition(
    go: Callable[..., Trained], llama: LM, mini: Survey, ireland: Target
) -> None:
    found = go()
    scores = administer(mini, llama, found.condition).scores(ireland.constants)
    assert found.loss == pytest.approx(float(np.abs(scores - ireland.scores).sum()), rel=1e-4)


def test_ctrl_c_is_passed_on_and_the_same_call_goes_on(go: Callable[..., Trained], tmp_path: Path) -> None:
    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    whole = go(checkpoint=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        go(checkpoint=tmp_path / "cut", progress=stop)
    assert len((tmp_path / "cut" / "log.jsonl").read_text().splitlines()) == 1
    found = go(checkpoint=tmp_path / "cut")
    assert found.condition.prompt == whole.condition.prompt and found.trajectory == whole.trajectory
    assert (tmp_path / "cut" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


def test_a_target_loss_ends_it(go: Callable[..., Trained]) -> None:
    assert len(go(target_loss=1e6, budget=400).trajectory) == 1
