"""The record kept with a prompt finds out when the prompt does something else."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from softde.lm import LM
from softde.prompt import PromptMismatch, SoftPrompt, model_provenance
from softde.surveys import Survey, load_survey
from softde.surveys.survey import options
from softde.verify import make_verification, verify
from tests import tiny_random


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_random.save(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def lm(folder: Path) -> LM:
    return LM.from_pretrained(folder)


@pytest.fixture(scope="module")
def survey() -> Survey:
    """The last item has fewer options."""
    whole = load_survey("vsm13")
    items = (*whole.items[:6], replace(whole.items[6], options=options(["yes", "no"])))
    return replace(whole, items=items, factor_models=(), variants={}, published=())


@pytest.fixture(scope="module", params=["front", "late"])
def prompt(request: pytest.FixtureRequest, lm: LM, survey: Survey) -> SoftPrompt:
    embeddings = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)) * lm.embedding_stats[1]
    bare = SoftPrompt(embeddings, request.param, model_provenance(lm))
    return bare.with_provenance({"verification": make_verification(lm, survey, bare)})


def test_the_record_is_what_the_model_answers(lm: LM, survey: Survey, prompt: SoftPrompt) -> None:
    record = prompt.provenance["verification"]
    assert record["items"] == [survey.item_ids[i] for i in (0, 3, 6)]
    whole = lm.option_logprobs(lm.plan(survey, placement=prompt.placement), prompt.embeddings[None]).logprobs[0]
    for item, row in zip((0, 3, 6), record["logprobs"], strict=True):
        known = [v for v in row if v is not None]
        assert len(known) == len(survey.items[item].options)
        assert known == pytest.approx(whole[item, : len(known)].tolist(), abs=1e-4)
        assert sum(map(math.exp, known)) == pytest.approx(1, abs=1e-6)


def test_it_verifies_where_it_was_made(lm: LM, survey: Survey, prompt: SoftPrompt, tmp_path: Path) -> None:
    prompt.save(tmp_path / "p.safetensors")
    found = verify(SoftPrompt.load(tmp_path / "p.safetensors"), lm, survey)
    assert found.ok and found.max_error == 0 and found.tolerance == 1e-3
    assert str(found) == "verified: 3 items asked again: log-probabilities differ by at most 0 (allowed: 0.001)"


def test_half_precision_is_given_more_room(folder: Path, survey: Survey, prompt: SoftPrompt) -> None:
    assert verify(prompt, LM.from_pretrained(folder, dtype="bfloat16"), survey).tolerance == 0.25


def test_another_model_is_found_out(tmp_path: Path, survey: Survey, prompt: SoftPrompt) -> None:
    other = LM.from_pretrained(tiny_random.save(tmp_path / "other", seed=1))
    with pytest.warns(PromptMismatch, match="name '"):
        found = verify(prompt, other, survey)
    assert not found.ok and found.max_error > 0.01
    assert str(found).startswith("not verified: 3 items asked again: log-probabilities differ by at most")
    assert f"use the model it was made with ({prompt.model_name}) with transformers" in str(found)


def test_another_prompt_is_found_out(lm: LM, survey: Survey, prompt: SoftPrompt) -> None:
    assert not verify(replace(prompt, embeddings=prompt.embeddings.flip(0)), lm, survey).ok


def test_another_wording_is_found_out(lm: LM, survey: Survey, prompt: SoftPrompt) -> None:
    found = verify(prompt, lm, replace(survey, instruction="Say a number."))
    assert not found.ok and "is not worded as it was; use the survey of the alignment" in str(found)


def test_what_cannot_be_verified(lm: LM, survey: Survey, prompt: SoftPrompt) -> None:
    with pytest.raises(ValueError, match="holds no verification record.*, add one with"):
        verify(SoftPrompt(torch.zeros(1, 32), "late", {}), lm, survey)
    with pytest.raises(ValueError, match=r"lacks the recorded item 'm01'|lacks the recorded item"):
        verify(prompt, lm, replace(survey, items=survey.items[1:]))
    fewer = replace(survey.items[0], options=survey.items[0].options[:3])
    with pytest.raises(ValueError, match="other numbers of options"):
        verify(prompt, lm, replace(survey, items=(fewer, *survey.items[1:])))
    with pytest.raises(ValueError, match="names no item"):
        verify(prompt.with_provenance({"verification": {"items": [], "logprobs": []}, "x": 1}), lm, survey)


def test_answers_that_are_not_numbers(folder: Path, survey: Survey, prompt: SoftPrompt) -> None:
    broken = LM.from_pretrained(folder)
    broken.model.lm_head.weight.data.fill_(math.nan)
    with pytest.raises(ValueError, match="the model's answers are not numbers"):
        make_verification(broken, survey, prompt)


def test_a_short_survey_is_asked_whole(lm: LM, survey: Survey, prompt: SoftPrompt) -> None:
    short = replace(survey, items=survey.items[:2])
    assert make_verification(lm, short, prompt)["items"] == list(short.item_ids)


def test_the_warning_does_not_send_its_reader_to_what_is_running(
    tmp_path: Path, survey: Survey, prompt: SoftPrompt
) -> None:
    other = LM.from_pretrained(tiny_random.save(tmp_path / "other", seed=1))
    with pytest.warns(PromptMismatch) as caught:
        verify(prompt, other, survey)
    assert "softde verify" not in str(caught[0].message)
    with pytest.warns(PromptMismatch, match="check it with softde verify"):
        prompt.check_model(other)
