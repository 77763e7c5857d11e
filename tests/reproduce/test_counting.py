"""Tokens counted on a sample of a large survey against those of all its items."""

from __future__ import annotations

from dataclasses import replace

import pytest

from softde import LM, Condition
from softde.baselines.culture_spa import Question
from softde.reproduce.counting import asking_tokens, estimated, question_tokens, spread
from softde.surveys import Item, Survey, options
from tests.reproduce.test_culturespa2024 import RECORDED


def recorded() -> tuple[Question, ...]:
    from softde.baselines.culture_spa import load_questions

    return load_questions(RECORDED).kept


def test_a_sample_stands_for_all(llama: LM) -> None:
    from softde.baselines.culture_spa import as_survey

    asked = recorded()
    survey, told = as_survey(asked), Condition("You are a person from somewhere.")
    for condition in (Condition(), told):
        every = sum(q.length for q in llama.plan(survey, condition.system).questions)
        assert asking_tokens(llama, survey, condition, "both") == pytest.approx(every, rel=0.01)
    alone, with_text = question_tokens(llama, asked, [None, told.system], "forward")
    assert 2 * alone == pytest.approx(asking_tokens(llama, survey, Condition(), "both"))
    assert 2 * with_text == pytest.approx(asking_tokens(llama, survey, told, "both"))


def test_a_few_are_counted_exactly_and_items_that_cannot_be_asked_are_not(llama: LM, mini: Survey) -> None:
    every = sum(q.length for q in llama.plan(mini, orders="forward").questions)
    assert asking_tokens(llama, mini, Condition(), "forward") == every
    eleven = Question("scale", "How good is tea?", tuple(str(number) for number in range(11)))
    four = recorded()[:4]
    (tokens,) = question_tokens(llama, four, [None], "forward")
    assert question_tokens(llama, (*four, eleven), [None], "forward") == [tokens]
    assert question_tokens(llama, (eleven,), [None], "forward") == [0.0]
    odd = replace(mini, items=(*mini.items, Item("odd", "How good is tea?", options(eleven.options))))
    assert asking_tokens(llama, odd, Condition(), "forward") == every


def test_an_estimate_is_a_line_and_of_everything_the_sum() -> None:
    assert estimated([3, 5, 10], [1, 2, 3], [1, 2, 3], 3) == pytest.approx(18)
    assert estimated([3, 5, 7], [1, 2, 3], [1, 2, 3, 10, 20], 3) == pytest.approx(
        sum(1 + 2 * n for n in (1, 2, 3, 10, 20))
    )
    assert estimated([3, 5], [2, 2], [2, 2, 9], 2) == pytest.approx(12)  # no line through one length
    assert estimated([3, 5], [2, 2], [2, 2, 2, 2, 2, 2], 3) == pytest.approx(16)  # one of three cannot be asked


def test_spread() -> None:
    assert spread([1, 2, 3], 3) == [1, 2, 3]
    assert spread(list(range(10)), 2) == [2, 7]
    assert spread([5, 1, 4, 2, 3, 6], 3, lambda n: n) == [2, 4, 6]
