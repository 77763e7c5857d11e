"""Arrays that take over memory: never while anything still looks at it, and no longer than a search lasts."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from softde.optim import DE, generator_for, memory

SIZE = memory.LEAST // 4  # numbers in float32
CPU = torch.device("cpu")


def lent():
    gc.collect()
    return {size: pool.lent for size, pool in memory._POOLS.items() if pool.lent}


@pytest.fixture(autouse=True)
def _all_memory_comes_back():
    before = lent()
    yield
    assert lent() == before


def pool():
    return memory._POOLS[memory.LEAST]


def array():
    return memory.empty((2, SIZE // 2), torch.float32, CPU)


def test_the_next_array_takes_over_the_memory_of_one_that_is_gone():
    keeper, one = array(), array()
    place = one.data_ptr()
    assert one.shape == (2, SIZE // 2) and one.is_contiguous() and place % 64 == 0
    del one
    two = array()
    assert two.data_ptr() == place != keeper.data_ptr()


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[1, 3:],
        lambda x: x.numpy(),
        lambda x: x.view(torch.int32),
        lambda x: np.from_dlpack(x),
        lambda x: list(x.unbind()),
        lambda x: x.untyped_storage(),
        lambda x: torch.nn.Parameter(x),
    ],
    ids=["slice", "numpy", "dtype", "dlpack", "rows", "storage", "parameter"],
)
def test_memory_that_somebody_looks_at_is_not_taken(view):
    keeper, one = array(), array()
    place = one.data_ptr()
    held = view(one)
    del one
    assert array().data_ptr() != place
    del held
    assert array().data_ptr() == place
    del keeper


def test_copies_own_their_memory():
    one = array().fill_(3)
    others = [copy.deepcopy(one), one.clone(), one.to(torch.float64)]
    del one
    array().fill_(7)
    assert all(bool((other == 3).all()) for other in others)


def test_nothing_is_kept_once_all_are_gone():
    one, two = array(), array()
    del one
    assert len(pool().free) == 1
    del two
    assert not pool().lent and not pool().free


def test_small_arrays_and_those_elsewhere_are_as_torch_makes_them():
    memory.empty((SIZE - 1,), torch.float32, CPU)
    assert memory.LEAST - 4 not in memory._POOLS
    assert memory.empty((SIZE,), torch.float32, torch.device("meta")).device.type == "meta"


def test_threads_never_share_memory():
    wrong = []

    def work(number):
        for _ in range(50):
            held = [array().fill_(number) for _ in range(3)]
            wrong.extend(number for each in held if not bool((each == number).all()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_search_in_recycled_memory_equals_one_whose_states_are_all_kept():
    """The same search twice: once its memory is used again, once everything it ever made is held on to."""

    def search(keep):
        optimizer = DE(8, unit=SIZE // 8)
        state = optimizer.init(torch.rand(8, SIZE // 4, generator=generator_for(0, 0)))
        for generation in range(6):
            candidates, asked = optimizer.ask(state, generator_for(0, generation))
            state, _ = optimizer.tell(asked, candidates, (candidates**2).sum(dim=1))
            keep.extend([candidates, asked, state])
        return state

    class Nothing(list):
        def extend(self, _):
            pass

    kept, recycled = search([]), search(Nothing())
    assert torch.equal(kept.population, recycled.population) and kept.best_loss == recycled.best_loss


PEAK = """
import torch
from pathlib import Path
from softde.optim import DE, generator_for

def resident(name):
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").open() if line.startswith(name))

def generation(state, losses):
    candidates, asked = optimizer.ask(state, generator_for(0, state.generation))
    return optimizer.tell(asked, candidates, losses - state.generation * (torch.arange(64) % 3 == 0))[0]

torch.set_num_threads(1)
optimizer, losses = DE(64), torch.rand(64)
small = optimizer.init(torch.zeros(64, 4096))
for _ in range(3):
    small = generation(small, losses)
before = resident("VmRSS")
state = optimizer.init(torch.zeros(64, 204_800).normal_())
for _ in range(4):
    state = generation(state, losses)
print((resident("VmHWM") - before) / (4 * 64 * 204_800))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's peak of the resident memory is read from /proc")
def test_a_large_population_stays_under_four_copies():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert 2 < float(done.stdout) < 4
