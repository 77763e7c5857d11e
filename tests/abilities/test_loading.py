"""Files as quizzes: every layout, how answers are given, rows that are left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from softde.abilities import Columns, Quiz, by_letter, by_text, from_one, from_zero, load_quiz, make_quiz, quiz_item

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return put


def rights(quiz: Quiz) -> list[str]:
    return [item.options[i].text for item, i in zip(quiz.survey.items, quiz.right, strict=True)]


# ---- CulturalBench ---------------------------------------------------------------------------------------------------


def test_culturalbench_easy(easy_file: Path) -> None:
    quiz = load_quiz(easy_file)
    assert quiz.name == "CulturalBench-Easy"
    assert rights(quiz) == ["oats, rolled", "bread\nand wine", "the eldest", "a hymn"]
    assert [item.topic for item in quiz.survey.items] == ["Orn", "Orn", "Lomé-on-Sea", "Orn"]
    assert quiz.survey.items[0].options[3].text == "None"  # a text as any other, not a missing cell
    assert quiz.survey.item_ids == quiz.questions == ("2", "3", "5", "7")  # lines of the file
    assert [[o.value for o in item.options] for item in quiz.survey.items[:2]] == [[0, 0, 1, 0], [0, 1, 0, 0]]
    assert len(quiz.left_out) == 1 and quiz.left_out[0].startswith("line 6: duplicate option text")
    assert not quiz.judged and quiz.chance().tolist() == pytest.approx([0.25] * 4)


def test_culturalbench_hard_makes_one_question_of_four_judgements(hard_file: Path) -> None:
    quiz = load_quiz(hard_file)
    assert quiz.judged and quiz.questions == ("11", "13")
    assert quiz.groups == ("11",) * 4 + ("13",) * 4
    assert rights(quiz) == ["no", "no", "yes", "no", "yes", "no", "no", "no"]
    assert quiz.survey.items[2].text.splitlines() == [
        "Which grain is boiled for breakfast in the valley of Orn?",
        "Proposed answer: oats, rolled",
        "Is the proposed answer right?",
    ]
    assert quiz.subjects == ("Orn", "Lomé-on-Sea")
    assert quiz.chance().tolist() == pytest.approx([1 / 16] * 2)
    # the judgement without TRUE or FALSE takes its question with it, so that no question has only three
    assert quiz.left_out == (
        "line 10: its question lacks line 12; left out",
        "line 11: its question lacks line 12; left out",
        "line 12: column 'answer': expected TRUE or FALSE, got 'perhaps'; left out",
        "line 13: its question lacks line 12; left out",
    )


@pytest.mark.parametrize("lost", ['{"question_idx": 1, "prompt_q', '{"prompt_question": "1?", "prompt_option": "c"}'])
def test_a_judgement_lost_with_its_question_number_takes_its_question_along(write: Write, lost: str) -> None:
    rows = [
        json.dumps({"question_idx": i, "prompt_question": f"{i}?", "prompt_option": o, "answer": o == "b"})
        for i in range(3)
        for o in "abcd"
    ]
    rows[6] = lost
    quiz = load_quiz(write("hard.jsonl", "\n".join(rows)))
    assert quiz.questions == ("0", "2") and len(quiz.groups) == 8
    assert [row.partition(":")[0] for row in quiz.left_out] == ["line 5", "line 6", "line 7", "line 8"]
    assert "its question lacks line 7" in quiz.left_out[0]


def test_a_judgement_is_put_in_the_words_given(write: Write) -> None:
    path = write("h.csv", "question_idx,prompt_question,prompt_option,answer\n1,What is {x}?,a {option},TRUE\n")
    quiz = load_quiz(path, judgement="<{option}> {question}", instruction="1 or 2!", name="braces")
    assert quiz.survey.items[0].text == "<a {option}> What is {x}?"
    assert (quiz.name, quiz.survey.instruction) == ("braces", "1 or 2!")
    with pytest.raises(
        ValueError, match=r"judgement: expected a text with the place '\{option\}', got 'x \{question\}'"
    ):
        load_quiz(path, judgement="x {question}")


# ---- MMLU and its like -----------------------------------------------------------------------------------------------

MMLU_ROWS = [
    {"question": "2 + 2?", "subject": "sums", "choices": ["3", "4", "5", "6"], "answer": 1},
    {"question": "3 - 3?", "subject": "sums", "choices": ["0", "1", "2", "3"], "answer": 0},
    {
        "question": "A whale is",
        "subject": "animals",
        "choices": ["a fish", "a mammal", "a bird", "a plant"],
        "answer": 1,
    },
]


def test_mmlu_as_json_lines_keeps_what_is_readable(write: Write) -> None:
    lines = [json.dumps(row) for row in MMLU_ROWS]
    lines.insert(1, '{"question": "torn')
    lines += ["[1, 2]", json.dumps({**MMLU_ROWS[0], "answer": 9}), json.dumps({**MMLU_ROWS[0], "choices": "none"})]
    lines += [json.dumps({**MMLU_ROWS[0], "question": " "}), "[" * 100_000]
    quiz = load_quiz(write("mmlu.jsonl", "\n".join(lines)))
    assert rights(quiz) == ["4", "0", "a mammal"]
    assert quiz.subjects == ("sums", "sums", "animals")
    assert [row.partition(":")[0] for row in quiz.left_out] == [f"line {i}" for i in (2, 5, 6, 7, 8, 9)]
    assert "not JSON" in quiz.left_out[0] and "expected an object" in quiz.left_out[1]
    assert "expected one of 4 options, got 9" in quiz.left_out[2]
    assert "expected a list of options, got 'none'" in quiz.left_out[3]
    assert "column 'question': expected a text, got ' '" in quiz.left_out[4]


def test_mmlu_in_every_layout_is_the_same_quiz(write: Write) -> None:
    def table(header: str, letter: Callable[[int], str], quoted: bool = False) -> str:
        rows = []
        for row in MMLU_ROWS:
            choices = f'"{row["choices"]}"' if quoted else ",".join(row["choices"])
            rows.append(f"{row['question']},{choices},{letter(row['answer'])},{row['subject']}")
        return "\n".join([header, *rows])

    letter = "ABCD".__getitem__
    files = [
        write("cais.json", json.dumps(MMLU_ROWS)),
        write("printed.csv", table("question,choices,answer,subject", str, quoted=True)),  # as pandas writes a list
        write("evals.csv", table("Question,A,B,C,D,Answer,Subject", letter)),
        write("global.csv", table("question,option_a,option_b,option_c,option_d,answer,subject", letter)),
        write("semicolon.csv", table("question,A,B,C,D,answer,subject", letter).replace(",", ";")),
    ]
    expected = load_quiz(files[0], name="m")
    for file in files[1:]:
        quiz = load_quiz(file, name="m")
        assert rights(quiz) == rights(expected), file.name
        assert [i.options for i in quiz.survey.items] == [i.options for i in expected.survey.items]
        assert quiz.subjects == expected.subjects


def test_mmlu_pro_has_ten_options(write: Write) -> None:
    row = {"question_id": 1, "question": "Which?", "options": [f"no. {i}" for i in range(10)], "answer": "J",
           "answer_index": 9, "category": "law"}  # fmt: skip
    quiz = load_quiz(write("pro.jsonl", json.dumps(row)))
    assert rights(quiz) == ["no. 9"] and quiz.subjects == ("law",)


def test_mmlu_without_a_header_in_a_folder(write: Write) -> None:
    write("test/geography_test.csv", '"Where; exactly, is Orn?","north, far",south,east,west,D\nAnd Lomé?,n,s,e,w,A\n')
    write("test/algebra_test.csv", "x + 1 = 2?,1,2,3,4,A\nbroken,1,2\n")
    folder = write("test/readme.txt", "no questions").parent
    quiz = load_quiz(folder)
    assert quiz.name == "test" and quiz.subjects == ("algebra", "geography", "geography")
    assert quiz.survey.item_ids == ("algebra 1", "geography 1", "geography 2")
    assert rights(quiz) == ["1", "west", "n"]
    assert quiz.left_out == ("algebra line 2: expected 6 cells, got 3; left out",)


# ---- files of one's own ----------------------------------------------------------------------------------------------


def test_columns_are_named_by_argument(write: Write) -> None:
    path = write(
        "own.csv", "nr,q,right,wrong1,wrong2,key,field\n1,Why?,so,no,,so,logic\n2,How?,yes,thus,well,thus,logic\n"
    )
    quiz = load_quiz(path, Columns("Q", ("right", "wrong1", "wrong2"), "key", "field"))
    assert rights(quiz) == ["so", "thus"] and quiz.subjects == ("logic", "logic")
    assert [len(item.options) for item in quiz.survey.items] == [2, 3]  # empty cells at the end are no options
    with pytest.raises(
        ValueError, match="own.csv: expected a column wrong3, got nr, q, right, wrong1, wrong2, key, field"
    ):
        load_quiz(path, Columns("q", ("right", "wrong3"), "key"))
    with pytest.raises(ValueError, match="own.csv: expected the columns of CulturalBench or MMLU, .*got nr, q, right"):
        load_quiz(path)
    with pytest.raises(ValueError, match="columns: expected options=.* or proposal=.*; got neither"):
        Columns("q")


@pytest.mark.parametrize(
    ("cell", "key", "number"),
    [("B", by_letter, 1), ("(b)", by_letter, 1), ("b.", by_letter, 1), ("D", by_letter, None), ("bee", by_letter, None),
     (" y ", by_text, 1), ("q", by_text, None), (2, from_zero, 2), ("2.0", from_zero, 2), (3, from_zero, None),
     (True, from_zero, None), (-1, from_zero, None), (3, from_one, 2), ("1", from_one, 0), (0, from_one, None),
     (4, from_one, None), ("x1", from_one, None)],
)  # fmt: skip
def test_keys(cell: object, key: Callable[..., int | None], number: int | None) -> None:
    assert key(cell, ["x", "y", "z"]) == number


def test_numbers_that_can_count_from_zero_or_one_are_refused_until_one_says_which(write: Write) -> None:
    rows = [{"question": f"{i}?", "choices": ["a", "b", "c"], "answer": i} for i in (1, 2)]
    path = write("n.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match=r"n.jsonl: column 'answer': .*more than one way \(from_zero, from_one\)"):
        load_quiz(path)
    assert rights(load_quiz(path, answers=from_zero)) == ["b", "c"]
    assert rights(load_quiz(path, answers=from_one)) == ["a", "b"]


def test_files_that_are_no_quiz(write: Write, tmp_path: Path) -> None:
    cases = {
        "none.csv": ("question,A,B,answer\n", "expected the columns"),
        "key.csv": ("question,A,B,C,D,answer\nq,1,2,3,4,\n", "expected the letter, number or text of the right option"),
        "empty.jsonl": ("\n", "got an empty file"),
        "list.json": ('{"question": 1}', "expected a list of questions, got dict"),
        "torn.json": ("[{", r"not JSON \(.*line 1"),
        "deep.json": ("[" * 100_000, r"not JSON \(.*recursion"),
        "quote.csv": ('question,A,B,C,D,answer\n"Is it' + "y" * 200_000, r"no table \(field .* quotation marks"),
        "quiz.xlsx": ("x", "expected questions in a .csv, .tsv, .jsonl, .json file"),
        "twice.csv": ("question,A,B,C,D,answer\nq,1,1,3,4,C\n", "no row is a question .*line 2: duplicate option text"),
    }
    for name, (text, message) in cases.items():
        with pytest.raises(ValueError, match=f"{name}: .*{message}" if name != "none.csv" else message):
            load_quiz(write(name, text))
    with pytest.raises(ValueError, match="cannot read"):
        load_quiz(tmp_path / "missing.csv")
    (tmp_path / "hollow").mkdir()
    with pytest.raises(ValueError, match="hollow.*files with questions, got none"):
        load_quiz(tmp_path / "hollow")


# ---- Quiz ------------------------------------------------------------------------------------------------------------


def test_a_quiz_checks_its_items() -> None:
    good = quiz_item("a", "?", ["x", "y"], 1)
    with pytest.raises(ValueError, match="item 'a': expected the number of the right option, 0 to 1, got 2"):
        quiz_item("a", "?", ["x", "y"], 2)
    with pytest.raises(ValueError, match="groups: expected one for each of 1 items, got 2"):
        make_quiz("q", [good], ["1", "2"])
    survey = make_quiz("q", [good]).survey
    wrong = survey.items[0].__class__("b", "?", tuple(o.__class__(o.label, o.text, 1.0) for o in good.options))
    with pytest.raises(
        ValueError, match="item 'b': expected the value 1 for the right option and 0 for all others, got 1, 1"
    ):
        make_quiz("q", [wrong])


def test_counting_questions_equals_the_slow_loop() -> None:
    rng = np.random.default_rng(0)
    groups = [str(g) for g in rng.integers(0, 12, 40)]  # of several sizes, out of order
    sizes = rng.integers(2, 5, 40)
    items = [
        quiz_item(str(i), f"{i}?", list("abcd")[:n], int(rng.integers(n)), f"s{groups[i]}") for i, n in enumerate(sizes)
    ]
    quiz = make_quiz("q", items, groups)
    flags = rng.random(40) < 0.7
    assert quiz.questions == tuple(dict.fromkeys(groups))
    for i, name in enumerate(quiz.questions):
        mine = [k for k in range(40) if groups[k] == name]
        assert quiz.all_of(flags)[i] == all(flags[k] for k in mine)
        assert quiz.counts(flags)[i] == sum(flags[k] for k in mine)
        assert quiz.chance()[i] == pytest.approx(np.prod([1 / sizes[k] for k in mine]))
        assert quiz.subjects[i] == f"s{name}"
    part = quiz.first(3)
    assert part.questions == quiz.questions[:3]
    assert part.survey.items == tuple(item for item, g in zip(items, groups, strict=True) if g in part.questions)
    with pytest.raises(ValueError, match="quiz 'q': expected names of its .* questions, got none"):
        quiz.first(0)
