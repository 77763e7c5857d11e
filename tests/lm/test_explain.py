"""What is said of a plan is what the engine does, and what a count by hand gives."""

from __future__ import annotations

import pytest

from softde.lm import PLACEMENTS
from softde.lm.explain import Explanation, Shape, shape_of
from softde.surveys import load_survey


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_tokens_are_the_engines(lm, survey, prompts, placement):
    plan = lm.plan(survey, placement=placement)
    explained = Explanation(plan, 6, 3)
    assert explained.needed == lm.option_logprobs(plan, prompts).ledger
    assert explained.unshared == lm.option_logprobs(plan, prompts, plain=True).ledger
    assert explained.padded == 6 * len(plan.questions) * (plan.longest + 3)
    parts = list(explained.parts())
    assert sum(tokens for _, tokens, often in parts if often == "per candidate") * 6 == explained.needed
    assert [tokens for _, tokens, often in parts if often == "once a run"] == [plan.prefix_tokens]


def test_the_law_of_the_notes():
    """64 candidates, 24 questions, h=6, c=54, q=52, t=6, p=10: the shapes and totals of the token-count law."""
    from softde.lm.layout import Plan, Question

    header, common, cue = tuple(range(6)), tuple(range(100, 154)), tuple(range(200, 206))
    texts = [tuple(range(1000 + 100 * i, 1052 + 100 * i)) for i in range(24)]

    def plan(cut: int) -> Plan:
        rows = [(*header, *common, *text, *cue) for text in texts]
        questions = tuple(Question(i, "forward", r[:cut], r[cut:], (1, 2)) for i, r in enumerate(rows))
        return Plan("", questions, 24, 2, None, (tuple(range(24)),), "")

    front, behind_common, late = (Explanation(plan(cut), 64, 10) for cut in (0, 60, 112))
    assert front.unshared == 64 * 24 * 128 == 196_608
    assert front.needed == 64 * (6 + 10 + 54 + 24 * (52 + 6)) == 93_568
    assert behind_common.needed == 64 * (10 + 24 * (52 + 6)) == 89_728
    assert late.needed == 64 * 24 * 16 == 24_576


def test_work_is_two_operations_per_parameter_and_token(lm):
    shape = shape_of(lm.model)
    block = sum(p.numel() for p in lm.model.model.layers.parameters())
    norm = lm.model.model.norm.weight.numel()
    assert shape.layer_parameters == block + norm and shape.head_parameters == lm.model.lm_head.weight.numel()
    assert Shape(10, 5, 2, 4).flops(3, 7, 1) == 2 * 10 * 3 + 2 * 5 + 4 * 2 * 4 * 7 * 3


def test_of_experts_only_the_chosen_count(load):
    lm = load("mixtral")
    config = lm.model.config
    named = dict(lm.model.named_parameters())
    experts = sum(p.numel() for n, p in named.items() if ".experts." in n)
    others = sum(
        p.numel() for n, p in named.items() if ".experts." not in n and "embed" not in n and "lm_head" not in n
    )
    share = config.num_experts_per_tok / config.num_local_experts
    assert experts > 0 and shape_of(lm.model).layer_parameters == int(others + experts * share)


def test_printed(lm):
    text = str(lm.explain(lm.plan(load_survey("vsm13"), orders="forward"), 24, 8))
    assert "24 candidates × 24 questions (24 items), 8 soft tokens" in text
    assert "tokens per generation" in text and "asked in 6 blocks" in text and "TFLOP" in text
