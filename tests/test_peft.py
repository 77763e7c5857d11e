"""Exported folders open in real PEFT, and the model answers as it does here."""

from __future__ import annotations

import contextlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from softde.lm import LM
from softde.lm.layout import question_text, render
from softde.prompt import SoftPrompt, model_provenance
from softde.surveys import Survey, load_survey
from tests import tiny_random

peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported for parameter efficient tuning:UserWarning"),
]
MEMBERS = ["README.md", "adapter_config.json", "adapter_model.safetensors", "softde.json"]
SYSTEM = "You are a typical person from somewhere."


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture(scope="module")
def survey() -> Survey:
    whole = load_survey("vsm13")
    return replace(whole, items=whole.items[:2], factor_models=(), variants={}, published=())


def load(folder: Path, **kwargs: Any) -> LM:
    return LM.from_pretrained(tiny_random.save(folder, **kwargs))


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LM:
    return load(tmp_path_factory.mktemp("llama"))


def prompt_for(lm: LM, placement: str, tokens: int = 4, seed: int = 0) -> SoftPrompt:
    embeddings = torch.randn(tokens, lm.hidden_size, generator=torch.Generator().manual_seed(seed))
    provenance = {"seed": seed, "target": {"region": "Sweden", "edition": "2023"}, "survey": {"id": "vsm13"},
                  "loss_before": 158.0, "loss_after": 23.4}  # fmt: skip
    return SoftPrompt(embeddings * lm.embedding_stats[1], placement, {**model_provenance(lm), **provenance})


def our_logits(lm: LM, survey: Survey, prompt: SoftPrompt, system: str | None = None) -> list[Tensor]:
    """Next-token logits of each question, one by one."""
    plan = lm.plan(survey, system=system, placement=prompt.placement, orders="both")
    with torch.inference_mode():
        rows = [torch.cat([lm.embed(q.prefix_ids), prompt.embeddings, lm.embed(q.suffix_ids)]) for q in plan.questions]
        return [lm.model(inputs_embeds=row[None]).logits[0, -1] for row in rows]


def their_logits(
    model: Any, tokenizer: Any, survey: Survey, soft_prompt: str = "", system: str | None = None
) -> list[Tensor]:
    """The same questions as text, through the tokenizer's own template, as a user of the folder would ask them."""
    answers = []
    for item in survey.items:
        for order in ("forward", "reversed"):
            messages = [{"role": "system", "content": system}] if system else []
            messages += [{"role": "user", "content": question_text(item, order, survey.instruction) + soft_prompt}]
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
            with torch.inference_mode():
                answers.append(model(input_ids=ids).logits[0, -1])
    return answers


def fresh(lm: LM) -> Any:
    """Another copy of the model: PEFT changes what it wraps."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(lm.name, dtype=lm.dtype)


def soft_string(folder: Path) -> str:
    return "".join(json.loads((folder / "softde.json").read_text())["peft"]["tokens"])


@pytest.mark.parametrize("system", [None, SYSTEM])
def test_front_opens_in_peft(lm: LM, survey: Survey, tmp_path: Path, system: str | None) -> None:
    prompt = prompt_for(lm, "front")
    prompt.save_peft(tmp_path / "a", lm)
    model = peft.PeftModel.from_pretrained(fresh(lm), tmp_path / "a").eval()
    assert torch.equal(model.get_prompt(1)[0], prompt.embeddings)
    theirs = their_logits(model, lm.tokenizer, survey, system=system)
    torch.testing.assert_close(theirs, our_logits(lm, survey, prompt, system), rtol=0, atol=1e-6)


@pytest.mark.parametrize("system", [None, SYSTEM])
def test_late_opens_in_peft(lm: LM, survey: Survey, tmp_path: Path, system: str | None) -> None:
    prompt = prompt_for(lm, "late")
    prompt.save_peft(tmp_path / "a", lm)
    soft = soft_string(tmp_path / "a")
    assert soft == "".join(f"<|reserved_special_token_{i}|>" for i in range(4))
    model = peft.PeftModel.from_pretrained(fresh(lm), tmp_path / "a").eval()
    ours = our_logits(lm, survey, prompt, system)
    torch.testing.assert_close(their_logits(model, lm.tokenizer, survey, soft, system), ours, rtol=0, atol=1e-6)
    merged = model.merge_and_unload()
    torch.testing.assert_close(their_logits(merged, lm.tokenizer, survey, soft, system), ours, rtol=0, atol=1e-6)


def test_the_option_log_probabilities_are_those_of_the_plain_path(lm: LM, survey: Survey, tmp_path: Path) -> None:
    prompt = prompt_for(lm, "late")
    prompt.save_peft(tmp_path / "a", lm)
    model = peft.PeftModel.from_pretrained(fresh(lm), tmp_path / "a").eval()
    plan = lm.plan(survey, placement="late", orders="both")
    logits = torch.stack(their_logits(model, lm.tokenizer, survey, soft_string(tmp_path / "a")))
    options = torch.tensor([q.option_ids for q in plan.questions])
    shares = logits.softmax(-1).gather(1, options)
    by_item = (shares / shares.sum(-1, keepdim=True)).view(2, 2, -1).mean(1)  # (items, orders, options)
    ours = lm.option_logprobs(plan, prompt.embeddings[None], plain=True).logprobs[0]
    torch.testing.assert_close(by_item.log(), ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_late_loads_in_transformers_alone(survey: Survey, tmp_path: Path, tied: bool) -> None:
    lm = load(tmp_path / "model", tie_word_embeddings=tied)
    prompt = prompt_for(lm, "late")
    prompt.save_peft(tmp_path / "a", lm)
    model = fresh(lm)
    model.load_adapter(str(tmp_path / "a"))
    theirs = torch.stack(their_logits(model, lm.tokenizer, survey, soft_string(tmp_path / "a")))
    ours = torch.stack(our_logits(lm, survey, prompt))
    if tied:
        ours[:, 5:9] = theirs[:, 5:9] = 0
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)


@pytest.mark.parametrize("architecture", ["qwen3", "mistral", "gemma2", "gpt2"])
def test_late_on_other_architectures(survey: Survey, tmp_path: Path, architecture: str) -> None:
    """gpt2 names its embedding otherwise; gemma2 scales inside the embedding module."""
    extra = {} if architecture == "gpt2" else {"tie_word_embeddings": False}
    lm = load(tmp_path / "model", architecture=architecture, **extra)
    prompt = replace(prompt_for(lm, "late"), provenance={})
    prompt.save_peft(tmp_path / "a", lm)
    model = peft.PeftModel.from_pretrained(fresh(lm), tmp_path / "a").eval()
    theirs = torch.stack(their_logits(model, lm.tokenizer, survey, soft_string(tmp_path / "a")))
    ours = torch.stack(our_logits(lm, survey, prompt))
    if architecture == "gpt2":  # a tied head: the reserved tokens' own logits move, and only they
        ours[:, 5:9] = theirs[:, 5:9] = 0
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4 if architecture == "gemma2" else 1e-6)
    assert SoftPrompt.from_peft(tmp_path / "a").embeddings.allclose(prompt.embeddings, rtol=1e-6)


def test_a_tied_head_is_told(lm: LM, survey: Survey, tmp_path: Path) -> None:
    tied = load(tmp_path / "model", tie_word_embeddings=True)
    prompt = prompt_for(tied, "late")
    prompt.save_peft(tmp_path / "a", tied)
    model = peft.PeftModel.from_pretrained(fresh(tied), tmp_path / "a").eval()
    theirs = torch.stack(their_logits(model, tied.tokenizer, survey, soft_string(tmp_path / "a")))
    ours = torch.stack(our_logits(tied, survey, prompt))
    ours[:, 5:9] = theirs[:, 5:9] = 0
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)
    assert "logits[[5, 6, 7, 8]] = -float" in (tmp_path / "a" / "README.md").read_text()
    prompt_for(lm, "late").save_peft(tmp_path / "untied", lm)
    assert "-float" not in (tmp_path / "untied" / "README.md").read_text()


@pytest.mark.parametrize("placement", ["front", "late"])
def test_the_folder_is_complete_and_repeatable(lm: LM, tmp_path: Path, placement: str) -> None:
    prompt = prompt_for(lm, placement)
    prompt.save_peft(tmp_path / "with", lm)
    prompt.save_peft(tmp_path / "without")  # reads tokenizer and configuration by the name in the provenance
    prompt.save_peft(tmp_path / "without")  # and replaces its own folder
    assert names(tmp_path) == ["with", "without"]
    assert names(tmp_path / "with") == MEMBERS
    for name in MEMBERS[1:] if placement == "front" else MEMBERS:
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()
    assert SoftPrompt.from_peft(tmp_path / "without") == prompt


def test_the_config_has_only_keys_that_peft_knows(lm: LM, tmp_path: Path) -> None:
    for placement in ("front", "late"):
        prompt_for(lm, placement).save_peft(tmp_path / placement, lm)
        written = json.loads((tmp_path / placement / "adapter_config.json").read_text())
        known = set(peft.PeftConfig.from_pretrained(tmp_path / placement).to_dict())
        assert set(written) <= known


@pytest.mark.parametrize("placement", ["front", "late"])
@pytest.mark.parametrize("template", [tiny_random.LLAMA3_TEMPLATE, None])
def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, placement: str, template: str | None) -> None:
    lm = load(tmp_path / "model", template=template)
    prompt = prompt_for(lm, placement)
    prompt.save_peft(tmp_path / "a", lm)
    card = (tmp_path / "a" / "README.md").read_text()
    assert "edition 2023, of the survey vsm13" in card and "158.0 before, 23.4 after" in card
    assert "base_model:" not in card  # a folder is no Hub name
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path / "a")
    values: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        exec(code, values)
    assert shown.getvalue().startswith("{")
    # The snippet's logits are ours for the snippet's question.
    before, after = render(lm.tokenizer, values["question"])
    texts = (before, after) if placement == "late" else ("", before + after)
    head, tail = (lm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    row = torch.cat([lm.embed(head), prompt.embeddings, lm.embed(tail)])
    with torch.inference_mode():
        torch.testing.assert_close(values["logits"], lm.model(inputs_embeds=row[None]).logits[0, -1], rtol=0, atol=1e-6)


def test_a_hub_model_is_named_in_the_card(lm: LM, tmp_path: Path) -> None:
    hub = replace(lm, name="meta-llama/Meta-Llama-3-8B-Instruct", revision="a" * 40)
    prompt_for(hub, "late").save_peft(tmp_path / "a", hub)
    card = (tmp_path / "a" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: peft\n") and "base_model: meta-llama/Meta-Llama-3-8B-Instruct\n" in card
    assert f"'meta-llama/Meta-Llama-3-8B-Instruct', revision='{'a' * 40}'" in card
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["revision"] == "a" * 40
    tiny = replace(lm, name="tiny", revision="sha256:0123")
    prompt_for(tiny, "late").save_peft(tmp_path / "b", tiny)
    assert 'softde.LM.from_pretrained("tiny")' in (tmp_path / "b" / "README.md").read_text()
    assert json.loads((tmp_path / "b" / "adapter_config.json").read_text())["revision"] is None


# -- what is refused


def test_too_few_reserved_tokens(lm: LM, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a prompt of 17 tokens .* has 16; align with placement='front'"):
        prompt_for(lm, "late", tokens=17).save_peft(tmp_path / "a", lm)
    prompt_for(lm, "front", tokens=17).save_peft(tmp_path / "a", lm)


def test_reserved_tokens_in_use_are_left_alone(tmp_path: Path) -> None:
    lm = load(tmp_path / "model", template=tiny_random.LLAMA3_TEMPLATE + "{# <|reserved_special_token_1|> #}")
    lm.tokenizer.pad_token = "<|reserved_special_token_0|>"
    prompt_for(lm, "late", tokens=2).save_peft(tmp_path / "a", lm)
    assert soft_string(tmp_path / "a") == "<|reserved_special_token_2|><|reserved_special_token_3|>"


def test_no_model_to_ask(lm: LM, tmp_path: Path) -> None:
    late = prompt_for(lm, "late")
    with pytest.raises(ValueError, match="names no model; give it: save_peft"):
        replace(late, provenance={}).save_peft(tmp_path / "a")
    with pytest.raises(ValueError, match=r"no folder '.*gone'"):
        late.with_provenance({"model": str(tmp_path / "gone")}).save_peft(tmp_path / "a")
    with pytest.raises(ValueError, match="16 numbers wide"):
        SoftPrompt(torch.zeros(2, 16), "late", {}).save_peft(tmp_path / "a", lm)
    assert not (tmp_path / "a").exists()


def test_a_folder_with_other_files_is_not_touched(lm: LM, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds other files"):
        prompt_for(lm, "front").save_peft(tmp_path)


# -- and back


def test_peft_s_own_folder_is_read(lm: LM, tmp_path: Path) -> None:
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, prompt_tuning_init="RANDOM")
    model = peft.get_peft_model(fresh(lm), config)
    model.save_pretrained(tmp_path / "a")
    prompt = SoftPrompt.from_peft(tmp_path / "a")
    assert torch.equal(prompt.embeddings, model.get_prompt(1)[0]) and prompt.placement == "front"
    assert prompt.provenance == {"model": lm.name}


def test_other_adapters_are_refused(lm: LM, tmp_path: Path) -> None:
    peft.get_peft_model(fresh(lm), peft.LoraConfig(task_type="CAUSAL_LM", r=2)).save_pretrained(tmp_path / "lora")
    with pytest.raises(ValueError, match="holds a LORA adapter, which is no soft prompt"):
        SoftPrompt.from_peft(tmp_path / "lora")
    with pytest.raises(ValueError, match="adapter_config.json cannot be read .*give the folder of a PEFT adapter"):
        SoftPrompt.from_peft(tmp_path)
    prompt_for(lm, "front").save_peft(tmp_path / "a")
    (tmp_path / "a" / "softde.json").write_text("{")
    with pytest.raises(ValueError, match="softde.json cannot be read"):
        SoftPrompt.from_peft(tmp_path / "a")
    (tmp_path / "a" / "adapter_config.json").write_text("[]")
    with pytest.raises(ValueError, match="holds a None adapter"):
        SoftPrompt.from_peft(tmp_path / "a")
