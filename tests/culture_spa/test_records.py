"""Files between the stages: what is read, what is named and left out, what an interrupted one goes on with."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import pytest

from softde.baselines.culture_spa import load_questions
from softde.baselines.culture_spa.records import BATCH, KIND, append, many, read_rows, resumed, spent

HEADER = {KIND: "test", "seed": 0}
GOOD = {"question": "Is tea good?", "options": ["yes", "no"], "id": "a"}


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_faulty_lines_are_named_and_the_rest_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    strange = [{"id": "b"}, {"question": "Is it?", "options": "yes"}]
    last = {"id": "c", "question": "And coffee?", "options": ["a", "b"]}
    rows = [GOOD, '{"question": "torn', [1], *strange, last, f'{{"id": {"9" * 5000}}}', "[" * 100_000]
    with caplog.at_level(logging.WARNING):
        found = load_questions(write(tmp_path / "q.jsonl", *rows))
    assert [q.id for q in found.kept] == ["a", "c"]
    (message,) = caplog.messages
    assert message == (
        "q.jsonl: 6 rows left out: line 2 (no JSON); line 3 (no record); line 7 (no JSON); line 8 (no JSON); "
        "line 4 (no question); line 5 (options are no list of texts)"
    )


def test_lists_lines_gzip_and_folders_in_order(tmp_path: Path) -> None:
    theirs = {"Q_id": "Q0", "question": "B?", "option_lst": ["x", 2], "class": "Security"}
    (tmp_path / "t10.json").write_text(json.dumps([theirs]))
    (tmp_path / "t2.jsonl.gz").write_bytes(gzip.compress((json.dumps(GOOD) + "\n").encode()))
    (tmp_path / "notes.txt").write_text("no questions")
    assert [path.name for path in many(tmp_path)] == ["t2.jsonl.gz", "t10.json"]
    first, second = load_questions(tmp_path).kept
    assert (first.id, second.id) == ("a", "Q0")
    assert (second.text, second.options, second.topic) == ("B?", ("x", "2"), "Security")
    without = {"question": "D?", "options": ["x", "y"]}
    assert [q.id for q in load_questions(write(tmp_path / "d.jsonl", GOOD, without)).kept] == ["Q0", "Q1"]  # no id
    (tmp_path / "d.jsonl").unlink()
    (tmp_path / "t11.json").write_text(json.dumps([{**theirs, "question": "C?"}]))  # Q0 again: numbered through
    assert [q.id for q in load_questions(tmp_path).kept] == ["Q0", "Q1", "Q2"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.csv", "x", r"q\.csv: expected a \.jsonl or \.json file"),
        ("q.json", "{}", r"q\.json: expected a list of records, got \{\}"),
        ("q.json", "[", r"q\.json: no JSON .*named \.jsonl"),
        ("q.json.gz", "no gzip", r"cannot read .*q\.json\.gz \(Not a gzipped file"),
        ("q.jsonl", "{}", r"no row is a question; expected the keys question and options"),
    ],
)
def test_files_of_nothing_usable(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_questions(tmp_path / name)
    with pytest.raises(ValueError, match=r"cannot read .*gone\.jsonl"):
        load_questions(tmp_path / "gone.jsonl")
    damaged = bytearray(gzip.compress(json.dumps(GOOD).encode()))
    damaged[12:20] = b"\xff" * 8
    (tmp_path / "d.jsonl.gz").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"d\.jsonl\.gz: cannot be decoded .*; save it as UTF-8, gzipped or not"):
        load_questions(tmp_path / "d.jsonl.gz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no .json or .jsonl"):
        load_questions(tmp_path / "empty")


def test_an_interrupted_batch_is_cut_off_and_other_settings_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rows.jsonl"
    assert resumed(path, HEADER, ("a",)) == ([], 0)
    append(path, [{"a": 1}, {BATCH: 0, "forward_tokens": 7}])
    whole = path.read_bytes()
    append(path, [{"a": 2}])
    with path.open("a") as file:
        file.write('{"a": 3')  # killed while writing
    assert resumed(path, HEADER, ("a",)) == ([{"a": 1}], 1)
    assert path.read_bytes() == whole
    assert not caplog.messages
    with pytest.raises(ValueError, match=r"made with other settings \(seed: 0 there, 1 now\); choose another file"):
        resumed(path, {**HEADER, "seed": 1}, ("a",))
    assert path.read_bytes() == whole
    append(path, [{"b": 1}, {BATCH: 1, "forward_tokens": 5}])  # by somebody else
    with caplog.at_level(logging.WARNING):
        assert resumed(path, HEADER, ("a",)) == ([{"a": 1}], 2)
    assert caplog.messages == ["rows.jsonl: 1 rows left out: line 4 (no record of this stage)"]
    assert spent(path) == 12
    assert [row for _, row in read_rows(path).rows] == [{"a": 1}, {"b": 1}]
    with pytest.raises(ValueError, match="begins with no line of settings"):
        resumed(write(tmp_path / "other.jsonl", {"a": 1}), HEADER, ("a",))
