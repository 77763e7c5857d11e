"""A questionnaire as one conversation, against one that is held item by item and seed by seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from softde.administer import administer
from softde.baselines import sequential
from softde.condition import Condition
from softde.lm import LM
from softde.surveys import Item, Survey, options
from softde.surveys.examples import Example, Examples

SURVEY = Survey(
    "likes",
    "Likes",
    (
        Item("pets", "Do you like pets?", options(["yes", "a little", "no"])),
        Item("tea", "Do you like tea?", options(["yes", "no"])),
        Item("rain", "Do you like rain?", options(["yes", "no", "it depends", "never"])),
        Item("snow", "Do you like snow?", options(["yes", "no"])),
    ),
    instruction="Answer with the number only.",
)


def slow(lm: LM, system: str | None, seed: int, temperature: float = 1.0, window: int = 99) -> list[int]:
    """The answers to all items but the last, each asked alone after those before it."""
    said: list[Example] = []
    for at, item in enumerate(SURVEY.items[:-1]):
        examples = Examples({item.id: tuple(said[-window:])}, turns=True)
        one = replace(SURVEY, items=(item,))
        shares = administer(one, lm, Condition(system, examples=examples), orders="forward").probabilities[0]
        shares = shares[: len(item.options)] ** (1 / temperature)
        point, option = np.random.default_rng([seed, at]).random() * shares.sum(), 0
        while point >= shares[option]:
            point, option = point - shares[option], option + 1
        said.append(Example(item, option))
    return [example.option for example in said]


def answers(condition: Condition) -> list[int]:
    assert condition.examples is not None and condition.examples.turns
    return [example.option for example in condition.examples.by_item["snow"]]


@pytest.mark.parametrize(("region", "temperature"), [("India", 1.0), (None, 3.0)])
def test_each_seed_holds_its_own_conversation(llama: LM, region: str | None, temperature: float) -> None:
    panel = sequential(region, SURVEY, llama, seeds=range(1, 9), temperature=temperature)
    system = "Answer every question as somebody from India would." if region else None
    assert [member.system for member in panel.members] == [system] * 8
    found = [answers(member) for member in panel.members]
    assert found == [slow(llama, system, seed, temperature) for seed in range(1, 9)]
    assert len({tuple(row) for row in found}) > 2
    first = panel.members[0].examples
    assert first is not None and [len(first.by_item[i]) for i in SURVEY.item_ids] == [0, 1, 2, 3]
    assert [e.item.id for e in first.by_item["snow"]] == ["pets", "tea", "rain"]


def test_the_panel_answers(llama: LM) -> None:
    panel = sequential("India", SURVEY, llama)
    assert [member.name for member in panel.members] == [f"sequential, seed {seed}" for seed in (1, 2, 3, 4, 5)]
    responses = administer(SURVEY, llama, panel)
    each = [administer(SURVEY, llama, member).probabilities for member in panel.members]
    np.testing.assert_allclose(responses.probabilities, np.mean(each, axis=0), atol=1e-6)
    alone = administer(SURVEY, llama, Condition(panel.members[0].system)).probabilities
    np.testing.assert_allclose(responses.probabilities[0], alone[0], atol=1e-5)  # nothing stands before the first
    assert np.abs(responses.probabilities - alone)[1:].max(-1).min() > 1e-4


def test_cold_answers_are_the_most_probable_ones_whatever_the_seed(llama: LM) -> None:
    panel = sequential("India", SURVEY, llama, seeds=(1, 2), temperature=1e-4)
    assert answers(panel.members[0]) == answers(panel.members[1])


def test_a_window_keeps_the_last_items(llama: LM) -> None:
    (member,) = sequential("India", SURVEY, llama, seeds=[7], window=1).members
    assert member.examples is not None
    assert [[e.item.id for e in member.examples.by_item[i]] for i in SURVEY.item_ids] == [
        [],
        ["pets"],
        ["tea"],
        ["rain"],
    ]
    first = [member.examples.by_item[i][0].option for i in ("tea", "rain", "snow")]
    assert first == slow(llama, member.system, 7, window=1)


def test_what_is_refused(llama: LM) -> None:
    with pytest.raises(ValueError, match="seeds: expected each once"):
        sequential("India", SURVEY, llama, seeds=(1, 1))
    with pytest.raises(ValueError, match="seeds: expected a list of one whole number or more, got 5"):
        sequential("India", SURVEY, llama, seeds=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="temperature above 0"):
        sequential("India", SURVEY, llama, temperature=0.0)
    with pytest.raises(ValueError, match="window: expected a whole number of at least 1, got 0"):
        sequential("India", SURVEY, llama, window=0)
    with pytest.raises(ValueError, match="lm: expected LM, got 'tiny'"):
        sequential("India", SURVEY, "tiny")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not in 'fr'"):
        sequential("India", replace(SURVEY, language="fr"), llama)
    long = replace(SURVEY.items[2], text="Do you like rain? " * 40)
    many = replace(SURVEY, items=tuple(replace(long, id=f"i{n}") for n in range(8)))
    with pytest.raises(ValueError, match=r"'likes' as a conversation: item .* tokens .*window= keeps fewer"):
        sequential("India", many, llama)
