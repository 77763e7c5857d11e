"""All stages on the embedded model, as the benchmark runs them, interrupted in each; and the command line."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from softde.baselines.culture_spa import LoRA, load_collection, load_questions
from softde.cli.culture_spa import culture_spa
from softde.compare import grid
from softde.lm import LM
from tests.culture_spa.conftest import RECORDED

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SETTINGS = LoRA(rank=2, lr=2e-3, batch=4, save_every=1)
REGIONS = ("Pakistan", "France")


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The script, imported as it is when it is run."""
    sys.path.insert(0, str(RECORDED.parent))
    try:
        yield importlib.import_module("bench_culture_spa")
    finally:
        sys.path.remove(str(RECORDED.parent))


@pytest.mark.slow
def test_questions_to_table_interrupted_in_every_stage(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, questions = LM.from_pretrained("tiny"), load_questions(RECORDED).kept[::2]

    def go(name: str) -> Any:
        return bench.run(lm, questions, REGIONS, tmp_path / name, SETTINGS, budget=0, progress=False)

    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    before = lm.weights_sample
    whole = go("whole")
    stages: list[tuple[str, Any, str, int]] = [
        ("softde.baselines.culture_spa.answer", None, "administer", 2),
        ("softde.baselines.culture_spa.collect", None, "write_rows", 1),
        ("softde.baselines.culture_spa.train", None, "_step", 2),
        ("softde.compare.grid", grid, "ask", 3),
    ]
    for where, _, function, call in stages:
        module = importlib.import_module(where)
        with monkeypatch.context() as patch:
            patch.setattr(module, function, stopping(getattr(module, function), call))
            with pytest.raises(KeyboardInterrupt):
                go("parts")
    parts = go("parts")
    assert parts.answers == whole.answers
    assert parts.collection == whole.collection
    for file in sorted((tmp_path / "whole").rglob("*.jsonl")) + sorted((tmp_path / "whole").rglob("adapter_model*")):
        if "comparison" not in file.parts:
            assert file.read_bytes() == (tmp_path / "parts" / file.relative_to(tmp_path / "whole")).read_bytes()
    assert losses(parts.table) == losses(whole.table)
    assert LM(lm.model, lm.tokenizer).weights_sample == before

    found = losses(whole.table)
    methods = {"unprompted", "persona", "LoRA, joint", "LoRA, specific"}
    assert {method for method, _ in found} == methods
    for region in REGIONS:
        assert len({found[method, region] for method in methods}) == 4
    page = "\n".join(bench.report(whole, lm, len(questions)))
    assert f"| collection | 0 | {len(whole.collection.rows)} (question, region) kept |" in page


def stopping(real: Callable[..., Any], call: int) -> Callable[..., Any]:
    """The same, interrupted at its n-th call."""
    calls = []

    def function(*given: Any, **more: Any) -> Any:
        calls.append(given)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*given, **more)

    return function


def losses(table: Any) -> dict[tuple[str, str], float]:
    return {(row["method"], row["region"]): row["loss"] for row in table.rows if row["kind"] == "condition"}


# -- softde culture-spa ------------------------------------------------------------------------------------------------


def call(*words: object) -> None:
    culture_spa([str(word) for word in words], standalone_mode=False)


def test_the_commands_from_file_to_file(llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = RECORDED.read_text().splitlines()[::4]
    (tmp_path / "q.jsonl").write_text("\n".join([*lines, lines[0], "{"]))
    files = {name: tmp_path / f"{name}.jsonl" for name in ("q", "a", "c")}
    call("answer", files["q"], "--region", "KEN", "--region", "Japan", "--out", files["a"], "--model", llama_folder,
         "--unaware", "", "--aware", "A {adjective} person.")  # fmt: skip
    header = json.loads(files["a"].read_text().splitlines()[0])
    assert header["systems"] == {"": None, "KEN": "A Kenyan person.", "Japan": "A Japanese person."}
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "27 of 28 questions kept (1 asked before)", "answers: unaware 27, KEN 27, Japan 27",
    ]  # fmt: skip
    call("collect", files["q"], "--answers", files["a"], "--out", files["c"])
    kept = load_collection(files["c"])
    assert str(kept) in capsys.readouterr().out
    call(
        "train",
        files["c"],
        "--out",
        tmp_path / "lora",
        "--specific",
        "--rank",
        2,
        "--batch",
        4,
        "--model",
        llama_folder,
    )
    out = capsys.readouterr().out
    assert [line.split(":")[0] for line in out.splitlines()] == list(kept.regions)
    assert (tmp_path / "lora" / "ken" / "adapter" / "adapter_model.safetensors").is_file()


def test_files_of_others_and_texts_by_region(
    llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = tmp_path / "q.json"
    questions.write_text(json.dumps([{"Q_id": "Q0", "question": "Tea?", "option_lst": ["yes", "no"]}]))
    for name, answer in (("nobody", "1"), ("kenya", "2. no")):
        (tmp_path / f"{name}.json").write_text(json.dumps([{"Q_id": "Q0", "answer": answer}]))
    systems = tmp_path / "systems.json"
    systems.write_text(json.dumps({"Kenya": "You are from Kenya."}))
    given = ["--answers", f"={tmp_path / 'nobody.json'}", "--answers", f"Kenya={tmp_path / 'kenya.json'}"]
    call("collect", questions, *given, "--systems", systems, "--out", tmp_path / "c.jsonl")
    kept = load_collection(tmp_path / "c.jsonl")
    assert kept.systems == {"Kenya": "You are from Kenya."}
    assert [(row.unaware, row.aware) for row in kept.rows] == [(0, 1)]
    (tmp_path / "a=b").mkdir()  # a file of ours in a folder that looks like a region
    call("collect", questions, *given, "--out", tmp_path / "silent.jsonl")
    train = ["train", tmp_path / "silent.jsonl", "--out", tmp_path / "lora", "--batch", 1, "--warmup", 0, "--model"]
    with pytest.raises(ValueError, match="what the model is told in 'Kenya'; give .* or --systems on the command line"):
        call(*train, "no such model")
    call(*train, llama_folder, "--systems", systems)
    assert (tmp_path / "lora" / "joint" / "adapter").is_dir()
    call("answer", questions, "--region", "Kenya", "--out", tmp_path / "a=b" / "a.jsonl", "--model", llama_folder)
    call("collect", questions, "--answers", tmp_path / "a=b" / "a.jsonl", "--out", tmp_path / "ours.jsonl")
    call("answer", questions, "--region", "Kenya", "--out", tmp_path / "a.jsonl", "--systems", systems, "--sampled", 3,
         "--model", llama_folder)  # fmt: skip
    header = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert header["systems"]["Kenya"] == "You are from Kenya."
    assert header["readout"] == "Sampled(n=1, seed=3)"
    for wrong, message in (
        (["--region", "Peru", "--systems", systems], "has no text for 'Peru'; add it"),
        (["--region", "Peru", "--systems", systems, "--aware", "x {region}"], "--systems: says what the model is told"),
        (["--region", "Peru", "--systems", questions], "expected texts by region"),
    ):
        with pytest.raises(ValueError, match=message):
            call("answer", questions, "--out", tmp_path / "b.jsonl", *wrong)
    for words in (["answer", questions, "--region", "Kenya"], ["generate", "--seeds", RECORDED]):
        with pytest.raises(ValueError, match="there is no folder .*nowhere; create it first"):
            call(*words, "--model", "no such model", "--out", tmp_path / "nowhere" / "a.jsonl")
    with pytest.raises(ValueError, match="--answers: expected one file of `answer`"):
        call("collect", questions, *given, "--answers", tmp_path / "a.jsonl", "--out", tmp_path / "d.jsonl")
    capsys.readouterr()


def test_a_model_that_writes_no_json_is_said_on_the_command_line(
    llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="wrote no question in"):
        call("generate", "--seeds", RECORDED, "--model", llama_folder, "--out", tmp_path / "q.jsonl", "-n", 5,
             "--at-once", 4, "--max-new-tokens", 2)  # fmt: skip
    capsys.readouterr()
