"""A command from its words to its exit code."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from softde.cli.commands import app
from softde.cli.errors import Interrupted, sentence
from softde.cli.printing import line, rank, say


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, 2 after an error that the user can mend, 130 after Ctrl-C."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # no word on each of its retries; the failure itself is told
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin crawl on a machine in use
    code = 1
    try:
        code = run(sys.argv[1:] if arguments is None else arguments)
    finally:
        if code and os.environ.get("WORLD_SIZE", "1") != "1":  # torchrun ends all ranks as soon as one has failed
            from softde.parallel import ranks

            ranks().leave()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """One command; its exit code. Anything that is nobody's mistake but ours keeps its traceback."""
    debug = os.environ.get("SOFTDE_DEBUG", "") not in ("", "0")
    with _voice(debug):
        try:
            code = app(args=list(arguments), prog_name="softde", standalone_mode=False)
            sys.stdout.flush()
            return int(code or 0)
        except BrokenPipeError:  # the reader, `head` say, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 1
        except Interrupted as stop:
            say(f"softde: {stop}")
            return 130
        except Exception as error:
            message = sentence(error)
            if message is None or debug:
                raise
            say(f"softde: error: {message}")
            return 2


@contextmanager
def _voice(debug: bool) -> Iterator[None]:
    """softde's own warnings as one line on standard error, others' only when debugging; odd letters never fail."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("softde: %(levelname)s: %(message)s"))
    log = logging.getLogger("softde")
    log.addHandler(handler)

    handler.addFilter(lambda _: rank() == 0)

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if debug or category.__module__.startswith("softde"):
            say(f"softde: warning: {line(str(message))}")

    try:
        with (
            warnings.catch_warnings(),
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(nowhere if rank() else sys.stdout),
        ):
            warnings.simplefilter("default")
            warnings.showwarning = show
            yield
    finally:
        log.removeHandler(handler)
