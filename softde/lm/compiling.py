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


def compile_if_faster(network: Network, ask: Callable[[Network], Tensor], tolerance: float) -> tuple[Network, str]:
    """The network compiled, if that answers the same and faster, or else as it is; and what was found, in words.

    ask : a forward of the shapes to come, and its option log-probabilities. tolerance : of their difference.
    """
    expected, before = ask(network), _seconds(network, ask)
    try:
        compiled = network.compiled()
        error = float((ask(compiled) - expected).nan_to_num(0.0, math.inf, math.inf).abs().max())
        after = _seconds(compiled, ask)
    except Exception as failure:  # whatever a compiler may raise, the model runs without it
        return network, f"torch.compile fails ({failure}); going on without"
    if error > tolerance:
        return network, f"torch.compile differs by {error:.2g}; going on without"
    gain = f"torch.compile makes forwards {before / after:.2f} times as fast"
    return (compiled, f"{gain}; kept") if before > GAIN * after else (network, f"{gain}; going on without")


def _seconds(network: Network, ask: Callable[[Network], Tensor]) -> float:
    """Median wall time of a forward, the device's queue included."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        ask(network)
        if network.device.type == "cuda":
            torch.cuda.synchronize(network.device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
