"""torch.compile is tried once and kept only where it is right and faster; a stand-in takes the compiler's place."""

from __future__ import annotations

import logging
import time

import pytest
import torch


@pytest.fixture
def compiled(load, survey, prompts, monkeypatch, caplog):
    """`compiled(change, slow=..., fast=...)`: answers without and with a "compiler", what was said, and the model."""

    def go(change=None, slow=0.0, fast=0.0):
        lm = load(compiles=True)
        forward, made = lm.model.forward, []

        def eager(*args, **kwargs):
            time.sleep(0.0 if made and made[-1] else slow)
            return forward(*args, **kwargs)

        def fake(_model, mode):
            assert mode == "default"  # on a CPU

            def call(**kwargs):
                made.append(True)
                time.sleep(fast)
                output = forward(**kwargs)
                made[-1] = False
                return change(output) if change else output

            return call

        monkeypatch.setattr(lm.model, "forward", eager)
        monkeypatch.setattr(torch, "compile", fake)
        plan = lm.plan(survey)
        with caplog.at_level(logging.WARNING, logger="softde"):
            answer = lm.option_logprobs(plan, prompts)
            lm.option_logprobs(plan, prompts)
        return lm, answer, lm.option_logprobs(plan, prompts, plain=True), caplog.messages

    return go


def test_kept_where_it_is_faster(compiled):
    lm, answer, plain, said = compiled(slow=0.05)
    assert len(said) == 1 and said[0].endswith("times as fast; kept") and lm.engine.notes == said
    assert lm.engine.fast is not lm.engine.network
    torch.testing.assert_close(answer.logprobs, plain.logprobs, atol=1e-4, rtol=0)


def test_dropped_where_it_is_slower(compiled):
    lm, _, _, said = compiled(fast=0.05)
    assert len(said) == 1 and "times as fast; going on without" in said[0] and lm.engine.fast is lm.engine.network


def test_dropped_where_it_is_wrong(compiled):
    def change(output):
        output.logits = output.logits + torch.arange(output.logits.shape[-1])
        return output

    lm, answer, plain, said = compiled(change, slow=0.05)
    assert len(said) == 1 and "differs by" in said[0] and lm.engine.fast is lm.engine.network
    torch.testing.assert_close(answer.logprobs, plain.logprobs, atol=1e-4, rtol=0)


def test_dropped_where_it_fails(compiled):
    def change(_output):
        raise TypeError("no such kernel")

    lm, _, _, said = compiled(change)
    assert said == ["torch.compile fails (TypeError: no such kernel); going on without"]
    assert lm.engine.fast is lm.engine.network


def test_a_compiled_model_that_fails_later_is_dropped_and_nothing_is_lost(load, survey, prompts, monkeypatch, caplog):
    lm, whole = load(compiles=True), load()
    forward, calls = lm.model.forward, []

    def eager(*args, **kwargs):
        time.sleep(0.02 if len(calls) < 4 else 0.0)
        return forward(*args, **kwargs)

    def fake(_model, mode):
        def call(**kwargs):
            calls.append(mode)
            if len(calls) > 4:
                raise RuntimeError("recompile limit")
            return forward(**kwargs)

        return call

    monkeypatch.setattr(lm.model, "forward", eager)
    monkeypatch.setattr(torch, "compile", fake)
    with caplog.at_level(logging.WARNING, logger="softde"):
        answer = lm.option_logprobs(lm.plan(survey), prompts)
    assert [m.split("; ")[-1] for m in caplog.messages] == ["kept", "going on without torch.compile"]
    assert torch.equal(answer.logprobs, whole.option_logprobs(whole.plan(survey), prompts).logprobs)
