"""Conditions and responses: against plain forwards of transformers on prompts written out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from softde.administer import administer, item_means
from softde.condition import Condition
from softde.lm import LM
from softde.prompt import SoftPrompt
from softde.readouts import Argmax
from softde.surveys import Survey, load_survey
from tests.reference import slow_lm

SYSTEM = "You are a typical person from somewhere."


@pytest.fixture(scope="module")
def soft(llama: LM) -> torch.Tensor:
    """Three soft tokens with the spread of the model's own."""
    noise = torch.randn(3, llama.hidden_size, generator=torch.Generator().manual_seed(5))
    return noise * llama.embedding_stats[1]


# ---- Condition -----------------------------------------------------------------------------------------------------


def test_a_condition_names_itself(soft: torch.Tensor) -> None:
    prompt = SoftPrompt(soft, "front")
    assert Condition().name == "unprompted" == Condition(system="").name
    assert Condition(system=SYSTEM).name == "system text"
    assert Condition(prompt=prompt).name == "soft prompt"
    assert Condition(prompt=prompt, system=SYSTEM).name == "system text + soft prompt"
    assert Condition(SYSTEM, name="mine").name == "mine"
    assert (Condition(prompt=prompt).placement, Condition().placement) == ("front", "late")


def test_a_condition_is_a_frozen_value(soft: torch.Tensor) -> None:
    one, other = Condition(prompt=SoftPrompt(soft)), Condition(prompt=SoftPrompt(soft.clone()))
    assert one == other and hash(one) == hash(other)
    assert one != Condition(prompt=SoftPrompt(soft, "front"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "another"  # type: ignore[misc]


# ---- administer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orders", ["both", "forward", "reversed"])
@pytest.mark.parametrize(
    ("placement", "system"),
    [(None, None), (None, SYSTEM), ("late", None), ("front", None), ("late", SYSTEM), ("front", SYSTEM)],
)
def test_answers_are_those_of_plain_forwards(
    llama: LM, mini: Survey, soft: torch.Tensor, placement: str | None, system: str | None, orders: str
) -> None:
    condition = Condition(system=system, prompt=SoftPrompt(soft, placement) if placement else None)
    given = {"soft": soft if placement else None, "placement": placement or "late", "system": system}
    expected = slow_lm.answers(llama, mini, orders, **given)
    for plain in (False, True):
        got = administer(mini, llama, condition, orders, plain=plain)
        for row, mass, (probabilities, total) in zip(got.probabilities, got.option_mass, expected, strict=True):
            assert row[: len(probabilities)] == pytest.approx(probabilities, abs=2e-5)
            assert not row[len(probabilities) :].any()
            assert mass == pytest.approx(total, abs=2e-5)
        assert got.item_means == pytest.approx(
            list(slow_lm.item_means(llama, mini, orders, **given).values()), abs=1e-4
        )
        assert got.scores() == pytest.approx(slow_lm.scores(llama, mini, 50.0, orders, **given), abs=4e-3)


def test_the_orders_differ_and_both_is_their_mean(llama: LM, mini: Survey) -> None:
    both, forward, back = (administer(mini, llama, orders=o).probabilities for o in ("both", "forward", "reversed"))
    assert np.abs(forward - back).max() > 0.01
    assert both == pytest.approx((forward + back) / 2, abs=1e-6)


def test_answers_and_surveys_are_shown_in_a_line(llama: LM, mini: Survey) -> None:
    responses = administer(mini, llama, orders="forward")
    mass = f"mean option mass {responses.option_mass.mean():.2f}"
    assert repr(responses) == (
        f"<Responses of 'unprompted' to {mini.id}: {len(mini.items)} items, Expected(), options forward, {mass}>"
    )
    assert repr(load_survey("vsm13")) == (
        "<Survey vsm13: 24 items, factors PDI, IDV, MAS, UAI, LTO, IVR, published scores of 2015, 2023>"
    )


def test_what_comes_back(llama: LM, mini: Survey) -> None:
    got = administer(mini, llama)
    assert got.survey is mini and got.condition == Condition()
    assert got.probabilities.shape == (4, 5) and got.probabilities.dtype == np.float64
    assert got.probabilities.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-6)
    assert got.option_mass.shape == (4,) and ((got.option_mass > 0) & (got.option_mass < 1)).all()
    assert got.forward_tokens > 0
    # Constants are added to the scores and nothing else.
    assert got.scores({"BOS": 10, "CAL": -4}) == pytest.approx(got.scores(0) + np.array([10, -4]))
    assert got.scores() == pytest.approx(got.scores(0) + 50)


def test_read_outs_are_asked_under_the_condition(llama: LM, mini: Survey, soft: torch.Tensor) -> None:
    condition = Condition(system=SYSTEM, prompt=SoftPrompt(soft, "front"))
    got = administer(mini, llama, condition, "reversed", readout=Argmax())
    expected = slow_lm.answers(llama, mini, "reversed", soft=soft, placement="front", system=SYSTEM)
    best = [int(np.argmax(p)) for p, _ in expected]
    assert got.answers is not None and got.answers.tolist() == [best] and got.readout == Argmax()
    values = [item.options[k].value for item, k in zip(mini.items, best, strict=True)]
    assert got.item_means.tolist() == values
    assert got.scores(0) == pytest.approx(mini.weights @ values)
    assert (got.invalid.tolist(), got.refused.tolist(), got.texts) == ([0] * 4, [0] * 4, None)


def test_item_means_by_hand(mini: Survey) -> None:
    # boss: 1·.5 + 5·.5 = 3; time: 2; nerves, reversed values 3, 2, 1: 3·.25 + 2·.25 + 1·.5 = 1.75; proud, 0 and 1: .7
    shares = np.array([[0.5, 0, 0, 0, 0.5], [0, 1, 0, 0, 0], [0.25, 0.25, 0.5, 0, 0], [0.3, 0.7, 0, 0, 0]])
    assert item_means(mini, shares) == pytest.approx([3, 2, 1.75, 0.7])
    assert item_means(mini, np.stack([shares, shares[::-1]])).shape == (2, 4)
    shares[2] = np.nan
    assert np.isnan(item_means(mini, shares)).tolist() == [False, False, True, False]


def test_bad_input_is_refused(llama: LM, mini: Survey) -> None:
    with pytest.raises(ValueError, match="7 numbers wide.*is 32 wide; use the model it was made with"):
        administer(mini, llama, Condition(prompt=SoftPrompt(torch.zeros(2, 7))))
    with pytest.raises(ValueError, match="orders: expected one of forward, reversed, both, got 'sideways'"):
        administer(mini, llama, orders="sideways")
