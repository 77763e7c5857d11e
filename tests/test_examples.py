"""Worked examples: the text by hand, the ids by the chat template itself, the answers by plain forwards."""

from __future__ import annotations

import numpy as np
import pytest

from softde.administer import administer
from softde.condition import Condition
from softde.lm import LM, make_plan
from softde.surveys import Item, Survey, options
from softde.surveys.examples import Example, Examples
from tests import tiny_random

PETS = Item("pets", "Do you like pets?", options(["yes", "a little", "no"]))
TEA = Item("tea", "Do you like tea?", options(["yes", "no"]))
RAIN = Item("rain", "Do you like rain?", options(["yes", "no", "it depends"]))
SURVEY = Survey("likes", "Likes", (PETS, TEA, RAIN), instruction="Answer with the number only.")
EXAMPLES = {"rain": (Example(PETS, 0), Example(TEA, 1)), "tea": (Example(PETS, 2),)}
DEMO_FORWARD = (
    "Do you like pets?\n1 = yes\n2 = a little\n3 = no\nAnswer: 1\n\nDo you like tea?\n1 = yes\n2 = no\nAnswer: 2\n\n"
)
DEMO_REVERSED = (
    "Do you like pets?\n1 = no\n2 = a little\n3 = yes\nAnswer: 3\n\nDo you like tea?\n1 = no\n2 = yes\nAnswer: 1\n\n"
)
ASKED_FORWARD = "Do you like rain?\n1 = yes\n2 = no\n3 = it depends\nAnswer with the number only."
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "[{{ m['role'] }}] {{ m['content'] | trim }} [/]{% endfor %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_random.make_tokenizer()


def test_an_example_is_listed_in_the_order_of_the_question():
    examples = Examples(EXAMPLES)
    assert examples.text("rain", "forward") == DEMO_FORWARD
    assert examples.text("rain", "reversed") == DEMO_REVERSED
    assert examples.text("pets", "forward") == "" and examples.conversation("rain", "forward", "") == ()
    texts = Examples(EXAMPLES, template="Q: {question}\nA: {label}. {option}")
    assert texts.text("tea", "reversed") == "Q: Do you like pets?\n1 = no\n2 = a little\n3 = yes\nA: 1. no\n\n"


def test_braces_in_an_item_are_text():
    odd = Item("odd", "What is {label}?", options(["{option}", "x"]))
    assert (
        Examples({"tea": (Example(odd, 0),)}).text("tea", "forward")
        == "What is {label}?\n1 = {option}\n2 = x\nAnswer: 1\n\n"
    )


def test_reversed_answers_are_at_the_other_end():
    other = Examples(EXAMPLES).reversed()
    assert [e.option for e in other.by_item["rain"]] == [2, 0] and other.reversed() == Examples(EXAMPLES)


@pytest.mark.parametrize("system", [None, "You are somebody."])
@pytest.mark.parametrize("turns", [False, True])
def test_ids_are_the_chat_templates_own(tokenizer, turns, system):
    plan = make_plan(tokenizer, SURVEY, system, "late", "forward", examples=Examples(EXAMPLES, turns))
    messages = [{"role": "system", "content": system}] if system else []
    if turns:
        pets, tea = DEMO_FORWARD.split("\n\n")[:2]
        for demo in (pets, tea):
            asked, answer = demo.split("\nAnswer: ")
            messages.append({"role": "user", "content": f"{asked}\nAnswer with the number only."})
            messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": ASKED_FORWARD})
    else:
        messages.append({"role": "user", "content": DEMO_FORWARD + ASKED_FORWARD})
    ids = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    question = plan.questions[2]
    assert question.prefix_ids + question.suffix_ids == tuple(ids)
    assert plan.digest != make_plan(tokenizer, SURVEY, system, "late", "forward").digest


def test_turns_where_there_is_no_system_turn_or_no_template(tokenizer):
    examples = Examples({"tea": (Example(PETS, 2),)}, turns=True)
    demo = "Do you like pets?\n1 = yes\n2 = a little\n3 = no\nAnswer with the number only."
    asked = "Do you like tea?\n1 = yes\n2 = no\nAnswer with the number only."
    bos = tokenizer.bos_token
    try:
        tokenizer.chat_template = NO_SYSTEM
        plan = make_plan(tokenizer, SURVEY, "Be kind.", "late", "forward", examples=examples)
        assert tokenizer.decode(plan.questions[1].prefix_ids + plan.questions[1].suffix_ids) == (
            f"{bos}[user] Be kind.\n\n{demo} [/][assistant] 3 [/][user] {asked} [/]"
        )
        tokenizer.chat_template = None
        plan = make_plan(tokenizer, SURVEY, "Be kind.", "late", "forward", examples=examples)
        text = tokenizer.decode(plan.questions[1].prefix_ids + plan.questions[1].suffix_ids)
        assert text.rstrip() == f"{bos}Be kind.\n\n{demo}\nAnswer: 3\n\n{asked}\nAnswer:"
    finally:
        tokenizer.chat_template = tiny_random.LLAMA3_TEMPLATE


@pytest.mark.parametrize("turns", [False, True])
def test_answers_equal_plain_forwards_and_differ_from_unprompted(llama: LM, turns: bool):
    condition = Condition(examples=Examples(EXAMPLES, turns))
    fast, plain = administer(SURVEY, llama, condition), administer(SURVEY, llama, condition, plain=True)
    np.testing.assert_allclose(fast.probabilities, plain.probabilities, atol=1e-5)
    alone = administer(SURVEY, llama).probabilities
    np.testing.assert_allclose(fast.probabilities[0], alone[0], atol=1e-5)  # pets has no examples
    assert np.abs(fast.probabilities[1:] - alone[1:]).max(-1).min() > 1e-4
    assert condition.name == "examples" and hash(condition) == hash(Condition(examples=Examples(EXAMPLES, turns)))


def test_what_is_refused():
    with pytest.raises(ValueError, match="option: expected the number of an option of item 'tea', 0 to 1, got 2"):
        Example(TEA, 2)
    with pytest.raises(ValueError, match="item 'tea' is among its own examples, which gives its answer away"):
        Examples({"tea": (Example(TEA, 0),)})
    with pytest.raises(ValueError, match=r"template: expected a text with the place '{question}'"):
        Examples(EXAMPLES, template="{label}")
    with pytest.raises(ValueError, match="examples: expected Examples, got FrozenDict"):
        Condition(examples=Examples(EXAMPLES).by_item)  # type: ignore[arg-type]


def test_wrong_kinds_of_examples_are_refused():
    with pytest.raises(ValueError, match="option, the number of one of item 'tea': expected a whole number, got 'yes'"):
        Example(TEA, "yes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="item: expected an Item, .* got 'tea'"):
        Example("tea", 0)  # type: ignore[arg-type]
    for wrong in (Example(PETS, 0), [(PETS, 0)]):
        with pytest.raises(ValueError, match="by_item: item 'tea': expected a list of Example, got"):
            Examples({"tea": wrong})  # type: ignore[dict-item]


def test_examples_for_another_survey_are_named(llama: LM, caplog: pytest.LogCaptureFixture):
    other = Condition(examples=Examples({"Q1": (Example(PETS, 0),)}))
    found = administer(SURVEY, llama, other, orders="forward")
    assert "none of its examples is shown: they are for items (Q1) that survey likes does not have" in caplog.text
    np.testing.assert_array_equal(found.probabilities, administer(SURVEY, llama, orders="forward").probabilities)


def test_examples_that_do_not_fit(llama: LM):
    long = Examples({"tea": (Example(PETS, 0),) * 200})
    with pytest.raises(
        ValueError, match="item 'tea' has .* tokens with its system text and examples, .*fewer examples"
    ):
        administer(SURVEY, llama, Condition(examples=long))
