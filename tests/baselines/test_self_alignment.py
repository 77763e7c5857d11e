"""Worked examples from human answers: which items, which answers; and against CultureSPA's published list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softde.baselines import self_alignment
from softde.condition import Condition
from softde.surveys import HumanAnswers, Item, Survey, load_survey, options
from softde.surveys.examples import Example
from tests.surveys import spa

ITEMS = (
    Item("pets", "Do you like pets?", options(["yes", "a little", "no"])),
    Item("cats", "Do you like cats?", options(["yes", "a little", "no"])),
    Item("rain", "How often does it rain?", options(["never", "often"])),
    Item("snow", "How often does it snow?", options(["never", "often"])),
)
SURVEY = Survey("small", "Small", ITEMS)
SHARES = np.array(
    [
        [[0.2, 0.5, 0.3], [0.6, 0.2, 0.2], [0.1, 0.9, 0.0], [0.8, 0.2, 0.0]],
        [[0.5, 0.2, 0.3], [0.1, 0.1, 0.8], [0.7, 0.3, 0.0], [np.nan] * 3],
    ]
)
HUMAN = HumanAnswers(SURVEY, ("India", "Chile"), SHARES, np.full((2, 4), 100.0))


def shown(condition: Condition) -> dict[str, list[tuple[str, int]]]:
    assert condition.examples is not None
    return {i: [(e.item.id, e.option) for e in examples] for i, examples in condition.examples.by_item.items()}


def test_the_nearest_items_come_first_each_with_the_majority_answer() -> None:
    found = shown(self_alignment("India", SURVEY, HUMAN, k=2))
    assert found["pets"][0] == ("cats", 0) and found["snow"][0] == ("rain", 1)
    majority = {"pets": 1, "cats": 0, "rain": 1, "snow": 0}
    for asked, examples in found.items():
        assert len(examples) == 2 and all(item != asked and majority[item] == option for item, option in examples)


def test_items_that_the_region_has_no_answers_to_are_no_examples() -> None:
    found = shown(self_alignment("Chile", SURVEY, HUMAN, k=2))
    assert set(found) == set(SURVEY.item_ids)  # snow is asked all the same
    assert all(item != "snow" for examples in found.values() for item, _ in examples)
    with pytest.raises(ValueError, match=r"k: expected at most 2 examples for item 'pets', .*answers of Chile, got 3"):
        self_alignment("Chile", SURVEY, HUMAN, k=3)


def test_variants() -> None:
    own = self_alignment("India", SURVEY, HUMAN, k=3)
    other = self_alignment("India", SURVEY, HUMAN, k=2, from_region="Chile")
    assert shown(other) == shown(self_alignment("Chile", SURVEY, HUMAN, k=2)) and "Chile" in other.name
    turned = shown(self_alignment("India", SURVEY, HUMAN, k=3, reverse=True))
    sizes = {item.id: len(item.options) for item in ITEMS}
    assert turned == {i: [(e, sizes[e] - 1 - o) for e, o in examples] for i, examples in shown(own).items()}
    talk = self_alignment("India", SURVEY, HUMAN, k=1, turns=True)
    assert talk.examples is not None and talk.examples.text("pets", "forward") == ""
    assert talk.examples.conversation("pets", "forward", "Go.") == (
        ("Do you like cats?\n1 = yes\n2 = a little\n3 = no\nGo.", "1"),
    )

    def by_length(asked: Sequence[str], others: Sequence[str]) -> Any:
        return [[len(other) for other in others] for _ in asked]

    longest = self_alignment("India", SURVEY, HUMAN, k=1, similarity=by_length)
    assert shown(longest) == {
        "pets": [("rain", 1)],
        "cats": [("rain", 1)],
        "rain": [("snow", 0)],
        "snow": [("rain", 1)],
    }


def test_texts_by_language_and_template() -> None:
    chinese = replace(SURVEY, language="zh")
    one = self_alignment("India", chinese, HUMAN, k=1).examples
    assert one is not None and one.text("pets", "forward").endswith("3 = no\n答案：1\n\n")
    own = self_alignment("India", replace(SURVEY, language="fr"), HUMAN, k=1, template="{question} → {option}").examples
    assert own is not None and own.text("pets", "forward").endswith("3 = no → yes\n\n")
    with pytest.raises(ValueError, match="there are texts in en, ar, zh, not in 'fr'"):
        self_alignment("India", replace(SURVEY, language="fr"), HUMAN, k=1)


def test_examples_from_another_survey_and_in_the_asked_surveys_words() -> None:
    asked = Survey("asked", "Asked", (Item("dogs", "Do you like dogs?", options(["yes", "no"])),))
    assert shown(self_alignment("India", asked, HUMAN, k=1)) == {"dogs": [("pets", 1)]}
    own = replace(ITEMS[1], text="Katzen?", options=options(["ja", "etwas", "nein"]))
    examples = self_alignment("India", Survey("a", "A", (ITEMS[0], own)), HUMAN, k=3).examples
    assert examples is not None and Example(own, 0) in examples.by_item["pets"]
    backwards = tuple(replace(option, value=4 - option.value) for option in own.options)
    for others in (options(["ja", "nein"]), backwards):  # not the same options: the item is shown as humans had it
        other = Survey("b", "B", (ITEMS[0], replace(own, options=others)))
        examples = self_alignment("India", other, HUMAN, k=3).examples
        assert examples is not None and Example(ITEMS[1], 0) in examples.by_item["pets"]


def test_items_without_a_text_or_with_the_asked_one_are_no_examples() -> None:
    bare = tuple(replace(item, text=item.id) for item in ITEMS[:2]) + ITEMS[2:]
    human = HumanAnswers(Survey("file", "File", bare), HUMAN.regions, SHARES, HUMAN.counts)
    asked = Survey("asked", "Asked", (replace(ITEMS[2], id="again"),))
    assert shown(self_alignment("India", asked, human, k=1)) == {"again": [("snow", 0)]}
    with pytest.raises(ValueError, match="at most 1 examples for item 'again'"):
        self_alignment("India", asked, human, k=2)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="no human answers for region 'Atlantis'; known: India, Chile"):
        self_alignment("Atlantis", SURVEY, HUMAN)
    with pytest.raises(ValueError, match="no human answers for region 'Peru'"):
        self_alignment("India", SURVEY, HUMAN, k=1, from_region="Peru")
    with pytest.raises(ValueError, match="at most 3 examples for item 'pets', .*got 5; give a smaller k"):
        self_alignment("India", SURVEY, HUMAN)
    with pytest.raises(ValueError, match="k: expected a whole number of at least 1, got 0"):
        self_alignment("India", SURVEY, HUMAN, k=0)
    with pytest.raises(ValueError, match=r"similarity: expected finite numbers \(asked, other items\) = \(4, 4\), got"):
        self_alignment("India", SURVEY, HUMAN, k=1, similarity=lambda asked, others: np.ones(4))
    with pytest.raises(ValueError, match="with NaN or infinity"):
        self_alignment("India", SURVEY, HUMAN, k=1, similarity=lambda asked, others: np.full((4, 4), np.nan))
    with pytest.raises(ValueError, match="comes without the texts"):
        self_alignment("India", load_survey("pvq40"), HUMAN, k=1)


def test_examples_are_those_that_culture_spa_publishes(shared_data: Path) -> None:
    folder = shared_data / "culturespa"
    theirs = json.loads((folder / "self_alignment_examples.json").read_text(encoding="utf-8"))
    asked = spa.read(folder / "wvs_questions.json")
    some = options(["yes", "no"])  # only the question's text is compared, and some have no options
    survey = Survey("wvs", "WVS", tuple(Item(q["Q_id"], q["question"], some) for q in asked))
    human = spa.human(folder)
    everybody = np.full((1, *human.survey.option_values.shape), 0.0)  # a region that answered all 259 items
    everybody[:, :, 0] = 1.0
    human = HumanAnswers(human.survey, ("all",), everybody, np.ones(everybody.shape[:2]))
    ours = shown(self_alignment("all", survey, human))
    assert len(theirs) == len(ours) == 291
    top1 = np.mean([ours[item][0][0] == theirs[item][0] for item in theirs])
    top5 = np.mean([len({e for e, _ in ours[item]} & set(theirs[item][:5])) / 5 for item in theirs])
    assert top1 == 1.0 and top5 == 1.0


def test_answers_are_the_regions_majority(shared_data: Path) -> None:
    human = spa.human(shared_data / "culturespa")
    gold = spa.read(shared_data / "culturespa" / "proportions_group_by_country.json")["CHN"]
    found = self_alignment("CHN", human.survey, human).examples
    assert found is not None
    for examples in found.by_item.values():
        for example in examples:
            majority = next(iter(gold[example.item.id]))  # the first key has the largest share
            assert example.item.options[example.option].value == float(majority)
    assert len(found.by_item) == 259 and sum(map(bool, gold.values())) == 222  # the others are asked, but never shown
