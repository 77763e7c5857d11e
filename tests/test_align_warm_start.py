"""A warm start in align: who pays, what is written down, going on to the same bytes; and what auto says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from softde import Argmax, GradientSteps, align
from softde.lm import LM
from softde.objective import AlignmentLoss
from softde.optim import DE, generator_for
from softde.progress import Progress
from softde.prompt import SoftPrompt
from softde.space import PromptSpace
from softde.start import START
from softde.surveys import Survey, Target

EXACT = ("run.yaml", "log.jsonl", "prompt.safetensors")
STEPS = GradientSteps(steps=2)
COST = 4 + 2 * 3  # four start points to choose from, two steps of a forward and a backward that counts twice


@pytest.fixture
def space(llama: LM) -> PromptSpace:
    return PromptSpace.random(llama, 2)


@pytest.fixture
def go(llama: LM, mini: Survey, ireland: Target, space: PromptSpace) -> Callable[..., Any]:
    """`go(folder, seed=1)`: two steps, then three generations of four candidates."""

    def call(folder: Path | None = None, **changes: Any) -> Any:
        given = {"optimizer": DE(4), "budget": COST + 12, "warm_start": STEPS, "progress": False}
        return align(llama, mini, ireland, space, checkpoint=folder, **{**given, **changes})

    return call


def exact(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in EXACT}


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def stop(_: Progress) -> None:
    raise KeyboardInterrupt


def test_the_search_begins_where_the_descent_ends(
    go: Callable[..., Any], llama: LM, mini: Survey, ireland: Target, space: PromptSpace
) -> None:
    result = go(budget=COST + 4)
    loss = AlignmentLoss(llama, mini, ireland, space)
    warm = STEPS(loss, space.sample(4, generator_for(0, START)), 4, seed=0)
    losses = loss(warm.points).losses
    assert result.evaluations == 4 and result.loss == pytest.approx(losses.min(), rel=1e-6)
    assert torch.equal(result.prompt.embeddings, space.decode(warm.points)[int(losses.argmin())])
    assert result.warm_start == warm.record()
    assert result.forward_tokens == warm.tokens + result.trajectory[0]["tokens"]


@pytest.mark.parametrize("left", [12, 15])
def test_the_budget_pays_for_it(go: Callable[..., Any], left: int) -> None:
    result = go(budget=COST + left)
    assert result.warm_start["forward_equivalents"] == COST
    assert result.evaluations == 12 and result.evaluations + COST <= COST + left


def test_a_budget_that_does_not_is_refused_before_a_folder_is_made(go: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 14, .* warm start, 10 .* population of 4, but got 13"):
        go(tmp_path / "run", budget=COST + 3)
    assert not (tmp_path / "run").exists()


def test_it_is_written_down(go: Callable[..., Any], tmp_path: Path) -> None:
    result = go(tmp_path)
    first, *rest = log(tmp_path)
    record = json.loads((tmp_path / "result.json").read_text())
    assert first["warm_start"] == record["warm_start"] == result.warm_start
    assert set(first["warm_start"]) == {"forward_equivalents", "tokens", "losses"}
    assert len(first["warm_start"]["losses"]) == 1 and len(first["warm_start"]["losses"][0]) == 2
    assert len(rest) == 2 and all("warm_start" not in line for line in rest)
    config = yaml.safe_load((tmp_path / "run.yaml").read_text())
    assert config["warm_start"] == {
        "steps": 2, "lr": 0.1, "starts": 1, "screen": None, "copies": 0.5, "spread": 0.1, "items": None,
    }  # fmt: skip
    assert (config["budget"], record["evaluations"]) == (COST + 12, 12)
    assert record["forward_tokens"] == first["warm_start"]["tokens"] + sum(line["tokens"] for line in [first, *rest])
    provenance = SoftPrompt.load(tmp_path / "prompt.safetensors").provenance
    assert provenance["warm_start"] == config["warm_start"]
    with pytest.raises(ValueError, match="another configuration .*warm_start"):
        go(tmp_path, warm_start=None)
    with pytest.raises(ValueError, match="warm_start.steps was 2, now 1"):
        go(tmp_path, warm_start=GradientSteps(steps=1))


def test_a_run_goes_on_to_the_same_bytes_without_a_second_one(
    go: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = go(tmp_path / "whole")
    assert go(tmp_path / "cut", progress=stop).interrupted and len(log(tmp_path / "cut")) == 1
    with monkeypatch.context() as patch:
        patch.setattr(GradientSteps, "descend", lambda *_: pytest.fail("a second warm start"))
        second = go(tmp_path / "cut")
    assert exact(tmp_path / "cut") == exact(tmp_path / "whole")
    assert (second.warm_start, second.forward_tokens) == (whole.warm_start, whole.forward_tokens)


def test_ctrl_c_in_it_leaves_a_run_that_starts_again(
    go: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GradientSteps, "descend", interrupted)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "cut")
    go(tmp_path / "whole")
    go(tmp_path / "cut")
    assert exact(tmp_path / "cut") == exact(tmp_path / "whole")


def test_each_seed_has_its_own(go: Callable[..., Any]) -> None:
    both = go(seeds=[0, 1], early_rejection=False)
    for result in both:
        alone = go(seed=result.seed, early_rejection=False)
        assert torch.equal(alone.prompt.embeddings, result.prompt.embeddings)
        assert (alone.warm_start, alone.forward_tokens) == (result.warm_start, result.forward_tokens)
    assert both[0].warm_start["losses"] != both[1].warm_start["losses"]


def test_its_tokens_count_for_a_limit(go: Callable[..., Any]) -> None:
    tokens = go(budget=COST + 4).forward_tokens
    result = go(max_tokens=tokens)
    assert (result.stop_reason, result.evaluations) == ("the tokens are used up", 4)


def test_auto_says_once_what_it_took(go: Callable[..., Any], tmp_path: Path) -> None:
    seen: list[Progress] = []
    settings = {"optimizer": "auto", "budget": 64, "warm_start": None, "readout": Argmax()}
    result = go(tmp_path, **settings, progress=seen.append)
    why = result.prompt.provenance["optimizer_choice"]
    assert why.startswith("auto chose ") and "64 candidates and a coarse read-out" in why
    notes = [note for step in seen for note in step.notes]
    assert notes.count(why) == 1 and why in seen[0].notes and len(seen) > 1
    seen.clear()
    go(tmp_path, **settings, max_seconds=1e6, progress=seen.append)  # has ended
    assert seen == []


def test_what_auto_took_is_not_said_again_when_a_run_goes_on(go: Callable[..., Any], tmp_path: Path) -> None:
    seen: list[Progress] = []
    settings = {"optimizer": "auto", "budget": 120}
    assert go(tmp_path, **settings, progress=stop).interrupted
    result = go(tmp_path, **settings, progress=seen.append)
    assert seen and all(step.notes == () for step in seen)
    cost = log(tmp_path)[0]["warm_start"]["forward_equivalents"]
    assert result.warm_start["forward_equivalents"] == cost and result.evaluations + cost <= 120


def test_an_optimiser_that_plans_with_its_budget_plans_with_what_is_left(
    go: Callable[..., Any], tmp_path: Path
) -> None:
    result = go(tmp_path, optimizer="jso", budget=140)
    cost = result.warm_start["forward_equivalents"]
    config = yaml.safe_load((tmp_path / "run.yaml").read_text())
    assert cost > 0 and config["optimizer"]["budget"] == 140 - cost and config["budget"] == 140
    assert result.evaluations + cost <= 140
