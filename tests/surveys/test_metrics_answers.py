from __future__ import annotations

import json
from pathlib import Path

import pytest

from softde.surveys.metrics import load_answers

EXPECTED = {"Q1": "1", "Q2": "I say 3", "Q3": "2"}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("records.json", json.dumps([{"Q_id": k, "question": "?", "answer": v} for k, v in EXPECTED.items()])),
        ("object.json", json.dumps(EXPECTED)),
        ("lines.jsonl", "".join(json.dumps({"item": k, "answer": v}) + "\n\n" for k, v in EXPECTED.items())),
        ("sheet.csv", "item,answer\n" + "".join(f"{k},{v}\n" for k, v in EXPECTED.items())),
        ("excel.csv", "\ufeffid,response,note\n" + "".join(f"{k},{v},x\n" for k, v in EXPECTED.items())),
    ],
)
def test_every_kind_of_file_reads_the_same(tmp_path: Path, name: str, text: str) -> None:
    sheet = load_answers(write(tmp_path, name, text))
    assert dict(sheet) == EXPECTED and not sheet.left_out and len(sheet) == 3


@pytest.mark.parametrize(
    "content",
    [
        b"item;answer;note\r\nQ1;1;a, b\r\nQ2;I say 3;\r\nQ3;2;\r\n",
        b"item\tanswer\nQ1\t1\nQ2\tI say 3\n\nQ3\t2\n",
        b"sep=;\r\nItem;Answer\r\nQ1;1\r\nQ2;I say 3\r\nQ3;2\r\n",
        "q_id\tResponse\nQ1\t1\nQ2\tI say 3\nQ3\t2\n".encode("utf-16"),
    ],
)
def test_tables_as_spreadsheets_save_them(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sheet.csv").write_bytes(content)
    assert dict(load_answers(tmp_path / "sheet.csv")) == EXPECTED


def test_a_code_below_zero_in_a_table_is_no_option(tmp_path: Path) -> None:
    assert dict(load_answers(write(tmp_path, "a.csv", "item,answer\nQ1,-1\nQ2,1\n"))) == {"Q1": -1.0, "Q2": "1"}


def test_numbers_stay_numbers_and_null_is_no_answer(tmp_path: Path) -> None:
    assert dict(load_answers(write(tmp_path, "a.json", '{"Q1": 3, "Q2": null}'))) == {"Q1": 3.0, "Q2": None}


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("a.json", '[{"item": "Q1", "answer": "1"}, {"item": "Q2"}, {"answer": "2"}, "x", {"id": "Q5", "answer": [1]}]',
         ["row 2: item 'Q2' has no answer", "row 3: no item", "row 4: expected a record",
          "row 5: item 'Q5': expected a text"]),
        ("a.jsonl", '{"item": "Q1", "answer": "1"}\nnot json\n\n{"item": "Q1", "answer": "2"}\n',
         ["line 2: expected a record", "line 4: item 'Q1' was answered before"]),
        ("a.csv", "item,answer\nQ1,1\n,2\nQ3\n", ["line 3: no item", "line 4: item 'Q3' has no answer"]),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_and_the_rest_kept(tmp_path: Path, name: str, text: str, rows: list[str]) -> None:
    sheet = load_answers(write(tmp_path, name, text))
    assert dict(sheet) == {"Q1": "1"}
    assert len(sheet.left_out) == len(rows)
    for said, expected in zip(sheet.left_out, rows, strict=True):
        assert said.startswith(expected) and said.endswith("; left out")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "1", r"a\.txt: expected answers in a \.json, \.jsonl or \.csv file"),
        ("a.json", "{", r"a\.json: not JSON \(line 1"),
        ("a.json", "3", r"a\.json: expected a list of records or an object"),
        ("a.json", "[]", r"a\.json: no row has an item and an answer"),
        ("a.csv", "x,y\n1,2\n", r"a\.csv: expected a header with columns item and answer, got x, y"),
        (
            "a.csv",
            "respondent,item,answer\n1,Q1,2\n2,Q1,3\n",
            r"a\.csv: rows of 2 respondents, and a sheet has one answer per item; keep the rows of one",
        ),
    ],
)
def test_bad_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_answers(write(tmp_path, name, text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read .*No such file"):
        load_answers(tmp_path / "none.json")
    (tmp_path / "latin.csv").write_bytes(b"item,answer\nQ1,\xe9\n")
    with pytest.raises(ValueError, match=r"latin\.csv: not UTF-8 \(byte 15\)"):
        load_answers(tmp_path / "latin.csv")
