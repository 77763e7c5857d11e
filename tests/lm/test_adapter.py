"""Adapters and panels: against merged weights and means by hand; the model is the same afterwards."""

from __future__ import annotations

import copy
import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from softde.administer import administer
from softde.condition import Condition, Panel, as_condition
from softde.design import Design
from softde.lm import LM
from softde.lm.adapter import adapted, record_base
from softde.readouts import Argmax, Readout, Sampled
from softde.surveys import Survey
from tests import tiny_random

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings(  # of some versions of peft
    "ignore:`is_gradient_checkpointing`:FutureWarning", "ignore:Could not find a config file:UserWarning"
)


@pytest.fixture(scope="module")
def adapter(llama: LM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA with random weights in both halves, so that it does something."""
    folder = tmp_path_factory.mktemp("adapter")
    model = peft.get_peft_model(copy.deepcopy(llama.model), peft.LoraConfig(r=4, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    model.save_pretrained(folder)
    record_base(llama, folder)
    return folder


def state(lm: LM) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in lm.model.state_dict().items()}


def same(before: dict[str, torch.Tensor], lm: LM) -> bool:
    after = lm.model.state_dict()
    return list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)


def test_answers_are_those_of_merged_weights_and_the_model_stays(llama: LM, mini: Survey, adapter: Path) -> None:
    before, alone = state(llama), administer(mini, llama).probabilities
    modules = dict(llama.model.named_modules())
    found = administer(mini, llama, Condition(adapter=adapter)).probabilities
    merged = peft.PeftModel.from_pretrained(copy.deepcopy(llama.model), str(adapter)).merge_and_unload()
    np.testing.assert_allclose(found, administer(mini, LM(merged, llama.tokenizer)).probabilities, atol=1e-5)
    assert np.abs(found - alone).max() > 1e-3
    assert same(before, llama) and np.array_equal(administer(mini, llama).probabilities, alone)
    assert {name: id(m) for name, m in llama.model.named_modules()} == {name: id(m) for name, m in modules.items()}
    assert not any(parameter.requires_grad for parameter in llama.model.parameters())


def test_the_model_comes_back_when_asking_fails(llama: LM, adapter: Path) -> None:
    before = state(llama)
    with pytest.raises(KeyboardInterrupt), adapted(llama, adapter):
        raise KeyboardInterrupt
    assert same(before, llama)


@pytest.mark.parametrize(
    "more", [{"bias": "all"}, {"modules_to_save": ["lm_head"]}, {"modules_to_save": ["embed_tokens"]}]
)
def test_what_an_adapter_brings_along_goes_again(mini: Survey, tmp_path: Path, more: dict[str, object]) -> None:
    """Biases and whole modules that were trained beside LoRA are in the model while it is asked, and not afterwards."""
    lm = LM(tiny_random.make_model("qwen2"), tiny_random.make_tokenizer())
    trained = peft.get_peft_model(copy.deepcopy(lm.model), peft.LoraConfig(r=2, target_modules=["q_proj"], **more))
    with torch.no_grad():
        for number, (_, parameter) in enumerate(trained.named_parameters()):
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
                parameter.add_(0.3 * noise.to(parameter.dtype))
    trained.save_pretrained(tmp_path)
    before, alone = state(lm), administer(mini, lm).probabilities
    modules = {name: id(module) for name, module in lm.model.named_modules()}
    found = administer(mini, lm, Condition(adapter=tmp_path)).probabilities
    merged = peft.PeftModel.from_pretrained(copy.deepcopy(lm.model), str(tmp_path)).merge_and_unload()
    np.testing.assert_allclose(found, administer(mini, LM(merged, lm.tokenizer)).probabilities, atol=1e-5)
    assert np.abs(found - alone).max() > 1e-3
    assert same(before, lm) and modules == {name: id(module) for name, module in lm.model.named_modules()}
    assert np.array_equal(administer(mini, lm).probabilities, alone) and not hasattr(lm.model, "peft_config")


def test_an_adapter_of_another_model_is_refused(llama: LM, mini: Survey, adapter: Path, tmp_path: Path) -> None:
    for file in adapter.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    made = json.loads((tmp_path / "softde.json").read_text())
    (tmp_path / "softde.json").write_text(json.dumps({**made, "config_hash": "?", "model": "big"}))
    with pytest.raises(ValueError, match="was trained on model 'big', of another architecture"):
        administer(mini, llama, Condition(adapter=tmp_path))
    (tmp_path / "softde.json").unlink()
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    before = state(llama)
    for wrong in ({"r": 3}, {"target_modules": ["nowhere"]}):
        (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **wrong}))
        with pytest.raises(
            ValueError, match=f"does not fit model '{llama.name}'.*use the model that it was trained on"
        ):
            administer(mini, llama, Condition(adapter=tmp_path))
        assert same(before, llama)
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "PROMPT_TUNING"}))
    with pytest.raises(ValueError, match="is a prompt .*SoftPrompt.from_peft"):
        administer(mini, llama, Condition(adapter=tmp_path))
    with pytest.raises(ValueError, match="expected an adapter's folder, as peft saves one"):
        administer(mini, llama, Condition(adapter=tmp_path / "none"))
    with pytest.raises(ValueError, match="adapter: expected the folder of an adapter, got 3"):
        Condition(adapter=3)  # type: ignore[arg-type]


def test_other_weights_of_the_same_architecture_are_named(
    llama: LM, mini: Survey, adapter: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = copy.deepcopy(llama.model)
    with torch.no_grad():
        next(other.parameters()).add_(0.01)
    with caplog.at_level(logging.WARNING, "softde"):
        administer(mini, LM(other, llama.tokenizer, llama.name), Condition(adapter=adapter))
    assert "not on these weights" in caplog.text


# ---- panels --------------------------------------------------------------------------------------------------------

A, B = Condition("You are kind."), Condition("You are in a hurry, and you say so.")


def test_a_panel_answers_with_the_mean_of_its_members(llama: LM, mini: Survey) -> None:
    one, other, both = (administer(mini, llama, c) for c in (A, B, Panel((A, B), "two people")))
    np.testing.assert_allclose(both.probabilities, (one.probabilities + other.probabilities) / 2, rtol=1e-12)
    np.testing.assert_allclose(both.option_mass, (one.option_mass + other.option_mass) / 2, rtol=1e-12)
    np.testing.assert_allclose(both.values, np.stack([one.item_means, other.item_means]))
    np.testing.assert_allclose(both.item_errors, np.abs(one.item_means - other.item_means) / 2, atol=1e-12)
    assert both.forward_tokens == one.forward_tokens + other.forward_tokens and both.condition.name == "two people"
    np.testing.assert_allclose(both.scores(), (one.scores() + other.scores()) / 2, rtol=1e-9)


@pytest.mark.parametrize(("readout", "second"), [(Argmax(), Argmax()), (Sampled(3, 5), Sampled(3, 5 + 2**32))])
def test_single_answers_of_members_stand_one_after_another(
    llama: LM, mini: Survey, readout: Readout, second: Readout
) -> None:
    one, both = (administer(mini, llama, c, readout=readout) for c in (A, Panel((A, B))))
    other = administer(mini, llama, B, readout=second)
    assert np.array_equal(both.answers, np.concatenate([one.answers, other.answers]))
    np.testing.assert_allclose(both.probabilities, (one.probabilities + other.probabilities) / 2)
    assert len(both.respondents.answers) == len(both.answers)


def test_members_draw_for_themselves(llama: LM, mini: Survey) -> None:
    """Two hundred of the same member, one draw each, are as far from their probabilities as 200 draws are."""
    wanted = administer(mini, llama, A, orders="forward").probabilities
    drawn = administer(mini, llama, Panel((A,) * 200), orders="forward", readout=Sampled(1)).probabilities
    assert (np.abs(drawn - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / 200) + 1e-9).all()


def test_respondents_of_a_panel_are_written_with_who_they_are(llama: LM, mini: Survey, tmp_path: Path) -> None:
    two = administer(mini, llama, Panel((A, B), "two"), design=Design(20))
    two.save(tmp_path / "two.csv")
    with (tmp_path / "two.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 20 * len(mini.items) and two.answers is not None and len(two.answers) == 40
    designs = (Design(20), Design(20, seed=2**32))
    assert [row["persona"] for row in rows[:: len(mini.items)]] == [text for one in designs for text in one.personas]
    assert [row["order"] for row in rows] == [o for one in designs for sheet in one.sheets(mini) for _, o, _ in sheet]


def test_what_is_no_panel() -> None:
    for wrong in ((), "AB", A):
        with pytest.raises(ValueError, match="members: expected a list of one condition or more"):
            Panel(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"members\[1\]: expected Condition, got 'B'"):
        Panel((A, "B"))  # type: ignore[arg-type]
    assert as_condition(Panel((A,))) == Panel([A])  # type: ignore[arg-type]
