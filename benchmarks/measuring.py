"""What the benchmarks need to measure: time, memory, and the work that a way of asking cannot do without."""

from __future__ import annotations

import ctypes
import gc
import platform
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from softde.lm import Question

T = TypeVar("T")
LINUX = platform.system() == "Linux"
MATMUL = 8192  # side of the large matrix product that a GPU's speed is compared with


class Work(NamedTuple):
    """What has to be computed for one candidate: tokens through the layers, the (token, earlier token) pairs that
    attention looks at, and the positions whose logits are read.
    """

    tokens: int
    pairs: int
    read: int

    def flops(self, model: Any) -> float:
        """Two per weight and token, four per pair and attention width (q·k and the sum over v), and the head."""
        config = model.config.get_text_config()
        head = model.get_output_embeddings().weight.numel()
        layers = sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()
        layers -= 0 if config.tie_word_embeddings else head
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        attention = 4 * config.num_hidden_layers * config.num_attention_heads * width
        return float(2 * layers * self.tokens + attention * self.pairs + 2 * head * self.read)


def unshared(questions: Sequence[Question], soft: int, more: int = 0) -> Work:
    """Every question from its first token, and `more` generated tokens behind it."""
    lengths = [q.length + soft + more for q in questions]
    return Work(sum(lengths), sum(n * (n + 1) // 2 for n in lengths), (1 + more) * len(lengths))


def shared(questions: Sequence[Question], soft: int) -> Work:
    """The least that exact answers need: what stands before the soft tokens is the same for all candidates and free,
    soft tokens are computed once for every text before them, and what follows once for every different beginning.
    """
    texts = {q.prefix_ids for q in questions}
    grown = {(q.prefix_ids, q.suffix_ids[:i]) for q in questions for i in range(1, len(q.suffix_ids) + 1)}
    places = [len(text) + i for text in texts for i in range(soft)]
    places += [len(text) + soft + len(beginning) - 1 for text, beginning in grown]
    return Work(len(places), sum(place + 1 for place in places), len(questions))


def synchronise(device: torch.device) -> None:
    """Wait for the device's queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, the device's queue included."""
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def held(device: torch.device) -> int:
    """Bytes in use now, after everything that can be given back was."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated(device)
    if LINUX:
        ctypes.CDLL(None).malloc_trim(0)
        return _status("VmRSS")
    return _largest()


def with_peak(run: Callable[[], T], device: torch.device) -> tuple[T, int]:
    """Result of one call, and the most bytes in use meanwhile.

    CPU: resident memory of the process, as the kernel counts it; where that cannot be reset (not Linux), the
    process's largest so far.
    """
    held(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        result = run()
        synchronise(device)
        return result, torch.cuda.max_memory_allocated(device)
    if LINUX:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        result = run()
        return result, _status("VmHWM")
    return run(), _largest()


def matmul(device: torch.device) -> Callable[[], object]:
    """One large bfloat16 product, 2 · MATMUL³ operations."""
    left, right = (torch.randn(MATMUL, MATMUL, device=device, dtype=torch.bfloat16) for _ in range(2))
    return lambda: left @ right


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) * 1024


def _largest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def profile(run: Callable[[], object], device: torch.device) -> str:
    """What one call spends its time on: the operations that take most."""
    from torch.profiler import ProfilerActivity

    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with torch.profiler.profile(activities=kinds) as seen:
        run()
        synchronise(device)
    by = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return str(seen.key_averages().table(sort_by=by, row_limit=15, max_name_column_width=40))


def processor() -> str:
    """The CPU's name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> str:
    """Of the packages that the speed depends on."""
    import transformers

    return f"torch {torch.__version__}, transformers {transformers.__version__}"
