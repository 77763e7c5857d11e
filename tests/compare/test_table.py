"""The table of methods: summary, tests and what is written, from rows whose numbers are known."""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softde.compare import Exam, MethodTable
from softde.compare.measure import VALUES
from softde.compare.stats import mean_interval, sign_flip
from softde.surveys import Survey

REGIONS = ("Austria", "Brazil", "Chile", "Denmark", "Estonia", "France")
# (regions, seeds) losses
LOSSES = {
    "unprompted": np.array([[90.0], [80], [70], [100], [60], [110]]),
    "search": np.array([[10.0, 14], [22, 18], [9, 11], [30, 10], [12, 12], [40, 44]]),
    "persona": np.array([[95.0], [60], [75], [90], [50], [112]]),
}


def row(exam: str, kind: str, method: str, region: str, seed: int, **values: Any) -> dict[str, Any]:
    about = {"model": "tiny", "exam": exam, "held_out": "", "survey": "mini", "kind": kind, "method": method}
    blank = dict.fromkeys(VALUES, math.nan)
    return {**about, "region": region, "seed": seed, "nearest": "", **blank, "score_BOS": math.nan, **values}


def made(exam: Exam, factor: float = 1.0) -> list[dict[str, Any]]:
    rows = [
        row(exam.name, "condition", method, region, seed, loss=factor * grid[r, seed], option_mass=0.9,
            top1=float(r < 2), rank=1.0 + r, ranked_among=6.0, found_tokens=1000.0 * (method == "search"),
            culture_spa=50.0 + r, order_shift=0.1, score_BOS=1.5)
        for method, grid in LOSSES.items()
        for r, region in enumerate(REGIONS)
        for seed in range(grid.shape[1])
    ]  # fmt: skip
    rows += [row(exam.name, "null", "midpoint", region, 0, loss=factor * 85) for region in REGIONS]
    return rows + [
        row(exam.name, "floor", "best integer respondent", region, 0, loss=factor * 20) for region in REGIONS
    ]


@pytest.fixture
def exams(mini: Survey) -> tuple[Exam, ...]:
    targets = {"Ireland": mini.target("Ireland")}
    return Exam("trained", mini, targets), Exam("held", mini, targets, held_out="orders", orders="reversed")


@pytest.fixture
def table(exams: tuple[Exam, ...]) -> MethodTable:
    rows = [*made(exams[0]), *made(exams[1], 0.5)]
    across = [
        {"exam": exam.name, "method": "search", "seed": seed, "regions": 6, "divergence": 0.8 + 0.2 * seed, "tau": 0.5}
        for exam in exams
        for seed in (0, 1)
    ]
    return MethodTable("tiny", exams, tuple(rows), tuple(across), 0.9)


def test_summary(table: MethodTable) -> None:
    lines = table.summary()
    assert [(line["kind"], line["method"]) for line in lines[:5]] == [
        ("condition", "unprompted"), ("condition", "search"), ("condition", "persona"), ("null", "midpoint"),
        ("floor", "best integer respondent"),
    ]  # fmt: skip
    search = lines[1]
    assert (search["regions"], search["seeds"], search["exam"]) == (6, 2, "trained")
    expected = mean_interval(LOSSES["search"], 0.9)
    assert (search["loss"], search["loss_low"], search["loss_high"]) == pytest.approx(expected)
    assert search["loss"] == pytest.approx(np.mean([12, 20, 10, 20, 12, 42]))
    assert (search["top1"], search["rank"], search["culture_spa"]) == pytest.approx((2 / 6, 3.5, 52.5))
    assert (search["chance_top1"], search["chance_rank"]) == pytest.approx((1 / 6, 3.5))
    assert (search["divergence"], search["tau"], search["found_tokens"]) == pytest.approx((0.9, 0.5, 1000))
    assert math.isnan(search["held_out_loss"]) and math.isnan(lines[3]["rank"])
    assert lines[3]["loss"] == 85 and lines[6]["loss"] == pytest.approx(search["loss"] / 2)


def test_paired_tests(table: MethodTable) -> None:
    tests = table.tests()
    assert [(t["exam"], t["method"]) for t in tests] == [
        ("trained", "search"), ("trained", "persona"), ("held", "search"), ("held", "persona")
    ]  # fmt: skip
    search, persona = tests[0], tests[1]
    differences = LOSSES["search"].mean(axis=1) - LOSSES["unprompted"][:, 0]
    assert (
        search["difference"] == pytest.approx(differences.mean())
        and search["low"] < search["difference"] < search["high"]
    )
    assert (search["p"], search["smallest_p"], search["better"], search["regions"]) == (2 / 64, 2 / 64, 6, 6)
    # persona − unprompted: 5, −20, 5, −10, −10, 2
    assert persona["p"] == sign_flip([5, -20, 5, -10, -10, 2]) and persona["better"] == 3
    # Holm over four tests, two at 1/32: 4/32, then the other's 3/32 is raised to it.
    assert [t["p_holm"] for t in tests] == pytest.approx(
        [4 / 32, min(1, 2 * persona["p"]), 4 / 32, min(1, 2 * persona["p"])]
    )


def test_other_baselines_and_metrics(table: MethodTable) -> None:
    null = table.tests("midpoint")
    assert [t["method"] for t in null[:3]] == ["unprompted", "search", "persona"]
    assert null[0]["difference"] == pytest.approx(0)  # 85 on average, too
    spa = table.tests("persona", "culture_spa")
    assert all(t["difference"] == 0 and t["p"] == 1 and t["better"] == 0 for t in spa)
    rows = [row for row in table.rows if row["exam"] == "trained"]
    raised = tuple({**row, "culture_spa": row["culture_spa"] + 5 * (row["method"] == "search")} for row in rows)
    higher = MethodTable("tiny", table.exams[:1], raised, ())
    assert higher.tests(metric="culture_spa")[0]["better"] == 6  # higher is better
    assert table.tests(metric="held_out_loss") == []
    with pytest.raises(ValueError, match="baseline: the table has none called 'unpromted'; did you mean 'unprompted'"):
        table.tests("unpromted")
    with pytest.raises(ValueError, match="metric: the table has none called 'los'; did you mean 'loss'"):
        table.tests(metric="los")


def test_regions_that_one_of_a_pair_lacks_are_left_out(table: MethodTable) -> None:
    rows = tuple(r for r in table.rows if r["exam"] == "trained" and (r["method"], r["region"]) != ("search", "Brazil"))
    search = MethodTable("tiny", table.exams[:1], rows, ()).tests()[0]
    assert search["regions"] == 5 and search["smallest_p"] == 2 / 32


def test_files(table: MethodTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    frame = table.to_frame()
    assert len(frame) == len(table.rows) and list(frame) == list(table.rows[0])
    table.to_parquet(tmp_path / "t.parquet")
    read = pandas.read_parquet(tmp_path / "t.parquet")
    pandas.testing.assert_frame_equal(read, frame, check_dtype=False)
    table.save(tmp_path / "t.csv")
    with (tmp_path / "t.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(table.rows) and lines[0]["method"] == "unprompted" and lines[0]["held_out_loss"] == ""
    table.save(tmp_path / "t.md")
    assert (tmp_path / "t.md").read_text() == table.to_markdown()
    for call in (table.save, table.to_parquet):
        with pytest.raises(ValueError, match="path: expected a name that ends in .parquet"):
            call(tmp_path / "t.xlsx")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"softde\[viz\]"):
        table.to_frame()


def test_text(table: MethodTable) -> None:
    text = str(table)
    assert max(map(len, text.splitlines())) <= 100
    for word in ("trained: survey mini, orders both, 6 regions, seeds: 1 to 2, model tiny", "held: held out: orders",
                 "90 %", "chance: own 0.17, rank 3.5", "midpoint", "best integer respondent", "Estonia", "6/6",
                 "never below 0.031", "for 4 tests, which makes that 0.12", "tokens", "order"):  # fmt: skip
        assert word in " ".join(text.split()), word
    assert "SPA" in text and "words" not in text and "held out  " not in text
    line = next(line for line in text.splitlines() if line.startswith("search"))
    assert line.split()[:2] == ["search", "19.3"] and "1000" in line


def test_markdown(table: MethodTable) -> None:
    lines = table.to_markdown().splitlines()
    heads = [line for line in lines if line.startswith("### ")]
    assert len(heads) == 6 and heads[1] == "### trained: loss of each method less that of unprompted"
    first = [line for line in lines[: lines.index(heads[1])] if line.startswith("|")]
    assert len(first) == 2 + 5 and len({line.count("|") for line in first}) == 1
    assert first[-1].startswith("| *best integer respondent* | 20.0 |") and first[2].startswith("| unprompted | 85.0 |")


def test_many_regions_and_long_names_fit(mini: Survey) -> None:
    exam = Exam(
        "an exam with quite a long name, longer than anybody would want to read", mini, {"Italy": mini.target("Italy")}
    )
    names = [f"a method called {'x' * 30} {m}" for m in (1, 2)]
    rows = [
        row(exam.name, "condition", name, f"Region number {r}", 0, loss=123456.7, option_mass=0.2)
        for name in names
        for r in range(20)
    ]
    text = str(MethodTable("an/organisation-and-its-model", (exam,), tuple(rows), ()))
    assert max(map(len, text.splitlines())) <= 100
    assert all(f"Region number {r}" in text for r in range(20))
    assert "the options hold less than 50% of the probability" in " ".join(text.split())
    assert "less that of" not in text  # nothing to test against


def test_small_losses_have_digits(mini: Survey) -> None:
    exam = Exam("e", mini, {"Italy": mini.target("Italy")})
    for loss, shown in ((0.12345, "0.1235"), (2.5, "2.500"), (12.0, "12.0")):
        rows = (row("e", "condition", "m", "Italy", 0, loss=loss, option_mass=1.0),)
        assert shown in str(MethodTable("tiny", (exam,), rows, ()))


def test_intervals_of_few_regions_come_with_a_warning(mini: Survey) -> None:
    exam = Exam("e", mini, {"Italy": mini.target("Italy")})
    for regions, said in ((19, True), (20, False)):
        rows = [row("e", "condition", "m", f"r{r}", 0, loss=1.0 + r, option_mass=1.0) for r in range(regions)]
        text = " ".join(str(MethodTable("tiny", (exam,), tuple(rows), ())).split())
        assert ("too narrow for so few regions" in text) is said


def test_nothing_is_minus_zero(exams: tuple[Exam, ...]) -> None:
    rows = [
        row("trained", "condition", method, region, 0, loss=loss, option_mass=1.0)
        for method, losses in (("unprompted", (1.0, 1.0, 1.0)), ("m", (0.9999999, 1.0, 1.1)))
        for region, loss in zip(REGIONS, losses, strict=False)
    ]
    text = str(MethodTable("tiny", exams[:1], tuple(rows), ()))
    assert "-0.0000" not in text and "[0.0000, 0.1000]" in text


def test_mixed_editions_are_said(mini: Survey) -> None:
    older = replace(mini.target("Ireland"), edition="2010")
    rows = (row("e", "condition", "m", "Italy", 0, loss=1.0, option_mass=1.0),)
    mixed = Exam("e", mini, {"Italy": mini.target("Italy"), "Ireland": older})
    said = "scores are of different editions, 2010 and 2020"
    assert said in " ".join(str(MethodTable("tiny", (mixed,), rows, ())).split())
    alike = Exam("e", mini, {region: mini.target(region) for region in ("Italy", "Ireland")})
    assert "editions" not in str(MethodTable("tiny", (alike,), rows, ()))
