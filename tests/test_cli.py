"""The command line: what each command prints and writes, and one sentence with exit code 2 for every bad input."""

from __future__ import annotations

import errno
import inspect
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from softde import __version__
from softde.cli import app, main, run
from softde.prompt import SoftPrompt
from tests.tiny_random import make_model, save

SURVEY = """
id = "tea"
title = "Tea or coffee"
[scales.agreement]
options = ["disagree", "undecided", "agree"]
[[items]]
id = "t1"
scale = "agreement"
text = "Tea is better than coffee."
[[items]]
id = "t2"
scale = "agreement"
text = "Coffee keeps me awake."
[[factors]]
id = "TEA"
name = "love of tea"
weights = { t1 = 20, t2 = -10 }
[[published]]
edition = "2024"
source = "made up"
scores = { Ireland = { TEA = 65 }, Italy = { TEA = 45 } }
"""
COMMANDS = (
    "align",
    "compare",
    "abilities",
    "culture-spa",
    "verify",
    "surveys",
    "regions",
    "administer",
    "score-answers",
)

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def softde(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return stop.value.code, out, err  # type: ignore[return-value]

    return call


@pytest.fixture
def refused(softde: Call, tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must fail with exit code 2 and one sentence, which it returns; nothing may be left behind."""

    def call(*words: object, model_loaded: bool = False) -> str:
        before = sorted(tmp_path.rglob("*"))
        code, _, err = softde(*words)
        lines = err.splitlines()
        assert code == 2
        assert "Traceback" not in err
        assert [line for line in lines if line.startswith("softde: error: ")] == [lines[-1]]
        assert ("loading model" in err) == model_loaded
        assert sorted(tmp_path.rglob("*")) == before
        return lines[-1].removeprefix("softde: error: ")

    return call


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def tea(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("survey") / "tea.toml"
    path.write_text(SURVEY)
    return path


@pytest.fixture
def small(model: Path, tea: Path) -> tuple[object, ...]:
    """Options that make a run take a second."""
    return ("--model", model, "--survey", tea, "--population", 4, "--budget", 12)


# ---- what works ----------------------------------------------------------------------------------------------------


def test_version_and_help(softde: Call) -> None:
    assert softde("--version") == (0, f"softde {__version__}\n", "")
    code, out, _ = softde()
    assert code == 0
    assert all(re.search(rf"^  {command} ", out, re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_shows_an_example(softde: Call, command: str) -> None:
    code, out, _ = softde(command, "--help")
    assert code == 0
    assert f"Example:  softde {command}" in out


def test_help_states_the_defaults_of_the_functions(softde: Call) -> None:
    from softde.align import BUDGET, align
    from softde.optim import named
    from softde.space import PromptSpace

    text = " ".join(softde("align", "--help")[1].split())
    space = inspect.signature(PromptSpace.random).parameters
    assert f"Candidates scored in all. [default: {BUDGET}]" in text
    assert "Candidates per generation. [default: the optimiser's own]" in text
    assert f"name of a strategy. [default: {named('de', 100, BUDGET).strategy}]" in text
    defaults = inspect.signature(align).parameters
    for option in ("optimizer", "draws", "seed", "norm", "orders"):
        assert re.search(rf"--{option} \S+ [^\[]*\[default: {defaults[option].default}\]", text), option
    assert f"Length of the soft prompt. [default: {space['num_virtual_tokens'].default}, or" in text
    assert f"costs least. [default: {space['placement'].default}]" in text


def test_surveys(softde: Call) -> None:
    code, out, _ = softde("surveys")
    assert code == 0
    assert out.startswith("vsm13  ")
    assert "vsm13:cat_35_25" in out and "2023 (16 regions)" in out and "caution" in out
    assert max(map(len, out.splitlines())) <= 100


def test_regions(softde: Call) -> None:
    code, out, _ = softde("regions")
    assert code == 0
    rows = {re.split(r"  +", line)[0]: line.split() for line in out.splitlines()}
    assert rows["Saudi Arabia"][2:] == ["SAU", "2023", "72", "48", "43", "64", "27", "14"]
    assert rows["Qatar"][-1] == "-"  # 2023 lacks IVR, 2015 the rest
    _, old, _ = softde("regions", "--edition", "2015")
    assert re.search(r"^United States +USA +2015 +40 +91 ", old, re.MULTILINE)


def test_light_commands_load_no_torch() -> None:
    code = """
import sys
from softde.cli import run
for words in ("--help", "align --help", "surveys", "regions"):
    assert run(words.split()) == 0
print("heavy:", sorted(sys.modules.keys() & {"torch", "transformers", "rich"}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_align_writes_its_folder_and_resumes(softde: Call, small: tuple[object, ...]) -> None:
    code, out, err = softde("align", "ireland", *small)
    assert code == 0
    assert "target: Ireland, edition 2024: TEA 65 (constants 50) [the newest complete edition]" in out
    assert " 4/12  best" in err
    table = re.findall(r"^(target|unprompted|persona|soft prompt|midpoint) .*$", out, re.MULTILINE)
    assert table == ["target", "unprompted", "persona", "soft prompt", "midpoint"]
    folder = Path("runs/ireland")
    files = {"prompt.safetensors", "peft", "result.json", "comparison.md", "log.jsonl", "run.yaml"}
    assert files <= {entry.name for entry in folder.iterdir()}
    assert (folder / "peft" / "adapter_config.json").exists()
    assert json.loads((folder / "result.json").read_text())["evaluations"] == 12
    assert "| persona |" in (folder / "comparison.md").read_text()
    for command in ("softde verify", "softde compare Ireland --prompt", "peft.PeftModel"):
        assert command in out

    before = {name: (folder / name).read_bytes() for name in ("prompt.safetensors", "log.jsonl")}
    code, again, err = softde("align", "IRELAND", *small, "--quiet")
    assert (code, "generation" in err) == (0, False)
    assert again in out
    assert before == {name: (folder / name).read_bytes() for name in before}


def test_options_reach_the_search(softde: Call, small: tuple[object, ...], tmp_path: Path) -> None:
    options = (
        "--placement",
        "front",
        "--init-text",
        "Tea!",
        "--num-virtual-tokens",
        2,
        "--strategy",
        "best1exp",
        "--seed",
        7,
    )
    code, _, _ = softde(
        "align", "Italy", *small, *options, "--norm", "L2", "--orders", "forward", "--out", tmp_path / "a"
    )
    assert code == 0
    prompt = SoftPrompt.load(tmp_path / "a" / "prompt.safetensors")
    made = prompt.provenance
    assert (prompt.placement, prompt.num_virtual_tokens) == ("front", 2)
    assert (made["seed"], made["budget"], made["norm"], made["orders"]) == (7, 12, "L2", "forward")
    assert (made["optimizer"]["strategy"], made["optimizer"]["population_size"]) == ("best1exp", 4)
    assert made["space"]["origin"] == "text: Tea!"


def test_an_optimiser_by_name(softde: Call, small: tuple[object, ...]) -> None:
    code, _, err = softde("align", "Ireland", *small, "--optimizer", "shade", "--out", "a")
    assert code == 0 and "auto" not in err
    made = SoftPrompt.load("a/prompt.safetensors").provenance["optimizer"]
    assert made["name"] == "SHADE" and made["population_size"] == 4
    code, _, err = softde("align", "Ireland", *small, "--out", "b")
    chosen = SoftPrompt.load("b/prompt.safetensors").provenance["optimizer"]
    assert code == 0 and err.count("auto chose ") == 1 and chosen["name"] != "SHADE"


def test_several_seeds(softde: Call, small: tuple[object, ...]) -> None:
    code, out, _ = softde("align", "Ireland", *small, "--seeds", "0,1", "--out", "two")
    assert code == 0 and [entry.name for entry in sorted(Path("two").iterdir())] == ["seed-0", "seed-1"]
    for seed in (0, 1):
        assert {"prompt.safetensors", "result.json", "comparison.md", "peft"} <= {
            entry.name for entry in Path(f"two/seed-{seed}").iterdir()
        }
        assert f"files in two/seed-{seed}: " in out and f"softde verify two/seed-{seed}/prompt.safetensors" in out
    code, _, _ = softde("align", "Ireland", *small, "--seed", 1, "--out", "one")
    one, other = (SoftPrompt.load(f"{place}/prompt.safetensors") for place in ("one", "two/seed-1"))
    assert code == 0 and one == other


def test_read_outs_stops_and_warm_starts_reach_the_search(softde: Call, small: tuple[object, ...]) -> None:
    code, _, _ = softde("align", "Ireland", *small, "--readout", "argmax", "--target-loss", 1000, "--out", "a")
    record = json.loads(Path("a/result.json").read_text())
    made = SoftPrompt.load("a/prompt.safetensors").provenance
    assert code == 0 and made["readout"]["name"] == "Argmax" and made["stops"]["target_loss"] == 1000
    assert record["evaluations"] == 4 and record["stop_reason"].startswith("the target loss")
    stops = ("--patience", 4, "--max-seconds", 1000, "--max-tokens", 1)
    code, _, _ = softde("align", "Ireland", *small, "--budget", 30, "--warm-start", 2, *stops, "--out", "b")
    record = json.loads(Path("b/result.json").read_text())
    made = SoftPrompt.load("b/prompt.safetensors").provenance
    assert code == 0 and made["warm_start"]["steps"] == 2 and made["readout"]["name"] == "Expected"
    expected = {"patience": 4, "max_seconds": 1000.0, "max_tokens": 1, "target_loss": None, "min_improvement": 0.0}
    assert made["stops"] == expected
    assert record["warm_start"]["forward_equivalents"] > 6 and record["evaluations"] == 4


def test_compare_and_verify_take_a_run(softde: Call, small: tuple[object, ...], tea: Path) -> None:
    softde("align", "Ireland", *small)
    code, out, _ = softde(
        "compare", "Italy", "--survey", tea, "--prompt", "runs/ireland", "--prompt", "runs/ireland/prompt.safetensors"
    )
    assert code == 0
    assert re.search(r"^ireland .*\n^ireland \(2\) ", out, re.MULTILINE)
    code, out, _ = softde("verify", "runs/ireland", "--survey", tea)
    assert code == 0
    assert out.startswith("verified: 2 items")


def test_the_next_commands_ask_what_the_run_asked(softde: Call, model: Path, tmp_path: Path) -> None:
    survey = tmp_path / "two editions.toml"
    older = '[[published]]\nedition = "2012"\nsource = "made up"\nscores = { Italy = { TEA = 20 } }\n'
    survey.write_text(SURVEY.replace("[[published]]", f"{older}[[published]]"))
    options = ("--edition", 2012, "--norm", "L2", "--orders", "forward", "--dtype", "float32", "--device", "cpu")
    small = ("--model", model, "--survey", survey, "--population", 4, "--budget", 8)
    code, out, _ = softde("align", "Italy", *small, *options, "--out", "a run")
    assert code == 0
    row = re.search(r"^soft prompt +(.*)$", out, re.MULTILINE)
    commands = [shlex.split(line) for line in re.findall(r"^  softde (.*)$", out, re.MULTILINE)]
    assert row and [c[0] for c in commands] == ["verify", "compare"]
    assert "--norm" not in commands[0] and "--budget" not in commands[1]
    assert softde(*commands[0])[0] == 0
    code, again, _ = softde(*commands[1])
    assert code == 0
    assert re.search(rf"^a run +{row[1]}$", again, re.MULTILINE)


def test_a_tilde_that_the_shell_leaves_alone(
    softde: Call, small: tuple[object, ...], tea: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (home / "tea.toml").write_bytes(tea.read_bytes())
    assert softde("regions", "--survey=~/tea.toml")[0] == 0
    assert softde("align", "Italy", *small, "--out=~/r")[0] == 0
    code, out, _ = softde("compare", "Italy", "--survey=~/tea.toml", "--prompt=~/r")
    assert code == 0 and re.search("^r  ", out, re.MULTILINE)
    assert softde("verify", "--survey=~/tea.toml", "~/r")[0] == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["home"]


def test_the_peft_folder_of_a_run_is_read(softde: Call, small: tuple[object, ...], tea: Path) -> None:
    softde("align", "Ireland", *small)
    code, out, _ = softde("verify", "runs/ireland/peft", "--survey", tea)
    assert code == 0 and out.startswith("verified: 2 items")
    prompts = ("--prompt", "runs/ireland", "--prompt", "runs/ireland/peft")
    code, out, _ = softde("compare", "Ireland", "--survey", tea, *prompts)
    rows = dict(re.findall(r"^(ireland|peft) +(.*)$", out, re.MULTILINE))
    assert code == 0 and rows["ireland"] == rows["peft"]


def test_compare_asks_the_survey_of_the_prompt(
    softde: Call, refused: Callable[..., str], small: tuple[object, ...], tea: Path, model: Path
) -> None:
    softde("align", "Italy", *small)
    for region in ("Italy", "Atlantis"):
        message = refused("compare", region, "--prompt", "runs/italy")
        assert message == "runs/italy was made with survey 'tea', which is not shipped; give its file with --survey"
    code, out, err = softde("compare", "Italy", "--prompt", "runs/italy", "--survey", "vsm13")
    assert code == 0 and "survey vsm13" in out
    assert "softde: note: runs/italy was made with survey 'tea'; here it is asked 'vsm13'" in err
    code, _, err = softde("compare", "Italy", "--prompt", "runs/italy", "--survey", tea)
    assert code == 0 and "note" not in err

    cat = {"survey": {"id": "vsm13:cat_35_25"}, "model": str(model)}
    SoftPrompt.load("runs/italy/prompt.safetensors").with_provenance(cat).save("cat.safetensors")
    code, out, _ = softde("compare", "Italy", "--prompt", "cat.safetensors")
    assert code == 0 and "survey vsm13:cat_35_25" in " ".join(out.split())


def test_prompts_are_named_by_the_shortest_path_that_tells_them_apart() -> None:
    from softde.cli.compare import prompt_names

    def names(*paths: str) -> list[str]:
        return prompt_names(map(Path, paths))

    assert names("runs/a/india", "runs/b/india") == ["a/india", "b/india"]
    assert names("runs/a/india/prompt.safetensors", "runs/b.safetensors") == ["india", "b"]
    assert names("/x/india", "/y/x/india") == ["/x/india".strip("/"), "y/x/india"]
    assert names("runs/a", "runs/a/prompt.safetensors") == ["a", "a"]  # one and the same
    assert names("/prompt.safetensors") == ["prompt.safetensors"]


def test_a_region_without_letters_has_a_folder_of_its_own(softde: Call, small: tuple[object, ...], tea: Path) -> None:
    tea_for_two = tea.read_text().replace("Ireland = ", '"☕" = ')
    Path("two.toml").write_text(tea_for_two)
    code, _, _ = softde("align", "☕", *small, "--survey", "two.toml")
    assert code == 0
    assert [entry.name for entry in Path("runs").iterdir()] == ["u2615"]

    from softde.cli.folders import slug

    assert len({slug(name) for name in ("भारत की", "भारत का", "🍵", "☕", "Côte d'Ivoire")}) == 5
    assert slug("Côte d'Ivoire") == slug("Co\u0302te d'Ivoire") == "côte-d-ivoire"


def test_verify_says_when_the_answers_changed(
    softde: Call, small: tuple[object, ...], tea: Path, tmp_path: Path
) -> None:
    softde("align", "Ireland", *small)
    other = save(tmp_path / "other", seed=1)
    code, out, err = softde("verify", "runs/ireland", "--survey", tea, "--model", other)
    assert code == 1
    assert out.startswith("not verified: ")
    assert "softde: warning: this soft prompt was made with another model" in err
    assert "PromptMismatch" not in err and len(err.splitlines()) == 2


def test_a_prompt_that_peft_cannot_hold_does_not_fail_the_run(
    softde: Call, small: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError("no reserved tokens")

    monkeypatch.setattr(SoftPrompt, "save_peft", refuse)
    code, out, err = softde("align", "Ireland", *small)
    assert code == 0
    assert "softde: note: no peft/ folder: no reserved tokens" in err
    assert "peft" not in out


def test_durations_and_tables() -> None:
    from softde.report import duration, table

    assert [duration(s) for s in (0.4, 59.6, 750, 3725)] == ["0 s", "1 min 00 s", "12 min 30 s", "1 h 02 min"]
    assert table(["a", "b"], [["long", "1"], ["x", "20"]], right=[1]) == "a      b\nlong   1\nx     20"


# ---- one sentence and exit code 2 ----------------------------------------------------------------------------------


def test_unknown_words(refused: Callable[..., str]) -> None:
    assert "did you mean Saudi Arabia?" in refused("align", "Saudi Arabai")
    assert "Qatar: edition 2023 lacks IVR" in refused("align", "Qatar", "--edition", "2023")
    assert "edition 2015 lacks" in refused("align", "Saudi Arabia", "--edition", "2015")
    assert "unknown edition '1999'" in refused("compare", "Saudi Arabia", "--edition", "1999")
    assert "unknown edition '1999'" in refused("regions", "--edition", "1999")
    assert "unknown survey 'vsm14'" in refused("align", "Saudi Arabia", "--survey", "vsm14")
    assert "cannot read 'no.toml'" in refused("regions", "--survey", "no.toml")
    assert "Missing argument" in refused("align")
    assert "nothing" in refused("nothing")
    assert "'front', 'after_bos', 'system', 'user_start', 'late'" in refused(
        "align", "Saudi Arabia", "--placement", "middle"
    )
    assert "optimizer: expected one of auto, de, " in refused("align", "Saudi Arabia", "--optimizer", "sgd")
    assert "'expected', 'argmax'" in refused("align", "Saudi Arabia", "--readout", "guess")
    assert "--populatoin" in refused("align", "Saudi Arabia", "--populatoin", "3")


def test_settings_that_cannot_work(refused: Callable[..., str]) -> None:
    align = ("align", "Saudi Arabia")
    assert "at least the population size, which is 30" in refused(*align, "--population", 30, "--budget", 29)
    assert "needs a population of at least 4" in refused(*align, "--population", 2, "--strategy", "rand1bin")
    assert "Unknown strategy 'rand9bin'" in refused(*align, "--strategy", "rand9bin")
    message = refused(*align, "--optimizer", "shade", "--strategy", "rand1bin")
    assert "--strategy: only differential evolution has strategies, not 'shade'; use --optimizer de" in message
    assert "--seeds: expected whole numbers with commas between them" in refused(*align, "--seeds", "0;1")
    assert "seeds: expected each number once, got [0, 1, 1]" in refused(*align, "--seeds", "0,1,1")
    assert "seed: got 1 beside seeds=[0, 1]; give one or the other" in refused(*align, "--seed", 1, "--seeds", "0,1")
    assert "steps: expected a whole number of at least 1, got 0" in refused(*align, "--warm-start", 0)
    assert "num_virtual_tokens: expected 1 or more" in refused(*align, "--num-virtual-tokens", 0)


@pytest.mark.parametrize(
    ("words", "least"),
    [
        ((), 16),  # cma-gn
        (("--readout", "sequence"), 16),
        (("--readout", "argmax"), 8),  # shade-gn
        (("--readout", "sampled"), 8),
        (("--readout", "sampled", "--draws", "fresh"), 16),  # es
        (("--readout", "argmax", "--optimizer", "cma"), 16),
        (("--readout", "argmax", "--population", 12), 12),
    ],
)
def test_the_least_budget_is_that_of_the_optimiser_taken_for_the_read_out(
    refused: Callable[..., str], words: tuple[object, ...], least: int
) -> None:
    asked = ("align", "Saudi Arabia", *words, "--model", "./nowhere", "--budget")
    assert f"at least the population size, which is {least}, " in refused(*asked, least - 1)
    assert "there is no folder './nowhere'" in refused(*asked, least, model_loaded=True)


def test_a_budget_that_the_library_takes(softde: Call, model: Path, tea: Path) -> None:
    asked = ("--model", model, "--survey", tea, "--budget", 10, "--readout", "argmax", "--out", "a")
    code, _, err = softde("align", "Ireland", *asked)
    assert code == 0 and "auto chose shade-gn " in err
    assert json.loads(Path("a/result.json").read_text())["evaluations"] == 8


def test_unknown_models(refused: Callable[..., str], tmp_path: Path, model: Path) -> None:
    align = ("align", "Saudi Arabia", "--model")
    assert "there is no folder './nowhere'" in refused(*align, "./nowhere", model_loaded=True)
    (tmp_path / "empty").mkdir()
    assert "without a config.json" in refused(*align, "empty", model_loaded=True)
    assert "dtype: expected one of" in refused(*align, model, "--dtype", "float12", model_loaded=True)
    assert "device: expected" in refused(*align, model, "--device", "toaster", model_loaded=True)


def test_model_without_the_option_tokens(refused: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.utils import logging

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "the": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("wordy")
    logging.disable_progress_bar()
    make_model(vocab_size=8).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>").save_pretrained(folder)
    for command in (("align", "Saudi Arabia"), ("compare", "Saudi Arabia")):
        message = refused(*command, "--model", folder, model_loaded=True)
        assert "option label" in message and "<unk>" in message and "single and distinct tokens" in message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "t2"', 'id = "t1"', "duplicate item id 't1'"),
        ('scale = "agreement"', 'scale = "agrement"', "unknown scale 'agrement'; did you mean 'agreement'?"),
        ('scale = "agreement"\n', "", "expected either scale"),
        ("t2 = -10", "t3 = -10", "weight for item 't3', which does not exist"),
        ("[[items]]", "[[items", "invalid TOML"),
        ("TEA = 65", "TEE = 65", "unknown factor 'TEE'"),
    ],
)
def test_survey_files(refused: Callable[..., str], tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SURVEY.replace(old, new))
    for command in (("align", "Ireland"), ("compare", "Ireland"), ("regions",)):
        sentence = refused(*command, "--survey", path)
        assert "mine.toml" in sentence and message in sentence


def test_prompt_files(refused: Callable[..., str], tmp_path: Path, model: Path) -> None:
    whole, cut, empty = (tmp_path / name for name in ("whole.safetensors", "cut.safetensors", "empty.safetensors"))
    SoftPrompt(torch.ones(4, 7)).save(whole)
    cut.write_bytes(whole.read_bytes()[:-10])
    empty.touch()
    compare = ("compare", "Saudi Arabia", "--model", model, "--prompt")
    for file in (cut, empty):
        assert "cannot be read as safetensors" in refused(*compare, whole, "--prompt", file)
        assert "cannot be read as safetensors" in refused("verify", file)
    assert "there is no file" in refused("verify", tmp_path / "none.safetensors")
    assert "there is no file" in refused("verify", tmp_path)  # a folder that is no run
    assert "7 numbers wide" in refused(*compare, whole, model_loaded=True)
    assert "no verification record, so there is nothing to compare with" in refused("verify", whole)
    record = {"verification": {"items": ["t1"], "logprobs": [[0.0]]}}
    SoftPrompt(torch.ones(4, 7), "late", record).save(whole)
    assert "which is not shipped; give its file with --survey" in refused("verify", whole)
    assert "name one with --model" in refused("verify", whole, "--survey", "vsm13")


def test_a_model_folder_that_has_moved(
    softde: Call, small: tuple[object, ...], tea: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("m 2").symlink_to(model)
    softde("align", "Ireland", *small, "--model", "m 2")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    for words in (("verify", "../runs/ireland"), ("compare", "Ireland", "--prompt", "../runs/ireland")):
        code, _, err = softde(*words, "--survey", tea)
        assert code == 2
        assert "[the prompt names model 'm 2'; --model names another, or its place]" in err
    assert softde("verify", "../runs/ireland", "--survey", tea, "--model", "../m 2")[0] == 0
    assert "the prompt names" not in softde("verify", "../runs/ireland", "--survey", tea, "--model", "m 3")[2]


def test_output_folders(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "expected a folder, got an empty text" in refused("align", "Saudi Arabia", "--out", "")
    (tmp_path / "file").touch()
    for out in ("file", "file/below/it"):
        message = refused("align", "Saudi Arabia", "--out", out)
        assert "is a file; choose another folder with --out" in message


def test_another_configuration_in_the_folder(
    softde: Call, refused: Callable[..., str], small: tuple[object, ...]
) -> None:
    softde("align", "Ireland", *small)
    message = refused("align", "Ireland", *small, "--seed", 1, model_loaded=True)
    assert "seed was 0, now 1" in message and "--no-resume" in message
    code, _, _ = softde("align", "Ireland", *small, "--seed", 1, "--no-resume")
    assert code == 0


def test_full_disk(softde: Call, small: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    from softde import checkpoint as files

    saved, keep = [], files.save

    def full(*arguments: Any) -> None:
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", "checkpoint.safetensors")
        saved.append(keep(*arguments))

    monkeypatch.setattr(files, "save", full)
    code, _, err = softde("align", "Ireland", *small)
    assert code == 2
    assert err.splitlines()[-1] == "softde: error: checkpoint.safetensors: No space left on device"
    monkeypatch.undo()


# ---- Ctrl-C, and what is nobody's mistake but ours -----------------------------------------------------------------


def test_ctrl_c_in_the_search_keeps_the_best(
    softde: Call, small: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    import_module("softde.align")

    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["softde.align.verb"], "printer", lambda: stop)
        code, _, err = softde("align", "Ireland", *small)
    assert code == 130
    assert "Traceback" not in err
    assert "interrupted after 4 candidates" in err and "the same command goes on" in err
    assert SoftPrompt.load("runs/ireland/prompt.safetensors").provenance["evaluations"] == 4
    code, _, _ = softde("align", "Ireland", *small)
    assert code == 0
    assert SoftPrompt.load("runs/ireland/prompt.safetensors").provenance["evaluations"] == 12


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (ImportError("to_frame needs pandas: pip install 'softde[viz]'"), 2)],
)
def test_other_ends(softde: Call, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    monkeypatch.setattr("softde.surveys.load_survey", raiser(error))
    found, _, err = softde("regions")
    assert found == code
    assert "Traceback" not in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), ImportError("no module named torch"), KeyError("k")])
def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr("softde.surveys.load_survey", raiser(error))
    with pytest.raises(type(error)):
        run(["regions"])


def test_debugging_shows_every_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTDE_DEBUG", "1")
    with pytest.raises(ValueError, match="unknown edition"):
        run(["regions", "--edition", "1999"])


def test_the_process_itself() -> None:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "softde.cli", *words], capture_output=True, text=True, check=False)

    done = call("align", "Atlantis")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "softde: error: unknown region 'Atlantis'; did you mean Albania?\n"
    piped = subprocess.run(
        f"{sys.executable} -m softde.cli regions | head -n 1", shell=True, capture_output=True, text=True, check=False
    )
    assert piped.stderr == ""


def test_runner_sees_the_same_commands() -> None:
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["regions", "--edition", "2023"])
    assert result.exit_code == 0
    assert "Saudi Arabia" in result.stdout


def raiser(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail
