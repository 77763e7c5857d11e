"""The examples of docs/metrics.md run, and its figures are those that the data give."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from softde.surveys import metrics
from tests.surveys import spa

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    path = shared_data / "culturespa"
    if not path.is_dir():
        pytest.skip(f"no CultureSPA data at {path}")
    return path


def test_examples_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = "wvs_result_culture_aware_BRA_0.json"
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        code = block.replace('"culturespa"', repr(str(folder)))
        exec(code.replace(f'"{stored}"', repr(str(folder / "llama-3-8b-instruct-answers" / stored))), names)
    out = capsys.readouterr().out
    assert out.startswith("62.83") and "[12.]" in out


def test_figures(folder: Path) -> None:
    human = spa.human(folder).select(regions=spa.REGIONS)
    nulls = [metrics.culture_spa_nulls(human, region) for region in spa.REGIONS]
    table = dict(re.findall(r"^\| (.+) \| ([0-9.]+) \|$", PAGE, flags=re.MULTILINE))
    names = ("leave-one-region-out mean", "leave-one-region-out median", "midpoint", "one option throughout")
    for figure, name in zip(table.values(), (*names, "uniform answerer"), strict=True):
        assert f"{mean(null[name] for null in nulls):.2f}" == figure
    own = {region: spa.stored(folder, f"culture_aware_{region}") for region in spa.AWARE}
    scores = [metrics.culture_spa_score(own[region], human.select(regions=[region])) for region in spa.AWARE]
    assert f"give {mean(scores):.2f}." in PAGE
    best = metrics.identification(own, human).best
    assert (best.count("USA"), best.count("CAN"), best.count("UKR")) == (5, 3, 1)
    assert "five are most like the United States', three\nlike Canada's" in PAGE


def test_every_public_name_says_what_it_is() -> None:
    assert all(getattr(metrics, name).__doc__ for name in metrics.__all__)
    asked = re.findall(r"^\| [^|]*\? \| ([^|]*) \|", PAGE, flags=re.MULTILINE)  # the table of critics' questions
    functions = re.findall(r"`(\w+)`", " ".join(asked))
    assert len(functions) == 10 and set(functions) <= set(metrics.__all__)
