"""Splits: the training part leaves out what the held-out exam asks, and only that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from softde.align import align
from softde.compare import Entry, Exam, compare_methods
from softde.compare.splits import (
    Split,
    borrowed,
    hold_out_factors,
    hold_out_items,
    hold_out_orders,
    hold_out_phrasings,
    hold_out_regions,
    hold_out_survey,
    nearest_regions,
)
from softde.condition import Condition
from softde.lm import LM
from softde.optim import DE
from softde.space import PromptSpace
from softde.surveys import Survey, load_survey
from softde.surveys.human import HumanAnswers
from softde.surveys.metrics import js_divergence
from softde.surveys.targets import ScoresTarget, SharesTarget
from tests.compare.conftest import REGIONS, SHARES, Asked, as_region


@pytest.fixture
def scores(mini: Survey) -> Exam:
    return Exam("mini", mini, {r: mini.target(r) for r in ("Ireland", "Italy")}, "forward", weights=[2.0, 1.0])


@pytest.fixture
def shares(mini: Survey, human: HumanAnswers) -> Exam:
    return Exam("mini", mini, {r: SharesTarget.of(human, r) for r in REGIONS}, human=human)


def ask(llama: LM, split: Split, *entries: Entry) -> dict[tuple[str, str, str], dict[str, object]]:
    """(exam, method, region) → row."""
    table = compare_methods(llama, split.exams, entries, progress=False)
    return {(r["exam"], r["method"], r["region"]): r for r in table.rows if r["kind"] == "condition"}


def test_factors(llama: LM, asked: Asked, scores: Exam, mini: Survey) -> None:
    split = hold_out_factors(scores, ["CAL"])
    target = split.training.arguments("Ireland")["target"]
    assert isinstance(target, ScoresTarget) and target.weights == (2.0, 0.0)  # the exam's own weight stays
    assert [exam.held_out for exam in split.exams] == ["", "factors"]
    rows = ask(llama, split, Entry("italy", as_region("Italy")))
    assert len(asked) == 1  # both exams ask the same questions, forward alone
    off = np.abs(np.array([rows["mini, trained factors", "italy", "Ireland"][f"score_{f}"] for f in mini.factors])
                 - mini.target("Ireland").scores)  # fmt: skip
    assert rows["mini, trained factors", "italy", "Ireland"]["loss"] == pytest.approx(2 * off[0])
    assert rows["mini, factors held out", "italy", "Ireland"]["loss"] == pytest.approx(off[1])


def test_factors_beside_human_answers(mini: Survey, human: HumanAnswers) -> None:
    """An item that a trained factor shares is none of the held-out ones."""
    goals = {r: mini.target(r) for r in ("Ireland", "Italy")}
    trained, held = hold_out_factors(Exam("mini", mini, goals, human=human), ["CAL"]).exams
    assert trained.human is not None and held.human is not None
    uses = {f: {i for i, u in zip(mini.item_ids, row, strict=True) if u}
            for f, row in zip(mini.factors, mini.uses, strict=True)}  # fmt: skip
    assert uses["BOS"] & uses["CAL"]  # they share one
    assert set(trained.human.survey.item_ids) == uses["BOS"]
    assert set(held.human.survey.item_ids) == uses["CAL"] - uses["BOS"]


def test_items(llama: LM, asked: Asked, shares: Exam, human: HumanAnswers) -> None:
    split = hold_out_items(shares, ["proud", "time"])
    trained, held = split.exams
    target = split.training.arguments("Italy")["target"]
    assert target.held_out == ("time", "proud") and target.terms == ("boss", "nerves")
    assert trained.goals["Italy"].items == ("boss", "nerves") and held.goals["Italy"].items == ("time", "proud")
    assert trained.human is not None and trained.human.survey.item_ids == ("boss", "nerves")
    assert held.human is not None and held.human.survey.item_ids == ("time", "proud")
    rows = ask(llama, split, *(Entry("p", as_region(r), r) for r in REGIONS))
    assert len(asked) == 3 * 2 * 2
    assert rows["mini, items held out", "p", "Japan"]["rank"] == 1
    drawn = hold_out_items(shares, 0.5, seed=3).training.targets["Italy"]
    assert drawn == SharesTarget.of(human, "Italy", held_out=0.5, seed=3)  # the same draw
    again = hold_out_items(replace(shares, targets=dict(split.training.targets)))
    assert again.training.targets == split.training.targets


def test_phrasings(llama: LM, asked: Asked, scores: Exam) -> None:
    split = hold_out_phrasings(scores, {"boss": ["A boss whom you respect: how important?", "And a boss?"]})
    training = split.training.arguments("Italy")["survey"]
    assert training.items == scores.survey.items and split.exams[0].survey == training
    held = split.exams[1].survey
    assert held.items[0].text.startswith("A boss whom") and held.items[0].phrasings == ("And a boss?",)
    assert held.items[1:] == training.items[1:]
    ask(llama, split, Entry("unprompted", Condition()))
    assert len(asked) == 3  # own text; the first other wording; the second, of one item
    own = replace(scores, survey=held)  # a survey with wordings of its own
    assert hold_out_phrasings(own).exams[1].survey.items[0].text == "And a boss?"


def test_orders(llama: LM, asked: Asked, scores: Exam) -> None:
    split = hold_out_orders(replace(scores, orders="both"))
    assert split.training.arguments("Italy")["orders"] == "forward"
    ask(llama, split, Entry("unprompted", Condition()))
    assert [order for _, order, _ in asked] == ["forward", "reversed"]
    assert [exam.held_out for exam in split.exams] == ["", "orders"]


@pytest.mark.usefixtures("asked")
def test_regions(llama: LM, shares: Exam) -> None:
    split = hold_out_regions(shares, ["ITA"])
    assert set(split.training.targets) == {"Ireland", "Japan"}
    with pytest.raises(ValueError, match="no training target for 'Italy'"):
        split.training.arguments("Italy")
    entries = [
        Entry("joint", Condition()),
        Entry("own", as_region("Ireland"), "Ireland", 0, 5.0),
        Entry("own", as_region("Japan"), "Japan"),
    ]
    near = nearest_regions(split)
    lent = borrowed(entries, near)
    bits = {r: js_divergence(SHARES[1], SHARES[REGIONS.index(r)]).mean() for r in ("Ireland", "Japan")}
    nearest = min(bits, key=lambda r: bits[r])
    assert near == {"Italy": nearest}
    assert [(e.method, e.region, e.condition) for e in lent] == [("own", "Italy", as_region(nearest))]
    rows = ask(llama, split, *entries, *lent)
    assert {key[2] for key in rows if key[0].endswith("trained regions")} == {"Ireland", "Japan"}
    assert {key[1:] for key in rows if key[0].endswith("held out")} == {("joint", "Italy"), ("own", "Italy")}
    row = rows["mini, regions held out", "own", "Italy"]
    assert row["nearest"] == nearest and row["ranked_among"] == 3  # among all regions


def test_nearest_regions_by_published_scores() -> None:
    vsm = load_survey("vsm13")
    names = ("United States", "Australia", "China", "India", "Canada")
    exam = Exam("vsm13", vsm, {name: vsm.target(name, "2015") for name in names})
    split = hold_out_regions(exam, ["Canada"])
    scores = {name: np.array(vsm.target(name, "2015").scores) for name in names}
    slow = min(names[:4], key=lambda name: np.abs(scores[name] - scores["Canada"]).sum())
    assert nearest_regions(split) == {"Canada": slow}


def test_no_region_is_nearest_without_items_in_common(mini: Survey) -> None:
    cut = SHARES.copy()
    cut[0, :2], cut[2, 2:] = np.nan, np.nan
    human = HumanAnswers(mini, REGIONS, cut, np.full((3, 4), 9.0))
    exam = Exam("mini", mini, {r: SharesTarget.of(human, r) for r in REGIONS}, human=human)
    with pytest.raises(ValueError, match="exam 'mini, regions held out': no item has human answers of all regions"):
        nearest_regions(hold_out_regions(exam, ["Italy"]))


def test_a_held_out_survey() -> None:
    vsm, iw = load_survey("vsm13"), load_survey("iw")
    exams = [Exam(s.id, s, {r: s.target(r) for r in ("India", "China")}) for s in (vsm, iw)]
    split = hold_out_survey(*exams)
    assert split.training.arguments("India")["survey"] is vsm and split.training.targets["India"].terms == vsm.factors
    assert [(exam.name, exam.held_out) for exam in split.exams] == [("vsm13", ""), ("iw", "survey")]
    with pytest.raises(ValueError, match="exam 'copy' asks m01, m02, m03, m04, m05 and 19 more, as exam 'vsm13' does"):
        hold_out_survey(exams[0], replace(exams[0], name="copy"))
    with pytest.raises(ValueError, match="exam 'iw' has no region in common with exam 'vsm13'"):
        hold_out_survey(exams[0], replace(exams[1], targets={"Brazil": iw.target("Brazil")}))
    with pytest.raises(ValueError, match="others: expected one exam of another survey or more"):
        hold_out_survey(exams[0])


def test_a_training_part_goes_into_align(llama: LM, scores: Exam) -> None:
    split = hold_out_orders(hold_out_factors(scores, ["CAL"]).exams[0])
    result = align(
        llama, **split.training.arguments("Italy"), space=PromptSpace.random(llama, 2), optimizer=DE(6), budget=12,
        progress=False,
    )  # fmt: skip
    table = compare_methods(llama, split.exams, [Entry.of("de", result, "Italy")], progress=False)
    first = next(row for row in table.rows if row["method"] == "de")
    assert first["loss"] == pytest.approx(result.plain_loss, abs=1e-2)  # trained and examined the same way
    assert first["found_tokens"] == result.forward_tokens


def test_what_is_refused(scores: Exam, shares: Exam) -> None:
    for call, message in (
        (lambda: hold_out_factors(scores, []), "factors: expected some of BOS, CAL to hold out"),
        (lambda: hold_out_factors(scores, ["BOS", "CAL"]), "and some to train on, got BOS, CAL"),
        (lambda: hold_out_factors(scores, ["PDI"]), "survey 'mini' has no 'PDI'"),
        (lambda: hold_out_factors(scores, "CAL"), "factors: expected a list of those to hold out, got 'CAL'"),
        (lambda: hold_out_factors(shares, ["CAL"]), "expected published scores, got SharesTarget"),
        (lambda: hold_out_items(scores, 0.5), "only targets of items hold items out, not ScoresTarget"),
        (lambda: hold_out_items(shares), "the targets of exam 'mini' hold none out"),
        (lambda: hold_out_items(shares, 1.5), "a share of the items between 0 and 1"),
        (lambda: hold_out_items(shares, ["Q1"]), "survey 'mini' has no 'Q1'"),
        (lambda: hold_out_phrasings(scores), "survey 'mini' has no other wordings"),
        (lambda: hold_out_phrasings(scores, {"bos": ["x"]}), "no item 'bos'; did you mean 'boss'"),
        (lambda: hold_out_phrasings(scores, {"boss": "Bosses?"}), "expected a list of texts, got 'Bosses"),
        (lambda: hold_out_phrasings(scores, {"boss": [f"{scores.survey.items[0].text} "]}), "its own text is among"),
        (lambda: hold_out_regions(scores, ["Japan"]), "exam 'mini' has no 'Japan'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
