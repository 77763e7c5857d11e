"""Who is asked and how: quotas, balance of orders and wordings, the statistics of draws; no model."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softde.design import ATTRIBUTES, BLOCK, TEMPLATE, Design, chosen_options, dealt, quotas
from softde.surveys import Survey

UNEVEN = {"gender": {"a woman": 0.51, "a man": 0.49}, "school": {"none": 0.07, "some": 0.55, "much": 0.38}}
SENTENCE = "You are {gender} with {school} schooling."


def few(respondents: int, seed: int = 0, **fields: object) -> Design:
    """Fewer than twenty, without the warning."""
    with pytest.warns(UserWarning, match="fewer than 20"):
        return Design(respondents, seed, **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def worded(mini: Survey) -> Survey:
    """The small survey with three, two, one and one wordings."""
    first, second, *others = mini.items
    first = dataclasses.replace(first, phrasings=("How much do you need a good boss?", "A boss to look up to: is it?"))
    second = dataclasses.replace(second, phrasings=("What is your own time worth to you?",))
    return dataclasses.replace(mini, items=(first, second, *others))


# ---- quotas ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 120))
def test_every_beginning_of_a_quota_is_near_its_shares(parts: list[int], count: int) -> None:
    # Tijdeman's theorem: no level is ever more than 1 - 1/(2K-2) away from n times its share; with one level, none is.
    shares = [part / sum(parts) for part in parts]
    row = quotas(shares, count).tolist()
    bound = 1 - Fraction(1, max(2 * len(parts) - 2, 1))
    had = [0] * len(parts)
    for n, level in enumerate(row, start=1):
        had[level] += 1
        assert all(abs(Fraction(n * p, sum(parts)) - h) <= bound for p, h in zip(parts, had, strict=True))


def test_quotas_by_hand() -> None:
    assert quotas([0.5, 0.5], 4).tolist() == [0, 1, 0, 1]
    assert quotas([1.0], 3).tolist() == [0, 0, 0]
    assert 1 not in quotas([0.5, 0.0, 0.5], 40)  # a level without a share is nobody's
    assert Counter(quotas([0.07, 0.55, 0.38], 100).tolist()) == {0: 7, 1: 55, 2: 38}


def test_fifty_respondents_meet_the_shares() -> None:
    people = Design(50).people
    assert {name: set(levels) for name, levels in people.items()} == {n: set(s) for n, s in ATTRIBUTES.items()}
    assert set(Counter(people["gender"]).values()) == {25} == set(Counter(people["residence"]).values())
    assert sorted(Counter(people["age"]).values()) == [12, 12, 13, 13]
    assert sorted(Counter(people["education"]).values()) == [16, 17, 17]


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_shares_are_met_after_every_block_and_nearly_in_between(seed: int) -> None:
    people = Design(103, seed, attributes=UNEVEN, template=SENTENCE).people
    for name, shares in UNEVEN.items():
        for n in range(1, 104):
            counts = Counter(people[name][:n])
            away = max(abs(counts[level] - n * share) for level, share in shares.items())
            assert away < (1 if n % BLOCK == 0 else 1 + BLOCK / 2)


def test_attributes_are_drawn_independently() -> None:
    # Both alternate in a quota of halves; dealt out each on its own, they must not go together. 200 seeds of 20
    # respondents: the mean share of agreement is 1/2 with a standard error below 0.5/sqrt(4000) = 0.008.
    agree = []
    for seed in range(200):
        people = Design(20, seed).people
        women, city = (np.array(people[n]) == level for n, level in (("gender", "a woman"), ("residence", "in a city")))
        agree.append((women == city).mean())
    assert np.mean(agree) == pytest.approx(0.5, abs=0.03)
    assert np.std(agree) > 0.05


def test_who_gets_a_level_depends_on_the_seed_alone() -> None:
    one = Design(50, 3)
    assert one.personas == Design(50, 3).personas != Design(50, 4).personas
    assert len({Design(20, seed).personas for seed in range(30)}) == 30


def test_personas_say_what_was_drawn() -> None:
    design = Design(40, attributes=UNEVEN, template=SENTENCE)
    for r, text in enumerate(design.personas):
        assert text == f"You are {design.people['gender'][r]} with {design.people['school'][r]} schooling."
    assert set(Design(20, attributes={}).personas) == {""}
    assert set(Design(20, attributes={}, template="You are a voter.").personas) == {"You are a voter."}


# ---- questions -------------------------------------------------------------------------------------------------------


def test_orders_and_wordings_are_balanced(worded: Survey) -> None:
    sheets = Design(60).sheets(worded)
    for i, item in enumerate(worded.items):
        ways = [(i, order, k) for order, k in product(("forward", "reversed"), range(1 + len(item.phrasings)))]
        given_ = [sheet[i] for sheet in sheets]
        assert Counter(given_) == dict.fromkeys(ways, 60 // len(ways))
        for start in range(0, 60, len(ways)):  # each of as many respondents in a row gets another one
            assert set(given_[start : start + len(ways)]) == set(ways)
    assert len(set(sheets)) > 40
    assert {q[1] for sheet in Design(20).sheets(worded, ("reversed",)) for q in sheet} == {"reversed"}


def test_orders_do_not_go_together_across_items(mini: Survey) -> None:
    # A respondent who saw every item in one order would have answers that hang together by the position of options.
    forward = np.array(
        [[q[1] == "forward" for q in sheet] for seed in range(40) for sheet in Design(20, seed).sheets(mini)]
    )
    correlation = np.corrcoef(forward, rowvar=False) - np.eye(len(mini.items))
    assert np.abs(correlation).max() < 4 / math.sqrt(len(forward))


def test_more_respondents_leave_the_earlier_ones_as_they_are(worded: Survey) -> None:
    small = few(7, attributes=UNEVEN, template=SENTENCE)
    for n, (fewer, more) in {
        n: (
            small if n == 7 else Design(n, attributes=UNEVEN, template=SENTENCE),
            Design(m, attributes=UNEVEN, template=SENTENCE),
        )
        for n, m in pairwise([7, 20, 33, 50, 101])
    }.items():
        assert more.personas[:n] == fewer.personas
        assert more.sheets(worded)[:n] == fewer.sheets(worded)
        assert (more.draws(worded)[:n] == fewer.draws(worded)).all()


def test_what_an_item_gets_depends_on_its_name_and_not_on_its_place(worded: Survey) -> None:
    design = Design(20)
    part = dataclasses.replace(worded, items=worded.items[2:0:-1], factor_models=(), published=())
    assert (design.draws(part) == design.draws(worded)[:, 2:0:-1]).all()
    mine, whole = design.sheets(part), design.sheets(worded)
    assert [[q[1:] for q in sheet] for sheet in mine] == [[q[1:] for q in sheet[2:0:-1]] for sheet in whole]


# ---- draws -----------------------------------------------------------------------------------------------------------


def inside(hits: int, trials: int, p: float, level: float = 1e-6) -> bool:
    """Is a count within exact binomial bounds, so wide that one in a million falls outside?"""
    log = [
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        + k * math.log(p) + (trials - k) * math.log1p(-p)
        for k in range(trials + 1)
    ]  # fmt: skip
    below, above = (math.fsum(map(math.exp, part)) for part in (log[: hits + 1], log[hits:]))
    return min(below, above) > level / 2


def test_shares_of_sampled_options_are_their_probabilities(mini: Survey) -> None:
    draws = Design(2000, 5).draws(mini)
    p = np.array([0.05, 0.15, 0.4, 0.1, 0.3])
    chosen = chosen_options(np.broadcast_to(p, (1, *draws.shape, 5)), draws)[0]
    for i, (option, share) in product(range(len(mini.items)), enumerate(p)):
        assert inside(int((chosen[:, i] == option).sum()), 2000, float(share))
    assert not inside(710, 2000, 0.3)
    correlation = np.corrcoef(draws, rowvar=False) - np.eye(len(mini.items))
    assert np.abs(correlation).max() < 5 / math.sqrt(2000)


def test_options_that_are_absent_or_unknown() -> None:
    given_ = np.array([[[[0.5, 0.5, 0.0], [np.nan, 0.5, 0.5]]]])
    assert chosen_options(given_, np.array([[0.999999, 0.5]])).tolist() == [[[1, -1]]]
    assert chosen_options(given_, np.array([[0.0, 0.5]])).tolist() == [[[0, -1]]]
    assert chosen_options(given_, np.array([[0.5, 0.5]])).tolist() == [[[1, -1]]]


def test_dealt_by_hand() -> None:
    draws = np.array([0.3, 0.1, 0.2, 0.9, 0.8, 0.7])
    assert dealt(np.array([1, 2, 3, 4, 5, 6]), 3, draws).tolist() == [2, 3, 1, 6, 5, 4]


# ---- values ----------------------------------------------------------------------------------------------------------


def test_a_design_is_a_frozen_value() -> None:
    assert Design(50) == Design(50) and hash(Design(50)) == hash(Design(50))
    assert Design() == Design(0) == Design(None)  # type: ignore[arg-type]
    assert Design(50) != Design(50, answers="expected")
    with pytest.raises(TypeError, match="frozen"):
        Design(50).attributes["gender"] = {}  # type: ignore[index]


@pytest.mark.parametrize("respondents", [1, 19])
def test_too_few_respondents_are_warned_of(respondents: int) -> None:
    with pytest.warns(UserWarning, match="fewer than 20, the VSM 94 manual's minimum per country .50 are ideal"):
        Design(respondents)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"respondents": -1}, "respondents: expected a whole number of at least 0, got -1"),
        ({"respondents": 2.5}, "respondents: expected a whole number"),
        ({"seed": -1}, "seed: expected a whole number of at least 0"),
        ({"answers": "greedy"}, "answers: expected one of sampled, expected, got 'greedy'"),
        ({"attributes": [("gender", 1)]}, "attributes: expected a mapping name"),
        (
            {"attributes": {"gender": {"a woman": 0.5, "a man": 0.4}}},
            "'gender': the shares of a woman, a man sum to 0.9",
        ),
        (
            {"attributes": {"gender": {"a woman": 1.5, "a man": -0.5}}},
            "'gender', 'a woman': expected a share from 0 to 1",
        ),
        ({"attributes": {"gender": {}}}, "'gender': expected a mapping wording"),
        ({"template": "You are {sex}."}, "unknown attribute 'sex' in 'You are {sex}.'; known: gender, age"),
        ({"template": "You are {gender}, {age}."}, "does not say education, residence; put {education} into it"),
        ({"template": "You are {gender"}, "a brace too many or too few"),
        ({"template": " "}, "template: expected a sentence"),
        ({"attributes": {}, "template": "You are {gender}."}, "unknown attribute 'gender' .*none are known"),
    ],
)
def test_bad_input_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Design(**{"respondents": 50, **fields})  # type: ignore[arg-type]


def test_the_default_template_and_attributes_belong_together() -> None:
    assert all(f"{{{name}}}" in TEMPLATE for name in ATTRIBUTES)
    assert all(math.fsum(shares.values()) == pytest.approx(1, abs=1e-12) for shares in ATTRIBUTES.values())
