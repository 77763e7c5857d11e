"""``softde abilities``: what it prints and writes, and its own refusals."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from softde.cli.abilities import abilities
from softde.lm import LM
from softde.prompt import SoftPrompt, model_provenance


@pytest.fixture
def run(llama_folder: Path) -> Any:
    """Runs the command on the tiny random model."""
    app = typer.Typer()
    app.command()(abilities)

    def call(*words: object, model: bool = True) -> Any:
        named = ["--model", str(llama_folder)] if model else []
        return CliRunner().invoke(app, [*map(str, words), *named], catch_exceptions=True)

    return call


@pytest.fixture
def prompt_file(llama: LM, tmp_path: Path) -> Path:
    path = tmp_path / "orn.safetensors"
    SoftPrompt(torch.ones(2, llama.hidden_size), provenance=model_provenance(llama)).save(path)
    return path


def test_a_table_for_each_file(run: Any, easy_file: Path, hard_file: Path, prompt_file: Path, tmp_path: Path) -> None:
    out, checkpoint = tmp_path / "t.csv", tmp_path / "c.jsonl"
    words = [easy_file, hard_file, "--prompt", prompt_file, "--system", "You are from Orn.", "--by-subject",
             "--out", out, "--checkpoint", checkpoint]  # fmt: skip
    found = run(*words)
    assert found.exit_code == 0, found.exception
    for line in ("CulturalBench-Easy: 4 questions", "CulturalBench-Hard: 2 questions of 8 judgements"):
        assert line in found.stdout
    rows = list(csv.DictReader(out.read_text().splitlines()))
    names = ["unprompted", "system text", "orn", "chance", "best single option"]
    assert [(row["quiz"], row["condition"]) for row in rows] == [
        (quiz, name) for quiz in ("CulturalBench-Easy", "CulturalBench-Hard") for name in names
    ]
    subjects = [line.split() for line in found.stdout.splitlines() if " Orn " in line]
    assert [words[:3] for words in subjects] == [["CulturalBench-Easy", "Orn", "3"], ["CulturalBench-Hard", "Orn", "1"]]
    assert "line 6: duplicate option text" in " ".join(found.stderr.split())
    lines = len(checkpoint.read_text().splitlines())
    assert lines == 3 * (4 + 8)
    assert run(*words).stdout == found.stdout
    assert len(checkpoint.read_text().splitlines()) == lines


def test_columns_and_limit(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("q,one,two,key\nWhy?,so,no,1\nHow?,yes,thus,1\nWho?,me,you,2\n")
    words = [path, "--question", "q", "--options", "one, two", "--answer", "key", "--answers", "one", "--limit", 2]
    found = run(*words)
    assert found.exit_code == 0, found.exception
    assert found.stdout.startswith("own: 2 questions, options listed both ways")
    assert "best single option" in found.stdout and "100.0" in found.stdout


def test_refusals(run: Any, easy_file: Path, tmp_path: Path) -> None:
    cases = {
        "--question, --options: a file of your own needs both": [easy_file, "--question", "q"],
        "--answer, --subject: they go with --question": [easy_file, "--answer", "key"],
        "--out: the folder .*nowhere does not exist": [easy_file, "--out", tmp_path / "nowhere" / "t.csv"],
        "--checkpoint: the folder": [easy_file, "--checkpoint", tmp_path / "nowhere" / "t.csv"],
        "cannot read": [tmp_path / "none.csv"],
    }
    for message, words in cases.items():
        found = run(*words, model=False)
        with pytest.raises(ValueError, match=message):
            raise found.exception
