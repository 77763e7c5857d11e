"""What ends a search before its budget, and a finished run that goes on with more."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from softde import align
from softde.align import Result
from softde.lm import LM
from softde.optim import DE, minimize
from softde.optim.base import StopReason, stale
from softde.parallel import Ranks
from softde.progress import Progress
from softde.space import PromptSpace
from softde.surveys import Survey, Target
from tests.test_align_seeds import Shrinking

EXACT = ("run.yaml", "log.jsonl", "prompt.safetensors")


@pytest.fixture
def go(llama: LM, mini: Survey, ireland: Target) -> Callable[..., Any]:
    """`go(folder, patience=8)`: ten generations of four candidates, if nothing ends them."""
    space = PromptSpace.random(llama, 2)

    def call(folder: Path | None = None, **changes: Any) -> Any:
        settings = {"lm": llama, "survey": mini, "target": ireland, "space": space, "optimizer": DE(4), "budget": 40}
        return align(**{**settings, "progress": False, **changes}, checkpoint=folder)

    return call


def exact(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in EXACT}


# ---- a plateau -----------------------------------------------------------------------------------------------------


def test_stale_counts_candidates_since_the_best_fell() -> None:
    history = [(4, 9.0), (8, 9.0), (12, 8.5), (16, 8.0), (20, 8.0), (24, 8.0)]
    assert stale(history) == 24 - 16
    assert stale(history[:2]) == 4 and stale(history[:1]) == 0 and stale([]) == 0
    assert stale(history, 1.0) == 24 - 16  # 9.0 → 8.5 is too little, 9.0 → 8.0 is enough
    assert stale(history, 1.1) == 24 - 4
    assert stale([(4, math.inf), (8, math.inf), (12, 3.0)], 1.0) == 0
    assert stale([(4, math.inf), (8, math.inf)]) == 8


def test_minimize_stops_on_a_plateau() -> None:
    values = iter([5.0, 4.0, 4.0, 3.9, 4.0, 4.0, 4.0, 1.0])

    def run(**more: Any) -> Any:
        return minimize(lambda x: [next(values)] * len(x), DE(4), [[0.0], [1.0], [2.0], [3.0]], 32, **more)

    found = run(patience=8, min_improvement=0.5)
    assert (found.stop_reason, found.evaluations, found.best_loss) == (StopReason.PLATEAU, 16, 3.9)
    values = iter([5.0, 4.0, 4.0, 3.9, 4.0, 4.0, 4.0, 1.0])
    assert run(patience=12).stop_reason is StopReason.PLATEAU
    values = iter([5.0, 4.0, 4.0, 3.9, 4.0, 4.0, 4.0, 1.0])
    assert run(patience=16).stop_reason is StopReason.BUDGET
    values = iter([5.0, 4.0, 4.0])
    assert run(patience=4, target_loss=4.0).stop_reason is StopReason.TARGET
    with pytest.raises(ValueError, match="patience: expected a whole number of at least 1, got 0"):
        run(patience=0)
    with pytest.raises(ValueError, match="min_improvement: expected a finite number from 0 up, got -1"):
        run(min_improvement=-1)


def test_a_search_stops_on_a_plateau(go: Callable[..., Result]) -> None:
    whole = go()
    best = [step["best"] for step in whole.trajectory]
    still = next(i for i in range(1, 10) if best[i] == best[i - 1])  # the first generation without a better candidate
    result = go(patience=4)
    assert best[-1] < best[0] and (len(result.trajectory), result.stop_reason) == (still + 1, str(StopReason.PLATEAU))
    assert result.trajectory == whole.trajectory[: still + 1]
    assert len(go(patience=4, min_improvement=1e6).trajectory) == 2


# ---- a loss, tokens, time ------------------------------------------------------------------------------------------


def test_a_search_stops_at_a_loss_or_a_number_of_tokens(go: Callable[..., Result]) -> None:
    whole = go()
    goal = whole.trajectory[4]["best"]
    first = next(step for step in whole.trajectory if step["best"] <= goal)
    found = go(target_loss=goal)
    assert (found.stop_reason, found.loss, len(found.trajectory)) == (StopReason.TARGET, goal, first["generation"])
    tokens = [step["tokens"] for step in whole.trajectory]
    for limit, generations in {1: 1, tokens[0]: 1, tokens[0] + 1: 2, sum(tokens[:4]): 4}.items():
        found = go(max_tokens=limit)
        assert (found.stop_reason, len(found.trajectory)) == (StopReason.TOKENS, generations)
        assert found.forward_tokens == sum(tokens[:generations])
    assert go(max_tokens=sum(tokens)).stop_reason == StopReason.BUDGET  # both; the budget is named


class Clock:
    """A clock that a progress callback advances: every generation takes ten seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(sys.modules["softde.align.session"], "time", SimpleNamespace(perf_counter=lambda: self.now))

    def tick(self, _: Progress) -> None:
        self.now += 10


def test_a_search_stops_when_its_time_is_up_over_all_sessions(
    go: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock(monkeypatch)  # a generation is on the clock once the next one is done
    found = go(tmp_path, max_seconds=25, progress=clock.tick)
    assert (found.stop_reason, len(found.trajectory), found.wall_seconds) == (StopReason.TIME, 4, 30)
    again = go(tmp_path, max_seconds=25, progress=clock.tick)  # 30 seconds are used up already
    assert (again.stop_reason, len(again.trajectory)) == (StopReason.TIME, 4)
    more = go(tmp_path, max_seconds=45, progress=clock.tick)  # 30, 30 and 40, then 50
    assert (more.stop_reason, len(more.trajectory), more.wall_seconds) == (StopReason.TIME, 7, 50)
    monkeypatch.undo()
    last = go(tmp_path)
    whole = go(tmp_path / "whole")
    assert last.prompt == whole.prompt and exact(tmp_path) == exact(tmp_path / "whole")


def test_a_generation_is_run_however_little_time_there_is(go: Callable[..., Result]) -> None:
    found = go(max_seconds=1e-9, max_tokens=1)
    assert (found.evaluations, found.stop_reason) == (4, StopReason.TOKENS)


def test_all_ranks_go_by_the_clock_of_the_first(go: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank whose own clock is far ahead, beside a first one that takes ten seconds a generation."""
    heard = iter([repr(10.0 * n).encode() for n in range(1, 20)])
    monkeypatch.setattr(Ranks, "first", False)
    monkeypatch.setattr(Ranks, "from_first", lambda self, work, interruptible=True: next(heard))
    ahead = SimpleNamespace(perf_counter=iter(range(10**6, 10**9, 10**5)).__next__)
    monkeypatch.setattr(sys.modules["softde.align.session"], "time", ahead)
    found = go(max_seconds=35)
    assert (found.stop_reason, len(found.trajectory), found.wall_seconds) == (StopReason.TIME, 4, 40)


# ---- going on with more --------------------------------------------------------------------------------------------


def test_a_finished_run_goes_on_with_a_larger_budget(go: Callable[..., Result], tmp_path: Path) -> None:
    whole = go(tmp_path / "whole")
    go(tmp_path / "run", budget=12)
    seen: list[Progress] = []
    result = go(tmp_path / "run", progress=seen.append)
    assert len(seen) == 7 and result.prompt == whole.prompt
    assert exact(tmp_path / "run") == exact(tmp_path / "whole")
    with pytest.raises(ValueError, match="another configuration .budget was 40, now 12"):
        go(tmp_path / "run", budget=12)
    assert exact(tmp_path / "run") == exact(tmp_path / "whole")


def test_a_run_goes_on_with_other_stops(go: Callable[..., Result], tmp_path: Path) -> None:
    go(tmp_path / "run", patience=4, min_improvement=1e6)
    assert yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())["stops"]["patience"] == 4
    result, whole = go(tmp_path / "run"), go(tmp_path / "whole")
    assert result.prompt == whole.prompt and exact(tmp_path / "run") == exact(tmp_path / "whole")


def test_an_optimizer_that_plans_with_its_budget_does_not_go_on(go: Callable[..., Result], tmp_path: Path) -> None:
    def run(budget: int) -> Result:
        return go(tmp_path, optimizer=Shrinking(budget=budget), budget=budget)

    run(12)
    with pytest.raises(ValueError, match="optimizer.budget was 12, now 15"):
        run(15)


def test_bad_stops(go: Callable[..., Result], tmp_path: Path) -> None:
    cases: dict[str, dict[str, Any]] = {
        "patience: expected a whole number of at least 1, got 0": {"patience": 0},
        "min_improvement: expected a finite number from 0 up, got nan": {"min_improvement": math.nan},
        "max_tokens: expected a whole number of at least 1, got 1.5": {"max_tokens": 1.5},
        "max_seconds: expected a positive number of seconds, got 0": {"max_seconds": 0},
        "target_loss: expected a finite number, got inf": {"target_loss": math.inf},
        "max_seconds: expected a positive number of seconds, got 'x'": {"max_seconds": "x"},
        "target_loss: expected a finite number, got 'x'": {"target_loss": "x"},
        "min_improvement: expected a finite number from 0 up, got 'x'": {"min_improvement": "x"},
        "min_improvement: expected a finite number from 0 up, got None": {"min_improvement": None},
    }
    for message, change in cases.items():
        with pytest.raises(ValueError, match=message):
            go(tmp_path / "run", **change)
    assert not (tmp_path / "run").exists()
