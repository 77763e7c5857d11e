"""The curves benchmark at a tiny size: searches that go on with a larger budget, and a page that says what they say."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from softde import PromptSpace
from softde.baselines.rounds import Rounds
from softde.baselines.searched import searched
from softde.lm import LM
from softde.optim import DE
from softde.surveys import load_survey

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
METHODS = ("rand1bin", "gradient oracle")


@pytest.fixture(scope="module")
def bench(llama: LM) -> Iterator[Any]:
    """The script, imported as it is when it is run, with a smaller model and shorter rounds."""
    sys.path.insert(0, str(BENCHMARKS))
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        import bench_curves

        patch.setattr(bench_curves, "model", lambda: llama)
        patch.setitem(bench_curves.FIXED, "rand1bin", DE(8, "rand1bin"))
        patch.setitem(bench_curves.FIXED, bench_curves.ORACLE, Rounds(steps=2, screen=4))
        bench_curves.space.cache_clear()
        yield bench_curves
        bench_curves.space.cache_clear()
    sys.path.remove(str(BENCHMARKS))
    torch.set_num_threads(threads)


def call(path: Path, *budgets: int, methods: tuple[str, ...] = METHODS, more: tuple[str, ...] = ()) -> list[str]:
    return ["--placements", "late", "--regions", "China", "--seeds", "1", "--methods", *methods, "--budgets",
            *map(str, budgets), "--results", str(path), *more]  # fmt: skip


@pytest.fixture(scope="module")
def ran(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two methods, up to 16 and 32 forward-equivalents."""
    path = tmp_path_factory.mktemp("curves") / "records" / "r.jsonl"
    code = bench.main(call(path, 16, 32))
    return SimpleNamespace(code=code, path=path, bytes=path.read_bytes(), records=bench.read(path))


def test_every_search_is_a_record_and_a_larger_budget_goes_on(ran: SimpleNamespace, llama: LM) -> None:
    assert ran.code == 0
    found = {(r["config"], r["budget"]): r for r in ran.records}
    assert set(found) == {(method, budget) for method in METHODS for budget in (16, 32)}
    # A round is two steps of three and one: 4 + 7 = 11 and 4 + 4 · 7 = 32.
    assert [found["gradient oracle", b]["spent"] for b in (16, 32)] == [11, 32]
    assert [found["gradient oracle", b]["evaluations"] for b in (16, 32)] == [11, 21]
    assert [found["rand1bin", b]["evaluations"] for b in (16, 32)] == [16, 16]
    survey = load_survey("vsm13")
    alone = searched(
        llama, survey, survey.target("China", edition="2023"), PromptSpace.random(llama, 8), DE(8, "rand1bin"), 32, 0,
        orders="forward", progress=False,
    )  # fmt: skip
    record = found["rand1bin", 32]
    assert record["improvements"] == [[n, pytest.approx(loss, rel=1e-5)] for n, loss in alone.trajectory]
    assert record["true"] == pytest.approx(alone.loss, rel=1e-5) and record["tokens"] == alone.forward_tokens
    assert record["unprompted"] > 0 and record["dim"] == 8 * llama.hidden_size


def test_what_is_recorded_is_not_run_again(bench: Any, ran: SimpleNamespace, tmp_path: Path) -> None:
    assert bench.main(call(ran.path, 16, 32)) == 0 and ran.path.read_bytes() == ran.bytes
    cut = tmp_path / "r.jsonl"
    cut.write_bytes(ran.bytes[:-20])  # its folder is not there, so it begins anew
    assert bench.main(call(cut, 16, 32)) == 0
    again = {bench.key(r): r for r in bench.read(cut)}
    assert len(again) == 4
    assert all(again[bench.key(r)]["improvements"] == r["improvements"] for r in ran.records)


def test_a_plan_counts_what_is_left(bench: Any, ran: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(call(ran.path, 32, 64, methods=("rand1bin",), more=("--plan",))) == 0
    printed = capsys.readouterr().out
    rate = sum(r["seconds"] for r in ran.records if r["config"] == "rand1bin") / 32
    assert f"| late | rand1bin | 1 | {1000 * rate:.1f} |" in printed and "1 searches, at most 0 minutes" in printed


def test_interrupted(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "run", stop)
    assert bench.main(call(tmp_path / "r.jsonl", 16)) == 130


# ---- the page --------------------------------------------------------------------------------------------------------


def record(
    method: str, region: str, budget: int, improvements: list[tuple[int, float]], placement: str = "late", seed: int = 0
) -> dict[str, Any]:
    """A made-up one."""
    problem = f"tiny {placement} expected {region}"
    return {"problem": problem, "dim": 16, "config": method, "seed": seed, "budget": budget, "settings": method,
            "losses": {}, "improvements": improvements, "true": 1.0, "unprompted": 100.0, "tokens": 10 * budget,
            "spent": budget, "evaluations": budget, "seconds": 0.5 * budget}  # fmt: skip


RECORDS = [
    record("rand1bin", "China", 100, [(32, 40.0), (96, 20.0)]),
    record("rand1bin", "India", 100, [(32, 30.0), (64, 9.0)]),
    record("bbt", "China", 100, [(1, 60.0), (81, 30.0)]),
    record("bbt", "India", 100, [(1, 50.0), (41, 0.05)]),  # it ended, so it counts for the larger budget too
    record("bbt", "Chile", 100, [(1, 50.0)]),  # not searched with rand1bin
    record("rand1bin", "India", 400, [(32, 30.0), (64, 9.0), (320, 2.0)]),
]


def by_name(method: str, *_: int) -> str:
    return method


def test_columns_have_the_pairs_that_all_methods_have(bench: Any) -> None:
    short, long = bench.curves_report.columns(RECORDS, by_name)
    assert (short.budget, short.pairs) == (100, [("China", 0), ("India", 0)])
    assert (long.budget, long.pairs) == (400, [("India", 0)])
    assert short.losses("rand1bin") == [20.0, 9.0] and long.losses("rand1bin") == [2.0]
    assert long.losses("bbt") == [0.05]


def test_a_search_whose_settings_follow_the_budget_counts_for_its_own_only(bench: Any) -> None:
    found = bench.curves_report.columns(
        RECORDS, lambda method, dim, budget: method if budget < 400 else f"{method} 400"
    )
    assert [column.budget for column in found] == [100]


def test_the_page(bench: Any) -> None:
    lines = bench.curves_report.page(RECORDS, by_name).splitlines()
    assert lines[0] == (
        "6 searches, 8 minutes of one core. Regions: late, 100: 2 (China, India); late, 400: 1 (India)."
    )
    assert "| best loss | late, 100 | late, 400 |" in lines
    assert "| rand1bin | 14.5 (9.0–20.0) | 2.0 |" in lines
    assert "| bbt | 15.0 (≤ 0.1–30.0) | ≤ 0.1 |" in lines
    assert "| unprompted | 100.0 (100.0–100.0) | 100.0 |" in lines
    assert "| rand1bin : bbt | 1 : 1 | 0 : 1 |" in lines
    assert "| rand1bin | 32 | 64 | never | 10 | 500 |" in lines  # to 30, 10 and 1; tokens and milliseconds each
    assert "| bbt | 41 | 41 | 41 | 10 | 500 |" in lines
    never = float("inf")
    assert [bench.curves_report.counted(each) for each in ([5.0, 7.0, never], [5.0, never, never], [never])] == [
        "7 (2 of 3)", "– (1 of 3)", "never",
    ]  # fmt: skip
    assert bench.curves_report.score([0.05, 1.0], [0.01, 2.0]) == "1 : 0"


def test_it_is_written_between_the_markers(bench: Any, ran: SimpleNamespace, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page, figure = tmp_path / "p.md", tmp_path / "figures" / "f.svg"
    page.write_text("before\n<!-- curves -->\nold\n<!-- /curves -->\nafter\n")
    given = call(ran.path, 16, more=("--report", "--page", str(page), "--figure", str(figure)))
    assert bench.main(given) == 0
    first = figure.read_bytes()
    text = page.read_text()
    assert text.startswith("before\n<!-- curves -->\n4 searches") and text.endswith("<!-- /curves -->\nafter\n")
    assert "old" not in text and "| gradient oracle |" in text and "](figures/f.svg)" in text
    assert bench.main(given) == 0 and figure.read_bytes() == first and b"<svg" in first


def test_records_of_other_settings_are_left_out(bench: Any, ran: SimpleNamespace) -> None:
    old = json.loads(json.dumps(ran.records))
    old[0]["settings"] = "something else"
    assert len(bench.usable(old)) == 3
    assert bench.curves_report.page([], by_name).startswith("No region")
