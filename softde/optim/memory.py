"""Large arrays on a CPU that take over the memory of arrays which are gone.

Every generation of a search needs as much memory as the one before it gave back. Where that went to the kernel, each
page is cleared and mapped again, which takes longer than what a generation of differential evolution computes.
"""

from __future__ import annotations

import math
import os
import threading

import numpy as np
import torch
from torch import Tensor

LEAST = 2**22  # bytes of an array that is worth it
MOST = 4  # arrays that wait: the trials' and the archive's, what is drawn for them, and one more


class _Pool:
    """Memory that waits for an array of just its size, as long as any is lent: while there are searches."""

    def __init__(self) -> None:
        self.lent = 0
        self.idle: list[Tensor] = []  # the longest waiting first
        self.lock = threading.RLock()  # reentrant: a loan may end while another begins

    def take(self, size: int) -> Tensor:
        with self.lock:
            fitting = [k for k, memory in enumerate(self.idle) if len(memory) == size]
            if fitting:
                return self.idle.pop(fitting[-1])
        return torch.empty(size, dtype=torch.uint8, device="cpu")

    def lend(self) -> None:
        with self.lock:
            self.lent += 1

    def take_back(self, memory: Tensor) -> None:
        with self.lock:
            self.lent -= 1
            self.idle.append(memory)
            del self.idle[: -MOST if self.lent else None]


_POOL = _Pool()
if hasattr(os, "register_at_fork"):  # a child must not find the lock taken by a thread that it does not have
    lock = _POOL.lock
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


class _Loan:
    """What an array owns in place of memory; the memory goes back when the array and all views of it are gone."""

    def __init__(self, memory: Tensor) -> None:
        self.__array_interface__ = memory.numpy().__array_interface__
        self._memory = memory
        _POOL.lend()

    def __del__(self) -> None:
        _POOL.take_back(self._memory)


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of any content, as ``torch.empty`` makes it, but that cannot be resized."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < LEAST:  # elsewhere torch keeps memory itself, small arrays the C library
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.asarray(_Loan(_POOL.take(size)))).view(dtype).view(shape)


def empty_like(tensor: Tensor) -> Tensor:
    """The same of a tensor's shape, dtype and device."""
    return empty(tuple(tensor.shape), tensor.dtype, tensor.device)
