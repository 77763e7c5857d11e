"""The gradient oracle: against a slow loop with torch's own Adam, its count of work, rounds, and going on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from softde import administer
from softde.baselines.gradient_oracle import gradient_oracle
from softde.baselines.rounds import Rounds, Search, Stand
from softde.baselines.trained import Trained
from softde.lm import LM
from softde.lm.engine import Engine
from softde.objective import AlignmentLoss
from softde.optim import generator_for
from softde.progress import Progress
from softde.prompt import SoftPrompt
from softde.readouts import Argmax
from softde.space import PromptSpace
from softde.start import START
from softde.surveys import Survey, Target, load_survey
from softde.verify import verify

FEW = Rounds(steps=3, lr=0.05, screen=4)
ROUND = 3 * 3 + 1  # three steps of a forward and a backward that counts twice, and asking where they ended


@pytest.fixture
def loss(llama: LM, mini: Survey, ireland: Target) -> AlignmentLoss:
    return AlignmentLoss(llama, mini, ireland, PromptSpace.random(llama, 2), "forward")


@pytest.fixture
def go(llama: LM, mini: Survey, ireland: Target) -> Callable[..., Trained]:
    """`go(checkpoint=folder)`: four start points, three rounds of three steps."""

    def call(budget: int = 4 + 3 * ROUND, rounds: Any = FEW, **changes: Any) -> Trained:
        space = PromptSpace.random(llama, 2)
        return gradient_oracle(
            llama, mini, ireland, space, budget, 0, rounds, **{"orders": "forward", "progress": False, **changes}
        )

    return call


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# ---- what it finds ---------------------------------------------------------------------------------------------------


def slow(loss: AlignmentLoss, rounds: Rounds, screenings: list[Tensor], turns: int) -> tuple[Tensor, list[float]]:
    """The best point, and the best loss after each screening and round; autograd through the whole survey at once."""
    values = torch.from_numpy(np.nan_to_num(loss.survey.option_values))
    weights = torch.from_numpy(loss.survey.weights.copy())
    goal = torch.from_numpy(loss.target.scores.copy())
    constants = torch.tensor([loss.target.constants[f] for f in loss.survey.factors])

    def value(x: Tensor) -> Tensor:
        logprobs = loss.lm.engine.run(loss.plan, loss.space.decode(x[None]), grad=True).logprobs
        means = (logprobs.double().exp() * values).sum(-1)
        return (means @ weights.T + constants - goal).abs().sum()

    queue: list[tuple[float, Tensor]] = []
    best, bests = (math.inf, torch.zeros(0)), list[float]()
    depth = 0
    for _ in range(turns):
        if not queue:
            points = screenings.pop(0)
            queue, depth = sorted(((value(x).item(), x) for x in points), key=lambda pair: pair[0]), 0
        else:
            before, start = queue[0]
            x = start.clone().requires_grad_()
            adam = torch.optim.Adam([x], lr=rounds.lr * rounds.shrink**depth)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, rounds.steps)
            way = []
            for _ in range(rounds.steps):
                adam.zero_grad()
                found = value(x)
                way.append((found.item(), x.detach().clone()))
                found.backward()
                adam.step()
                schedule.step()
            lowest = min(way, key=lambda pair: pair[0])
            end = x.detach() if way[-1][0] <= lowest[0] else lowest[1]
            after = value(end).item()
            queue, depth = [(after, end), *queue[1:]], depth + 1
        best = min(best, queue[0], key=lambda pair: pair[0])
        bests.append(best[0])
        if depth and after >= (1 - rounds.gain) * before:
            queue, depth = queue[1:], 0
    return best[1], bests


@pytest.mark.parametrize("gain", [0.0, 0.02, 0.99])
def test_it_is_the_slow_loop(loss: AlignmentLoss, go: Callable[..., Trained], gain: float) -> None:
    rounds = replace(FEW, gain=gain, screen=2)
    screenings = [loss.space.sample(2, generator_for(0, START - number)) for number in range(3)]
    best, bests = slow(loss, rounds, screenings, 6)
    # With gain 0.99 no round lowers the loss enough: two start points, a round each, and two others are drawn.
    spent = 2 + 2 * ROUND + 2 + 2 * ROUND if gain == 0.99 else 2 + 5 * ROUND
    found = go(spent, rounds)
    assert found.condition.prompt is not None
    expected = loss.space.decode(best[None])[0]
    torch.testing.assert_close(found.condition.prompt.embeddings, expected, rtol=1e-2, atol=2e-4)
    assert found.best_after(spent) == pytest.approx(bests[-1], rel=1e-3)
    assert found.best_after(2) == pytest.approx(bests[0], rel=1e-4)
    assert found.best_after(2 + ROUND) == pytest.approx(bests[1], rel=1e-3)
    assert bests[1] < bests[0]


def test_on_the_embedded_model_it_finds_a_factor(tmp_path: Path) -> None:
    lm, survey = LM.from_pretrained("tiny"), load_survey("vsm13")
    one = survey.factor_models[0]
    items = tuple(item for item in survey.items if item.id in one.weights)
    survey = replace(survey, items=items, factor_models=(one,), variants={}, published=())
    target = Target("Italy", "made up", survey.factors, np.array([90.0]), "made up", {one.id: 50.0})
    rounds = Rounds(steps=10, screen=4)
    found = gradient_oracle(
        lm, survey, target, None, 40, 0, rounds, orders="forward", checkpoint=tmp_path, progress=False
    )
    assert found.condition.name == "gradient oracle" and found.condition.prompt is not None
    assert found.loss < 0.3 * found.trajectory[0][1]
    prompt = SoftPrompt.load(tmp_path / "prompt.safetensors")
    assert prompt == found.condition.prompt and verify(prompt, lm, survey).ok
    assert prompt.provenance["optimizer"]["name"] == "Rounds" and prompt.provenance["evaluations"] == 35
    asked = administer(survey, lm, found.condition, orders="forward").scores(target.constants)
    assert abs(float(asked[0]) - 90.0) == pytest.approx(found.loss, abs=1e-3)


def test_other_readouts_decide_what_is_kept(loss: AlignmentLoss, go: Callable[..., Trained]) -> None:
    found = go(readout=Argmax())
    stepwise = replace(loss, readout=Argmax())
    start = stepwise(loss.space.sample(4, generator_for(0, START))).losses.min()
    assert found.trajectory[0] == (4, start) and found.loss <= start


# ---- what it costs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [None, 2])
def test_forward_equivalents_are_what_is_asked(
    loss: AlignmentLoss, monkeypatch: pytest.MonkeyPatch, items: int | None
) -> None:
    asked = {True: 0, False: 0}
    run = Engine.run

    def counting(self: Engine, *arguments: Any, grad: bool = False, **options: Any) -> Any:
        answer = run(self, *arguments, grad=grad, **options)
        asked[grad] += int(answer.asked.sum())
        return answer

    monkeypatch.setattr(Engine, "run", counting)
    rounds = replace(FEW, items=items)
    round_cost = 3 * (4 if items else 3) + 1  # where the one block of four items is cut, a step is a forward more
    assert rounds.cost(loss) == round_cost
    search = Search(loss, rounds, 0, 4 + 2 * round_cost + 3, None)
    search.check()
    stand = search.run(Stand.new(loss.space.dim), None, None)
    assert stand.spent == 4 + 2 * round_cost  # what is left does not pay for a round
    assert asked[False] + 3 * asked[True] == stand.spent * len(loss.survey.items)
    assert stand.tokens == stand.spent * loss.plan.tokens(2)


def test_a_run_is_the_beginning_of_one_with_a_larger_budget(go: Callable[..., Trained]) -> None:
    short, long = go(), go(4 + 5 * ROUND)
    assert long.trajectory[: len(short.trajectory)] == short.trajectory
    assert long.forward_tokens > short.forward_tokens
    assert go(target_loss=1e6).trajectory == short.trajectory[:1]


# ---- the record ------------------------------------------------------------------------------------------------------


def test_it_goes_on_to_the_same_bytes(go: Callable[..., Trained], tmp_path: Path) -> None:
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 2:
            raise KeyboardInterrupt

    whole = go(checkpoint=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        go(checkpoint=tmp_path / "cut", progress=stop)
    assert [p.line["evaluations"] for p in seen] == [4, 4 + ROUND] and "best" in str(seen[-1])
    assert len(log(tmp_path / "cut")) == 2
    small = go(4 + 2 * ROUND, checkpoint=tmp_path / "grown")
    for folder in ("cut", "grown"):
        found = go(checkpoint=tmp_path / folder)
        assert (tmp_path / folder / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()
        assert found.condition.prompt == whole.condition.prompt and found.trajectory == whole.trajectory
        assert found.forward_tokens == whole.forward_tokens > small.forward_tokens
    again = go(checkpoint=tmp_path / "whole")  # nothing is left to do
    assert again.condition.prompt == whole.condition.prompt and again.seconds == whole.seconds


def test_the_log_says_what_was_done(go: Callable[..., Trained], tmp_path: Path) -> None:
    go(rounds=replace(FEW, gain=0.99, screen=1), budget=2 * (1 + ROUND), checkpoint=tmp_path)
    lines = log(tmp_path)
    assert [line["steps"] for line in lines] == [0, 3, 0, 3] and [len(line["losses"]) for line in lines] == [0, 3, 0, 3]
    assert [line["evaluations"] for line in lines] == [1, 1 + ROUND, 2 + ROUND, 2 + 2 * ROUND]
    assert lines[0]["median"] != lines[2]["median"]  # other start points
    assert lines[1]["losses"][0] == pytest.approx(lines[0]["median"], rel=1e-4)


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_a_folder_of_another_run_is_refused(go: Callable[..., Trained], tmp_path: Path) -> None:
    go(checkpoint=tmp_path)
    before = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"another configuration \(optimizer.lr was 0.05, now 0.1\)"):
        go(rounds=replace(FEW, lr=0.1), checkpoint=tmp_path)
    assert (tmp_path / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 13}, "budget of at least 14, which pays for 4 start points and a round of 3 steps, but got 13"),
        ({"budget": 2.5}, "budget: expected a whole number"),
        ({"target_loss": math.nan}, "target_loss"),
        ({"norm": "L7"}, "L7"),
    ],
)
def test_bad_input_leaves_no_folder(
    go: Callable[..., Trained], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        go(checkpoint=tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps"), ({"lr": 0}, "lr"), ({"shrink": 0}, "shrink"), ({"gain": 1}, "gain"),
        ({"screen": 0}, "screen"), ({"items": 0}, "items"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rounds(**settings)


def test_kinds(go: Callable[..., Trained], llama: LM, mini: Survey) -> None:
    with pytest.raises(ValueError, match="rounds: expected Rounds, got 40"):
        go(rounds=40)
    with pytest.raises(ValueError, match="target: expected Target"):
        gradient_oracle(llama, mini, "Ireland")  # type: ignore[arg-type]


def test_a_model_without_numbers(go: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = AlignmentLoss.evaluate
    monkeypatch.setattr(
        AlignmentLoss,
        "evaluate",
        lambda self, answer: evaluate(self, answer)._replace(losses=np.full(len(answer.asked), np.nan)),
    )
    with pytest.raises(ValueError, match="none of 34 forward-equivalents gave a loss"):
        go()
