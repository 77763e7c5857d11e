"""Where a run is written."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from softde.files import expanded

PROMPT_FILE = "prompt.safetensors"


def writable(folder: Path) -> Path:
    """The folder, if it can be written to or made; nothing is made yet."""
    folder = expanded(folder)
    nearest = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise ValueError(f"cannot write into {folder}: {nearest} is a file; choose another folder with --out")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write into {folder}: no permission for {nearest}; choose another folder with --out")
    return folder


def slug(region: str) -> str:
    """A region's name as a folder's; of a name without letters, the numbers of its characters."""
    from softde.surveys.regions import is_letter

    plain = unicodedata.normalize("NFC", region.casefold())
    words = "".join(c if is_letter(c) else " " for c in plain).split()
    return "-".join(words or (f"u{ord(c):x}" for c in region))
