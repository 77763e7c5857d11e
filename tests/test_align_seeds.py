"""Several seeds in one call: each search as it is alone, in one evaluation, in its own folder."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml

from softde import Argmax, Sampled, align
from softde.align import Result, Results
from softde.lm import LM
from softde.objective import AlignmentLoss
from softde.optim import DE, Info
from softde.optim.base import State, advance, as_losses, describe
from softde.progress import Progress
from softde.prompt import SoftPrompt
from softde.space import PromptSpace
from softde.surveys import Survey, Target, load_survey


@dataclass(frozen=True, eq=False)
class ShrinkingState(State):
    points: torch.Tensor


@dataclass(frozen=True)
class Shrinking:
    """Random search with one candidate fewer every generation, as L-SHADE has it, planned for a budget."""

    state_type: ClassVar[type[ShrinkingState]] = ShrinkingState
    population_size: int = 5
    budget: int = 15

    def init(self, points: Any) -> ShrinkingState:
        return ShrinkingState(points[0].clone(), math.inf, 0, 0, False, len(points), points)

    def ask(self, state: ShrinkingState, generator: torch.Generator) -> tuple[torch.Tensor, ShrinkingState]:
        noise = torch.randn(state.points.shape, generator=generator)
        return state.points + (noise if state.generation else 0.0), replace(state, asked=True)

    def tell(self, state: ShrinkingState, candidates: torch.Tensor, losses: Any) -> tuple[ShrinkingState, Info]:
        losses = as_losses(losses, candidates)
        less = max(1, state.population_size - 1)
        state = advance(state, candidates, losses, population_size=less, points=candidates[:less])
        return state, describe(state, candidates, losses, losses, 0)


EXACT = ("run.yaml", "log.jsonl", "prompt.safetensors")
SEEDS = [0, 3, 1]


@pytest.fixture
def go(llama: LM, mini: Survey, ireland: Target) -> Callable[..., Any]:
    """`go(folder, seeds=[0, 1])`: three generations of four candidates for each."""
    space = PromptSpace.random(llama, 2)

    def call(folder: Path | None = None, **changes: Any) -> Any:
        settings = {"lm": llama, "survey": mini, "target": ireland, "space": space, "optimizer": DE(4), "budget": 12}
        return align(**{**settings, "progress": False, **changes}, checkpoint=folder)

    return call


def exact(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in EXACT}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the populations that are scored in a search."""
    sizes, score = list[int](), AlignmentLoss.__call__

    def watch(self: AlignmentLoss, x: torch.Tensor, plain: bool = False, **more: Any) -> Any:
        if not plain:
            sizes.append(len(x))
        return score(self, x, plain, **more)

    monkeypatch.setattr(AlignmentLoss, "__call__", watch)
    return sizes


@pytest.mark.parametrize("early_rejection", [True, False])
def test_each_seed_is_its_own_search_in_one_evaluation(
    go: Callable[..., Any], watched: list[int], tmp_path: Path, early_rejection: bool
) -> None:
    together = go(tmp_path / "all", seeds=SEEDS, early_rejection=early_rejection)
    assert isinstance(together, Results) and isinstance(together, tuple)
    assert watched == [12, 12, 12]
    assert {path.name for path in (tmp_path / "all").iterdir()} == {"seed-0", "seed-1", "seed-3"}
    for seed, result in zip(SEEDS, together, strict=True):
        alone: Result = go(tmp_path / f"alone-{seed}", seed=seed, early_rejection=early_rejection)
        assert (result.seed, result.prompt, result.loss) == (seed, alone.prompt, alone.loss)
        assert result.evaluations == 12 and result.plain_loss == alone.plain_loss
        folder = tmp_path / "all" / f"seed-{seed}"
        names = ("generation", "evaluations", "best", "median", "worst", "spread", "improved", "nan_count")
        assert [[step[k] for k in names] for step in result.trajectory] == [
            [step[k] for k in names] for step in alone.trajectory
        ]
        if not early_rejection:  # nothing depends on the order of the factors
            assert exact(folder) == exact(tmp_path / f"alone-{seed}")
            assert result.forward_tokens == alone.forward_tokens
        assert result.forward_tokens == sum(step["tokens"] for step in result.trajectory)
    assert together.best.plain_loss == min(result.plain_loss for result in together) and not together.interrupted


def test_tokens_of_a_population_are_those_of_its_candidates() -> None:
    lm, survey = LM.from_pretrained("tiny"), load_survey("vsm13")
    target, space = survey.target("Saudi Arabia", edition="2023"), PromptSpace.random(lm, 2)
    loss = AlignmentLoss(lm, survey, target, space, orders="forward")
    x = space.sample(6, torch.Generator().manual_seed(0))
    bound = torch.tensor([0.0, math.inf, 150.0, 60.0, math.inf, 100.0], dtype=torch.float64)
    whole = loss(x, bound=bound)
    alone = [loss(x[i : i + 1], bound=bound[i : i + 1]).tokens for i in range(6)]
    assert whole.spent.tolist() == alone and whole.tokens == sum(alone)
    assert len(set(alone)) > 2


def test_searches_of_other_sizes_and_ends_side_by_side(
    go: Callable[..., Any], watched: list[int], tmp_path: Path
) -> None:
    whole = [go(seed=seed, budget=24).trajectory for seed in (0, 1, 2)]
    goal = sorted(steps[-1]["best"] for steps in whole)[1]
    expected = [next((s["generation"] for s in steps if s["best"] <= goal), 6) for steps in whole]
    watched.clear()
    results = go(tmp_path, seeds=[0, 1, 2], target_loss=goal, budget=24)
    assert [len(result.trajectory) for result in results] == expected and len(set(expected)) > 1
    assert watched == [4 * sum(end > generation for end in expected) for generation in range(max(expected))]
    for result in results:
        alone = go(seed=result.seed, target_loss=goal, budget=24)
        assert torch.equal(alone.prompt.embeddings, result.prompt.embeddings)
        assert alone.stop_reason == result.stop_reason


def test_populations_that_shrink(go: Callable[..., Any], watched: list[int]) -> None:
    results = go(seeds=[0, 1], optimizer=Shrinking(), budget=15)
    assert watched == [10, 8, 6, 4, 2]
    for result in results:
        alone = go(seed=result.seed, optimizer=Shrinking(), budget=15)
        assert torch.equal(alone.prompt.embeddings, result.prompt.embeddings) and alone.evaluations == 15


@pytest.mark.parametrize("readout", [Argmax(), Sampled(2)])
def test_read_out_searches_side_by_side(go: Callable[..., Any], readout: Any) -> None:
    results = go(seeds=[0, 1], readout=readout, draws="fresh")
    for result in results:
        alone = go(seed=result.seed, readout=readout, draws="fresh")
        assert torch.equal(alone.prompt.embeddings, result.prompt.embeddings)
        assert alone.trajectory == result.trajectory and alone.rescored == result.rescored


# ---- going on ------------------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_all_of_them_to_go_on(go: Callable[..., Any], tmp_path: Path) -> None:
    whole = go(tmp_path / "whole", seeds=SEEDS)

    def stop(step: Progress) -> None:
        if step.line["generation"] == 2:
            raise KeyboardInterrupt

    first = go(tmp_path / "cut", seeds=SEEDS, progress=stop)
    assert first.interrupted and [len(result.trajectory) for result in first] == [2, 2, 2]
    second = go(tmp_path / "cut", seeds=SEEDS)
    assert [result.prompt for result in second] == [result.prompt for result in whole]
    for seed in SEEDS:
        assert exact(tmp_path / "cut" / f"seed-{seed}") == exact(tmp_path / "whole" / f"seed-{seed}")


def test_those_that_were_not_saved_catch_up(
    go: Callable[..., Any], watched: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from softde import checkpoint

    whole = go(tmp_path / "whole", seeds=SEEDS)
    save, calls = checkpoint.save, [0]

    def fails(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == 5:  # the second generation of the second seed
            raise OSError("no space left")
        save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", fails)
        with pytest.raises(OSError, match="no space left"):
            go(tmp_path / "cut", seeds=SEEDS)
    watched.clear()
    assert [result.prompt for result in go(tmp_path / "cut", seeds=SEEDS)] == [result.prompt for result in whole]
    assert watched == [8, 12]
    for seed in SEEDS:
        assert exact(tmp_path / "cut" / f"seed-{seed}") == exact(tmp_path / "whole" / f"seed-{seed}")


def test_another_seed_joins_those_that_are_done(go: Callable[..., Any], watched: list[int], tmp_path: Path) -> None:
    go(tmp_path, seeds=[0, 1])
    before = exact(tmp_path / "seed-1")
    watched.clear()
    results = go(tmp_path, seeds=[1, 2])
    assert watched == [4, 4, 4] and exact(tmp_path / "seed-1") == before
    assert torch.equal(results[1].prompt.embeddings, go(seed=2).prompt.embeddings)
    assert SoftPrompt.load(tmp_path / "seed-2" / "prompt.safetensors") == results[1].prompt
    with pytest.raises(ValueError, match=r"seed-1 holds a run with another configuration \(norm was 'L1', now 'L2'\)"):
        go(tmp_path, seeds=[1, 2], norm="L2")


def test_a_seeds_folder_is_a_runs_folder(go: Callable[..., Any], tmp_path: Path) -> None:
    go(tmp_path, seeds=[4])
    again = go(tmp_path / "seed-4", seed=4)
    assert exact(tmp_path / "seed-4")["prompt.safetensors"] == exact(tmp_path / "seed-4")["prompt.safetensors"]
    assert yaml.safe_load((tmp_path / "seed-4" / "run.yaml").read_text())["seed"] == again.seed == 4
    shutil.rmtree(tmp_path / "seed-4")


# ---- what is shown, and bad input ----------------------------------------------------------------------------------


def test_a_line_for_all(go: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Progress] = []
    results = go(seeds=[0, 1, 2], progress=seen.append)
    assert [(step.line["evaluations"], step.budget, step.evaluations, step.last) for step in seen] == [
        (12, 36, 12, False), (24, 36, 24, False), (36, 36, 36, True),
    ]  # fmt: skip
    assert seen[-1].lines == tuple(result.trajectory[-1] for result in results)
    assert seen[-1].line["best"] == min(result.loss for result in results)
    json.dumps(seen[-1].line)
    go(seeds=[0, 1, 2], progress=True)
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith("36/36  best " + " ".join(f"{result.loss:6.1f}" for result in results) + "  median")
    many = go(seeds=range(7), progress=seen.append)
    lowest = f"(lowest of 7{min(result.loss for result in many):6.1f})"
    assert lowest in str(seen[-1])


def test_a_seed_that_cannot_be_scored_ends_all(go: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    score = AlignmentLoss.__call__

    def call(self: AlignmentLoss, x: torch.Tensor, plain: bool = False, **more: Any) -> Any:
        found = score(self, x, plain, **more)
        found.losses[slice(4, 8) if len(x) == 12 else slice(None)] = math.nan  # also where it tries a smaller spread
        return found

    monkeypatch.setattr(AlignmentLoss, "__call__", call)
    with pytest.raises(ValueError, match="^seed 5: no candidate of the first generation could be scored"):
        go(seeds=[3, 5, 2])


def test_bad_seeds(go: Callable[..., Any], tmp_path: Path) -> None:
    cases: dict[str, dict[str, Any]] = {
        r"seeds: expected whole numbers, at least one, such as \[0, 1, 2\], got \[\]": {"seeds": []},
        r"seeds: expected a whole number, got 0\.5": {"seeds": [0.5]},
        r"seeds: expected a whole number, got '0'": {"seeds": "01"},
        r"seeds: expected each number once, got \[1, 2, 1\]": {"seeds": [1, 2, 1]},
        r"seed: got 5 beside seeds=\[0, 1\]; give one or the other": {"seeds": [0, 1], "seed": 5},
    }
    for message, change in cases.items():
        with pytest.raises(ValueError, match=message):
            go(tmp_path / "run", **change)
    assert not (tmp_path / "run").exists()
