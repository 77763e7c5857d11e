"""Simulated respondents against one respondent at a time, on prompts written out by hand, with the same draws."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from softde.administer import Responses, administer, item_means
from softde.condition import Condition
from softde.design import Design
from softde.lm import LM
from softde.objective import AlignmentLoss
from softde.prompt import SoftPrompt
from softde.readouts import Argmax, Expected, Sampled, SequenceLogprob, uniforms
from softde.space import PromptSpace
from softde.surveys import Survey, Target, load_survey
from tests.reference import slow_design, slow_lm

SYSTEM = "You are a typical person from somewhere."
UNEVEN: dict[str, Any] = {
    "attributes": {"gender": {"a woman": 0.75, "a man": 0.25}, "school": {"little": 0.5, "much": 0.5}},
    "template": "You are {gender} with {school} schooling.",
}
VALUES = ((1, 2, 3, 4, 5), (1, 2, 3, 4, 5), (3, 2, 1), (0, 1))  # of the small survey's options


@pytest.fixture(scope="module")
def worded(mini: Survey) -> Survey:
    """The small survey with three, two, one and one wordings."""
    first, second, *others = mini.items
    first = dataclasses.replace(first, phrasings=("How much do you need a good boss?", "A boss to look up to: is it?"))
    second = dataclasses.replace(second, phrasings=("What is your own time worth to you?",))
    return dataclasses.replace(mini, items=(first, second, *others))


@pytest.fixture(scope="module")
def soft(llama: LM) -> torch.Tensor:
    """Three candidates of three soft tokens with the spread of the model's own."""
    noise = torch.randn(3, 3, llama.hidden_size, generator=torch.Generator().manual_seed(5))
    return noise * llama.embedding_stats[1]


@pytest.fixture(scope="module")
def sampled(llama: LM, worded: Survey) -> Responses:
    """Forty respondents with personas, unprompted."""
    return administer(worded, llama, design=Design(40, seed=3, **UNEVEN))


def few(respondents: int, **fields: Any) -> Design:
    """Fewer than twenty, without the warning."""
    with pytest.warns(UserWarning, match="fewer than 20"):
        return Design(respondents, **fields)


# ---- one at a time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("placement", "system", "orders"),
    [(None, None, "both"), ("late", SYSTEM, "both"), ("front", None, "both"), ("front", SYSTEM, "reversed")],
)
def test_respondents_answer_as_each_does_alone(
    llama: LM, worded: Survey, soft: torch.Tensor, placement: str | None, system: str | None, orders: str
) -> None:
    condition = Condition(system=system, prompt=SoftPrompt(soft[0], placement) if placement else None)
    design = few(9, seed=2, **UNEVEN)
    expected = dataclasses.replace(Design(20, 2, "expected", **UNEVEN), respondents=20)
    got = administer(worded, llama, condition, orders, design=design)
    means = administer(worded, llama, condition, orders, design=expected)
    assert got.answers is not None and got.answers.shape == (9, 4) and means.values is not None
    sheets = design.sheets(worded, ("forward", "reversed") if orders == "both" else (orders,))
    draws, masses, shares = design.draws(worded), np.zeros((9, 4)), np.zeros((9, 4, 5))
    for r, (persona, sheet) in enumerate(zip(design.personas, sheets, strict=True)):
        alone = slow_design.distributions(
            llama, worded, persona, sheet, system, soft[0] if placement else None, placement or "late"
        )
        for i, (probabilities, mass) in enumerate(alone):
            assert got.answers[r, i] == slow_design.sampled(probabilities, draws[r, i])
            mean = sum(p * v for p, v in zip(probabilities, VALUES[i], strict=True))
            assert means.values[r, i] == pytest.approx(mean, abs=1e-4)  # the first nine of twenty
            masses[r, i] = mass
            shares[r, i, : len(probabilities)] = probabilities
    assert got.option_mass == pytest.approx(masses.mean(axis=0), abs=2e-5)
    if not placement:
        nine = administer(worded, llama, condition, orders, design=few(9, seed=2, answers="expected", **UNEVEN))
        assert nine.probabilities == pytest.approx(shares.mean(axis=0), abs=2e-5)


def test_the_plain_path_gives_the_same(llama: LM, worded: Survey, soft: torch.Tensor) -> None:
    condition, design = Condition(prompt=SoftPrompt(soft[0], "front")), few(5, **UNEVEN)
    fast, plain = (administer(worded, llama, condition, plain=p, design=design) for p in (False, True))
    assert (fast.answers == plain.answers).all() and plain.option_mass == pytest.approx(fast.option_mass, abs=2e-5)
    assert plain.forward_tokens > fast.forward_tokens


# ---- what comes back -------------------------------------------------------------------------------------------------


def test_statistics_of_the_table(sampled: Responses) -> None:
    answers = sampled.answers
    assert answers is not None and answers.shape == (40, 4)
    table = [[VALUES[i][k] for i, k in enumerate(row)] for row in answers.tolist()]
    values = np.array(table, dtype=float)
    assert (sampled.values == values).all() and (sampled.respondents.values == values).all()
    assert sampled.item_means == pytest.approx(values.mean(axis=0))
    assert sampled.spread == pytest.approx(values.std(axis=0, ddof=1))
    assert sampled.item_errors == pytest.approx(values.std(axis=0, ddof=1) / np.sqrt(40))
    assert sampled.item_covariances == pytest.approx(np.cov(values.T))
    each = 50 + values @ np.array([[35, -25, 20, 0], [0, 0, -15, 40]]).T
    assert sampled.scores() == pytest.approx(each.mean(axis=0))
    assert sampled.scores(0) == pytest.approx(each.mean(axis=0) - 50)
    assert sampled.standard_errors() == pytest.approx(each.std(axis=0, ddof=1) / np.sqrt(40))
    shares = [[(answers[:, i] == k).mean() for k in range(5)] for i in range(4)]
    assert sampled.probabilities == pytest.approx(np.array(shares))
    assert sampled.readout == Design(40, seed=3, **UNEVEN)
    people = sampled.respondents
    assert people.regions.tolist() == ["unprompted"] * 40 and people.weights.tolist() == [1] * 40
    assert people.shares().shares[0] == pytest.approx(sampled.probabilities)


def test_expected_answers_have_no_noise_of_sampling(llama: LM, worded: Survey, sampled: Responses) -> None:
    got = administer(worded, llama, design=Design(40, 3, "expected", **UNEVEN))
    assert got.answers is None and got.values is not None and got.values.shape == (40, 4)
    assert got.item_means == pytest.approx(got.values.mean(axis=0))
    assert got.scores() == pytest.approx(worded.score(got.item_means, 50), abs=1e-6)
    assert (got.spread < sampled.spread).all() and (got.standard_errors() < sampled.standard_errors()).all()
    assert (np.abs(got.item_means - sampled.item_means) < 5 * sampled.item_errors).all()
    assert got.forward_tokens == sampled.forward_tokens
    with pytest.raises(ValueError, match="answers are expected values, which are no options; `values` has them"):
        _ = got.respondents


def test_means_of_many_respondents_are_expected_values(llama: LM, worded: Survey) -> None:
    # Without personas, and with orders and wordings dealt out evenly, 2,400 answers have the cheap default's mean.
    got = administer(worded, llama, design=Design(2400, 1, attributes={}))
    cheap = administer(worded, llama)
    assert (np.abs(got.item_means - cheap.item_means) < 4.5 * got.item_errors).all()
    assert got.spread == pytest.approx(cheap.spread, rel=0.1)
    assert got.forward_tokens == cheap.forward_tokens  # every question once
    exact = administer(worded, llama, design=Design(24, 1, "expected", attributes={}))
    assert exact.item_means == pytest.approx(cheap.item_means, abs=1e-5)


def test_the_same_question_is_asked_once(llama: LM, worded: Survey) -> None:
    one = Design(20, **UNEVEN)
    sheets, personas = one.sheets(worded), one.personas
    asked = {(personas[r], question) for r in range(20) for question in sheets[r]}
    expected = 0
    for persona, (item, order, wording) in asked:
        plan = llama.plan(worded, persona, "late", asked=[(item, order, wording)])
        expected += plan.longest
    tokens = administer(worded, llama, design=one).forward_tokens
    assert len(asked) < 20 * 4 and expected <= tokens <= 1.03 * expected  # padding


def test_without_respondents_statistics_that_need_them_say_so(llama: LM, mini: Survey) -> None:
    got = administer(mini, llama)
    for name in ("item_errors", "item_covariances", "respondents", "standard_errors"):
        with pytest.raises(ValueError, match=f"{name}: these answers are expected values of nobody in particular"):
            value = getattr(got, name)
            value()
    by_hand = []
    for row, values in zip(got.probabilities, VALUES, strict=True):
        mean = sum(p * v for p, v in zip(row, values, strict=False))
        by_hand.append(sum(p * (v - mean) ** 2 for p, v in zip(row, values, strict=False)) ** 0.5)
    assert got.spread == pytest.approx(by_hand)


def test_missing_answers(mini: Survey) -> None:
    answers = np.array([[0, 1, -1, 0], [2, 1, 2, -1], [4, 2, 0, -1]])
    values = np.array([[1, 2, np.nan, 0], [3, 2, 1, np.nan], [5, 3, 3, np.nan]])
    got = Responses(mini, Condition(), np.zeros((4, 5)), np.ones(4), 0, Argmax(), np.zeros(4), np.zeros(4), answers,
                    None, values)  # fmt: skip
    assert got.spread[:3] == pytest.approx([2, 3**-0.5, 2**0.5]) and np.isnan(got.spread[3])
    assert got.item_errors[:3] == pytest.approx([2 / 3**0.5, 1 / 3, 1]) and np.isnan(got.item_errors[3])
    assert got.item_covariances[0, 1] == pytest.approx(1) and np.isnan(got.item_covariances[2:]).all()
    alone = dataclasses.replace(got, answers=answers[:1], values=values[:1])
    assert np.isnan(alone.spread).all() and np.isnan(alone.item_covariances).all()


@pytest.mark.parametrize("name", ["answers.csv", "answers.parquet"])
def test_answers_are_written_as_humans_are_read(sampled: Responses, tmp_path: Path, name: str) -> None:
    pytest.importorskip("pyarrow")
    from softde.surveys.human import load_human

    sampled.save(tmp_path / name)
    people = load_human(tmp_path / name, sampled.survey).respondents
    assert people is not None and sampled.answers is not None
    assert (people.answers == sampled.answers).all() and people.regions.tolist() == ["unprompted"] * 40


def test_the_written_table(sampled: Responses, worded: Survey, tmp_path: Path) -> None:
    sampled.save(tmp_path / "answers.csv")
    header, *rows = (tmp_path / "answers.csv").read_text().splitlines()
    design, answers = Design(40, seed=3, **UNEVEN), sampled.answers
    assert answers is not None
    assert header == "respondent,region,item,answer,persona,order,wording" and len(rows) == 160
    _, order, wording = design.sheets(worded)[0][2]
    value = VALUES[2][answers[0, 2]]
    assert rows[2] == f"01,unprompted,nerves,{value},{design.personas[0]},{order},{wording}"


# ---- the same random numbers -----------------------------------------------------------------------------------------


def test_every_condition_has_the_same_respondents_and_draws(llama: LM, mini: Survey, soft: torch.Tensor) -> None:
    design = Design(30, 4, **UNEVEN)
    conditions = [Condition(), Condition(prompt=SoftPrompt(soft[0] * 1e-4, "late"))]
    one, other = (administer(mini, llama, c, design=design) for c in conditions)
    assert one.answers is not None and other.answers is not None
    # Nearly the same model answers nearly always the same: with other draws about two thirds would differ.
    same = Design(30, 5, **UNEVEN)
    redrawn = administer(mini, llama, design=same).answers
    assert redrawn is not None
    assert (one.answers == other.answers).mean() > (one.answers == redrawn).mean() + 0.2


def test_more_respondents_leave_the_earlier_answers(llama: LM, worded: Survey) -> None:
    fewer, more = (administer(worded, llama, design=Design(n, 1, **UNEVEN)).answers for n in (20, 37))
    assert fewer is not None and more is not None and (more[:20] == fewer).all()


def test_the_same_design_gives_the_same_answers(llama: LM, worded: Survey, sampled: Responses) -> None:
    again = administer(worded, llama, design=Design(40, seed=3, **UNEVEN))
    other = administer(worded, llama, design=Design(40, seed=4, **UNEVEN))
    assert (again.answers == sampled.answers).all() and (other.answers != sampled.answers).any()


# ---- wordings without respondents ------------------------------------------------------------------------------------


def test_wordings_and_orders_are_averaged(llama: LM, worded: Survey, soft: torch.Tensor) -> None:
    for condition, given in (
        (Condition(), {}),
        (Condition(prompt=SoftPrompt(soft[1], "front")), {"soft": soft[1], "placement": "front"}),
    ):
        got = administer(worded, llama, condition)
        for i, item in enumerate(worded.items):
            wordings = [dataclasses.replace(item, text=text, phrasings=()) for text in (item.text, *item.phrasings)]
            asked = [slow_lm.ask(llama.model, llama.tokenizer, w, worded.instruction, reverse=r, **given)
                     for w in wordings for r in (False, True)]  # fmt: skip
            mean = np.mean([p for p, _ in asked], axis=0)
            assert got.probabilities[i, : len(mean)] == pytest.approx(mean, abs=2e-5)
            assert got.option_mass[i] == pytest.approx(np.mean([m for _, m in asked]), abs=2e-5)


def test_a_loss_averages_wordings_too(llama: LM, worded: Survey) -> None:
    target = worded.target("Ireland")
    space = PromptSpace.random(llama, num_virtual_tokens=3)
    x = torch.randn(2, space.dim, generator=torch.Generator().manual_seed(1)) * 0.1
    found = AlignmentLoss(llama, worded, target, space)(x)
    for prompt, scores in zip(space.decode(x), found.scores, strict=True):
        alone = administer(worded, llama, Condition(prompt=SoftPrompt(prompt, space.placement)))
        assert scores == pytest.approx(alone.scores(target.constants), abs=1e-3)


def test_single_answers_of_items_with_unequal_wordings(llama: LM, worded: Survey) -> None:
    # Three, two, one and one wordings in two orders: shares are over 6, 4, 2 and 2 questions, each counted equally.
    got = administer(worded, llama, readout=Argmax())
    assert got.answers is not None and got.answers.shape == (12, 4)
    for i, item in enumerate(worded.items):
        wordings = [dataclasses.replace(item, text=text, phrasings=()) for text in (item.text, *item.phrasings)]
        best = [int(np.argmax(slow_lm.ask(llama.model, llama.tokenizer, w, worded.instruction, reverse=r)[0]))
                for w in wordings for r in (False, True)]  # fmt: skip
        expected = np.bincount(best, minlength=5) / len(best)
        assert got.probabilities[i] == pytest.approx(expected)
    for readout in (Sampled(4), SequenceLogprob()):
        shares = administer(worded, llama, readout=readout).probabilities
        assert shares.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-6)


def test_wordings_have_draws_of_their_own(llama: LM, mini: Survey, worded: Survey) -> None:
    plain, several = (llama.plan(survey) for survey in (mini, worded))
    numbers = dict(
        zip(((q.item, q.order, q.phrasing) for q in several.questions), uniforms(1, several, 3, 2), strict=True)
    )
    for q, row in zip(plain.questions, uniforms(1, plain, 3, 2), strict=True):
        assert (numbers[q.item, q.order, 0] == row).all()  # as without other wordings
    assert len({tuple(row.ravel()) for row in numbers.values()}) == len(several.questions) == 14


def test_wordings_in_a_survey(worded: Survey, mini: Survey, tmp_path: Path) -> None:
    (tmp_path / "worded.toml").write_text(worded.to_toml())
    assert load_survey(tmp_path / "worded.toml") == worded
    assert worded.digest != mini.digest
    assert load_survey("vsm13").digest == "10fc858cb57342ac8756f69510248be1aad875ab619bc489ba2cc812c95e6df6"
    with pytest.raises(ValueError, match="duplicate wording in item 'boss'"):
        dataclasses.replace(worded.items[0], phrasings=("How?", "How? "))
    with pytest.raises(ValueError, match="item 'boss': phrasings: expected a list of texts, got the text 'How"):
        dataclasses.replace(worded.items[0], phrasings="How?")
    with pytest.raises(ValueError, match="item 'boss': phrasing: expected a text that is not empty"):
        dataclasses.replace(worded.items[0], phrasings=("",))


# ---- as a read-out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", ["sampled", "expected"])
def test_a_population_is_read_as_its_candidates_alone(
    llama: LM, worded: Survey, soft: torch.Tensor, answers: str
) -> None:
    design = Design(20, 6, answers, **UNEVEN)
    reading = design.read(llama, llama.plan(worded, placement="front"), worded, soft)
    for i, prompt in enumerate(soft):
        alone = administer(worded, llama, Condition(prompt=SoftPrompt(prompt, "front")), design=design)
        assert (reading.probabilities[i] == alone.probabilities).all()  # in any company, bit by bit
        assert (reading.option_mass[i] == alone.option_mass).all()
    assert reading.probabilities.shape == (3, 4, 5)


def test_a_search_can_be_scored_by_respondents(llama: LM, mini: Survey, ireland: Target) -> None:
    space = PromptSpace.random(llama, num_virtual_tokens=3)
    x = torch.randn(2, space.dim, generator=torch.Generator().manual_seed(1)) * 0.1
    design = Design(20, **UNEVEN)
    loss = AlignmentLoss(llama, mini, ireland, space, readout=design, draws="fresh")
    assert loss.noisy and loss.draw_of(3) == 3
    for draw in (0, 2):
        found = loss(x, draw=draw)
        for prompt, scores in zip(space.decode(x), found.scores, strict=True):
            alone = administer(
                mini, llama, Condition(prompt=SoftPrompt(prompt, space.placement)),
                design=dataclasses.replace(design, seed=draw),
            )  # fmt: skip
            assert scores == pytest.approx(alone.scores(ireland.constants), abs=1e-6)


def test_a_design_without_respondents_is_the_cheap_default(llama: LM, mini: Survey, soft: torch.Tensor) -> None:
    condition = Condition(prompt=SoftPrompt(soft[0]))
    cheap = administer(mini, llama, condition)
    for got in (
        administer(mini, llama, condition, design=Design()),
        administer(mini, llama, condition, readout=Design()),
    ):
        assert (got.probabilities == cheap.probabilities).all() and (got.option_mass == cheap.option_mass).all()
        assert (got.scores() == cheap.scores()).all() and got.values is None and got.answers is None
    assert (cheap.scores() == mini.score(item_means(mini, cheap.probabilities), 50)).all()
    assert administer(mini, llama, design=Design(), readout=Argmax()).readout == Argmax()
    assert administer(mini, llama).readout == Expected()


def test_bad_input_is_refused(llama: LM, mini: Survey) -> None:
    with pytest.raises(
        ValueError, match="design: its respondents answer by the options' probabilities; leave readout=Argmax"
    ):
        administer(mini, llama, readout=Argmax(), design=Design(20))
    with pytest.raises(ValueError, match="design: expected softde.Design.respondents=50., got 50"):
        administer(mini, llama, design=50)  # type: ignore[arg-type]


@pytest.mark.parametrize("answers", ["sampled", "expected"])
def test_a_model_that_breaks_gives_no_answers(llama: LM, mini: Survey, soft: torch.Tensor, answers: str) -> None:
    prompts = torch.stack([soft[0], torch.full_like(soft[0], torch.nan)])
    design = Design(20, answers=answers, **UNEVEN)
    got = design.read(llama, llama.plan(mini), mini, prompts)
    assert np.isnan(got.probabilities[1, :, 0]).all() and not np.isnan(got.probabilities[0]).any()
    assert (got.invalid[1] == 1).all() and not got.invalid[0].any() and not got.refused.any()
    if got.answers is not None:
        assert (got.answers[1] == -1).all() and (got.answers[0] >= 0).all()
