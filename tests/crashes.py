"""Breaks off runs of `align` at every moment at which they touch a file or ask the model. POSIX only.

`python -m tests.crashes MODEL SURVEY FOLDER` loads everything once, then forks: a child runs align and at its n-th
moment is killed, gets a Ctrl-C or finds the disk full; a second child runs the same call again. Prints a JSON report,
which tests/test_crashes.py judges.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from softde.align import align
from softde.lm import LM
from softde.objective import AlignmentLoss
from softde.optim import DE
from softde.prompt import SoftPrompt
from softde.space import PromptSpace
from softde.surveys import Survey, load_survey

BUDGET, POPULATION, SEED = 12, 4, 3
EVENTS = {"open": "open", "os.rename": "rename", "os.remove": "remove", "os.mkdir": "mkdir"}
WRITES = ("open", "sync", "rename", "mkdir")  # what a full disk can refuse
ONE_GENERATION = 16  # moments that a session needs, at most, to save one generation more
CUT = (
    20  # bytes of a file that are not there yet when its writing is broken off; less than the shortest line of the log
)

Action = Callable[[int | None], None]


def run(lm: LM, survey: Survey, folder: Path, **changes: Any) -> Any:
    """The run that is broken off."""
    settings = {"optimizer": DE(POPULATION), "budget": BUDGET, "seed": SEED, "progress": False, **changes}
    space = PromptSpace.random(lm, 2)
    return align(lm, survey, survey.target("Ireland"), space, checkpoint=folder, **settings)


def shas(folder: Path) -> dict[str, str]:
    """What must be the same however often the run was broken off."""
    names = [path.name for path in folder.iterdir()]
    return {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names if n not in VOLATILE} | {
        n: "" for n in names if n in VOLATILE
    }


VOLATILE = ("result.json", "checkpoint.safetensors")  # these hold seconds


# ---- moments -------------------------------------------------------------------------------------------------------


def at_every_moment(folder: Path, moment: Callable[[str, int | None], None]) -> None:
    """Call `moment(label, file descriptor that is being written)` from now on, until the process ends."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS and isinstance(arguments[0], (str, os.PathLike)):
            path = Path(arguments[0])
            reading = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if not reading and (path == folder or path.parent == folder):
                moment(f"{EVENTS[event]} {path.name}", None)

    sync, score = os.fsync, AlignmentLoss.__call__

    def fsync(descriptor: int) -> None:
        moment(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}", descriptor)
        sync(descriptor)

    def call(self: AlignmentLoss, x: torch.Tensor, plain: bool = False, **more: Any) -> Any:
        moment("score the winner" if plain else "score", None)
        return score(self, x, plain, **more)

    sys.addaudithook(hook)
    os.fsync = fsync  # type: ignore[assignment]
    AlignmentLoss.__call__ = call  # type: ignore[method-assign]


def tear(descriptor: int | None) -> None:
    if descriptor is not None:
        os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - CUT))


def kill(descriptor: int | None) -> None:
    tear(descriptor)
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt(_: int | None) -> None:
    raise KeyboardInterrupt


def full(descriptor: int | None) -> None:
    tear(descriptor)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ---- children ------------------------------------------------------------------------------------------------------


def child(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` returned in a fork of this process, or the signal that ended it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            answer = work()
        except BaseException as error:
            answer = {"ended": type(error).__name__, "message": str(error)}
        with os.fdopen(writing, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    return json.loads(text) if text else {"ended": signal.Signals(os.WTERMSIG(status)).name, "message": ""}


def broken_off(lm: LM, survey: Survey, folder: Path, number: int, action: Action) -> dict[str, Any]:
    """One run with `action` at its moment `number`, and the moments before it."""
    labels: list[str] = []

    def work() -> dict[str, Any]:
        def moment(label: str, descriptor: int | None) -> None:
            labels.append(label)
            if len(labels) == number + 1:
                action(descriptor)

        at_every_moment(folder, moment)
        result = run(lm, survey, folder)
        return {"ended": result.stop_reason, "message": "", "labels": labels}

    return child(work)


def whole(lm: LM, survey: Survey, folder: Path) -> dict[str, Any]:
    """The same run, left alone."""
    return child(lambda: {"ended": run(lm, survey, folder).stop_reason, "message": ""})


def generation(folder: Path) -> int:
    """How far the checkpoint is; 0 without one. A prompt beside it must be whole."""
    if (folder / "prompt.safetensors").exists():
        SoftPrompt.load(folder / "prompt.safetensors")
    if not (folder / "checkpoint.safetensors").exists():
        return 0
    with safe_open(folder / "checkpoint.safetensors", framework="pt") as file:
        return int(json.loads(file.metadata()["softde"])["numbers"]["generation"])


def main(model: str, survey_file: str, out: str) -> None:
    """Report on every moment and action."""
    torch.set_num_threads(1)  # a fork has no use for its parent's threads
    lm, survey, root = LM.from_pretrained(model), load_survey(survey_file), Path(out)
    run(lm, survey, root / "reference")
    moments = broken_off(lm, survey, root / "moments", -1, kill)["labels"]

    cases = []
    for action in (kill, interrupt, full):
        for number, label in enumerate(moments):
            if action is full and not label.startswith(WRITES):
                continue
            folder = root / f"{action.__name__}-{number}"
            ended = broken_off(lm, survey, folder, number, action)
            case = {
                "action": action.__name__,
                "number": number,
                "label": label,
                **ended,
                "generation": generation(folder),
            }
            case["prompt"] = (folder / "prompt.safetensors").exists()
            cases.append({**case, "again": whole(lm, survey, folder), "files": shas(folder)})

    folder = root / "again-and-again"
    sessions: list[dict[str, Any]] = []
    while not sessions or (sessions[-1]["ended"] == "SIGKILL" and len(sessions) < 20):
        sessions.append({**broken_off(lm, survey, folder, ONE_GENERATION, kill), "generation": generation(folder)})
    report = {"reference": shas(root / "reference"), "moments": moments, "cases": cases}
    print(json.dumps({**report, "sessions": sessions, "final": shas(folder)}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
