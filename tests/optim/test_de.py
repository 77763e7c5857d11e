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
from softde.optim.de import elite_size
from softde.optim.draws import Draws, binomial, distinct_donors, donors_with_archive, exponential, random_words
from softde.optim.mutation import NAMES, STRATEGIES, column_blocks, crossover, repair
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


@pytest.mark.parametrize("handling", [None, "none", "clip", "bounce", "resample"])
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
        assert (draws.within is not None) == (handling == "resample")
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


@pytest.mark.parametrize("block", [2, 64, 2**18], ids=["parts of units", "few columns", "all columns"])
@pytest.mark.parametrize("unit", [1, 3, 4, 12])
@pytest.mark.parametrize("strategy", NAMES)
def test_units_and_jitter_equal_the_slow_reference(strategy, unit, block, monkeypatch):
    monkeypatch.setattr(base, "BLOCK_NUMBERS", block)
    optimizer = DE(8, strategy, F=(0.3, 1.4), CR=0.5, p=0.3, unit=unit, jitter=0.4)
    points = torch.rand(8, 12, generator=generator_for(0, unit), dtype=torch.float64)
    candidates, state = optimizer.ask(optimizer.init(points), generator_for(0, 0))
    state, _ = optimizer.tell(state, candidates, points.sum(dim=1))
    draws = optimizer.draw(state, generator_for(0, 1))
    expected = slow_de.trials(
        state.population.tolist(), state.losses.tolist(), strategy, listed(draws), unit=unit, jitter=0.4
    )
    trials = optimizer.propose(state, draws)
    torch.testing.assert_close(trials, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14)


@given(n=st.integers(2, 9), unit=st.integers(1, 7), units=st.integers(1, 9), numbers=st.integers(1, 400))
def test_blocks_cover_all_columns_in_whole_units_or_parts_of_one(n, unit, units, numbers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "BLOCK_NUMBERS", numbers)
        blocks = list(column_blocks(torch.empty(n, unit * units), unit))
    columns = [column for block in blocks for column in range(block.start, block.stop)]
    assert columns == list(range(unit * units))
    for block in blocks:
        within_one = (block.stop - 1) // unit == block.start // unit
        assert within_one or block.start % unit == block.stop % unit == 0


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("unit", [1, 11])
def test_blocks_of_columns_change_nothing(strategy, unit, monkeypatch):
    optimizer = DE(9, strategy, F=(0.3, 1.4), CR=0.6, p=0.3, unit=unit, bounds=(-1.0, 1.0))
    state = told_state(optimizer, dtype=torch.float32)
    draws = optimizer.draw(state, generator_for(0, 1))
    whole = optimizer.propose(state, draws)
    monkeypatch.setattr(base, "BLOCK_NUMBERS", 9 * 8 * 3)  # three columns at a time
    torch.testing.assert_close(optimizer.propose(state, draws), whole, rtol=0, atol=1e-7)


def test_trials_depend_on_state_and_draws_only():
    optimizer = DE(9, "rand1bin")
    state = told_state(optimizer)
    draws = optimizer.draw(state, generator_for(0, 1))
    assert torch.equal(optimizer.propose(state, draws), optimizer.propose(state, draws))
    still = replace(draws, F=torch.zeros(9, dtype=torch.float64))  # F = 0: every trial is a mix of parent and base
    mixed, base_rows = optimizer.propose(state, still), state.population[draws.donors[:, 0]]
    assert bool(((mixed == state.population) | (mixed == base_rows)).all())


@pytest.mark.parametrize("crossover", ["bin", "exp"])
@pytest.mark.parametrize("unit", [1, 11])
def test_all_or_one_unit_crosses_where_the_rate_is_1_or_0(crossover, unit):
    for CR, changed in ((0.0, unit), (1.0, DIM)):
        optimizer = DE(9, f"rand1{crossover}", CR=CR, unit=unit)
        state = told_state(optimizer)
        for seed in range(20):
            trials = optimizer.propose(state, optimizer.draw(state, generator_for(seed, 1)))
            assert (trials != state.population).sum(dim=1).tolist() == [changed] * 9


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


def test_donors_from_the_archive_are_distinct_and_uniform():
    n, archived, rounds, generator = 4, 3, 4000, generator_for(0, 1)
    counts = Counter()
    for _ in range(rounds):
        counts.update((i, *row) for i, row in enumerate(donors_with_archive(n, archived, generator).tolist()))
    assert all(len({i, r1, r2}) == 3 and r1 < n and r2 < n + archived for i, r1, r2 in counts)
    cells = n * (n - 1) * (n + archived - 2)
    assert len(counts) == cells
    expected = rounds * n / cells
    chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
    freedom = cells - n
    assert abs(chi2 - freedom) < 4 * math.sqrt(2 * freedom)


def crossing(CR, n, units, seed):
    """Which units cross, (n, units), for one CR."""
    generator = generator_for(0, seed)
    start, u = torch.randint(units, (n,), generator=generator), torch.rand(n, generator=generator).double()
    words = random_words(n, units, generator)
    threshold = binomial(torch.full((n,), CR, dtype=torch.float64), u, start, words)
    return words < threshold[:, None], start[:, None]


@pytest.mark.parametrize("CR", [0.0, 1e-5, 0.1, 0.5, 0.9, 0.99999, 1.0])
def test_binomial_rate(CR):
    n, dim = 400, 1000
    mask, start = crossing(CR, n, dim, 1)
    assert bool(mask.gather(1, start).all())
    free = n * (dim - 1)
    deviation = math.sqrt(free * CR * (1 - CR))
    assert abs(float(mask.sum()) - n - free * CR) <= 4 * deviation
    per_coordinate = mask.scatter(1, start, False).double().mean(dim=0)  # no coordinate is favoured
    assert float((per_coordinate - CR).abs().max()) <= 6 * math.sqrt(CR * (1 - CR) / n) + 5 / n


def test_binomial_rounds_its_rate_to_16_bits_up_or_down_by_u():
    CR = torch.full((2,), (100 + 0.25) / 2**16, dtype=torch.float64)
    u, start = torch.tensor([0.74, 0.76], dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    words = torch.arange(-(2**15), 2**15).to(torch.int16).repeat(2, 1)
    threshold = binomial(CR, u, start, words)
    assert (words < threshold[:, None]).sum(dim=1).tolist() == [100, 101]


def test_a_unit_crosses_as_a_whole_and_at_the_rate():
    optimizer = DE(200, "rand1bin", CR=0.3, unit=5)
    generator = generator_for(0, 5)
    state = optimizer.init(torch.rand(200, 500, generator=generator))
    trials = optimizer.propose(state, optimizer.draw(replace(state, generation=1), generator))
    mask = (trials != state.population).unflatten(1, (-1, 5))
    assert torch.equal(mask.all(dim=2), mask.any(dim=2))
    free = 200 * 99
    assert abs(float(mask.all(dim=2).sum()) - 200 - free * 0.3) < 4 * math.sqrt(free * 0.21)


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
    start, u = torch.randint(dim, (n,), generator=generator), torch.rand(n, generator=generator).double()
    length = exponential(torch.full_like(u, CR), u, dim)
    assert [slow_de.run_length(CR, x, dim) for x in u[:500].tolist()] == length[:500].tolist()
    runs = {"start": start, "end": start + length, "wrap": start + length - dim}
    draws = Draws(torch.zeros(n, 2).long(), torch.zeros(n).long(), torch.zeros(n), torch.zeros(n), **runs)
    mask = crossover(draws, slice(0, dim), torch.empty(n, dim))
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    rolled = mask.gather(1, (start[:, None] + torch.arange(dim)) % dim)  # each row from its own start
    assert torch.equal(rolled > 0, torch.arange(dim) < length[:, None])  # one run, around the end
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
    within = torch.rand(trials.shape, generator=generator_for(seed, 1), dtype=torch.float64)
    sides = torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
    for handling in ("clip", "bounce", "resample"):
        repaired = trials.clone()
        repair(repaired, parents, *sides, handling, within)
        assert bool(((repaired >= low) & (repaired <= high)).all())
        assert torch.equal(repaired[inside], trials[inside])
    repaired = trials.clone()
    repair(repaired, parents, *sides, "none")
    assert torch.equal(repaired, trials)


# ---- noise, restarts, age --------------------------------------------------------------------------------------------


def noisy(x, generator):
    return (x**2).sum(dim=1).double() + 0.5 * torch.randn(len(x), generator=generator, dtype=torch.float64)


def test_members_scored_again_and_a_margin_equal_the_slow_reference():
    optimizer = DE(9, "best1bin", reevaluate=2, margin=0.05)
    state, noise = told_state(optimizer), generator_for(3, 3)
    assert state.population_size == 11 and state.counts.tolist() == [int(math.isfinite(x)) for x in state.losses]
    for generation in range(6):
        candidates, asked = optimizer.ask(state, generator_for(2, generation))
        ranked = sorted(range(9), key=lambda i: slow_de.scored(state.losses.tolist()[i]))
        assert candidates.shape == (11, DIM) and torch.equal(candidates[9:], state.population[ranked[:2]])
        losses = noisy(candidates, noise)
        losses[4], losses[10] = math.nan, math.nan if generation % 2 else losses[10]
        means, counts = slow_de.remeasured(state.losses.tolist(), state.counts.tolist(), losses[9:].tolist())
        population, kept = slow_de.select(
            state.population.tolist(), means, candidates[:9].tolist(), losses[:9].tolist(), margin=0.05
        )
        told, info = optimizer.tell(asked, candidates, losses)
        assert told.population.tolist() == population
        torch.testing.assert_close(
            told.losses, torch.tensor(kept, dtype=torch.float64), rtol=1e-12, atol=1e-12, equal_nan=True
        )
        for i, x in enumerate(told.population.tolist()):
            new = x == candidates[i].tolist()
            assert told.counts.tolist()[i] == (int(math.isfinite(losses[i])) if new else counts[i])
        assert len(info.losses) == 11 and told.evaluations == state.evaluations + 11
        best = min(range(9), key=lambda i: slow_de.scored(kept[i]))
        assert torch.equal(optimizer.recommend(told), told.population[best])
        state = told
    assert int(state.counts.max()) > 2


def test_old_members_are_given_up_but_never_the_best():
    optimizer = DE(9, "rand1bin", age=3, bounds=(-2.0, 2.0))
    points = torch.rand(9, DIM, generator=generator_for(5, 0), dtype=torch.float64)
    state, ages = optimizer.init(points), [0] * 9
    mean, deviation = points.mean(dim=0), points.std(dim=0, correction=0)
    for generation in range(12):
        given = optimizer.given_up(state).tolist()
        best = min(range(9), key=lambda i: slow_de.scored(state.losses.tolist()[i]))
        assert given == [generation > 0 and age >= 3 and i != best for i, age in enumerate(ages)]
        draws = optimizer.draw(state, generator_for(6, generation)) if generation else None
        candidates, asked = optimizer.ask(state, generator_for(6, generation))
        if draws is not None:
            assert (draws.fresh is None) == (not any(given))
            expected = slow_de.trials(
                state.population.tolist(),
                state.losses.tolist(),
                "rand1bin",
                listed(draws),
                [[-2.0] * DIM, [2.0] * DIM],
                "bounce",
            )
            fresh = None if draws.fresh is None else draws.fresh.tolist()
            start = mean.tolist(), deviation.tolist()
            expected = slow_de.replaced(expected, given, start, fresh, [[-2.0] * DIM, [2.0] * DIM])
            torch.testing.assert_close(candidates, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)
        assert bool(torch.isinf(optimizer.bound(asked)[torch.tensor(given)]).all())
        losses = (candidates - 0.5).abs().sum(dim=1) + (2.0 if generation > 4 else 0.0)  # none improves after a while
        told, _ = optimizer.tell(asked, candidates, losses)
        better = (losses < state.losses).tolist()
        ages = [0 if up or new else age + 1 for up, new, age in zip(given, better, ages, strict=True)]
        for i, up in enumerate(given):
            assert not up or torch.equal(told.population[i], candidates[i])
        assert told.ages.tolist() == ages
        state = told
    assert any(given)


def test_a_collapsed_population_starts_again_around_its_best():
    optimizer = DE(40, "best1bin", F=0.3, CR=0.9, restart=0.1)
    generator = generator_for(0, 7)
    points = 3 + 2 * torch.randn(40, 5, generator=generator, dtype=torch.float64)
    state, restarts = optimizer.init(points), 0
    for generation in range(60):
        before, given = state, optimizer.given_up(state)
        candidates, state = optimizer.ask(state, generator_for(8, generation))
        state, info = optimizer.tell(state, candidates, (candidates**2).sum(dim=1))
        assert state.spread == info.spread
        if generation:
            assert bool(given.any()) == (before.spread < 0.1 * before.start_spread)
        if given.any():
            restarts += 1
            assert int(given.sum()) == 39 and state.best_loss <= before.best_loss
            new = candidates[given]
            assert torch.equal(state.population[given], new)
            assert float((new.mean(dim=0) - points.mean(dim=0)).abs().max()) < 4 * 2.5 / math.sqrt(39)
            assert info.spread > 0.5 * before.start_spread
    assert restarts >= 2


OPTIONS = [{}, {"margin": 0.3}, {"reevaluate": 2}, {"reevaluate": 1, "margin": 0.1}, {"age": 2}, {"restart": 0.9}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_losses_above_the_bound_do_not_matter(options):
    optimizer = DE(9, "currenttopbest1bin", **options)
    state = told_state(optimizer)
    dropped = 0
    for generation in range(8):
        candidates, asked = optimizer.ask(state, generator_for(4, generation))
        bound, losses = optimizer.bound(asked), (candidates**2).sum(dim=1)
        assert bound.shape == losses.shape
        above = losses > bound
        dropped += int(above.sum())
        state, _ = optimizer.tell(asked, candidates, losses)
        for other in (torch.full_like(losses, math.nan), losses + 7, bound.nextafter(bound.new_tensor(math.inf))):
            told, _ = optimizer.tell(asked, candidates, torch.where(above, other, losses))
            for field in fields(state):
                a, b = getattr(told, field.name), getattr(state, field.name)
                same = torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0)) if isinstance(a, torch.Tensor) else a == b
                assert same, field.name
    assert dropped


def test_a_large_state_holds_no_more_than_it_says():
    """At most the population, and two rows more, in the state; with the trials two populations."""
    for options in ({}, {"reevaluate": 1, "margin": 0.1}, {"age": 5, "restart": 0.1}):
        optimizer = DE(16, unit=64, **options)
        candidates, state = optimizer.ask(optimizer.init(torch.rand(16, 6400)), generator_for(0, 0))
        state, _ = optimizer.tell(state, candidates, candidates.sum(dim=1))
        candidates, state = optimizer.ask(state, generator_for(0, 1))
        tensors = [getattr(state, field.name) for field in fields(state)]
        held = sum(t.untyped_storage().nbytes() for t in tensors if isinstance(t, torch.Tensor))
        assert held + candidates.untyped_storage().nbytes() < 2.4 * 16 * 6400 * 4


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
        ({"bounds_handling": "wrap"}, "'none', 'clip', 'bounce' or 'resample'"),
        ({"bounds": (-math.inf, 1.0), "bounds_handling": "resample"}, "finite bounds"),
        ({"unit": 0}, "unit: expected a whole number of at least 1, got 0"),
        ({"unit": 2.5}, "unit: expected a whole number"),
        ({"reevaluate": -1}, "reevaluate: expected a whole number of at least 0"),
        ({"reevaluate": 33}, "at most population_size=32, but got 33"),
        ({"age": 0}, "age: expected a whole number of at least 1"),
        ({"margin": -0.1}, "margin, a difference of losses"),
        ({"margin": math.nan}, "margin, a difference of losses"),
        ({"restart": 1.5}, "restart, a share of the start points' spread"),
        ({"jitter": 3.0}, r"jitter, .* in \[0, 2\]"),
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
    for bounds in (((0.0,) * (DIM - 1) + (0.6,), 1.0), (0.0, (1.0,) * (DIM - 1) + (0.4,))):  # one coordinate is beyond
        with pytest.raises(ValueError, match="within the bounds"):
            DE(9, bounds=bounds).init(torch.full((9, DIM), 0.5))


def test_units_must_divide_the_dimension():
    with pytest.raises(ValueError, match="multiple of unit=4, .* but the start points have 11 coordinates"):
        DE(9, unit=4).init(torch.rand(9, DIM))


def test_settings_are_values():
    assert DE(F=[0.5, 1.0]) == DE(F=(0.5, 1)) and hash(DE(F=[0.5, 1.0])) == hash(DE(F=(0.5, 1.0)))
    assert DE(bounds=(torch.zeros(2), 1)) == DE(bounds=([0, 0], 1.0))
    with pytest.raises(FrozenInstanceError):
        DE().F = 0.9


def test_a_whole_number_of_numpy_is_one():
    assert DE(population_size=np.int64(8)) == DE(population_size=8)
    assert type(DE(population_size=np.int64(8)).population_size) is int
