"""The example of docs/factor_models.md runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "factor_models.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run(blocks: list[str]) -> dict:
    """The names that the page's blocks leave behind."""
    names: dict = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block, "factor_models.md", "exec", dont_inherit=True), names)
    return names


def test_the_example_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("factor_analyzer")
    monkeypatch.chdir(tmp_path)
    names = run(BLOCKS[:2])
    assert capsys.readouterr().out.startswith("2 0.")  # parallel analysis finds the two factors
    model, fitted, target = names["model"], names["fitted"], names["target"]
    assert np.abs(model.loadings).argmax(axis=1).tolist() in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])
    means = names["people"].shares().item_means
    np.testing.assert_allclose(fitted.score(np.nan_to_num(means))[5], target.scores, atol=1e-9)  # Norway


@pytest.mark.slow
def test_the_example_aligns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("factor_analyzer")
    monkeypatch.chdir(tmp_path)
    assert run(BLOCKS)["result"].prompt.num_virtual_tokens == 4
