"""Devices and quantised weights: what is missing is said at once, what is there runs."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch

from softde.lm import LM, loading
from tests import tiny_random

QUANTIZED = {"int8": "torchao", "int4": "bitsandbytes"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}  # bitsandbytes works in blocks of 64
    return tiny_random.save(tmp_path_factory.mktemp("llama"), **sizes)


def quantized(folder, word):
    pytest.importorskip(QUANTIZED[word])
    model, tokenizer, name, _ = loading.load(folder, device="cpu", quantization=word)
    return LM(model, tokenizer, name)


def test_auto_takes_the_devices_there_are(folder, survey):
    pytest.importorskip("accelerate")
    lm, one = LM.from_pretrained(folder, device="auto"), LM.from_pretrained(folder)
    plan = lm.plan(survey)
    prompts = torch.randn(3, 2, 64, generator=torch.Generator().manual_seed(0))
    assert lm.device == one.device and lm.dtype == one.dtype
    torch.testing.assert_close(lm.option_logprobs(plan, prompts).logprobs, one.option_logprobs(plan, prompts).logprobs)


@pytest.mark.parametrize("word", QUANTIZED)
@pytest.mark.filterwarnings("default")  # those of the packages themselves
def test_quantised_on_the_way(folder, survey, word):
    lm, full = quantized(folder, word), LM.from_pretrained(folder, device="cpu")
    assert type(lm.model.model.layers[0].mlp.up_proj.weight) is not type(full.model.model.layers[0].mlp.up_proj.weight)
    before = full.model.model.layers[0].mlp.up_proj.weight.clone()
    assert (lm.dtype, lm.device.type, lm.hidden_size) == (torch.float32, "cpu", 64)
    assert lm.config_hash != full.config_hash
    with (
        torch.no_grad()
    ):  # the float model gets the weights that the quantised one works with: what it does to 1, 0, 0 ...
        for name, module in full.model.model.named_modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.copy_(lm.model.model.get_submodule(name)(torch.eye(module.in_features)).T)
        moved = (full.model.model.layers[0].mlp.up_proj.weight - before).abs().max()
    assert 0 < float(moved) < {"int8": 0.01, "int4": 0.3}[word]
    prompts = torch.randn(3, 2, 64, generator=torch.Generator().manual_seed(0))
    for placement in ("front", "late"):
        plan = lm.plan(survey, placement=placement)
        fast, plain = lm.option_logprobs(plan, prompts), lm.option_logprobs(plan, prompts, plain=True)
        assert lm.engine.path(plan, 2) == full.engine.path(plan, 2)
        torch.testing.assert_close(fast.logprobs, plain.logprobs, atol=1e-4, rtol=0)
        expected = full.option_logprobs(plan, prompts).logprobs
        torch.testing.assert_close(fast.logprobs, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("word", QUANTIZED)
@pytest.mark.filterwarnings("default")
def test_quantised_already(folder, survey, tmp_path, word):
    lm = quantized(folder, word)
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    again = LM.from_pretrained(tmp_path, device="cpu")
    plan = lm.plan(survey)
    expected = lm.option_logprobs(plan).logprobs
    torch.testing.assert_close(again.option_logprobs(plan).logprobs, expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=rf"quantised already \({QUANTIZED[word]}\); leave out quantization"):
        loading.load(tmp_path, device="cpu", quantization=word)


@pytest.mark.parametrize("settings", [{"quantization": "int8"}, {"quantization": "int4"}, {"device": "auto"}])
def test_a_missing_package_is_named_before_anything_is_read(monkeypatch, settings):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    with pytest.raises(ImportError, match=r"needs the package \w+: pip install \w+"):
        loading.load("there is no such model", **settings)


def test_a_quantised_checkpoint_names_its_package(folder, tmp_path):
    if importlib.util.find_spec("gptqmodel"):
        pytest.skip("gptqmodel is installed")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ImportError, match=r"(?i)gptqmodel|optimum"):
        LM.from_pretrained(tmp_path, device="cpu")


@pytest.mark.parametrize("wanted", ["int2", 8, {"load_in_8bit": True}])
def test_other_words_are_refused(wanted):
    with pytest.raises(ValueError, match="quantization: expected None, 'int8', 'int4' or a quantization config"):
        loading.load("there is no such model", quantization=wanted)
