"""A condition is what its arguments say, and never silently the unprompted model."""

from __future__ import annotations

import pytest
import torch

from softde.condition import Condition, as_condition, unique_names
from softde.prompt import SoftPrompt

TEXT = "You are a typical person from France."


@pytest.fixture(scope="module")
def prompt() -> SoftPrompt:
    return SoftPrompt(torch.zeros(2, 4))


def test_the_most_natural_first_call_is_a_system_text() -> None:
    assert Condition(TEXT) == Condition(system=TEXT)
    assert (Condition(TEXT).system, Condition(TEXT).name) == (TEXT, "system text")
    with pytest.raises(TypeError):
        Condition("a name", "another text")  # type: ignore[misc]


def test_nothing_passes_as_the_unprompted_model_under_another_name(prompt: SoftPrompt) -> None:
    assert Condition(name="unprompted") == Condition() == Condition(name="", system="")
    for nothing in ({}, {"system": ""}):
        with pytest.raises(ValueError, match="condition 'persona' holds nothing to put the model under"):
            Condition(name="persona", **nothing)
    for blank in (" ", "\n\t"):
        with pytest.raises(ValueError, match="system: expected a text that is not blank, got"):
            Condition(system=blank, prompt=prompt)


def test_other_kinds_of_value(prompt: SoftPrompt) -> None:
    with pytest.raises(ValueError, match="system: expected a text, got SoftPrompt; give it as prompt="):
        Condition(prompt)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="system: expected a text, got 3$"):
        Condition(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"prompt: expected SoftPrompt, got 'p.s'; softde.SoftPrompt.load\('p.s'\)"):
        Condition(prompt="p.s")  # type: ignore[arg-type]


def test_what_stands_for_a_condition(prompt: SoftPrompt) -> None:
    class Outcome:
        condition = Condition(TEXT)

    assert as_condition(None) == Condition()
    assert as_condition(prompt) == Condition(prompt=prompt)
    assert as_condition(Outcome()) is Outcome.condition is as_condition(Outcome.condition)
    with pytest.raises(
        ValueError, match=r"condition: expected Condition, got 'Be kind.'; .*Condition\(system='Be kind.'\)"
    ):
        as_condition("Be kind.")
    with pytest.raises(ValueError, match="conditions: expected Condition, got object"):
        as_condition(object(), "conditions")


def test_names_that_repeat_are_counted() -> None:
    twice = [Condition("x", name=name) for name in ("a", "a (2)", "a", "a")]
    assert unique_names(twice) == ["a", "a (2)", "a (3)", "a (4)"]
