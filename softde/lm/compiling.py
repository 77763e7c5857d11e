"""torch.compile, kept only where a model's own forwards become faster by it and stay right."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from softde.lm.network import Network

GAIN = 1.05  # at least so many times as fast, or it is not worth the memory
ROUNDS = 3


def compile_if_faster(network: Network, ask: Callable[[], Tensor], tolerance: float) -> str:
    """Compile the network's forward if that answers the same and faster; what came of it, in words.

    ask : a forward of the shapes to come, and its option log-probabilities. tolerance : of their difference.
    """
    expected, before = ask(), _seconds(network, ask)
    network.call = torch.compile(network.model)
    try:
        error = float((ask() - expected).nan_to_num(0.0, math.inf, math.inf).abs().max())
        after = _seconds(network, ask)
    except Exception as failure:  # whatever a compiler may raise, the model runs without it
        network.call = network.model
        return f"torch.compile fails ({type(failure).__name__}); going on without"
    if error > tolerance or before < GAIN * after:
        network.call = network.model
        why = f"differs by {error:.2g}" if error > tolerance else f"makes forwards {before / after:.2f} times as fast"
        return f"torch.compile {why}; going on without"
    return f"torch.compile makes forwards {before / after:.2f} times as fast; kept"


def _seconds(network: Network, ask: Callable[[], Tensor]) -> float:
    """Median wall time of a forward, the device's queue included."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        ask()
        if network.device.type == "cuda":
            torch.cuda.synchronize(network.device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
