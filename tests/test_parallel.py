"""Several ranks: the same search bit by bit, and what ends one of them ends all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from softde import RayWorkers, align
from softde.lm import LM
from softde.objective import Evaluation
from softde.optim import DE
from softde.parallel import Ranks, cut, join, launched, local_device, pack, ranks, slices, unpack
from softde.space import PromptSpace
from softde.surveys import Survey, Target

posix = pytest.mark.skipif(sys.platform == "win32", reason="forks")
QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
WHOLE = "the budget is used up"
DURATION = r", [\d hmins]+; stopped"  # of the closing lines, in whole seconds
SETTINGS = (
    "ranks 0 and 1 were started with different settings (seed is 0 and 1): give every rank the same model, survey and "
    "settings"
)

# ---- the pieces ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("population", [1, 4, 5, 24])
def test_slices_cut_a_population_in_order(population: int, parts: int) -> None:
    cut = slices(population, parts)
    rows = [list(range(population))[rows] for rows in cut]
    assert sum(rows, []) == list(range(population)) and len(cut) == parts  # noqa: RUF017
    sizes = [len(part) for part in rows]
    assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)


def an_evaluation(n: int, seed: int) -> Evaluation:
    """Made of whatever fields an evaluation has: numbers that are hard to carry, and a count."""
    draw = np.random.default_rng(seed)
    scores = draw.standard_normal((n, 3)) * 10.0 ** draw.integers(-300, 300, (n, 3))
    known: dict[str, Any] = {"scores": scores, "tokens": 10**12 + seed, "filler": seed}
    hard = np.array([np.nan, np.inf, -0.0, 0.1])[draw.integers(0, 4, n)]
    return Evaluation(**{name: known.get(name, hard) for name in Evaluation._fields})


def same(a: Any, b: Any) -> bool:
    if isinstance(a, int):
        return type(b) is int and a == b
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def test_an_evaluation_travels_exactly() -> None:
    for n in (1, 5):
        whole = an_evaluation(n, n)
        assert all(same(a, b) for a, b in zip(whole, unpack(pack(whole)), strict=True))


def test_join_is_one_evaluation_of_all() -> None:
    parts = [an_evaluation(2, 1), an_evaluation(1, 2), an_evaluation(3, 3)]
    whole = join(parts)
    assert whole.tokens == sum(part.tokens for part in parts) and type(whole.tokens) is int
    for name in ("losses", "scores", "option_mass"):
        assert same(getattr(whole, name), np.array([row for part in parts for row in getattr(part, name)]))


def test_cut_undoes_join() -> None:
    parts = [an_evaluation(n, n) for n in (2, 1, 3)]
    spent = [np.arange(1.0, len(part.losses) + 1) for part in parts]
    parts = [p._replace(spent=s, tokens=int(s.sum()), filler=0) for p, s in zip(parts, spent, strict=True)]
    for one, other in zip(cut(join(parts), [2, 1, 3]), parts, strict=True):
        assert all(same(a, b) for a, b in zip(one, other, strict=True))
    assert cut(parts[0], [2]) == [parts[0]]


def test_a_process_on_its_own_does_nothing_special(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert not launched() and ranks() == Ranks() and Ranks().first
    monkeypatch.setenv("WORLD_SIZE", "4")  # a cluster's, without torchrun
    assert not launched() and ranks() == Ranks()
    with pytest.raises(KeyError, match="as it came"):
        Ranks().agree(lambda: {}["as it came"])
    assert Ranks().from_first(lambda: b"x") == b"x"


def test_each_rank_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [local_device(device) for device in (None, "cuda", "cpu")] == [None, "cuda", "cpu"]
    where = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in where.items():
        monkeypatch.setenv(name, value)
    assert [local_device(device) for device in (None, "cuda", "cuda:3", "cpu")] == ["cuda:1", "cuda:1", "cuda:3", "cpu"]


def test_workers_and_torchrun_are_one_too_many(
    llama: LM, mini: Survey, ireland: Target, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys.modules["softde.align.session"], "ranks", lambda: Ranks(1, 2))
    with pytest.raises(ValueError, match="workers: got RayWorkers in one of 2 processes that torchrun started"):
        align(llama, mini, ireland, PromptSpace.random(llama, 2), DE(4), 4, checkpoint=tmp_path / "run",
              progress=False, workers=RayWorkers(2))  # fmt: skip
    assert not (tmp_path / "run").exists()


# ---- many ranks in many troubles, forked from one process ----------------------------------------------------------


@pytest.fixture(scope="module")
def report(llama_folder: Path, mini_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests/ranks.py found."""
    words = [sys.executable, "-m", "tests.ranks", llama_folder, mini_file, tmp_path_factory.mktemp("ranks")]
    done = subprocess.run(list(map(str, words)), env=QUIET, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@posix
@pytest.mark.slow
def test_any_number_of_ranks_finds_the_same(report: dict[str, Any]) -> None:
    alone = report["ranks"]["1"][0]
    assert alone["ended"] == WHOLE
    for size in ("2", "4", "6"):
        assert report["ranks"][size] == [alone] * int(size)
        assert report["files"][size] == report["files"]["1"], size


@posix
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sampled", "halved", "warm", "seeds"])
def test_draws_seeds_and_warm_starts_are_the_same_on_two_ranks(report: dict[str, Any], kind: str) -> None:
    alone = report["ranks"][f"{kind} 1"][0]
    assert report["ranks"][f"{kind} 2"] == [alone, alone]
    assert report["files"][f"{kind} 2"] == report["files"][f"{kind} 1"]
    if kind == "warm":
        assert alone["record"]["warm_start"]["forward_equivalents"] == 11 and alone["record"]["evaluations"] == 15
    if kind == "seeds":
        sampled = report["ranks"]["sampled 1"][0]
        assert alone["seeds"][0]["prompt"] == sampled["prompt"] and len({s["prompt"] for s in alone["seeds"]}) == 3


@posix
@pytest.mark.slow
def test_ranks_with_other_seeds_are_refused(report: dict[str, Any]) -> None:
    message = "ranks 0 and 1 were started with different settings (seeds is [0, 1] and [0, 2])"
    assert [rank["message"][: len(message)] for rank in report["other seeds"]] == [message] * 2


@posix
@pytest.mark.slow
def test_only_the_first_writes(report: dict[str, Any]) -> None:
    assert report["strays"] == []


@posix
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ctrl-c", "ctrl-c everywhere, twice", "ctrl-c while waiting"])
def test_ctrl_c_ends_all_in_the_same_generation(report: dict[str, Any], name: str) -> None:
    one, other = report["cases"][name]
    assert one == other and one["ended"] == "interrupted"
    assert one["record"]["generations"] == (2 if "waiting" in name else 1)
    check_again(report, name)


@posix
@pytest.mark.slow
def test_ctrl_c_before_anything_is_scored(report: dict[str, Any]) -> None:
    name = "ctrl-c before anything is scored"
    assert [rank["ended"] for rank in report["cases"][name]] == ["KeyboardInterrupt"] * 2
    check_again(report, name)


@posix
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("error", [("ValueError", "rank 1: RuntimeError: a cable is loose"), ("RuntimeError", "a cable is loose")]),
        ("first fails", [("RuntimeError", "a cable is loose"), ("ValueError", "RuntimeError: a cable is loose")]),
        ("full disk", [("ValueError", "cannot write checkpoint.safetensors: No space left on device")] * 2),
        ("progress", [("KeyError", "1"), ("ValueError", "KeyError: 1")]),
        ("other seed", [("ValueError", SETTINGS)] * 2),
    ],
)  # fmt: skip
def test_an_error_on_one_rank_ends_all(report: dict[str, Any], name: str, ends: list[tuple[str, str]]) -> None:
    assert [(rank["ended"], rank["message"]) for rank in report["cases"][name]] == ends
    assert max(rank["seconds"] for rank in report["cases"][name]) < 60
    check_again(report, name)


@posix
@pytest.mark.slow
def test_a_killed_rank_ends_the_others(report: dict[str, Any]) -> None:
    left, killed = report["cases"]["killed"]
    assert killed["ended"] == "SIGKILL" and left["ended"] == "ValueError" and left["seconds"] < 60
    assert left["message"].startswith("rank 0 of 2: another rank is gone") and "\n" not in left["message"]
    assert "the same command goes on from the last checkpoint" in left["message"]
    check_again(report, "killed")


@posix
@pytest.mark.slow
def test_refusals_are_everybodys(report: dict[str, Any]) -> None:
    for name, message in {"refused": "seed was 0, now 1", "no folder": "cannot write to folder"}.items():
        one, other = report[name]
        assert one["ended"] == other["ended"] == "ValueError"
        assert message in one["message"] and one["message"] == other["message"]


@posix
@pytest.mark.slow
def test_a_run_goes_on_with_more_ranks(report: dict[str, Any]) -> None:
    alone = report["ranks"]["1"][0]
    assert [rank["ended"] for rank in report["more ranks"][:2]] == ["interrupted"] * 2
    assert report["more ranks"][2:] == [alone] * 4
    assert report["after"]["more ranks"] == report["files"]["1"]


@posix
@pytest.mark.slow
def test_smaller_groups_on_one_are_smaller_groups_on_all(report: dict[str, Any]) -> None:
    full = report["ranks"]["1"][0]["group_sizes"][0]
    one, other = report["cases"]["smaller groups"]
    assert one == other and one["group_sizes"] == [full, full // 2, full // 2]


def check_again(report: dict[str, Any], name: str) -> None:
    """The same call on one machine goes on to the same bytes."""
    assert report["again"][name] == report["ranks"]["1"]
    assert report["after"][name] == report["files"]["1"]


# ---- torchrun itself -----------------------------------------------------------------------------------------------


def torchrun(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    command = [*start, "--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    command += ["-m", "softde", *map(str, words)]
    return subprocess.run(command, env=QUIET, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_the_command_under_torchrun(llama_folder: Path, mini_file: Path, tmp_path: Path) -> None:
    words = ["align", "Ireland", "--model", llama_folder, "--survey", mini_file, "--num-virtual-tokens", "2",
             "--population", "5", "--budget", "10", "--device", "cpu"]  # fmt: skip
    done = torchrun(tmp_path, *words, "--out", "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next:") == done.stdout.count("files in two") == 1
    alone = [sys.executable, "-m", "softde", *map(str, words), "--out", "one", "--quiet"]
    assert subprocess.run(alone, env=QUIET, cwd=tmp_path, capture_output=True, timeout=120, check=False).returncode == 0
    for name in ("run.yaml", "log.jsonl", "prompt.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    one, other = ((tmp_path / folder / "comparison.md").read_text() for folder in ("one", "two"))
    assert re.sub(DURATION, "", one) == re.sub(DURATION, "", other) and re.search(DURATION, one)

    wrong = torchrun(tmp_path, *words, "--out", "two", "--seed", "1")
    assert wrong.returncode != 0 and "Traceback" not in wrong.stdout
    assert wrong.stderr.count("softde: error: two holds a run with another configuration (seed was 0, now 1)") == 1


def test_a_group_that_was_joined_is_left_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist

    from softde import parallel

    join, at_the_end = dist.init_process_group, list[Any]()
    monkeypatch.setattr(parallel, "launched", lambda: True)
    monkeypatch.setattr(parallel.atexit, "register", at_the_end.append)
    monkeypatch.setattr(
        dist, "init_process_group", lambda backend, **_: join(backend, store=dist.HashStore(), rank=0, world_size=1)
    )
    assert parallel.ranks().size == 1 and dist.is_initialized()
    for leave in at_the_end * 2:  # a second time does no harm
        leave()
    assert at_the_end and not dist.is_initialized()
