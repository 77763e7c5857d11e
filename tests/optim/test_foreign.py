"""Foreign: the examples of its page run, and a state can always be made again."""

from __future__ import annotations

import re
import textwrap

import numpy as np
import pytest
import torch

from softde.optim import foreign, generations, generator_for, minimize, state_from_tensors, state_to_tensors
from softde.optim.foreign import Foreign
from tests.optim.functions import sphere

EXAMPLES = re.findall(r"::\n\n((?:    .*\n)+)", foreign.__doc__)
PACKAGES = {"cma": EXAMPLES[0], "cmaes": EXAMPLES[1], "nevergrad": EXAMPLES[2], "evotorch": EXAMPLES[3]}


def points(n=12, dim=6):
    return torch.randn(n, dim, generator=generator_for(0, 10**6), dtype=torch.float64) * 2


class Shrinking:
    """Draws around the best point told; counts how often it was made, asked and told."""

    made = asked = told = 0

    def __init__(self, points, losses, seed):
        assert (np.diff(losses) >= 0).all()
        self.random, self.best, self.loss, self.sigma = np.random.default_rng(seed), points[0], losses[0], 1.0
        Shrinking.made += 1

    def ask(self):
        Shrinking.asked += 1
        return self.best + self.sigma * self.random.standard_normal((12, len(self.best)))

    def tell(self, x, losses):
        Shrinking.told += 1
        self.sigma *= 0.95
        if losses.min() < self.loss:
            self.best, self.loss = x[losses.argmin()], losses.min()


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


def test_the_object_is_made_once_unless_the_search_branches():
    Shrinking.made = Shrinking.asked = Shrinking.told = 0
    optimizer = Foreign(Shrinking, 12)
    results = list(generations(optimizer, optimizer.init(points()), sphere, 12 * 10))
    assert (Shrinking.made, Shrinking.asked, Shrinking.told) == (1, 9, 9)
    list(generations(optimizer, results[4].state, sphere, 12 * 6))  # five told, one of them start points: four again
    assert (Shrinking.made, Shrinking.asked, Shrinking.told) == (2, 9 + 5, 9 + 5)


def test_nothing_of_dim_numbers_is_kept_but_the_start_points():
    optimizer = Foreign(Shrinking, 12)
    state = minimize(sphere, optimizer, points(dim=1000), 12 * 30).state
    tensors, _ = state_to_tensors(state)
    assert sum(tensor.numel() for tensor in tensors.values()) == 12 * 1000 + 1000 + 2 * state.evaluations


def test_unscored_candidates_are_told_as_the_worst_so_far():
    heard = []

    class Listener(Shrinking):
        def tell(self, x, losses):
            heard.append(losses.tolist())

    optimizer = Foreign(Listener, 12)
    state = optimizer.init(points())
    for told in ([float("nan")] * 12, [5.0] * 6 + [float("nan")] * 6, [float("-inf")] * 11 + [1.0]):
        candidates, state = optimizer.ask(state, generator_for(0, state.generation))
        state, _ = optimizer.tell(state, candidates, told)
    assert heard == [[5.0] * 12, [5.0] * 11 + [1.0]]


def test_an_optimiser_that_does_not_repeat_itself_is_refused():
    class Unseeded(Shrinking):
        def __init__(self, points, losses, seed):
            super().__init__(points, losses, None)

    optimizer = Foreign(Unseeded, 12)
    state = list(generations(optimizer, optimizer.init(points()), sphere, 12 * 4))[-1].state
    loaded = state_from_tensors(optimizer, *state_to_tensors(state))
    with pytest.raises(ValueError, match="Expected an optimiser that repeats itself"):
        optimizer.ask(loaded, generator_for(0, 4))


@pytest.mark.parametrize("wrong", [np.zeros((11, 6)), np.zeros((12, 5)), np.zeros(6), np.full((12, 6), np.nan)])
def test_an_optimiser_that_asks_for_something_else_is_refused(wrong):
    class Other(Shrinking):
        def ask(self):
            return wrong

    with pytest.raises(ValueError, match=r"asks for \(12, 6\) finite numbers, \(population, dim\), but got shape"):
        minimize(sphere, Foreign(Other, 12), points(), 100)


def test_population_size_is_a_whole_number():
    with pytest.raises(ValueError, match="population_size: expected a whole number of at least 1, got 0"):
        Foreign(Shrinking, 0)
