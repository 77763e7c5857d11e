"""A run's folder: what is written is read again exactly; what is damaged, missing or another run's is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from softde import checkpoint
from softde.checkpoint import Saved, flatten, open_run, refuse_changes
from softde.prompt import SoftPrompt

CONFIG: dict[str, Any] = {
    "model": "tiny",
    "revision": None,
    "target": {"region": "Türkiye", "edition": "2023", "scores": {"PDI": 66.0, "IDV": 1e-05}, "anchors": []},
    "weights": [1.0, 0.1],
    "optimizer": {"name": "DE", "F": [0.5, 1.0], "bounds": [[-math.inf], [math.inf]]},
    "origin": "text: No: 'yes'\n# {a}\t",
    "seed": 0,
    "versions": {"torch": "2.6"},
}
TENSORS = {"population": torch.randn(4, 6), "losses": torch.tensor([1.5, math.nan, math.inf, 0.1], dtype=torch.float64)}
NUMBERS = {"generation": 2, "evaluations": 8, "best_loss": 0.1, "asked": False}


def a_line(generation: int) -> dict[str, Any]:
    return {"generation": generation, "best": 0.1 + generation, "median": None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of two generations, with one more in its log than in its checkpoint."""
    folder = tmp_path / "runs" / "one"
    assert open_run(folder, CONFIG, resume=True) is None
    for generation in (1, 2, 3):
        checkpoint.log(folder, a_line(generation))
        if generation < 3:
            checkpoint.save(folder, TENSORS, {**NUMBERS, "generation": generation}, 12.5, 1000)
    return folder


def saved(folder: Path, config: dict[str, Any] = CONFIG) -> Saved:
    found = open_run(folder, config, resume=True)
    assert found is not None
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- what works ----------------------------------------------------------------------------------------------------


def test_a_new_folder_holds_its_configuration_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert open_run(folder, CONFIG, resume=True) is None
    assert [path.name for path in folder.iterdir()] == ["run.yaml"]
    assert yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8")) == CONFIG
    assert open_run(folder, CONFIG, resume=True) is None  # stopped before its first checkpoint: starts over


def test_everything_comes_back_exactly(folder: Path) -> None:
    found = saved(folder)
    assert found.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert found.tensors[name].numpy().tobytes() == tensor.numpy().tobytes()
    assert found.numbers == NUMBERS
    assert (found.wall_seconds, found.forward_tokens) == (12.5, 1000)
    assert found.trajectory == (a_line(1), a_line(2))


def test_the_log_is_cut_to_the_checkpoint(folder: Path) -> None:
    assert len((folder / "log.jsonl").read_text().splitlines()) == 3
    saved(folder)
    assert (folder / "log.jsonl").read_text() == "".join(json.dumps(a_line(g)) + "\n" for g in (1, 2))
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"generation": 3, "be')  # a kill in the middle of a line
    before = contents(folder)["checkpoint.safetensors"]
    assert saved(folder).trajectory == (a_line(1), a_line(2))
    assert (folder / "log.jsonl").read_text().count("\n") == 2
    assert contents(folder)["checkpoint.safetensors"] == before


def test_the_same_state_makes_the_same_bytes(folder: Path) -> None:
    before = contents(folder)["checkpoint.safetensors"]
    shuffled = dict(reversed(NUMBERS.items()))
    checkpoint.save(folder, TENSORS, shuffled, 12.5, 1000)
    assert contents(folder)["checkpoint.safetensors"] == before


def test_starting_over(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    assert open_run(folder, {**CONFIG, "seed": 1}, resume=False) is None
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "previous-1", "run.yaml"]
    assert yaml.safe_load((folder / "run.yaml").read_text())["seed"] == 1


def test_versions_may_change(folder: Path) -> None:
    assert saved(folder, {**CONFIG, "versions": {"torch": "3.0", "numpy": "2"}}).numbers == NUMBERS


def test_the_group_size_may_change_and_is_that_of_the_log(tmp_path: Path) -> None:
    folder, first = tmp_path / "run", {**CONFIG, "group_size": 8}
    assert open_run(folder, first, resume=False) is None
    for generation, size in ((1, 8), (2, 4)):  # halved on the way
        checkpoint.log(folder, {**a_line(generation), "group_size": size})
        checkpoint.save(folder, TENSORS, {**NUMBERS, "generation": generation}, 12.5, 1000)
    before = contents(folder)
    assert saved(folder, {**CONFIG, "group_size": 16}).group_size == 4
    assert contents(folder) == before  # which keeps the first
    assert Saved(TENSORS, NUMBERS, (), 0.0, 0).group_size is None
    assert Saved(TENSORS, NUMBERS, (a_line(1),), 0.0, 0).group_size is None  # a run that did not write it down


def test_a_saved_search_travels_exactly(folder: Path) -> None:
    whole = saved(folder)
    again = Saved.from_bytes(whole.to_bytes())
    assert {k: v for k, v in vars(again).items() if k != "tensors"} == {
        k: v for k, v in vars(whole).items() if k != "tensors"
    }
    assert {n: t.numpy().tobytes() for n, t in again.tensors.items()} == {
        n: t.numpy().tobytes() for n, t in TENSORS.items()
    }


def test_versions_are_those_that_decide_the_last_bits() -> None:
    import transformers

    from softde import __version__

    expected = {"softde": __version__, "torch": torch.__version__, "transformers": transformers.__version__}
    assert checkpoint.versions() == expected


def test_flatten() -> None:
    nested = {"a": {"b": 1, "c": [1, (2,)]}, "d": {}, "e": None, "f": (3,)}
    assert dict(flatten(nested)) == {"a.b": 1, "a.c": [1, (2,)], "d": {}, "e": None, "f": [3]}


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seed": 1}, r"\(seed was 0, now 1\)"),
        ({"target": {**CONFIG["target"], "edition": "2015"}}, r"\(target.edition was '2023', now '2015'\)"),
        ({"weights": None}, r"\(weights was \[1.0, 0.1\], now None\)"),
        ({"optimizer": {**CONFIG["optimizer"], "F": 0.5}}, r"\(optimizer.F was \[0.5, 1.0\], now 0.5\)"),
        ({"more": True}, r"\(more was None, now True\)"),
        ({"model": "a", "revision": "b", "origin": "c", "seed": 4, "weights": 5, "target": {}},
         r"\(model was 'tiny', now 'a'; revision was None, now 'b'; target.region was .*; target.ed.* and 7 more\)"),
    ],
)  # fmt: skip
def test_another_configuration(folder: Path, change: dict[str, Any], difference: str) -> None:
    before = contents(folder)
    expected = rf"holds a run with another configuration {difference}: use the same settings to go on, another folder"
    with pytest.raises(ValueError, match=expected) as refusal:
        open_run(folder, {**CONFIG, **change}, resume=True)
    assert str(folder) in str(refusal.value) and "resume=False (--no-resume) to start over" in str(refusal.value)
    assert contents(folder) == before


def test_long_settings_are_cut(folder: Path) -> None:
    """Option shares of 259 items are no sentence."""
    shares = [[0.25] * 4] * 259
    with pytest.raises(ValueError, match=r"\(shares was None, now \[\[0.25, 0.25, .* \.\.\.\): use") as refusal:
        refuse_changes(folder, CONFIG, {**CONFIG, "shares": shares})
    assert len(str(refusal.value)) < 400


def test_a_setting_that_is_gone(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"\(seed was 0, now None\)"):
        refuse_changes(folder, CONFIG, {k: v for k, v in CONFIG.items() if k != "seed"})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def foreign(path: Path) -> None:
    SoftPrompt(torch.ones(2, 3)).save(path)


def write(content: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(content)

    return damage


def drop_a_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("run.yaml", write(b"seed: [0"), "run.yaml is damaged: use another folder, or start over"),
        ("run.yaml", write(b"seed: \xff"), "run.yaml is damaged"),
        ("run.yaml", write(b"just words"), "run.yaml is damaged"),
        ("run.yaml", write(b"- a\n- list"), "run.yaml is damaged"),
        ("run.yaml", write(b"\n"), "run.yaml is damaged"),
        (
            "run.yaml",
            Path.unlink,
            "holds checkpoint.safetensors and log.jsonl but no run.yaml, which says of which run",
        ),
        ("checkpoint.safetensors", cut, r"checkpoint.safetensors is damaged \(.+\): use another folder, or start over"),
        ("checkpoint.safetensors", write(b""), "checkpoint.safetensors is damaged"),
        ("checkpoint.safetensors", write(b"\0" * 4096), "checkpoint.safetensors is damaged"),
        ("checkpoint.safetensors", foreign, "checkpoint.safetensors is damaged"),
        (
            "log.jsonl",
            Path.unlink,
            "log.jsonl has 0 lines but the checkpoint 2 generations: restore the log, or start over",
        ),
        ("log.jsonl", drop_a_line, "log.jsonl has 1 lines but the checkpoint 2 generations"),
        ("log.jsonl", write(b'{"generation": 1}\n{"gener\n'), "log.jsonl is damaged"),
        ("log.jsonl", write(b"\xff\n\xff\n"), "log.jsonl is damaged"),
    ],
)
def test_damage(folder: Path, name: str, damage: Callable[[Path], None], message: str) -> None:
    damage(folder / name)
    before = contents(folder)
    with pytest.raises(ValueError, match=message) as refusal:
        open_run(folder, CONFIG, resume=True)
    assert str(folder) in str(refusal.value) and "\n" not in str(refusal.value)
    assert "resume=False" in str(refusal.value)
    assert contents(folder) == before
    assert open_run(folder, CONFIG, resume=False) is None  # the way out works


def test_a_log_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("mine\n")
    with pytest.raises(ValueError, match="holds log.jsonl but no run.yaml"):
        open_run(tmp_path, CONFIG, resume=True)
    assert contents(tmp_path) == {"log.jsonl": b"mine\n"}


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="cannot write to folder .*: choose another one"):
            open_run(wrong, CONFIG, resume=True)


def test_a_run_that_is_started_over_is_set_aside_whole(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert open_run(folder, CONFIG, resume=True) is None
    (folder / "prompt.safetensors").write_bytes(b"one")
    (folder / "peft").mkdir()
    (folder / "notes.txt").write_text("mine")
    first = (folder / "run.yaml").read_bytes()
    assert open_run(folder, {**CONFIG, "seed": 1}, resume=False) is None
    assert sorted(p.name for p in folder.iterdir()) == ["notes.txt", "previous-1", "run.yaml"]
    assert (folder / "previous-1" / "run.yaml").read_bytes() == first != (folder / "run.yaml").read_bytes()
    assert (folder / "previous-1" / "prompt.safetensors").read_bytes() == b"one"
    assert open_run(folder, CONFIG, resume=False) is None
    assert (folder / "previous-2" / "run.yaml").exists() and (folder / "previous-1" / "peft").is_dir()
    assert open_run(tmp_path / "new", CONFIG, resume=False) is None
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["run.yaml"]
