"""Successive halving over the orders of the options: exact for those that are kept, and what it saves."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from softde import Argmax, Expected, Generated, Sampled, SequenceLogprob, align
from softde.lm import LM
from softde.objective import AlignmentLoss, Halving
from softde.optim import DE, generator_for
from softde.space import PromptSpace
from softde.surveys import Survey, Target, load_survey

READOUTS = (Argmax(), Sampled(3), Generated(2, 2, 1.0, parser=lambda text, item: (0, None, 1, 0, 1, 0)[len(text) % 6]),
            SequenceLogprob())  # fmt: skip


@pytest.fixture
def scorer(llama: LM, mini: Survey, ireland: Target) -> Callable[..., AlignmentLoss]:
    space = PromptSpace.random(llama, 2)
    return lambda readout, keep: AlignmentLoss(
        llama, mini, ireland, space, readout=readout, halving=Halving(keep) if keep else None
    )


def halved(loss: AlignmentLoss, x: torch.Tensor, draw: int = 0) -> Any:
    assert loss.halving is not None
    first = loss(x, part=loss.halving.first, draw=draw)
    rows = loss.halving.kept(first.losses)
    return loss.halved(first, rows, loss(x[torch.from_numpy(rows)], part=loss.halving.second, draw=draw)), rows, first


@pytest.mark.parametrize("readout", READOUTS, ids=lambda r: type(r).__name__)
def test_those_that_are_kept_have_their_full_losses(scorer: Callable[..., AlignmentLoss], readout: Any) -> None:
    loss = scorer(readout, 0.5)
    x = loss.space.sample(7, generator_for(0, 0))
    (found, rows, first), full = halved(loss, x), scorer(readout, None)(x)
    assert len(rows) <= 4 and found.losses.shape == (7,) and len(rows) > 1
    everyone, _, _ = halved(scorer(readout, 1.0), x)
    assert found.losses[rows].tolist() == everyone.losses[rows].tolist()
    if isinstance(readout, SequenceLogprob):  # one order alone is another forward, with other last bits
        assert found.losses[rows] == pytest.approx(full.losses[rows], rel=1e-5)
    else:
        assert found.losses[rows].tolist() == full.losses[rows].tolist()
        assert found.scores[rows].tolist() == full.scores[rows].tolist()
    dropped = np.setdiff1d(np.arange(7), rows)
    worse = found.losses[dropped]
    scored = ~np.isnan(worse)
    assert (worse[scored] > found.losses[rows].max()).all() and scored.any()
    assert np.argsort(worse[scored]).tolist() == np.argsort(first.losses[dropped][scored]).tolist()
    assert (np.isnan(first.losses[dropped]) == np.isnan(worse)).all()
    assert found.option_mass == pytest.approx(full.option_mass, abs=0.5)


def test_what_it_saves() -> None:
    survey, lm = load_survey("vsm13"), LM.from_pretrained("tiny")
    target = survey.target("Saudi Arabia", edition="2023")
    for keep, share in ((0.5, 0.25), (0.25, 0.375)):
        loss = AlignmentLoss(
            lm, survey, target, PromptSpace.random(lm, 2), readout=Argmax(), halving=Halving(keep, "reversed")
        )
        x = loss.space.sample(8, generator_for(0, 0))
        found, rows, _ = halved(loss, x)
        assert len(rows) == 8 * keep and found.tokens == found.spent.sum()
        assert found.saved / (found.tokens + found.saved) == pytest.approx(share, abs=0.02)
        if keep == 0.5:  # a stem is run once for each order, which costs a little
            assert found.tokens < 0.8 * AlignmentLoss(lm, survey, target, loss.space, readout=Argmax())(x).tokens


def test_a_search_with_halving(llama: LM, mini: Survey, ireland: Target, tmp_path: Path) -> None:
    space, readout = PromptSpace.random(llama, 2), Sampled(2)

    def go(folder: Path, halving: Halving | None, **more: Any) -> Any:
        return align(llama, mini, ireland, space, DE(6), 24, checkpoint=folder, progress=False, readout=readout,
                     halving=halving, **more)  # fmt: skip

    some, whole = go(tmp_path / "some", Halving()), go(tmp_path / "whole", None)
    assert some.forward_tokens == sum(step["tokens"] for step in some.trajectory) < 0.8 * whole.forward_tokens
    record = json.loads((tmp_path / "some" / "result.json").read_text())
    assert record["tokens_saved"] == sum(step["tokens_saved"] for step in some.trajectory) > 0
    assert yaml.safe_load((tmp_path / "some" / "run.yaml").read_text())["halving"] == {"keep": 0.5, "first": "forward"}
    loss = AlignmentLoss(llama, mini, ireland, space, readout=readout)
    x = (some.prompt.embeddings - space.centre).flatten()[None] / space.scale
    assert float(loss(x).losses[0]) == pytest.approx(some.loss)  # the best was asked everything
    together = go(tmp_path / "seeds", Halving(), seeds=[0, 1])
    assert torch.equal(together[0].prompt.embeddings, some.prompt.embeddings)
    assert together[0].trajectory == some.trajectory
    with pytest.raises(ValueError, match="halving.keep was 0.5, now 0.25"):
        go(tmp_path / "some", Halving(0.25))


def test_who_is_kept() -> None:
    assert Halving().kept(np.array([3.0, 1.0, 2.0, 2.0, 9.0])).tolist() == [1, 2, 3]
    assert Halving(0.2).kept(np.array([3.0, 1.0, 2.0])).tolist() == [1]
    assert Halving().kept(np.array([math.nan, 5.0, math.nan, math.nan])).tolist() == [1]
    assert Halving().kept(np.array([math.nan] * 3)).tolist() == []
    assert (Halving().second, Halving(first="reversed").second) == ("reversed", "forward")


def test_a_generation_that_gives_no_answers(llama: LM, mini: Survey, ireland: Target) -> None:
    answers = Generated(parser=lambda text, item: None)
    with pytest.raises(ValueError, match="no candidate of the first generation could be scored"):
        align(llama, mini, ireland, PromptSpace.random(llama, 2), DE(4), 8, progress=False, readout=answers,
              halving=Halving())  # fmt: skip


def test_bad_settings(llama: LM, mini: Survey, ireland: Target) -> None:
    for keep in (0, 1.5, True, math.nan):
        with pytest.raises(ValueError, match="keep: expected a share above 0, up to 1, got"):
            Halving(keep)
    with pytest.raises(ValueError, match="first: expected one of forward, reversed, got 'both'"):
        Halving(first="both")
    space = PromptSpace.random(llama, 2)
    for readout, orders in ((None, "both"), (Expected(), "both"), (Argmax(), "forward")):
        with pytest.raises(ValueError, match="halving: expected a read-out other than Expected"):
            AlignmentLoss(llama, mini, ireland, space, orders, readout=readout, halving=Halving())
