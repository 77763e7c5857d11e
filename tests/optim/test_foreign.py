"""Foreign: the examples of its page run, and a state can always be made again."""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter

import numpy as np
import pytest
import torch

from softde.optim import foreign, generations, generator_for, minimize, state_from_tensors, state_to_tensors
from softde.optim.base import filled
from softde.optim.foreign import Foreign
from tests.optim.functions import sphere

EXAMPLES = re.findall(r"::\n\n((?:    .*\n)+)", foreign.__doc__)
PACKAGES = dict(zip(("cma", "cmaes", "nevergrad", "evotorch"), EXAMPLES[1:], strict=True))  # the first is the pattern


def points(n=12, dim=6):
    return torch.randn(n, dim, generator=generator_for(0, 10**6), dtype=torch.float64) * 2


COUNTS: Counter[str] = Counter()


def shrinking(points, losses, seed):
    """Draws around the best point told; counts how often it was made, asked and told."""
    COUNTS["made"] += 1
    random, best, lowest, sigma = np.random.default_rng(seed), points[losses.argmin()], losses.min(), 1.0
    while True:
        COUNTS["asked"] += 1
        x = best + sigma * random.standard_normal((12, len(best)))
        losses = yield x
        COUNTS["told"] += 1
        sigma *= 0.95
        if losses.min() < lowest:
            best, lowest = x[losses.argmin()], losses.min()


@pytest.mark.filterwarnings("ignore")  # of the packages, about their own dependencies
@pytest.mark.parametrize("package", PACKAGES)
def test_the_examples_keep_the_contract(package):
    """cma is installed for developing; the others where somebody has them."""
    pytest.importorskip(package, reason=f"{package} is not installed")
    space: dict = {"Foreign": Foreign}
    exec(textwrap.dedent(PACKAGES[package]), space)
    optimizer = space["optimizer"]
    first, again = (list(generations(optimizer, optimizer.init(points()), sphere, 12 * 20, 3)) for _ in range(2))
    assert first[-1].info == again[-1].info and torch.equal(first[-1].candidates, again[-1].candidates)
    assert first[-1].state.best_loss < first[0].state.best_loss
    saved = state_from_tensors(optimizer, *state_to_tensors(first[9].state))
    rest = list(generations(optimizer, saved, sphere, 12 * 20, 3))
    assert [step.info for step in rest] == [step.info for step in first[10:]]
    branch = list(generations(optimizer, first[9].state, lambda x: sphere(x - 1), 12 * 20, 3))
    assert torch.equal(branch[0].candidates, rest[0].candidates) and branch[-1].info != rest[-1].info
    for bad in (float("nan"), float("inf")):
        result = minimize(lambda x, bad=bad: sphere(x).where(sphere(x) < 30, bad), optimizer, points(), 240)
        assert np.isfinite(result.best_loss)


def test_the_search_begins_once_unless_it_branches():
    COUNTS.clear()
    optimizer = Foreign(shrinking, 12)
    results = list(generations(optimizer, optimizer.init(points()), sphere, 12 * 10))
    assert (COUNTS["made"], COUNTS["asked"], COUNTS["told"]) == (1, 9, 8)  # the last losses wait for another ask
    list(generations(optimizer, results[4].state, sphere, 12 * 6))  # five told, one of them start points: all again
    assert (COUNTS["made"], COUNTS["asked"], COUNTS["told"]) == (2, 9 + 5, 8 + 4)
    asks = [optimizer.ask(results[9].state, generator_for(0, 10)) for _ in range(2)]  # one of them begins anew
    states = [optimizer.tell(asked, x, [loss] * 12)[0] for x, asked in asks for loss in (1.0, 2.0)]
    for state in states:  # and one of either two
        optimizer.ask(state, generator_for(0, 11))
    assert COUNTS["made"] == 2 + 1 + 2


def test_nothing_of_dim_numbers_is_kept_but_the_start_points():
    optimizer = Foreign(shrinking, 12)
    state = minimize(sphere, optimizer, points(dim=1000), 12 * 30).state
    tensors, numbers = state_to_tensors(state)
    assert sum(tensor.numel() for tensor in tensors.values()) == 12 * 1000 + 1000 + 2 * state.evaluations
    assert "live" not in numbers and state.live


def test_what_a_search_does_to_its_arrays_changes_no_state():
    def spoiling(points, losses, seed):  # noqa: ARG001
        points[:], losses[:] = 1.0, 2.0
        while True:
            heard = yield points
            heard[:] = 3.0

    optimizer = Foreign(spoiling, 12)
    state = list(generations(optimizer, optimizer.init(points()), sphere, 12 * 4))[-1].state
    assert torch.equal(state.points, points()) and torch.equal(state.told[0, 0], sphere(points()))
    assert (state.told[1:, 0] == 6.0).all()


def test_unscored_candidates_are_told_as_the_worst_so_far():
    heard = []

    def listening(points, losses, seed):  # noqa: ARG001
        heard.append(losses.tolist())
        while True:
            heard.append((yield points).tolist())

    optimizer = Foreign(listening, 12)
    state = optimizer.init(points())
    for told in ([float("nan")] * 12, [-5.0] * 6 + [float("nan")] * 6, [float("-inf")] * 11 + [-7.0], [-8.0] * 12):
        candidates, state = optimizer.ask(state, generator_for(0, state.generation))
        state, _ = optimizer.tell(state, candidates, told)
    optimizer.ask(state, generator_for(0, 4))
    assert heard == [[0.0] * 12, [-5.0] * 6 + [0.0] * 6, [0.0] * 11 + [-7.0], [-8.0] * 12]


def test_the_worst_so_far_is_of_scored_candidates():
    assert filled(torch.tensor([1.0, math.nan, 3.0]), torch.zeros(0)).tolist() == [1.0, 3.0, 3.0]
    assert filled(torch.tensor([1.0, math.inf]), torch.tensor([[-4.0, 2.0]])).tolist() == [1.0, 2.0]
    assert filled(torch.tensor([-1.0, -math.inf]), torch.tensor([[-4.0]])).tolist() == [-1.0, -1.0]


def test_an_optimiser_that_does_not_repeat_itself_is_refused():
    def unseeded(points, losses, seed):  # noqa: ARG001
        return shrinking(points, losses, None)

    optimizer = Foreign(unseeded, 12)
    state = list(generations(optimizer, optimizer.init(points()), sphere, 12 * 4))[-1].state
    loaded = state_from_tensors(optimizer, *state_to_tensors(state))
    with pytest.raises(ValueError, match="Expected a search that repeats itself"):
        optimizer.ask(loaded, generator_for(0, 4))


def test_a_search_that_ends_is_refused():
    def short(points, losses, seed):  # noqa: ARG001
        yield points

    with pytest.raises(ValueError, match="Expected a search that goes on for ever, but it ended: use `while True`"):
        minimize(sphere, Foreign(short, 12), points(), 100)


@pytest.mark.parametrize("wrong", [np.zeros((11, 6)), np.zeros((12, 5)), np.zeros(6), np.full((12, 6), np.nan)])
def test_an_optimiser_that_asks_for_something_else_is_refused(wrong):
    def other(points, losses, seed):  # noqa: ARG001
        while True:
            yield wrong

    with pytest.raises(ValueError, match=r"asks for \(12, 6\) finite numbers, \(population, dim\), but got shape"):
        minimize(sphere, Foreign(other, 12), points(), 100)


@pytest.mark.parametrize(
    ("wrong", "got"),
    {
        "nothing": (None, "None"),
        "objects": ([object()] * 12, "list"),
        "words": ([["a"] * 6] * 12, "list"),
        "ragged rows": ([[0.0] * 6] * 11 + [[0.0]], "list"),
        "complex numbers": (np.zeros((12, 6), complex), "ndarray"),
        "a part of a graph": (torch.zeros(12, 6, requires_grad=True), "Tensor"),
    }.values(),
)
def test_an_optimiser_that_asks_for_no_numbers_is_refused(wrong, got):
    def other(points, losses, seed):  # noqa: ARG001
        while True:
            yield wrong

    message = rf"Expected a search that yields rows of numbers, .*, but got {got} \(.*\): yield one row for each"
    with pytest.raises(ValueError, match=f"(?s){message}"):
        minimize(sphere, Foreign(other, 12), points(), 100)


@pytest.mark.parametrize(
    "ones",
    [*(np.ones((12, 6), kind) for kind in ("float32", "int64", "bool")), torch.ones(12, 6), [[1] * 6] * 12],
    ids=["float32", "int64", "bool", "tensor", "list"],
)
def test_rows_of_numbers_of_any_kind_are_read(ones):
    def constant(points, losses, seed):  # noqa: ARG001
        while True:
            yield ones

    optimizer = Foreign(constant, 12)
    last = list(generations(optimizer, optimizer.init(points()), sphere, 24))[-1]
    assert torch.equal(last.candidates, torch.ones(12, 6, dtype=torch.float64))


def test_an_error_within_a_search_is_its_own():
    def broken(points, losses, seed):  # noqa: ARG001
        yield points
        raise TypeError("theirs")

    with pytest.raises(TypeError, match="theirs"):
        minimize(sphere, Foreign(broken, 12), points(), 100)


def test_a_search_is_a_function_that_makes_a_generator():
    for wrong, got in ((4, "4"), ("cma", "'cma'"), (None, "None"), (shrinking(points(), np.zeros(12), 1), "generator")):
        with pytest.raises(ValueError, match=rf"search: expected a function \(points, .*candidates, got {got}"):
            Foreign(wrong, 4)
    for returned, got in ((None, "None"), (points(), "Tensor")):
        optimizer = Foreign(lambda *_, returned=returned: returned, 12)
        with pytest.raises(ValueError, match=f"Expected a search that is a generator, but got {got}: let it `yi"):
            minimize(sphere, optimizer, points(), 100)


def test_population_size_is_a_whole_number():
    with pytest.raises(ValueError, match="population_size: expected a whole number of at least 1, got 0"):
        Foreign(shrinking, 0)
