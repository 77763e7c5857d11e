"""What is shown while a search runs."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from softde.progress import INTERVAL, Progress, clock, number, printer


def after(evaluations: int, budget: int = 3200, seconds: float = 10.0, session: int = 0, **line: Any) -> Progress:
    values = {"evaluations": evaluations, "best": 41.25, "median": 158.0, "option_mass": 0.987}
    return Progress({**values, **line}, budget, seconds, session or evaluations, evaluations >= budget)


def test_a_line_says_how_far_how_good_and_how_long() -> None:
    # 320 candidates in 10 s are 32 a second; the 2880 that are left take 90 s.
    assert str(after(320)) == " 320/3200  best   41.2  median  158.0  option mass 0.99   32.0/s  1:30 left"
    assert str(after(3200, seconds=100.0)).endswith(
        "3200/3200  best   41.2  median  158.0  option mass 0.99   32.0/s  0:00 left"
    )


def test_what_could_not_be_scored_is_said() -> None:
    shown = str(after(320, best=None, median=None, option_mass=None))
    assert shown == " 320/3200  best    n/a  median    n/a  option mass  n/a   32.0/s  1:30 left"


def test_speed_is_this_sessions() -> None:
    resumed = after(1600, seconds=10.0, session=160)
    assert (resumed.rate, resumed.seconds_left) == (16.0, 100.0)
    assert after(32, seconds=0.0).seconds_left == pytest.approx(0, abs=1)  # no division by a clock that stands still


def test_clock_and_number() -> None:
    assert [clock(s) for s in (0, 0.4, 59.6, 61, 3599.4, 3723)] == ["0:00", "0:00", "1:00", "1:01", "59:59", "1:02:03"]
    assert [number(v) for v in (None, 0.04, 3.0, 1234.56)] == ["   n/a", "0.0400", "   3.0", "1234.6"]


def test_a_terminal_sees_one_line_rewritten(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    show = printer()
    steps = [after(1600), after(2400), after(3200)]
    for step in steps:
        show(step)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "".join(f"\r\x1b[K{step}" for step in steps) + "\n"


def test_a_file_gets_the_first_the_last_and_one_every_few_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("softde.progress.time.monotonic", lambda: now[0])
    show = printer()
    steps = [after(n) for n in (32, 64, 96, 128, 3200)]
    for step, seconds in zip(steps, (0.0, 1.0, INTERVAL, 1.0, 0.5), strict=True):
        now[0] += seconds
        show(step)
    assert capsys.readouterr().err.splitlines() == [str(steps[i]) for i in (0, 2, 4)]
