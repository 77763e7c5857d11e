"""The overhead benchmark at a small shape: its table's form, its fitness and its floors. No time is asserted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import softde

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The script, imported as it is when it is run: its folder comes first."""
    sys.path.insert(0, str(BENCHMARKS))
    threads = torch.get_num_threads()
    try:
        import bench_optim_overhead

        yield bench_optim_overhead
    finally:
        sys.path.remove(str(BENCHMARKS))
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def page(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two of our optimisers, the small shape, as written to a file."""
    out = tmp_path_factory.mktemp("bench") / "page.md"
    assert bench.main(["--quick", "--only", "^DE rand1bin", "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8").splitlines()


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


def test_the_table_has_a_row_per_optimizer_with_numbers_above_zero(bench: Any, page: list[str]) -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page if line.startswith("|")]
    assert tuple(rows[0]) == bench.COLUMNS
    assert {row[0] for row in rows[2:]} == {"**softde DE rand1bin**", "**softde DE rand1bin, per token**"}
    for row in rows[2:]:
        assert len(row) == len(bench.COLUMNS)
        assert all(number(cell) > 0 for cell in row[1:]), row
        assert int(row[-1]) == 3
    assert "### (16, 8,192)" in page


def test_columns_agree(page: list[str]) -> None:
    cells = {line.split("|")[1].strip(): line.strip("|").split("|") for line in page if line.startswith("| **")}
    de, token = cells["**softde DE rand1bin**"], cells["**softde DE rand1bin, per token**"]
    assert number(de[3]) == 1
    assert number(token[3]) == pytest.approx(number(token[1]) / number(de[1]), rel=0.02)
    assert number(de[4]) == pytest.approx(2 * 16 * 8192 * 4 / 1e6, rel=0.01)  # read and written once
    assert number(de[5]) == number(de[2])  # its floor is the copy


def test_floors_are_bytes_at_the_speed_of_the_copy(bench: Any) -> None:
    table = bench.Table((10, 1000), 0.5, [])
    rows = {row.name: row for row in bench.OURS}
    assert table.floor(rows["DE rand1bin"]) == 0.5
    assert table.floor(rows["RandomSearch"]) == 0.25  # written, not read
    assert rows["Subspace(CMAES, 500)"].floor.bytes(10, 1000) == 4 * 1000 * (10 + 500)


def test_steps_by_residuals_have_rows_that_are_told_residuals(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from softde.optim import GaussNewton

    told, inform = [], GaussNewton.inform

    def seen(self: GaussNewton, state: Any, residuals: Any) -> Any:
        told.append(residuals)
        return inform(self, state, residuals)

    monkeypatch.setattr(GaussNewton, "inform", seen)
    rows = {row.name: row for row in bench.OURS}
    for name, generations in (("shade-gn", 4), ("cma-gn", 3)):  # the first of cma-gn scores start points
        told.clear()
        generation = rows[name].drive(torch.randn(16, 300), bench.fitness(16))
        counts = [len(generation().losses) for _ in range(4)]
        assert counts == [16] * 4
        assert [residuals.shape for residuals in told] == [(16, 6)] * generations
        assert all((residuals < 0).any() and (residuals > 0).any() for residuals in told)
    assert rows["shade-gn"].floor.bytes(10, 1000) == pytest.approx(4 * 1000 * 10 * 5.2)
    assert rows["cma-gn"].floor.bytes(10, 1000) == 4 * 1000 * (10 + 200)


def test_nothing_of_this_machine_but_its_processor_is_told(page: list[str]) -> None:
    import platform

    text = "\n".join(page)
    assert str(Path.home()) not in text
    assert platform.node() not in text


def test_about_thirty_percent_of_the_trials_improve(bench: Any) -> None:
    n, told = 40, []
    optimizer = softde.DE(population_size=n)
    losses = bench.fitness(n)
    state = optimizer.init(torch.randn(n, 8, generator=torch.Generator().manual_seed(0)))
    for generation in range(6):
        candidates, asked = optimizer.ask(state, torch.Generator().manual_seed(generation))
        state, info = optimizer.tell(asked, candidates, next(losses))
        told.append(info.improved)
    assert told == [n, 12, 12, 12, 12, 12]


def test_what_is_not_installed_or_takes_too_long_is_named(bench: Any) -> None:
    here = bench.OURS[0]
    absent = bench.Row("absent", "no_such_package", here.floor, here.drive)
    table = bench.measure((8, 64), [here, absent], torch.device("cpu"), 5, 0.5, lambda: next(ticks))
    assert len(table.rows[0].counted) == 1  # over its cap after one
    assert "| absent | not installed | | | | | |" in bench.markdown(table)


ticks = iter(np.arange(1.0, 1000.0))


def test_verdicts_compare_medians_with_the_targets(bench: Any) -> None:
    def timed(name: str, seconds: float, package: str = "") -> Any:
        row = bench.Row(name, package, bench.OURS[0].floor, bench.OURS[0].drive)
        return bench.Timed(row, times=[9.0] * bench.DROPPED + [seconds])

    rows = [timed("DE rand1bin", 1.0), timed("DE rand1bin, per token", 0.5), timed("scipy DE rand1bin", 4.5, "scipy")]
    found = bench.verdicts([bench.Table(bench.JUDGED, 0.1, rows)], torch.device("cpu"), None)
    assert [reached for reached, _ in found] == [True, False, True, True, True]  # pymoo was not measured
    assert "times as fast: 4.5, at least 4" in found[0][1]
    slow = [*rows[1:], timed("DE rand1bin", 2.0)]
    found = bench.verdicts([bench.Table(bench.JUDGED, 0.1, slow)], torch.device("cpu"), None)
    assert [reached for reached, _ in found] == [False, False, True, True, False]


def test_on_a_gpu_shares_of_a_generation_count(bench: Any) -> None:
    row = SimpleNamespace(name="DE rand1bin", ours=True)
    table = bench.Table(bench.JUDGED, 0.1, [bench.Timed(row, times=[9.0] * bench.DROPPED + [0.01])])
    found = {seconds: bench.verdicts([table], torch.device("cuda"), seconds)[0] for seconds in (1.0, 0.1)}
    assert found[1.0] == (True, "DE rand1bin, share of a generation: 0.01, at most 0.02")
    assert not found[0.1][0]


def test_weights_of_llama_3_8b_add_up_to_its_published_number(bench: Any) -> None:
    norms = (2 * 32 + 1) * 4096
    assert bench.LAYERS + 2 * bench.HEAD + norms == 8_030_261_248  # the embeddings are as large as the head


@pytest.mark.usefixtures("bench")
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_is_counted_in_copies_of_the_population(capsys: pytest.CaptureFixture[str]) -> None:
    import bench_optim_memory

    assert bench_optim_memory.main(["--shape", "16,409600", "--only", "^DE rand1bin$"]) == 0
    page = capsys.readouterr().out
    assert "(16, 409,600), a copy is 26.2 MB" in page
    (row,) = [line for line in page.splitlines() if line.startswith("| **softde DE rand1bin**")]
    between, most = map(number, row.strip("|").split("|")[1:])
    assert 1 < between <= most < 5
