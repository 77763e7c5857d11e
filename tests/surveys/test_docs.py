"""The examples of docs/surveys.md load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from softde.surveys import load_survey

PAGE = (Path(__file__).parents[2] / "docs" / "surveys.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(toml|csv)\n(.*?)```", PAGE, flags=re.DOTALL)
NAMES = ["goals.toml", "official.csv", "base.toml", "tea.toml", "tea.csv", "drinks.csv"]


@pytest.mark.parametrize(("name", "block"), list(zip(NAMES, BLOCKS, strict=True)))
def test_file_examples_load(tmp_path: Path, name: str, block: tuple[str, str]) -> None:
    kind, text = block
    assert name.endswith(kind)
    path = tmp_path / name
    vsm = load_survey("vsm13")
    if name == "official.csv":  # the page shows two rows of 24
        text = "id,text\n" + "\n".join(
            f'{i},"(the official text of question {n})"' for n, i in enumerate(vsm.item_ids, 1)
        )
    if name == "base.toml":
        text += "".join(f'[[items]]\nid = "{i}"\ntext = "…"\n' for i in vsm.item_ids[1:])
    path.write_text(text, encoding="utf-8")
    survey = load_survey(path, options=["bad", "fair", "good"]) if name == "drinks.csv" else load_survey(path)
    if name == "goals.toml":
        assert survey.score_respondents([[2, 4, 2, 1, 3, 1]]).mean.tolist() == pytest.approx(
            [3, 0.5 * (0.9 * (3 - 1.9) / 0.2 + 0.7 * (1 - 0.2) / 0.6) + 0.1]
        )
    if name == "tea.toml":
        assert survey.target("Ireland").scores.tolist() == [45]
        assert survey.variant("no_cups").weights.tolist() == [[20, 0]]
        assert survey.score([1, 2], 0).tolist() == [40]
    if name == "drinks.csv":
        assert survey.items[1].text == "How do you feel about tea"
