"""kill -9, Ctrl-C and a full disk, at every moment of a run: the same call again ends in the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from softde.lm import LM
from softde.progress import Progress
from softde.surveys import Survey
from tests.crashes import BUDGET, POPULATION, generation, run, shas

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")

slow = pytest.mark.slow  # two hundred runs of a tenth of a second

GENERATIONS = BUDGET // POPULATION
SAVED = "rename .checkpoint.safetensors.tmp"


@pytest.fixture(scope="module")
def report(llama_folder: Path, mini_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests/crashes.py found, in one process that loads the model once."""
    words = [sys.executable, "-m", "tests.crashes", llama_folder, mini_file, tmp_path_factory.mktemp("crashes")]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(list(map(str, words)), env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def cases(report: dict[str, Any], action: str) -> Iterator[tuple[str, dict[str, Any], int]]:
    """(name for messages, case, generations that were saved before it)."""
    for case in report["cases"]:
        if case["action"] == action:
            saved = report["moments"][: case["number"]].count(SAVED)
            yield f"{action} before {case['label']!r}, moment {case['number']}", case, saved


def check_second_run(report: dict[str, Any], name: str, case: dict[str, Any]) -> None:
    assert case["again"] == {"ended": "the budget is used up", "message": ""}, name
    assert case["files"] == report["reference"], name


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in the process that is broken off: the number of threads decides the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@slow
def test_moments_cover_the_whole_run(report: dict[str, Any]) -> None:
    moments = report["moments"]
    for label in ("score", "open log.jsonl", "sync log.jsonl", "sync .checkpoint.safetensors.tmp", SAVED):
        assert moments.count(label) == GENERATIONS, label
    for label in ("score the winner", "sync .prompt.safetensors.tmp", "rename .result.json.tmp", "sync .run.yaml.tmp"):
        assert moments.count(label) == 1, label
    written = {"run.yaml", "log.jsonl", "checkpoint.safetensors", "prompt.safetensors", "result.json"}
    assert set(report["reference"]) == written


@slow
@pytest.mark.usefixtures("one_thread")
def test_another_process_writes_the_same_bytes(report: dict[str, Any], llama: LM, mini: Survey, tmp_path: Path) -> None:
    run(llama, mini, tmp_path / "here")
    assert shas(tmp_path / "here") == report["reference"]


@slow
def test_killed_at_every_moment(report: dict[str, Any]) -> None:
    for name, case, saved in cases(report, "kill"):
        assert case["ended"] == "SIGKILL", name
        assert case["generation"] == saved, name  # one generation is lost at most
        check_second_run(report, name, case)


@slow
def test_killed_again_and_again(report: dict[str, Any]) -> None:
    sessions = report["sessions"]
    assert [s["ended"] for s in sessions] == ["SIGKILL"] * (len(sessions) - 1) + ["the budget is used up"]
    assert [s["generation"] for s in sessions[:-1]] == list(range(1, GENERATIONS + 1))
    assert report["final"] == report["reference"]


@slow
def test_ctrl_c_at_every_moment(report: dict[str, Any]) -> None:
    moments = report["moments"]
    search = range(moments.index("score") + 1, moments.index("score the winner"))
    for name, case, saved in cases(report, "interrupt"):
        inside = case["number"] in search  # something has been scored, and the search goes on
        assert case["ended"] == ("interrupted" if inside else "KeyboardInterrupt"), name
        assert case["prompt"] == (inside or "rename .prompt.safetensors.tmp" in moments[: case["number"]]), name
        assert case["generation"] == saved, name
        check_second_run(report, name, case)


@slow
def test_full_disk_at_every_write(report: dict[str, Any]) -> None:
    seen = set()
    for name, case, saved in cases(report, "full"):
        file = case["label"].split()[1].removeprefix(".").removesuffix(".tmp")
        seen.add(file)
        assert case["ended"] == "ValueError", name
        assert case["message"].startswith("cannot write "), name
        assert "No space left on device" in case["message"] and "\n" not in case["message"], name
        assert file in case["message"] or "choose another one" in case["message"], name
        assert case["generation"] == saved, name  # the checkpoint before it survives
        check_second_run(report, name, case)
    assert {"run.yaml", "log.jsonl", "checkpoint.safetensors", "prompt.safetensors", "result.json"} < seen


# ---- the kernel's own refusals -------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 512)
        except OSError:
            pass


@pytest.mark.usefixtures("one_thread")
def test_a_disk_that_is_full(small_disk: Path, llama: LM, mini: Survey, tmp_path: Path) -> None:
    folder, ballast = small_disk / "run", small_disk / "ballast"

    def show(progress: Progress) -> None:
        if progress.line["generation"] == 2:
            fill(ballast)

    with pytest.raises(
        ValueError, match=r"^cannot write .*: No space left on device; free some space there"
    ) as refusal:
        run(llama, mini, folder, progress=show)
    assert "\n" not in str(refusal.value)
    assert generation(folder) == 2
    with pytest.raises(ValueError, match="No space left on device"):  # it is still full
        run(llama, mini, folder)
    assert generation(folder) == 2
    ballast.unlink()
    check_equal(run(llama, mini, folder), folder, run(llama, mini, tmp_path / "whole"), tmp_path / "whole")


@pytest.mark.usefixtures("one_thread")
def test_a_file_that_must_not_grow(llama: LM, mini: Survey, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    def show(progress: Progress) -> None:
        if progress.line["generation"] == 1:
            size = (folder / "checkpoint.safetensors").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - 100, unlimited[1]))

    try:
        with pytest.raises(ValueError, match=r"cannot write .*checkpoint.safetensors: File too large; free some space"):
            run(llama, mini, folder, progress=show)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert generation(folder) == 1
    assert not list(folder.glob(".*"))
    check_equal(run(llama, mini, folder), folder, run(llama, mini, tmp_path / "whole"), tmp_path / "whole")


def check_equal(found: Any, folder: Path, expected: Any, other: Path) -> None:
    assert found.prompt == expected.prompt and found.trajectory == expected.trajectory
    assert shas(folder) == shas(other)
