"""Texts by language, names of regions in a sentence, the persona, and two conditions as one."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
import torch

from softde import SoftPrompt
from softde.baselines import combined, languages, persona, spoken, wording
from softde.baselines.wording import adjective, fill, listing
from softde.condition import Condition, Panel
from softde.surveys import Item, known_regions, load_survey, options
from softde.surveys.examples import Example, Examples

PLACES = {
    "persona": {"region"},
    "cross_culture": {"region", "similar", "different"},
    "sequential": {"region"},
    "example": {"question", "label"},
    "description": {"region", "values"},
    "value_persona": {"region", "values"},
    "line": {"name", "level"},
    "pole_line": {"name", "level", "pole"},
    "between": {"low", "high"},
}


@pytest.mark.parametrize("language", ["en", "ar", "zh"])
def test_every_text_has_its_places(language: str) -> None:
    texts = wording(language)
    for name, places in PLACES.items():
        assert set(re.findall(r"{(\w+)}", getattr(texts, name))) == places, name
    assert set(re.findall(r"{(\w+)}", texts.background)) == ({"adjective"} if language == "en" else {"region"})
    assert len(set(texts.levels)) == 5 and all(getattr(texts, field.name) for field in fields(texts))
    named = {factor.name for survey in ("vsm13", "vsm94", "iw") for factor in load_survey(survey).factor_models}
    assert set(texts.factors) == named
    ends = [end for pole in texts.factors.values() for end in (pole.name, pole.low, pole.high)]
    assert all(ends) and len(set(ends)) == len(ends)


def test_scripts_are_those_of_the_languages() -> None:
    letters = {"ar": "\u0600-\u06ff", "zh": "\u4e00-\u9fff"}
    assert set(languages()) == {"en", *letters}
    for language, script in letters.items():
        texts = wording(language)
        said = [*(getattr(texts, name) for name in PLACES if "line" not in name and name != "between"), *texts.levels]
        said += [text for pole in texts.factors.values() for text in (pole.name, pole.low, pole.high)]
        for text in said:
            bare = re.sub(r"{\w+}", "", text)
            assert re.search(f"[{script}]", bare) and not re.search("[A-Za-z]", bare), text
        for region in known_regions():
            assert re.fullmatch(f"[{script} ]+", spoken(region.name, language)), region.name


def test_regions_in_a_sentence() -> None:
    assert spoken("USA") == spoken("United States") == spoken("the United States") == "the United States"
    assert spoken("India") == "India" and spoken("IND", "ar") == "الهند" and spoken("IND", "zh-CN") == "印度"
    assert spoken("Narnia") == "Narnia" and spoken("USA", "fr") == "USA"
    assert {adjective(region.name) for region in known_regions()} >= {"Saudi", "Dutch", "American"}
    assert (
        listing(["a"]) == "a"
        and listing(["a", "b", "c"]) == "a, b and c"
        and listing(["a", "b", "c"], "fr") == "a, b, c"
    )


def test_persona() -> None:
    assert persona("the Netherlands").system == "You are a typical person from the Netherlands."
    assert persona("USA").system == "You are a typical person from USA."  # in English as it is given
    assert persona("China", language="zh").system == "你是一个来自中国的普通人。"
    assert persona("Atlantis", language="zh").system == "你是一个来自Atlantis的普通人。"
    adjectival = persona("Saudi Arabia", wording("en").background)
    assert adjectival.system == "You are a real person who grew up with Saudi culture." and adjectival.name == "persona"
    assert persona("NLD", "A {adjective} person in {region}").system == "A Dutch person in NLD"
    with pytest.raises(ValueError, match="region 'Narnia': no adjective is known"):
        persona("Narnia", wording("en").background)
    with pytest.raises(ValueError, match="language: there are texts in en, ar, zh, not in 'fr'; give template="):
        persona("France", language="fr")
    assert persona("France", "Tu viens de {region}.", "fr").system == "Tu viens de France."
    for nobody in ("", " ", None):
        with pytest.raises(ValueError, match="region: expected a text that is not empty, got"):
            persona(nobody)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="region: expected a text that is not empty, got"):
            spoken(nobody)  # type: ignore[arg-type]


def test_places_are_filled_at_once() -> None:
    assert fill("{a} {b} {c}", ("a",), {"a": "{b}", "b": "2"}) == "{b} 2 {c}"
    with pytest.raises(ValueError, match=r"template: expected a text with {a} and {d} in it, got '{b}'; add the place"):
        fill("{b}", ("a", "d"), {})


def demonstrations() -> Condition:
    item = Item("tea", "Tea?", options(["yes", "no"]))
    return Condition(name="self-alignment", examples=Examples({"pets": (Example(item, 0),)}))


def test_two_conditions_as_one() -> None:
    person, shown = persona("India"), demonstrations()
    both = combined(person, shown)
    assert both.system == person.system and both.examples == shown.examples and both.name == "persona + self-alignment"
    prompt = SoftPrompt(torch.ones(2, 4), "late")
    three = combined(both, Condition("Be brief.", prompt=prompt), name="all")
    assert three.system == f"{person.system}\n\nBe brief." and three.prompt == prompt and three.name == "all"
    assert three.examples == shown.examples
    panel = Panel((Condition("A"), Condition("B")), "people")
    many = combined(panel, shown)
    assert isinstance(many, Panel) and many.name == "people + self-alignment"
    assert [(m.system, m.examples) for m in many.members] == [("A", shown.examples), ("B", shown.examples)]
    with pytest.raises(ValueError, match="examples: conditions 'self-alignment' and 'self-alignment' both have one"):
        combined(shown, demonstrations())
    with pytest.raises(ValueError, match="two panels, 'people' and 'people', have no common members"):
        combined(panel, panel)
    with pytest.raises(ValueError, match="b: expected a Condition or a Panel, got 'India'"):
        combined(person, "India")  # type: ignore[call-overload]
