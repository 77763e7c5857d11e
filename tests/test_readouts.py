"""Read-outs against plain forwards on prompts written out by hand, the same draws injected."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import softde
from softde import Argmax, Expected, Generated, Sampled, SequenceLogprob
from softde.administer import administer
from softde.condition import Condition
from softde.lm import LM
from softde.prompt import SoftPrompt
from softde.readouts import NONE, Readout, shown_item, text_continuations, uniforms
from softde.surveys import Item, Survey
from softde.surveys.parsing import find_option
from tests import tiny_random
from tests.reference import slow_lm

ALL: tuple[Readout, ...] = (
    Expected(), Argmax(), Sampled(3), SequenceLogprob(), SequenceLogprob(normalize=True),
    Generated(max_new_tokens=3), Generated(2, 3, 1.0), Generated(constrained=True),
)  # fmt: skip
ORDERS = ("forward", "reversed")


@pytest.fixture(scope="module")
def soft(llama: LM) -> torch.Tensor:
    """Five candidates of three soft tokens with the spread of the model's own."""
    noise = torch.randn(5, 3, llama.hidden_size, generator=torch.Generator().manual_seed(5))
    return noise * llama.embedding_stats[1]


@pytest.fixture(scope="module")
def prompted(soft: torch.Tensor) -> Condition:
    return Condition(prompt=SoftPrompt(soft[0]))


def asked(llama: LM, mini: Survey, soft: torch.Tensor) -> list[list[tuple[list[float], float]]]:
    """[item][order] → (probabilities, option mass), late soft prompt."""
    return [
        [slow_lm.ask(llama.model, llama.tokenizer, i, mini.instruction, soft, reverse=r) for r in (False, True)]
        for i in mini.items
    ]


def row_by_hand(lm: LM, survey: Survey, item: Item, reverse: bool, soft: torch.Tensor) -> torch.Tensor:
    """A late prompt as embeddings (1, tokens, hidden): Llama-3's conversation, written out."""
    texts = [o.text for o in item.options][:: -1 if reverse else 1]
    lines = [item.text, *(f"{k} = {t}" for k, t in enumerate(texts, 1)), survey.instruction]
    table = lm.model.get_input_embeddings().weight
    before, after = (
        table[lm.tokenizer.encode(text, add_special_tokens=False)]
        for text in ("<|begin_of_text|>" + slow_lm.USER.format("\n".join(lines)), slow_lm.CUE)
    )
    return torch.cat([before, soft, after])[None]


def score_by_hand(lm: LM, row: torch.Tensor, text: str) -> tuple[float, int]:
    """(Σ log p, tokens) of a text behind a row, a forward per token."""
    ids, total = lm.tokenizer.encode(text, add_special_tokens=False), 0.0
    for token in ids:
        with torch.no_grad():
            total += float(lm.model(inputs_embeds=row).logits[0, -1].double().log_softmax(-1)[token])
        row = torch.cat([row, lm.model.get_input_embeddings().weight[[token]][None]], dim=1)
    return total, len(ids)


def text_by_hand(lm: LM, row: torch.Tensor, steps: int) -> str:
    """Greedy text behind a row, a forward per token."""
    written: list[int] = []
    for _ in range(steps):
        with torch.no_grad():
            token = int(lm.model(inputs_embeds=row).logits[0, -1].argmax())
        if token == lm.tokenizer.eos_token_id:
            break
        written.append(token)
        row = torch.cat([row, lm.model.get_input_embeddings().weight[[token]][None]], dim=1)
    return str(lm.tokenizer.decode(written, skip_special_tokens=True)).strip()


# ---- each read-out -------------------------------------------------------------------------------------------------


def test_expected_is_what_the_engine_answers_bit_for_bit(llama: LM, mini: Survey, prompted: Condition) -> None:
    got = administer(mini, llama, prompted)
    assert prompted.prompt is not None
    answer = llama.option_logprobs(llama.plan(mini), prompted.prompt.embeddings[None])
    assert np.array_equal(got.probabilities, answer.logprobs[0].double().exp().numpy())
    assert np.array_equal(got.option_mass, answer.option_mass[0].double().numpy())
    assert (got.forward_tokens, got.answers, got.texts, got.readout) == (answer.ledger, None, None, Expected())
    assert not got.invalid.any() and not got.refused.any() and got.invalid.shape == (4,)


def test_argmax_is_the_most_probable_label_of_each_order(
    llama: LM, mini: Survey, prompted: Condition, soft: torch.Tensor
) -> None:
    got = administer(mini, llama, prompted, readout=Argmax())
    assert got.answers is not None and got.answers.shape == (2, 4)
    for i, turns in enumerate(asked(llama, mini, soft[0])):
        best = [int(np.argmax(p)) for p, _ in turns]
        assert got.answers[:, i].tolist() == best
        assert got.probabilities[i].tolist() == [best.count(k) / 2 for k in range(5)]
        assert got.option_mass[i] == pytest.approx(np.mean([mass for _, mass in turns]), abs=1e-5)
    assert set(np.unique(got.probabilities)) <= {0, 0.5, 1} and not got.invalid.any()


def test_of_equal_labels_argmax_takes_the_first_in_the_items_own_order(
    llama: LM, mini: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = llama.model.lm_head
    monkeypatch.setattr(head, "forward", lambda x: x.new_zeros(*x.shape[:-1], 420))
    for readout in (Argmax(), Generated(constrained=True)):
        got = administer(mini, llama, readout=readout)
        assert got.answers is not None and not got.answers.any()


def test_sampled_draws_are_the_inverse_cumulative_probability_of_the_uniforms(
    llama: LM, mini: Survey, prompted: Condition, soft: torch.Tensor
) -> None:
    got = administer(mini, llama, prompted, readout=Sampled(7, seed=3))
    draws = uniforms(3, llama.plan(mini), 7, 1)  # (questions, respondents, steps); questions: item by item, two orders
    assert got.answers is not None and got.answers.shape == (14, 4)
    for i, turns in enumerate(asked(llama, mini, soft[0])):
        for k, (shares, _) in enumerate(turns):
            for r in range(7):
                level, option = draws[2 * i + k, r, 0], 0
                while level >= sum(shares[: option + 1]):
                    option += 1
                assert got.answers[7 * k + r, i] == option
        counts = np.bincount(got.answers[:, i], minlength=5)
        assert got.probabilities[i] == pytest.approx(counts / 14)


def test_sampled_shares_converge_to_the_probabilities(llama: LM, mini: Survey, prompted: Condition) -> None:
    expected = administer(mini, llama, prompted)
    got = administer(mini, llama, prompted, readout=Sampled(20_000))
    # Standard error of a share: at most .5 / √40,000 = .0025.
    assert np.abs(got.probabilities - expected.probabilities).max() < 0.01
    assert got.item_means == pytest.approx(expected.item_means, abs=0.04)
    few = administer(mini, llama, prompted, readout=Sampled(20))
    assert few.answers is not None and got.answers is not None
    assert np.array_equal(few.answers[:20], got.answers[:20])  # more respondents leave the first ones alone


def test_sequence_logprob_scores_the_option_texts(
    llama: LM, mini: Survey, prompted: Condition, soft: torch.Tensor
) -> None:
    summed, mean = (administer(mini, llama, prompted, readout=SequenceLogprob(n)) for n in (False, True))
    for i, item in enumerate(mini.items):
        shares, mean_shares, masses = [], [], []
        for reverse in (False, True):
            row = row_by_hand(llama, mini, item, reverse, soft[0])
            scores = [score_by_hand(llama, row, o.text) for o in item.options]
            weights = np.exp([s for s, _ in scores])
            normalised = np.exp([s / n for s, n in scores])
            shares.append(weights / weights.sum())
            mean_shares.append(normalised / normalised.sum())
            masses.append(weights.sum())
        count = len(item.options)
        assert summed.probabilities[i, :count] == pytest.approx(np.mean(shares, axis=0), abs=1e-4)
        assert mean.probabilities[i, :count] == pytest.approx(np.mean(mean_shares, axis=0), abs=1e-4)
        assert not summed.probabilities[i, count:].any() and not mean.probabilities[i, count:].any()
        assert summed.option_mass[i] == mean.option_mass[i] == pytest.approx(np.mean(masses), rel=1e-3)
    assert any(n > 1 for _, n in scores)
    assert np.abs(summed.probabilities - mean.probabilities).max() > 0.01


def test_without_a_template_texts_follow_answer_with_their_space(tmp_path: Path, mini: Survey) -> None:
    lm = LM.from_pretrained(tiny_random.save(tmp_path, template=None))
    plan = lm.plan(mini)
    questions, sequences = text_continuations(lm, plan, mini)
    # Labels are a space and a digit here, so the prompt of a label ends with the space; a text brings its own.
    assert lm.tokenizer.decode(plan.questions[0].suffix_ids).endswith("Answer: ")
    assert lm.tokenizer.decode(questions[0].suffix_ids).endswith("Answer:")
    assert sequences[0][0] == tuple(lm.tokenizer.encode(" very important", add_special_tokens=False))
    assert lm.tokenizer.convert_ids_to_tokens(sequences[0][0][0]).startswith("Ġ")
    row = lm.embed([*questions[0].prefix_ids, *questions[0].suffix_ids])[None]
    scores = [score_by_hand(lm, row, " " + o.text)[0] for o in mini.items[0].options]
    got = administer(mini, lm, orders="forward", readout=SequenceLogprob())
    weights = np.exp(scores)
    assert got.probabilities[0] == pytest.approx(weights / weights.sum(), abs=1e-4)


def by_length(text: str, item: Item) -> int | None:
    """A parser that can read what a random model writes."""
    return None if len(text) % 7 == 0 else len(text) % len(item.options)


def test_generated_text_is_parsed_in_the_order_that_was_shown(
    llama: LM, mini: Survey, prompted: Condition, soft: torch.Tensor
) -> None:
    got = administer(mini, llama, prompted, readout=Generated(max_new_tokens=4, parser=by_length))
    assert got.answers is not None and got.texts is not None
    for i, item in enumerate(mini.items):
        for k, reverse in enumerate((False, True)):
            text = text_by_hand(llama, row_by_hand(llama, mini, item, reverse, soft[0]), 4)
            option = by_length(text, item)
            if option is not None and reverse:
                option = len(item.options) - 1 - option
            assert got.texts[k][i] == text
            assert got.answers[k, i] == (NONE if option is None else option)


def test_the_parser_sees_the_item_as_it_was_shown(mini: Survey) -> None:
    boss = mini.items[0]
    back = shown_item(boss, "reversed")
    assert shown_item(boss, "forward") == boss
    assert [o.label for o in back.options] == ["1", "2", "3", "4", "5"]
    assert [o.text for o in back.options] == [o.text for o in boss.options][::-1]
    assert find_option("1", back) == find_option("not important", back) == 0


@pytest.mark.parametrize("orders", [*ORDERS, "both"])
def test_constrained_text_is_argmax_and_sampled(llama: LM, mini: Survey, prompted: Condition, orders: str) -> None:
    greedy = administer(mini, llama, prompted, orders, readout=Generated(constrained=True))
    drawn = administer(mini, llama, prompted, orders, readout=Generated(30, temperature=1, seed=2, constrained=True))
    for got, other in ((greedy, Argmax()), (drawn, Sampled(30, seed=2))):
        expected = administer(mini, llama, prompted, orders, readout=other)
        assert got.answers is not None and expected.answers is not None
        assert np.array_equal(got.answers, expected.answers)
        assert np.array_equal(got.probabilities, expected.probabilities)
        assert got.option_mass == pytest.approx(expected.option_mass, abs=1e-5)
    assert drawn.texts is not None and {t for r in drawn.texts for t in r} <= set("12345")


# ---- shares of answers that are none -------------------------------------------------------------------------------


def writing(texts: dict[str, str], monkeypatch: pytest.MonkeyPatch, lm: LM) -> Callable[[str, Item], int | None]:
    """Make the model write one text; the parser then reads another for each item by its id."""
    monkeypatch.setattr(lm.tokenizer, "decode", lambda *_, **__: texts["all"])
    return lambda text, item: find_option(texts.get(item.id, text), item)


def test_refused_and_invalid_answers_are_counted_and_leave_nan(
    llama: LM, mini: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = writing({"all": "As an AI I cannot.", "time": "2", "nerves": "2", "proud": "2"}, monkeypatch, llama)
    got = administer(mini, llama, readout=Generated(parser=parser))
    assert got.refused.tolist() == [1, 0, 0, 0] and not got.invalid.any()
    assert np.isnan(got.probabilities[0]).all() and not np.isnan(got.probabilities[1:]).any()
    # "2" of the reversed items: time 4 of 5, nerves 2 of 3, proud 1 of 2; item means (2 + 4) / 2, value 2, (1 + 0) / 2.
    assert got.item_means[1:].tolist() == [3, 2, 0.5] and math.isnan(got.item_means[0])
    scores = got.scores()
    assert math.isnan(scores[0]) and scores[1] == pytest.approx(50 - 15 * 2 + 40 * 0.5)
    assert got.texts == (("As an AI I cannot.",) * 4,) * 2

    nonsense = administer(mini, llama, readout=Generated(parser=writing({"all": "hm"}, monkeypatch, llama)))
    assert nonsense.invalid.tolist() == [1] * 4 and not nonsense.refused.any()
    assert np.isnan(nonsense.item_means).all() and np.isnan(nonsense.scores()).all()
    assert not nonsense.probabilities[2, 3:].any()  # still zero beyond an item's options


def test_shares_are_among_valid_answers(llama: LM, mini: Survey, prompted: Condition) -> None:
    got = administer(mini, llama, prompted, readout=Generated(40, 3, 1.0, parser=by_length))
    assert got.answers is not None
    for i in range(4):
        valid = got.answers[:, i][got.answers[:, i] != NONE]
        assert 0 < len(valid) < 80
        assert got.invalid[i] == pytest.approx(1 - len(valid) / 80) and got.refused[i] == 0
        assert got.probabilities[i] == pytest.approx(np.bincount(valid, minlength=5) / len(valid))


def test_a_candidate_without_finite_logits_is_invalid_everywhere(llama: LM, mini: Survey, soft: torch.Tensor) -> None:
    broken = soft[:2].clone()
    broken[1, 0, 0] = math.nan
    for readout in ALL:
        got = readout.read(llama, llama.plan(mini), mini, broken)
        assert np.isnan(got.probabilities[1, 0]).all() and got.invalid[1].tolist() == [1] * 4, readout
        assert not np.isnan(got.option_mass[0]).any() and np.isnan(got.option_mass[1]).all()


# ---- populations ---------------------------------------------------------------------------------------------------


def named(readout: object) -> str:
    """The same in every process: without the address of a parser."""
    return re.sub(r"<function (\w+) at \w+>", r"\1", repr(readout))


@pytest.mark.parametrize("readout", ALL, ids=named)
def test_a_population_is_read_as_its_candidates_are(
    llama: LM, mini: Survey, soft: torch.Tensor, readout: Readout
) -> None:
    plan = llama.plan(mini)
    together, back = readout.read(llama, plan, mini, soft), readout.read(llama, plan, mini, soft.flip(0))
    assert together.probabilities.shape == (5, 4, 5)
    assert together.option_mass.shape == together.invalid.shape == together.refused.shape == (5, 4)
    assert together.tokens == back.tokens > 0
    for name in ("probabilities", "option_mass", "invalid", "refused", "answers"):
        a, b = getattr(together, name), getattr(back, name)
        assert a is b is None or np.array_equal(a, b[::-1], equal_nan=True)
    alone = administer(mini, llama, Condition(prompt=SoftPrompt(soft[3])), readout=readout)
    assert np.array_equal(alone.probabilities, together.probabilities[3], equal_nan=True)
    assert np.array_equal(alone.option_mass, together.option_mass[3])
    assert together.texts is None or alone.texts == together.texts[3]


@pytest.mark.parametrize("readout", ALL, ids=named)
def test_plain_is_the_same(llama: LM, mini: Survey, soft: torch.Tensor, readout: Readout) -> None:
    plan = llama.plan(mini, orders="forward")
    fast, plain = (readout.read(llama, plan, mini, soft[:1], plain=p) for p in (False, True))
    assert fast.probabilities == pytest.approx(plain.probabilities, abs=1e-4, nan_ok=True)
    assert fast.texts == plain.texts and plain.tokens > fast.tokens


@pytest.mark.parametrize("readout", [Sampled(50, 1), Generated(50, 1, 1.0, 1, constrained=True)], ids=named)
def test_random_numbers_are_common(llama: LM, mini: Survey, soft: torch.Tensor, readout: Readout) -> None:
    plan = llama.plan(mini)
    twice = readout.read(llama, plan, mini, torch.cat([soft[:1], soft[:1]]))
    assert twice.answers is not None and np.array_equal(twice.answers[0], twice.answers[1])
    # A tiny step of the candidate changes few answers; with draws of their own, most answers of 400 would change.
    near = readout.read(llama, plan, mini, soft[:1] * 1.0001)
    assert near.answers is not None and (near.answers[0] != twice.answers[0]).sum() < 10
    other = Sampled(50, 2).read(llama, plan, mini, soft[:1])
    assert other.answers is not None and (other.answers[0] != twice.answers[0]).sum() > 100


def test_uniforms_depend_on_seed_order_respondent_item_and_step_alone(llama: LM, mini: Survey) -> None:
    both, forward = llama.plan(mini), llama.plan(mini, orders="forward")
    many = uniforms(0, both, 9, 3)
    assert many.shape == (8, 9, 3) and ((many >= 0) & (many < 1)).all() and len(np.unique(many)) == many.size
    assert np.array_equal(many[::2], uniforms(0, forward, 9, 3))
    assert np.array_equal(many[:, :4, :2], uniforms(0, both, 4, 2))
    assert not (many == uniforms(1, both, 9, 3)).any()
    assert np.array_equal(many, uniforms(0, llama.plan(mini, "Another system text."), 9, 3))
    assert uniforms(0, both, 5000, 1).mean() == pytest.approx(0.5, abs=0.01)


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampled(0), "n: expected a whole number of at least 1, got 0"),
        (lambda: Sampled(2.0), "n: expected a whole number"),  # type: ignore[arg-type]
        (lambda: Sampled(True), "n: expected a whole number"),
        (lambda: Sampled(seed=-1), "seed: expected a whole number of at least 0, got -1"),
        (lambda: Generated(0), "n: expected a whole number of at least 1"),
        (lambda: Generated(max_new_tokens=0), "max_new_tokens: expected a whole number of at least 1, got 0"),
        (lambda: Generated(temperature=-0.1), r"temperature: expected 0 \(greedy\) or a positive number, got -0.1"),
        (lambda: Generated(temperature=math.nan), "temperature: expected"),
        (lambda: Generated(temperature=math.inf), "temperature: expected"),
        (lambda: Generated(5), "temperature 0 writes the same text 5 times; use n=1, or a temperature above 0"),
        (lambda: Generated(parser="digits"), "parser: expected a function"),  # type: ignore[arg-type]
    ],
)
def test_bad_settings_are_refused_when_made(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_readout_is_refused_before_any_forward(
    llama: LM, mini: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama.model, "forward", lambda *_, **__: pytest.fail("a forward"))
    with pytest.raises(ValueError, match=r"readout: expected softde.Expected\(\), Argmax\(\).*got 'argmax'"):
        administer(mini, llama, readout="argmax")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got the class Argmax; write Argmax\(\)"):
        administer(mini, llama, readout=Argmax)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the answer may have 4000, but the model reads 2048"):
        administer(mini, llama, readout=Generated(max_new_tokens=4000))


@pytest.mark.parametrize("given", [5, -1, 1.5, "2"])
def test_a_parser_that_returns_no_option_number_is_named(llama: LM, mini: Survey, given: object) -> None:
    with pytest.raises(ValueError, match=r"parser: for the text .* of item 'boss' it returned .*0 to 4, or None"):
        administer(mini, llama, readout=Generated(max_new_tokens=1, parser=lambda *_: given))  # type: ignore[arg-type,return-value]


def test_readouts_are_public_frozen_values() -> None:
    assert softde.Sampled() == Sampled(20, 0) and hash(softde.Generated()) == hash(Generated())
    assert softde.SequenceLogprob() == SequenceLogprob(normalize=False)
