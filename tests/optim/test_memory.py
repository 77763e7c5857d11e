"""Arrays that take over memory: never while anything still looks at it, and no longer than a search lasts."""

from __future__ import annotations

import copy
import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from softde.optim import DE, generator_for, memory
from softde.optim.adaptive import SHADE
from softde.optim.pso import PSO

SIZE = memory.LEAST // 4  # numbers in float32
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _all_memory_comes_back():
    gc.collect()
    before = memory._POOL.lent
    yield
    gc.collect()
    assert memory._POOL.lent == before


@pytest.fixture
def pool(monkeypatch):
    """A pool of its own, which counts what it has to allocate."""

    class Counting(memory._Pool):
        fresh = 0

        def take(self, size):
            waiting = len(self.idle)
            found = super().take(size)
            self.fresh += len(self.idle) == waiting
            return found

    found = Counting()
    monkeypatch.setattr(memory, "_POOL", found)
    yield found
    gc.collect()


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


def test_nothing_is_kept_once_all_are_gone(pool):
    one, two = array(), memory.empty((2 * SIZE,), torch.float64, CPU)
    del one
    assert (pool.lent, len(pool.idle)) == (1, 1)
    del two
    assert (pool.lent, len(pool.idle)) == (0, 0)


def test_no_more_waits_than_a_generation_needs(pool):
    keeper, many = array(), [array() for _ in range(10)]
    del many
    assert (pool.lent, len(pool.idle)) == (1, memory.MOST)
    last = array()
    place = last.data_ptr()
    del last
    assert array().data_ptr() == place  # the latest is the likeliest to be in the cache
    del keeper


@pytest.mark.parametrize(
    "optimizer", [DE(8), DE(8, unit=8, jitter=0.2), SHADE(8), PSO(8)], ids=["DE", "jitter", "SHADE", "PSO"]
)
def test_a_search_allocates_no_more_after_its_first_generations(optimizer, pool):
    state = optimizer.init(torch.rand(8, SIZE // 4, generator=generator_for(0, 0)))
    counts = []
    for generation in range(9):
        candidates, state = optimizer.ask(state, generator_for(0, generation))
        state, _ = optimizer.tell(state, candidates, torch.arange(8) % 2 - generation)  # all are accepted
        counts.append(pool.fresh)
    assert counts[3] == counts[-1] > 0
    assert isinstance(optimizer, PSO) or counts[-1] <= 8
    del candidates, state
    gc.collect()
    assert not pool.idle


def test_small_arrays_and_those_elsewhere_are_as_torch_makes_them(pool):
    small = memory.empty((SIZE - 1,), torch.float32, CPU)
    assert memory.empty((SIZE,), torch.float32, torch.device("meta")).device.type == "meta"
    assert not pool.lent and len(small) == SIZE - 1
    with torch.device("meta"):  # a default device changes nothing
        assert memory.empty((SIZE,), torch.float32, CPU).device.type == "cpu"


def test_what_cannot_be_had_is_an_error_without_noise(pool, recwarn):
    with pytest.raises(RuntimeError, match="alloc"):
        memory.empty((2**50,), torch.uint8, CPU)
    gc.collect()
    assert not pool.lent and not recwarn.list


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_finds_the_lock_free():
    """A thread holds the lock for a moment while the process forks; the child must still be able to use the pool."""
    script = """
import os, threading, time, torch
from softde.optim import memory
held = threading.Event()
def hold():
    with memory._POOL.lock:
        held.set()
        time.sleep(0.3)
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if not child:
    memory.empty((memory.LEAST,), torch.uint8, torch.device("cpu"))
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "7"


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
import sys
import torch
from pathlib import Path
from softde.optim import DE, SHADE, GaussNewton, generator_for
from softde.optim.base import informed

def resident(name):
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").open() if line.startswith(name))

def generation(state, losses):
    candidates, asked = optimizer.ask(state, generator_for(0, state.generation))
    asked = informed(optimizer, asked, torch.randn(64, 6, generator=generator_for(1, state.generation)))
    return optimizer.tell(asked, candidates, losses - state.generation * (torch.arange(64) % 3 == 0))[0]

torch.set_num_threads(1)
optimizer, dim, losses = eval(sys.argv[1]), int(sys.argv[2]), torch.rand(64)
small = optimizer.init(torch.zeros(64, 4096))
for _ in range(3):
    small = generation(small, losses)
before = resident("VmRSS")
state = optimizer.init(torch.zeros(64, dim).normal_())
for _ in range(int(sys.argv[3])):
    state = generation(state, losses)
print((resident("VmHWM") - before) / (4 * 64 * dim))
"""


def most(optimizer: str, dim: int, generations: int) -> float:
    """Copies of a population of 64 that a search takes at most."""
    command = [sys.executable, "-c", PEAK, optimizer, str(dim), str(generations)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's peak of the resident memory is from /proc")


@on_linux
def test_a_large_population_stays_under_four_copies():
    assert 2 < most("DE(64)", 204_800, 4) < 4


@on_linux
def test_gauss_newton_steps_take_what_they_keep_and_once_that_in_float64():
    """SHADE's own 8 copies at most, the candidates of 4 generations, and these in float64 for a step: 8 + 4 + 8."""
    assert 4 + 8 < most("GaussNewton(SHADE(64))", 51_200, 6) < 8 + 4 + 8 + 2
