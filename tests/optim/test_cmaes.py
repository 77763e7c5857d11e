"""CMA-ES: a value that runs as pycma's own object does, candidate by candidate."""

from __future__ import annotations

import json
import math
import sys
import warnings

import numpy as np
import pytest
import torch

from softde.optim import generator_for, minimize, state_from_tensors, state_to_tensors
from softde.optim.base import recommendation
from softde.optim.cmaes import CMAES, FULL_LIMIT, freeze, stagnated, thaw
from tests.optim.functions import rosenbrock, sphere

cma = pytest.importorskip("cma")

N, DIM, GENERATIONS = 12, 40, 62
KINDS = [("full", "tpa"), ("full", "csa"), ("diagonal", "tpa"), ("diagonal", "csa"), ("vkd", "tpa")]
every = pytest.mark.parametrize(("covariance", "adaptation"), KINDS)


def start(dim=DIM, n=N, dtype=torch.float64):
    return torch.randn(n, dim, generator=generator_for(0, 10**6), dtype=dtype)


def saved_and_loaded(optimizer, state):
    tensors, numbers = state_to_tensors(state)
    numbers = json.loads(json.dumps(numbers, allow_nan=False))
    return state_from_tensors(optimizer, {name: tensor.clone() for name, tensor in tensors.items()}, numbers)


def equal(a, b):
    (tensors, numbers), (others, other_numbers) = state_to_tensors(a), state_to_tensors(b)
    return (
        numbers == other_numbers
        and tensors.keys() == others.keys()
        and all(tensors[k].equal(others[k]) for k in tensors)
    )


def walk(optimizer, fn=sphere, generations=GENERATIONS, dim=DIM, reload=False):
    """Every candidate of a run; with ``reload`` saved and loaded in turn before ask, before tell, before both."""
    state, candidates = optimizer.init(start(dim, optimizer.population_size)), []
    for generation in range(generations):
        if reload and generation % 3 != 1:
            state = saved_and_loaded(optimizer, state)
        asked, state = optimizer.ask(state, generator_for(5, generation))
        if reload and generation % 3 != 0:
            state = saved_and_loaded(optimizer, state)
        state, _ = optimizer.tell(state, asked, fn(asked))
        candidates.append(asked)
    return candidates, state


class Stream:
    """Standard normal numbers; the seed of each generation is drawn as CMAES draws it."""

    def restart(self, generation):
        seed = int(torch.randint(2**63 - 1, (1,), generator=generator_for(5, generation)))
        self.generator = np.random.default_rng(seed)

    def __call__(self, *shape):
        return self.generator.standard_normal(shape)


def plain_pycma(covariance, adaptation, fn, generations, dim=DIM, n=N):
    """The same search by one unbroken pycma object; yields its solutions."""
    stream = Stream()
    stream.restart(0)
    options = {"popsize": n, "randn": stream, "seed": math.nan, "verbose": -9}
    if covariance == "vkd":
        sampler = cma.restricted_gaussian_sampler.GaussVkDSampler
        options = sampler.extend_cma_options(options) | {"CMA_sampler_options": {"randn": stream}}
    else:
        adapt = {"tpa": cma.sigma_adaptation.CMAAdaptSigmaTPA, "csa": cma.sigma_adaptation.CMAAdaptSigmaCSA}
        options |= {"AdaptSigma": adapt[adaptation], "CMA_diagonal": covariance == "diagonal"}
    points = start(dim, n)
    es = cma.CMAEvolutionStrategy(points[fn(points).argmin()].numpy().copy(), 0.3, options)
    for generation in range(1, generations):
        stream.restart(generation)
        solutions = es.ask()
        yield torch.from_numpy(np.stack(solutions))
        es.tell(solutions, fn(torch.from_numpy(np.stack(solutions))).tolist())


@pytest.mark.parametrize(
    ("covariance", "adaptation", "restarts"),
    [(*kind, None) for kind in KINDS] + [(*KINDS[0], "ipop"), (*KINDS[4], "bipop")],
)
def test_saving_and_loading_at_every_step_changes_no_bit(covariance, adaptation, restarts):
    optimizer = CMAES(N, covariance=covariance, adaptation=adaptation, restarts=restarts, patience=8)
    fn = sphere if restarts is None else (lambda x: (sphere(x) / 30).round())  # flat soon, whatever is drawn
    unbroken, state = walk(optimizer, fn, 45)
    broken, loaded = walk(optimizer, fn, 45, reload=True)
    assert all(torch.equal(a, b) for a, b in zip(unbroken, broken, strict=True))
    assert equal(state, loaded) and (state.runs > 0) == (restarts is not None)


@pytest.mark.parametrize(
    ("covariance", "adaptation", "fn"), [(*kind, rosenbrock) for kind in KINDS] + [(*KINDS[0], sphere)]
)
def test_candidates_are_those_of_pycma_itself(covariance, adaptation, fn):
    ours, _ = walk(CMAES(N, covariance=covariance, adaptation=adaptation), fn)
    theirs = list(plain_pycma(covariance, adaptation, fn, GENERATIONS))
    assert len(theirs) == GENERATIONS - 1
    assert all(torch.equal(a, b) for a, b in zip(ours[1:], theirs, strict=True))


def test_a_matrix_that_is_decomposed_every_few_generations_only():
    dim, generations = 150, 18  # pycma waits for more than two generations there
    ours, state = walk(CMAES(N), rosenbrock, generations, dim)
    broken, loaded = walk(CMAES(N), rosenbrock, generations, dim, reload=True)
    theirs = list(plain_pycma("full", "tpa", rosenbrock, generations, dim))
    assert 1 < json.loads(state.numbers)["sm.count_eigen"] < generations / 2
    assert all(torch.equal(a, b) for a, b in zip(ours, broken, strict=True)) and equal(state, loaded)
    assert all(torch.equal(a, b) for a, b in zip(ours[1:], theirs, strict=True))


def test_two_point_adaptation_is_what_it_says_below_300_dimensions():
    state = walk(CMAES(N, adaptation="tpa"), generations=3)[1]
    candidates, _ = CMAES(N).ask(state, generator_for(0, 3))
    mean, shift = state.tensors["mean"], state.tensors["mean"] - state.tensors["mean_old"]
    steps = candidates[:2] - mean
    assert torch.allclose(steps[0], -steps[1], atol=1e-12)
    assert float(torch.cosine_similarity(steps[0], shift, dim=0)) == pytest.approx(1, abs=1e-9)


@every
def test_an_older_state_goes_on_as_it_did(covariance, adaptation):
    optimizer = CMAES(N, covariance=covariance, adaptation=adaptation)
    state = walk(optimizer, generations=9)[1]
    candidates, asked = optimizer.ask(state, generator_for(0, 1))
    first, _ = optimizer.tell(asked, candidates, sphere(candidates))
    optimizer.ask(first, generator_for(0, 2))
    again, asked_again = optimizer.ask(state, generator_for(0, 1))
    assert torch.equal(again, candidates)
    for pending in (asked, asked_again):
        assert equal(optimizer.tell(pending, candidates, sphere(candidates))[0], first)


@every
def test_other_candidates_than_were_asked_count_as_pycma_counts_them(covariance, adaptation):
    optimizer = CMAES(N, covariance=covariance, adaptation=adaptation)
    state = optimizer.around(torch.zeros(DIM, dtype=torch.float64))
    asked, state = optimizer.ask(state, generator_for(5, 0))
    mine = asked.clone()
    mine[-1], mine[-2] = 0.2, 50.0  # in reach, and so far away that it counts as a shorter step
    losses = sphere(mine - 0.2)
    losses[-2] = -1.0
    told, _ = optimizer.tell(state, mine, losses)
    es = optimizer._sampled(state).es
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        es.tell([row.numpy() for row in mine], losses.tolist())
    assert np.array_equal(told.tensors["mean"].numpy(), es.mean)
    unchanged, _ = optimizer.tell(state, asked, losses)
    assert not np.array_equal(unchanged.tensors["mean"].numpy(), es.mean)
    assert float(told.tensors["mean"].abs().max()) < 5  # not where the far one is


@every
def test_numpys_global_generator_is_left_alone_and_nothing_is_printed(
    covariance, adaptation, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before, filters = np.random.get_state(), list(warnings.filters)  # noqa: NPY002
    verbosity = cma.utilities.utils.global_verbosity
    walk(CMAES(5, covariance=covariance, adaptation=adaptation), generations=12)
    after = np.random.get_state()  # noqa: NPY002
    assert before[2:] == after[2:] and (before[1] == after[1]).all()
    assert capsys.readouterr() == ("", "") and not list(tmp_path.iterdir())
    assert filters == warnings.filters and cma.utilities.utils.global_verbosity == verbosity


def test_freeze_and_thaw_of_a_matrix_that_lies_column_by_column():
    def evolution():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cma.CMAEvolutionStrategy(DIM * [1.0], 1.0, {"verbose": -9, "seed": math.nan})

    es, other = evolution(), evolution()
    es.sm.B = np.asfortranarray(np.arange(DIM * DIM, dtype=float).reshape(DIM, DIM))
    es.sigma = np.float64(0.1) + np.float64(0.2)
    thaw(other, *freeze(es))
    assert (other.sm.B == es.sm.B).all() and other.sm.B.flags.f_contiguous and not other.sm.B.flags.c_contiguous
    assert type(other.sigma) is np.float64 and other.sigma == es.sigma


# ---- losses that say nothing -----------------------------------------------------------------------------------------


def test_unscored_candidates_count_as_worst():
    optimizer = CMAES(N)
    state = walk(optimizer, generations=5)[1]
    candidates, asked = optimizer.ask(state, generator_for(0, 5))
    losses = sphere(candidates)
    order = losses.argsort(descending=True)
    worst = losses.clone()
    worst[order[0]] = math.nan
    expected, _ = optimizer.tell(asked, candidates, losses)
    told, info = optimizer.tell(asked, candidates, worst)
    assert torch.equal(told.tensors["mean"], expected.tensors["mean"]) and info.nan_count == 1
    assert torch.equal(told.tensors["sm.C"], expected.tensors["sm.C"])


@every
def test_a_generation_without_any_loss_leaves_the_distribution(covariance, adaptation):
    optimizer = CMAES(N, covariance=covariance, adaptation=adaptation)
    state = walk(optimizer, generations=5)[1]
    candidates, asked = optimizer.ask(state, generator_for(0, 5))
    told, info = optimizer.tell(asked, candidates, [math.nan] * N)
    assert info.nan_count == N and told.generation == 6 and told.best_loss == state.best_loss
    assert told.numbers == state.numbers and all(told.tensors[k].equal(state.tensors[k]) for k in state.tensors)
    assert torch.equal(optimizer.ask(told, generator_for(0, 5))[0], candidates)


def plane(x):
    return x.sum(dim=1)


def flat(x):
    return 0 * x[:, 0]


@pytest.mark.parametrize(
    ("covariance", "adaptation", "fn", "generations"),
    [(*kind, sphere, 220) for kind in KINDS[::2]]
    + [(*KINDS[4], plane, 400), (*KINDS[4], flat, 120), (*KINDS[0], flat, 60)],
)
def test_goes_on_where_pycma_would_have_stopped(covariance, adaptation, fn, generations):
    candidates, state = walk(CMAES(6, covariance=covariance, adaptation=adaptation), fn, generations, dim=2)
    assert all(bool(x.isfinite().all()) for x in candidates) and bool(state.tensors["mean"].isfinite().all())
    assert fn is not sphere or (state.best_loss < 1e-16 and float((candidates[-1][0] - candidates[-1][1]).norm()) > 0)


# ---- restarts --------------------------------------------------------------------------------------------------------


def test_stagnation():
    falling = torch.stack([torch.arange(20.0), torch.arange(20.0)], dim=1).flip(0)
    assert not stagnated(falling, 10) and stagnated(torch.zeros(20, 2), 10) and not stagnated(torch.zeros(19, 2), 10)
    noisy_best = torch.stack([torch.zeros(20), falling[:, 1]], dim=1)  # the median still falls
    assert not stagnated(noisy_best, 10) and not stagnated(noisy_best.flip(1), 10)


def test_a_run_that_stagnates_is_followed_by_one_of_twice_the_size_from_the_next_start_point():
    optimizer = CMAES(8, sigma=1e-3, restarts="ipop", patience=4)
    state = optimizer.init(start(3, 8))
    means, sizes = [], []
    while state.runs < 3:
        candidates, state = optimizer.ask(state, generator_for(0, state.generation))
        state, _ = optimizer.tell(state, candidates, sphere(candidates).round())
        if not sizes or state.population_size != sizes[-1]:
            sizes.append(state.population_size)
            means.append(state.tensors["mean"])
    order = sphere(start(3, 8)).round().argsort(stable=True)
    assert sizes == [8, 16, 32, 64]
    assert all(torch.equal(mean, start(3, 8)[row]) for mean, row in zip(means, order, strict=False))
    assert state.best_loss == sphere(start(3, 8)).round().min()
    assert torch.equal(recommendation(optimizer, state), state.best_x)


def test_small_runs_take_turns_with_large_ones():
    optimizer = CMAES(8, restarts="bipop", patience=3)
    state = optimizer.init(start(3, 8))
    seen = []
    while state.runs < 12:
        candidates, state = optimizer.ask(state, generator_for(0, state.generation))
        runs, spent = state.runs, state.spent
        state, _ = optimizer.tell(state, candidates, 0 * sphere(candidates))
        if state.runs > runs and runs > 0:
            assert (spent > 0) == (state.spent > 0) or state.population_size <= 8 * 2**state.doublings
        seen.append((state.population_size, state.sigma, state.doublings))
    small = {(n, sigma) for n, sigma, doublings in seen if n < 8 * 2**doublings}
    assert small and all(n >= 8 and 0.003 <= sigma < 0.3 for n, sigma in small)
    assert {doublings for *_, doublings in seen} >= {0, 1, 2}


def test_a_restart_leaves_the_wrong_valley_and_the_best_is_kept():
    wrong, right = torch.tensor([[5.0, 5.0]]).double(), torch.tensor([[-5.0, -5.0]]).double()

    def valleys(x):
        return torch.minimum(sphere(x - wrong) + 1, sphere(x - right))

    points = torch.cat([wrong + 0.1, right + 1.5, torch.full((4, 2), 30.0)])  # 1.02, 4.5, ...
    once = minimize(valleys, CMAES(6), points, 1_000)
    again = minimize(valleys, CMAES(6, restarts="ipop", patience=10), points, 1_000)
    assert once.best_loss == pytest.approx(1) and again.best_loss < 1e-6 and again.state.runs > 0
    assert [info.best for info in again.trajectory] == sorted((info.best for info in again.trajectory), reverse=True)


# ---- quality and recommendation --------------------------------------------------------------------------------------


def test_two_points_adapt_the_step_where_most_dimensions_do_not_matter():
    def few(x):
        return sphere(x[:, :10] - 1)

    best = {}
    for adaptation in ("tpa", "csa"):
        optimizer = CMAES(N, adaptation=adaptation)
        best[adaptation] = minimize(few, optimizer, torch.zeros(N, 100), N * 90).best_loss
    assert best["tpa"] < 0.02 * best["csa"]


def test_the_mean_is_recommended():
    optimizer = CMAES(N)
    state = walk(optimizer, generations=4)[1]
    assert torch.equal(recommendation(optimizer, state), state.tensors["mean"])
    fresh = optimizer.init(start(10).float())
    assert torch.equal(recommendation(optimizer, fresh), fresh.best_x)
    told = minimize(sphere, optimizer, start(10).float(), 5 * N).state
    assert recommendation(optimizer, told).dtype == torch.float32


def test_where_the_mean_begins():
    points = start()
    for first, row in (("best", int(sphere(points).argmin())), ("first", 0)):
        optimizer = CMAES(N, start=first)
        candidates, state = optimizer.ask(optimizer.init(points), generator_for(0, 0))
        state, _ = optimizer.tell(state, candidates, sphere(candidates))
        assert torch.equal(state.tensors["mean"], points[row])
    around = CMAES(N).around(points[3])
    assert torch.equal(around.tensors["mean"], points[3]) and around.shape == (N, DIM)
    steps = CMAES(N).ask(around, generator_for(0, 0))[0] - points[3]
    assert float(steps.std()) == pytest.approx(0.3, rel=0.15)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"population_size": 3}, "population of at least 4 .* population_size is 3"),
        ({"population_size": 4.5}, "whole number"),
        ({"sigma": 0.0}, "Expected sigma, a standard deviation in units of x, above 0, but got 0.0"),
        ({"sigma": -1.0}, "above 0"),
        ({"sigma": math.nan}, "above 0"),
        ({"covariance": "dense"}, "Unknown covariance 'dense': expected one of 'full', 'diagonal', 'vkd'"),
        ({"adaptation": "msr"}, "Unknown adaptation 'msr'"),
        ({"restarts": "twice"}, "Unknown restarts 'twice'"),
        ({"start": "last"}, "Unknown start 'last'"),
        ({"covariance": "vkd", "adaptation": "csa"}, "its own two-point"),
        ({"patience": 1}, "patience"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        CMAES(**arguments)


def test_refuses_dimensions_that_do_not_fit():
    with pytest.raises(ValueError, match=r"at most 2,000 coordinates .* use Subspace\(CMAES\(...\)\)"):
        CMAES(4).init(torch.zeros(4, FULL_LIMIT + 1))
    with pytest.raises(ValueError, match="at least 2 coordinates"):
        CMAES(4).init(torch.zeros(4, 1))
    CMAES(4, covariance="diagonal").init(torch.zeros(4, FULL_LIMIT + 1))


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(ImportError, match="CMAES needs the package cma: pip install cma"):
        CMAES(4).init(torch.zeros(4, 5))
