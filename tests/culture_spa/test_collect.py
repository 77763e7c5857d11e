"""Stage 3: what is kept, by hand; its file; and the kept answers as a loss for a soft prompt."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest

import softde
from softde.baselines.culture_spa import (
    Answers,
    Collected,
    Collection,
    Question,
    collect,
    collected_answers,
    collected_target,
    load_collection,
)
from softde.condition import Condition
from softde.lm import LM
from softde.surveys.item_targets import CultureSPATarget
from tests.culture_spa.conftest import REGIONS

A, B, C = (Question(name, f"{name}?", ("x", "y", "z"), "Tea") for name in "ABC")
GIVEN = {"": {"A": 0, "B": 1}, "Kenya": {"A": 2, "B": 1, "C": 0}, "Japan": {"A": 1, "B": 0}, "Peru": {"C": 1}}
TOLD = {"": None, "Kenya": "From Kenya.", "Japan": "From Japan.", "Peru": "From Peru."}


def test_a_question_is_kept_where_the_answer_changes() -> None:
    found = collect([A, B, C], Answers(GIVEN, TOLD, {}))
    assert found.rows == (
        Collected(A, "Kenya", unaware=0, aware=2), Collected(A, "Japan", 0, 1), Collected(B, "Japan", 1, 0),
    )  # fmt: skip
    assert found.compared == {"Kenya": 2, "Japan": 2, "Peru": 0}
    assert found.regions == ("Kenya", "Japan")
    assert [line.split() for line in str(found).splitlines()] == [
        ["region", "compared", "kept", "share"], ["Kenya", "2", "1", "50.0%"], ["Japan", "2", "2", "100.0%"],
        ["Peru", "0", "0", "0.0%"],
    ]  # fmt: skip
    with pytest.raises(ValueError, match="region 'Peru' kept no question; known: Kenya, Japan"):
        found.of("Peru")
    with pytest.raises(ValueError, match="answers: they are to other questions"):
        collect([A, B, C], Answers(GIVEN, TOLD, {}, questions="0" * 64))


def test_what_the_model_changes(collection: Collection, answers: Answers) -> None:
    changed = {(r, q) for r in REGIONS for q, a in answers.given[r].items() if a != answers.given[""][q]}
    assert {(row.region, row.question.id) for row in collection.rows} == changed
    assert len(changed) > 10
    assert collection.systems == {region: condition.system for region, condition in REGIONS.items()}


def test_its_file_is_read_back_and_is_whole(answers: Answers, questions: tuple[Question, ...], tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    found = collect(questions, answers, path)
    assert load_collection(path) == found
    again = path.read_bytes()
    collect(questions, answers, path)
    assert path.read_bytes() == again
    assert not list(tmp_path.glob(".*"))


def test_files_of_others_and_their_faulty_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    theirs = {"Q_id": "Q0", "question": "A?", "option_lst": ["x", "y"], "country": "KEN", "class": "Tea", "answer": "2"}
    rows = [
        theirs, "{", {**theirs, "answer": "3", "Q_id": "Q2"}, {**theirs, "country": ""}, theirs,
        {**theirs, "question": "B?"}, {**theirs, "Q_id": "Q1", "option_lst": ["x", "x"]},
        {**theirs, "country": "JPN", "answer": "1"},
    ]  # fmt: skip
    path = tmp_path / "theirs.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    silent = load_collection(path)
    assert len(collected_target(silent, "JPN")[0].items) == 1  # a soft prompt can do without
    with pytest.raises(ValueError, match="does not say what the model is told in 'JPN'; give systems="):
        silent.told("JPN")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        found = load_collection(path, {"KEN": "From Kenya.", "JPN": "From Japan."})
    question = Question("Q0", "A?", ("x", "y"), "Tea")
    assert found.rows == (Collected(question, "KEN", -1, 1), Collected(question, "JPN", -1, 0))
    (message,) = caplog.messages
    assert message.startswith(
        "theirs.jsonl: 6 rows left out: line 2 (no JSON); line 3 (answer '3' is none of 2 options)"
    )
    assert "line 4 (no region); line 5 (id 'Q0' of region 'KEN' was there before); line 6 (id 'Q0'" in message
    path.write_text("{}\n")
    with pytest.raises(ValueError, match="no row is a question that a region answers differently"):
        load_collection(path)


def test_ids_may_be_numbers_and_options_of_others_lose_theirs(tmp_path: Path) -> None:
    theirs = {"Q_id": 7, "question": "A?", "option_lst": ["1. x", "2. y"], "country": "KEN", "answer": 2}
    (tmp_path / "theirs.json").write_text(json.dumps([theirs]))
    assert load_collection(tmp_path / "theirs.json").rows == (Collected(Question("7", "A?", ("x", "y")), "KEN", -1, 1),)


def test_the_order_of_options_goes_from_answers_to_the_file(tmp_path: Path) -> None:
    found = collect([A, B, C], Answers(GIVEN, TOLD, {}, order="reversed"), tmp_path / "c.jsonl")
    assert found.order == load_collection(tmp_path / "c.jsonl").order == "reversed"


def test_kept_answers_are_those_of_one_sure_human_per_region() -> None:
    human = collected_answers(collect([A, B, C], Answers(GIVEN, TOLD, {})))
    assert human.regions == ("Kenya", "Japan")
    nan = [math.nan] * 3
    np.testing.assert_array_equal(human.shares, [[[0, 0, 1], nan], [[0, 1, 0], [1, 0, 0]]])
    assert CultureSPATarget.of(human, "Japan").majority == (1, 0)


def test_the_loss_is_the_cross_entropy_of_the_kept_answers() -> None:
    collection = collect([A, B, C], Answers(GIVEN, TOLD, {}))
    survey, target = collected_target(collection, "Japan")
    assert survey.item_ids == ("A", "B")
    p = np.array([[[0.2, 0.5, 0.3], [0.1, 0.6, 0.3]]])
    loss = target.loss(target.errors(target.values(survey, p)))
    np.testing.assert_allclose(loss, (-math.log2(0.5) - math.log2(0.1)) / 2)  # ½(−log₂ p(A = y) − log₂ p(B = x))
    assert "KL" in collected_target(collection, "Japan")[1].label() or "Kullback" in target.label()
    assert collected_target(collection, "Japan", held_out=["B"])[1].held_out == ("B",)
    small, _ = collected_target(collection, "Japan", most=1, seed=1)
    assert len(small.items) == 1


def test_a_soft_prompt_can_be_aligned_to_them(llama: LM, collection: Collection) -> None:
    survey, target = collected_target(collection, "Kenya", most=4)
    before = llama.weights_sample
    result = softde.align(
        llama, survey, target, softde.PromptSpace.random(llama, num_virtual_tokens=4),
        optimizer=softde.DE(population_size=8), budget=48, seed=0, orders="forward", progress=False,
    )  # fmt: skip
    best = [line["best"] for line in result.trajectory]
    assert best[-1] < best[0]

    def loss(condition: Condition) -> float:
        p = softde.administer(survey, llama, condition, "forward").probabilities[None]
        return float(target.loss(target.errors(target.values(survey, p)))[0])

    assert loss(result.condition) < 0.8 * loss(Condition())
    assert LM(llama.model, llama.tokenizer).weights_sample == before
