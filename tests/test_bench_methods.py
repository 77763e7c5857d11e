"""The benchmark of methods at a tiny size: a random model, two regions, few candidates; numbers found another way."""

from __future__ import annotations

import functools
import gzip
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import softde
from softde.baselines import persona
from softde.baselines.culture_spa import load_answers
from softde.baselines.rounds import Rounds
from softde.lm import LM
from softde.optim import DE

pytest.importorskip("peft")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
REGIONS, BUDGET = ("Japan", "India"), 24
METHODS = ("unprompted", "persona", "self-alignment", "sequential", "description, tiny's words", "random prompt",
           "DE rand1bin", "gradient oracle", "CultureSPA, joint", "CultureSPA, specific",
           "soft prompt, collected")  # fmt: skip


@pytest.fixture(scope="module")
def bench(llama: LM) -> Iterator[Any]:
    """The script, imported as it is when it is run, with methods that have less to do."""
    sys.path.insert(0, str(BENCHMARKS))
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        import bench_curves
        import bench_methods
        import methods_found
        import methods_told

        small = {"rand1bin": DE(8, "rand1bin"), "auto": DE(8, "best1bin"), "gradient oracle": Rounds(steps=2, screen=4)}
        questions = methods_found.questions()[::8]
        patch.setattr(methods_found, "settings", lambda method, dim, budget: small[method])
        patch.setattr(bench_curves, "model", lambda: llama)
        patch.setattr(methods_found, "questions", lambda: questions)
        patch.setattr(methods_found, "SETTINGS", replace(methods_found.SETTINGS, warmup=0, epochs=1, batch=4))
        patch.setattr(methods_told, "sequential", functools.partial(methods_told.sequential, seeds=(1,), window=1))
        bench_curves.space.cache_clear()
        bench_curves.measured_rate.cache_clear()
        import methods_exams
        import methods_report

        yield SimpleNamespace(main=bench_methods, found=methods_found, exams=methods_exams, report=methods_report)
        bench_curves.space.cache_clear()
        bench_curves.measured_rate.cache_clear()
    sys.path.remove(str(BENCHMARKS))
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def ran(bench: Any, llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """All methods, two regions, one seed."""
    folder = tmp_path_factory.mktemp("methods")
    records = folder / "records" / "r.jsonl.gz"
    given = ["--regions", *REGIONS, "--seeds", "1", "--budget", str(BUDGET), "--model", str(llama_folder),
             "--methods", *METHODS, "--folder", str(folder / "run"), "--records", str(records)]  # fmt: skip
    code = bench.main.main(given)
    about, table = bench.report.load(records)
    return SimpleNamespace(
        code=code, folder=folder, run=folder / "run", records=records, given=given, about=about, table=table
    )


def rows(table: Any, exam: str, method: str) -> dict[str, dict[str, Any]]:
    return {row["region"]: row for row in table.rows if (row["exam"], row["method"]) == (exam, method)}


# -- what is asked


def test_made_up_people_have_the_published_scores_and_all_words_are_kept(bench: Any) -> None:
    papers = bench.exams.papers(REGIONS)
    survey, human = papers.training.survey, papers.human
    assert len(human.regions) == 75 and papers.training.orders == "forward"
    for row, region in enumerate(human.regions):
        target = survey.target(region)
        assert np.abs(survey.score_probabilities(human.shares[row]) - target.scores).max() < 1, region
    exams = {exam.name: exam for exam in papers.exams}
    assert [(e.name, e.orders, e.held_out) for e in papers.exams[:3]] == [
        ("forward", "forward", ""), ("reversed", "reversed", "orders"), ("reworded", "forward", "phrasings"),
    ]  # fmt: skip
    for item, other in zip(survey.items, exams["reworded"].survey.items, strict=True):
        old, new = ({*text.lower().replace(",", "").strip("?.").split()} for text in (item.text, other.text))
        assert item.text != other.text and item.options == other.options
        assert len(old - {w.strip("?.") for w in new}) <= 2 + sum(w.endswith(("?", ".")) for w in old), other.text
    assert [bench.exams.named(region) for region in bench.exams.REGIONS] == [True] * 3 + [False] * 3


# -- what came out


def test_every_method_is_asked_everything_for_every_region(ran: SimpleNamespace) -> None:
    assert ran.code == 0 and ran.table.methods == tuple(m for m in METHODS if m in ran.table.methods)
    assert set(ran.table.methods) == set(METHODS) and len(METHODS) >= 10
    for exam in ran.table.exams:
        for method in METHODS:
            found = rows(ran.table, exam.name, method)
            assert list(found) == list(REGIONS), (exam.name, method)
            assert all(row["loss"] >= 0 and 0 < row["option_mass"] <= 1 for row in found.values())
    assert (ran.about["regions"], ran.about["budget"], ran.about["seeds"]) == ([*REGIONS], BUDGET, 1)
    null = rows(ran.table, "reversed", "best integer respondent")["India"]
    assert null["kind"] == "floor" and 0 < null["loss"] < 40


def test_losses_are_those_of_the_search_and_of_an_answer_by_hand(llama: LM, ran: SimpleNamespace) -> None:
    records = [json.loads(line) for line in (ran.run / "found.jsonl").read_text().splitlines()]
    searched = {(r["method"], region): one for r in records for region, one in r["found"].items()}
    for method in ("DE rand1bin", "gradient oracle"):
        for region, row in rows(ran.table, "forward", method).items():
            kept = searched[method, region]
            assert row["loss"] == pytest.approx(kept["loss"], rel=1e-4)
            assert (row["found_tokens"], row["found_seconds"]) == (kept["tokens"], kept["seconds"])
    survey = softde.load_survey("vsm13")
    target = survey.target("Japan")
    for exam, orders in (("forward", "forward"), ("reversed", "reversed"), ("both orders", "both")):
        scores = softde.administer(survey, llama, persona("Japan"), orders).scores(target.constants)
        wanted = np.abs(scores - target.scores).sum()
        assert rows(ran.table, exam, "persona")["Japan"]["loss"] == pytest.approx(wanted, rel=1e-3)


def test_searches_have_one_budget_and_methods_made_of_answers_pay_for_them(bench: Any, ran: SimpleNamespace) -> None:
    each = rows(ran.table, "forward", "random prompt")["Japan"]["asked_tokens"]  # a candidate is asked the same
    for method in ("DE rand1bin", "gradient oracle"):
        for row in rows(ran.table, "forward", method).values():
            assert each < row["found_tokens"] <= 1.5 * BUDGET * each, method
    [folder] = ran.run.glob("culture-spa-*")
    share = load_answers(folder / "answers.jsonl", bench.found.questions()).forward_tokens / len(REGIONS)
    records = [json.loads(line) for line in (ran.run / "found.jsonl").read_text().splitlines()]
    for method in ("CultureSPA, joint", "soft prompt, collected"):
        own = sum(r["found"]["India"]["tokens"] for r in records if r["method"] == method and "India" in r["found"])
        assert share > 0 and rows(ran.table, "forward", method)["India"]["found_tokens"] == pytest.approx(own + share)


def test_a_random_prompt_is_as_long_as_the_one_that_was_found(bench: Any, ran: SimpleNamespace, llama: LM) -> None:
    options = bench.main.parsed(ran.given)
    small = bench.found.Bench(llama, bench.exams.papers(REGIONS).training, REGIONS, 1, BUDGET, options.folder)
    entries = list(bench.found.entries(small, bench.found.works(small, METHODS), METHODS))
    prompts = {(e.method, e.region): e.condition.prompt for e in entries}
    found, other = (prompts[method, "India"].embeddings for method in ("DE rand1bin", "random prompt"))
    assert torch.allclose(found.norm(dim=1), other.norm(dim=1)) and not torch.allclose(found, other)
    adapters = {e.region: e.condition for e in entries if e.method == "CultureSPA, specific"}
    assert adapters["India"].system == persona("India").system and adapters["India"].adapter.is_dir()
    assert adapters["India"].adapter != adapters["Japan"].adapter


# -- again


def test_what_is_there_is_not_made_again(bench: Any, ran: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    files = (ran.run / "found.jsonl", ran.run / "answers" / "answers.jsonl")
    before = [path.read_bytes() for path in files]
    files[0].write_bytes(before[0][: before[0].rindex(b'"prompt"')])  # the last piece of work, interrupted
    assert bench.main.main([*ran.given, "--plan"]) == 0
    shown = capsys.readouterr()
    assert "| soft prompt, collected | 1 |" in shown.out and "9 pieces of work, 8 of them recorded" in shown.err
    assert bench.main.main(ran.given) == 0
    old, new = (text.splitlines() for text in (before[0], files[0].read_bytes()))
    assert new[: len(old) - 1] == old[:-1] and len(new) == len(old) + 1  # the cut line stays, closed
    assert json.loads(new[-1])["found"]["India"]["loss"] == json.loads(old[-1])["found"]["India"]["loss"]
    assert files[1].read_bytes() == before[1]  # the same prompt again, so nothing is asked


def test_the_page_needs_records_only(bench: Any, ran: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")

    def refuse(*_: Any) -> None:
        raise AssertionError("no model is needed")

    monkeypatch.setattr(bench.main.LM, "from_pretrained", refuse)
    page, figure = ran.folder / "page.md", ran.folder / "figure.svg"
    page.write_text("before\n<!-- methods -->\n<!-- /methods -->\nafter\n")
    assert bench.main.main([*ran.given, "--report", "--page", str(page), "--figure", str(figure)]) == 0
    text = page.read_text()
    mean = np.mean([row["loss"] for row in rows(ran.table, "forward", "persona").values()])
    line = next(line for line in text.splitlines() if line.startswith("| persona | name |"))
    own = [rows(ran.table, "forward", "persona")[region]["loss"] for region in REGIONS]
    assert line.split(" | ")[2] == f"{mean:.1f}" and line.split(" | ")[4:6] == [f"{loss:.1f}" for loss in own]
    assert text.startswith("before\n") and text.endswith("after\n") and "| *best integer respondent* |" in text
    assert figure.stat().st_size > 5_000


def test_rows_come_back_as_they_were(bench: Any, ran: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "again.jsonl.gz"
    about, table = bench.report.load(ran.records)
    bench.report.save(table, {k: v for k, v in about.items() if k != "columns"}, path)
    assert path.read_bytes() == ran.records.read_bytes() and b"NaN" not in gzip.decompress(path.read_bytes())
    assert all(set(row) == set(table.rows[0]) for row in table.rows)
    assert math.isnan(rows(table, "forward", "persona")["Japan"]["order_shift"])
    assert not math.isnan(rows(table, "both orders", "persona")["Japan"]["order_shift"])
