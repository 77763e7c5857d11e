"""``softde surveys import``, and alignment to human answers from the command line, with items held out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from softde.cli import main
from softde.prompt import SoftPrompt
from softde.surveys import load_survey
from softde.surveys.human import answers_of, load_culture_spa
from softde.surveys.targets import SharesTarget, target_from_dict

Call = Callable[..., tuple[int, str, str]]

QUESTIONS = [
    {"Q_id": "Q1", "question": "How important is family?", "option_lst": ["Very", "Rather", "Not very", "Not at all"]},
    {"Q_id": "Q2", "question": "Can most people be trusted?", "option_lst": ["Yes", "No"]},
    {"Q_id": "Q3", "question": "Where do you stand?", "option_lst": ["Left", *map(str, range(2, 10)), "Right"]},
    {"Q_id": "Q4", "question": "Are you happy?", "option_lst": ["Very", "Rather", "Not very", "Not at all"]},
    {"Q_id": "Q5", "question": "Is it going well?", "option_lst": ["Very", "Rather", "Not very", "Not at all"]},
]
SHARES = {
    "BRA": {
        "Q1": {"1": 0.8, "2": 0.1, "3": 0.1}, "Q2": {"2": 0.9, "1": 0.1}, "Q3": {"1": 0.2, "10": 0.5, "5": 0.3},
        "Q4": {"2": 0.6, "1": 0.4}, "Q5": {"4": 1.0},
    },
    "DEU": {"Q1": {"1": 0.5, "4": 0.5}, "Q2": {"1": 0.6, "2": 0.4}, "Q4": {"2": 1.0}, "Q5": {"3": 0.7, "1": 0.3}},
}  # fmt: skip


@pytest.fixture
def softde(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command beside CultureSPA's folder: (exit code, standard output, standard error)."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "wvs_questions.json").write_text(json.dumps(QUESTIONS))
    (tmp_path / "data" / "proportions_group_by_country.json").write_text(json.dumps(SHARES))
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return stop.value.code, out, err  # type: ignore[return-value]

    return call


def test_import_makes_a_survey_that_names_its_human_answers(softde: Call, tmp_path: Path) -> None:
    code, out, _ = softde("surveys", "import", "data", "--out", "wvs.toml")
    assert code == 0 and "wvs.toml: 5 items" in out and "answers of 2 regions" in out
    survey = load_survey(tmp_path / "wvs.toml")
    human, given = answers_of(survey), load_culture_spa(tmp_path / "data")
    assert survey.item_ids == ("Q1", "Q2", "Q3", "Q4", "Q5") and human.regions == ("BRA", "DEU")
    assert human.shares.tolist()[0] == given.shares.tolist()[0]


def test_shares_with_held_out_items_end_to_end(softde: Call, tmp_path: Path) -> None:
    softde("surveys", "import", "data")
    search = ("--survey", "wvs.toml", "--target", "shares", "--held-out", "0.4", "--optimizer", "de")
    code, out, _ = softde("align", "Brazil", *search, "--population", 8, "--budget", 64, "--out", "run")
    assert code == 0
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    target = target_from_dict(record["target"])
    assert target == SharesTarget.of(answers_of(load_survey("wvs.toml")), "BRA", held_out=0.4)
    assert target.region == "Brazil" and len(target.held_out) == 2
    assert record["plain_loss"] < record["unprompted_loss"]
    held = record["held_out"]
    line = f"2 held-out items: loss {held['unprompted_loss']:.4f} unprompted, {held['loss']:.4f} with the soft prompt"
    comparison = (tmp_path / "run" / "comparison.md").read_text()
    assert line in out and line in comparison
    row = next(row for row in comparison.splitlines() if row.startswith("| soft prompt"))
    assert f"| {record['plain_loss']:.4f} | {held['loss']:.4f} |" in row
    card = (tmp_path / "run" / "peft" / "README.md").read_text()
    assert (
        f"{record['unprompted_loss']:.4f} before, {record['plain_loss']:.4f} after. On 2 items that were held" in card
    )
    assert SoftPrompt.load(tmp_path / "run" / "prompt.safetensors").provenance["held_out"] == held

    again = [words for words in out.splitlines() if words.startswith("  softde ")]
    for command in again:
        code, out, err = softde(*command.split()[1:])
        assert code == 0, err
    assert f"{record['plain_loss']:.4f}" in out and f"{held['loss']:.4f}" in out


@pytest.mark.parametrize(("kind", "name"), [("means", "item means"), ("culture-spa", "CultureSPA")])
def test_other_targets(softde: Call, tmp_path: Path, kind: str, name: str) -> None:
    softde("surveys", "import", "data")
    words = ("align", "DEU", "--survey", "wvs.toml", "--target", kind, "--budget", 12, "--population", 6)
    code, out, _ = softde(*words, "--optimizer", "de", "--out", "run", "--side-effects", 0.01)
    assert code == 0 and name in out and "1 without an answer there are left out" in " ".join(out.split())
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record["target"]["missing"] == ["Q3"] and "held_out" not in record
    assert f"side effects: {record['side_effects']:.3f} bits" in out


REFUSED = {
    "--distance: only --target shares has distances": ("India", "--distance", "js"),
    "--held-out: it goes with human answers": ("India", "--held-out", "0.2"),
    "--human: it goes with human answers": ("India", "--human", "data"),
    "--edition: it goes with published scores": ("BRA", "--target", "shares", "--edition", "2015"),
    "--norm: --target shares has its own loss": ("BRA", "--target", "shares", "--norm", "L2"),
    "survey 'vsm13' names no human answers; add --human FILE": ("BRA", "--target", "shares"),
    "survey 'wvs' has no published scores, but human answers; add --target shares": ("BRA", "--survey", "wvs.toml"),
    "no human answers for region 'ITA'; known: BRA, DEU": ("ITA", "--target", "shares", "--survey", "wvs.toml"),
    "held_out: expected a share of the items": ("BRA", "--target", "means", "--survey", "wvs.toml", "--held-out", "2"),
    "no item is left to align to": ("BRA", "--target", "means", "--survey", "wvs.toml", "--held-out", "0.95"),
    "side_effects: expected a weight above 0": ("India", "--side-effects", "-1"),
}


def test_ctrl_c_says_a_small_loss_in_full(softde: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    softde("surveys", "import", "data")

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    import_module("softde.align")
    monkeypatch.setattr(sys.modules["softde.align.verb"], "printer", lambda: stop)
    words = ("BRA", "--survey", "wvs.toml", "--target", "shares", "--budget", 12, "--population", 6)
    code, _, err = softde("align", *words, "--optimizer", "de", "--out", "run")
    reached = json.loads((tmp_path / "run" / "result.json").read_text())["plain_loss"]
    assert code == 130 and f"interrupted after 6 candidates at loss {reached:.4f};" in err


@pytest.mark.parametrize("sentence", REFUSED)
def test_bad_input_is_refused_before_a_model_is_loaded(softde: Call, tmp_path: Path, sentence: str) -> None:
    softde("surveys", "import", "data")
    before = sorted(tmp_path.rglob("*"))
    code, _, err = softde("align", *REFUSED[sentence])
    assert code == 2 and sentence in err and "loading model" not in err and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_import_says_what_it_needs(softde: Call) -> None:
    code, _, err = softde("surveys", "import", "data", "--out", "wvs.csv")
    assert code == 2 and "--out: expected a .toml file, got 'wvs.csv'" in err
    code, _, err = softde("surveys", "import", "nowhere")
    assert code == 2 and "Traceback" not in err
