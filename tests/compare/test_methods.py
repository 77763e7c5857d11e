"""compare_methods: what is asked, what is known already, and every number of a row against another way to it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from softde.compare import Entry, Exam, compare, compare_methods
from softde.compare.sheets import condition_identity
from softde.condition import Condition, Panel
from softde.lm import LM
from softde.prompt import SoftPrompt
from softde.surveys import Survey, metrics, nulls
from softde.surveys.examples import Example, Examples
from softde.surveys.human import HumanAnswers
from softde.surveys.survey import options
from softde.surveys.targets import MeansTarget, ScoresTarget, SharesTarget
from tests.compare.conftest import REGIONS, SHARES, Asked, as_region


def quiet(lm: LM, exams: Any, entries: Any, **more: Any) -> Any:
    return compare_methods(lm, exams, entries, progress=False, **more)


@pytest.fixture
def personas() -> list[Entry]:
    return [Entry("unprompted", Condition()), *(Entry("persona", as_region(r), r) for r in REGIONS)]


@pytest.fixture
def shares(mini: Survey, human: HumanAnswers) -> Exam:
    """Human answers as targets."""
    return Exam("shares", mini, {r: SharesTarget.of(human, r) for r in REGIONS}, human=human)


@pytest.fixture
def scores(mini: Survey) -> Exam:
    """Published scores as targets."""
    return Exam("scores", mini, {r: mini.target(r) for r in ("Ireland", "Italy")})


def one(table: Any, **where: Any) -> dict[str, Any]:
    """The row with these entries."""
    found = [row for row in table.rows if all(row[k] == v for k, v in where.items())]
    assert len(found) == 1, (where, len(found))
    return found[0]


# -- numbers


def test_losses_are_those_of_compare(llama: LM, mini: Survey, scores: Exam) -> None:
    """The random model, asked by the other function of this package, both orders in one plan."""
    prompt = SoftPrompt(torch.randn(3, llama.hidden_size, generator=torch.Generator().manual_seed(0)), "late")
    examples = Condition(examples=Examples({"boss": (Example(mini.items[1], 0),)}))
    conditions = {
        "unprompted": Condition(), "persona": as_region("Italy"), "soft": Condition(prompt=prompt), "icl": examples,
        "panel": Panel((as_region("Italy"), as_region("Japan"), examples)),
    }  # fmt: skip
    table = quiet(llama, scores, [Entry(name, condition) for name, condition in conditions.items()])
    for region, target in scores.targets.items():
        wanted = compare(llama, mini, target, list(conditions.values()))  # type: ignore[arg-type]
        for name, row in zip(conditions, wanted.rows, strict=True):
            got = one(table, method=name, region=region)
            assert got["loss"] == pytest.approx(row.loss, abs=1e-2)
            assert [got["score_BOS"], got["score_CAL"]] == pytest.approx(row.scores.tolist(), abs=1e-2)
            assert got["option_mass"] == pytest.approx(row.option_mass, rel=1e-3)
            assert got["asked_tokens"] > 0 and got["asked_seconds"] > 0
        for name, loss in nulls(mini, target).items():  # type: ignore[arg-type]
            assert one(table, method=name, region=region)["loss"] == pytest.approx(loss)


@pytest.mark.usefixtures("asked")
def test_a_model_that_answers_as_each_region(llama: LM, shares: Exam, personas: list[Entry]) -> None:
    table = quiet(llama, shares, personas)
    for region in REGIONS:
        row = one(table, method="persona", region=region)
        assert row["loss"] == pytest.approx(0, abs=1e-12)
        assert (row["culture_spa"], row["top1"], row["rank"], row["nearest"]) == (100, 1, 1, region)
        assert row["ranked_among"] == 3 and row["order_shift"] == 0
    by = {line["method"]: line for line in table.summary()}
    persona, unprompted = by["persona"], by["unprompted"]
    assert (persona["top1"], persona["rank"], persona["divergence"]) == (1, 1, pytest.approx(1))
    assert unprompted["divergence"] == pytest.approx(0, abs=1e-12)  # one answer for all
    assert unprompted["rank"] == 2 and unprompted["top1"] == pytest.approx(1 / 3)  # chance
    assert (unprompted["chance_rank"], unprompted["chance_top1"]) == (2, pytest.approx(1 / 3))
    two = quiet(llama, shares, [entry for entry in personas if entry.region in ("Japan", "Italy")]).summary()[0]
    assert two["regions"] == 2 and two["divergence"] == pytest.approx(1)  # over those two regions' humans


@pytest.mark.usefixtures("asked")
def test_numbers_of_human_answers_by_hand(llama: LM, shares: Exam, human: HumanAnswers, personas: list[Entry]) -> None:
    """A mixture of two regions, scored with the metrics' own functions."""
    panel = Panel((as_region("Italy"), as_region("Japan")), "panel")
    table = quiet(llama, shares, [*personas, Entry("panel", panel, "Italy")])
    mixed = SHARES[1:].mean(axis=0)
    row = one(table, method="panel")
    js = metrics.js_divergence(mixed, SHARES[1]).mean()
    assert row["loss"] == pytest.approx(js)
    sheet = {i.id: i.options[k].value for i, k in zip(human.survey.items, mixed.argmax(-1), strict=True)}
    assert row["culture_spa"] == pytest.approx(metrics.culture_spa_score(sheet, human.select(regions=["Italy"])))
    assert row["rank"] == metrics.identification({"Italy": mixed}, human).mean_rank
    nobody = metrics.culture_spa_nulls(human, "Italy")
    for name in ("midpoint", "leave-one-region-out mean", "uniform answerer"):
        assert one(table, kind="null", method=name, region="Italy")["culture_spa"] == pytest.approx(nobody[name])
    others = metrics.null_shares(human)["leave-one-region-out mean"][1]
    mean = one(table, method="leave-one-region-out mean", region="Italy")
    assert mean["loss"] == pytest.approx(metrics.js_divergence(others, SHARES[1]).mean())


@pytest.mark.usefixtures("asked")
def test_identification_and_spread_of_published_scores(llama: LM, mini: Survey) -> None:
    """Targets that are the made-up regions' own scores: a model that answers as they do hits and tells them apart."""
    means = (SHARES * np.nan_to_num(mini.option_values)).sum(-1)
    targets = {
        r: replace(mini.target("Italy"), region=r, scores=mini.score(m)) for r, m in zip(REGIONS, means, strict=True)
    }
    exam = Exam("scores", mini, targets)
    entries = [Entry("unprompted", Condition()), Entry("right", as_region("Ireland"), "Ireland"),
               Entry("right", as_region("Japan"), "Japan"), Entry("wrong", as_region("Japan"), "Ireland"),
               Entry("wrong", as_region("Ireland"), "Japan")]  # fmt: skip
    table = quiet(llama, exam, entries)
    assert {row["region"] for row in table.rows} == {"Ireland", "Japan"}  # no entry is for Italy, which stands by
    assert one(table, method="right", region="Japan")["rank"] == 1
    assert one(table, method="wrong", region="Japan")["nearest"] == "Ireland"
    assert one(table, method="wrong", region="Japan")["rank"] > 1
    by = {line["method"]: line for line in table.summary()}
    assert by["right"]["loss"] == pytest.approx(0, abs=1e-9) and by["right"]["ranked_among"] == 3
    assert by["right"]["divergence"] == pytest.approx(1) and by["right"]["tau"] == 1 and by["wrong"]["tau"] == -1
    assert by["unprompted"]["divergence"] == pytest.approx(0, abs=1e-12) and math.isnan(by["unprompted"]["tau"])
    ireland, japan = mini.score(means[0]), mini.score(means[2])
    assert by["same scores for all regions"]["loss"] == pytest.approx(np.abs(ireland - japan).sum() / 2)
    others = (mini.score(means[1]) + japan) / 2  # of all that have a target
    mean = one(table, method="leave-one-region-out mean", region="Ireland")
    assert mean["kind"] == "null" and mean["loss"] == pytest.approx(np.abs(others - ireland).sum())
    assert by["best integer respondent"]["kind"] == by["same scores for all regions"]["kind"] == "floor"


@pytest.mark.usefixtures("asked")
def test_only_items_that_all_regions_have_are_ranked(llama: LM, mini: Survey) -> None:
    cut = SHARES.copy()
    cut[2, 0] = np.nan  # Japan was not asked about bosses
    human = HumanAnswers(mini, REGIONS, cut, np.full((3, 4), 9.0))
    targets = {r: MeansTarget.of(human, r) for r in REGIONS}
    assert "boss" not in targets["Japan"].items
    entries = [Entry("persona", as_region(r), r) for r in REGIONS]
    table = quiet(llama, Exam("means", mini, targets), entries)
    assert [one(table, kind="condition", region=r)["rank"] for r in REGIONS] == [1, 1, 1]
    assert all(math.isnan(row["culture_spa"]) for row in table.rows)  # no human answers were given
    mixed = quiet(llama, Exam("means", mini, targets), [Entry("p", Panel(tuple(map(as_region, REGIONS))), "Ireland")])
    # Losses of the mean of the three: over the items that all have 0.183, 0.175 (Italy), 0.192; with boss where it is
    # there 0.238, 0.131, 0.192, which would make it the third.
    assert one(mixed, kind="condition")["rank"] == 2
    assert one(mixed, kind="condition")["loss"] == pytest.approx(0.238, abs=5e-4)  # the loss is of all that it has


def test_orders_and_wordings_that_move_answers(llama: LM, asked: Asked, mini: Survey, human: HumanAnswers) -> None:
    worded = replace(
        mini, items=(replace(mini.items[0], phrasings=("A boss whom you respect: how important?",)), *mini.items[1:])
    )
    first, last = np.eye(5)[0], np.eye(5)[4]

    middle = np.array([0.5, 0.5])  # of whatever else
    asked.answers = lambda system, item, order: middle if item != "boss" else first if order == "forward" else last
    exam = Exam("means", worded, {r: MeansTarget.of(human, r) for r in REGIONS}, human=human)
    table = quiet(llama, exam, [Entry("unprompted", Condition())])
    assert [order for _, order, _ in asked] == ["forward", "reversed"] * 2
    row = one(table, kind="condition", region="Italy")
    means = (SHARES * np.nan_to_num(mini.option_values)).sum(-1)
    deviation = means.std(axis=0, ddof=1)
    moved = np.array([np.std([1, 5], ddof=1), 0, 0, 0]) / deviation
    assert row["order_shift"] == pytest.approx(math.sqrt((moved**2).mean()))
    assert row["wording_shift"] == 0  # both wordings move alike
    assert row["asked_tokens"] == 2 * 40 + 2 * 10  # the second wording is of one item
    scores = quiet(
        llama,
        Exam("scores", worded, {r: mini.target(r) for r in ("Ireland", "Italy")}),
        [Entry("unprompted", Condition())],
    )
    swing = np.array([35 * 4.0, 0]) / math.sqrt(2) / np.array([130 - 75, 61.5 - 30]) * math.sqrt(2)
    assert one(scores, kind="condition", region="Italy")["order_shift"] == pytest.approx(math.sqrt((swing**2).mean()))


def test_wordings_that_move_answers(llama: LM, asked: Asked, mini: Survey, human: HumanAnswers) -> None:
    """An item without another wording does not move, and counts as one that does not."""
    worded = replace(mini, items=(replace(mini.items[0], phrasings=("And a boss?",)), *mini.items[1:]))
    first, last, middle = np.eye(5)[0], np.eye(5)[4], np.array([0.5, 0.5])
    times: list[str] = []

    def answers(_system: str, item: str, order: str) -> Any:
        times.extend([order] * (item == "boss"))
        return middle if item != "boss" else first if len(times) <= 2 else last  # own text, in both orders

    asked.answers = answers
    exam = Exam("means", worded, {r: MeansTarget.of(human, r) for r in REGIONS}, human=human)
    row = one(quiet(llama, exam, [Entry("unprompted", Condition())]), kind="condition", region="Italy")
    deviation = (SHARES * np.nan_to_num(mini.option_values)).sum(-1).std(axis=0, ddof=1)
    moved = np.array([np.std([1, 5], ddof=1), 0, 0, 0]) / deviation
    assert row["wording_shift"] == pytest.approx(math.sqrt((moved**2).mean())) and row["order_shift"] == 0


@pytest.mark.usefixtures("asked")
def test_held_out_items_of_a_target(llama: LM, mini: Survey, human: HumanAnswers) -> None:
    targets = {r: SharesTarget.of(human, r, held_out=["proud"]) for r in REGIONS}
    table = quiet(llama, Exam("shares", mini, targets), [Entry("persona", as_region("Italy"), "Ireland")])
    js = metrics.js_divergence(SHARES[1], SHARES[0])
    row = one(table, kind="condition")
    assert row["loss"] == pytest.approx(js[:3].mean()) and row["held_out_loss"] == pytest.approx(js[3])
    uniform = one(table, method="uniform answerer")
    assert uniform["held_out_loss"] == pytest.approx(metrics.js_divergence([0.5, 0.5, 0, 0, 0], SHARES[0, 3]))


@pytest.mark.usefixtures("asked")
def test_items_that_the_model_cannot_be_asked(llama: LM, mini: Survey, caplog: pytest.LogCaptureFixture) -> None:
    """The small tokenizer has no token for 10: such an item is left out for all, unless a factor needs it."""
    many = replace(mini.items[3], id="many", options=options([f"number {i}" for i in range(1, 12)]))
    survey = replace(mini, items=(*mini.items[:3], many), factor_models=(), published=())
    shares = np.zeros((3, 4, 11))
    shares[:, :, :5] = SHARES
    human = HumanAnswers(survey, REGIONS, shares, np.full((3, 4), 9.0))
    exam = Exam("e", survey, {r: SharesTarget.of(human, r) for r in REGIONS}, human=human)
    table = quiet(llama, exam, [Entry("persona", as_region(r), r) for r in REGIONS])
    assert "exam e: 1 of 4 items are left out, which this model cannot be asked: many" in caplog.text
    assert [one(table, kind="condition", region=r)["loss"] for r in REGIONS] == pytest.approx([0, 0, 0], abs=1e-12)
    factor = replace(mini.factor_models[0], weights={"many": 1.0})
    scored = replace(survey, factor_models=(factor,))
    target = replace(mini.target("Italy"), factors=("BOS",), scores=np.ones(1), constants={"BOS": 0.0})
    with pytest.raises(ValueError, match="many"):
        quiet(llama, Exam("e", scored, {"Italy": target}), [Entry("p", Condition())])


def test_a_model_that_breaks_shows_as_such(llama: LM, asked: Asked, shares: Exam) -> None:
    asked.answers = lambda system, item, order: np.full(5, np.nan)
    table = quiet(llama, shares, [Entry("unprompted", Condition())])
    row = one(table, kind="condition", region="Italy")
    assert all(math.isnan(row[name]) for name in ("loss", "culture_spa", "rank", "order_shift"))
    assert "unprompted" in str(table)


# -- what is asked


def test_what_is_shared_is_asked_once(
    llama: LM, asked: Asked, shares: Exam, scores: Exam, personas: list[Entry]
) -> None:
    again = [
        Entry("copy", as_region("Italy", "another name"), "Italy", seed=3),
        Entry("persona", as_region("Italy"), "Italy", seed=1),
    ]
    quiet(llama, [shares, scores], [*personas, *again])
    assert len(asked) == 4 * 2 == len(set(asked))  # four conditions, two orders, for both exams


def test_a_method_made_for_each_survey(llama: LM, asked: Asked, mini: Survey, scores: Exam) -> None:
    other = replace(scores, name="other", survey=replace(mini, id="other"))
    for_mini, for_other = as_region("Ireland"), as_region("Italy")
    table = quiet(llama, [scores, other], [Entry("m", for_mini, survey="mini"), Entry("m", for_other, survey="other")])
    assert asked == [
        (c.system, o, s) for c, s in ((for_mini, "mini"), (for_other, "other")) for o in ("forward", "reversed")
    ]
    assert len([row for row in table.rows if row["kind"] == "condition"]) == 4


@pytest.mark.usefixtures("asked")
def test_progress(llama: LM, shares: Exam, personas: list[Entry], capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[Any] = []
    compare_methods(llama, shares, personas, progress=lines.append)
    assert str(lines[0]) == "1/8  shares: unprompted, every region, seed 0, forward"
    assert "persona, Japan, seed 0, reversed" in str(lines[-2]) and lines[-1].last and str(lines[-1]).startswith("8/8")
    assert capsys.readouterr().err == ""
    compare_methods(llama, shares, personas)
    assert "1/8  shares" in capsys.readouterr().err


# -- the checkpoint


class StopError(Exception):
    pass


def stop_after(asked: Asked, count: int) -> None:
    """The model goes away after so many sheets."""
    usual = asked.answers

    def answers(system: str, item: str, order: str) -> Any:
        if len(asked) > count:
            raise StopError
        return usual(system, item, order)

    asked.answers = answers


def test_an_interrupted_comparison_goes_on(
    llama: LM, asked: Asked, shares: Exam, personas: list[Entry], tmp_path: Path
) -> None:
    usual = asked.answers
    whole = quiet(llama, shares, personas)
    for count in (1, 5):
        folder = tmp_path / str(count)
        asked.clear()
        stop_after(asked, count)
        with pytest.raises(StopError):
            quiet(llama, shares, personas, checkpoint=folder)
        asked.answers = usual
        file = folder / "answers.jsonl"
        assert len(file.read_text().splitlines()) == count
        with file.open("a") as torn:
            torn.write('{"key": "abc", "probabilit')  # a crash while it wrote
        asked.clear()
        table = quiet(llama, shares, personas, checkpoint=folder)
        assert len(asked) == 8 - count
        assert [without_seconds(row) for row in table.rows] == [without_seconds(row) for row in whole.rows]
        asked.clear()
        assert quiet(llama, shares, personas, checkpoint=folder).summary()
        assert asked == []
        lines = file.read_text().splitlines()
        assert len(lines) == 9 and lines[count].endswith("probabilit")  # the torn line was closed, the rest is whole


def without_seconds(row: dict[str, Any]) -> str:
    return repr({k: v for k, v in row.items() if k != "asked_seconds"})


def test_answers_read_back_are_the_same_numbers(llama: LM, scores: Exam, tmp_path: Path) -> None:
    """Of the random model, to the last bit."""
    entries = [Entry("unprompted", Condition()), Entry("persona", as_region("Italy"))]
    first, again = (quiet(llama, scores, entries, checkpoint=tmp_path) for _ in range(2))
    assert [without_seconds(row) for row in first.rows] == [without_seconds(row) for row in again.rows]


def test_what_is_asked_again_and_what_is_not(
    llama: LM, asked: Asked, mini: Survey, shares: Exam, scores: Exam, tmp_path: Path
) -> None:
    italy = Entry("persona", as_region("Italy"), "Italy")
    quiet(llama, shares, [italy], checkpoint=tmp_path)

    def count(exam: Exam, entry: Entry, lm: LM = llama) -> int:
        asked.clear()
        quiet(lm, exam, [entry], checkpoint=tmp_path)
        return len(asked)

    assert count(scores, italy) == 0  # other targets, another name of the exam
    assert count(shares, Entry("renamed", as_region("Italy", "x"), "Ireland", 7)) == 0
    assert count(replace(shares, orders="forward"), italy) == 0  # a half of what is known
    assert count(shares, Entry("persona", Condition("I am from Italy!"), "Italy")) == 2
    assert count(shares, Entry("persona", Panel((as_region("Italy"),)), "Italy")) == 2
    other = replace(mini, items=(replace(mini.items[0], text="Is a boss important to you?"), *mini.items[1:]))
    assert count(replace(shares, survey=other), italy) == 2
    with torch.no_grad():
        weight = next(llama.model.parameters())
        kept = weight.clone()
        weight.add_(0.01)
        try:
            assert count(shares, italy, LM(llama.model, llama.tokenizer, llama.name)) == 2  # trained meanwhile
        finally:
            weight.copy_(kept)


def test_conditions_are_known_by_content(mini: Survey, tmp_path: Path) -> None:
    prompt = SoftPrompt(torch.ones(2, 4), "late")
    examples = Examples({"boss": (Example(mini.items[1], 0),)})
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"one")
    same = [
        (Condition(prompt=prompt), Condition(prompt=prompt.with_provenance({"note": "x"}), name="n")),
        (Condition(examples=examples), Condition(examples=Examples({"boss": (Example(mini.items[1], 0),)}))),
    ]
    for one_, other in same:
        assert condition_identity(one_) == condition_identity(other)
    different = [
        Condition(), Condition("x"), Condition(prompt=prompt), Condition(prompt=SoftPrompt(torch.ones(2, 4), "front")),
        Condition(prompt=SoftPrompt(torch.ones(4, 2), "late")), Condition(examples=examples),
        Condition(examples=Examples({"boss": (Example(mini.items[1], 1),)})),
        Condition(examples=Examples({"boss": (Example(mini.items[1], 0),)}, turns=True)),
        Condition(adapter=adapter), Panel((Condition(),)), Panel((Condition("x"), Condition())),
        Panel((Condition(), Condition("x"))),
    ]  # fmt: skip
    found = [condition_identity(condition) for condition in different]
    assert len(set(found)) == len(different)
    (adapter / "README.md").write_text("a note")
    assert condition_identity(Condition(adapter=adapter)) == found[8]
    (adapter / "adapter_model.safetensors").write_bytes(b"two")
    assert condition_identity(Condition(adapter=adapter)) != found[8]


@pytest.mark.usefixtures("asked")
def test_the_file_says_what_it_holds(llama: LM, shares: Exam, tmp_path: Path) -> None:
    quiet(llama, shares, [Entry("persona", as_region("Italy"), "Italy", 4)], checkpoint=tmp_path)
    record = json.loads((tmp_path / "answers.jsonl").read_text().splitlines()[1])
    assert (record["method"], record["region"], record["seed"], record["order"]) == ("persona", "Italy", 4, "reversed")
    assert record["items"] == ["boss", "time", "nerves", "proud"]
    assert [len(row) for row in record["probabilities"]] == [5, 5, 3, 2]


# -- bad input, before anything is asked


def test_what_is_refused(llama: LM, asked: Asked, mini: Survey, shares: Exam, scores: Exam, tmp_path: Path) -> None:
    italy = Entry("persona", as_region("Italy"), "Italy")
    wide = Entry("soft", Condition(prompt=SoftPrompt(torch.zeros(2, 7))))
    strange = Entry("icl", Condition(examples=Examples({"Q1": (Example(mini.items[0], 0),)})))
    lost = Entry("lora", Condition(adapter=tmp_path / "none"))
    for exams, entries, message in (
        (shares, [], "entries: expected one softde.compare.Entry or more, got none"),
        ([], [italy], "exams: expected one softde.compare.Exam or more, got none"),
        (shares, italy, "entries: expected a list of softde.compare.Entry, got Entry"),
        (shares, [Condition()], "entries: expected one softde.compare.Entry or more, got Condition"),
        ([shares, shares], [italy], "duplicate exam 'shares'"),
        (shares, [italy, italy], "duplicate entry in exam 'shares': 'persona, Italy, seed 0'"),
        (shares, [italy, Entry("persona", Condition())], "has entries with a region and one for every region"),
        (scores, [Entry("midpoint", Condition())], "method 'midpoint' is what the table calls a trivial answerer"),
        (shares, [Entry("p", Condition(), "Brazil")], "no exam has region 'Brazil'; known: Ireland"),
        (shares, [Entry("p", Condition(), "Itali")], "no exam has region 'Itali'; did you mean 'Italy'"),
        (shares, [Entry("p", Condition(), survey="vsm13")], "no exam has survey 'vsm13'; known: mini"),
        ([shares, scores], [Entry("p", Condition(), "Japan")], "exam 'scores': no entry is for one of its regions"),
        (scores, [wide], "7 numbers wide"),
        (scores, [strange], "its examples are for other items than those of exam 'scores'"),
        (scores, [Entry("long", Condition("word " * 3000))], "but the model reads 2048"),
        (scores, [lost], "cannot read .*adapter"),
    ):
        with pytest.raises(ValueError, match=message):
            quiet(llama, exams, entries, checkpoint=tmp_path / "x")
    for arguments, message in ((("tiny", scores, [italy]), "lm: expected LM, got 'tiny'"),):
        with pytest.raises(ValueError, match=message):
            quiet(*arguments)
    with pytest.raises(ValueError, match="confidence, a level between 0 and 1"):
        quiet(llama, scores, [italy], confidence=95)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="checkpoint: cannot write"):
        quiet(llama, scores, [italy], checkpoint=tmp_path / "file")
    assert asked == []


def test_exams_that_are_refused(mini: Survey, human: HumanAnswers) -> None:
    ireland, italy = mini.target("Ireland"), mini.target("Italy")
    other = replace(mini, items=mini.items[1:], factor_models=mini.factor_models[1:], published=())
    for change, message in (
        ({"targets": {}}, "targets: expected region → target, one or more, got none"),
        ({"targets": {"Ireland": italy}}, "exam 'e': region 'Ireland': its target is of 'Italy'"),
        ({"targets": {"Italy": italy, "ITA": italy}}, "duplicate region in targets: 'Italy'"),
        ({"targets": {"Italy": "Italy"}}, "region 'Italy': target: expected Target"),
        ({"targets": {"Italy": italy, "Ireland": ScoresTarget(ireland, "L2")}}, "expected one loss for all regions"),
        ({"norm": "L3"}, "norm: expected 'L1' or 'L2'"),
        ({"orders": "random"}, "orders: expected one of 'forward', 'reversed', 'both', got 'random'"),
        ({"held_out": "people"}, "held_out: expected one of '', 'factors'"),
        ({"scored": ["Japan"]}, "scored: no target for region 'Japan'"),
        ({"scored": "Italy"}, "scored: expected a list of one region or more, got 'Italy'"),
        ({"scored": ["Italy", "ITA"]}, "duplicate region in scored: 'Italy'"),
        ({"name": " "}, "exam: name"),
        ({"human": human.select(regions=["Japan"])}, "no human answers for region 'Italy'"),
        ({"survey": other, "targets": {"Italy": SharesTarget.of(human, "Italy")}}, "survey 'mini' has no item 'boss'"),
    ):
        with pytest.raises(ValueError, match=message):
            Exam(**{"name": "e", "survey": mini, "targets": {"Italy": italy}, **change})  # type: ignore[arg-type]
    renamed = replace(
        mini,
        items=tuple(replace(item, id=f"Q{i}") for i, item in enumerate(mini.items)),
        factor_models=(),
        published=(),
    )
    strange = HumanAnswers(renamed, REGIONS, SHARES, np.full((3, 4), 1.0))
    with pytest.raises(ValueError, match="exam 'e': human: answers of another survey: none of their items"):
        Exam("e", mini, {"Italy": italy}, human=strange)
    boss = mini.items[0]
    turned = replace(boss, options=tuple(replace(o, value=6 - o.value) for o in boss.options))
    other_way = HumanAnswers(
        replace(renamed, items=(turned, *mini.items[1:])), REGIONS, SHARES, np.full((3, 4), 1.0)
    )  # options are told apart by place: shares of such a file would be read upside down
    with pytest.raises(
        ValueError, match=r"item 'boss' has options of the values 5, 4, 3, 2, 1 in the human answers and 1"
    ):
        Exam("e", mini, {"Italy": italy}, human=other_way)
    for entry, message in (
        ((" ", Condition()), "method: expected a text"),
        (("m", "persona"), "entry 'm': condition: expected Condition"),
        (("m", Condition(), "Italy", -1), "seed: expected a whole number of at least 0"),
        (("m", Condition(), "Italy", 0, -1.0), "forward_tokens: expected a number from 0 up"),
    ):
        with pytest.raises(ValueError, match=message):
            Entry(*entry)


@pytest.mark.usefixtures("asked")
def test_regions_may_be_called_by_any_name(llama: LM, mini: Survey) -> None:
    exam = Exam("e", mini, {"ITA": mini.target("Italy")})
    assert exam.regions == ("Italy",)
    assert {row["region"] for row in quiet(llama, exam, [Entry("p", as_region("Italy"), "IT")]).rows} == {"Italy"}


def test_entries_of_what_was_found() -> None:
    class Found:
        condition, forward_tokens, wall_seconds, seed = Condition("x"), 1200, 3.5, 4

    class Trained:
        condition, forward_tokens, seconds = Condition("y"), 7.0, 2.0

    entry = Entry.of("de", Found(), "India")
    assert (entry.forward_tokens, entry.seconds, entry.seed, entry.region) == (1200, 3.5, 4, "India")
    assert Entry.of("oracle", Trained(), "India", 2).seconds == 2.0
