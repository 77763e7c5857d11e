"""The command: a plan that stops there, a run that prints its table, and errors in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from softde.cli.reproduce import reproduce

SMALL = ["--examples", "1", "--budget", "8", "--population", "8", "--num-virtual-tokens", "2", "--seeds", "0",
         "--regions", "Ireland,Italy", "--edition", "2020"]  # fmt: skip


def call(*words: str) -> None:
    typer.main.get_command(reproduce).main([*map(str, words)], standalone_mode=False)


def test_a_plan_then_a_run(
    llama_folder: Path, mini_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "masoud2025",
        "--model",
        str(llama_folder),
        "--survey",
        str(mini_file),
        "--out",
        str(tmp_path / "run"),
        *SMALL,
    ]
    call(*words, "--plan")
    planned = capsys.readouterr().out
    assert "DE, Italy, seed 0" in planned and "Measured just now" in planned and not (tmp_path / "run").exists()
    call(*words)
    printed = capsys.readouterr()
    assert "As in the paper: a frozen model" in printed.out and "loss by region" in printed.out
    assert printed.out.splitlines()[:4] == planned.splitlines()[:4]
    assert (tmp_path / "run" / "table.md").exists()
    assert "loading model" in printed.err and "step 5 of 5: DE, Italy, seed 0: mini: loss" in printed.err
    call(*words, "--plan")
    assert "  done\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["masoud2025", "--model", "tiny", "--regions", "Indai"], "unknown region 'Indai'; did you mean India"),
        (["masoud2025", "--seeds", "one"], "--seeds: expected whole numbers"),
        (["masoud2025", "--quiz", "nowhere.csv"], "nowhere.csv"),
        (["choenni2024"], r"human: .* \(--human FOLDER\)"),
        (["culturespa2024", "--model", "tiny"], r"human: .* \(--human FOLDER\)"),
    ],
)
def test_errors_come_before_the_model(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        call(*words, "--out", str(tmp_path / "run"))
    assert "loading model" not in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_one_process_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="runs in one process"):
        call("masoud2025", "--model", "tiny", "--out", str(tmp_path / "run"))
