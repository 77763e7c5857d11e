"""Large arrays on a CPU that take over the memory of arrays which are gone.

Every generation of a search needs as much memory as the one before it gave back. Where that went to the kernel, each
page is cleared and mapped again, which takes longer than what a generation of differential evolution computes.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

LEAST = 2**22  # bytes of an array that is worth it


@dataclass
class _Pool:
    """Memory of one size. It is kept for as long as some of it is lent: until the search that uses it is gone."""

    free: list[Tensor] = field(default_factory=list)
    lent: int = 0


_POOLS: dict[int, _Pool] = {}
_LOCK = threading.RLock()  # reentrant: a loan may end while another begins


class _Loan:
    """What an array owns in place of memory; the memory goes back when the array and all views of it are gone."""

    def __init__(self, size: int) -> None:
        with _LOCK:
            self._pool = _POOLS.setdefault(size, _Pool())
            self._pool.lent += 1
            free = self._pool.free.pop() if self._pool.free else None
        self._memory = torch.empty(size, dtype=torch.uint8) if free is None else free
        self.__array_interface__ = self._memory.numpy().__array_interface__

    def __del__(self) -> None:
        with _LOCK:
            self._pool.lent -= 1
            self._pool.free.append(self._memory)
            if not self._pool.lent:
                self._pool.free.clear()


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of any content, as ``torch.empty`` makes it."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < LEAST:  # elsewhere torch keeps memory itself, small arrays the C library
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.asarray(_Loan(size))).view(dtype).view(shape)


def empty_like(tensor: Tensor) -> Tensor:
    """The same of a tensor's shape, dtype and device."""
    return empty(tuple(tensor.shape), tensor.dtype, tensor.device)
