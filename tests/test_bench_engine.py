"""The engine benchmark at a tiny size: every way gives the same answers, and what it prints can be read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from softde.lm import Question

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> Any:
    """The script, imported as it is when it is run: its folder comes first."""
    pytest.importorskip("peft")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import bench_engine

        yield bench_engine
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def printed(bench: Any, llama_folder: Path, mini_file: Path) -> SimpleNamespace:
    """One small run: 4 items, 5 candidates."""
    import contextlib
    import io

    out, err = io.StringIO(), io.StringIO()
    given = ["--model", str(llama_folder), "--survey", str(mini_file), "--region", "Ireland", "--edition", "2020"]
    given += ["--population", "5", "--candidates-slow", "2", "--candidates-ours", "3", "--num-virtual-tokens", "3"]
    given += ["--repeats", "1", "--generations", "1", "--run-generations", "0", "--device", "cpu", "--check"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = bench.main(given)
    return SimpleNamespace(code=code, lines=out.getvalue().splitlines(), progress=err.getvalue())


def test_every_way_gives_the_answers_of_the_one_by_one_forward(printed: SimpleNamespace) -> None:
    rows = json.loads(printed.lines[-1])["rows"]
    assert {"a", "b", "c", "c'", "d", "front", "late"} <= set(rows)
    assert rows["b"]["error"] == 0
    for key, row in rows.items():
        if key != "early":
            assert row["error"] < 1e-4, key


def test_a_wrong_way_shows(printed: SimpleNamespace) -> None:
    assert json.loads(printed.lines[-1])["peft_left_padded_error"] > 1e-3


def test_table_and_json_say_the_same(printed: SimpleNamespace) -> None:
    record = json.loads(printed.lines[-1])
    lines = [line for line in printed.lines if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(cells) == 2 + len(record["rows"])
    assert {len(row) for row in cells} == {10}
    for row, expected in zip(cells[2:], record["rows"].values(), strict=True):
        assert row[1] == f"{expected['name']} ({expected['candidates_run']})"
        assert int(row[2].replace(",", "")) == expected["tokens"]
        assert float(row[3]) == pytest.approx(expected["seconds"], rel=0.01)
        assert float(row[5]) == pytest.approx(record["rows"]["c'"]["seconds"] / expected["seconds"], abs=0.01)
    assert printed.code == 0
    assert "no targets" in printed.progress


def test_tokens_are_those_of_the_lengths(printed: SimpleNamespace) -> None:
    record = json.loads(printed.lines[-1])
    questions, soft, rows = record["questions"], record["num_virtual_tokens"], record["rows"]
    _, mean, longest = record["hard_tokens"]
    assert rows["b"]["tokens"] == 5 * questions * (mean + soft)
    assert rows["a"]["tokens"] == 5 * questions * (mean + soft + 7)
    assert rows["c"]["tokens"] == rows["c'"]["tokens"] == rows["d"]["tokens"] == 5 * questions * (longest + soft)
    assert rows["late"]["necessary_tokens"] == 5 * questions * (soft + record["tokens_after_late"])


def test_shared_work_by_hand(bench: Any) -> None:
    # One text before 2 soft tokens, behind them 7 8 | 7 9 9: five tokens 7 8 9 9 at places 1 + 2 + (0, 1, 1, 2).
    two = [Question(0, "forward", (1,), (7, 8), (5,)), Question(1, "forward", (1,), (7, 9, 9), (5,))]
    assert bench.measuring.shared(two, 2) == (2 + 4, (2 + 3) + (4 + 5 + 5 + 6), 2)
    assert bench.measuring.unshared(two, 2) == (5 + 6, 15 + 21, 2)
    # Another text before the soft tokens: nothing is shared.
    other = [two[0], Question(1, "forward", (2, 2), (7, 9, 9), (5,))]
    assert bench.measuring.shared(other, 2) == (4 + 5, (2 + 3 + 4 + 5) + (3 + 4 + 5 + 6 + 7), 2)


def test_flops_of_a_model_by_hand(bench: Any) -> None:
    from tests import tiny_random

    model = tiny_random.make_model()
    width, inner = 32, 64
    layer = 2 * width * width + 2 * width * 16 + 3 * width * inner + 2 * width  # q o, k v, gate up down, norms
    work = bench.measuring.Work(tokens=10, pairs=30, read=2)
    expected = 2 * 10 * (2 * layer + width) + 4 * 2 * width * 30 + 2 * 2 * width * 420
    assert work.flops(model) == expected


def test_a_missed_target_is_named(bench: Any) -> None:
    row = {"row": "e", "speed_to_batch": 8.0, "speed_to_generate": 10.0, "floor_share": 0.9, "matmul_share": None,
           "memory": 10**9, "float32_error": 1e-6}  # fmt: skip
    target = bench.TARGETS["random-llama-4x640", "cpu"]
    rows = {"late": row, "front": row}
    assert all(reached for reached, _ in bench.verdicts(target, rows, 0.4))
    missed = [text for reached, text in bench.verdicts(target, {**rows, "late": {**row, "floor_share": 0.5}}, None)
              if not reached]  # fmt: skip
    assert missed == ["late, share of the token floor: 0.5, at least 0.85",
                      "tokens saved by early rejection: not measured, at least 0.3"]  # fmt: skip
    assert bench.verdicts(None, rows, None) == []


def test_random_shape_has_the_proportions(bench: Any) -> None:
    shape = bench.models.SHAPES["random-llama-4x640"]
    eight = bench.models.SHAPES["llama-3-8b-random"]
    for each in (shape, eight):
        assert each.intermediate == 3.5 * each.hidden
        assert each.heads == 4 * each.kv_heads
    lm = bench.models.load("random-llama-4x640", "cpu", "bfloat16")
    assert lm.dtype == torch.bfloat16
    assert len(lm.tokenizer) <= shape.vocabulary
    head = lm.model.get_output_embeddings().weight.numel()
    layers = sum(p.numel() for p in lm.model.parameters()) - 2 * head
    assert head / layers == pytest.approx(0.062, abs=0.001)
