"""Decoding with prefix reuse equals token-by-token forwards over whole rows, and transformers' own `generate`."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from softde.lm import LM, decode
from softde.lm.decode import Choice, generate, pick, prefill, sequence_logprobs

SLIDING = {"sliding_window": 16}  # shorter than every question
ARCHITECTURES = {"llama": {}, "qwen2": {}, "gemma2": SLIDING, "mistral": SLIDING, "gpt2": {}, "mamba2": {}}
SEQUENCES = ((7, 30, 200), (7, 31), (90,), (301, 17, 18, 19))  # per option; items with fewer take the first ones
STOP = (4,)


def whole_row(lm, question, soft):
    """The prompt as embeddings (1, tokens, hidden), written out."""
    table = lm.model.get_input_embeddings()
    parts = [table(torch.tensor(question.prefix_ids, dtype=torch.long)), soft.to(lm.dtype)]
    return torch.cat([*parts, table(torch.tensor(question.suffix_ids))])[None]


def next_logprobs(lm, row):
    with torch.no_grad():
        return lm.model(inputs_embeds=row).logits[0, -1].float().log_softmax(-1)


def continued(lm, row, token):
    return torch.cat([row, lm.model.get_input_embeddings()(torch.tensor([[token]]))], dim=1)


def slow_sequence_logprob(lm, question, soft, ids):
    row, total = whole_row(lm, question, soft), 0.0
    for token in ids:
        total += float(next_logprobs(lm, row)[token])
        row = continued(lm, row, token)
    return total


def slow_text(lm, question, soft, steps, stop, draws=None, temperature=1.0):
    row, text = whole_row(lm, question, soft), []
    for step in range(steps):
        logprobs = next_logprobs(lm, row)
        token = int(logprobs.argmax())
        if draws is not None:
            cumulative = np.cumsum(np.exp((logprobs.double() / temperature).log_softmax(-1).numpy()))
            token = int(np.searchsorted(cumulative / cumulative[-1], draws[step], side="right"))
        if token in stop:
            break
        text.append(token)
        row = continued(lm, row, token)
    return text


def texts(ids):
    return [[[[i for i in r if i >= 0] for r in q] for q in c] for c in ids.tolist()]


def sequences_of(plan):
    return [SEQUENCES[: len(q.option_ids)] for q in plan.questions]


@pytest.fixture
def soft(lm):
    return torch.randn(5, 3, lm.hidden_size, generator=torch.Generator().manual_seed(1))


CASES = [(a, p) for a in ARCHITECTURES for p in ("front", "late")] + [("llama", "system"), ("gemma2", "user_start")]


@pytest.mark.parametrize(("architecture", "placement"), CASES)
def test_sequences_equal_token_by_token_forwards(load, survey, soft, architecture, placement):
    lm = load(architecture, **ARCHITECTURES[architecture])
    plan = lm.plan(survey, placement=placement)
    got = sequence_logprobs(lm.engine, plan.questions, sequences_of(plan), soft)
    plain = sequence_logprobs(lm.engine, plan.questions, sequences_of(plan), soft[:1], plain=True)
    assert got.logprobs.shape == (5, 6, 4)
    assert (max(decode._checked[lm.engine].values()) < math.inf) == (architecture != "mamba2")
    for c, q in ((0, 0), (0, 3), (1, 4), (4, 2), (4, 5)):
        question = plan.questions[q]
        for o in range(4):
            if o >= len(question.option_ids):
                assert got.logprobs[c, q, o] == -math.inf
                continue
            expected = slow_sequence_logprob(lm, question, soft[c], SEQUENCES[o])
            assert float(got.logprobs[c, q, o]) == pytest.approx(expected, abs=2e-4)
    torch.testing.assert_close(plain.logprobs, got.logprobs[:1], atol=2e-4, rtol=0)


@pytest.mark.parametrize(("architecture", "placement"), [*((a, "late") for a in ARCHITECTURES), ("mistral", "front")])
def test_greedy_text_is_what_transformers_and_a_slow_loop_write(load, survey, soft, architecture, placement):
    lm = load(architecture, **ARCHITECTURES[architecture])
    plan = lm.plan(survey, placement=placement)
    questions = plan.questions[:4]
    got = texts(generate(lm.engine, questions, soft[:3], Choice(), 5, STOP).ids)
    if architecture not in ("gemma2", "mamba2"):  # these two go on saying the same, whoever asks
        assert len({tuple(q[0]) for c in got for q in c}) > 1
    for c, q in ((0, 0), (1, 1), (2, 3)):
        question = plan.questions[q]
        assert got[c][q] == [slow_text(lm, question, soft[c], 5, STOP)]
        if architecture != "mamba2":
            row = whole_row(lm, question, soft[c])
            with torch.no_grad():
                theirs = lm.model.generate(
                    inputs_embeds=row,
                    attention_mask=torch.ones(row.shape[:2], dtype=torch.long),
                    do_sample=False,
                    max_new_tokens=5,
                    eos_token_id=list(STOP),
                    pad_token_id=0,
                )[0].tolist()
            assert got[c][q] == [theirs[: theirs.index(4)] if 4 in theirs else theirs]


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "mamba2"])
def test_sampled_text_is_the_slow_loops_with_the_same_draws(load, survey, soft, architecture):
    lm = load(architecture, **ARCHITECTURES[architecture])
    plan = lm.plan(survey)
    draws = torch.rand(6, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    temperature = {"gemma2": 10.0}.get(architecture, 2.0)
    got = texts(generate(lm.engine, plan.questions, soft[:2], Choice(temperature, draws), 4, STOP).ids)
    for c, q, r in ((0, 0, 0), (1, 5, 2), (1, 3, 1)):
        expected = slow_text(lm, plan.questions[q], soft[c], 4, STOP, draws[q, r].tolist(), temperature)
        assert got[c][q][r] == expected
    assert len({tuple(r) for c in got for q in c for r in q}) >= 18


def test_a_text_ends_before_its_stop_token_and_the_others_go_on(lm, survey, soft):
    plan = lm.plan(survey)
    free = texts(generate(lm.engine, plan.questions, soft, Choice(), 5, ()).ids)
    stop = free[1][2][0][2]
    cut = texts(generate(lm.engine, plan.questions, soft, Choice(), 5, (stop,)).ids)
    expected = [[[r[: r.index(stop)] if stop in r else r for r in q] for q in c] for c in free]
    assert cut == expected and cut != free and any(len(r) == 5 for c in cut for q in c for r in q)


def test_constrained_text_is_one_of_the_labels(lm, survey, soft):
    plan = lm.plan(survey)
    written = generate(lm.engine, plan.questions, soft, Choice(constrained=True), 1, STOP)
    for c in range(5):
        for q, question in enumerate(plan.questions):
            logprobs = next_logprobs(lm, whole_row(lm, question, soft[c]))
            best = max(question.option_ids, key=lambda i: float(logprobs[i]))
            assert written.ids[c, q].tolist() == [[best]]
            mass = float(logprobs[list(question.option_ids)].exp().sum())
            assert float(written.option_mass[c, q]) == pytest.approx(mass, abs=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("placement", ["front", "late"])
def test_alone_or_in_company_bit_identical(load, survey, soft, dtype, placement):
    lm = load(dtype=dtype)
    plan = lm.plan(survey, placement=placement)
    choice = Choice(1.0, torch.rand(6, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))

    def both(x):
        written = generate(lm.engine, plan.questions, x, choice, 4, STOP)
        scored = sequence_logprobs(lm.engine, plan.questions, sequences_of(plan), x).logprobs
        return written.ids, written.option_mass, scored

    together, shuffled = both(soft), both(soft.flip(0))
    for a, b in zip(together, shuffled, strict=True):
        assert torch.equal(a, b.flip(0))
    for i in (0, 3, 4):
        for a, b in zip(both(soft[i : i + 1]), together, strict=True):
            assert torch.equal(a[0], b[i])


@pytest.mark.parametrize("placement", ["front", "late"])
def test_unprompted(lm, survey, placement):
    plan = lm.plan(survey, placement=placement)
    none = torch.zeros(0, lm.hidden_size)
    got = texts(generate(lm.engine, plan.questions, None, Choice(), 4, STOP).ids)
    scores = sequence_logprobs(lm.engine, plan.questions, sequences_of(plan), None).logprobs
    assert len(got) == 1
    for q, question in enumerate(plan.questions):
        assert got[0][q] == [slow_text(lm, question, none, 4, STOP)]
        expected = slow_sequence_logprob(lm, question, none, SEQUENCES[0])
        assert float(scores[0, q, 0]) == pytest.approx(expected, abs=1e-4)


def test_small_memory_budgets_cut_questions_and_respondents_and_change_nothing(load, survey, soft):
    lm, frugal = load(), load()
    frugal.engine.memory = 1
    plan = lm.plan(survey, placement="front")
    choice = Choice(1.0, torch.rand(6, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    a, b = (generate(m.engine, plan.questions, soft, choice, 3, STOP) for m in (lm, frugal))
    assert torch.equal(a.ids, b.ids)
    c, d = (sequence_logprobs(m.engine, plan.questions, sequences_of(plan), soft).logprobs for m in (lm, frugal))
    torch.testing.assert_close(c, d, atol=1e-4, rtol=0)


def test_what_stands_before_late_prompts_is_run_once(load, survey, soft):
    lm = load(group_size=4)
    plan = lm.plan(survey)
    own = sum(len(q.suffix_ids) + 3 for q in plan.questions)
    options = sum(len(q.option_ids) for q in plan.questions)
    longest = max(map(len, SEQUENCES)) - 1
    first = sequence_logprobs(lm.engine, plan.questions, sequences_of(plan), soft)
    assert first.ledger == 5 * (own + options * longest)  # five candidates; fillers are not counted
    assert set(decode._prefixes[lm.engine]) == {q.prefix_ids for q in plan.questions}
    before = {ids: kept.layers[0][1].clone() for ids, kept in decode._prefixes[lm.engine].items()}
    free = generate(lm.engine, plan.questions, soft, Choice(), 3, ())
    assert free.ledger == 5 * (own + len(plan.questions) * 2)  # the last token is read and not run
    assert all(torch.equal(before[ids], kept.layers[0][1]) for ids, kept in decode._prefixes[lm.engine].items())
    again = sequence_logprobs(lm.engine, plan.questions, sequences_of(plan), soft)
    assert torch.equal(again.logprobs, first.logprobs)
    other = lm.plan(survey, "Another system text.")
    generate(lm.engine, other.questions, soft, Choice(), 1, ())
    assert set(decode._prefixes[lm.engine]) == {q.prefix_ids for q in other.questions}
    plain = generate(lm.engine, plan.questions, soft[:1], Choice(), 2, (), plain=True)
    assert plain.ledger == sum(2 * (q.length + 3) + 1 for q in plan.questions)


@pytest.mark.parametrize("placement", ["front", "after_bos", "user_start", "late"])
def test_prefill_by_hand(lm, survey, soft, placement):
    system = "You are a typical person from somewhere. " * 3
    plan = lm.plan(survey, system, placement=placement)
    past, logits, mask, lengths = prefill(lm.engine, plan.questions, soft[:2])
    gaps = [max(len(q.suffix_ids) for q in plan.questions) - len(q.suffix_ids) for q in plan.questions]
    if placement == "user_start":  # shorter questions run a part of their prefix again
        assert any(0 < gap < len(q.prefix_ids) for gap, q in zip(gaps, plan.questions, strict=True))
    assert lengths.tolist() == [q.length + 3 for q in plan.questions for _ in range(2)]
    assert mask is not None and mask.sum(1).tolist() == lengths.tolist()
    assert past.tokens == max(lengths.tolist()) == mask.shape[1]
    for row, (q, c) in enumerate((q, c) for q in plan.questions for c in range(2)):
        expected = next_logprobs(lm, whole_row(lm, q, soft[c]))
        torch.testing.assert_close(logits[row].log_softmax(-1), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("placement", ["front", "late"])
def test_a_broken_candidate_writes_nothing_and_harms_nobody(lm, survey, soft, placement):
    plan = lm.plan(survey, placement=placement)
    broken = soft.clone()
    broken[2, 1, 0] = math.nan
    draws = torch.rand(6, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for choice in (Choice(), Choice(1.0, draws), Choice(constrained=True)):
        good, bad = (generate(lm.engine, plan.questions, x, choice, 3, STOP) for x in (soft, broken))
        assert (bad.ids[2] == -1).all() and bad.option_mass[2].isnan().all()
        assert torch.equal(good.ids[[0, 1, 3, 4]], bad.ids[[0, 1, 3, 4]])
    scores = sequence_logprobs(lm.engine, plan.questions, sequences_of(plan), broken).logprobs
    assert scores[2, 0, :3].isnan().all() and scores[3, 0, :3].isfinite().all()


def test_picking_by_hand():
    logits = torch.tensor([[0.1, 0.4, 0.4, 0.1]]).log().expand(6, -1)
    levels = torch.tensor([0.0, 0.0999, 0.1001, 0.5001, 0.9001, 1 - 2**-53], dtype=torch.float64)
    assert pick(logits, None, 1.0, levels).tolist() == [0, 0, 1, 2, 3, 3]
    assert pick(logits[:1], None, 0.0, None).tolist() == [1]  # of equals the first
    # At temperature ½ probabilities are squared: 1, 16, 16, 1 of 34.
    assert pick(logits[:2], None, 0.5, torch.tensor([0.029, 0.03]).double()).tolist() == [0, 1]
    # Labels in the item's own order, the last place empty: .4, .1, .1 of .6.
    allowed = torch.tensor([[2, 3, 0, -1]]).expand(4, -1)
    levels = torch.tensor([0.66, 0.67, 0.84, 1 - 2**-53], dtype=torch.float64)
    assert pick(logits[:4], allowed, 1.0, levels).tolist() == [2, 3, 0, 0]
    assert pick(torch.tensor([[0.0, math.nan]]), None, 0.0, None).tolist() == [-1]
    assert pick(torch.tensor([[-math.inf, 0.0, -math.inf]]), None, 1.0, torch.tensor([0.0]).double()).tolist() == [1]


def test_an_architecture_without_keys_and_values_falls_back_and_says_so_once(load, survey, soft, caplog):
    lm = load("mamba2")
    plan = lm.plan(survey)
    with caplog.at_level(logging.WARNING, logger="softde"):
        for questions in (plan.questions[:2], plan.questions[:2], lm.plan(survey, placement="front").questions[:2]):
            generate(lm.engine, questions, soft[:2], Choice(), 2, STOP)
    said = [r.getMessage() for r in caplog.records if r.name == "softde"]
    assert len(said) == 1 and "decoding from cached keys and values fails" in said[0] and "whole rows" in said[0]


class Forgetful(torch.nn.Module):
    """A model that keeps keys and values and never looks at them."""

    def __init__(self, model):
        super().__init__()
        self.inner, self.config = model, model.config

    def get_input_embeddings(self):
        return self.inner.get_input_embeddings()

    def forward(self, inputs_embeds, position_ids=None, attention_mask=None, past_key_values=None, **_):
        running = inputs_embeds.cumsum(1) / torch.arange(1, inputs_embeds.shape[1] + 1)[:, None]
        if past_key_values is not None:
            past_key_values.update(inputs_embeds[:, None], inputs_embeds[:, None], 0)
        return SimpleNamespace(logits=self.inner.lm_head(running))


def test_a_silently_wrong_cache_is_caught(lm, survey, soft, caplog):
    broken = LM(Forgetful(lm.model), lm.tokenizer, "forgetful")
    plan = broken.plan(survey)
    with caplog.at_level(logging.WARNING, logger="softde"):
        got = texts(generate(broken.engine, plan.questions, soft, Choice(), 3, STOP).ids)
    assert "differs by" in caplog.text
    assert got[1][2] == [slow_text(broken, plan.questions[2], soft[1], 3, STOP)]


def test_out_of_memory_halves_the_group_and_goes_on(load, survey, soft, monkeypatch, caplog):
    lm = load(group_size=4)
    plan = lm.plan(survey)
    expected = generate(lm.engine, plan.questions, soft, Choice(), 3, STOP)
    forward = lm.model.forward

    def hungry(*args, **kwargs):
        if len(kwargs["inputs_embeds"]) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    monkeypatch.setattr(lm.model, "forward", hungry)
    with caplog.at_level(logging.WARNING, logger="softde"):
        got = generate(lm.engine, plan.questions, soft, Choice(), 3, STOP)
    assert lm.engine.group_size == 1 and "groups of 1 candidates" in caplog.text
    assert torch.equal(got.ids, expected.ids)


def test_other_errors_are_not_swallowed(load, survey, soft, monkeypatch):
    lm = load()
    plan = lm.plan(survey)
    generate(lm.engine, plan.questions, soft, Choice(), 1, STOP)

    def broken(*_, **__):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(lm.model, "forward", broken)
    with pytest.raises(RuntimeError, match="no such kernel"):
        generate(lm.engine, plan.questions, soft, Choice(), 1, STOP)


def test_bad_input_is_refused_before_any_forward(lm, survey, monkeypatch):
    plan = lm.plan(survey)
    monkeypatch.setattr(lm.model, "forward", lambda *_, **__: pytest.fail("a forward"))
    for shape in ((3, 32), (0, 3, 32), (2, 0, 32), (2, 3, 33)):
        with pytest.raises(ValueError, match=r"prompts: expected a tensor \(population, tokens, 32\), got"):
            generate(lm.engine, plan.questions, torch.zeros(shape), Choice(), 1, STOP)
    with pytest.raises(ValueError, match=r"the answer may have 2000, but the\s+model reads 2048"):
        generate(lm.engine, plan.questions, torch.zeros(1, 3, 32), Choice(), 2000, STOP)
    long = [[(5,) * 2000, (6,)] for _ in plan.questions]
    with pytest.raises(ValueError, match="let the answer be shorter"):
        sequence_logprobs(lm.engine, [replace(q) for q in plan.questions], long, None)
