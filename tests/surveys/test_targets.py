"""Targets: values, losses and slopes against slow loops and finite differences; sums; records; what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from softde.surveys import Survey, load_survey, losses
from softde.surveys.human import HumanAnswers
from softde.surveys.targets import (
    CultureSPATarget,
    MeansTarget,
    ScoresTarget,
    SharesTarget,
    SumTarget,
    as_target_like,
    items_asked,
    needs_factors,
    nulls,
    only_items,
    target_from_dict,
)

Array = NDArray[np.float64]

SHARES = np.zeros((2, 4, 5))
SHARES[0, 0], SHARES[1, 0] = [0.1, 0.2, 0.3, 0.2, 0.2], [0.6, 0.1, 0.1, 0.1, 0.1]
SHARES[0, 1], SHARES[1, 1] = [0.0, 0.0, 0.0, 0.5, 0.5], np.nan  # Italy was not asked
SHARES[0, 2, :3], SHARES[1, 2, :3] = [0.7, 0.2, 0.1], [0.2, 0.2, 0.6]
SHARES[0, 3, :2], SHARES[1, 3, :2] = [0.4, 0.6], [0.9, 0.1]


@pytest.fixture
def human(mini: Survey) -> HumanAnswers:
    return HumanAnswers(mini, ("Ireland", "Italy"), SHARES, np.full((2, 4), np.nan), "made up")


def answers(survey: Survey, population: int, seed: int = 0) -> Array:
    raw = np.random.default_rng(seed).gamma(0.7, size=(population, *survey.option_values.shape))
    raw = np.where(np.isnan(survey.option_values), 0.0, raw)
    return np.asarray(raw / raw.sum(-1, keepdims=True))


def targets_of(human: HumanAnswers, held_out: Any = 0.0) -> dict[str, Any]:
    scores = human.survey.target("Ireland")
    shares = SharesTarget.of(human, "Ireland", held_out=held_out)
    weights = {"boss": 2.0, "proud": 0.5}
    return {
        "L1": ScoresTarget(scores),
        "L2": ScoresTarget(scores, "L2", (1.0, 3.0)),
        "huber": ScoresTarget(scores, "huber", delta=30.0),
        "js": shares,
        "kl": SharesTarget.of(human, "Ireland", "kl", held_out, weights=weights),
        "wasserstein": SharesTarget.of(human, "Ireland", "wasserstein", held_out),
        "means": MeansTarget.of(human, "Ireland", held_out=held_out, weights=weights),
        "means L2": MeansTarget.of(human, "Ireland", "L2", held_out),
        "culture-spa": CultureSPATarget.of(human, "Ireland", held_out=held_out),
        "majority": CultureSPATarget.of(human, "Ireland", "majority", held_out),
        "sum": 0.01 * ScoresTarget(scores) + 2 * shares + MeansTarget.of(human, "Ireland", "L2", held_out),
    }


NAMES = ("L1", "L2", "huber", "js", "kl", "wasserstein", "means", "means L2", "culture-spa", "majority", "sum")


def slow_loss(name: str, survey: Survey, p: Array) -> float:
    """One candidate, in plain Python, from the definitions."""
    goal = survey.target("Ireland")
    q, counts = SHARES[0], [len(item.options) for item in survey.items]
    values = [[option.value for option in item.options] for item in survey.items]
    means = [
        sum(a * v for a, v in zip(row, those, strict=False)) for row, those in zip(p.tolist(), values, strict=True)
    ]
    human = [
        sum(a * v for a, v in zip(row, those, strict=False)) for row, those in zip(q.tolist(), values, strict=True)
    ]
    errors = [abs(s - t) for s, t in zip(survey.score(np.array(means)).tolist(), goal.scores.tolist(), strict=True)]
    off = [abs(m - h) / (max(v) - min(v)) for m, h, v in zip(means, human, values, strict=True)]
    weights = [2.0, 1.0, 1.0, 0.5]
    kl = [
        sum(b * math.log2(b / max(a, 1e-6)) for a, b in zip(x, y, strict=True) if b)
        for x, y in zip(p.tolist(), q.tolist(), strict=True)
    ]
    majority = [int(np.argmax(row)) for row in q]
    most = sum((c - 1) ** 2 for c in counts)
    js = float(losses.jensen_shannon(p, q).mean())  # against scipy in test_losses.py
    w1 = float(losses.wasserstein(p, q, survey.option_values).mean())
    expected = sum(p[i, k] * (k - majority[i]) ** 2 for i in range(len(counts)) for k in range(counts[i]))
    sure = sum((int(np.argmax(p[i])) - majority[i]) ** 2 for i in range(len(counts)))
    squared = math.sqrt(sum(e * e for e in off) / 4)
    return {
        "L1": sum(errors),
        "L2": math.sqrt(errors[0] ** 2 + 3 * errors[1] ** 2),
        "huber": sum(e * e / 2 if e <= 30 else 30 * (e - 15) for e in errors),
        "js": js,
        "kl": sum(w * k for w, k in zip(weights, kl, strict=True)) / 4.5,
        "wasserstein": w1,
        "means": sum(w * e for w, e in zip(weights, off, strict=True)) / 4.5,
        "means L2": squared,
        "culture-spa": math.sqrt(expected / most),
        "majority": math.sqrt(sure / most),
        "sum": 0.01 * sum(errors) + 2 * js + squared,
    }[name]


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_those_of_a_slow_loop(human: HumanAnswers, name: str) -> None:
    target, p = targets_of(human)[name], answers(human.survey, 5)
    values = target.values(human.survey, p)
    errors = target.errors(values)
    assert values.shape == (5, len(target.terms)) and (errors >= 0).all()
    assert target.loss(errors) == pytest.approx([slow_loss(name, human.survey, row) for row in p])
    total = target.costs(errors).sum(axis=1)
    rooted = name in ("L2", "means L2", "culture-spa", "majority")
    if name != "sum":
        assert target.loss(errors) == pytest.approx(np.sqrt(total) if rooted else total)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_alone_and_among_many(human: HumanAnswers, name: str) -> None:
    target, p = targets_of(human)[name], answers(human.survey, 64)
    together = target.loss(target.errors(target.values(human.survey, p)))
    alone = [target.loss(target.errors(target.values(human.survey, row[None])))[0] for row in p]
    assert together.tolist() == alone


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_without_some_terms_is_no_higher(human: HumanAnswers, name: str) -> None:
    target, p = targets_of(human)[name], answers(human.survey, 20)
    errors = target.errors(target.values(human.survey, p))
    kept = np.random.default_rng(0).random(errors.shape) < 0.5
    assert (target.loss(np.where(kept, errors, 0.0)) <= target.loss(errors) * (1 + 1e-12)).all()
    assert (target.loss(np.zeros_like(errors)) == 0).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "majority"])
def test_slopes_are_finite_differences(human: HumanAnswers, name: str) -> None:
    survey, step = human.survey, 1e-6
    target, p = targets_of(human)[name], answers(survey, 1, seed=4)[0]

    def loss(q: Array) -> float:
        return float(target.loss(target.errors(target.values(survey, q[None])))[0])

    slopes = target.slopes(survey, p)
    assert slopes.shape == p.shape and target.smooth
    for i, item in enumerate(survey.items):
        for a in range(len(item.options)):
            b = (a + 1) % len(item.options)
            up, down = p.copy(), p.copy()
            up[i, b] += step
            up[i, a] -= step
            down[i, b] -= step
            down[i, a] += step
            expected = (loss(up) - loss(down)) / (2 * step)
            assert slopes[i, b] - slopes[i, a] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_terms_that_were_not_answered_are_nan(human: HumanAnswers) -> None:
    p = answers(human.survey, 3)
    p[1, 2] = np.nan  # nerves, which both factors use
    for name, target in targets_of(human).items():
        values = target.values(human.survey, p)
        uses = target.uses(human.survey)
        assert np.isnan(values[1]).tolist() == uses[:, 2].tolist(), name
        assert np.isfinite(values[[0, 2]]).all() and np.isfinite(target.slopes(human.survey, p[1])).all()


def test_held_out_items_are_a_target_of_their_own(human: HumanAnswers) -> None:
    for name, target in targets_of(human, ("nerves",)).items():
        held = target.held_out_target
        if name in ("L1", "L2", "huber"):
            assert held is None
        elif name != "sum":
            assert held.terms == ("nerves",) and target.terms == ("boss", "time", "proud")
            p = answers(human.survey, 2)
            whole = targets_of(human)[name]
            assert held == whole.without(["boss", "time", "proud"]) and target.without(["nerves"]).held_out == ()
            nerves = whole.values(human.survey, p)[:, [2]]
            assert held.values(human.survey, p).tolist() == nerves.tolist()
    with pytest.raises(ValueError, match="item 'nerves' is held out by one part of the sum and asked for by another"):
        targets_of(human, ("nerves",))["sum"].check(human.survey)
    half = SharesTarget.of(human, "Ireland", held_out=0.5, seed=3)
    assert len(half.held_out) == 2 and half == SharesTarget.of(human, "Ireland", held_out=0.5, seed=3)
    assert {SharesTarget.of(human, "Ireland", held_out=0.5, seed=s).held_out for s in range(8)} != {half.held_out}
    assert [item for item in half.items if item in half.held_out] == list(half.held_out)


def test_a_share_holds_out_the_same_items_in_every_region(human: HumanAnswers) -> None:
    """So targets of regions that lack some items add up, as a shared prompt needs it."""
    for seed in range(12):
        ireland = SharesTarget.of(human, "Ireland", held_out=0.5, seed=seed)
        italy = SharesTarget.of(human, "Italy", held_out=0.5, seed=seed)
        assert set(italy.held_out) == set(ireland.held_out) & set(italy.items)
        (ireland + italy).check(human.survey)
    assert all(len(SharesTarget.of(human, "Ireland", held_out=0.01, seed=s).held_out) == 1 for s in range(4))
    assert len(MeansTarget.of(human, "Ireland", held_out=np.float32(0.5)).held_out) == 2  # type: ignore[arg-type]
    assert not SharesTarget.of(human, "Ireland", held_out=0).held_out
    seed = next(s for s in range(40) if SharesTarget.of(human, "Ireland", held_out=0.1, seed=s).held_out == ("time",))
    with pytest.raises(ValueError, match=rf"none of the items that 0.1 and seed {seed} draw, time, has an answer from"):
        SharesTarget.of(human, "Italy", held_out=0.1, seed=seed)


def test_items_without_an_answer_are_left_out_and_said(human: HumanAnswers) -> None:
    italy = SharesTarget.of(human, "italy")
    assert italy.items == ("boss", "nerves", "proud") and italy.missing == ("time",) and italy.region == "Italy"
    assert str(italy) == (
        "Italy, edition mini, version 1: Jensen-Shannon divergence in bits, mean over 3 items; 1 without an answer "
        "there are left out"
    )
    assert italy.edition == "mini, version 1" and italy.source == "made up"
    assert MeansTarget.of(human, "Italy").items == italy.items
    assert CultureSPATarget.of(human, "Italy").majority == (0, 2, 0)


@pytest.mark.parametrize("name", NAMES)
def test_records_come_back(human: HumanAnswers, name: str) -> None:
    import json

    target = targets_of(human, 0.0 if name == "sum" else ("time",))[name]
    record = json.loads(json.dumps(target.as_dict()))
    assert target_from_dict(record) == target
    assert record["region"] == "Ireland" and record["kind"] and record["source"] and record["edition"]


def test_published_scores_have_no_kind(mini: Survey) -> None:
    target = mini.target("Italy")
    assert target_from_dict(target.as_dict()) == target
    assert as_target_like(target, "L2", [1, 2]) == ScoresTarget(target, "L2", (1.0, 2.0))


def test_only_what_is_used_is_asked(human: HumanAnswers) -> None:
    survey = human.survey
    part = items_asked(SharesTarget.of(human, "Ireland", held_out=("time",)), survey)
    assert part.item_ids == ("boss", "nerves", "proud") and part.factors == ()
    assert only_items(survey, survey.item_ids) is survey
    both = SharesTarget.of(human, "Ireland") + ScoresTarget(survey.target("Ireland"))
    assert items_asked(both, survey) is survey and needs_factors(both)
    calm = only_items(survey, ("nerves", "proud"))
    assert calm.factors == () and calm.instruction == survey.instruction
    # The errors of the same items, asked alone: fewer options in the widest item.
    target, p = SharesTarget.of(human, "Ireland").without(["boss", "time"]), answers(survey, 3)
    assert target.values(calm, p[:, 2:, :3]).tolist() == target.values(survey, p).tolist()


def test_sums_are_flat_and_weighed(human: HumanAnswers) -> None:
    a, b = SharesTarget.of(human, "Ireland"), MeansTarget.of(human, "Ireland")
    total = 0.5 * (a + 2 * b) + b
    assert total.parts == ((0.5, a), (1.0, b), (1.0, b))
    assert total.terms[:5] == ("1:boss", "1:time", "1:nerves", "1:proud", "2:boss")
    assert total.region == "Ireland" and "0.5 × Jensen" in total.label()


def test_residuals_are_zero_where_the_loss_is(human: HumanAnswers) -> None:
    goals = targets_of(human)
    goal, values = human.survey.target("Ireland"), np.array([[10.0, 20.0], [-3.0, 4.0]])
    off = values - goal.scores
    assert np.array_equal(goals["L1"].residuals(values), off)
    for name, norm in (("L1", 1), ("L2", 2)):
        residuals = goals[name].residuals(values)
        assert np.array_equal(np.sign(residuals), np.sign(off))
        size = np.linalg.norm(residuals, norm, axis=1)
        assert np.allclose(size, goals[name].loss(goals[name].errors(values)), rtol=1e-12)
    both = 0.5 * goals["L1"] + 2 * goals["L2"]
    expected = np.concatenate([0.5 * off, 2 * goals["L2"].residuals(values)], axis=1)
    assert np.array_equal(both.residuals(np.tile(values, 2)), expected)
    none = goals["sum"]  # shares have no sign
    nested = SumTarget(((1.0, none), (2.0, goals["L1"])))
    for goal_without in (none, nested):
        assert goal_without.residuals(np.zeros((1, len(goal_without.terms)))) is None
    assert not hasattr(goals["js"], "residuals")


def test_nulls_by_hand(human: HumanAnswers) -> None:
    target = MeansTarget.of(human, "Ireland")
    # Item means: boss 3.2, time 4.5, nerves (values 3 2 1) 2.6, proud 0.6. Uniform: 3, 3, 2, 0.5.
    found = nulls(target, human.survey)
    uniform = (0.2 / 4 + 1.5 / 4 + 0.6 / 2 + 0.1) / 4
    second = (1.2 / 4 + 2.5 / 4 + 0.6 / 2 + 0.4) / 4  # option 2 throughout: 2, 2, 2, 1
    first = (2.2 / 4 + 3.5 / 4 + 0.4 / 2 + 0.6) / 4
    assert found["uniform answerer"] == pytest.approx(uniform)
    assert found["one option throughout"] == pytest.approx(min(first, second))


def test_culture_spas_own_score(human: HumanAnswers) -> None:
    """A sure model: 100 (1 − loss) is their score, by "expected" and by "majority" alike."""
    p = np.zeros((1, 4, 5))
    chosen = [0, 4, 1, 1]
    p[0, np.arange(4), chosen] = 1.0
    # Ireland's majority: 2, 3 (the first of two), 0, 1. ‖(2, 1, 1, 0)‖ / ‖(4, 4, 2, 1)‖ = √6 / √37.
    for answer in ("expected", "majority"):
        target = CultureSPATarget.of(human, "Ireland", answer)
        assert target.loss(target.errors(target.values(human.survey, p)))[0] == pytest.approx(math.sqrt(6 / 37))


def test_bad_input_is_refused(human: HumanAnswers) -> None:
    with pytest.raises(ValueError, match="distance: expected one of js, kl, wasserstein, got 'emd'"):
        SharesTarget.of(human, "Ireland", "emd")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="held_out: expected a share of the items from 0 up, below 1, or ids, got 1.5"):
        SharesTarget.of(human, "Ireland", held_out=1.5)
    with pytest.raises(ValueError, match="held_out: time has no answer from this region"):
        SharesTarget.of(human, "Italy", held_out=["time"])
    with pytest.raises(ValueError, match="weights: unknown item 'bos'"):
        SharesTarget.of(human, "Ireland", weights={"bos": 1.0})
    with pytest.raises(ValueError, match="weights: expected numbers from 0 up"):
        SharesTarget.of(human, "Ireland", weights={"boss": -1.0})
    with pytest.raises(ValueError, match="no item is left to align to"):
        SharesTarget.of(human, "Ireland", held_out=human.survey.item_ids)
    with pytest.raises(ValueError, match="norm: expected 'L1', 'L2' or 'huber', got 'L3'"):
        ScoresTarget(human.survey.target("Ireland"), "L3")
    with pytest.raises(ValueError, match="answer: expected one of expected, majority"):
        CultureSPATarget.of(human, "Ireland", "mode")
    with pytest.raises(ValueError, match="norm, weights: they are of published scores; SharesTarget has its own"):
        as_target_like(SharesTarget.of(human, "Ireland"), "L2")
    with pytest.raises(ValueError, match="target: expected Target, got 'Ireland'"):
        as_target_like("Ireland")
    with pytest.raises(ValueError, match="target: survey 'vsm13' has no item 'boss'"):
        SharesTarget.of(human, "Ireland").check(load_survey("vsm13"))
    with pytest.raises(ValueError, match="unknown kind 'share'"):
        target_from_dict({"kind": "share"})
    with pytest.raises(ValueError, match="a sum of targets has one part or more"):
        SumTarget(())
    for wrong in (None, "boss", True, -0.1, math.nan):
        with pytest.raises(ValueError, match="held_out: expected a share of the items from 0 up, below 1, or ids"):
            SharesTarget.of(human, "Ireland", held_out=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="held_out: 1 has no answer from this region or is no item; known: boss"):
        SharesTarget.of(human, "Ireland", held_out=[1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="weights: expected item → number, such as {'boss': 3}, got .1, 2"):
        SharesTarget.of(human, "Ireland", weights=[1, 2, 3, 4])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weights: the items held out all have weight 0"):
        SharesTarget.of(human, "Ireland", held_out=["boss"], weights={"boss": 0})
    with pytest.raises(ValueError, match="delta: only norm 'huber' has one, not 'L1'"):
        ScoresTarget(human.survey.target("Ireland"), delta=3.0)
    with pytest.raises(ValueError, match="delta: expected a number of score points above 0, got '3'"):
        ScoresTarget(human.survey.target("Ireland"), "huber", delta="3")  # type: ignore[arg-type]


def test_means_of_other_option_values_are_refused(human: HumanAnswers) -> None:
    """Of a survey whose options count from 11, human means from 1 to 5 would be a wrong target without a word."""
    target, survey = MeansTarget.of(human, "Ireland"), human.survey
    options = tuple(replace(option, value=option.value + 10) for option in survey.items[0].options)
    other = replace(survey, items=(replace(survey.items[0], options=options), *survey.items[1:]), variants={})
    target.check(survey)
    with pytest.raises(ValueError, match="target: item 'boss' has a human mean of 3.2, but values from 11 to 15"):
        target.check(other)


def test_a_weight_on_either_side_and_one_name_of_a_region(human: HumanAnswers) -> None:
    shares = SharesTarget.of(human, "Ireland")
    assert shares * 2 == 2 * shares
    assert (shares + replace(shares, region="IRL")).region == "Ireland"
