"""Plans: the ids are the chat template's, the options are single tokens, reversed options come back un-reversed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from softde.lm import make_plan, question_text
from softde.lm.layout import item_blocks
from softde.lm.template import MARK, render
from softde.surveys import Factor, Item, Survey, load_survey, options
from tests import tiny_random

CHATML = (
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}\n{{ m['content'] }}<|eot_id|>\n{% endfor %}"
    "<|start_header_id|>assistant\n"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "[{{ m['role'] }}] {{ m['content'] | trim }} [/]{% endfor %}"
)
DROPS_SYSTEM = "{% for m in messages if m['role'] == 'user' %}U: {{ m['content'] }}\nA:{% endfor %}"
DROPS_USER = "{% for m in messages if m['role'] == 'system' %}{{ m['content'] }}{% endfor %}A:"
TWICE = "{% for m in messages %}{{ m['content'] }} {{ m['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_random.make_tokenizer()


def template_ids(tokenizer, survey, question, system):
    item = survey.items[question.item]
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": question_text(item, question.order, survey.instruction)})
    out = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    return tuple(out)


@pytest.mark.parametrize("system", [None, "You are a typical person from somewhere."])
@pytest.mark.parametrize("placement", ["front", "late"])
def test_ids_are_the_chat_templates_own(tokenizer, placement, system):
    survey = load_survey("vsm13")
    plan = make_plan(tokenizer, survey, system, placement, "both")
    assert len(plan.questions) == 48
    for q in plan.questions:
        assert q.prefix_ids + q.suffix_ids == template_ids(tokenizer, survey, q, system)
        assert (q.prefix_ids + q.suffix_ids).count(tokenizer.bos_token_id) == 1
    assert plan.system == system


def test_late_cut_is_before_the_end_of_turn_and_front_has_no_prefix(tokenizer, survey):
    late = make_plan(tokenizer, survey, None, "late", "forward").questions[0]
    assert tokenizer.decode(late.prefix_ids).endswith("Answer with the number only.")
    assert tokenizer.decode(late.suffix_ids) == "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    front = make_plan(tokenizer, survey, None, "front", "forward").questions[0]
    assert front.prefix_ids == () and front.suffix_ids[0] == tokenizer.bos_token_id


def test_question_text_reverses_the_texts_and_keeps_the_labels(survey):
    assert (
        question_text(survey.items[0], "forward", "Go.")
        == "How important is a boss?\n1 = very\n2 = somewhat\n3 = not\nGo."
    )
    assert (
        question_text(survey.items[0], "reversed", "Go.")
        == "How important is a boss?\n1 = not\n2 = somewhat\n3 = very\nGo."
    )


def test_option_ids_follow_the_item_whatever_order_is_shown(tokenizer, survey):
    forward, backward = make_plan(tokenizer, survey, None, "late", "both").questions[:2]
    assert tokenizer.convert_ids_to_tokens(list(forward.option_ids)) == ["1", "2", "3"]
    assert backward.option_ids == forward.option_ids[::-1]
    assert (forward.order, backward.order, backward.item) == ("forward", "reversed", 0)


def test_plain_format_without_a_template(survey):
    tokenizer = tiny_random.make_tokenizer(None)
    q = make_plan(tokenizer, survey, "Be brief.", "late", "forward").questions[0]
    text = tokenizer.decode(q.prefix_ids + q.suffix_ids)
    user = question_text(survey.items[0], "forward", survey.instruction)
    # In this tokenizer, as in Llama-3's, " 1" is a space and a digit: the space belongs to the cue.
    assert text == f"<|begin_of_text|>Be brief.\n\n{user}\nAnswer: "
    assert tokenizer.decode(q.suffix_ids) == "\nAnswer: "
    assert tokenizer.convert_ids_to_tokens(list(q.option_ids)) == ["1", "2", "3"]


def test_plain_format_uses_the_token_with_its_space_where_there_is_one(survey):
    tokenizer = tiny_random.make_tokenizer(None)
    tokenizer.add_tokens([" 1", " 2", " 3", " 4"])
    q = make_plan(tokenizer, survey, None, "late", "forward").questions[0]
    assert tokenizer.decode(q.suffix_ids) == "\nAnswer:"
    assert tokenizer.convert_ids_to_tokens(list(q.option_ids)) == [" 1", " 2", " 3"]


def test_a_token_across_the_cut_is_not_made(survey):
    tokenizer = tiny_random.make_tokenizer(None)
    tokenizer.add_tokens(["only.\nAnswer"])  # would swallow the end of the user's text
    q = make_plan(tokenizer, survey, None, "late", "forward").questions[0]
    assert tokenizer.decode(q.prefix_ids).endswith("only.")
    assert tokenizer.decode(q.suffix_ids) == "\nAnswer: "


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_a_system_text_that_the_template_refuses_or_drops_goes_to_the_user(template):
    tokenizer = tiny_random.make_tokenizer(template)
    before, after = render(tokenizer, "Hello?", "Be brief.")
    assert before.endswith("Be brief.\n\nHello?") and after.strip() in ("[/]", "A:")
    assert render(tokenizer, "Hello?") == (before.replace("Be brief.\n\n", ""), after)


def test_templates_with_a_system_turn_keep_it():
    before, after = render(tiny_random.make_tokenizer(CHATML), "Hello?", "Be brief.")
    assert before == "<|start_header_id|>system\nBe brief.<|eot_id|>\n<|start_header_id|>user\nHello?"
    assert after == "<|eot_id|>\n<|start_header_id|>assistant" and MARK not in before + after


@pytest.mark.parametrize("template", [DROPS_USER, TWICE, "{{ raise_exception('no') }}"])
def test_a_template_without_the_users_text_is_refused(survey, template):
    with pytest.raises(ValueError, match=r"chat template: expected it to show the user's text once.*set tokenizer"):
        make_plan(tiny_random.make_tokenizer(template), survey, None, "late", "both")


def test_dates_and_thinking_in_templates_are_pinned():
    template = "{{ date_string }} {{ enable_thinking }} {% for m in messages %}{{ m['content'] }}{% endfor %}"
    before, _ = render(tiny_random.make_tokenizer(template), "Hello?")
    assert before == "26 Jul 2024 False Hello?"


def test_a_label_of_two_tokens_is_named(tokenizer, survey):
    ten = replace(survey, items=(Item("long", "How many?", options([f"about {i}" for i in range(10)])),))
    with pytest.raises(
        ValueError,
        match=r"item 'long': the option label '10' becomes the tokens \['1', '0'\].*fewer options, or take",
    ):
        make_plan(tokenizer, ten, None, "late", "both")


def test_labels_with_the_same_token_are_named(survey):
    class Same:
        chat_template = None
        bos_token = ""

        def __call__(self, text, add_special_tokens, verbose):
            return {"input_ids": [min(ord(c), ord("1")) if c.isdigit() else ord(c) for c in text]}

        def decode(self, ids):
            return "".join(map(chr, ids))

        def convert_ids_to_tokens(self, ids):
            return [chr(i) for i in ids]

    with pytest.raises(
        ValueError, match=r"option label '1' becomes the tokens \[' ', '1'\].*the same as another label"
    ):
        make_plan(Same(), survey, None, "late", "both")


@pytest.mark.parametrize(
    ("placement", "orders", "message"),
    [
        ("middle", "both", "placement: expected one of front, after_bos"),
        ("late", "random", "orders: expected one of forward"),
    ],
)
def test_unknown_names(tokenizer, survey, placement, orders, message):
    with pytest.raises(ValueError, match=message):
        make_plan(tokenizer, survey, None, placement, orders)


def test_digest_names_the_content(tokenizer, survey: Survey):
    plan = make_plan(tokenizer, survey, None, "late", "both")
    assert plan == make_plan(tokenizer, survey, " ", "late", "both")
    others = [
        make_plan(tokenizer, survey, "Be brief.", "late", "both"),
        make_plan(tokenizer, survey, None, "front", "both"),
    ]
    assert len({plan.digest, *(o.digest for o in others)}) == 3
    assert plan.prefix_tokens == sum(len(q.prefix_ids) for q in plan.questions)


SOFT = "<soft>"


@pytest.mark.parametrize(
    ("placement", "system", "expected"),
    [
        ("front", None, SOFT + "<|begin_of_text|>U"),
        ("after_bos", None, "<|begin_of_text|>" + SOFT + "U"),
        ("system", "Be brief.", "<|begin_of_text|>SBe brief." + SOFT + "EU"),
        ("system", None, "<|begin_of_text|>S" + SOFT + "EU"),
        ("user_start", "Be brief.", "<|begin_of_text|>SBe brief.EU" + SOFT),
        ("late", None, "<|begin_of_text|>U?" + SOFT + "E"),
    ],
)
def test_where_soft_tokens_stand(tokenizer, survey, placement, system, expected):
    q = make_plan(tokenizer, survey, system, placement, "forward").questions[0]
    text = tokenizer.decode(q.prefix_ids) + SOFT + tokenizer.decode(q.suffix_ids)
    text = text.replace(question_text(survey.items[0], "forward", survey.instruction), "?")
    for name, short in (("user", "U"), ("system", "S")):
        text = text.replace(f"<|start_header_id|>{name}<|end_header_id|>\n\n", short)
    assert text.replace("<|eot_id|>", "E").startswith(expected)


def test_without_a_system_turn_soft_tokens_begin_the_users_text(survey):
    q = make_plan(tiny_random.make_tokenizer(NO_SYSTEM), survey, None, "system", "forward").questions[0]
    tokenizer = tiny_random.make_tokenizer(NO_SYSTEM)
    assert tokenizer.decode(q.prefix_ids) == "<|begin_of_text|>[user] "
    assert tokenizer.decode(q.suffix_ids).startswith("\n\nHow important")


def test_after_bos_needs_a_bos(survey):
    with pytest.raises(
        ValueError, match="placement 'after_bos': this model's prompts do not begin with .*placement='front'"
    ):
        make_plan(tiny_random.make_tokenizer(CHATML), survey, None, "after_bos", "forward")


@pytest.mark.parametrize("placement", ["front", "after_bos", "system", "user_start", "late"])
@pytest.mark.parametrize("common_first", [False, True])
def test_the_tree_is_the_set_of_all_beginnings(tokenizer, placement, common_first):
    survey = replace(load_survey("vsm13"), common_first=common_first)
    plan = make_plan(tokenizer, survey, None, placement, "both")
    assert plan.stemmed == (placement != "late")
    assert sorted(i for block in plan.blocks for i in block) == list(range(48))
    needed = 5 + plan.stem if plan.stemmed else 5 * 48
    for block in plan.blocks:
        tree = plan.tree(block)
        found = {}
        for node in tree:
            ids, at = node.ids, node.parent
            while at >= 0:
                ids, at = tree[at].ids + ids, tree[at].parent
            if node.question >= 0:
                found[node.question] = ids
        assert found == {i: plan.rest(i) for i in block}
        beginnings = {plan.rest(i)[:n] for i in block for n in range(1, len(plan.rest(i)) + 1)}
        assert not plan.stemmed or sum(len(node.ids) for node in tree) == len(beginnings)
        needed += len(beginnings) if plan.stemmed else sum(len(plan.rest(i)) for i in block)
    assert plan.tokens(5) == needed


def test_questions_of_the_same_ids_end_apart(tokenizer, survey):
    plan = make_plan(tokenizer, survey, None, "front", "forward")
    twins = replace(plan, questions=(plan.questions[0], plan.questions[0]), blocks=((0, 1),))
    assert sorted(node.question for node in twins.tree((0, 1))) == [0, 1]


def test_what_is_common_comes_first_where_the_survey_says_so(tokenizer):
    survey = load_survey("vsm13")
    first = replace(survey, common_first=True)
    assert question_text(first.items[0], "forward", "Go.", common_first=True).startswith("Go.\n1 = ")
    plans = [make_plan(tokenizer, s, None, "front", "forward") for s in (survey, first)]
    assert plans[1].tokens(8) < 0.8 * plans[0].tokens(8)


def test_blocks_are_the_items_that_factors_share():
    survey = load_survey("vsm13")
    blocks = item_blocks(survey)
    assert [sorted(b) for b in blocks] == [np.flatnonzero(row).tolist() for row in survey.weights]
    everything = Factor("ALL", "all", {"m01": 1.0, "m02": 1.0})  # joins IDV and PDI
    joined = item_blocks(replace(survey, factor_models=(*survey.factor_models, everything), published=()))
    assert sorted(map(len, joined)) == [4, 4, 4, 4, 8]
    assert item_blocks(replace(survey, factor_models=(), variants={}, published=())) == (frozenset(range(24)),)


def test_a_factor_without_weight_has_no_block():
    survey = load_survey("vsm13")
    models = (Factor("NIL", "none", {"m01": 0.0}), *survey.factor_models)
    blocks = item_blocks(replace(survey, factor_models=models, variants={}, published=()))
    assert [len(b) for b in blocks] == [4] * 6


def test_todays_date_in_a_template_is_pinned_too():
    template = "{{ strftime_now('%d %B %Y') }} {% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert render(tiny_random.make_tokenizer(template), "Hello?")[0] == "26 July 2024 Hello?"


def test_a_template_that_fails_is_refused_in_words():
    with pytest.raises(ValueError, match="chat template: .* it refused a user turn"):
        render(tiny_random.make_tokenizer("{{ messages[0]['content'] + 1 }}"), "Hello?")
