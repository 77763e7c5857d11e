"""``softde compare`` with several regions, surveys or methods."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from softde.baselines import persona
from softde.cli import main
from softde.cli.compare_methods import named_methods, written_entries
from softde.compare import Exam
from softde.prompt import SoftPrompt
from softde.surveys import load_survey
from softde.surveys.human import HumanAnswers
from tests.conftest import MINI_SURVEY

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def softde(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    llama_folder: Path,
    human: HumanAnswers,
) -> Call:
    """Runs ``softde compare`` with the small model, beside a survey, human answers and two runs of a search."""
    (tmp_path / "mini.toml").write_text(MINI_SURVEY)
    human.save(tmp_path / "human.csv")
    for number in (1, 2):
        folder = tmp_path / "runs" / f"italy-{number}"
        folder.mkdir(parents=True)
        draw = torch.randn(2, 32, generator=torch.Generator().manual_seed(number))
        SoftPrompt(draw, "late").save(folder / "prompt.safetensors")
        (folder / "result.json").write_text(json.dumps({"forward_tokens": 1000 * number, "wall_seconds": 2.5}))
    monkeypatch.chdir(tmp_path)

    def call(*words: object, survey: str = "mini.toml") -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["compare", *map(str, words), "--survey", survey, "--model", str(llama_folder)])
        out, err = capsys.readouterr()
        return stop.value.code, out, err  # type: ignore[return-value]

    return call


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_two_regions(softde: Call, tmp_path: Path) -> None:
    prompts = ("--prompt", "Italy=runs/italy-1", "--prompt", "ITA=runs/italy-2", "--prompt", "runs/italy-1")
    files = ("--out", "table.csv", "--checkpoint", "answers")
    code, out, err = softde("Ireland", "Italy", *prompts, *files)
    assert code == 0, err
    assert "mini: survey mini, orders both, 1 to 2 regions, seeds: 1 to 2" in out and "the table is in table.csv" in err
    found = [row for row in rows(tmp_path / "table.csv") if row["kind"] == "condition"]
    keys = [(row["method"], row["region"], row["seed"], row["found_tokens"]) for row in found]
    assert keys == [
        ("unprompted", "Ireland", "0", "0.0"), ("unprompted", "Italy", "0", "0.0"), ("persona", "Ireland", "0", "0.0"),
        ("persona", "Italy", "0", "0.0"), ("soft prompt", "Italy", "0", "1000.0"),
        ("soft prompt", "Italy", "1", "2000.0"), ("italy-1", "Ireland", "0", "1000.0"),
        ("italy-1", "Italy", "0", "1000.0"),
    ]  # fmt: skip
    assert found[4]["loss"] == found[7]["loss"] != found[5]["loss"]  # one prompt, asked once
    assert "  asked 10 sheets" in err
    code, again, err = softde("Ireland", "Italy", *prompts, "--checkpoint", "answers", "--out", "table.md")
    assert code == 0 and "asked" not in err and again == out
    assert "| unprompted |" in (tmp_path / "table.md").read_text()


def test_methods_with_human_answers(softde: Call, tmp_path: Path) -> None:
    code, _, err = softde("Italy", "Japan", "--human", "human.csv", "--target", "shares", "--methods", "cross-culture")
    assert code == 2, err
    assert "n: 3 similar and 3 different regions need 6 others" in err  # three regions are too few
    code, _, err = softde("Italy", "Japan", "--human", "human.csv", "--target", "shares", "--methods", "self-alignment")
    assert code == 2 and "k: expected at most 3 examples" in err
    code, out, err = softde("Italy", "Japan", "--human", "human.csv", "--target", "means", "--out", "t.csv")
    assert (
        code == 0
        and "SPA" in out
        and "kept" in out
        and "rank: mean rank of the own region among 3" in " ".join(out.split())
    )
    assert {row["region"] for row in rows(tmp_path / "t.csv")} == {"Italy", "Japan"}
    code, out, _ = softde("Ireland", "Italy", "--methods", "unprompted,persona")
    assert code == 0 and "SPA" not in out


def test_methods_are_made_for_their_survey() -> None:
    """Without a model: what stands before the items of VSM 2013, from made-up people of seven regions."""
    vsm = load_survey("vsm13")
    names = ("India", "China", "Brazil", "Germany", "Mexico", "Egypt", "Kenya")
    shares = np.random.default_rng(0).dirichlet(np.ones(5), (7, 24))
    people = HumanAnswers(vsm, names, shares, np.full((7, 24), 50.0))
    exam = Exam("vsm13", vsm, {name: vsm.target(name) for name in names[:2]})
    chosen = named_methods("unprompted, cross-culture,self-alignment,persona+self-alignment,description")
    found = {(entry.method, entry.region): entry for entry in written_entries(chosen, [(exam, people)])}
    assert len(found) == 1 + 4 * 2 and found["unprompted", None].survey is None
    condition: dict[str, Any] = {method: found[method, "India"].condition for method in [*chosen][1:]}
    shown = condition["self-alignment"].examples.by_item["m01"]
    assert len(shown) == 5 and found["self-alignment", "India"].survey == "vsm13"
    majority = shares[0].argmax(axis=-1)
    assert all(example.option == majority[vsm.item_ids.index(example.item.id)] for example in shown)
    both = condition["persona+self-alignment"]
    assert "India" in both.system and both.examples == condition["self-alignment"].examples
    assert "India" in condition["cross-culture"].system and "uncertain" in condition["description"].system.lower()


def test_a_persona_is_told_its_region_as_one_says_it(softde: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both tables, in the survey's language: "the United States", which has no article as a region's name."""
    vsm = load_survey("vsm13")
    chosen = named_methods("persona,description")
    exam = Exam("vsm13", vsm, {"USA": vsm.target("USA")})
    for entry in written_entries(chosen, [(exam, None)]):
        assert entry.condition.system.startswith("You are a typical person from the United States")  # type: ignore[union-attr]
    told: list[Any] = []

    class Table:
        def __init__(self, _lm: Any, _survey: Any, _goal: Any, conditions: Any, *_more: Any) -> None:
            told.append(conditions[1].system)

    monkeypatch.setattr(sys.modules["softde.compare"], "compare", Table)  # softde.compare is the function
    assert softde("USA", survey="vsm13")[0] == softde("USA", survey="vsm13:ar")[0] == 0
    assert told == ["You are a typical person from the United States.", persona("USA", language="ar").system]


def test_several_surveys(softde: Call, tmp_path: Path) -> None:
    (tmp_path / "tea.toml").write_text(MINI_SURVEY.replace('id = "mini"', 'id = "tea"').replace("Ireland", "Iceland"))
    code, out, _ = softde("Italy", "--survey", "tea.toml")
    assert code == 0 and "tea: survey tea" in out and "mini: survey mini" in out
    code, _, err = softde("Ireland", "Italy", "--survey", "tea.toml")
    assert code == 2 and "Ireland" in err


def test_one_region_stays_as_it_was(softde: Call) -> None:
    code, out, _ = softde("Ireland")
    assert code == 0 and out.startswith("Ireland, edition 2020: survey mini") and "by region" not in out
    code, out, _ = softde("Ireland", "--methods", "unprompted")
    assert code == 0 and "mini: loss by region, seeds averaged" in out


def test_what_is_refused(softde: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softde.lm.LM.from_pretrained", None)  # nothing may be loaded
    monkeypatch.setenv("COLUMNS", "200")
    human = ("--human", "human.csv")
    for words, message in (
        (("Ireland", "Italy", "--methods", "persona,personna"), "no method 'personna'; did you mean 'persona'"),
        (("Ireland", "Atlantis"), "Atlantis"),
        (("Ireland", "Japan"), "Japan"),
        (("Ireland", "IRL", "--methods", "persona"), "duplicate region in targets: 'Ireland'"),
        (("Ireland", "Italy", "--survey", "mini.toml"), "duplicate exam 'mini'"),
        (("Ireland", "Italy", "--prompt", "Japan=runs/italy-1"), "'Japan' is none of the regions"),
        (("Ireland", "Italy", "--prompt", "Italy=runs/none"), "none"),
        (("Ireland", "Italy", "--out", "t.xlsx"), "path: expected a name that ends in .parquet, .csv or .md"),
        (("Ireland", "Italy", "--out", "no/t.md"), "--out: the folder no does not exist"),
        (("Ireland", "Italy", "--checkpoint", "mini.toml"), "checkpoint: cannot write"),
        (("Ireland", "Italy", "--human", "human.csv"), "--human: no method given uses human answers"),
        (("Ireland", "Italy", "--target", "shares"), "survey 'mini' names no human answers; add --human FILE"),
        (("Ireland", "Italy", "--methods", "self-alignment"), "survey 'mini' names no human answers"),
        (("Ireland", "Italy", "--held-out", "0.2"), "--held-out: it goes with human answers"),
        (("Ireland", "Italy", "--target", "shares", *human, "--norm", "L2"), "does not have all that were"),
        (("Ireland", "Italy", "--target", "shares", *human, "--methods", "description"),
         "--methods description: it tells published scores"),
        (("Ireland", "Italy", "--target", "shares", "--human", "mini.toml"), "mini.toml"),
    ):  # fmt: skip
        code, out, err = softde(*words)
        assert code == 2 and message in " ".join(err.split()) and not out, (words, err)
        assert "Traceback" not in err and len(err.strip().splitlines()) == 1
