"""The front: against the definition, and by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from softde.abilities import Estimate, Point, make_quiz, pareto, points_of, quiz_item
from softde.abilities.asking import Sheet
from softde.abilities.scoring import compared
from softde.abilities.table import Abilities


def test_the_front_is_what_no_point_beats() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        pairs = rng.integers(0, 8, (15, 2)).tolist()  # with ties
        found = pareto(Point(f"p{i}", loss, hits / 8) for i, (loss, hits) in enumerate(pairs))
        front = {
            f"p{i}"
            for i, (loss, hits) in enumerate(pairs)
            if not any(a <= loss and b >= hits and (a < loss or b > hits) for a, b in pairs)
        }
        assert set(found.front) == front
        assert [p.loss.value for p in found.points] == sorted(loss for loss, _ in pairs)


@pytest.fixture
def four() -> list[Point]:
    return [
        Point("far", Estimate(12, 11, 13), Estimate(0.3, 0.25, 0.35)),
        Point("able", 10, 0.55),
        Point("near", Estimate(2, 1, 3), Estimate(0.5, 0.42, 0.58)),
        Point("between", Estimate(5, 2.5, 7), Estimate(0.45, 0.3, 0.6)),
    ]


def test_by_hand(four: list[Point]) -> None:
    found = pareto(four, chance=0.25)
    assert found.front == ("near", "able")
    by_name = {p.name: p for p in found.points}
    assert found.dominated_by(by_name["between"]) == ("near",)
    assert found.dominated_by(by_name["far"]) == ("near", "between", "able")
    assert found.clearly_dominated_by(by_name["far"]) == ("near",)  # 'able' has no intervals, 'between' touches
    assert found.clearly_dominated_by(by_name["between"]) == ()
    assert [r["front"] for r in found.records()] == [True, False, True, False]
    assert found.records()[2]["loss_low"] is None
    lines = str(found).splitlines()
    assert lines[2].split() == ["near", "2.00", "[1.00,", "3.00]", "50.0", "[42.0,", "58.0]", "none:", "front"]
    assert lines[5].split()[-3:] == ["near*,", "between,", "able"]
    assert "a higher accuracy: near, able." in str(found).replace("\n", " ")
    assert "| able | 10.00 | 55.0 | none: front |" in found.to_markdown()
    assert pytest.importorskip("pandas").DataFrame(found.records()).equals(found.to_frame())


def test_bad_points(four: list[Point]) -> None:
    with pytest.raises(ValueError, match="'x': loss: expected a finite number, got nan"):
        Point("x", float("nan"), 0.5)
    with pytest.raises(ValueError, match="'x': accuracy: expected a number or an Estimate, got 'high'"):
        Point("x", 1.0, "high")
    with pytest.raises(ValueError, match="points: expected names that differ, got 'able' twice"):
        pareto([*four, four[1]])
    with pytest.raises(ValueError, match="points: got none"):
        pareto([])


def test_points_come_from_a_table() -> None:
    quiz = make_quiz("q", [quiz_item(str(i), f"{i}?", "ab", 0) for i in range(4)])
    sheets = tuple(Sheet(quiz, np.array([[p, 1 - p]] * 2 + [[0.9, 0.1]] * 2), np.ones(4)) for p in (0.9, 0.1))
    table = Abilities("m", "both", ("unprompted", "tuned"), (sheets,), tuple(compared(sheets, ("unprompted", "tuned"))))
    points = points_of(table, {"unprompted": 90.0, "tuned": Estimate(10, 8, 12)})
    assert [(p.name, p.loss.value, p.accuracy.value) for p in points] == [("unprompted", 90, 1), ("tuned", 10, 0.5)]
    assert pareto(points).front == ("tuned", "unprompted")
    with pytest.raises(ValueError, match="expected one of conditions 'unprompted', 'tuned'"):
        points_of(table, {"another": 1.0})


def test_the_figure(four: list[Point], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    figure = pareto(four, chance=0.25).plot(tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figure.axes
    front = next(line for line in axes.lines if len(line.get_xdata()) == 2 and list(line.get_xdata()) == [2, 10])
    assert list(front.get_ydata()) == [0.5, 0.55]
    assert {text.get_text() for text in axes.texts} == {"near", "between", "able", "far", "chance"}
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'softde\[viz\]'"):
        pareto(four).plot()
