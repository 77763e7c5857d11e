"""Files that are whole or not there: written under a temporary name beside the old one, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """The path with ~ as the home folder; a name that begins with ~ but is nobody's home stays."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def write_file(path: str | Path, content: bytes) -> None:
    """Put `content` at `path`; whatever goes wrong, an older file there survives.

    Raises
    ------
    ValueError
        The folder does not exist or cannot be written to, or the disk is full; or the path is a folder.
    """
    path = expanded(path)
    if path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder; give the name of a file in it")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        try:
            _write(temporary, content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(refused(path, error)) from error


def write_folder(path: str | Path, files: Mapping[str, bytes], known: Collection[str]) -> None:
    """Put `files` (name → content) into the folder `path`, replacing it as a whole.

    known : names that an existing folder may hold; one that holds anything else is not touched.

    Raises
    ------
    ValueError
        The folder holds other files, cannot be written to, or the disk is full.
    """
    path = Path(os.path.abspath(expanded(path)))
    temporary, old = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.old")
    try:
        others = sorted({entry.name for entry in path.iterdir()} - set(known)) if path.exists() else []
        if others:
            raise ValueError(f"{path} holds other files ({', '.join(others[:3])}); choose a new or an empty folder")
        try:
            shutil.rmtree(temporary, ignore_errors=True)  # what a killed run left behind
            temporary.mkdir()
            for name, content in files.items():
                _write(temporary / name, content)
            shutil.rmtree(old, ignore_errors=True)
            if path.exists():
                path.rename(old)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
            elif old.exists():
                old.rename(path)
    except OSError as error:
        raise ValueError(refused(path, error)) from error


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Add lines at the end of a file, on the disk when this returns; one that was cut off there is closed first.

    Raises
    ------
    ValueError
        The folder does not exist or cannot be written to, or the disk is full.
    """
    try:
        with path.open("a+b") as file:
            torn = file.tell() > 0
            if torn:
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"
            file.write(b"\n" * torn + "".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ValueError(refused(path, error)) from error


def refused(path: Path, error: OSError) -> str:
    """One sentence for a write that the system refused."""
    if not path.parent.is_dir():
        return f"cannot write {path}: there is no folder {path.parent}; create it first, or choose another"
    reason = error.strerror or type(error).__name__
    return f"cannot write {path}: {reason}; free some space there, or choose a place you may write to"


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
