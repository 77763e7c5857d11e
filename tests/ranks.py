"""Runs `align` as several ranks, in ways that go well and ways that do not. POSIX only.

`python -m tests.ranks MODEL SURVEY FOLDER` loads everything once, then forks the ranks of each case, which find each
other as torchrun's do. Prints a JSON report, which tests/test_parallel.py judges. Only rank 0 is given the folder that
is looked at; the others get one that does not exist, as on machines that share no disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from softde import checkpoint
from softde.align import Result, align
from softde.gradient import GradientSteps
from softde.halving import Halving
from softde.lm import LM
from softde.objective import AlignmentLoss
from softde.optim import DE
from softde.progress import Progress
from softde.readouts import Sampled
from softde.space import PromptSpace
from softde.surveys import Survey, load_survey

BUDGET, POPULATION = 15, 5
Setup = Callable[[int], dict[str, Any]]  # rank → settings that differ; may replace functions in this rank


def shas(folder: Path) -> dict[str, str]:
    """The files of a run that hold no times."""
    names = ("run.yaml", "log.jsonl", "prompt.safetensors")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def run(lm: LM, survey: Survey, folder: Path, size: int, setup: Setup = lambda rank: {}) -> list[dict[str, Any]]:
    """How each rank ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes, pids = [os.pipe() for _ in range(size)], []
    for rank, (_, writing) in enumerate(pipes):
        pids.append(os.fork())
        if pids[-1] == 0:
            where = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in where.items()} if size > 1 else {})
            answer = one(lm, survey, folder if rank == 0 else folder.with_name(f"{folder.name}-not-here"), setup(rank))
            with os.fdopen(writing, "w") as pipe:
                json.dump(answer, pipe)
            os._exit(0)
    answers = []
    for pid, (reading, writing) in zip(pids, pipes, strict=True):
        os.close(writing)
        with os.fdopen(reading) as pipe:
            text = pipe.read()
        _, status = os.waitpid(pid, 0)
        answers.append(json.loads(text) if text else {"ended": signal.Signals(os.WTERMSIG(status)).name})
    return answers


def one(lm: LM, survey: Survey, folder: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """One rank."""
    settings = {"optimizer": DE(POPULATION), "budget": BUDGET, "progress": False, **changes}
    started = time.monotonic()
    try:
        space = settings.pop("space", None) or PromptSpace.random(lm, 2)
        result = align(lm, survey, survey.target("Ireland"), space, checkpoint=folder, **settings)
    except BaseException as error:
        return {"ended": type(error).__name__, "message": str(error), "seconds": time.monotonic() - started}
    if isinstance(result, tuple):
        return {"seeds": [ending(each) for each in result]}
    return ending(result)


def ending(result: Result) -> dict[str, Any]:
    prompt = hashlib.sha256(result.prompt.embeddings.numpy().tobytes()).hexdigest()
    record = {k: v for k, v in result.record().items() if k != "wall_seconds"}
    sizes = [line["group_size"] for line in result.trajectory]
    return {"ended": result.stop_reason, "prompt": prompt, "record": record, "group_sizes": sizes}


# ---- what goes wrong -----------------------------------------------------------------------------------------------


def in_generation(number: int, rank: int, action: Callable[[AlignmentLoss], None]) -> Setup:
    """Do something on one rank while it scores a generation."""

    def setup(here: int) -> dict[str, Any]:
        score, calls = AlignmentLoss.__call__, [0]

        def call(self: AlignmentLoss, x: torch.Tensor, plain: bool = False, **more: Any) -> Any:
            calls[0] += not plain
            if calls[0] == number and here == rank and not plain:
                action(self)
            return score(self, x, plain, **more)

        AlignmentLoss.__call__ = call  # type: ignore[method-assign]
        return {}

    return setup


def ctrl_c(_: AlignmentLoss) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def ctrl_c_everywhere_twice(rank: int) -> dict[str, Any]:
    """As a terminal and torchrun do it: every rank, and again a moment later."""

    def stop(loss: AlignmentLoss) -> None:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        ctrl_c(loss)

    return in_generation(2, rank, stop)(rank)


def ctrl_c_while_waiting(rank: int) -> dict[str, Any]:
    """Rank 1 hears it while it waits for rank 0."""
    me = os.getpid()

    def late(_: AlignmentLoss) -> None:
        if rank == 1:
            threading.Timer(0.2, os.kill, (me, signal.SIGINT)).start()
        else:
            time.sleep(0.6)

    return in_generation(2, rank, late)(rank)


def break_down(_: AlignmentLoss) -> None:
    raise RuntimeError("a cable is loose")


def die(_: AlignmentLoss) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def shrink(loss: AlignmentLoss) -> None:
    loss.lm.engine.group_size //= 2


def full_disk(_: int) -> dict[str, Any]:
    def save(*_: Any) -> None:
        raise ValueError("cannot write checkpoint.safetensors: No space left on device")

    checkpoint.save = save
    return {}


def bad_progress(_: int) -> dict[str, Any]:
    def show(step: Progress) -> None:
        raise KeyError(step.line["generation"])

    return {"progress": show}


def main(model: str, survey_file: str, out: str) -> None:
    """Report on every case."""
    torch.set_num_threads(1)  # a fork has no use for its parent's threads
    lm, survey, root = LM.from_pretrained(model), load_survey(survey_file), Path(out)
    report: dict[str, Any] = {"ranks": {}, "files": {}}
    for size in (1, 2, 4, 6):  # 6 ranks for 5 candidates: one has nothing to do
        report["ranks"][size] = run(lm, survey, root / f"of-{size}", size)
        report["files"][size] = shas(root / f"of-{size}")
    cases: dict[str, Setup] = {
        "ctrl-c": in_generation(2, 1, ctrl_c),
        "ctrl-c everywhere, twice": ctrl_c_everywhere_twice,
        "ctrl-c while waiting": ctrl_c_while_waiting,
        "ctrl-c before anything is scored": in_generation(1, 1, ctrl_c),
        "error": in_generation(2, 1, break_down),
        "first fails": in_generation(2, 0, break_down),
        "killed": in_generation(2, 1, die),
        "full disk": full_disk,
        "progress": bad_progress,
        "other seed": lambda rank: {"seed": rank},
        "smaller groups": in_generation(2, 1, shrink),
    }
    sampled = {"readout": Sampled(2), "draws": "fresh"}
    many = {**sampled, "seeds": [0, 1, 2], "max_seconds": 3600}
    warm = {"warm_start": GradientSteps(steps=2), "budget": BUDGET + 11, "max_seconds": 3600}
    halved = {**sampled, "halving": Halving()}
    for size in (1, 2):
        report["ranks"][f"sampled {size}"] = run(lm, survey, root / f"sampled-{size}", size, lambda _: sampled)
        report["files"][f"sampled {size}"] = shas(root / f"sampled-{size}")
        report["ranks"][f"halved {size}"] = run(lm, survey, root / f"halved-{size}", size, lambda _: halved)
        report["files"][f"halved {size}"] = shas(root / f"halved-{size}")
        report["ranks"][f"warm {size}"] = run(lm, survey, root / f"warm-{size}", size, lambda _: warm)
        report["files"][f"warm {size}"] = shas(root / f"warm-{size}")
        report["ranks"][f"seeds {size}"] = run(lm, survey, root / f"seeds-{size}", size, lambda _: many)
        report["files"][f"seeds {size}"] = [shas(root / f"seeds-{size}" / f"seed-{seed}") for seed in (0, 1, 2)]
    report["other seeds"] = run(lm, survey, root / "other seeds", 2, lambda rank: {"seeds": [0, rank + 1]})
    report["cases"], report["again"], report["after"] = {}, {}, {}
    for name, setup in cases.items():
        folder = root / name
        report["cases"][name] = run(lm, survey, folder, 2, setup)
        report["again"][name] = run(lm, survey, folder, 1)  # all that is needed is in the folder
        report["after"][name] = shas(folder)
    report["refused"] = run(lm, survey, root / "of-2", 2, lambda _: {"seed": 1})
    report["no folder"] = run(lm, survey, root / "of-2" / "run.yaml" / "below", 2)
    report["more ranks"] = run(lm, survey, root / "ctrl-c, then 4", 2, in_generation(2, 1, ctrl_c))
    report["more ranks"] += run(lm, survey, root / "ctrl-c, then 4", 4)
    report["after"]["more ranks"] = shas(root / "ctrl-c, then 4")
    report["strays"] = [path.name for path in root.iterdir() if path.name.endswith("not-here")]
    print(json.dumps(report))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
