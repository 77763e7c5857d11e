"""Alignment to targets of items: the same path as published scores, from early rejection to verification."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import softde
from softde.gradient import GradientSteps, Slope
from softde.lm import LM
from softde.lm.engine import part
from softde.lm.neutral import SideEffects
from softde.objective import PARTS, AlignmentLoss
from softde.optim import DE, generator_for
from softde.prompt import SoftPrompt
from softde.space import PromptSpace
from softde.surveys import Survey, load_survey
from softde.surveys.human import HumanAnswers
from softde.surveys.survey import Item, options
from softde.surveys.targets import CultureSPATarget, MeansTarget, ScoresTarget, SharesTarget, target_from_dict
from softde.verify import verify


@pytest.fixture(scope="module")
def human() -> HumanAnswers:
    """Made-up answers of two regions to VSM 2013."""
    survey = load_survey("vsm13")
    shares = np.random.default_rng(0).dirichlet(np.ones(5) * 0.6, size=(2, len(survey.items)))
    return HumanAnswers(survey, ("Ireland", "Italy"), shares, np.full(shares.shape[:2], np.nan), "made up")


def targets(human: HumanAnswers) -> dict[str, Any]:
    held = ("m03", "m17")
    scores = human.survey.target("Italy", edition="2015")
    return {
        "js": SharesTarget.of(human, "Italy", held_out=held),
        "kl": SharesTarget.of(human, "Italy", "kl", held_out=held),
        "wasserstein": SharesTarget.of(human, "Italy", "wasserstein", held_out=held),
        "means": MeansTarget.of(human, "Italy", held_out=held),
        "means L2": MeansTarget.of(human, "Italy", "L2", held_out=held),
        "culture-spa": CultureSPATarget.of(human, "Italy", held_out=held),
        "majority": CultureSPATarget.of(human, "Italy", "majority", held_out=held),
        "huber": ScoresTarget(scores, "huber"),
        "sum": 0.001 * ScoresTarget(scores) + SharesTarget.of(human, "Italy"),
    }


NAMES = ("js", "kl", "wasserstein", "means", "means L2", "culture-spa", "majority", "huber", "sum")
FAST = ("js", "means L2", "culture-spa", "sum")  # one of each way to make a loss of errors


def some_fast(*names: str) -> list[Any]:
    """Targets by name as parameters of a test; the others take longer than they are likely to tell."""
    return [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in names]


def loss_of(lm: LM, target: Any, survey: Survey, **more: Any) -> AlignmentLoss:
    return AlignmentLoss(lm, survey, target, PromptSpace.random(lm, 2), "forward", **more)


def test_items_are_asked_in_a_few_blocks(llama: LM, human: HumanAnswers) -> None:
    loss = loss_of(llama, targets(human)["js"], human.survey)
    assert len(loss.asked.items) == 22 and "m03" not in loss.asked.item_ids
    assert len(loss.plan.blocks) == loss.stages == PARTS
    assert sorted(i for block in loss.plan.blocks for i in block) == list(range(22))
    assert next(iter(loss.parts)) == "m01..m05" and sum(map(len, loss.parts.values())) == 22
    total = loss_of(llama, targets(human)["sum"], human.survey)  # factors are not cut
    assert total.asked is human.survey and len(total.plan.blocks) == 6
    plain = loss_of(llama, human.survey.target("Italy", edition="2015"), human.survey)
    assert plain.plan is llama.plan(human.survey, orders="forward")


@pytest.mark.parametrize("name", ["sum", *(pytest.param(n, marks=pytest.mark.slow) for n in ("js", "culture-spa"))])
def test_losses_are_those_of_plain_forwards(llama: LM, human: HumanAnswers, name: str) -> None:
    loss = loss_of(llama, targets(human)[name], human.survey)
    x = loss.space.sample(2, generator_for(0, 0))
    got, plain = loss(x), loss(x, plain=True)
    assert got.losses == pytest.approx(plain.losses, rel=1e-3) and np.isfinite(got.losses).all()
    survey = human.survey
    for row, soft in enumerate(loss.space.decode(x)):
        condition = softde.Condition(prompt=SoftPrompt(soft, "late"))
        made = softde.administer(survey, llama, condition, "forward", plain=True)
        p = made.probabilities[None]
        expected = loss.goal.loss(loss.goal.errors(loss.goal.values(survey, p)))[0]
        assert plain.losses[row] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", some_fast(*NAMES))
def test_a_candidate_has_the_same_loss_in_any_company(llama: LM, human: HumanAnswers, name: str) -> None:
    loss = loss_of(llama, targets(human)[name], human.survey)
    x = loss.space.sample(5, generator_for(1, 0))
    together = loss(x).losses
    assert [float(loss(row[None]).losses[0]) for row in x] == together.tolist()


@pytest.mark.parametrize("name", some_fast(*NAMES))
def test_early_rejection_is_exact(llama: LM, human: HumanAnswers, name: str) -> None:
    loss = loss_of(llama, targets(human)[name], human.survey)
    x = loss.space.sample(11, generator_for(0, 0))
    exact = loss(x)
    bound = torch.from_numpy(exact.losses * ([0.2, 0.6, 1.0, 1.3] * 3)[:11])
    bound[3] = math.inf
    some = loss(x, bound=bound, order=tuple(loss.parts)[::-1])
    survived = exact.losses <= bound.numpy()
    assert some.losses[survived].tolist() == exact.losses[survived].tolist()
    assert (some.losses[~survived] > bound.numpy()[~survived]).all() and survived.sum() == 5
    assert (some.losses <= exact.losses * (1 + 1e-12)).all() and some.tokens < exact.tokens


SEARCH: dict[str, Any] = {"optimizer": DE(population_size=6), "budget": 12, "orders": "forward", "progress": False}


@pytest.mark.parametrize("name", ["sum", *(pytest.param(n, marks=pytest.mark.slow) for n in ("js", "culture-spa"))])
def test_the_search_is_the_same_without_early_rejection(llama: LM, human: HumanAnswers, name: str) -> None:
    space, target = PromptSpace.random(llama, 2), targets(human)[name]
    early, full = (softde.align(llama, human.survey, target, space, **SEARCH, early_rejection=e) for e in (True, False))
    assert torch.equal(early.prompt.embeddings, full.prompt.embeddings) and early.loss == full.loss
    assert [line["best"] for line in early.trajectory] == [line["best"] for line in full.trajectory]
    assert early.forward_tokens < full.forward_tokens
    assert early.plain_loss < early.unprompted_loss


def test_a_run_shows_held_out_items_and_goes_on(llama: LM, human: HumanAnswers, tmp_path: Path) -> None:
    space, target = PromptSpace.random(llama, 2), targets(human)["js"]
    settings = {**SEARCH, "checkpoint": tmp_path}
    softde.align(llama, human.survey, target, space, **{**settings, "budget": 6})
    result = softde.align(llama, human.survey, target, space, **settings)
    alone = softde.align(llama, human.survey, target, space, **SEARCH)
    assert torch.equal(result.prompt.embeddings, alone.prompt.embeddings)
    record = json.loads((tmp_path / "result.json").read_text())
    assert target_from_dict(record["target"]) == target
    assert list(record["values"]) == list(target.terms) and "scores" not in record
    held = loss_of(llama, target.held_out_target, human.survey)
    assert record["held_out"]["items"] == 2
    assert record["held_out"]["unprompted_loss"] == pytest.approx(float(held.unprompted(plain=True).losses[0]))
    soft = result.prompt.embeddings[None]
    p = softde.readouts.probabilities(llama.option_logprobs(held.plan, soft, plain=True).logprobs)
    expected = float(held.goal.loss(held.goal.values(held.asked, p))[0])
    assert record["held_out"]["loss"] == pytest.approx(expected)
    assert result.prompt.provenance["held_out"] == record["held_out"]
    assert target_from_dict(SoftPrompt.load(tmp_path / "prompt.safetensors").provenance["target"]) == target
    # A part's errors are what it adds to the loss: those of the best candidate of the first generation are its loss.
    first = result.trajectory[0]
    parts = [value for name, value in first.items() if name.startswith("candidate_")]
    assert sum(parts) == pytest.approx(first["best"]) and len(parts) == PARTS
    with pytest.raises(ValueError, match="another configuration .*target.held_out was"):
        softde.align(llama, human.survey, replace(target, held_out=("m01",)), space, **settings)


def test_a_prompt_that_was_made_for_shares_verifies(llama: LM, human: HumanAnswers) -> None:
    settings = {**SEARCH, "budget": 6}
    result = softde.align(llama, human.survey, targets(human)["js"], PromptSpace.random(llama, 2), **settings)
    assert verify(result.prompt, llama, human.survey).ok
    asked = result.prompt.provenance["verification"]["items"]
    assert len(asked) == 3 and not {"m03", "m17"} & set(asked)


@pytest.mark.slow
def test_seeds_share_evaluations(llama: LM, human: HumanAnswers) -> None:
    space, target = PromptSpace.random(llama, 2), targets(human)["js"]
    both = softde.align(llama, human.survey, target, space, **SEARCH, seeds=[0, 1])
    alone = softde.align(llama, human.survey, target, space, **SEARCH, seed=1)
    assert torch.equal(both[1].prompt.embeddings, alone.prompt.embeddings)


@pytest.mark.parametrize("readout", [pytest.param(softde.Argmax(), marks=pytest.mark.slow), softde.Sampled(4)])
def test_other_readouts_and_halving(llama: LM, human: HumanAnswers, readout: Any) -> None:
    settings = {**SEARCH, "orders": "both", "readout": readout, "halving": softde.Halving()}
    result = softde.align(llama, human.survey, targets(human)["js"], PromptSpace.random(llama, 2), **settings)
    assert 0 < result.plain_loss < 1 and result.held_out is not None and result.expected_loss is not None


# ---- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", some_fast(*(name for name in NAMES if name != "majority")))
def test_gradients_are_finite_differences(llama: LM, human: HumanAnswers, name: str) -> None:
    loss = loss_of(llama, targets(human)[name], human.survey)
    x, step = loss.space.sample(1, generator_for(0, 0))[0], 2e-2
    with torch.inference_mode(False), torch.enable_grad():
        slope = Slope.of(loss)
        value, gradient, _ = slope(x)
    assert value == pytest.approx(float(loss(x[None]).losses[0]), rel=1e-4)
    way = gradient / gradient.norm()
    up, down = (float(loss((x + s * step * way)[None]).losses[0]) for s in (1, -1))
    assert float(gradient.norm()) == pytest.approx((up - down) / (2 * step), rel=0.05)


def test_a_warm_start_lowers_the_loss(llama: LM, human: HumanAnswers) -> None:
    settings = {**SEARCH, "budget": 33, "warm_start": GradientSteps(5, starts=1)}
    result = softde.align(llama, human.survey, targets(human)["js"], PromptSpace.random(llama, 2), **settings)
    descent = result.warm_start["losses"][0]
    assert descent[-1] < descent[0] and result.plain_loss <= descent[-1] * 1.01


def test_a_loss_in_steps_has_no_warm_start(llama: LM, human: HumanAnswers) -> None:
    with pytest.raises(ValueError, match="the loss of this CultureSPATarget moves in steps: leave out warm_start"):
        softde.align(llama, human.survey, targets(human)["majority"], **SEARCH, warm_start=GradientSteps(2))


# ---- items that cannot be asked --------------------------------------------------------------------------------------


def test_items_with_labels_of_several_tokens_are_left_out(
    llama: LM, human: HumanAnswers, caplog: pytest.LogCaptureFixture
) -> None:
    wide = Item("wide", "How often?", options([f"{n} times" for n in range(1, 13)]))
    survey = replace(human.survey, items=(*human.survey.items, wide))
    shares = np.zeros((2, 25, 12))
    shares[:, :24, :5] = human.shares
    shares[:, 24] = 1 / 12
    wider = HumanAnswers(survey, human.regions, shares, np.full((2, 25), np.nan))
    target = SharesTarget.of(wider, "Italy", held_out=0.2)
    assert len(llama.tokenizer.tokenize("12")) > 1, "the tokenizer of these tests has no token for 12"
    result = softde.align(llama, survey, target, PromptSpace.random(llama, 2), **{**SEARCH, "budget": 6})
    assert list(result.left_out) == ["wide"] and "wide" not in result.target.items
    assert "1 of 25 items are left out, which this model cannot be asked: wide; the first because" in caplog.text


# ---- side effects ----------------------------------------------------------------------------------------------------


def test_side_effects_are_the_divergence_on_neutral_texts(llama: LM, human: HumanAnswers) -> None:
    texts = ("Good morning.", "Name a colour, please.")
    loss = loss_of(llama, targets(human)["js"], human.survey, side_effects=SideEffects(0.5, texts))
    without = replace(loss, side_effects=None)
    x = loss.space.sample(5, generator_for(0, 0))
    got = loss(x)
    for row, soft in enumerate(loss.space.decode(x)):
        bits = []
        for text in texts:
            head, tail = llama.tokenizer.apply_chat_template(
                [{"role": "user", "content": text + "@@@"}], tokenize=False, add_generation_prompt=True
            ).split("@@@")
            ids = [llama.tokenizer(t, add_special_tokens=False).input_ids for t in (head, tail)]
            before, after = (llama.embed(i) for i in ids)
            with torch.no_grad():
                p = llama.model(inputs_embeds=torch.cat([before, soft, after])[None]).logits[0, -1].double().softmax(-1)
                q = llama.model(inputs_embeds=torch.cat([before, after])[None]).logits[0, -1].double().softmax(-1)
            bits.append(float((p * (p / q).log2()).sum()))
        assert got.side_effects[row] == pytest.approx(sum(bits) / 2, abs=1e-4)
    assert got.losses == pytest.approx(without(x).losses + 0.5 * got.side_effects)
    assert [float(loss(row[None]).losses[0]) for row in x] == got.losses.tolist()
    assert got.tokens > without(x).tokens


def test_side_effects_in_a_search(llama: LM, human: HumanAnswers, tmp_path: Path) -> None:
    space, target = PromptSpace.random(llama, 2), human.survey.target("Italy", edition="2015")
    settings = {**SEARCH, "side_effects": SideEffects(2.0)}
    early = softde.align(llama, human.survey, target, space, **settings, checkpoint=tmp_path)
    full = softde.align(llama, human.survey, target, space, **settings, early_rejection=False)
    assert torch.equal(early.prompt.embeddings, full.prompt.embeddings) and early.loss == full.loss
    assert early.forward_tokens < full.forward_tokens
    free = softde.align(llama, human.survey, target, space, **{**SEARCH, "budget": 6})
    assert early.side_effects is not None and free.side_effects is None
    assert json.loads((tmp_path / "result.json").read_text())["side_effects"] == early.side_effects
    with pytest.raises(ValueError, match="side_effects: expected a weight above 0, got 0"):
        SideEffects(0)
    halved = {"halving": softde.Halving(), "readout": softde.Argmax()}
    with pytest.raises(ValueError, match="side_effects: they are asked of all candidates, so leave halving out"):
        replace(loss_of(llama, target, human.survey, side_effects=SideEffects(1.0)), orders="both", **halved)


# ---- selectivity -----------------------------------------------------------------------------------------------------


def test_what_moved_that_should_not(llama: LM, human: HumanAnswers) -> None:
    survey = human.survey
    some = SharesTarget.of(human, "Italy").without(["m20", "m21", "m22"])
    target = replace(some, held_out=("m03",))
    result = softde.align(llama, survey, target, PromptSpace.random(llama, 2), **{**SEARCH, "budget": 6})
    before = softde.administer(survey, llama, None, "forward").probabilities
    after = softde.administer(survey, llama, result.condition, "forward").probabilities
    bits = dict(zip(survey.item_ids, softde.surveys.losses.jensen_shannon(after, before), strict=True))
    found = result.selectivity
    assert found is not None
    assert found["others"] == pytest.approx(np.mean([bits[i] for i in ("m20", "m21", "m22")]), rel=1e-3)
    assert found["held_out"] == pytest.approx(bits["m03"], rel=1e-3)
    assert found["target"] == pytest.approx(np.mean([bits[i] for i in target.terms]), rel=1e-3)
    assert found["ratio"] == pytest.approx(found["others"] / found["target"])


def test_factors_without_a_weight(llama: LM, human: HumanAnswers) -> None:
    target = human.survey.target("Italy", edition="2015")
    space = PromptSpace.random(llama, 2)
    settings = {**SEARCH, "budget": 6}
    result = softde.align(llama, human.survey, target, space, weights=[1, 1, 0, 1, 1, 0], **settings)
    change = np.abs(result.scores - result.unprompted_scores)
    expected = change[[2, 5]] / change[[0, 1, 3, 4]].mean()
    assert result.selectivity is not None
    assert list(result.selectivity["factors"].values()) == pytest.approx(expected.tolist(), rel=1e-2)
    assert list(result.selectivity["factors"]) == ["MAS", "IVR"]
    assert softde.align(llama, human.survey, target, space, **settings).selectivity is None


def test_items_of_other_widths_than_those_a_path_is_checked_on(llama: LM) -> None:
    """A path is checked on a few questions, which may all have fewer options than the widest item."""
    narrow = [Item(f"n{i}", "Yes or no?" + " Well?" * (i % 7), options(["yes", "no"])) for i in range(12)]
    wide = Item("wide", "Yes or no? Well? Well?", options(["a", "b", "c", "d"]))
    survey = Survey("ragged", "Ragged", (*narrow, wide))
    plan = LM(llama.model, llama.tokenizer).plan(survey)
    widths = {part(plan, numbers).n_options for numbers in ([0, 1], [24, 25])}
    assert widths == {2, 4}
    lm = LM(llama.model, llama.tokenizer)
    prompts = PromptSpace.random(lm, 2).sample(2, generator_for(0, 0)).view(2, 2, -1)
    fast, plain = lm.option_logprobs(plan, prompts), lm.option_logprobs(plan, prompts, plain=True)
    assert torch.allclose(fast.logprobs, plain.logprobs, atol=1e-4) and fast.logprobs.shape == (2, 13, 4)
