"""The contract that every optimiser keeps. A new one joins by a line in OPTIMIZERS; leaving it out fails a test."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Hashable
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

import softde.optim
from softde.optim import (
    CMAES,
    DE,
    JADE,
    JDE,
    JSO,
    LSHADE,
    PSO,
    SHADE,
    SPSA,
    Foreign,
    GaussNewton,
    OnePlusOneES,
    OpenAIES,
    Optimizer,
    RandomSearch,
    Screen,
    Subspace,
    TwoStage,
    bbt,
    generations,
    generator_for,
    minimize,
    state_from_tensors,
    state_to_tensors,
    step,
)
from softde.optim.base import Informed, State
from tests.optim.functions import sphere

pytest.importorskip("cma")

N, DIM, GENERATIONS = 12, 7, 9


def gaussian(points, losses, seed):
    """An optimiser as elsewhere: the mean of the better half, and a spread that shrinks."""
    random, mean, sigma = np.random.default_rng(seed), points[losses.argmin()], 1.0
    while True:
        asked = mean + sigma * random.standard_normal((N, len(mean)))
        losses = yield asked
        assert np.isfinite(losses).all()
        mean, sigma = asked[losses.argsort()[: N // 2]].mean(axis=0), 0.97 * sigma


@dataclasses.dataclass(frozen=True)
class Told(GaussNewton):
    """It is always informed: of the coordinates themselves."""

    def tell(self, state, candidates, losses):
        if isinstance(state, self.state_type) and state.asked and tuple(candidates.shape) == state.shape:
            state = self.inform(state, candidates)
        return super().tell(state, candidates, losses)


OPTIMIZERS = {  # that begin with N points and, where they name coordinates, of dim DIM
    "de": DE(population_size=N),
    "de-exp": DE(population_size=N, strategy="best1exp", CR=0.5),
    "de-pbest": DE(population_size=N, strategy="currenttopbest1bin", F=(0.4, 0.9), p=0.2),
    "de-bounds": DE(population_size=N, strategy="rand2bin", bounds=(-3.0, 3.0), dither="generation"),
    "de-clip": DE(population_size=N, strategy="best2exp", bounds=((-3.0,) * DIM, 3.0), bounds_handling="clip"),
    "de-unit": DE(N, unit=DIM, CR=0.5, F=(0.4, 0.9), jitter=0.2),
    "de-resample": DE(N, "rand1exp", bounds=(-3.0, 3.0), bounds_handling="resample"),
    "de-restart": DE(N, "currenttopbest1bin", F=(0.4, 0.9), restart=0.05, age=30),
    "de-restart-soon": DE(N, "best1bin", F=(0.4, 0.9), restart=0.8, age=2),  # within GENERATIONS
    "de-reevaluate": DE(N, "best1bin", F=(0.4, 0.9), reevaluate=1, margin=1e-6),
    "jade": JADE(N),
    "shade": SHADE(N),
    "shade-bounds": SHADE(N, bounds=(-3.0, 3.0)),
    "lshade": LSHADE(N, budget=N * 60),
    "lshade-soon": LSHADE(N, budget=N * 5, age=2),  # its smallest population within GENERATIONS
    "jso": JSO(N, budget=N * 60),
    "jde": JDE(N),
    "cma": CMAES(N),
    "cma-diagonal": CMAES(N, covariance="diagonal", adaptation="csa"),
    "cma-vkd": CMAES(N, covariance="vkd"),
    "cma-restarts": CMAES(N, restarts="ipop"),
    "subspace-cma": Subspace(CMAES(N), 4),
    "subspace-de": Subspace(DE(N), 4, kind="sparse"),
    "gauss-newton": GaussNewton(CMAES(N)),
    "gauss-newton-told": Told(CMAES(N)),
    "gauss-newton-shade": Told(SHADE(N)),
    "subspace-gauss-newton": Subspace(Told(CMAES(N)), 4),
    "bbt": dataclasses.replace(bbt(N, 4), starts=N),
    "screen": Screen(DE(6), starts=N),
    "two-stage": TwoStage(DE(N), CMAES(N), evaluations=N * 3),
    "two-stage-late": TwoStage(LSHADE(N, budget=N * 8), DE(6), evaluations=N * 6),
    "openai-es": OpenAIES(N),
    "openai-es-momentum": OpenAIES(N, sigma=0.5, lr=1.0, beta2=None),
    "spsa": SPSA(N),
    "1+1-es": OnePlusOneES(N),
    "1+4-es": OnePlusOneES(N, children=4, growth=1.5),
    "pso": PSO(N),
    "pso-global": PSO(N, neighbourhood="global", speed=0.0, bounds=(-3.0, 3.0)),
    "random": RandomSearch(N),
    "random-block": RandomSearch(N, block=1),
    "foreign": Foreign(gaussian, N),
}
FITS = {  # dimensions; any other optimiser takes all
    "de-clip": lambda dim: dim == DIM,  # a bound for each of DIM coordinates
    "de-unit": lambda dim: dim % DIM == 0,
    **dict.fromkeys(
        ("cma", "cma-diagonal", "cma-vkd", "cma-restarts", "two-stage", "gauss-newton", "gauss-newton-told"),
        lambda dim: dim >= 2,
    ),
    **dict.fromkeys(("subspace-cma", "subspace-de", "subspace-gauss-newton", "bbt"), lambda dim: dim >= 4),  # its own
}
every = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


def start(dtype=torch.float32, dim=DIM):
    return torch.rand(N, dim, generator=generator_for(0, 10**6), dtype=dtype) * 6 - 3


def equal(a, b):
    """Two states, bit for bit."""
    (tensors, numbers), (others, other_numbers) = state_to_tensors(a), state_to_tensors(b)
    same = tensors.keys() == others.keys() and all(
        tensors[k].dtype == others[k].dtype
        and torch.equal(tensors[k].double().nan_to_num(-7.0), others[k].double().nan_to_num(-7.0))
        for k in tensors
    )
    return same and numbers == other_numbers


@cache
def whole_run(optimizer):
    """A run that several tests compare with."""
    return tuple(run(optimizer))


def run(optimizer, fn=sphere, seed=3, state=None, count=GENERATIONS):
    """Some generations: from the start, or on from a state to as many altogether."""
    state, results = state or optimizer.init(start()), []
    while state.generation < count:
        results += generations(optimizer, state, fn, state.evaluations + state.population_size, seed)
        state = results[-1].state
    return results


def finite(state):
    """No NaN or infinity in a state but in losses, which say that nothing was scored."""
    tensors, numbers = state_to_tensors(state)
    return all(torch.isfinite(t.double()).all() for name, t in tensors.items() if not name.endswith("losses")) and all(
        math.isfinite(number) for name, number in numbers.items() if isinstance(number, (int, float))
    )


def copy_of(optimizer, state):
    tensors, numbers = state_to_tensors(state)
    return state_from_tensors(optimizer, {k: v.clone() for k, v in tensors.items()}, dict(numbers))


def test_no_public_optimiser_is_left_out():
    public = [getattr(softde.optim, name) for name in softde.optim.__all__]
    methods = ("init", "ask", "tell", "state_type")
    optimizers = {
        c for c in public if isinstance(c, type) and c is not Optimizer and all(hasattr(c, m) for m in methods)
    }
    assert optimizers and not optimizers - {type(optimizer) for optimizer in OPTIMIZERS.values()}


@every
def test_is_a_frozen_value(optimizer):
    assert isinstance(optimizer, Optimizer) and isinstance(optimizer, Hashable) and optimizer.population_size == N
    assert optimizer == dataclasses.replace(optimizer) and hash(optimizer) == hash(dataclasses.replace(optimizer))
    with pytest.raises(dataclasses.FrozenInstanceError):
        optimizer.population_size = 3
    assert dataclasses.asdict(optimizer)  # what a run writes down
    assert isinstance(optimizer.init(start()), optimizer.state_type)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_types_and_counts(optimizer, dtype):
    state, evaluations = optimizer.init(start(dtype)), 0
    assert state.shape == (N, DIM)
    for generation in range(1, 6):
        shape = state.shape
        candidates, state = optimizer.ask(state, generator_for(0, state.generation))
        assert state.shape == candidates.shape == shape and candidates.dtype == dtype
        assert state.asked and state.generation == generation - 1
        state, info = optimizer.tell(state, candidates, sphere(candidates))
        evaluations += len(candidates)
        assert state.generation == info.generation == generation and not state.asked
        assert state.evaluations == info.evaluations == evaluations and len(info.losses) == len(candidates)
        assert state.best_x.shape == (DIM,) and state.best_x.dtype == dtype
        assert state.best_loss == info.best == pytest.approx(float(sphere(state.best_x[None])), rel=1e-5)
        assert info.best <= info.median <= info.worst and info.spread >= 0 and 0 <= info.improved <= len(candidates)
        assert state.population_size >= 1 and (generation > 1 or info.spread > 0)


@pytest.mark.parametrize("dim", [1, 2, 280])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_number_of_coordinates(name, dim):
    optimizer = OPTIMIZERS[name]
    if name in FITS and not FITS[name](dim):
        with pytest.raises(ValueError, match=f"coordinates.* {dim}|have {dim} coord|{dim} coordinates"):
            run(optimizer, state=optimizer.init(start(dim=dim)))
        return
    for result in run(optimizer, state=optimizer.init(start(dim=dim)), count=6):
        assert result.candidates.shape[1] == dim and finite(result.state)


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
    first, second, other = run(optimizer), whole_run(optimizer), run(optimizer, seed=4, count=3)
    assert equal(first[-1].state, second[-1].state) and [s.info for s in first] == [s.info for s in second]
    assert torch.equal(first[0].candidates, other[0].candidates)
    assert not torch.equal(first[1].candidates, other[1].candidates)


@every
@pytest.mark.parametrize("half_way", [False, True], ids=["between generations", "between ask and tell"])
@pytest.mark.parametrize("at", [0, 6])
def test_saved_and_loaded_goes_on_the_same(optimizer, at, half_way):
    whole = whole_run(optimizer)
    state = whole[at].state
    candidates, asked = optimizer.ask(state, generator_for(3, state.generation))
    tensors, numbers = state_to_tensors(asked if half_way else state)
    text = json.dumps(numbers, allow_nan=False)
    loaded = state_from_tensors(optimizer, load(save(tensors)), json.loads(text))
    if half_way:
        loaded, info = optimizer.tell(loaded, candidates, sphere(candidates))
        assert info == whole[at + 1].info
    rest = run(optimizer, state=loaded)
    assert equal(rest[-1].state, whole[-1].state)
    assert [s.info for s in rest] == [s.info for s in whole[-len(rest) :]]


@every
@pytest.mark.parametrize("scored", [True, False], ids=["scored", "unscored"])
def test_every_state_can_be_written(optimizer, scored):
    state = optimizer.init(start())
    for generation in range(6):
        candidates, asked = optimizer.ask(state, generator_for(2, generation))
        for pending in (state, asked):
            tensors, numbers = state_to_tensors(pending)  # safetensors refuses two that share memory
            text = json.dumps(numbers, allow_nan=False)
            assert equal(state_from_tensors(optimizer, load(save(tensors)), json.loads(text)), pending)
        losses = sphere(candidates) if scored else torch.full((len(candidates),), math.nan)
        state, _ = optimizer.tell(asked, candidates, losses)


@every
def test_a_start_that_lies_column_by_column_goes_on_the_same_when_saved(optimizer):
    rows = start().float()
    columns = rows.T.contiguous().T
    assert not columns.is_contiguous()
    whole = list(generations(optimizer, optimizer.init(columns), sphere, 6 * N, 3))
    for first, again in zip(whole, generations(optimizer, optimizer.init(rows), sphere, 6 * N, 3), strict=True):
        assert torch.equal(first.candidates, again.candidates) and first.info == again.info
    state = state_from_tensors(optimizer, *state_to_tensors(whole[1].state))
    rest = list(generations(optimizer, state, sphere, 6 * N, 3))
    assert [s.info for s in rest] == [s.info for s in whole[2:]]


@every
def test_unscored_candidates_survive_in_the_record_and_never_win(optimizer):
    calls = []

    def bad():
        return (math.nan, math.inf, -math.inf)[len(calls) % 3]

    def fn(x):
        losses = sphere(x)
        losses[::3] = bad()
        calls.append(1)
        return losses

    state, best = optimizer.init(start()), math.inf
    for generation in range(GENERATIONS):
        expected = str(bad())  # str, since NaN differs from itself
        state, candidates, _, info = step(optimizer, state, fn, generator_for(3, generation))
        unscored = [str(loss) for loss in torch.tensor(info.losses)[::3].tolist()]
        assert unscored == [expected] * len(unscored)
        assert info.nan_count == (len(unscored) if expected == "nan" else 0)
        assert math.isfinite(info.best) and info.best <= best
        assert not math.isnan(info.median) and not math.isnan(info.worst)
        best = info.best
        assert torch.isfinite(candidates).all() and finite(state)


@every
def test_a_later_generation_that_cannot_be_scored_changes_no_best(optimizer):
    calls = []

    def fn(x):
        calls.append(1)
        return sphere(x) if len(calls) < 3 else torch.full((len(x),), math.nan)

    results = run(optimizer, fn, count=6)
    last = results[-1]
    assert last.info.nan_count == len(last.candidates) and last.info.improved == 0 and finite(last.state)
    assert torch.equal(results[-1].state.best_x, results[1].state.best_x)
    assert results[-1].state.best_loss == results[1].state.best_loss < math.inf


@every
def test_a_search_of_which_nothing_can_be_scored_goes_on(optimizer):
    state = optimizer.init(start())
    for generation in range(6):  # by hand: minimize gives up after the first
        candidates, state = optimizer.ask(state, generator_for(0, generation))
        assert torch.isfinite(candidates).all()
        state, info = optimizer.tell(state, candidates, ([math.nan, math.inf] * N)[: len(candidates)])
        assert state.best_loss == info.best == math.inf and state.generation == generation + 1
        assert finite(dataclasses.replace(state, best_loss=0.0))
    candidates, state = optimizer.ask(state, generator_for(0, 6))
    state, info = optimizer.tell(state, candidates, sphere(candidates))
    assert state.best_loss == info.best == float(sphere(candidates).double().min())


@every
def test_two_searches_from_one_state_do_not_disturb_each_other(optimizer):
    state = whole_run(optimizer)[2].state
    alone = [run(optimizer, seed=seed, state=copy_of(optimizer, state), count=7) for seed in (5, 6)]
    states, infos = [state, state], ([], [])
    for _ in range(4):
        asked = [optimizer.ask(s, generator_for(seed, s.generation)) for seed, s in zip((5, 6), states, strict=True)]
        for i in (1, 0):
            states[i], info = optimizer.tell(asked[i][1], asked[i][0], sphere(asked[i][0]))
            infos[i].append(info)
    for i in (0, 1):
        assert equal(states[i], alone[i][-1].state) and infos[i] == [result.info for result in alone[i]]


@every
def test_random_numbers_of_others_are_left_alone(optimizer):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    run(optimizer, count=5)
    drawn = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert torch.equal(drawn[0], torch.rand(3)) and (drawn[1] == np.random.rand(3)).all()  # noqa: NPY002


GOALS = {"random": 1.0, "random-block": 1.0, "subspace-de": 0.7}  # the last one's plane passes 0 at 0.66


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_best_never_worsens_and_gets_better(name):
    optimizer, goal = OPTIMIZERS[name], GOALS.get(name, 0.5)  # of the best start point
    results = list(generations(optimizer, optimizer.init(start()), sphere, N * 30, 3))
    best = [result.info.best for result in results]
    assert best == sorted(best, reverse=True) and best[-1] < goal * best[0]
    assert best[-1] == results[-1].state.best_loss == min(min(r.info.losses) for r in results)


@every
def test_refuses_bad_input(optimizer):
    state = optimizer.init(start())
    candidates, asked = optimizer.ask(state, generator_for(0, 0))
    losses = sphere(candidates)
    other = State(start()[0], math.inf, 0, 0, True, N)  # as one of another optimiser
    for wrong in (other, generator_for(0, 0), None):
        with pytest.raises(ValueError, match=rf"Expected a state of \w+ \({optimizer.state_type.__name__}\), but got "):
            optimizer.ask(wrong, generator_for(0, 0))
        with pytest.raises(ValueError, match=r"but got \w+: give tell what"):
            optimizer.tell(wrong, candidates, losses)
        if isinstance(optimizer, Informed):
            with pytest.raises(ValueError, match=r"but got \w+: give inform what"):
                optimizer.inform(wrong, losses[:, None])
    for wrong in (0, None, np.random.default_rng(0)):
        with pytest.raises(ValueError, match=r"generator: expected a torch.Generator, but got .*generator_for\(seed, "):
            optimizer.ask(state, wrong)
    with pytest.raises(ValueError, match="tell came before ask"):
        optimizer.tell(state, candidates, losses)
    with pytest.raises(ValueError, match="tell came before ask"):
        optimizer.tell(optimizer.tell(asked, candidates, losses)[0], candidates, losses)
    for wrong in (candidates[1:], candidates[:, 1:], candidates[0]):
        with pytest.raises(ValueError, match=r"of shape \(12, 7\), but got shape"):
            optimizer.tell(asked, wrong, losses)
    other = torch.float32 if candidates.dtype == torch.float64 else torch.float64
    with pytest.raises(ValueError, match=f"of {candidates.dtype}, but got {other}"):
        optimizer.tell(asked, candidates.to(other), losses)
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
    for wrong in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="finite start points"):
            optimizer.init(start().index_put((torch.tensor(N - 1), torch.tensor(DIM - 1)), torch.tensor(wrong)))
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
