"""One sentence for the wrong kind of object in the wrong place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from softde.checks import HOW, check_kinds, check_loaded, whole
from softde.condition import Condition
from softde.gradient import GradientSteps
from softde.halving import Halving
from softde.lm import LM
from softde.lm.neutral import SideEffects
from softde.optim import DE, Optimizer
from softde.prompt import SoftPrompt
from softde.space import PromptSpace
from softde.surveys import Survey, Target
from softde.surveys.examples import Examples

KINDS = (
    LM,
    Survey,
    Target,
    PromptSpace,
    Optimizer,
    SoftPrompt,
    Condition,
    Halving,
    GradientSteps,
    SideEffects,
    Examples,
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_how_to_get_one(kind: type) -> None:
    with pytest.raises(ValueError, match=rf"^it: expected {kind.__name__}, got 3; \S"):
        check_kinds({"it": (3, kind)})
    assert set(HOW) == {k.__name__ for k in KINDS}


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ("India", Target, "target: expected Target, got 'India'; survey.target('India') is one"),
        ("gpt2", LM, "target: expected LM, got 'gpt2'; softde.LM.from_pretrained('gpt2') loads one"),
        (None, LM, "target: expected LM, got None; softde.LM.from_pretrained('tiny') loads one"),
        (Path("p"), SoftPrompt | None, "target: expected SoftPrompt, got PosixPath('p'); softde.SoftPrompt.load("),
        (DE, Optimizer | str, "target: expected Optimizer, got type; softde.DE() is one"),
        (SoftPrompt(torch.zeros(1, 1)), Condition, "target: expected Condition, got SoftPrompt; "),
    ],
)
def test_the_sentence_repeats_what_was_typed(value: Any, kind: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_kinds({"fine": (Condition(), Condition), "target": (value, kind)})
    assert str(caught.value).startswith(said)


def test_the_right_kinds_pass() -> None:
    check_kinds({"a": (Condition(), Condition), "b": (None, SoftPrompt | None), "c": (DE(), Optimizer | None)})
    check_loaded(object())


def test_a_name_is_no_loaded_model() -> None:
    for name in ("tiny", Path("tiny")):
        with pytest.raises(ValueError, match=r"takes a loaded model .* softde.LM.from_pretrained\('tiny'\) loads both"):
            check_loaded(name)


def test_whole_numbers_are_not_cut() -> None:
    for value in (7, np.int64(7), torch.tensor(7)):
        assert whole(value, "n") == 7 and type(whole(value, "n")) is int
    for value in (7.0, 7.9, "7", None, True, np.float64(7)):
        with pytest.raises(ValueError, match="n: expected a whole number, got "):
            whole(value, "n")
