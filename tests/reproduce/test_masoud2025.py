"""masoud2025: what its conditions are, the plan against what was spent, runs that are broken off, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from softde import DE, LM, Condition, SoftPrompt, administer, align
from softde.abilities import Quiz, make_quiz, quiz_item
from softde.reproduce import Outcome, Study, masoud2025, plan, run
from softde.space import PromptSpace
from softde.surveys import Survey, distance, load_survey
from softde.surveys.human import Respondents
from softde.surveys.nearest_respondent import nearest_respondent
from tests.reproduce.conftest import steps_of, values

PADDING = 1.03  # the longest row of a padded forward over the shortest, see softde.lm.paths
SETTINGS: dict[str, Any] = {
    "regions": ("Ireland", "Italy"), "edition": "2020", "k": 2, "budget": 24, "population": 8,
    "num_virtual_tokens": 3, "seeds": (0, 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def quiz() -> Quiz:
    items = [
        quiz_item("a", "Who pours the tea?", ("the host", "the guest"), 0, "Ireland"),
        quiz_item("b", "When is lunch?", ("at noon", "at two", "at four"), 1, "Italy"),
        quiz_item("c", "Who speaks first?", ("the host", "the guest"), 1, "Ireland"),
    ]
    return make_quiz("tea", items)


@pytest.fixture(scope="module")
def study(llama: LM, mini: Survey, quiz: Quiz, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return masoud2025(llama, tmp_path_factory.mktemp("masoud") / "run", survey=mini, quizzes=[quiz], **SETTINGS)


@pytest.fixture(scope="module")
def outcome(study: Study) -> Outcome:
    return run(study, progress=False)


def test_vsm_2013_on_the_embedded_model(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"regions": ("CHN",), "budget": 8, "population": 8, "seeds": (3,), "k": 1}
    study = masoud2025("tiny", tmp_path / "run", orders="forward", **settings)
    found = run(study, plan(study, measure=False), progress=False)
    losses = {row["method"]: row["loss"] for row in found.table.rows if row["kind"] == "condition"}
    survey = load_survey("vsm13")
    target = survey.target("China", "2023")
    for method, prompt in (
        ("unprompted", None),
        ("DE", SoftPrompt.load(study.folder / "runs/de-china-3/prompt.safetensors")),
    ):
        answers = administer(survey, study.lm, prompt, orders="forward")
        assert losses[method] == pytest.approx(float(distance(answers.scores(), target)), abs=1e-3)
    assert losses["DE"] < losses["unprompted"]


def test_examples_are_the_nearest_respondents_answers_or_those_of_humans(
    study: Study, mini: Survey, llama: LM, tmp_path: Path
) -> None:
    given = {entry.region: entry.condition for step in study.steps for entry in step.like if entry.method == "ICL"}
    for region, condition in given.items():
        assert isinstance(condition, Condition) and condition.examples is not None and region is not None
        answers = dict(zip(mini.item_ids, nearest_respondent(mini, mini.target(region)).tolist(), strict=True))
        shown = condition.examples.by_item
        assert {item: len(some) for item, some in shown.items()} == dict.fromkeys(mini.item_ids, 2)
        assert all(e.option == answers[e.item.id] != () and e.item.id != i for i, some in shown.items() for e in some)
    people = Respondents(mini, np.array([[4, 0, 2, 1], [0, 4, 0, 0]]), np.array(["Ireland", "Italy"]), np.ones(2))
    human = people.shares("made up")
    other = masoud2025(llama, tmp_path / "run", survey=mini, human=human, **SETTINGS)
    assert "answers of humans" in other.ours and "nearest to the published scores" in study.ours
    (ireland, _) = [entry for step in other.steps for entry in step.like if entry.method == "ICL"]
    options = {e.item.id: e.option for some in ireland.condition.examples.by_item.values() for e in some}
    assert options == {"boss": 4, "time": 0, "nerves": 2, "proud": 1}


def test_de_is_align_with_the_papers_optimiser(llama: LM, mini: Survey, outcome: Outcome) -> None:
    (found,) = [e for e in outcome.entries if (e.method, e.region, e.seed) == ("DE", "Italy", 1)]
    space, de = PromptSpace.random(llama, 3), DE(8, "rand1bin", 0.5, 0.9)
    result = align(llama, mini, mini.target("Italy", "2020"), space, de, 24, 1, progress=False)
    assert isinstance(found.condition, Condition) and found.condition.prompt is not None
    assert torch.equal(found.condition.prompt.embeddings, result.prompt.embeddings)
    assert found.forward_tokens == result.forward_tokens


def test_the_plan_says_what_is_then_spent(study: Study, outcome: Outcome) -> None:
    del outcome
    spent = steps_of(study)
    made = plan(study)
    assert [line.name for line in made.lines] == [
        "unprompted", "ICL, Ireland", "ICL, Italy", "DE, Ireland, seed 0", "DE, Ireland, seed 1", "DE, Italy, seed 0",
        "DE, Italy, seed 1",
    ]  # fmt: skip
    assert all(line.done for line in made.lines) and made.seconds_left == 0
    for line in made.lines[:3]:
        assert line.found == spent[line.name]["found_tokens"] == 0
        assert line.asked <= spent[line.name]["asked_tokens"] <= PADDING * line.asked
    before = study.lm.plan(study.exams[0].survey).prefix_tokens  # computed once, which no table counts
    for line in made.lines[3:]:
        folder = study.folder / "runs" / line.name.replace(", seed", "").replace(", ", "-").replace(" ", "-").lower()
        log = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
        assert log[0]["tokens"] * 24 / 8 == line.found - before  # a generation in which nothing is rejected
        assert log[0]["tokens"] < spent[line.name]["found_tokens"] <= line.found - before
    assert [rate.work for rate in made.rates] == ["asking questions", "scoring candidates"]
    assert all(rate.tokens > 0 and 0 < rate.seconds < 60 for rate in made.rates)
    fresh = plan(replace(study, folder=study.folder / "nothing"))
    assert fresh.seconds_left > 0 and fresh.seconds_left == pytest.approx(sum(line.seconds for line in fresh.lines))
    text = str(fresh)
    assert (
        "to find" in text and "Measured just now: asking questions" in text and not (study.folder / "nothing").exists()
    )
    bare = plan(study, measure=False)
    assert not bare.rates and np.isnan(bare.lines[-1].seconds)
    assert [line.found for line in bare.lines] == [line.found for line in made.lines]


def test_the_folder_holds_the_table_and_abilities(study: Study, outcome: Outcome) -> None:
    text = (study.folder / "table.md").read_text()
    assert text == outcome.to_markdown()
    for line in ("| unprompted |", "| DE |", "*best integer respondent*", "As in the paper:", "Ours, or not known"):
        assert line in text
    assert "3 virtual tokens, placement late, rand1bin of 8 with F 0.5 and CR 0.9, 24 candidates" in text
    header, *rows = (study.folder / "rows.csv").read_text().splitlines()
    assert {"exam", "method", "region", "seed", "loss", "found_tokens", "score_BOS"} <= set(header.split(","))
    assert len(rows) == len(outcome.table.rows) and (study.folder / "rows.parquet").exists()
    found = outcome.abilities
    assert found is not None
    assert found.conditions == (
        "unprompted", "DE, Ireland, seed 0", "DE, Ireland, seed 1", "DE, Italy, seed 0", "DE, Italy, seed 1",
    )  # fmt: skip
    own = {(one.region, one.method): one for one in outcome.own_questions()}
    assert own.keys() == {("Ireland", "DE"), ("Italy", "DE")}
    right = [sheet.right for sheet in found.sheets[0]]
    assert own["Ireland", "DE"].questions == 2
    assert own["Ireland", "DE"].unprompted == right[0][[0, 2]].mean()
    assert own["Ireland", "DE"].share == np.mean([right[1][[0, 2]].mean(), right[2][[0, 2]].mean()])
    assert own["Italy", "DE"].share == np.mean([right[3][1], right[4][1]])
    assert "tea, Italy (1): unprompted" in str(outcome)


def test_broken_off_and_resumed_it_ends_in_the_same_table(
    llama: LM, mini: Survey, quiz: Quiz, outcome: Outcome, tmp_path: Path, broken_off: Callable[..., Any]
) -> None:
    def make() -> Study:
        return masoud2025(llama, tmp_path / "run", survey=mini, quizzes=[quiz], **SETTINGS)

    found, done = broken_off(make)
    assert values(found) == values(outcome)
    assert found.abilities is not None and outcome.abilities is not None
    assert found.abilities.records() == outcome.abilities.records()
    assert len(done) >= 5 and {1, 2} & set(done) and max(done) > 3, done  # among examples, and in searches
    again, none = broken_off(make)  # four forwards would end it
    assert values(again) == values(outcome) and not none


def test_more_seeds_regions_and_candidates_go_on_in_the_same_folder(llama: LM, mini: Survey, tmp_path: Path) -> None:
    small = {**SETTINGS, "regions": ("Ireland",), "seeds": (0,), "budget": 16}
    run(masoud2025(llama, tmp_path / "run", survey=mini, **small), progress=False)
    larger = {**small, "regions": ("Ireland", "Italy"), "budget": 24}
    study = masoud2025(llama, tmp_path / "run", survey=mini, **larger)
    assert [line.done for line in plan(study, measure=False).lines] == [False] * 5
    went_on = run(study, progress=False)
    alone = run(masoud2025(llama, tmp_path / "alone", survey=mini, **larger), progress=False)
    assert values(went_on) == values(alone)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"regions": ("Irland", "Italy")}, "unknown region 'Irland'; did you mean Ireland"),
        ({"regions": ("Ireland", "Ireland")}, "duplicate region in regions: 'Ireland'"),
        ({"edition": "2015"}, "unknown edition '2015'"),
        ({"budget": 4}, "budget counts candidates scored and must be at least the population size, which is 8"),
        ({"strategy": "rand"}, "Unknown strategy 'rand'"),
        ({"num_virtual_tokens": 0}, "num_virtual_tokens: expected 1 or more, got 0"),
        ({"placement": "middle"}, "placement: expected one of front"),
        ({"orders": "sideways"}, "orders: expected one of forward, reversed, both, got 'sideways'"),
        ({"seeds": ()}, "seeds: expected one whole number or more"),
        ({"seeds": (1, 1)}, "seeds: expected one whole number or more, each once"),
        ({"k": 4}, "k: expected at most 3 examples for item 'boss'"),
        ({"quizzes": ["tea.csv"]}, "quizzes: expected Quiz, got 'tea.csv'; softde.load_quiz reads one"),
        ({"human": "nowhere.csv"}, "nowhere.csv"),
    ],
)
def test_bad_input_is_refused_before_the_model_is_loaded(
    mini: Survey, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    def load() -> LM:
        raise AssertionError("loaded")

    with pytest.raises(ValueError, match=message):
        masoud2025(load, tmp_path / "run", survey=mini, **{**SETTINGS, **wrong})
    assert not (tmp_path / "run").exists()


def test_a_folder_of_something_else_is_refused_before_the_model_is_loaded(
    mini: Survey, study: Study, outcome: Outcome, llama: LM, tmp_path: Path
) -> None:
    del outcome

    def load() -> LM:
        raise AssertionError("loaded")

    with pytest.raises(ValueError, match='holds a design with other settings \\(placement was "late", now "front"\\)'):
        masoud2025(load, study.folder, survey=mini, **SETTINGS, placement="front")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files \(notes.txt\) and no study.json of a design"):
        masoud2025(load, tmp_path, survey=mini, **SETTINGS)
    with pytest.raises(ValueError, match="notes.txt is a file"):
        masoud2025(load, tmp_path / "notes.txt", survey=mini, **SETTINGS)
    other = replace(study, settings={**study.settings, "design": "choenni2024"})
    with pytest.raises(ValueError, match='design was "masoud2025", now "choenni2024"'):
        run(other, progress=False)
    with pytest.raises(ValueError, match="there is no folder"):
        masoud2025(str(tmp_path / "nothing"), tmp_path / "run", survey=mini, **SETTINGS)
    assert masoud2025(lambda: llama, tmp_path / "run", survey=mini, **SETTINGS).lm is llama


def test_progress_says_the_step_its_loss_and_what_is_left(
    llama: LM, mini: Survey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**SETTINGS, "seeds": (0,), "regions": ("Italy",), "budget": 8}
    study = masoud2025(llama, tmp_path / "run", survey=mini, **settings)
    made = plan(study)
    run(study, made)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("step 1 of 3: unprompted: mini: loss ") and "; about 0:0" in said[0]
    assert "step 3 of 3: DE, Italy, seed 0" in said and said[-1].startswith(
        "step 3 of 3: DE, Italy, seed 0: mini: loss"
    )
    assert (study.folder / "plan.txt").read_text() == f"{made}\n"
