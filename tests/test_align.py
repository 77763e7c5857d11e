"""align: the loop by hand, the record, going on after a stop, and what it does when a model gives no numbers."""

from __future__ import annotations

import inspect
import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from softde import align
from softde.administer import administer
from softde.align import AUTO, BUDGET, Result
from softde.align.record import line
from softde.lm import LM, OptionLogprobs
from softde.objective import AlignmentLoss, Evaluation
from softde.optim import CMAES, DE, SHADE, GaussNewton, Info, Screen, Subspace, choose, generator_for, named
from softde.optim.base import settings as settings_of
from softde.progress import Progress
from softde.prompt import SoftPrompt
from softde.space import PromptSpace
from softde.start import START, checked_start
from softde.surveys import Item, Survey, Target, load_survey, options
from softde.verify import verify
from tests import tiny_random
from tests.reference import slow_lm

RECORD = {"run.yaml", "log.jsonl", "checkpoint.safetensors", "prompt.safetensors", "result.json"}
EXACT = ("run.yaml", "log.jsonl", "prompt.safetensors")  # these never hold a time


@pytest.fixture
def space(llama: LM) -> PromptSpace:
    return PromptSpace.random(llama, 2)


@pytest.fixture
def go(llama: LM, mini: Survey, ireland: Target, space: PromptSpace) -> Callable[..., Result]:
    """`go(folder, seed=1)`: three generations of four candidates."""

    def call(folder: Path | None = None, **changes: Any) -> Result:
        settings = {"lm": llama, "survey": mini, "target": ireland, "space": space, "optimizer": DE(4), "budget": 12}
        return align(**{**settings, "progress": False, **changes}, checkpoint=folder)

    return call


@pytest.fixture(scope="module")
def done(llama: LM, mini: Survey, ireland: Target, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A finished run and its folder, not to be changed."""
    folder = tmp_path_factory.mktemp("done") / "run"
    space = PromptSpace.random(llama, 2)
    return folder, align(llama, mini, ireland, space, DE(4), 12, checkpoint=folder, progress=False)


@pytest.fixture
def finished(done: tuple[Path, Result], tmp_path: Path) -> Path:
    """A copy of the finished run's folder."""
    return Path(shutil.copytree(done[0], tmp_path / "finished"))


def exact(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in EXACT}


def strict(text: str | bytes) -> Any:
    """JSON without NaN and Infinity, which other readers refuse."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def log(folder: Path) -> list[dict[str, Any]]:
    return [strict(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# ---- the search ----------------------------------------------------------------------------------------------------


def test_the_loop_by_hand(
    llama: LM, mini: Survey, ireland: Target, space: PromptSpace, done: tuple[Path, Result]
) -> None:
    optimizer, result = DE(4), done[1]
    state = optimizer.init(space.sample(4, generator_for(0, START)))
    for generation in range(3):
        candidates, asked = optimizer.ask(state, generator_for(0, generation))
        softs = [space.centre + space.scale * vector.view(2, 32) for vector in candidates]
        scores = [slow_lm.scores(llama, mini, soft=soft) for soft in softs]
        losses = [sum(abs(s - t) for s, t in zip(row, ireland.scores.tolist(), strict=True)) for row in scores]
        masses = [mass for soft in softs for _, mass in slow_lm.answers(llama, mini, soft=soft)]
        state, info = optimizer.tell(asked, candidates, losses)
        line = result.trajectory[generation]
        assert (line["generation"], line["evaluations"], line["improved"]) == (
            generation + 1, 4 * (generation + 1), info.improved,
        )  # fmt: skip
        for name in ("best", "median", "worst", "spread"):
            assert line[name] == pytest.approx(getattr(info, name), abs=1e-2)
        best = scores[losses.index(min(losses))]  # of this generation
        assert [line["candidate_BOS"], line["candidate_CAL"]] == pytest.approx(best, abs=4e-3)
        assert line["option_mass"] == pytest.approx(sum(masses) / len(masses), abs=2e-5)
    assert torch.equal(result.prompt.embeddings, space.centre + space.scale * state.best_x.view(2, 32))
    assert result.loss == pytest.approx(state.best_loss, abs=1e-2)
    assert (result.evaluations, result.stop_reason, result.seed) == (12, "the budget is used up", 0)
    assert not result.interrupted


def test_both_losses_of_the_winner(llama: LM, mini: Survey, ireland: Target, done: tuple[Path, Result]) -> None:
    folder, result = done
    scores = slow_lm.scores(llama, mini, soft=result.prompt.embeddings)
    loss = sum(abs(s - t) for s, t in zip(scores, ireland.scores.tolist(), strict=True))
    assert result.plain_loss == pytest.approx(loss, abs=1e-2)
    assert result.loss == pytest.approx(result.plain_loss, abs=1e-2)
    assert result.loss == result.trajectory[-1]["best"]
    assert result.scores == pytest.approx(scores, abs=4e-3)
    assert result.unprompted_scores == pytest.approx(slow_lm.scores(llama, mini), abs=4e-3)
    record = strict((folder / "result.json").read_bytes())
    assert (record["loss"], record["plain_loss"]) == (result.loss, result.plain_loss)
    # The winner is asked once more, one question at a time, and not copied from the search.
    administered = administer(mini, llama, result.condition, plain=True)
    assert administered.scores().tolist() == result.scores.tolist()
    assert float(administered.option_mass.mean()) == result.option_mass


def test_the_plain_loss_is_scored_anew(
    go: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ask = LM.option_logprobs

    def biased(self: LM, plan: Any, prompts: Any = None, plain: bool = False, *more: Any) -> OptionLogprobs:
        answer = ask(self, plan, prompts, plain, *more)
        if plain:
            return answer
        first = torch.full_like(answer.logprobs, -math.inf)
        first[..., 0] = 0.0  # a fast path that is wrong: the first option throughout
        return replace(answer, logprobs=first)

    monkeypatch.setattr(LM, "option_logprobs", biased)
    result = go(tmp_path)
    # 50 + 35·1 − 25·1 + 20·3 = 120 and 50 − 15·3 + 40·0 = 5, against 130 and 61.5
    assert result.loss == pytest.approx(10 + 56.5)
    assert abs(result.plain_loss - result.loss) > 1
    assert result.record()["plain_loss"] == result.plain_loss
    assert result.prompt.provenance["loss_after"] == result.plain_loss


def test_the_best_never_worsens_and_more_budget_helps(go: Callable[..., Result]) -> None:
    result = go(budget=120, optimizer=DE(8))
    best = [line["best"] for line in result.trajectory]
    assert best == sorted(best, reverse=True) and best[-1] < best[0]
    assert result.loss == best[-1] and len(best) == 15


def test_only_whole_generations(go: Callable[..., Result]) -> None:
    result = go(budget=11)
    assert (result.evaluations, len(result.trajectory)) == (8, 2)


def test_the_seed_decides(go: Callable[..., Result]) -> None:
    one, same, other = go(seed=5), go(seed=5), go(seed=6)
    assert one.prompt == same.prompt and one.trajectory == same.trajectory
    assert not torch.equal(one.prompt.embeddings, other.prompt.embeddings)


@pytest.mark.parametrize("start", ["text", "prompt", "intrinsic", "front"])
def test_every_kind_of_space(start: str, llama: LM, go: Callable[..., Result], tmp_path: Path) -> None:
    text = "You are from Ireland."
    space = {
        "text": lambda: PromptSpace.from_text(llama, text),
        "prompt": lambda: PromptSpace.from_prompt(llama, SoftPrompt(llama.embed([5, 6]).clone(), "front")),
        "intrinsic": lambda: PromptSpace.random(llama, 3, intrinsic_dim=6),
        "front": lambda: PromptSpace.random(llama, 2, "front"),
    }[start]()
    result = go(tmp_path, space=space)
    assert result.prompt.placement == space.placement
    assert result.prompt.embeddings.shape == space.centre.shape
    assert go(tmp_path, space=space).prompt == result.prompt


def test_the_defaults(llama: LM, mini: Survey, ireland: Target) -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(align).parameters.items()}
    choice = choose(PromptSpace.random(llama).dim, 32)
    size = choice.optimizer.population_size
    assert (defaults["optimizer"], defaults["budget"]) == (AUTO, BUDGET) and 10 * size <= BUDGET
    result = align(llama, mini, ireland, budget=32, progress=False)
    config = result.prompt.provenance
    assert config["space"] == PromptSpace.random(llama).record()
    assert (config["space"]["num_virtual_tokens"], config["space"]["placement"]) == (8, "late")
    assert (config["norm"], config["weights"], config["orders"], config["seed"]) == ("L1", None, "both", 0)
    assert config["optimizer"] == json.loads(json.dumps(settings_of(choice.optimizer)))
    assert config["optimizer_choice"] == choice.why and "auto chose " in choice.why
    assert result.evaluations == len(result.trajectory) * size == 32


def test_an_optimiser_by_name(go: Callable[..., Result], space: PromptSpace, tmp_path: Path) -> None:
    by_name, by_object = (go(tmp_path / name, optimizer=o, budget=48) for name, o in (
        ("name", "shade"), ("object", named("shade", space.dim, 48)),
    ))  # fmt: skip
    assert by_name.prompt == by_object.prompt and exact(tmp_path / "name") == exact(tmp_path / "object")
    go(tmp_path / "screened", optimizer=Screen(SHADE(4), 8), budget=12)
    config = yaml.safe_load((tmp_path / "screened" / "run.yaml").read_text())
    inner = {"name": "SHADE", **{f.name: getattr(SHADE(4), f.name) for f in fields(SHADE)}}
    assert config["optimizer"] == json.loads(json.dumps({"name": "Screen", "optimizer": inner, "starts": 8}))
    assert config["optimizer_choice"] == ""
    with pytest.raises(ValueError, match="optimizer: expected one of auto, de, .*, got 'sgd'"):
        go(optimizer="sgd")


def test_norm_weights_and_orders_reach_the_loss(
    go: Callable[..., Result], llama: LM, mini: Survey, ireland: Target
) -> None:
    result = go(norm="L2", weights=[2.0, 0.25], orders="forward")
    scores = slow_lm.scores(llama, mini, orders="forward", soft=result.prompt.embeddings)
    squares = [w * (s - t) ** 2 for w, s, t in zip((2.0, 0.25), scores, ireland.scores.tolist(), strict=True)]
    assert result.plain_loss == pytest.approx(math.sqrt(sum(squares)), abs=1e-2)
    assert go(weights={"CAL": 0.25, "BOS": 2.0}).prompt.provenance["weights"] == [2.0, 0.25]


def test_progress_is_reported_after_every_generation(
    go: Callable[..., Result], capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Progress] = []
    result = go(progress=seen.append)
    assert [step.line for step in seen] == list(result.trajectory)
    assert [(step.evaluations, step.last, step.budget) for step in seen] == [
        (4, False, 12),
        (8, False, 12),
        (12, True, 12),
    ]
    assert all(a.seconds < b.seconds for a, b in pairwise(seen))
    assert capsys.readouterr() == ("", "")
    go(progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "12/12  best" in err and "left" in err


# ---- the record ----------------------------------------------------------------------------------------------------


def test_what_a_folder_holds(done: tuple[Path, Result], llama: LM, mini: Survey) -> None:
    folder, result = done
    assert {path.name for path in folder.iterdir()} == RECORD
    assert log(folder) == list(result.trajectory)
    assert SoftPrompt.load(folder / "prompt.safetensors") == result.prompt
    record = strict((folder / "result.json").read_bytes())
    assert record == json.loads(json.dumps(result.record()))
    assert record["scores"] == dict(zip(("BOS", "CAL"), result.scores.tolist(), strict=True))
    assert record["forward_tokens"] == sum(line["tokens"] for line in result.trajectory)
    assert (record["generations"], record["evaluations"], record["seed"]) == (3, 12, 0)
    config = yaml.safe_load((folder / "run.yaml").read_text())
    assert config["survey"] == {"id": "mini", "version": "1", "digest": mini.digest}
    assert (config["budget"], config["model"], config["dtype"]) == (12, llama.name, "float32")
    for word in ("transformers", "torch", "softde"):
        assert config["versions"][word]


def test_provenance_says_all_that_is_needed(
    done: tuple[Path, Result], llama: LM, mini: Survey, ireland: Target
) -> None:
    result = done[1]
    provenance = result.prompt.provenance
    config = yaml.safe_load((done[0] / "run.yaml").read_text())
    assert {k: provenance[k] for k in config} == config
    assert Target.from_dict(provenance["target"]) == ireland
    assert (provenance["loss_before"], provenance["loss_after"]) == (result.unprompted_loss, result.plain_loss)
    assert provenance["evaluations"] == 12
    found = verify(result.prompt, llama, mini)
    assert found.ok and found.max_error == 0


def test_two_runs_write_the_same_bytes(done: tuple[Path, Result], go: Callable[..., Result], tmp_path: Path) -> None:
    go(tmp_path / "again", progress=lambda step: time.sleep(0.01))  # no times in them
    assert exact(tmp_path / "again") == exact(done[0])
    assert go().prompt == done[1].prompt  # nor does it matter whether there is a folder


def test_numpys_numbers_are_numbers(go: Callable[..., Result], done: tuple[Path, Result], tmp_path: Path) -> None:
    settings = {"budget": np.int64(12), "seed": np.int64(0), "optimizer": DE(4, F=np.float64(0.5))}
    go(tmp_path, **settings)
    assert exact(tmp_path) == exact(done[0])
    go(tmp_path, weights=np.array([1.0, 2.0]), resume=False)
    assert yaml.safe_load((tmp_path / "run.yaml").read_text())["weights"] == [1.0, 2.0]


def test_it_is_shown_in_a_line(done: tuple[Path, Result]) -> None:
    found = done[1]
    assert repr(found) == (
        f"<Result for Ireland: loss {found.unprompted_loss:.4g} unprompted, {found.plain_loss:.4g} "
        "with the soft prompt; 12 candidates; stopped: the budget is used up>"
    )


# ---- going on ------------------------------------------------------------------------------------------------------


def stop_after(generations: int) -> Callable[[Progress], None]:
    def stop(step: Progress) -> None:
        if step.line["generation"] == generations:
            raise KeyboardInterrupt

    return stop


def test_ctrl_c_keeps_the_best_and_the_same_call_goes_on(
    go: Callable[..., Result], done: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls, score = [0], AlignmentLoss.__call__

    def interrupted(self: AlignmentLoss, x: torch.Tensor, plain: bool = False, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:  # while the third generation is being scored
            raise KeyboardInterrupt
        return score(self, x, plain, **more)

    with monkeypatch.context() as patch:
        patch.setattr(AlignmentLoss, "__call__", interrupted)
        first = go(tmp_path)
    assert first.interrupted and first.stop_reason == "interrupted"
    assert (first.evaluations, first.trajectory) == (8, done[1].trajectory[:2])
    assert first.loss == first.trajectory[-1]["best"]
    kept = SoftPrompt.load(tmp_path / "prompt.safetensors")
    assert kept == first.prompt and kept.provenance["evaluations"] == 8
    assert strict((tmp_path / "result.json").read_bytes())["stop_reason"] == "interrupted"

    second = go(tmp_path)
    assert not second.interrupted and second.wall_seconds > first.wall_seconds
    assert second.forward_tokens == done[1].forward_tokens
    assert exact(tmp_path) == exact(done[0])


@pytest.mark.parametrize("generations", [1, 2, 3])
def test_ctrl_c_between_generations(
    go: Callable[..., Result], done: tuple[Path, Result], tmp_path: Path, generations: int
) -> None:
    first = go(tmp_path, progress=stop_after(generations))
    assert first.interrupted and len(first.trajectory) == generations
    assert go().prompt == done[1].prompt
    seen: list[Progress] = []
    second = go(tmp_path, progress=seen.append)
    assert [step.evaluations for step in seen] == [4, 8][: 3 - generations]  # this session's only
    assert second.prompt == done[1].prompt and exact(tmp_path) == exact(done[0])


def test_signed_errors_reach_the_optimiser_and_a_search_that_uses_them_goes_on_the_same(
    go: Callable[..., Result], tmp_path: Path, ireland: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cma")
    told: list[Any] = []
    inform = GaussNewton.inform

    def seen(self: GaussNewton, state: Any, residuals: Any) -> Any:
        told.append(residuals)
        return inform(self, state, residuals)

    monkeypatch.setattr(GaussNewton, "inform", seen)
    settings: dict[str, Any] = {"optimizer": Subspace(GaussNewton(CMAES(8)), 12), "budget": 40}
    whole = go(tmp_path / "whole", **settings)
    assert len(told) == 4  # all but the start points'
    best = min(told[-1], key=lambda row: float(np.abs(row).sum()))
    line = log(tmp_path / "whole")[-1]
    shown = [line["candidate_BOS"], line["candidate_CAL"]]
    assert shown == pytest.approx((best + ireland.scores).tolist(), abs=1e-9)
    plain = go(optimizer=Subspace(CMAES(8), 12), budget=40)
    assert whole.prompt != plain.prompt and whole.trajectory[0]["best"] == plain.trajectory[0]["best"]
    assert go(tmp_path / "cut", progress=stop_after(3), **settings).interrupted
    assert go(tmp_path / "cut", **settings).prompt == whole.prompt
    assert exact(tmp_path / "cut") == exact(tmp_path / "whole")


def test_ctrl_c_without_a_folder(go: Callable[..., Result], done: tuple[Path, Result]) -> None:
    first = go(progress=stop_after(2))
    assert first.interrupted and first.trajectory == done[1].trajectory[:2]


def test_ctrl_c_before_anything_is_scored(
    go: Callable[..., Result], done: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AlignmentLoss, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]
    go(tmp_path)
    assert exact(tmp_path) == exact(done[0])


def test_a_finished_run_is_not_searched_again(
    go: Callable[..., Result], done: tuple[Path, Result], finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, score = [], AlignmentLoss.__call__

    def count(self: AlignmentLoss, x: torch.Tensor, plain: bool = False, **more: Any) -> Any:
        asked.append((len(x), plain))
        return score(self, x, plain, **more)

    monkeypatch.setattr(AlignmentLoss, "__call__", count)
    again = go(finished)
    assert asked == [(1, True)]
    assert again.prompt == done[1].prompt and again.trajectory == done[1].trajectory
    assert exact(finished) == exact(done[0])
    (finished / "prompt.safetensors").unlink()
    go(finished)
    assert exact(finished) == exact(done[0])


def test_starting_over(go: Callable[..., Result], done: tuple[Path, Result], finished: Path) -> None:
    other = go(finished, seed=1, resume=False)
    assert len(log(finished)) == 3 and other.prompt != done[1].prompt
    assert SoftPrompt.load(finished / "prompt.safetensors") == other.prompt
    seen: list[Progress] = []
    go(finished, resume=False, progress=seen.append)
    assert len(seen) == 3 and exact(finished) == exact(done[0])


def test_a_smaller_group_size_is_kept_when_a_run_goes_on(
    go: Callable[..., Result], done: tuple[Path, Result], llama_folder: Path, tmp_path: Path
) -> None:
    def model(group_size: int) -> LM:
        return LM.from_pretrained(llama_folder, group_size=group_size)

    lm = model(4)

    def halve(step: Progress) -> None:  # as running out of memory does
        lm.engine.group_size = 2
        if step.line["generation"] == 2:
            raise KeyboardInterrupt

    first = go(tmp_path, lm=lm, progress=halve)
    assert first.prompt.provenance["group_size"] == 2
    second = go(tmp_path, lm=model(3))
    assert [line["group_size"] for line in log(tmp_path)] == [4, 2, 2]
    assert yaml.safe_load((tmp_path / "run.yaml").read_text())["group_size"] == 4
    assert torch.equal(second.prompt.embeddings, done[1].prompt.embeddings)  # in float32
    assert second.prompt.provenance["group_size"] == 2


def test_candidates_are_bounded_by_their_parents(
    go: Callable[..., Result], done: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds: list[Any] = []
    losses: list[Any] = []
    score = AlignmentLoss.__call__

    def watch(self: AlignmentLoss, x: torch.Tensor, plain: bool = False, **more: Any) -> Any:
        if not plain:
            bounds.append(more["bound"])
        found = score(self, x, plain)
        losses.append(found.losses)
        return found

    monkeypatch.setattr(AlignmentLoss, "__call__", watch)
    go()
    assert bounds[0].dtype == torch.float64 and bounds[0].tolist() == [math.inf] * 4
    assert bounds[1].tolist() == losses[0].tolist()
    assert bounds[2].tolist() == np.minimum(losses[0], losses[1]).tolist()
    bounds.clear()
    assert go(early_rejection=False).prompt == done[1].prompt and bounds == [None] * 3


def test_how_far_beyond_its_bound_a_candidate_is_changes_nothing(
    go: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"optimizer": DE(6, strategy="currenttopbest1bin"), "budget": 60}
    whole, dropped, score = go(**settings, early_rejection=False), [0], AlignmentLoss.__call__

    def stop_early(self: AlignmentLoss, x: torch.Tensor, plain: bool = False, **more: Any) -> Any:
        found = score(self, x, plain)
        if plain:
            return found
        beyond = found.losses > more["bound"].numpy()
        dropped[0] += int(beyond.sum())
        scores = np.where(beyond[:, None], math.nan, found.scores)
        return found._replace(losses=np.where(beyond, more["bound"].numpy() + 1e-9, found.losses), scores=scores)

    monkeypatch.setattr(AlignmentLoss, "__call__", stop_early)
    early = go(**settings)
    assert dropped[0] > 10 and early.prompt == whole.prompt and early.loss == whole.loss
    for name in ("generation", "evaluations", "best", "median", "worst", "spread", "improved", "nan_count"):
        assert [step[name] for step in early.trajectory] == [step[name] for step in whole.trajectory], name


def test_a_line_describes_the_best_that_was_asked_everything(llama: LM, mini: Survey, ireland: Target) -> None:
    target = replace(ireland, scores=np.array([3.0, 3.0]))
    loss = AlignmentLoss(llama, mini, target, PromptSpace.random(llama, 2))
    info = Info(1, 3, 5.0, 6.0, 7.0, 1, 0, 0.5, (9.0, 6.0, 5.0))
    nan = math.nan
    scores = np.array([[1.0, 2.0], [nan, 3.0], [4.0, 5.0]])

    def described(losses: list[float], scores: Any = scores) -> list[Any]:
        values = {"losses": np.array(losses), "scores": scores, "option_mass": np.array([0.5, nan, 0.7]), "tokens": 9}
        evaluation = Evaluation(**{name: values.get(name, np.zeros(3)) for name in Evaluation._fields})
        found = line(info, evaluation, loss, 4)
        assert (found["tokens"], found["group_size"], found["option_mass"]) == (9, 4, pytest.approx(0.6))
        if scores[0, 0] == 1.0:  # |1 - 3|, |4 - 3| and |2 - 3|, |3 - 3|, |5 - 3|
            assert (found["error_BOS"], found["error_CAL"]) == (1.5, 1.0)
        else:
            assert found["error_BOS"] is found["error_CAL"] is None
        return [found["candidate_BOS"], found["candidate_CAL"]]

    assert described([9.0, 1.0, 8.0]) == [4.0, 5.0]  # the second was dropped before its first factor was asked
    assert described([9.0, 1.0, nan]) == [1.0, 2.0]
    assert described([1.0, 1.0, 1.0], scores * nan) == [None, None]


def test_a_changed_configuration_is_refused(
    go: Callable[..., Result], finished: Path, llama: LM, mini: Survey, tmp_path: Path
) -> None:
    words = tuple(replace(item, text=item.text + " Really?") if item.id == "time" else item for item in mini.items)
    reworded = replace(mini, items=words)
    changes: dict[str, dict[str, Any]] = {
        "seed was 0, now 1": {"seed": 1},
        "budget was 12, now 8": {"budget": 8},
        "optimizer.population_size was 4, now 5": {"optimizer": DE(5)},
        "optimizer.F was 0.5, now [0.4, 0.9]": {"optimizer": DE(4, F=(0.4, 0.9))},
        "optimizer.strategy was 'rand1bin', now 'best1exp'": {"optimizer": DE(4, strategy="best1exp")},
        f"survey.digest was '{mini.digest}', now '{reworded.digest}'": {"survey": reworded},
        "target.region was 'Ireland', now 'Italy'; target.scores.BOS was 130.0, now 75.0": {
            "target": mini.target("Italy")
        },
        "target.constants.BOS was 50.0, now 0.0": {"target": mini.target("Ireland", constants=0)},
        "norm was 'L1', now 'L2'": {"norm": "L2"},
        "weights was None, now [1.0, 2.0]": {"weights": [1, 2]},
        "orders was 'both', now 'reversed'": {"orders": "reversed"},
        "space.num_virtual_tokens was 2, now 3": {"space": PromptSpace.random(llama, 3)},
        "space.placement was 'late', now 'front'": {"space": PromptSpace.random(llama, 2, "front")},
        "space.origin was 'random vocabulary rows', now 'text: boss'": {
            "space": PromptSpace.from_text(llama, "boss", 2)
        },
        "dtype was 'float32', now 'bfloat16'": {"lm": LM.from_pretrained(llama.name, dtype="bfloat16")},
        f"model was '{llama.name}', now '{tmp_path}/other'": {
            "lm": LM.from_pretrained(tiny_random.save(tmp_path / "other", num_hidden_layers=1))
        },
    }
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    for difference, change in changes.items():
        with pytest.raises(ValueError, match="holds a run with another configuration") as refusal:
            go(finished, **change)
        assert difference in str(refusal.value)
        assert str(finished) in str(refusal.value) and "resume=False" in str(refusal.value)
        assert before == {path.name: path.read_bytes() for path in finished.iterdir()}, difference


def test_a_damaged_folder_is_refused(go: Callable[..., Result], finished: Path, done: tuple[Path, Result]) -> None:
    whole = {path.name: path.read_bytes() for path in finished.iterdir()}
    for name, message in {
        "run.yaml": "run.yaml is damaged",
        "checkpoint.safetensors": "checkpoint.safetensors is damaged",
        "log.jsonl": "log.jsonl has 0 lines but the checkpoint 3 generations",
    }.items():
        (finished / name).write_bytes(b"{")
        with pytest.raises(ValueError, match=message):
            go(finished)
        (finished / name).write_bytes(whole[name])
    (finished / "prompt.safetensors").write_bytes(b"{")  # only ever written
    go(finished)
    assert exact(finished) == exact(done[0])


# ---- models that give no numbers -----------------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], list[int]]], None]:
    """`failing(rows)`: in its n-th population, the model gives no finite answer to the candidates rows(n)."""
    ask, count = LM.option_logprobs, [0]

    def install(rows: Callable[[int], list[int]]) -> None:
        def answer(self: LM, plan: Any, prompts: Any = None, plain: bool = False, *more: Any) -> OptionLogprobs:
            found = ask(self, plan, prompts, plain, *more)
            if plain or prompts is None:
                return found
            count[0] += 1
            chosen = rows(count[0])
            logprobs, mass = found.logprobs.clone(), found.option_mass.clone()
            logprobs[chosen], mass[chosen] = math.nan, math.nan
            return replace(found, logprobs=logprobs, option_mass=mass)

        monkeypatch.setattr(LM, "option_logprobs", answer)

    return install


def test_candidates_that_cannot_be_scored_are_counted_and_lose(
    go: Callable[..., Result], failing: Callable[..., None], tmp_path: Path
) -> None:
    failing(lambda generation: {1: [0, 2], 2: [0, 1, 2, 3]}.get(generation, []))
    result = go(tmp_path)
    lines = log(tmp_path)
    assert [line["nan_count"] for line in lines] == [2, 4, 0]
    assert all(line["best"] is not None for line in lines) and math.isfinite(result.loss)
    assert lines[0]["worst"] is None and lines[0]["option_mass"] is not None
    assert lines[1]["option_mass"] is None and lines[1]["candidate_BOS"] is None
    assert lines[1]["best"] == lines[0]["best"]
    assert result.trajectory == tuple(lines)
    strict((tmp_path / "result.json").read_bytes())


def test_unscored_candidates_survive_a_stop(
    go: Callable[..., Result], failing: Callable[..., None], tmp_path: Path
) -> None:
    failing(lambda generation: [1, 3] if generation in (1, 4) else [])  # the first generation of both runs
    whole = go(tmp_path / "whole")
    assert go(tmp_path / "cut", progress=stop_after(1)).interrupted
    assert go(tmp_path / "cut").prompt == whole.prompt
    assert exact(tmp_path / "cut") == exact(tmp_path / "whole")


def test_a_first_generation_without_any_score(
    go: Callable[..., Result], failing: Callable[..., None], tmp_path: Path
) -> None:
    failing(lambda generation: [0, 1, 2, 3])
    for _ in range(2):  # the second time from the checkpoint
        with pytest.raises(
            ValueError, match="no candidate of the first generation could be scored: every loss was NaN"
        ):
            go(tmp_path)
    assert [line["nan_count"] for line in log(tmp_path)] == [4]
    assert not (tmp_path / "prompt.safetensors").exists()
    with pytest.raises(ValueError, match="load the model in another dtype .* or search from a smaller start_spread"):
        go()


def test_an_unprompted_model_without_numbers_costs_no_prompt(
    go: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ask = LM.option_logprobs

    def answer(self: LM, plan: Any, prompts: Any = None, plain: bool = False, *more: Any) -> OptionLogprobs:
        found = ask(self, plan, prompts, plain, *more)
        return found if prompts is not None else replace(found, logprobs=found.logprobs * math.nan)

    monkeypatch.setattr(LM, "option_logprobs", answer)
    result = go(tmp_path)
    assert math.isnan(result.unprompted_loss)
    assert SoftPrompt.load(tmp_path / "prompt.safetensors").provenance["loss_before"] is None
    record = strict((tmp_path / "result.json").read_bytes())
    assert record["unprompted_loss"] is None and record["unprompted_scores"] == {"BOS": None, "CAL": None}

    from softde.report import summary

    assert summary(record).startswith("loss n/a unprompted, ")


# ---- bad input -----------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_before_a_folder_is_made(go: Callable[..., Result], mini: Survey, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    many = Item("many", "Which?", options(f"about {i}" for i in range(1, 12)))
    cases: dict[str, dict[str, Any]] = {
        "must be at least the population size, which is 4, but it is 3": {"budget": 3},
        "target: expected the factors of survey": {
            "survey": replace(mini, factor_models=mini.factor_models[:1], published=())
        },
        "space: expected the model's hidden size 32, got 8": {"space": PromptSpace(torch.zeros(2, 8), 1.0)},
        "start points within the bounds": {"optimizer": DE(4, bounds=(-1e-9, 1e-9))},
        "norm: expected": {"norm": "L3"},
        "weights: expected 2 values": {"weights": [1.0]},
        "orders: expected one of": {"orders": "sideways"},
        "labels must be single and distinct tokens": {"survey": replace(mini, items=(*mini.items, many))},
    }
    for message, change in cases.items():
        with pytest.raises(ValueError, match=message):
            go(folder, **change)
        assert not folder.exists(), message


def test_a_folder_that_cannot_be_written(go: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot write to folder .*file .*: choose another one"):
        go(tmp_path / "file")


def test_the_name_is_the_verb() -> None:
    assert callable(align) and sys.modules["softde.align"].align is align


@pytest.mark.parametrize("strategy", ["rand1bin", "currenttopbest1bin"])
def test_with_early_rejection_the_search_is_the_same_bit_by_bit(strategy: str) -> None:
    """Twelve generations of the embedded model and the whole survey, both ways."""
    lm, survey = LM.from_pretrained("tiny"), load_survey("vsm13")
    target, space = survey.target("Saudi Arabia", edition="2023"), PromptSpace.random(lm, 4)
    settings = {"optimizer": DE(8, strategy), "budget": 96, "orders": "forward", "progress": False}
    some, whole = (
        align(lm, survey, target, space, early_rejection=early, **settings)  # type: ignore[arg-type]
        for early in (True, False)
    )
    assert torch.equal(some.prompt.embeddings, whole.prompt.embeddings) and some.loss == whole.loss
    same = ("generation", "best", "median", "worst", "spread", "improved", "nan_count")
    logs = [[[step[k] for k in same] for step in result.trajectory] for result in (some, whole)]
    assert logs[0] == logs[1]
    assert some.forward_tokens < 0.95 * whole.forward_tokens


# ---- the start -----------------------------------------------------------------------------------------------------


@pytest.fixture
def brittle(monkeypatch: pytest.MonkeyPatch, llama: LM) -> Callable[[float], None]:
    """`brittle(limit)`: the model breaks under prompts further than that from the vocabulary's mean."""
    ask = LM.option_logprobs

    def install(limit: float) -> None:
        def answer(self: LM, plan: Any, prompts: Any = None, plain: bool = False, *more: Any) -> OptionLogprobs:
            found = ask(self, plan, prompts, plain, *more)
            if prompts is None:
                return found
            far = (prompts - llama.embedding_stats[0]).square().mean(dim=(1, 2)).sqrt() > limit * llama.embedding_stats[
                1
            ]
            return replace(found, option_mass=found.option_mass * torch.where(far, 1e-3, 1.0)[:, None])

        monkeypatch.setattr(LM, "option_logprobs", answer)

    return install


def test_the_start_is_verified_and_recorded(
    done: tuple[Path, Result], llama: LM, mini: Survey, capsys: pytest.CaptureFixture[str], go: Callable[..., Result]
) -> None:
    folder, result = done
    first, *rest = log(folder)
    assert result.start == {
        "start_spread": 1.0,
        "start_option_mass": [first["option_mass"]],
        "start_evaluations": 4,
        "start_tokens": first["tokens"],
        "unprompted_option_mass": pytest.approx(float(administer(mini, llama).option_mass.mean()), abs=1e-6),
    }
    assert all("start_spread" not in line for line in rest)
    assert strict((folder / "result.json").read_bytes())["start"] == result.start
    seen: list[Progress] = []
    go(progress=seen.append)
    assert [len(step.notes) for step in seen] == [1, 0, 0]
    go(progress=True)
    assert capsys.readouterr().err.splitlines()[0] == seen[0].notes[0]
    space = PromptSpace.random(llama, 2)
    assert seen[0].notes == checked_start(AlignmentLoss(llama, mini, mini.target("Ireland"), space), 4, 0).messages


def test_a_start_that_breaks_the_model_is_shrunk(
    go: Callable[..., Result], brittle: Callable[[float], None], space: PromptSpace, tmp_path: Path
) -> None:
    far = replace(space, start_spread=8.0)
    usual = go(tmp_path / "usual", space=far)
    brittle(2.5)
    seen: list[Progress] = []
    result = go(tmp_path / "run", space=far, progress=seen.append)
    assert result.start is not None
    masses = result.start["start_option_mass"]
    assert len(masses) == result.start["start_evaluations"] / 4 > 1 and masses[0] < masses[-1]
    assert result.start["start_spread"] == 8.0 / 2 ** (len(masses) - 1)
    assert any("start_spread lowered from 8 to" in note for note in seen[0].notes)
    assert result.evaluations == 12  # those of the draws that broke it are in the record only
    first = result.trajectory[0]
    assert first["tokens"] == result.start["start_tokens"] == len(masses) * usual.trajectory[0]["tokens"]
    assert result.forward_tokens == sum(line["tokens"] for line in result.trajectory)

    nearer = replace(space, start_spread=result.start["start_spread"])
    assert torch.equal(go(space=nearer).prompt.embeddings, result.prompt.embeddings)
    assert go(tmp_path / "cut", space=far, progress=stop_after(1)).interrupted
    go(tmp_path / "cut", space=far)
    assert exact(tmp_path / "cut") == exact(tmp_path / "run")
    both = go(space=far, seeds=[0, 1], progress=seen.append)
    assert {note[:8] for note in seen[-3].notes} == {"seed 0: ", "seed 1: "}
    assert torch.equal(both[0].prompt.embeddings, result.prompt.embeddings) and both[0].start == result.start
