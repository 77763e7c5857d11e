"""Stage 4: against a loop of transformers and peft alone; interruptions; the model stays as it was."""

from __future__ import annotations

import copy
import importlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import get_cosine_schedule_with_warmup

from softde.administer import administer
from softde.baselines.culture_spa import Collected, Collection, LoRA, Question, collected_target, train
from softde.baselines.culture_spa.steps import Steps
from softde.baselines.culture_spa.train import prepared
from softde.condition import Condition
from softde.lm import LM
from softde.lm.adapter import record_base

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
module = importlib.import_module("softde.baselines.culture_spa.train")  # its function has the same name

SETTINGS = LoRA(rank=2, alpha=4, lr=3e-2, warmup=0.2, epochs=2, batch=5, micro_batch=3, weight_decay=0.01, clip=0.5,
                seed=3, save_every=2)  # fmt: skip
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def same_model(llama: LM) -> Iterator[None]:
    """Checks that the model has the same modules with the same bytes after a test."""
    modules = {name: id(module) for name, module in llama.model.named_modules()}
    before = {name: value.clone() for name, value in llama.model.state_dict().items()}
    attributes, training = set(vars(llama.model)), llama.model.training
    yield
    assert {name: id(module) for name, module in llama.model.named_modules()} == modules
    after = llama.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert set(vars(llama.model)) == attributes
    assert llama.model.training == training
    assert not any(parameter.requires_grad for parameter in llama.model.parameters())


def slow(lm: LM, few: Collection, settings: LoRA) -> tuple[dict[str, torch.Tensor], float]:
    """One example per forward, unpadded, from ids; AdamW and the schedule are torch's and transformers' own."""
    examples = prepared(lm, few.rows, few)
    torch.manual_seed(settings.seed)
    config = peft.LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear")
    model = peft.get_peft_model(copy.deepcopy(lm.model), config)
    weights = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(weights, lr=settings.lr, weight_decay=settings.weight_decay)
    steps = Steps(len(examples), settings.batch, settings.epochs, settings.seed)
    schedule = get_cosine_schedule_with_warmup(adam, math.ceil(settings.warmup * steps.total), steps.total)
    losses: list[float] = []
    for step in range(steps.total):
        total = torch.zeros(())
        chosen = steps.examples(step)
        for i in chosen:
            logits = model(input_ids=torch.tensor([examples[i].ids.tolist()])).logits[0, -1]
            total = total - logits.log_softmax(-1)[examples[i].label]
        (total / len(chosen)).backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.clip)
        losses.append(float(total.detach()))
        adam.step()
        schedule.step()
        adam.zero_grad()
    found = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    return found, sum(losses[-steps.per_epoch :]) / len(examples)


@pytest.mark.usefixtures("same_model")
def test_a_training_is_that_of_transformers_and_peft_alone(llama: LM, few: Collection, tmp_path: Path) -> None:
    made = train(llama, few, tmp_path, SETTINGS, progress=False)
    expected, loss = slow(llama, few, SETTINGS)
    found = load_file(tmp_path / "joint" / "adapter" / WEIGHTS)
    assert set(found) == set(expected)
    assert {name.split(".")[-3] for name in found} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], atol=2e-3, rtol=0.02)
    assert made["Kenya"].loss == pytest.approx(loss, rel=1e-3)
    assert float(found[next(name for name in found if "lora_B" in name)].abs().max()) > 1e-2


def test_prompts_are_those_that_are_asked_and_labels_those_that_were_given(llama: LM, few: Collection) -> None:
    for example, row in zip(prepared(llama, few.rows, few), few.rows, strict=True):
        text = llama.tokenizer.decode(example.ids.tolist())
        listed = "".join(f"{i} = {option}\n" for i, option in enumerate(row.question.options, start=1))
        assert f"<|end_header_id|>\n\n{few.systems[row.region]}<|eot_id|>" in text
        assert f"{row.question.text}\n{listed}Answer with the number only." in text
        assert text.endswith("assistant<|end_header_id|>\n\n")
        assert llama.tokenizer.decode([example.label]) == str(row.aware + 1)


def test_options_are_listed_as_they_were_asked(llama: LM, few: Collection) -> None:
    backwards = replace(few, order="reversed")
    for example, row in zip(prepared(llama, few.rows, backwards), few.rows, strict=True):
        text, options = llama.tokenizer.decode(example.ids.tolist()), row.question.options
        assert "".join(f"{i} = {option}\n" for i, option in enumerate(reversed(options), start=1)) in text
        assert llama.tokenizer.decode([example.label]) == str(len(options) - row.aware)


def test_a_region_that_is_told_nothing_is_refused(llama: LM, few: Collection, tmp_path: Path) -> None:
    silent = replace(few, systems={**few.systems, "Japan": None})
    with pytest.raises(ValueError, match="does not say what the model is told in 'Japan'; give systems="):
        train(llama, silent, tmp_path, SETTINGS, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("same_model")
def test_trained_adapters_answer_as_the_collection_says(llama: LM, few: Collection, tmp_path: Path) -> None:
    settings = LoRA(lr=2e-2, epochs=4, batch=4)
    joint = train(llama, few, tmp_path / "joint run", settings, progress=False)
    specific = train(llama, few, tmp_path / "specific", settings, joint=False, progress=False)
    assert list(joint) == list(specific) == list(few.regions)

    def loss(region: str, condition: Condition) -> float:
        survey, target = collected_target(few, region)
        p = administer(survey, llama, condition, "forward").probabilities[None]
        return float(target.loss(target.errors(target.values(survey, p)))[0])

    for region in joint:
        told = Condition(few.systems[region])
        assert joint[region].condition.system == specific[region].condition.system == told.system
        assert loss(region, joint[region].condition) < 0.7 * loss(region, told)
        assert loss(region, specific[region].condition) < 0.7 * loss(region, told)
    assert len({made.condition.adapter for made in joint.values()}) == 1
    assert (tmp_path / "specific" / "saudi-arabia" / "adapter" / WEIGHTS).is_file()
    assert {made.condition.name for made in specific.values()} == {"CultureSPA (specific)"}


@pytest.mark.usefixtures("same_model")
def test_what_it_costs_and_what_the_folder_says(llama: LM, few: Collection, tmp_path: Path) -> None:
    made = train(llama, few, tmp_path, SETTINGS, progress=False)
    examples = prepared(llama, few.rows, few)
    steps = Steps(len(examples), SETTINGS.batch, SETTINGS.epochs, SETTINGS.seed)
    tokens = 0
    for step in range(steps.total):
        chosen = [len(examples[i].ids) for i in steps.examples(step)]
        tokens += sum(len(part) * max(part) for part in (chosen[:3], chosen[3:]) if part)
    assert sum(one.forward_tokens for one in made.values()) == pytest.approx(3 * tokens)  # a backward is two forwards
    folder = tmp_path / "joint" / "adapter"
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", WEIGHTS, "softde.json"}
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"], config["lora_alpha"]) == (llama.name, 2, 4)
    record_base(llama, tmp_path)
    assert (folder / "softde.json").read_bytes() == (tmp_path / "softde.json").read_bytes()
    peft.PeftModel.from_pretrained(copy.deepcopy(llama.model), str(folder))


@pytest.mark.usefixtures("same_model")
def test_an_interrupted_training_ends_with_the_same_bytes(
    llama: LM, few: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, batch=2)  # four steps per region, of which the second and the fourth are saved
    whole = train(llama, few, tmp_path / "whole", settings, joint=False, progress=False)
    real, calls = module._step, []

    def stopping(*given: Any) -> Any:
        calls.append(given)
        if len(calls) in (4, 9):
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(module, "_step", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(llama, few, tmp_path / "parts", settings, joint=False, progress=False)
    parts = train(llama, few, tmp_path / "parts", settings, joint=False, progress=False)
    for path in sorted((tmp_path / "whole").glob(f"*/adapter/{WEIGHTS}")):
        assert path.read_bytes() == (tmp_path / "parts" / path.relative_to(tmp_path / "whole")).read_bytes()
    assert [(one.loss, one.forward_tokens) for one in parts.values()] == [
        (one.loss, one.forward_tokens) for one in whole.values()
    ]
    done = len(calls)
    again = train(llama, few, tmp_path / "parts", settings, joint=False, progress=False)
    assert len(calls) == done
    assert [one.seconds for one in again.values()] == [one.seconds for one in parts.values()]


def test_another_training_in_the_folder_is_refused(llama: LM, few: Collection, tmp_path: Path) -> None:
    train(llama, few, tmp_path, SETTINGS, progress=False)
    before = (tmp_path / "joint" / "adapter" / WEIGHTS).read_bytes()
    with pytest.raises(ValueError, match=r"other settings \(rank: 2 there, 8 now; .*choose another folder"):
        train(llama, few, tmp_path, LoRA(batch=5), progress=False)
    less = Collection(few.rows[:-1], few.systems, few.compared)
    with pytest.raises(ValueError, match="examples: "):
        train(llama, less, tmp_path, SETTINGS, progress=False)
    assert (tmp_path / "joint" / "adapter" / WEIGHTS).read_bytes() == before


def test_questions_that_cannot_be_asked_are_left_out(
    llama: LM, few: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scale = Question("scale", "On a scale from 0 to 10?", tuple(str(i) for i in range(11)))
    more = Collection((*few.rows, Collected(scale, "Kenya", 0, 9)), few.systems, few.compared)
    train(llama, more, tmp_path / "a", SETTINGS, progress=False)
    assert "cannot be asked of this model and are left out: scale" in caplog.text
    train(llama, few, tmp_path / "b", SETTINGS, progress=False)
    paths = [tmp_path / name / "joint" / "adapter" / WEIGHTS for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    only = Collection((Collected(scale, "Kenya", 0, 9),), {"Kenya": "You are."}, {"Kenya": 1})
    with pytest.raises(ValueError, match="no question of region 'Kenya' is left that this model can be asked"):
        train(llama, only, tmp_path / "c", SETTINGS, progress=False)


def test_steps_see_every_example_once_an_epoch() -> None:
    steps = Steps(count=11, batch=4, epochs=2, seed=0)
    assert (steps.per_epoch, steps.total) == (3, 6)
    epochs = [[i for step in range(3) for i in steps.examples(3 * epoch + step)] for epoch in range(2)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert [len(steps.examples(step)) for step in range(3)] == [4, 4, 3]


@pytest.mark.parametrize(("warmup", "steps"), [(0.1, 485), (0.0, 7), (0.3, 10), (1.0, 4)])
def test_step_sizes_are_those_of_transformers(warmup: float, steps: int) -> None:
    adam = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-4)
    schedule = get_cosine_schedule_with_warmup(adam, math.ceil(warmup * steps), steps)
    settings, found, expected = LoRA(warmup=warmup), [], []
    for step in range(steps):
        found.append(settings.rate(step, steps))
        expected.append(schedule.get_last_lr()[0])
        adam.step()
        schedule.step()
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_wrong_settings(llama: LM, few: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"rank": 0}, {"lr": 0}, {"warmup": 1.5}, {"batch": 2.5}, {"weight_decay": -1}, {"seed": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LoRA(**wrong)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"make 1 step, whose step size is 0 with warmup=0.1; take a smaller batch than"
    ):
        train(llama, few, tmp_path / "a", LoRA(), progress=False)
    assert not (tmp_path / "a").exists()
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ImportError, match=r"training an adapter needs peft: pip install 'softde\[lora\]'"):
        train(llama, few, tmp_path / "b", SETTINGS)
