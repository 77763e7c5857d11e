"""Stage 2: answers are those of one forward per question; interruptions, what is refused, and what is left out."""

from __future__ import annotations

import importlib
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softde.baselines import persona
from softde.baselines.culture_spa import Answers, Question, answer, as_survey, aware, load_answers, unaware
from softde.condition import Condition
from softde.lm import LM
from softde.readouts import Argmax, Expected, Generated, Sampled
from softde.surveys.examples import Example, Examples
from tests.culture_spa.conftest import REGIONS
from tests.reference import slow_lm

Asked = tuple[Question, ...]
module = importlib.import_module("softde.baselines.culture_spa.answer")  # its function has the same name


@pytest.mark.parametrize("order", ["forward", "reversed"])
def test_answers_are_those_of_one_forward_per_question(llama: LM, questions: Asked, tmp_path: Path, order: str) -> None:
    some = questions[:7]
    found = answer(llama, some, {"Kenya": persona("Kenya")}, tmp_path / "a.jsonl", order=order, batch=3, progress=False)
    assert found.systems == {"": unaware().system, "Kenya": persona("Kenya").system}
    for region, system in found.systems.items():
        slow = slow_lm.answers(llama, as_survey(some), order, system=system)
        expected = {q.id: int(np.argmax(p)) for q, (p, _) in zip(some, slow, strict=True)}
        assert found.given[region] == expected
    assert found.forward_tokens > 2 * 7 * 50
    assert found.order == order


def test_what_cannot_be_asked_is_named_and_left_out(
    llama: LM, questions: Asked, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = Question("long", "Is it? " * 900, ("yes", "no"))
    short = Question("short", "Is it so? " * 420, ("yes", "no"))  # fits alone, but not beside the second region's text
    regions = {"Kenya": persona("Kenya"), "Japan": Condition("You are from Japan. " * 60)}
    with caplog.at_level(logging.WARNING):
        found = answer(
            llama, (*questions[:2], long, short, questions[-1]), regions, tmp_path / "a.jsonl", progress=False
        )
    assert set(found.left_out) == {"long", "short", "scale"}
    assert set(found.given["Japan"]) == {q.id for q in questions[:2]}
    assert "3 of 5 questions cannot be asked of this model and are left out: long, short, scale" in caplog.text
    assert "cannot be asked: long, short, scale" in str(found)


def test_an_interrupted_file_goes_on_to_the_same_bytes(
    llama: LM, questions: Asked, answers_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, calls = tmp_path / "a.jsonl", module.administer, []

    def stopping(*given: Any, **more: Any) -> Any:
        calls.append(given)
        if len(calls) in (3, 11):
            raise KeyboardInterrupt
        return real(*given, **more)

    def go() -> Answers:
        return answer(llama, questions, REGIONS, path, Condition(), batch=8, progress=False)

    monkeypatch.setattr(module, "administer", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            go()
        with path.open("a") as file:
            file.write('{"question": "1.0", "regi')
    found = go()
    assert path.read_bytes() == answers_file.read_bytes()
    assert len(calls) == 5 * 4 + 3 + 4  # two of five batches of four conditions were interrupted
    assert go() == found
    assert len(calls) == 27
    with pytest.raises(ValueError, match=r"readout: \"Argmax\(\)\" there, \"Sampled\(n=1, seed=0\)\" now"):
        answer(llama, questions, REGIONS, path, Condition(), Sampled(1), batch=8, progress=False)
    with pytest.raises(ValueError, match="questions: "):
        answer(llama, questions[1:], REGIONS, path, Condition(), batch=8, progress=False)


def test_drawn_answers_share_their_luck_over_regions_and_not_over_batches(
    llama: LM, questions: Asked, tmp_path: Path
) -> None:
    twins = {"one": persona("Kenya"), "two": persona("Kenya")}
    copies = [Question(f"{i}", questions[0].text, questions[0].options) for i in range(40)]
    found = answer(llama, copies, twins, tmp_path / "a.jsonl", readout=Sampled(1, 5), batch=8, progress=False)
    assert found.given["one"] == found.given["two"]
    counts = np.bincount(list(found.given["one"].values()), minlength=4) / 40
    ((p, _),) = slow_lm.answers(llama, as_survey(copies[:1]), "forward", system=persona("Kenya").system)
    assert np.abs(counts - p).max() < 3 * np.sqrt(0.25 / 40)
    assert len(set(found.given["one"].values())) > 1
    again = answer(llama, copies, twins, tmp_path / "b.jsonl", readout=Sampled(1, 6), batch=8, progress=False)
    assert again.given != found.given


def test_written_answers_that_name_no_option_are_no_answers(llama: LM, questions: Asked, tmp_path: Path) -> None:
    readout = Generated(max_new_tokens=2, parser=_first_is_none)
    found = answer(
        llama, questions[:3], {"Kenya": persona("Kenya")}, tmp_path / "a.jsonl", readout=readout, progress=False
    )
    assert set(found.given["Kenya"]) == {questions[1].id, questions[2].id}
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [set(row) for row in rows[1:3]] == [
        {"question", "region", "answer", "text"},
        {"question", "region", "answer"},
    ]
    assert rows[1]["answer"] is None


def _first_is_none(_: str, item: Any) -> int | None:
    return None if item.id == "1.0" else 1


def test_what_makes_a_model_aware() -> None:
    assert aware("USA").system == (
        "You are a real person who grew up and lives in the United States, with values of your own. "
        "Answer the survey as you yourself see things."
    )
    assert aware("Kenya", "A {adjective} person.").system == "A Kenyan person."
    assert aware("Atlantis", "From {region}").name == "culture-aware Atlantis"
    with pytest.raises(ValueError, match="region"):
        aware("Kenya", "You are a person.")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"readout": Expected()}, r"readout: expected one that gives one answer, such as Argmax\(\)"),
        ({"readout": Sampled(2)}, "readout: expected one that gives one answer"),
        ({"order": "both"}, "order: expected one of forward, reversed, got 'both'"),
        ({"regions": {}}, "one region or more; there is nothing to compare"),
        ({"questions": ()}, "expected one question or more"),
        ({"questions": (Question("a", "A?", ("x", "y")),) * 2}, "expected ids that differ"),
        ({"regions": ["Kenya"]}, "regions: expected a condition by region, .* got list"),
        ({"regions": {"": Condition("Tea."), **REGIONS}}, "regions: .* none '', .* given as unaware="),
        ({"regions": {"Kenya": "Kenya"}}, "condition of Kenya: expected Condition, got 'Kenya'"),
        ({"out": "a.csv"}, r"expected the name of a \.jsonl file"),
        ({"batch": 0}, "batch: expected a whole number of at least 1"),
        ({"readout": Argmax}, r"write Argmax\(\)"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_asked(
    llama: LM, questions: Asked, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"questions": questions, "regions": REGIONS, "out": "a.jsonl", **wrong}
    asked, regions, out = given.pop("questions"), given.pop("regions"), tmp_path / given.pop("out")
    with pytest.raises(ValueError, match=message):
        answer(llama, asked, regions, out, progress=False, **given)
    assert not list(tmp_path.iterdir())


def test_a_condition_that_holds_more_than_a_text_is_refused(llama: LM, questions: Asked, tmp_path: Path) -> None:
    item = as_survey(questions).items[0]
    shown = Condition(examples=Examples({questions[1].id: (Example(item, 0),)}))
    with pytest.raises(ValueError, match="condition of Kenya: expected a system text alone, .* got examples"):
        answer(llama, questions, {"Kenya": shown}, tmp_path / "a.jsonl", progress=False)


# -- files of others ---------------------------------------------------------------------------------------------------


def test_answers_to_other_questions_are_refused(answers_file: Path, questions: Asked, answers: Answers) -> None:
    assert load_answers(answers_file, questions) == answers
    for others in (questions[:-1], questions[::-1]):
        with pytest.raises(
            ValueError, match=r"answers\.jsonl holds answers to other questions; give those it was made"
        ):
            load_answers(answers_file, others)


def test_faulty_rows_are_named_and_the_others_kept(
    answers_file: Path, questions: Asked, answers: Answers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = answers_file.read_text().splitlines()
    lines[1] = '{"question": '
    lines[2] = json.dumps({"question": "1.3", "region": "", "answer": 9})
    lines[3] = json.dumps({"question": "nine", "region": "", "answer": 1})
    lines[4] = json.dumps({"question": "2.3", "region": "Mars", "answer": 1})
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    with caplog.at_level(logging.WARNING):
        found = load_answers(path, questions)
    assert caplog.messages[0].startswith(
        "a.jsonl: 4 rows left out: line 2 (no JSON); line 3 (answer '9' to '1.3' is none of"
    )
    assert "line 4 (no question 'nine'); line 5 (region 'Mars' is none of this file)" in caplog.messages[0]
    lost = {json.loads(line)["question"] for line in answers_file.read_text().splitlines()[1:5]}
    assert found.given[""] == {q: a for q, a in answers.given[""].items() if q not in lost}
    assert found.given["Kenya"] == answers.given["Kenya"]


def test_answer_files_of_others_by_region(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = (Question("Q0", "A?", ("a", "b", "c")), Question("Q1", "B, on a scale?", ("0", "1", "2")))

    def theirs(name: str, *given: object) -> Path:
        rows = [{"Q_id": f"Q{i}", "question": "?", "answer": value} for i, value in enumerate(given)]
        (tmp_path / name).write_text(json.dumps(rows))
        return tmp_path / name

    nobody, kenya = theirs("nobody.json", "I choose 3. c", 0), theirs("kenya.json", " 1", "2")
    found = load_answers({"": nobody, "Kenya": kenya}, asked)
    assert found.given == {"": {"Q0": 2, "Q1": 0}, "Kenya": {"Q0": 0, "Q1": 2}}  # from 0 where options begin with "0"
    with caplog.at_level(logging.WARNING):
        load_answers({"": nobody, "Kenya": theirs("x.json", "I am unsure", "1")}, asked)
    assert caplog.messages == ["x.json: 1 rows left out: row 1 (answer 'I am unsure' to 'Q0' is none of 3 options)"]
    with pytest.raises(ValueError, match=r"of nobody in particular \(region ''\) and of a region, got"):
        load_answers({"Kenya": kenya}, asked)


def test_numbers_are_read_with_their_sign_and_none_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = tuple(Question(str(i), f"{i}?", ("a", "b", "c")) for i in range(6))
    given = [-1, "-2", 1.7, 2.0, "3", True]  # a survey's codes for no answer, a mean, three ways to say a number
    rows: list[dict[str, object]] = [{"Q_id": i, "answer": value} for i, value in enumerate(given)]
    (tmp_path / "a.json").write_text(json.dumps([*rows, {"Q_id": [], "answer": 1}]))
    with caplog.at_level(logging.WARNING):
        found = load_answers({"": tmp_path / "a.json", "Kenya": tmp_path / "a.json"}, asked)
    assert found.given["Kenya"] == {"3": 1, "4": 2}
    assert caplog.messages[0].startswith("a.json: 5 rows left out: row 1 (answer '-1' to '0' is none of 3 options)")
    assert "row 7 (no question '[]')" in caplog.messages[0]


def test_a_file_that_is_not_finished_is_said(
    answers_file: Path, questions: Asked, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = answers_file.read_text().splitlines(keepends=True)
    cut = lines.index(next(line for line in lines if '"batch": 1,' in line)) - 1  # the last of 16 questions lacks one
    (tmp_path / "a.jsonl").write_text("".join(lines[:cut]))
    with caplog.at_level(logging.WARNING):
        load_answers(tmp_path / "a.jsonl", questions)
    lacking = len(questions) - 15
    assert [message.split(": ")[1] for message in caplog.messages] == [
        f"{lacking} of {len(questions)} questions lack the answer of a region"
    ]
    caplog.clear()
    load_answers(answers_file, questions)
    assert not caplog.messages


def test_stored_answers_of_llama_3_are_read(shared_data: Path) -> None:
    folder = shared_data / "culturespa"
    if not folder.is_dir():
        pytest.skip(f"no CultureSPA data at {folder}")
    records: Sequence[dict[str, Any]] = json.loads((folder / "wvs_questions.json").read_text())
    asked = tuple(Question(r["Q_id"], r["question"], tuple(r["option_lst"])) for r in records)
    stored = folder / "llama-3-8b-instruct-answers"
    files = {"": stored / "wvs_result_culture_unaware_0.json", "KEN": stored / "wvs_result_culture_aware_KEN_0.json"}
    found = load_answers(files, asked)
    for region, file in files.items():
        for row in json.loads(file.read_text()):
            numbers, first = re.findall(r"\d+", row["answer"]), int(row["option_lst"][0] != "0")
            inside = bool(numbers) and 0 <= int(numbers[0]) - first < len(row["option_lst"])
            assert found.given[region].get(row["Q_id"]) == (int(numbers[0]) - first if inside else None)
    assert [len(found.given[region]) for region in files] == [251, 255]
