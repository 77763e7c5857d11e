"""The examples of docs/methods.md run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.slow
def test_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "culturespa").symlink_to(shared_data / "culturespa")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for number, block in enumerate(BLOCKS, 1):
        exec(compile(block, f"methods.md, block {number}", "exec"), namespace)
    printed = capsys.readouterr().out
    assert len(BLOCKS) == 3 and "(('CAN', 'GBR', 'NZL'), ('ZWE', 'NGA', 'IND'))" in printed
    assert "Tu viens de France." in printed and "المملكة العربية السعودية" in printed
    assert re.search(r"persona +[\d.]+", printed)
