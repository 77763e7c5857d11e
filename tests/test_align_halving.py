"""Successive halving over orders of the options, or items: exact for those that are kept, and what it saves."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from softde import Argmax, Expected, Generated, Sampled, SequenceLogprob, align
from softde.design import Design
from softde.halving import Halving
from softde.lm import LM
from softde.objective import AlignmentLoss
from softde.optim import DE, SPSA, TwoStage, generator_for
from softde.space import PromptSpace
from softde.surveys import Survey, Target, load_survey
from softde.surveys.human import HumanAnswers
from softde.surveys.targets import SharesTarget, only_items

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
    one, other = loss.halving.stages
    first = loss(x, part=one, draw=draw)
    rows = loss.halving.kept(first.losses)
    return loss.halved(first, rows, loss(x[torch.from_numpy(rows)], part=other, draw=draw)), rows, first


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


def test_bad_settings(llama: LM, mini: Survey, ireland: Target, tmp_path: Path) -> None:
    wrong: Any
    for wrong in (0, 1.5, True, math.nan, "half", None):
        with pytest.raises(ValueError, match="keep: expected a share above 0, up to 1, got"):
            Halving(wrong)
    for wrong in (0, 1, "half", None):
        with pytest.raises(ValueError, match="share: expected a share of the items between 0 and 1, got"):
            Halving(by="items", share=wrong)
    with pytest.raises(ValueError, match="by: expected 'orders' or 'items', got 'factors'"):
        Halving(by="factors")
    with pytest.raises(ValueError, match="first: expected one of forward, reversed, got 'both'"):
        Halving(first="both")
    space = PromptSpace.random(llama, 2)
    for readout, orders in ((None, "both"), (Expected(), "both"), (Argmax(), "forward")):
        with pytest.raises(ValueError, match="halving: expected a read-out other than Expected"):
            AlignmentLoss(llama, mini, ireland, space, orders, readout=readout, halving=Halving())
    with pytest.raises(ValueError, match="halving: expected a read-out other than Expected"):
        AlignmentLoss(llama, mini, ireland, space, halving=Halving(by="items"))
    with pytest.raises(ValueError, match="every factor shares items with another; use Halving.by='orders'."):
        align(llama, mini, ireland, space, DE(4), 8, checkpoint=tmp_path / "run", progress=False, readout=Argmax(),
              halving=Halving(by="items"))  # fmt: skip
    for gradient in (SPSA(4), TwoStage(DE(4), SPSA(4), 8)):
        with pytest.raises(ValueError, match="halving: SPSA estimates a gradient from all candidates"):
            align(llama, mini, ireland, space, gradient, 16, checkpoint=tmp_path / "run", progress=False,
                  readout=Argmax(), halving=Halving())  # fmt: skip
    align(llama, mini, ireland, space, SPSA(4), 4, progress=False, readout=Argmax(), halving=Halving(1.0))
    assert not (tmp_path / "run").exists()


# ---- over items ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shares(mini: Survey) -> SharesTarget:
    """Made-up answers of a region to four items with five, five, three and two options: a term and a block each."""
    answers = np.zeros((1, 4, 5))
    answers[0] = [[0.1, 0.2, 0.3, 0.3, 0.1], [0.5, 0.2, 0.1, 0.1, 0.1], [0.2, 0.3, 0.5, 0, 0], [0.9, 0.1, 0, 0, 0]]
    return SharesTarget.of(HumanAnswers(mini, ("Ireland",), answers, np.full((1, 4), np.nan)), "Ireland")


def by_items(
    lm: LM, survey: Survey, target: Any, readout: Any, keep: float = 0.5, share: float = 0.5, orders: str = "forward"
) -> AlignmentLoss:
    halving = Halving(keep, by="items", share=share)
    return AlignmentLoss(lm, survey, target, PromptSpace.random(lm, 2), orders, readout=readout, halving=halving)


def test_a_part_settles_whole_terms(llama: LM, mini: Survey, shares: SharesTarget) -> None:
    vsm = load_survey("vsm13")
    for share, wanted in ((0.5, 12), (0.2, 4), (0.99, 20)):
        loss = by_items(llama, vsm, vsm.target("Italy", edition="2015"), Argmax(), share=share)
        first, second = loss.parts_of_halving
        assert sorted([*first, *second]) == list(range(24)) and len(first) == wanted
        assert all(term[first].any() != term[second].any() for term in loss.uses)
    assert [part.tolist() for part in by_items(llama, mini, shares, Argmax()).parts_of_halving] == [[0, 1], [2, 3]]
    assert by_items(llama, mini, shares, Argmax(), share=0.7).parts_of_halving[1].tolist() == [3]
    assert replace(loss, halving=Halving(), orders="both").parts_of_halving == ()


@pytest.mark.parametrize("orders", ["forward", "both"])
@pytest.mark.parametrize("readout", [*READOUTS, Design(20, attributes={})], ids=lambda r: type(r).__name__)
def test_who_is_asked_all_items_has_the_full_loss(
    llama: LM, mini: Survey, shares: SharesTarget, readout: Any, orders: str
) -> None:
    loss = by_items(llama, mini, shares, readout, 1.0, orders=orders)
    x = loss.space.sample(5, generator_for(0, 0))
    (found, rows, first), full = halved(loss, x, draw=3), replace(loss, halving=None)(x, draw=3)
    known = np.isfinite(first.losses)
    assert rows.tolist() == np.flatnonzero(known).tolist() and known.any()
    assert (first.losses[known] <= full.losses[known]).all() and (first.losses[known] < full.losses[known]).any()
    assert np.isnan(first.scores[:, 2:]).all()
    assert first.losses == pytest.approx(first.scores[:, :2].sum(axis=1) / 4, nan_ok=True)
    if isinstance(readout, SequenceLogprob):  # other questions make another forward, with other last bits
        assert found.losses[rows] == pytest.approx(full.losses[rows], rel=1e-5)
    else:
        assert found.losses[rows].tolist() == full.losses[rows].tolist()
        assert found.scores[rows].tolist() == full.scores[rows].tolist()
    assert found.option_mass[rows] == pytest.approx(full.option_mass[rows], rel=1e-4)


def test_factors_that_are_not_settled_add_nothing(llama: LM) -> None:
    survey = load_survey("vsm13")
    target = survey.target("Italy", edition="2015")
    loss = by_items(llama, survey, target, Sampled(2))
    x = loss.space.sample(6, generator_for(0, 0))
    (found, rows, first), full = halved(loss, x), replace(loss, halving=None)(x)
    settled = ~np.isnan(first.scores).any(axis=0)
    assert settled.sum() == 3 and first.scores[:, settled].tolist() == full.scores[:, settled].tolist()
    assert first.losses == pytest.approx(np.abs(first.scores - target.scores)[:, settled].sum(axis=1))
    assert (first.losses <= full.losses).all()
    assert len(rows) == 3 and found.losses[rows].tolist() == full.losses[rows].tolist()
    dropped = np.setdiff1d(np.arange(6), rows)
    assert (found.losses[dropped] > found.losses[rows].max()).all()
    assert np.argsort(found.losses[dropped]).tolist() == np.argsort(first.losses[dropped]).tolist()
    assert np.isnan(found.scores[dropped][:, ~settled]).all() and not np.isnan(found.scores[rows]).any()


def test_tokens_are_those_of_the_items_that_are_asked(llama: LM, mini: Survey, shares: SharesTarget) -> None:
    loss = by_items(llama, mini, shares, Argmax())
    x = loss.space.sample(6, generator_for(0, 0))
    found, rows, _ = halved(loss, x)
    prompts = loss.space.decode(x)
    asked = 0
    for items, some in ((("boss", "time"), np.arange(6)), (("nerves", "proud"), rows)):
        part = only_items(mini, items)
        asked += Argmax().read(llama, llama.plan(part, orders="forward"), part, prompts[some]).tokens
    assert found.tokens == found.spent.sum() == asked and len(rows) == 3
    assert (found.spent[rows] > np.delete(found.spent, rows).max()).all()
    assert found.saved == pytest.approx(found.spent[rows].sum() - 3 * np.delete(found.spent, rows).mean(), abs=1)


def test_a_search_by_items(llama: LM, mini: Survey, shares: SharesTarget, tmp_path: Path) -> None:
    space, readout = PromptSpace.random(llama, 2), Sampled(2)

    def go(folder: Path, budget: int = 24, halving: Halving | None = Halving(by="items"), **more: Any) -> Any:  # noqa: B008
        return align(llama, mini, shares, space, DE(6), budget, orders="forward", checkpoint=folder, progress=False,
                     readout=readout, halving=halving, **more)  # fmt: skip

    some, full = go(tmp_path / "some"), go(tmp_path / "full", halving=None)
    assert some.forward_tokens == sum(step["tokens"] for step in some.trajectory) < 0.85 * full.forward_tokens
    assert sum(step["tokens_saved"] for step in some.trajectory) > 0
    settings = yaml.safe_load((tmp_path / "some" / "run.yaml").read_text())["halving"]
    assert settings == {"keep": 0.5, "by": "items", "share": 0.5}
    x = (some.prompt.embeddings - space.centre).flatten()[None] / space.scale
    loss = AlignmentLoss(llama, mini, shares, space, "forward", readout=readout)
    assert float(loss(x).losses[0]) == pytest.approx(some.loss)  # the best was asked everything
    go(tmp_path / "parts", 12)
    again = go(tmp_path / "parts")
    assert again.trajectory == some.trajectory and torch.equal(again.prompt.embeddings, some.prompt.embeddings)
    everyone = go(tmp_path / "everyone", halving=Halving(1.0, by="items"))
    assert [step["best"] for step in everyone.trajectory] == [step["best"] for step in full.trajectory]
    assert torch.equal(everyone.prompt.embeddings, full.prompt.embeddings)
    with pytest.raises(ValueError, match="halving.keep was 0.5, now 0.25"):
        go(tmp_path / "some", halving=Halving(0.25, by="items"))
