"""The layers hold, and importing softde stays cheap."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import softde

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "peft", "matplotlib", "pandas", "scipy", "numpy")


def python(code: str) -> str:
    """Standard output of a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_layers() -> None:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    assert "0 broken" in python(code)


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import softde", set()),
        ("import softde.surveys", {"numpy"}),
        ("import softde.optim", {"torch", "numpy"}),
        ("from softde import *", {"torch", "numpy"}),
        ("import softde.cli", {"torch", "numpy"}),
    ],
)
def test_what_an_import_loads(statement: str, allowed: set[str]) -> None:
    code = f"import sys; {statement}; print(*(sys.modules.keys() & set({HEAVY!r})))"
    assert set(python(code).split()) <= allowed


def test_public_names() -> None:
    assert sorted(softde.__all__) == sorted([*softde._HOME, "baselines", "reproduce"])
    for name in softde.__all__:
        assert getattr(softde, name) is not None
        assert name in dir(softde)


def test_the_type_checker_sees_the_same_names() -> None:
    block = (ROOT / "softde" / "__init__.py").read_text().split("if TYPE_CHECKING:")[1].split("\n\n")[0]
    names = {name.strip() for names in re.findall(r"import (.+)", block) for name in names.split(",")}
    assert names == set(softde.__all__)


def test_importing_a_verbs_module_leaves_the_verb() -> None:
    code = "import softde.align, softde.compare, softde.administer as _; "
    code += "print(all(callable(v) for v in (softde.align, softde.compare, softde.administer)))"
    assert python(code).strip() == "True"


def test_a_typo_suggests() -> None:
    with pytest.raises(AttributeError, match="'Survy'; did you mean 'Survey'"):
        softde.Survy  # noqa: B018


def test_version_is_the_changelogs() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", softde.__version__)
    assert softde.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {softde.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_constraints_pin_every_direct_dependency() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {re.match(r"[\w-]+", requirement).group() for requirement in wanted} - {"softde"}  # type: ignore[union-attr]
    pins = re.findall(r"^([\w-]+)==\S+$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert names <= set(pins)


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8").splitlines()
