"""Files are whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from softde import files


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fsync)


def test_a_file_is_replaced_and_leaves_nothing_else(tmp_path: Path) -> None:
    files.write_file(tmp_path / "a", b"old")
    files.write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_spares_the_older_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(ValueError, match=r"cannot write .*/a: No space left on device; free some space"):
        files.write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("write", [lambda p: files.write_file(p, b""), lambda p: files.write_folder(p, {}, ())])
def test_a_missing_parent_is_named(tmp_path: Path, write: object) -> None:
    with pytest.raises(ValueError, match="there is no folder .*/nowhere; create it first"):
        write(tmp_path / "nowhere" / "a")  # type: ignore[operator]


def test_a_folder_cannot_be_a_file_nor_a_file_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="it is a folder; give the name of a file in it"):
        files.write_file(tmp_path / "folder", b"")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="Not a directory"):
        files.write_folder(tmp_path / "file", {}, ())
    assert names(tmp_path) == ["file", "folder"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / ".f.tmp").mkdir()  # left by a killed run
    (tmp_path / ".f.tmp" / "half").touch()
    files.write_folder(tmp_path / "f", {"a": b"1", "b": b"2"}, ("a", "b"))
    files.write_folder(tmp_path / "f", {"b": b"3"}, ("a", "b"))
    assert names(tmp_path) == ["f"]
    assert names(tmp_path / "f") == ["b"] and (tmp_path / "f" / "b").read_bytes() == b"3"


def test_a_folder_with_other_files_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds other files \\(thesis.tex\\); choose a new or an empty folder"):
        files.write_folder(tmp_path, {"a": b""}, ("a",))
    assert names(tmp_path) == ["thesis.tex"]


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_spares_the_older_folder(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a").write_bytes(b"old")
    with pytest.raises(ValueError, match="No space left"):
        files.write_folder(tmp_path / "f", {"a": b"new"}, ("a",))
    assert (tmp_path / "f" / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


def test_a_failing_rename_puts_the_older_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a").write_bytes(b"old")
    rename = Path.rename

    def fails_for_the_new(self: Path, target: Path) -> Path:
        if self.name == ".f.tmp":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new)
    with pytest.raises(ValueError, match="Input/output error"):
        files.write_folder(tmp_path / "f", {"a": b"new"}, ("a",))
    assert (tmp_path / "f" / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


def test_this_folder_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (".", "..", ""):
        with pytest.raises(ValueError, match="it is a folder; give the name of a file in it"):
            files.write_file(path, b"")


def test_a_tilde_is_the_home_folder_unless_it_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.expanded("~/a/b") == tmp_path / "a" / "b"
    assert files.expanded("~nobody-of-that-name.csv") == Path("~nobody-of-that-name.csv")
    assert files.expanded("a/~/b") == Path("a/~/b")


def test_lines_are_added_behind_one_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    files.append_lines(path, ["1", "é"])
    files.append_lines(path, ["3"])
    assert path.read_bytes() == "1\né\n3\n".encode()
    path.write_bytes(b'1\n{"cut')
    files.append_lines(path, ["4"])
    assert path.read_bytes() == b'1\n{"cut\n4\n'
    with pytest.raises(ValueError, match="there is no folder"):
        files.append_lines(tmp_path / "none" / "lines.jsonl", ["1"])
