"""The examples of docs/compare.md run, and its table is what they print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from softde.compare.stats import smallest_p

PAGE = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")
NUMBER = r"-?\d+\.\d+"


def test_the_first_example(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0], names)
    printed = capsys.readouterr().out
    shown = re.findall(r"```text\n(.*?)```", PAGE, flags=re.DOTALL)[0].splitlines()
    for line, other in zip(shown, printed.splitlines(), strict=False):
        assert re.sub(NUMBER, "", line).split() == re.sub(NUMBER, "", other).split()
        numbers = [[float(n) for n in re.findall(NUMBER, text)] for text in (line, other)]
        assert numbers[1] == pytest.approx(numbers[0], abs=0.11)
    assert "never below 0.12" in " ".join(printed.split()) and names["table"].tests()[0]["p"] == 0.375


def test_the_table_of_least_p() -> None:
    rows = {cells[0]: cells[1:] for line in PAGE.splitlines() if (cells := [c.strip() for c in line.split("|")[1:-1]])}
    for n, p, tests in zip(
        *(rows[k] for k in ("regions", "least p", "tests that Holm's correction lets reach 0.05")), strict=True
    ):
        assert float(p) == pytest.approx(smallest_p(int(n)), rel=0.05)
        assert int(tests) == int(0.05 / smallest_p(int(n)))


def test_everything_that_is_named_is_there() -> None:
    from softde.compare import splits, table

    for name in re.findall(r"^\| `(hold_out_\w+)", PAGE, flags=re.MULTILINE):
        assert callable(getattr(splits, name))
    columns = re.findall(r"^\| `(\w+)`", PAGE, flags=re.MULTILINE)
    assert {"loss", "culture_spa", "rank", "order_shift"} <= set(columns)
    assert all(name in (*table.VALUES, "score_PDI") or name.startswith("hold_out") for name in columns)
