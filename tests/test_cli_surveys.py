"""``softde surveys template`` and ``softde surveys check``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from softde.cli import main

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def softde(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(words))
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call


def test_surveys_lists_every_instrument_the_default_first(softde: Call) -> None:
    code, out, _ = softde("surveys")
    heads = [line.split("  ")[0] for line in out.splitlines() if not line.startswith(" ")]
    assert code == 0
    assert heads == ["vsm13", "ipip50", "iw", "mfq2", "pvq21", "pvq40", "pvqrr", "vsm94"]
    assert "  items     40, texts not included" in out
    assert max(map(len, out.splitlines())) <= 100


def test_a_template_is_filled_in_and_checked(softde: Call, tmp_path: Path) -> None:
    code, out, err = softde("surveys", "template", "pvq40")
    assert (code, err) == (0, "")
    assert out.startswith("# Your own copy of pvq40, version 1.") and out.count('text = ""') == 40
    (tmp_path / "my.toml").write_text(out, encoding="utf-8")
    code, _, err = softde("surveys", "check", "my.toml")
    assert code == 2
    assert err == "softde: error: my.toml: item 'p01': text: expected a text that is not empty, got ''\n"
    (tmp_path / "my.toml").write_text(out.replace('text = ""', 'text = "A portrait."'), encoding="utf-8")
    code, out, err = softde("surveys", "check", "my.toml")
    assert (code, err) == (0, "")
    assert "  survey      my: Portrait Values Questionnaire, 40 items, version 1, language en" in out
    assert "  items       40\n  options     6\n  values      1 to 6\n" in out
    assert "  left out    respondents with fewer than 30 answers" in out
    assert "  factor      CO (conformity) = mean of p07, p16, p28, p36, 2 or more answered" in out
    first = [line for line in out.splitlines() if line.startswith("first option throughout")]
    assert [line.split()[3:] for line in first] == [["0.00"] * 8, ["0.00"] * 2]
    assert max(map(len, out.splitlines())) <= 100


def test_check_scores_toy_sheets_by_hand(softde: Call, tmp_path: Path) -> None:
    """F = 2a + P + 1: first options a = 1, no pair; last a = 2; equally likely a = 1.5 and P = 1/6·2·5 = 5/3."""
    text = """
[[items]]
id = "a"
text = "A?"
options = ["x", "y"]
[[items]]
id = "g"
text = "First?"
options = ["k", "l", "m"]
[[items]]
id = "h"
text = "Second?"
options = ["k", "l", "m"]
[[composites]]
id = "P"
pair = ["g", "h"]
groups = [[1, 2]]
values = [5]
otherwise = 0
[[factors]]
id = "F"
weights = { a = 2, P = 1 }
offset = 1
[[factors]]
id = "G"
mean = ["-a"]
"""
    (tmp_path / "toy.toml").write_text(text, encoding="utf-8")
    code, out, _ = softde("surveys", "check", "toy.toml")
    assert code == 0
    rows = {line[:26].strip(): line[28:].split() for line in out.splitlines()}
    assert rows["first option throughout"] == ["-", "2.00"]
    assert rows["last option throughout"] == ["-", "1.00"]
    assert rows["all options equally likely"] == ["5.67", "1.50"]
    assert "composite   P (no name) from g, h" in out
    assert "factor      F (no name) = 2 a +1 P +1" in out
    assert "a first and a second choice cannot be the same option" in out


def test_check_of_a_survey_that_cannot_be_scored_and_of_one_that_is_not_there(softde: Call, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("id,text,options\n1,One?,a|b\n2,Two?,a|b|c\n", encoding="utf-8")
    code, out, _ = softde("surveys", "check", "q.csv")
    assert code == 0
    assert "options     2 to 3" in out and "none, so it can be asked but not scored" in out
    code, _, err = softde("surveys", "check", "nix.toml")
    assert code == 2 and err.count("\n") == 1 and "cannot read 'nix.toml'" in err
    code, _, err = softde("surveys", "template", "pvq41")
    assert code == 2 and "unknown survey 'pvq41' (did you mean 'pvq21' or 'pvq40'?)" in err


def test_check_shows_what_a_shipped_instrument_does(softde: Call) -> None:
    code, out, _ = softde("surveys", "check", "iw")
    assert code == 0
    for line in (
        "  composite   Y002 (post-materialism) from Q154, Q155",
        "  factor      SELF (survival to self-expression) = 0.510876 × component 1 of 10 variables +0.477357",
        "  edition     2022, 32 regions",
    ):
        assert line in out
    code, out, _ = softde("surveys", "check", "ipip50")
    assert "  items       50, 50 of them without text" in out
