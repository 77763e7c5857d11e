"""Every path equals the plain one-by-one forward; a candidate's answer does not depend on its company."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace

import pytest
import torch

from softde.lm import LM, PLACEMENTS, Engine
from softde.lm import engine as engine_module
from softde.lm.engine import PathError
from softde.lm.paths import PACKED, PATHS
from softde.surveys import Item, Survey, load_survey, options
from tests import tiny_random

SLIDING = {"sliding_window": 16}  # shorter than every question
ARCHITECTURES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": SLIDING,
    "gemma2": SLIDING,
    "gpt2": {},
    "cohere": {"logit_scale": 2.0},
}


def slow_answers(lm, survey, plan, prompts):
    """Written from the definition: ids → embeddings → forward → softmax → options → mean over orders."""
    population = len(prompts)
    logprobs = torch.full((population, plan.n_items, plan.n_options), -math.inf)
    mass = torch.zeros(population, plan.n_items)
    for c in range(population):
        for i, item in enumerate(survey.items):
            mine = [q for q in plan.questions if q.item == i]
            shares = torch.zeros(len(item.options))
            for q in mine:
                table = lm.model.get_input_embeddings()
                prefix = table(torch.tensor(q.prefix_ids, dtype=torch.long))
                row = torch.cat([prefix, prompts[c].to(lm.dtype), table(torch.tensor(q.suffix_ids))])
                with torch.no_grad():
                    probabilities = lm.model(inputs_embeds=row[None]).logits[0, -1].float().softmax(-1)
                chosen = probabilities[list(q.option_ids)]
                mass[c, i] += chosen.sum() / len(mine)
                shares += chosen / chosen.sum() / len(mine)
            logprobs[c, i, : len(item.options)] = shares.log()
    return logprobs, mass


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fast_plain_and_slow_agree(load, survey, architecture, placement):
    lm = load(architecture, **ARCHITECTURES[architecture])
    plan = lm.plan(survey, placement=placement)
    prompts = torch.randn(5, 3, lm.hidden_size, generator=torch.Generator().manual_seed(1))
    fast, plain = lm.option_logprobs(plan, prompts), lm.option_logprobs(plan, prompts, plain=True)
    slow, mass = slow_answers(lm, survey, plan, prompts)
    assert lm.engine.path(plan, 3) == ("expanded" if placement == "late" else "packed")
    for answer in (fast, plain):
        torch.testing.assert_close(answer.logprobs, slow, atol=1e-4, rtol=0)
        torch.testing.assert_close(answer.option_mass, mass, atol=1e-4, rtol=0)
    assert fast.logprobs.dtype == torch.float32
    if placement == "late" or ARCHITECTURES[architecture] is not SLIDING:  # a short window does not reach the front
        assert float(fast.logprobs[:, 1].std(0).max()) > 0.01


def test_probabilities_are_normalised_and_padding_is_minus_infinity(lm, survey, prompts):
    answer = lm.option_logprobs(lm.plan(survey), prompts)
    torch.testing.assert_close(answer.logprobs.exp().sum(-1), torch.ones(6, 3))
    assert torch.isneginf(answer.logprobs[:, 0, 3]).all() and torch.isneginf(answer.logprobs[:, 2, 2:]).all()
    assert torch.isfinite(answer.logprobs[:, 1]).all()
    assert ((answer.option_mass > 0) & (answer.option_mass < 1)).all()


def test_orders_are_averaged_as_probabilities(lm, survey, prompts):
    forward, backward, both = (
        lm.option_logprobs(lm.plan(survey, orders=orders), prompts) for orders in ("forward", "reversed", "both")
    )
    torch.testing.assert_close(both.logprobs.exp(), (forward.logprobs.exp() + backward.logprobs.exp()) / 2)
    torch.testing.assert_close(both.option_mass, (forward.option_mass + backward.option_mass) / 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("placement", ["front", "late"])
def test_alone_or_in_company_bit_identical(load, survey, prompts, dtype, placement):
    lm = load(dtype=dtype)
    plan = lm.plan(survey, placement=placement)
    together = lm.option_logprobs(plan, prompts)
    shuffled = lm.option_logprobs(plan, prompts.flip(0))
    for i in range(len(prompts)):
        alone = lm.option_logprobs(plan, prompts[i : i + 1])
        assert torch.equal(alone.logprobs[0], together.logprobs[i])
        assert torch.equal(alone.option_mass[0], together.option_mass[i])
    assert torch.equal(shuffled.logprobs.flip(0), together.logprobs)


def test_bfloat16_is_close_to_plain(load, survey, prompts):
    lm = load(dtype="bfloat16")
    assert lm.dtype == torch.bfloat16
    for placement in ("front", "late"):
        plan = lm.plan(survey, placement=placement)
        fast, plain = lm.option_logprobs(plan, prompts), lm.option_logprobs(plan, prompts, plain=True)
        torch.testing.assert_close(fast.logprobs, plain.logprobs, atol=0.25, rtol=0)


@pytest.mark.parametrize("placement", ["front", "late"])
def test_unprompted_is_the_template_alone(lm, survey, placement):
    plan = lm.plan(survey, placement=placement)
    fast, plain = lm.option_logprobs(plan), lm.option_logprobs(plan, plain=True)
    torch.testing.assert_close(fast.logprobs, plain.logprobs, atol=1e-4, rtol=0)
    front, late = (lm.option_logprobs(lm.plan(survey, placement=p), plain=True) for p in ("front", "late"))
    assert torch.equal(front.logprobs, late.logprobs)
    assert fast.logprobs.shape == (1, 3, 4)


def test_calls_leave_the_cached_prefix_alone(load, survey, prompts):
    lm = load(group_size=2)
    plan = lm.plan(survey)
    first = lm.option_logprobs(plan, prompts)
    lm.option_logprobs(plan, prompts[:, :1] * 9)
    (ready, *_) = lm.engine._ready.values()
    kept = [t for block in ready.chunks for chunk in block for _, k, v in chunk.prefix.layers for t in (k, v)]
    before = [t.clone() for t in kept]
    assert torch.equal(lm.option_logprobs(plan, prompts).logprobs, first.logprobs)
    assert len(kept) > 0 and all(torch.equal(a, b) for a, b in zip(before, kept, strict=True))


def test_old_prefixes_are_dropped(load, survey, prompts):
    lm = load()
    for system in ("One.", "Two.", "Three."):
        lm.option_logprobs(lm.plan(survey, system), prompts)
    assert len(lm.engine._ready) == engine_module.CACHED_PLANS


def test_small_memory_budgets_cut_the_questions_and_change_nothing(load, survey, prompts):
    lm, frugal = load(), load()
    frugal.engine.memory = 1
    for placement in ("front", "late"):
        plan = lm.plan(survey, placement=placement)
        a, b = lm.option_logprobs(plan, prompts), frugal.option_logprobs(plan, prompts)
        torch.testing.assert_close(a.logprobs, b.logprobs, atol=1e-5, rtol=0)


def test_packed_rows_of_a_long_survey_stay_short(lm):
    items = tuple(
        Item(f"q{i}", f"How much do you like the number {i} of them all?", options(["very", "not"])) for i in range(90)
    )
    plan = lm.plan(Survey(id="long", title="Long", items=items), placement="front")
    assert len(plan.blocks) == 1 and plan.tokens(3) > 2 * PACKED
    pieces = PATHS["packed"].pieces(lm.engine.network, plan, plan.blocks[0], 3, lambda new, cached: 1)
    assert sorted(i for piece in pieces for i in piece) == list(range(180))
    sizes = [sum(len(node.ids) for node in plan.tree(piece)) for piece in pieces]
    assert max(sizes) <= PACKED < 2 * min(sizes[:-1])
    prompt = torch.randn(1, 3, lm.hidden_size, generator=torch.Generator().manual_seed(3))
    fast, plain = lm.option_logprobs(plan, prompt), lm.option_logprobs(plan, prompt, plain=True)
    assert lm.engine.path(plan, 3) == "packed"
    torch.testing.assert_close(fast.logprobs, plain.logprobs, atol=1e-4, rtol=0)


def test_ledger_counts_tokens(load, survey, prompts):
    lm = load(group_size=4)
    late, front = lm.plan(survey), lm.plan(survey, placement="front")
    hard = sum(q.length for q in late.questions)
    assert lm.option_logprobs(late, prompts, plain=True).ledger == 6 * (hard + 6 * 3)
    suffix = sum(len(q.suffix_ids) for q in late.questions)
    for plan, tokens in ((late, suffix + 6 * 3), (front, front.tokens(3))):
        answer = lm.option_logprobs(plan, prompts)
        assert (answer.ledger, answer.filler) == (6 * tokens, 2 * tokens)  # six candidates in two groups of four
    assert front.tokens(3) < hard


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("path", PATHS)
def test_every_path_of_every_placement(lm, survey, prompts, placement, path):
    plan = lm.plan(survey, "You take part in a survey.", placement)
    slow, mass = slow_answers(lm, survey, plan, prompts)
    with torch.inference_mode():
        if path == "packed" and placement == "late":
            with pytest.raises(PathError, match="only a stem can be grown"):
                lm.engine._ask(path, plan, prompts, [0], None)
            return
        answer = lm.engine._ask(path, plan, prompts, [0], None)
    torch.testing.assert_close(answer.logprobs, slow, atol=1e-4, rtol=0)
    torch.testing.assert_close(answer.option_mass, mass, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("placement", ["front", "late"])
def test_what_is_asked_is_answered_the_same_in_any_order_and_selection(load, placement, dtype):
    lm, survey = load(dtype=dtype), load_survey("vsm13")
    prompts = torch.randn(7, 3, lm.hidden_size, generator=torch.Generator().manual_seed(3))
    plan = lm.plan(survey, placement=placement, orders="forward")
    assert len(plan.blocks) == 6
    whole = lm.option_logprobs(plan, prompts)
    seen = []

    def survives(answer):
        seen.append(answer.asked.sum(1).tolist())
        return torch.arange(7) % 7 >= len(seen)  # one candidate less after every block

    some = lm.option_logprobs(plan, prompts, order=[4, 2, 0, 5, 1, 3], survives=survives)
    assert seen[0] == [4] * 7 and some.asked.sum(1).tolist() == [4, 8, 12, 16, 20, 24, 24]
    asked = some.asked
    assert torch.equal(some.logprobs[asked], whole.logprobs[asked]) and some.logprobs[~asked].isnan().all()
    assert torch.equal(some.option_mass[asked], whole.option_mass[asked]) and some.option_mass[~asked].isnan().all()
    items = sorted(plan.questions[i].item for b in (4, 2) for i in plan.blocks[b])
    assert asked[1].nonzero().flatten().tolist() == items
    assert some.ledger < whole.ledger and whole.asked.all()


def test_blocks_that_are_not_the_plans_are_refused(lm, survey, prompts):
    with pytest.raises(ValueError, match=r"order: expected each of 1 blocks once, got \[0, 0\]"):
        lm.option_logprobs(lm.plan(survey), prompts, order=[0, 0])


@pytest.mark.parametrize("placement", ["front", "late"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_candidate_gets_nan_and_harms_nobody(lm, survey, prompts, placement, bad):
    plan = lm.plan(survey, placement=placement)
    good = lm.option_logprobs(plan, prompts)
    broken = prompts.clone()
    broken[2, 1, 0] = bad
    answer = lm.option_logprobs(plan, broken)
    assert answer.logprobs[2, 1].isnan().all() and answer.option_mass[2].isnan().all()
    keep = [0, 1, 3, 4, 5]
    assert torch.equal(answer.logprobs[keep], good.logprobs[keep])


def test_gradients_equal_finite_differences(load, survey):
    lm = load(initializer_range=0.1)
    lm.model.double()
    for placement in ("front", "late"):
        plan = lm.plan(survey, placement=placement)
        prompts = torch.randn(2, 2, lm.hidden_size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        prompts.requires_grad_(True)

        def loss(x, plan=plan):
            return lm.engine.run(plan, x, grad=True).logprobs[..., :2].exp().double().square().sum()

        value = loss(prompts)
        value.backward()
        direction = torch.randn(prompts.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
        step = 0.02  # the softmax is float32, so the difference has to be larger than its rounding
        difference = (loss(prompts + step * direction) - loss(prompts - step * direction)).item() / (2 * step)
        assert (prompts.grad * direction).sum().item() == pytest.approx(difference, rel=0.02)
        assert all(p.grad is None and not p.requires_grad for p in lm.model.parameters())


def test_gradients_flow_when_some_items_have_fewer_options_and_after_inference(lm, survey, prompts):
    plan = lm.plan(survey)
    lm.option_logprobs(plan, prompts)
    x = prompts.clone().requires_grad_(True)
    lm.engine.run(plan, x, grad=True).logprobs.exp().square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and (x.grad != 0).any()
    assert not lm.option_logprobs(plan, x).logprobs.requires_grad


def test_an_architecture_without_a_cache_falls_back_and_says_so_once(load, survey, prompts, caplog):
    lm = load("mamba2")
    with caplog.at_level(logging.WARNING, logger="softde"):
        plan = lm.plan(survey)
        fast = lm.option_logprobs(plan, prompts)
        lm.option_logprobs(plan, prompts)
    plain = lm.option_logprobs(plan, prompts, plain=True)
    torch.testing.assert_close(fast.logprobs, plain.logprobs, atol=1e-4, rtol=0)
    assert lm.engine.path(plan) in ("copied", "batched")  # transformers 5.0 cannot go on from its cache
    said = [r.getMessage() for r in caplog.records if r.name == "softde"]
    assert len(said) == len(set(said)) == (1 if lm.engine.path(plan) == "copied" else 2)
    assert "the expanded path" in said[0] and "using a slower one" in said[0]


class Forgetful(torch.nn.Module):
    """A model whose answer ignores padding masks and the cached prefix: fast paths must notice."""

    def __init__(self, model):
        super().__init__()
        self.inner, self.config = model, model.config

    def get_input_embeddings(self):
        return self.inner.get_input_embeddings()

    def forward(self, inputs_embeds, position_ids=None, attention_mask=None, past_key_values=None, **_):
        logits = self.inner.lm_head(inputs_embeds.mean(1, keepdim=True))
        if past_key_values is not None:
            past_key_values.update(inputs_embeds[:, None], inputs_embeds[:, None], 0)
        return SimpleNamespace(logits=logits)


def test_a_silently_wrong_fast_path_is_caught(lm, prompts, caplog):
    broken = LM(Forgetful(lm.model), lm.tokenizer, "forgetful")
    plan = broken.plan(load_survey("vsm13"))  # long enough for padding in a batch
    with caplog.at_level(logging.WARNING, logger="softde"):
        answer = broken.option_logprobs(plan, prompts)
    assert broken.engine.path(plan) == "plain"
    assert torch.equal(answer.logprobs, broken.option_logprobs(plan, prompts, plain=True).logprobs)
    said = [r.getMessage() for r in caplog.records]
    assert [m.split()[1] for m in said] == ["expanded", "copied", "batched"] and "differs by" in said[0]


def failing(engine, when):
    """Make the model's forward raise out-of-memory while `when(rows)`."""
    forward = engine.model.forward

    def hungry(*args, **kwargs):
        if when(len(kwargs["inputs_embeds"])):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    return hungry


def test_out_of_memory_halves_the_group_and_goes_on(load, survey, prompts, monkeypatch, caplog):
    lm = load(group_size=4)
    plan = lm.plan(survey)
    expected = lm.option_logprobs(plan, prompts)
    monkeypatch.setattr(lm.model, "forward", failing(lm.engine, lambda rows: rows > 6))
    with caplog.at_level(logging.WARNING, logger="softde"):
        answer = lm.option_logprobs(plan, prompts)
    assert lm.engine.group_size == 1 and "groups of 1 candidates" in caplog.text
    torch.testing.assert_close(answer.logprobs, expected.logprobs, atol=1e-5, rtol=0)


def test_out_of_memory_with_nothing_left_to_halve(load, survey, prompts, monkeypatch):
    lm = load()
    plan = lm.plan(survey)
    monkeypatch.setattr(lm.model, "forward", failing(lm.engine, lambda rows: True))
    with pytest.raises(ValueError, match=r"out of memory on cpu with one candidate and one question.*bfloat16"):
        lm.option_logprobs(plan, prompts)


def test_other_errors_are_not_swallowed(load, survey, prompts, monkeypatch):
    lm = load()
    plan = lm.plan(survey)
    lm.option_logprobs(plan, prompts)

    def broken(*_, **__):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(lm.model, "forward", broken)
    with pytest.raises(RuntimeError, match="no such kernel"):
        lm.option_logprobs(plan, prompts)


@pytest.mark.parametrize(
    "shape", [(3, 32), (0, 3, 32), (2, 0, 32), (2, 3, 33)], ids=["two axes", "nobody", "no tokens", "other width"]
)
def test_prompts_of_another_shape_are_refused(lm, survey, shape):
    with pytest.raises(ValueError, match=r"prompts: expected a floating-point tensor \(population, tokens, 32\), got"):
        lm.option_logprobs(lm.plan(survey), torch.zeros(shape))


def test_integer_prompts_are_refused(lm, survey):
    with pytest.raises(ValueError, match="torch.int64"):
        lm.option_logprobs(lm.plan(survey), torch.zeros(2, 3, 32, dtype=torch.long))


def test_prompts_beyond_the_context_are_refused(lm, survey):
    with pytest.raises(
        ValueError, match=r"the longest question has \d+ tokens and the prompt 2048, but the model reads 2048"
    ):
        lm.option_logprobs(lm.plan(survey), torch.zeros(1, 2048, 32))


def test_group_size_must_be_positive(lm):
    with pytest.raises(ValueError, match="group_size: expected 1 or more"):
        Engine(lm.model, 0)


def short_items(n):
    words = ("boss", "job", "time", "life", "work")
    scale = options(["a", "b", "c"])
    items = tuple(Item(f"q{i}", f"{words[i % 5]} {words[i // 5]}?", scale) for i in range(n))
    return Survey(id="short", title="Short", items=items, instruction="Answer 1 to 3.")


def test_a_window_that_counts_places_in_a_row_is_found_out(caplog):
    """GPT-Neo's own window: short questions fit into it alone, but not side by side in a packed row."""
    model = tiny_random.make_model(
        "gpt_neo", num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=64
    )
    lm = LM(model, tiny_random.make_tokenizer(None), "neo")
    plan = lm.plan(short_items(20), placement="front", orders="forward")
    assert plan.longest < 64 < plan.tokens(3)
    prompts = torch.randn(3, 3, lm.hidden_size, generator=torch.Generator().manual_seed(3))
    with caplog.at_level(logging.WARNING, logger="softde"):
        fast = lm.option_logprobs(plan, prompts)
    torch.testing.assert_close(fast.logprobs, lm.option_logprobs(plan, prompts, plain=True).logprobs, atol=1e-4, rtol=0)
    assert lm.engine.path(plan, 3) == "expanded" and "the packed path differs" in lm.engine.notes[0]


def test_a_path_that_fails_after_its_check_is_left_and_nothing_is_lost(load, survey, prompts, monkeypatch, caplog):
    lm = load()
    plan = lm.plan(survey)
    expected = lm.option_logprobs(plan, prompts)
    forward = lm.model.forward

    def picky(*args, **kwargs):
        cache = kwargs.get("past_key_values")
        if cache is not None and cache.get_seq_length() and len(kwargs["inputs_embeds"]) > 1:
            raise IndexError("beyond the buffer")
        return forward(*args, **kwargs)

    monkeypatch.setattr(lm.model, "forward", picky)
    with caplog.at_level(logging.WARNING, logger="softde"):
        answer = lm.option_logprobs(plan, prompts)
    assert "the expanded path fails (IndexError: beyond the buffer)" in caplog.text
    assert lm.engine.path(plan, 3) == "batched" and len(lm.engine.notes) == 2
    torch.testing.assert_close(answer.logprobs, expected.logprobs, atol=1e-4, rtol=0)


def test_an_item_with_no_finite_option_is_nan_also_where_it_has_fewer(lm, survey, prompts, monkeypatch):
    forward = lm.model.forward
    plan = lm.plan(survey)

    def silent(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits[..., list(plan.questions[-1].option_ids)] = -math.inf  # "1" and "2", all options of the last item
        return output

    monkeypatch.setattr(lm.model, "forward", silent)
    answer = lm.option_logprobs(plan, prompts, plain=True)
    assert answer.logprobs[:, 2, :2].isnan().all() and torch.isneginf(answer.logprobs[:, 2, 2:]).all()
    assert answer.logprobs[:, 0, 2].isfinite().all() and (answer.option_mass[:, 2] == 0).all()


def test_more_soft_tokens_than_the_context_has_room_for(load, survey):
    lm = load(max_position_embeddings=140)
    with pytest.raises(
        ValueError, match=r"the longest question has \d+ tokens and the prompt 100, but the model reads 140"
    ):
        lm.engine.check_room(lm.plan(survey), 100)
