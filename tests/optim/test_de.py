"""DE: equal to the slow reference, draws of the right statistics, parameters checked."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import FrozenInstanceError, fields, replace
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from softde.optim import DE, base, generator_for
from softde.optim.de import NAMES, STRATEGIES, binomial, distinct_donors, elite_size, exponential, random_words, repair
from tests.reference import slow_de

DIM = 11


def told_state(optimizer, n=9, dtype=torch.float64):
    """A state after its first tell, with ties and losses that are not finite."""
    generator = generator_for(7, n)
    points = torch.rand(n, DIM, generator=generator, dtype=dtype) * 2 - 1
    losses = torch.rand(n, generator=generator, dtype=torch.float64)
    losses[2], losses[4 % n], losses[5 % n], losses[7 % n] = math.nan, math.inf, losses[1], -math.inf
    candidates, state = optimizer.ask(optimizer.init(points), generator)
    return optimizer.tell(state, candidates, losses)[0]


def listed(draws):
    values = {field.name: getattr(draws, field.name) for field in fields(draws)}
    return {name: None if value is None else value.tolist() for name, value in values.items()}


# ---- one step equals the slow one, with the same draws ---------------------------------------------------------------


@pytest.mark.parametrize("handling", [None, "none", "clip", "bounce"])
@pytest.mark.parametrize("strategy", NAMES)
def test_a_step_equals_the_slow_reference(strategy, handling):
    low, high = (-1.0,) * (DIM - 1) + (-1.2,), (1.0,) * (DIM - 1) + (1.1,)
    bounds = None if handling is None else (low, high)
    optimizer = DE(10, strategy, F=(0.3, 1.4), CR=0.6, p=0.3, bounds=bounds, bounds_handling=handling or "none")
    state = told_state(optimizer, 10)
    outside = 0
    for generation in range(4):
        generator = generator_for(1, generation)
        draws = optimizer.draw(state, generator)
        trials = optimizer.propose(state, draws)
        expected = slow_de.trials(
            state.population.tolist(), state.losses.tolist(), strategy, listed(draws), bounds, handling
        )
        torch.testing.assert_close(trials, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14)
        outside += int((trials.abs() > 1.2).sum())

        candidates, asked = optimizer.ask(state, generator_for(1, generation))
        assert torch.equal(candidates, trials)
        losses = (candidates**2).sum(dim=1)
        losses[3], losses[6] = math.nan, state.losses[6]  # an unscored trial and a tie
        population, kept = slow_de.select(
            state.population.tolist(), state.losses.tolist(), candidates.tolist(), losses.tolist()
        )
        state, info = optimizer.tell(asked, candidates, losses)
        assert state.population.tolist() == population
        assert torch.equal(state.losses.nan_to_num(-1.0), torch.tensor(kept, dtype=torch.float64).nan_to_num(-1.0))
        comparable = [slow_de.scored(loss) for loss in kept]
        assert info.worst == max(comparable) and info.median == median(comparable)
        assert info.spread == pytest.approx(float(state.population.var(dim=0, correction=0).mean().sqrt()), rel=1e-12)
    assert (outside > 0) == (handling in (None, "none"))


@pytest.mark.parametrize("strategy", NAMES)
def test_blocks_of_rows_change_nothing(strategy, monkeypatch):
    optimizer = DE(9, strategy, F=(0.3, 1.4), CR=0.6, p=0.3)
    state = told_state(optimizer, dtype=torch.float32)
    draws = optimizer.draw(state, generator_for(0, 1))
    whole = optimizer.propose(state, draws)
    monkeypatch.setattr(base, "BLOCK_NUMBERS", 2 * DIM)  # four blocks of two rows and one of one
    assert torch.equal(optimizer.propose(state, draws), whole)


def test_trials_depend_on_state_and_draws_only():
    optimizer = DE(9, "rand1bin")
    state = told_state(optimizer)
    draws = optimizer.draw(state, generator_for(0, 1))
    assert torch.equal(optimizer.propose(state, draws), optimizer.propose(state, draws))
    still = replace(draws, F=torch.zeros(9), CR=torch.ones(9))  # F = 0: every trial is its base
    assert torch.equal(optimizer.propose(state, still), state.population[draws.donors[:, 0]])
    alone = replace(draws, CR=torch.zeros(9))  # CR = 0: one coordinate changes
    assert (optimizer.propose(state, alone) != state.population).sum(dim=1).tolist() == [1] * 9


def test_small_differences_survive_a_large_offset():
    optimizer = DE(9, "rand1bin", F=0.5, CR=1.0)
    state = told_state(optimizer, dtype=torch.float32)
    state = replace(state, population=1000 + (state.population * 8).round() / 8192)  # exact in float32
    trials = optimizer.propose(state, optimizer.draw(state, generator_for(0, 1)))
    grid = (trials - 1000) * 16384
    assert torch.equal(grid, grid.round())


# ---- statistics of the draws -----------------------------------------------------------------------------------------


@given(n=st.integers(2, 40), data=st.data())
def test_donors_are_distinct_and_never_the_target(n, data):
    k = data.draw(st.integers(1, min(5, n - 1)))
    donors = distinct_donors(n, k, generator_for(data.draw(st.integers(0, 99)), 0))
    assert donors.shape == (n, k)
    for target, row in enumerate(donors.tolist()):
        assert len({target, *row}) == k + 1 and all(0 <= donor < n for donor in row)


def test_donors_are_uniform_over_ordered_triples():
    n, rounds, generator = 5, 3000, generator_for(0, 0)
    counts = Counter()
    for _ in range(rounds):
        counts.update((i, *row) for i, row in enumerate(distinct_donors(n, 3, generator).tolist()))
    cells = n * 4 * 3 * 2
    assert len(counts) == cells
    expected = rounds * n / cells
    chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
    freedom = cells - n  # each target's counts add up to rounds
    assert abs(chi2 - freedom) < 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("CR", [0.0, 1e-5, 0.1, 0.5, 0.9, 0.99999, 1.0])
def test_binomial_rate(CR):
    n, dim, generator = 400, 1000, generator_for(0, 1)
    start, u = torch.randint(dim, (n, 1), generator=generator), torch.rand(n, 1, generator=generator).double()
    words = random_words(n, dim, generator)
    mask = binomial(words, u, torch.full((n, 1), CR, dtype=torch.float64), start)
    assert set(mask.unique().tolist()) <= {0.0, 1.0} and bool((mask.gather(1, start) == 1).all())
    free = n * (dim - 1)
    deviation = math.sqrt(free * CR * (1 - CR))
    assert abs(float(mask.sum()) - n - free * CR) <= 4 * deviation
    per_coordinate = mask.scatter(1, start, 0.0).mean(dim=0)  # no coordinate is favoured
    assert float((per_coordinate - CR).abs().max()) <= 6 * math.sqrt(CR * (1 - CR) / n) + 5 / n


def test_binomial_rounds_its_rate_to_16_bits_up_or_down_by_u():
    CR = torch.full((2, 1), (100 + 0.25) / 2**16, dtype=torch.float64)
    u, start = torch.tensor([[0.74], [0.76]], dtype=torch.float64), torch.zeros(2, 1, dtype=torch.int64)
    words = torch.arange(-(2**15), 2**15).to(torch.int16).expand(2, -1)
    assert binomial(words, u, CR, start).sum(dim=1).tolist() == [100, 101]


def test_words_are_uniform_and_uncorrelated():
    words = random_words(301, 1003, generator_for(0, 2)).double() + 0.5  # an odd count: the last draw is cut
    assert words.shape == (301, 1003)
    assert abs(float(words.mean())) < 4 * 2**16 / math.sqrt(12 * words.numel())
    counts = torch.histc(words, 64, -(2**15), 2**15)
    chi2 = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
    assert abs(chi2 - 63) < 4 * math.sqrt(2 * 63)
    flat = (words / words.std()).flatten()
    for lag in (1, 2, 3, 4, 1003):
        assert abs(float((flat[:-lag] * flat[lag:]).mean())) < 4 / math.sqrt(flat.numel())


@pytest.mark.parametrize("CR", [0.0, 0.3, 0.9, 1.0])
def test_exponential_runs(CR):
    n, dim, generator = 20000, 12, generator_for(0, 3)
    start, u = torch.randint(dim, (n, 1), generator=generator), torch.rand(n, 1, generator=generator).double()
    mask = exponential(u, torch.full((n, 1), CR, dtype=torch.float64), start, dim)
    length = mask.sum(dim=1)
    rolled = mask.gather(1, (start + torch.arange(dim)) % dim)  # each row from its own start
    assert torch.equal(rolled, torch.arange(dim) < length[:, None])  # one run, around the end
    for k in range(1, dim + 1):
        share, expected = float((length >= k).double().mean()), CR ** (k - 1)
        assert abs(share - expected) <= 4 * math.sqrt(expected * (1 - expected) / n)


def test_start_elite_and_dither_are_uniform():
    optimizer = DE(2000, "currenttopbest1exp", F=(0.4, 0.8), p=0.002)
    state = optimizer.init(torch.zeros(2000, 5))
    draws = optimizer.draw(state, generator_for(0, 4))
    for values, size in ((draws.start, 5), (draws.elite, 4)):
        counts = torch.bincount(values, minlength=size).double()
        assert len(counts) == size and float((counts - 2000 / size).abs().max()) < 4 * math.sqrt(2000 / size)
    assert 0.4 <= float(draws.F.min()) < 0.41 and 0.79 < float(draws.F.max()) < 0.8
    assert abs(float(draws.F.mean()) - 0.6) < 4 * 0.4 / math.sqrt(12 * 2000)
    once = replace(optimizer, dither="generation").draw(state, generator_for(0, 4))
    assert len(once.F.unique()) == 1 and 0.4 <= float(once.F[0]) < 0.8


def test_elite_size():
    assert [elite_size(p, n) for p, n in ((0.1, 32), (0.1, 8), (0.25, 16), (1.0, 5))] == [3, 2, 4, 5]


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20), st.floats(-3, 0), st.floats(0.5, 3), st.integers(0, 99))
def test_repair_keeps_trials_within_bounds(values, low, high, seed):
    trials = torch.tensor([values], dtype=torch.float64)
    parents = low + (high - low) * torch.rand(1, len(values), generator=generator_for(seed, 0), dtype=torch.float64)
    inside = (trials >= low) & (trials <= high)
    for handling in ("clip", "bounce"):
        repaired = repair(trials, parents, (low, high), handling)
        assert bool(((repaired >= low) & (repaired <= high)).all())
        assert torch.equal(repaired[inside], trials[inside])
    assert repair(trials, parents, (low, high), "none") is trials


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"population_size": 2}, "'rand1bin' needs a population of at least 4 .* population_size is 2"),
        ({"population_size": 5, "strategy": "rand2exp"}, "'rand2exp' needs a population of at least 6"),
        ({"population_size": 4, "strategy": "best2bin"}, "at least 5"),
        ({"population_size": 2, "strategy": "currenttopbest1bin"}, "at least 3"),
        ({"population_size": 8.0}, "population_size: expected a whole number, got 8.0"),
        ({"population_size": True}, "population_size: expected a whole number, got True"),
        ({"strategy": "rand3bin"}, "Unknown strategy 'rand3bin': expected one of best1bin, best1exp"),
        ({"F": 0}, r"F as a number in \(0, 2\]"),
        ({"F": 2.5}, "got 2.5"),
        ({"F": (0.9, 0.5)}, r"got \(0.9, 0.5\)"),
        ({"F": (0.1, 0.5, 0.9)}, "a pair"),
        ({"F": math.nan}, "got nan"),
        ({"CR": -0.1}, r"CR, a probability, in \[0, 1\], but got -0.1"),
        ({"CR": 1.1}, "got 1.1"),
        ({"p": 0.0}, r"p, the share .* in \(0, 1\], but got 0.0"),
        ({"dither": "never"}, "dither 'candidate' or 'generation'"),
        ({"bounds": (1.0, -1.0)}, "low below high"),
        ({"bounds": (1.0, 1.0)}, "low below high"),
        ({"bounds": ((0.0, 0.0), (1.0, -1.0))}, "low below high"),
        ({"bounds": ((0.0, 0.0), (1.0, 1.0, 1.0))}, "of one length, but got 2 and 3"),
        ({"bounds": (0.0, 1.0, 2.0)}, "a pair"),
        ({"bounds_handling": "wrap"}, "'none', 'clip' or 'bounce'"),
    ],
)
def test_refuses_settings_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        DE(**arguments)


def test_the_smallest_populations_run():
    for name, strategy in STRATEGIES.items():
        optimizer = DE(strategy.donors + 1, f"{name}bin")
        state = told_state(optimizer, optimizer.population_size)
        assert optimizer.ask(state, generator_for(0, 1))[0].shape == (strategy.donors + 1, DIM)


def test_points_and_bounds_must_fit():
    with pytest.raises(ValueError, match="each of the 11 coordinates, but got 3"):
        DE(9, bounds=((0.0,) * 3, 1.0)).init(torch.rand(9, DIM))
    with pytest.raises(ValueError, match="within the bounds"):
        DE(9, bounds=(0.0, 1.0)).init(torch.full((9, DIM), 1.5))


def test_settings_are_values():
    assert DE(F=[0.5, 1.0]) == DE(F=(0.5, 1)) and hash(DE(F=[0.5, 1.0])) == hash(DE(F=(0.5, 1.0)))
    assert DE(bounds=(torch.zeros(2), 1)) == DE(bounds=([0, 0], 1.0))
    with pytest.raises(FrozenInstanceError):
        DE().F = 0.9


def test_a_whole_number_of_numpy_is_one():
    assert DE(population_size=np.int64(8)) == DE(population_size=8)
    assert type(DE(population_size=np.int64(8)).population_size) is int
