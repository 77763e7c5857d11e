"""LM: frozen, with stable fingerprints; loading says in one sentence what is wrong."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from huggingface_hub import errors as hub
from safetensors.torch import load_file, save_file

from softde.lm import LM, loading
from softde.surveys import Item, load_survey, options
from tests import tiny_random

needs_tiny = pytest.mark.skipif(
    not (loading.TINY_FOLDER / "model.safetensors").exists(), reason="the embedded model is not built"
)


@pytest.fixture
def folder(tmp_path):
    return tiny_random.save(tmp_path / "model")


def test_frozen_and_float32_on_cpu_whatever_the_checkpoint(tmp_path):
    tiny_random.make_model().bfloat16().save_pretrained(tmp_path)
    tiny_random.make_tokenizer().save_pretrained(tmp_path)
    lm = LM.from_pretrained(tmp_path, device="cpu")
    assert lm.dtype == torch.float32 and lm.device.type == "cpu"
    assert not lm.model.training and not any(p.requires_grad for p in lm.model.parameters())
    assert (lm.hidden_size, lm.name, lm.revision, lm.is_tiny) == (32, str(tmp_path), None, False)
    assert LM.from_pretrained(tmp_path, dtype="bfloat16", device="cpu").dtype == torch.bfloat16
    assert LM.from_pretrained(tmp_path, dtype=torch.float16, device="cpu").dtype == torch.float16


def test_loading_is_silent(folder, capfd):
    LM.from_pretrained(folder)
    out, err = capfd.readouterr()
    assert out == "" and err == ""


def test_scoring_never_changes_the_model(lm, survey, prompts):
    before = {name: p.clone() for name, p in lm.model.named_parameters()}
    lm.option_logprobs(lm.plan(survey), prompts)
    assert all(torch.equal(before[name], p) for name, p in lm.model.named_parameters())


def test_embed_goes_through_the_module(load, lm):
    assert torch.equal(lm.embed([3, 5]), lm.model.get_input_embeddings().weight[[3, 5]])
    assert lm.embed(torch.tensor([[1, 2, 3]])).shape == (1, 3, 32)
    assert not lm.embed([3]).requires_grad
    assert lm.embedding_probe["module_scale"] == 1.0
    gemma = load("gemma2", sliding_window=16)
    module = float(gemma.embed([3]).norm() / gemma.model.get_input_embeddings().weight[3].norm())
    assert gemma.embedding_probe["module_scale"] == pytest.approx(module, abs=1e-3)
    assert module == pytest.approx(math.sqrt(32), rel=1e-3) or module == pytest.approx(1.0)


def test_embedding_stats_are_those_of_the_vocabulary(lm):
    rows = lm.model.get_input_embeddings().weight[: len(lm.tokenizer)]
    mean, std = lm.embedding_stats
    torch.testing.assert_close(mean, rows.mean(0))
    assert std == pytest.approx(float((rows - rows.mean(0)).square().mean().sqrt()), rel=1e-5)


def test_fingerprints_are_stable_and_tell_apart(folder, load, tmp_path):
    a, b = LM.from_pretrained(folder), LM.from_pretrained(folder, dtype="bfloat16")
    assert a.tokenizer_hash == b.tokenizer_hash and len(a.tokenizer_hash) == 64
    assert a.config_hash == b.config_hash
    assert load(template=None).tokenizer_hash != a.tokenizer_hash
    assert load("qwen2").config_hash != a.config_hash
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert LM.from_pretrained(copy).config_hash == a.config_hash


def test_tokenizer_hash_ignores_call_settings(lm, folder):
    other = LM.from_pretrained(folder)
    other.tokenizer.backend_tokenizer.enable_truncation(5)
    assert other.tokenizer_hash == lm.tokenizer_hash


def test_plans_are_cached_by_content(lm, survey):
    assert lm.plan(survey) is lm.plan(replace(survey))
    assert lm.plan(survey, "Be brief.") is not lm.plan(survey)


def test_an_item_beyond_the_context_is_named(load, survey):
    lm = load(max_position_embeddings=100)
    long = replace(survey, items=(Item("endless", "Why? " * 60, options(["a", "b"])),))
    with pytest.raises(ValueError, match=r"item 'endless' has \d+ tokens with .*, but the model reads 100"):
        lm.plan(long)


def test_a_tokenizer_of_another_model_is_noticed(load, survey):
    with pytest.raises(ValueError, match=r"the tokenizer gives token \d+ but model .* embeds only 100"):
        load(vocab_size=100).plan(survey)


@needs_tiny
def test_tiny():
    lm = LM.from_pretrained("tiny")
    assert lm.is_tiny and lm.name == "tiny" and lm.revision.startswith("sha256:")
    survey = load_survey("vsm13")
    mean, std = lm.embedding_stats
    prompts = mean + std * torch.randn(3, 8, lm.hidden_size, generator=torch.Generator().manual_seed(0))
    for placement in ("front", "late"):
        plan = lm.plan(survey, placement=placement)
        fast, plain = lm.option_logprobs(plan, prompts), lm.option_logprobs(plan, prompts, plain=True)
        torch.testing.assert_close(fast.logprobs, plain.logprobs, atol=1e-4, rtol=0)
    unprompted = lm.option_logprobs(lm.plan(survey))
    assert float(unprompted.option_mass.min()) > 0.9  # it has learnt to answer with an option


# -- bad input: one sentence each


def refused(message, *args, **kwargs):
    with pytest.raises(ValueError, match=message) as caught:
        LM.from_pretrained(*args, **kwargs)
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float8", "fp32", torch.int64, 32])
def test_unknown_dtype(dtype):
    refused(r"dtype: expected one of float32, bfloat16, float16 .*got '.+'", "nowhere", dtype=dtype)


def test_absent_devices():
    refused(r"device: expected 'cpu', 'cuda' or 'cuda:N', got 'gpu'", "nowhere", device="gpu")
    if not torch.cuda.is_available():
        refused(r"device: 'cuda' was asked for but torch sees no CUDA device; use", "nowhere", device="cuda")


def test_folders_that_hold_no_model(tmp_path, folder):
    refused("a folder without a config.json", tmp_path)
    refused("is a file; give the folder", folder / "config.json")
    for name in ("./missing", "/no/such/folder", "~/nope", "a/b/c", ""):
        refused("there is no folder .* give an existing folder, a Hub name", name)


def test_incomplete_folders(folder):
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    kept = {k: v for k, v in tensors.items() if "layers.1.mlp" not in k}
    save_file(kept, weights, metadata={"format": "pt"})
    refused(r"its weights lack model\.layers\.1\.mlp.*give a complete checkpoint", folder)
    weights.write_bytes(b"not a tensor")
    refused("its weights cannot be loaded", folder)
    weights.unlink()
    refused("its weights cannot be loaded", folder)


def test_missing_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    (folder / "chat_template.jinja").unlink()
    refused(r"it has no tokenizer that can be loaded; add its tokenizer\.json", folder)


def test_configurations_that_are_no_causal_language_model(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "clip", "architectures": ["CLIPModel"]}))
    refused("is no causal language model", folder)
    (folder / "config.json").write_text("{")
    refused(r"its config\.json cannot be read", folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "martian"}))
    refused(r"its config\.json cannot be read.*martian", folder)


def chained(cause):
    error = OSError("something went wrong")
    error.__cause__ = cause
    return error


def hub_error(kind):
    return kind.__new__(kind, "no")  # its __init__ asks for an HTTP response


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: hub_error(hub.GatedRepoError),
            r"is gated: accept its licence at https://huggingface.co/org/model and run",
        ),
        (lambda: hub_error(hub.RepositoryNotFoundError), r"is no folder and no repository on the Hugging Face Hub"),
        (lambda: hub_error(hub.RevisionNotFoundError), r"has no revision 'v9'"),
        (lambda: hub.LocalEntryNotFoundError("no"), r"cannot be reached; connect to the network"),
        (lambda: hub.OfflineModeIsEnabled("no"), r"cannot be reached; connect to the network"),
        (lambda: ConnectionError("no"), r"cannot be reached; connect to the network"),
        (lambda: hub.HFValidationError("no"), r"is no folder and no Hub name"),
        (lambda: torch.OutOfMemoryError("no"), r"out of memory while loading; use dtype='bfloat16'"),
        (lambda: ValueError("pass trust_remote_code=True"), r"needs code from its repository"),
    ],
)
def test_failures_of_the_hub(monkeypatch, make, message):
    from transformers import AutoConfig

    def fail(*_, **__):
        raise chained(make())

    monkeypatch.setattr(AutoConfig, "from_pretrained", fail)
    refused(message, "org/model", revision="v9")


def test_offline_and_not_cached(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    refused("is not in the local cache, and the Hugging Face Hub cannot be reached", "org/model-that-nobody-made")


def test_the_sample_of_the_weights_knows_a_model_that_was_trained_on(load):
    lm, same, other = load(), load(), load("llama", initializer_range=0.03)
    assert lm.weights_sample == same.weights_sample != other.weights_sample
    trained = load()
    with torch.no_grad():
        trained.model.model.layers[1].mlp.up_proj.weight += 1e-3
    assert trained.weights_sample != lm.weights_sample


def test_old_plans_make_room_by_their_tokens(llama: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    from softde.lm import model

    lm = LM(llama.model, llama.tokenizer, llama.name)
    survey = load_survey("vsm13")
    first = lm.plan(survey)
    assert first.hard_tokens == sum(len(q.prefix_ids) + len(q.suffix_ids) for q in first.questions)
    assert lm.plan(survey) is first
    monkeypatch.setattr(model, "CACHED_IDS", first.hard_tokens)
    last = lm.plan(survey, orders="reversed")
    assert list(lm._plans.values()) == [last]
