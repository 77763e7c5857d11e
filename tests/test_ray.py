"""Ray workers: the same search as in one process, also when they are lost."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from softde import RayWorkers, align
from softde.align import Result
from softde.lm import LM
from softde.optim import DE
from softde.space import PromptSpace
from softde.surveys import Survey, Target

GENERATIONS, POPULATION = 4, 5


def test_without_ray_it_says_what_to_install(
    llama: LM, mini: Survey, ireland: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'softde[ray]'")):
        align(llama, mini, ireland, PromptSpace.random(llama, 2), DE(5), 5, progress=False, workers=RayWorkers(2))


def test_settings() -> None:
    for setting in ({"num_workers": 0}, {"chunk": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(setting))}: expected 1 or more, got 0"):
            RayWorkers(**setting)


# ---- on a cluster of this machine ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A local cluster; other tests set OMP_NUM_THREADS=1 for this process, and so for Ray's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'softde[ray]'")
        patch.setattr(sys, "argv", ["softde"])
        ray.init(num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
        yield ray
        ray.shutdown()


@pytest.fixture
def go(llama: LM, mini: Survey, ireland: Target) -> Callable[..., Result]:
    def call(workers: RayWorkers | None, **changes: Any) -> Result:
        space = PromptSpace.random(llama, 2)
        settings = {"optimizer": DE(POPULATION), "budget": POPULATION * GENERATIONS, "progress": False, **changes}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return align(llama, mini, ireland, space, workers=workers, **settings)
        finally:
            torch.set_num_threads(threads)

    return call


def dying(folder: Path, marks: Path, deaths: int, call: int = 2) -> Callable[[], LM]:
    """Loads a model in whose worker the n-th slice kills the process, as often as `deaths` says, over all workers."""

    def load() -> LM:
        import os
        import signal

        from softde.lm import LM
        from softde.objective import AlignmentLoss

        score, calls = AlignmentLoss.__call__, [0]

        def dies(self: AlignmentLoss, x: Any, *arguments: Any, **more: Any) -> Any:
            calls[0] += 1
            if calls[0] >= call:
                for death in range(deaths):
                    try:
                        (marks / str(death)).touch(exist_ok=False)
                    except FileExistsError:
                        continue
                    os.kill(os.getpid(), signal.SIGKILL)
            return score(self, x, *arguments, **more)

        AlignmentLoss.__call__ = dies  # type: ignore[method-assign]
        return LM.from_pretrained(folder)

    return load


def found(result: Result) -> tuple[Any, ...]:
    """Everything but the clock's."""
    record = {name: value for name, value in result.record().items() if name != "wall_seconds"}
    return result.prompt, record, result.trajectory


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_a_worker_killed_midway(
    go: Callable[..., Result], llama_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workers = RayWorkers(2, load=dying(llama_folder, tmp_path, deaths=1))
    with caplog.at_level(logging.WARNING, "softde"):
        assert found(go(workers)) == found(go(None))
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    said = [record.getMessage() for record in caplog.records if record.name.startswith("softde")]
    assert len(said) == 1 and re.search(
        r"a Ray worker was lost \(.*\): its [23] candidates are scored by another; starting a new one", said[0]
    )


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_all_workers_lost_and_going_on(go: Callable[..., Result], llama_folder: Path, tmp_path: Path) -> None:
    marks, folder = tmp_path / "marks", tmp_path / "run"
    marks.mkdir()
    workers = RayWorkers(2, load=dying(llama_folder, marks, deaths=99, call=3), replacements=0)
    with pytest.raises(
        ValueError, match=r"^no Ray worker is left \(2 lost, 0 not up in .*the same call again; it goes"
    ):
        go(workers, checkpoint=folder)
    assert (folder / "log.jsonl").read_text().count("\n") == 2
    assert found(go(RayWorkers(1, chunk=2), checkpoint=folder)) == found(go(None))


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_errors_that_another_worker_would_meet_too(
    go: Callable[..., Result], tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tests import tiny_random

    def broken() -> LM:
        raise ValueError("no such model")

    with pytest.raises(ValueError, match=r"^a Ray worker failed: ValueError: no such model$"):
        go(RayWorkers(1, load=broken))
    other = tiny_random.save(tmp_path_factory.mktemp("other"), num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"^a Ray worker has another model than the search: model is .*, expected"):
        go(RayWorkers(1, load=lambda: LM.from_pretrained(other)))
    with pytest.raises(ValueError, match=r"^no Ray worker is left \(0 lost, 1 not up in 1 seconds\): .* 500 CPUs"):
        go(RayWorkers(1, num_cpus=500, patience=1))
