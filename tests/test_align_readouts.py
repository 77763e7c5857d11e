"""Searches over every read-out: losses against readings put together by hand, draws, and what is recorded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from softde import Argmax, Expected, Generated, Sampled, SequenceLogprob, align
from softde.administer import administer
from softde.align import FRESH, READINGS, Result, kind_of_readout
from softde.condition import Condition
from softde.design import Design
from softde.lm import LM, Plan
from softde.objective import AlignmentLoss
from softde.optim import DE, generator_for
from softde.prompt import SoftPrompt
from softde.readouts import Reading, Readout
from softde.space import PromptSpace
from softde.surveys import Survey, Target
from tests.reference import slow_lm

READOUTS: tuple[Readout, ...] = (
    Argmax(), Sampled(3, seed=7), SequenceLogprob(),
    Generated(max_new_tokens=2, parser=lambda text, item: len(text) % 2),
)  # fmt: skip


@pytest.fixture
def space(llama: LM) -> PromptSpace:
    return PromptSpace.random(llama, 2)


@pytest.fixture
def scorer(llama: LM, mini: Survey, ireland: Target, space: PromptSpace) -> Callable[..., AlignmentLoss]:
    return lambda readout, **more: AlignmentLoss(llama, mini, ireland, space, readout=readout, **more)


@pytest.mark.parametrize(
    ("readout", "fixed", "fresh"),
    [
        (None, "smooth", "smooth"),
        (Expected(), "smooth", "smooth"),
        (SequenceLogprob(), "smooth", "smooth"),
        (Argmax(), "coarse", "coarse"),
        (Sampled(3), "coarse", "noisy"),
        (Design(50), "coarse", "noisy"),
        (Design(50, answers="expected"), "smooth", "noisy"),  # expected values, of other people each time
        (Design(), "smooth", "smooth"),
        (Design(None, answers="sampled"), "smooth", "smooth"),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_what_kind_of_loss_a_readout_makes(readout: Readout | None, fixed: str, fresh: str) -> None:
    assert kind_of_readout(readout, "fixed") == fixed and kind_of_readout(readout, "fresh") == fresh


# ---- the loss ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("readout", READOUTS, ids=lambda r: type(r).__name__)
def test_a_loss_is_the_distance_of_what_administer_scores(
    scorer: Callable[..., AlignmentLoss], llama: LM, mini: Survey, ireland: Target, readout: Readout
) -> None:
    loss = scorer(readout)
    x = loss.space.sample(4, generator_for(0, 0))
    found = loss(x)
    for row, soft in enumerate(loss.space.decode(x)):
        asked = administer(mini, llama, Condition(prompt=SoftPrompt(soft)), readout=readout)
        assert found.scores[row].tolist() == asked.scores().tolist()
        errors = [abs(s - t) for s, t in zip(asked.scores().tolist(), ireland.scores.tolist(), strict=True)]
        assert found.losses[row] == pytest.approx(sum(errors), rel=1e-12)
        assert found.option_mass[row] == pytest.approx(float(asked.option_mass.mean()), abs=1e-6)
    assert found.tokens == found.spent.sum() > 0 and found.spent.tolist() == [found.tokens / 4] * 4
    again = loss(x, bound=torch.zeros(4), order=["CAL", "BOS"])  # read-outs ask everything
    assert again.losses.tolist() == found.losses.tolist() and again.tokens == found.tokens


def test_argmax_by_plain_forwards(scorer: Callable[..., AlignmentLoss], llama: LM, mini: Survey) -> None:
    loss = scorer(Argmax(), orders="forward")
    x = loss.space.sample(3, generator_for(0, 0))
    for found in (loss(x), loss(x, plain=True)):
        for row, soft in enumerate(loss.space.decode(x)):
            answers = [slow_lm.ask(llama.model, llama.tokenizer, i, mini.instruction, soft)[0] for i in mini.items]
            means = [i.options[int(np.argmax(p))].value for i, p in zip(mini.items, answers, strict=True)]
            # 50 + 35·boss − 25·time + 20·nerves and 50 − 15·nerves + 40·proud
            boss, time, nerves, proud = means
            assert found.scores[row].tolist() == pytest.approx(
                [50 + 35 * boss - 25 * time + 20 * nerves, 50 - 15 * nerves + 40 * proud]
            )


def test_expected_is_the_engines_own_path(scorer: Callable[..., AlignmentLoss]) -> None:
    plain, named = scorer(None), scorer(Expected())
    x = plain.space.sample(5, generator_for(0, 0))
    bound = torch.tensor([0.0, 50.0, 1e9, math.inf, 0.0], dtype=torch.float64)
    one, other = plain(x, bound=bound), named(x, bound=bound)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))
    assert plain.exact and named.exact and not scorer(Argmax()).exact


@pytest.mark.parametrize("readout", READOUTS, ids=lambda r: type(r).__name__)
def test_a_candidate_is_read_the_same_in_any_company(scorer: Callable[..., AlignmentLoss], readout: Readout) -> None:
    loss = scorer(readout)
    x = loss.space.sample(5, generator_for(1, 0))
    together = loss(x, draw=3).losses
    assert [float(loss(row[None], draw=3).losses[0]) for row in x] == together.tolist()


@dataclass(frozen=True)
class Refuses:
    """Expected values, but some candidates give no valid answer to some items."""

    rows: tuple[int, ...] = ()

    def read(self, lm: LM, plan: Plan, survey: Survey, prompts: Any, plain: bool = False) -> Reading:
        found = Expected().read(lm, plan, survey, prompts, plain)
        probabilities = found.probabilities.copy()
        probabilities[list(self.rows), 3] = math.nan
        return replace(found, probabilities=probabilities)


def test_no_valid_answer_to_an_item_is_nan(scorer: Callable[..., AlignmentLoss]) -> None:
    whole, some = scorer(Refuses()), scorer(Refuses((1,)))
    x = whole.space.sample(3, generator_for(0, 0))
    assert np.isnan(some(x).losses).tolist() == [False, True, False]
    assert some(x).scores[1, 0] == whole(x).scores[1, 0] and np.isnan(some(x).scores[1, 1])  # item 4 is CAL's alone
    assert some(x).losses[[0, 2]].tolist() == whole(x).losses[[0, 2]].tolist()


def test_draws_are_common_within_and_fresh_across_generations(scorer: Callable[..., AlignmentLoss]) -> None:
    fixed, fresh = (scorer(Sampled(2, seed=5), draws=draws) for draws in ("fixed", "fresh"))
    assert [fixed.draw_of(g) for g in (0, 1, 9)] == [0, 0, 0] and [fresh.draw_of(g) for g in (0, 1, 9)] == [0, 1, 9]
    x = fresh.space.sample(1, generator_for(0, 0)).expand(3, -1)
    runs = [fresh(x, draw=draw).scores for draw in range(8)]
    assert all((scores == scores[0]).all() for scores in runs)  # the same candidate thrice
    assert len({tuple(scores[0]) for scores in runs}) > 1
    assert runs[4].tolist() == scorer(Sampled(2, seed=9))(x).scores.tolist()  # seed 5 + draw 4
    for readout in (None, Argmax(), SequenceLogprob(), Generated()):
        loss = scorer(readout, draws="fresh")
        assert not loss.noisy and loss.draw_of(3) == 0
    assert scorer(Generated(2, 3, 1.0)).noisy and scorer(Sampled()).noisy


def test_bad_readouts_are_refused(scorer: Callable[..., AlignmentLoss]) -> None:
    with pytest.raises(ValueError, match=r"readout: expected a read-out, got the class Sampled; write Sampled\(\)"):
        scorer(Sampled)
    with pytest.raises(ValueError, match="draws: expected one of fixed, fresh, got 'new'"):
        scorer(Sampled(), draws="new")


# ---- the search ----------------------------------------------------------------------------------------------------


@pytest.fixture
def go(llama: LM, mini: Survey, ireland: Target, space: PromptSpace) -> Callable[..., Any]:
    """`go(folder, readout=Argmax())`: three generations of four candidates."""

    def call(folder: Path | None = None, **changes: Any) -> Any:
        settings = {"lm": llama, "survey": mini, "target": ireland, "space": space, "optimizer": DE(4), "budget": 12}
        return align(**{**settings, "progress": False, **changes}, checkpoint=folder)

    return call


@pytest.mark.parametrize("readout", READOUTS, ids=lambda r: type(r).__name__)
def test_a_search_minimises_what_the_readout_reads(
    go: Callable[..., Result], scorer: Callable[..., AlignmentLoss], readout: Readout, tmp_path: Path
) -> None:
    result = go(tmp_path, readout=readout, draws="fresh")
    loss, optimizer = scorer(readout, draws="fresh"), DE(4)
    state = optimizer.init(loss.space.sample(4, generator_for(0, -1)))
    for generation in range(3):
        candidates, asked = optimizer.ask(state, generator_for(0, generation))
        found = loss(candidates, draw=generation)
        state, info = optimizer.tell(asked, candidates, found.losses)
        assert result.trajectory[generation]["best"] == info.best
        assert result.trajectory[generation]["tokens"] == found.tokens
    assert result.loss == state.best_loss
    assert torch.equal(result.prompt.embeddings, loss.space.decode(state.best_x[None])[0])
    soft = result.prompt.embeddings
    assert result.expected_loss == pytest.approx(slow_expected(scorer, soft), abs=1e-2)
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["expected_loss"] == result.expected_loss and record["plain_loss"] == result.plain_loss
    config = yaml.safe_load((tmp_path / "run.yaml").read_text())
    assert config["readout"]["name"] == type(readout).__name__ and config["draws"] == "fresh"
    assert result.prompt.provenance["readout"] == config["readout"]
    assert go(tmp_path, readout=readout, draws="fresh").prompt == result.prompt


def slow_expected(scorer: Callable[..., AlignmentLoss], soft: torch.Tensor) -> float:
    loss = scorer(None)
    scores = slow_lm.scores(loss.lm, loss.survey, soft=soft)
    return sum(abs(s - t) for s, t in zip(scores, loss.target.scores.tolist(), strict=True))


def test_a_search_without_draws_has_no_fresh_ones(go: Callable[..., Result]) -> None:
    result = go(readout=Argmax())
    assert result.rescored is None and result.plain_loss == result.loss
    exact = go()
    assert exact.rescored is None and exact.expected_loss is None
    assert exact.prompt.provenance["readout"] == {"name": "Expected"}


def test_draws_go_on_where_they_stopped(go: Callable[..., Result], tmp_path: Path) -> None:
    settings = {"readout": Sampled(2), "draws": "fresh"}
    go(tmp_path / "cut", budget=8, **settings)
    assert go(tmp_path / "cut", **settings).prompt == go(tmp_path / "whole", **settings).prompt
    for name in ("run.yaml", "log.jsonl", "prompt.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_another_readout_is_another_run(go: Callable[..., Result], tmp_path: Path) -> None:
    go(tmp_path, readout=Sampled(2))
    for change, difference in (
        ({"readout": Sampled(3)}, "readout.n was 2, now 3"),
        ({"readout": Argmax()}, "readout.name was 'Sampled', now 'Argmax'"),
        ({"readout": Sampled(2), "draws": "fresh"}, "draws was 'fixed', now 'fresh'"),
    ):
        with pytest.raises(ValueError, match=difference):
            go(tmp_path, **change)


def test_a_parser_is_recorded_by_its_name(go: Callable[..., Result], tmp_path: Path) -> None:
    result = go(tmp_path, readout=READOUTS[-1], budget=4)
    assert result.prompt.provenance["readout"]["parser"] == f"{__name__}.<lambda>"


def test_what_no_candidate_answers_ends_the_search(go: Callable[..., Result]) -> None:
    message = (
        "no candidate .* could be scored: every loss was NaN .*; or Generated read no valid answer to an item, see"
    )
    with pytest.raises(ValueError, match=message):
        go(readout=Generated(parser=lambda text, item: None))


# ---- the winner under random draws ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recommending(DE):
    """DE whose own choice is the mean of its population."""

    def recommend(self, state: Any) -> torch.Tensor:
        return torch.as_tensor(state.population.mean(dim=0))


def fresh_mean(loss: AlignmentLoss, x: torch.Tensor) -> float:
    losses = []
    for number in range(READINGS):
        readout: Any = loss.readout
        losses.append(
            float(replace(loss, readout=replace(readout, seed=readout.seed + FRESH + number))(x[None]).losses[0])
        )
    return sum(losses) / READINGS


def test_the_winner_of_a_noisy_search_is_read_anew(
    go: Callable[..., Result], scorer: Callable[..., AlignmentLoss], tmp_path: Path
) -> None:
    readout = Sampled(1, seed=2)
    result = go(tmp_path, readout=readout)
    loss = scorer(readout)
    x = (result.prompt.embeddings - loss.space.centre).flatten()[None] / loss.space.scale
    assert result.rescored is not None
    again = scorer(replace(readout, seed=2 + FRESH))(x, plain=True)  # draws that the search never saw
    assert result.plain_loss == pytest.approx(float(again.losses[0]))
    assert result.rescored["taken"] == "best" and result.rescored["evaluations"] == READINGS
    assert result.rescored["best_loss"] == pytest.approx(fresh_mean(loss, x[0]))
    assert json.loads((tmp_path / "result.json").read_text())["rescored"] == result.rescored
    assert result.evaluations == 12  # the search's own


def test_the_optimisers_own_choice_is_taken_if_it_is_better(
    go: Callable[..., Result], scorer: Callable[..., AlignmentLoss]
) -> None:
    taken = set()
    for seed in range(6):
        result = go(readout=Sampled(1), optimizer=Recommending(4), seed=seed)
        assert result.rescored is not None and result.rescored["evaluations"] == 2 * READINGS
        means = {name: result.rescored[f"{name}_loss"] for name in ("best", "recommended")}
        assert result.rescored["taken"] == min(means, key=means.__getitem__)
        loss = scorer(Sampled(1))
        x = (result.prompt.embeddings - loss.space.centre).flatten() / loss.space.scale
        assert fresh_mean(loss, x) == pytest.approx(min(means.values()))
        taken.add(result.rescored["taken"])
        assert result.rescored["tokens"] > 0
    assert taken == {"best", "recommended"}
