"""What the pages show works: every Python block runs, every command exists, every link leads somewhere."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
EXTENDING = ROOT / "docs" / "extending.md"
OPTIMIZERS = ROOT / "docs" / "optimizers.md"
SPACES = ROOT / "docs" / "spaces.md"
PAGES = sorted([README, ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
LANGUAGES = {"python", "bash", "toml", "csv", "text"}
CHEAP = {
    "regions",
    "surveys",
    "explain-plan",
    "--version",
    "--help",
}  # commands that run here; the others are only parsed
SHELL_WORDS = {"source .venv/bin/activate"}


def blocks(page: Path, language: str) -> list[str]:
    """The page's fenced blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> Iterator[list[str]]:
    """Every command of the page's shell blocks, split into words, without comments."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_names_its_language(page: Path) -> None:
    fences = re.findall(r"^```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) % 2 == 0
    assert set(fences[::2]) <= LANGUAGES
    assert set(fences[1::2]) <= {""}


@pytest.mark.parametrize("page", [README, EXTENDING, OPTIMIZERS, SPACES], ids=lambda page: page.name)
def test_python_blocks_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    found = blocks(page, "python")
    assert found
    for number, block in enumerate(found, 1):
        exec(compile(block, f"{page.name}, Python block {number}", "exec", dont_inherit=True), namespace)
    if page == README:
        assert (tmp_path / "saudi-arabia.safetensors").stat().st_size > 0
    if page == SPACES:  # what is shown as printed is
        assert blocks(page, "text")[0] in capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in commands(page):
        match words:
            case ["make", target, *options]:
                assert target in targets
                assert all(re.fullmatch(r"[A-Z_]+=.*", option) for option in options)
            case ["softde", *arguments] | ["torchrun", "--nproc-per-node", _, "-m", "softde", *arguments]:
                check_softde(arguments)
            case ["python", script, *_]:
                assert (ROOT / script).is_file()
            case ["pip", "install", *_]:
                pass  # what it installs is checked by the installation itself
            case _:
                assert " ".join(words) in SHELL_WORDS, f"{page.name}: nothing here knows how to check {words}"


def check_softde(arguments: list[str]) -> None:
    """Run a cheap command of softde; parse any other."""
    from typer.main import get_command
    from typer.testing import CliRunner

    from softde.cli import app

    if ">" in arguments:  # the shell's
        arguments = arguments[: arguments.index(">")]
    if CHEAP & set(arguments[:1]) and not {"import", "check"} & set(arguments):  # which need a file
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return
    group = get_command(app)
    context = group.make_context("softde", list(arguments))
    name, command, rest = group.resolve_command(context, list(arguments))  # type: ignore[attr-defined]
    assert command is not None
    command.make_context(name, rest, parent=context)


def test_readme_names_both_commands() -> None:
    assert {("make", "demo"), ("make", "test")} <= {tuple(words) for words in commands(README)}


def test_readme_fits_a_screen_and_a_half() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 100


def test_links_lead_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    from check_links import broken_links

    assert [line for page in PAGES for line in broken_links(page)] == []
    del sys.modules["check_links"]


def test_broken_links_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    from check_links import broken_links

    page = tmp_path / "page.md"
    page.write_text("# A head, here\n[x](none.md) [y](#a-head-here) [z](#b) [w](https://example.org/none)\n")
    assert [line.split(": ")[1] for line in broken_links(page)] == [
        "none.md leads to no file",
        "#b leads to no heading of page.md",
    ]
    del sys.modules["check_links"]
