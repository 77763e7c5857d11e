"""The contract that every optimiser keeps. A new one joins by a line in OPTIMIZERS."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from softde.optim import DE, generations, generator_for, minimize, state_from_tensors, state_to_tensors, step
from tests.optim.functions import sphere

N, DIM, GENERATIONS = 12, 7, 9
OPTIMIZERS = {
    "de": DE(population_size=N),
    "de-exp": DE(population_size=N, strategy="best1exp", CR=0.5),
    "de-pbest": DE(population_size=N, strategy="currenttopbest1bin", F=(0.4, 0.9), p=0.2),
    "de-bounds": DE(population_size=N, strategy="rand2bin", bounds=(-3.0, 3.0), dither="generation"),
    "de-clip": DE(population_size=N, strategy="best2exp", bounds=((-3.0,) * DIM, 3.0), bounds_handling="clip"),
}
every = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


def start(dtype=torch.float32):
    return torch.rand(N, DIM, generator=generator_for(0, 10**6), dtype=dtype) * 6 - 3


def equal(a, b):
    """Two states, bit for bit."""
    (tensors, numbers), (others, other_numbers) = state_to_tensors(a), state_to_tensors(b)
    same = all(torch.equal(tensors[k].nan_to_num(-7.0), others[k].nan_to_num(-7.0)) for k in tensors)
    return numbers == other_numbers and tensors.keys() == others.keys() and same


def run(optimizer, fn=sphere, seed=3, state=None, budget=N * GENERATIONS):
    return list(generations(optimizer, state or optimizer.init(start()), fn, budget, seed))


def copy_of(optimizer, state):
    tensors, numbers = state_to_tensors(state)
    return state_from_tensors(optimizer, {k: v.clone() for k, v in tensors.items()}, dict(numbers))


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_types_and_counts(optimizer, dtype):
    state = optimizer.init(start(dtype))
    for generation in range(1, 4):
        candidates, state = optimizer.ask(state, generator_for(0, state.generation))
        assert candidates.shape == (N, DIM) and candidates.dtype == dtype
        state, info = optimizer.tell(state, candidates, sphere(candidates))
        assert state.generation == info.generation == generation
        assert state.evaluations == info.evaluations == N * generation
        assert state.best_x.shape == (DIM,) and state.best_x.dtype == dtype
        assert state.best_loss == info.best == pytest.approx(float(sphere(state.best_x[None])), rel=1e-5)
        assert info.best <= info.median <= info.worst and info.spread > 0 and 0 <= info.improved <= N


@every
def test_the_first_ask_returns_the_start_points(optimizer):
    points = start()
    candidates, _ = optimizer.ask(optimizer.init(points), generator_for(0, 0))
    assert torch.equal(candidates, points)


@every
def test_nothing_given_is_changed(optimizer):
    points = start()
    state = optimizer.init(points)
    points += 1.0  # the state keeps a copy
    assert torch.equal(optimizer.ask(state, generator_for(0, 0))[0], start())
    for _ in range(3):
        before = copy_of(optimizer, state)
        candidates, asked = optimizer.ask(state, generator_for(1, state.generation))
        assert equal(state, before)
        waiting, told, losses = copy_of(optimizer, asked), candidates.clone(), sphere(candidates).double()
        state, _ = optimizer.tell(asked, candidates, losses)
        assert equal(asked, waiting) and torch.equal(candidates, told)
        assert torch.equal(losses, sphere(told).double())
        kept = copy_of(optimizer, state)
        candidates += 1.0
        losses += 1.0
        assert equal(state, kept) and equal(asked, waiting)


@every
def test_same_seed_same_run_and_other_seed_other_run(optimizer):
    first, second, other = run(optimizer), run(optimizer), run(optimizer, seed=4)
    assert equal(first[-1].state, second[-1].state) and [s.info for s in first] == [s.info for s in second]
    assert torch.equal(first[0].candidates, other[0].candidates)
    assert not torch.equal(first[1].candidates, other[1].candidates)


@every
@pytest.mark.parametrize("half_way", [False, True], ids=["between generations", "between ask and tell"])
def test_saved_and_loaded_goes_on_the_same(optimizer, half_way, tmp_path):
    whole = run(optimizer)
    state = whole[3].state
    candidates, asked = optimizer.ask(state, generator_for(3, state.generation))
    tensors, numbers = state_to_tensors(asked if half_way else state)
    save_file(tensors, tmp_path / "state.safetensors")
    text = json.dumps(numbers, allow_nan=False)
    loaded = state_from_tensors(optimizer, load_file(tmp_path / "state.safetensors"), json.loads(text))
    if half_way:
        loaded, info = optimizer.tell(loaded, candidates, sphere(candidates))
        assert info == whole[4].info
    rest = run(optimizer, state=loaded)
    assert equal(rest[-1].state, whole[-1].state)
    assert [s.info for s in rest] == [s.info for s in whole[-len(rest) :]]


@every
def test_a_fresh_state_is_strict_json(optimizer):
    state = optimizer.init(start())
    tensors, numbers = state_to_tensors(state)
    assert equal(state_from_tensors(optimizer, tensors, json.loads(json.dumps(numbers, allow_nan=False))), state)


@every
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_unscored_candidates_survive_in_the_record_and_never_win(optimizer, bad):
    def fn(x):
        losses = sphere(x)
        losses[::3] = bad
        return losses

    best = math.inf
    for result in run(optimizer, fn):
        told = torch.tensor(result.info.losses)
        assert result.info.nan_count == (4 if math.isnan(bad) else 0)
        assert [str(loss) for loss in told[::3].tolist()] == [str(bad)] * 4  # str, since NaN differs from itself
        assert math.isfinite(result.info.best) and result.info.best <= best
        assert not math.isnan(result.info.median) and not math.isnan(result.info.worst)
        best = result.info.best
    assert torch.isfinite(result.candidates).all() and torch.isfinite(result.state.best_x).all()


@every
def test_a_later_generation_that_cannot_be_scored_changes_no_best(optimizer):
    calls = []

    def fn(x):
        calls.append(1)
        return sphere(x) if len(calls) < 3 else torch.full((N,), math.nan)

    results = run(optimizer, fn)
    assert len(results) == GENERATIONS and results[-1].info.nan_count == N and results[-1].info.improved == 0
    assert torch.equal(results[-1].state.best_x, results[1].state.best_x)
    assert results[-1].state.best_loss == results[1].state.best_loss < math.inf


@every
def test_best_never_worsens_and_gets_better(optimizer):
    best = [result.info.best for result in run(optimizer, budget=N * 60)]
    assert best == sorted(best, reverse=True) and best[-1] < 0.5 * best[0]
    assert min(min(r.info.losses) for r in run(optimizer)) == run(optimizer)[-1].state.best_loss


@every
def test_refuses_bad_input(optimizer):
    state = optimizer.init(start())
    candidates, asked = optimizer.ask(state, generator_for(0, 0))
    losses = sphere(candidates)
    with pytest.raises(ValueError, match="tell came before ask"):
        optimizer.tell(state, candidates, losses)
    with pytest.raises(ValueError, match="tell came before ask"):
        optimizer.tell(optimizer.tell(asked, candidates, losses)[0], candidates, losses)
    for wrong in (candidates[1:], candidates[:, 1:], candidates[0]):
        with pytest.raises(ValueError, match=r"of shape \(12, 7\), but got shape"):
            optimizer.tell(asked, wrong, losses)
    for wrong in (losses[1:], losses[:, None], losses.sum(), 3.0, [1.0], [[1.0]] * N):
        with pytest.raises(ValueError, match=r"one loss per candidate, shape \(12,\)"):
            optimizer.tell(asked, candidates, wrong)
    for wrong in (None, ["low"] * N, object()):
        with pytest.raises(ValueError, match="Expected losses as a tensor, array or list of numbers"):
            optimizer.tell(asked, candidates, wrong)
    for wrong in (start()[1:], torch.cat([start(), start()]), start()[0], start()[:, :0]):
        with pytest.raises(ValueError, match="population_size=12 rows, but got shape"):
            optimizer.init(wrong)
    for wrong in (start().bfloat16(), start().long()):
        with pytest.raises(ValueError, match="float32 or float64"):
            optimizer.init(wrong)
    with pytest.raises(ValueError, match="finite start points"):
        optimizer.init(start() / torch.zeros(DIM))
    with pytest.raises(ValueError, match="at least the population size, which is 12, but it is 11"):
        minimize(sphere, optimizer, start(), budget=11)
    tensors, numbers = state_to_tensors(state)
    del tensors["best_x"]
    with pytest.raises(ValueError, match="best_x is missing"):
        state_from_tensors(optimizer, tensors, numbers)


@every
def test_losses_may_be_a_tensor_an_array_or_a_list(optimizer):
    candidates, asked = optimizer.ask(optimizer.init(start()), generator_for(0, 0))
    losses = sphere(candidates).double()
    array = losses.numpy()
    array.setflags(write=False)
    states = [optimizer.tell(asked, candidates, told)[0] for told in (losses, array, losses.tolist())]
    assert equal(states[0], states[1]) and equal(states[0], states[2])


@every
def test_one_step_is_ask_score_tell(optimizer):
    state = optimizer.init(start())
    candidates, asked = optimizer.ask(state, generator_for(5, 0))
    by_hand, info = optimizer.tell(asked, candidates, sphere(candidates))
    result = step(optimizer, state, sphere, generator_for(5, 0))
    assert equal(result.state, by_hand) and result.info == info
    assert torch.equal(result.candidates, candidates) and torch.equal(result.losses, sphere(candidates).double())
