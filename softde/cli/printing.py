"""How the command line speaks: one process only, in lines that fit."""

from __future__ import annotations

import os
import sys
import textwrap

WIDTH = 100


def rank() -> int:
    """Which of torchrun's processes this is; the first, and one on its own, is 0. Only that one prints and writes."""
    return int(os.environ.get("RANK", "0")) if os.environ.get("WORLD_SIZE", "1") != "1" else 0


def say(text: str) -> None:
    if rank() == 0:
        print(text, file=sys.stderr)


def filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def line(text: str) -> str:
    return " ".join(text.split())
