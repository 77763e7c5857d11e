"""What one generation of an optimiser costs besides its questions: ask and tell, softde beside other libraries.

    python benchmarks/bench_optim_overhead.py                    # the other libraries: requirements-peers.txt
    python benchmarks/bench_optim_overhead.py --device cuda      # softde alone, against a generation of Llama-3-8B

One process, one thread, one core. Fitness comes from a table in which 30 % of the trials improve. All optimisers and a
copy of the population are timed in turn, in another order each round; the first rounds, which compile, are dropped, and
the median counts. The copy is of the float32 population, between arrays that others have driven out of the cache.
Prints Markdown tables and a verdict per target; with --check the exit code is 1 if one is missed.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import random
import re
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import measuring
import torch
from overhead_rows import LIBRARIES, OURS, PEERS, TOKEN, Generation, Row, fitness, installed

import softde
from softde.optim import generator_for

SHAPES = ((32, 20_480), (64, 40_960), (64, 204_800))
QUICK = ((16, 8_192),)
JUDGED = (64, 40_960)  # where targets hold: 10 tokens of Llama-3-8B
DROPPED = 3  # rounds: the start population, and twice compiling
ROUNDS = 10
CAP = 6.0  # seconds per optimiser and shape, after which it is timed no more
YARDSTICK = "DE rand1bin"
COLUMNS = ("optimiser", "ms", "× copy", f"× softde {YARDSTICK}", "floor, MB", "× floor", "rounds")
# Weights of Llama-3-8B that every token is multiplied with, and those of its head, for tokens whose answer is read.
LAYERS = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
HEAD = 4096 * 128_256
HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
SHARE = 0.02  # of a generation's time
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
ONE_THREAD = {
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}  # fmt: skip


@dataclass
class Timed:
    """One optimiser at one shape. note : why there are no times."""

    row: Row
    generation: Generation | None = None
    note: str = ""
    times: list[float] = field(default_factory=list)

    @property
    def counted(self) -> list[float]:
        return self.times[DROPPED:]

    @property
    def seconds(self) -> float:
        return statistics.median(self.counted)

    def goes_on(self, cap: float) -> bool:
        return self.generation is not None and sum(self.counted) < cap


@dataclass(frozen=True)
class Table:
    """What was measured at one shape; copy : seconds of a copy of the population."""

    shape: tuple[int, int]
    copy: float
    rows: Sequence[Timed]

    @property
    def array(self) -> float:
        """Bytes of the population."""
        return 4.0 * self.shape[0] * self.shape[1]

    def floor(self, row: Row) -> float:
        """Seconds: the bytes that must be touched, at the speed of the copy, which reads and writes."""
        return row.floor.bytes(*self.shape) / (2 * self.array) * self.copy

    def seconds(self, name: str) -> float | None:
        return next((timed.seconds for timed in self.rows if timed.row.name == name and timed.counted), None)


# ---- measuring -------------------------------------------------------------------------------------------------------


def start(row: Row, points: torch.Tensor) -> Timed:
    """The optimiser, ready for its first generation; what cannot be had becomes a note."""
    if row.missing:
        return Timed(row, note="not installed")
    try:
        return Timed(row, row.drive(points, fitness(len(points))))
    except ImportError as error:  # ours, without cma
        return Timed(row, note=str(error))


def measure(
    size: tuple[int, int], rows: Sequence[Row], device: torch.device, rounds: int, cap: float, clock: Clock
) -> Table:
    """Every row in turn, round after round."""
    n, dim = size
    points = torch.randn(n, dim, generator=generator_for(0, 0)).to(device)
    target, copies, shuffled = torch.empty_like(points), [], random.Random(0)
    table = []
    for row in rows:
        say(f"({n}, {dim:,}) {row.name}")
        table.append(start(row, points))
    for number in range(DROPPED + rounds):
        say(f"({n}, {dim:,}) round {number + 1} of {DROPPED + rounds}")
        active = [timed for timed in table if timed.goes_on(cap)]
        for timed in shuffled.sample(active, len(active)):
            assert timed.generation is not None  # goes_on
            copies.append(elapsed(lambda: target.copy_(points), device, clock))
            timed.times.append(elapsed(timed.generation, device, clock))
    for timed in table:
        timed.generation = None  # its population
    gc.collect()
    return Table(size, statistics.median(copies), table)


def elapsed(run: Callable[[], object], device: torch.device, clock: Clock) -> float:
    """Seconds of one call, the device's queue included."""
    measuring.synchronise(device)
    start = clock()
    run()
    measuring.synchronise(device)
    return clock() - start


def least_generation(candidates: int, dim: int, device: torch.device) -> tuple[float, str]:
    """Seconds that Llama-3-8B needs at least for the candidates of a generation, and where they come from.

    Counted are the tokens that exact answers cannot do without (VSM13, soft tokens late, texts of the embedded
    tokenizer), each through all layers, at the speed of a large bfloat16 matrix product on this device. Attention,
    reading weights and everything else is free.
    """
    lm = softde.LM.from_pretrained("tiny", device="cpu")
    work = measuring.shared(lm.plan(softde.load_survey("vsm13"), None, "late", "forward").questions, dim // TOKEN)
    product = measuring.matmul(device)
    best = min(measuring.seconds(product, device) for _ in range(20))
    return candidates * (LAYERS * work.tokens + HEAD * work.read) / measuring.MATMUL**3 * best, ESTIMATED


# ---- showing ---------------------------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """One row per optimiser; the fastest first, softde's in bold, those without times last."""
    (n, dim), de = table.shape, table.seconds(YARDSTICK)
    speed = f"{2 * table.array / table.copy / 1e9:.0f} GB/s read and written"
    lines = [
        f"### ({n}, {dim:,})\n",
        f"A copy of the population takes {table.copy * 1e3:.3g} ms ({speed}).\n",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
    ]
    there = sorted((timed for timed in table.rows if timed.counted), key=lambda timed: timed.seconds)
    for timed in there:
        row, seconds = timed.row, timed.seconds
        cells = [
            row.shown,
            digits(seconds * 1e3),
            digits(seconds / table.copy),
            digits(seconds / de) if de else "–",
            digits(row.floor.bytes(n, dim) / 1e6),
            digits(seconds / table.floor(row)),
            str(len(timed.counted)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    rest = " |" * (len(COLUMNS) - 1)
    lines += [f"| {timed.row.name} | {timed.note}{rest}" for timed in table.rows if not timed.counted]
    return "\n".join(lines)


def digits(value: float) -> str:
    """Three of them."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def verdicts(tables: Sequence[Table], device: torch.device, generation: float | None) -> list[tuple[bool, str]]:
    """(reached, sentence) for every target; what was not measured is missed."""
    judged = next((table for table in tables if table.shape == JUDGED), None)
    if judged is None:
        return []
    if device.type == "cuda":
        there = [timed for timed in judged.rows if timed.counted]
        return [
            at_most(f"{t.row.name}, share of a generation", generation and t.seconds / generation, SHARE) for t in there
        ]
    de, token = judged.seconds(YARDSTICK), judged.seconds(f"{YARDSTICK}, per token")
    peers = {timed.row.name: timed.seconds for timed in judged.rows if not timed.row.ours and timed.counted}
    fastest = min(peers, key=lambda name: peers[name], default="every peer")

    def faster(name: str) -> float | None:
        return peers[name] / de if de and name in peers else None

    return [
        at_least("against SciPy's rand1bin, times as fast", faster("scipy DE rand1bin"), 4),
        at_least("against pymoo's rand1bin, times as fast", faster("pymoo DE/rand/1/bin"), 50),
        at_least(f"against the fastest peer ({fastest}), times as fast", faster(fastest), 1),
        at_most("crossover per token, × floor", token and token / judged.copy, 8),
        at_most("binomial crossover, × floor", de and de / judged.copy, 15),
    ]


def at_least(what: str, value: float | None, wanted: float) -> tuple[bool, str]:
    reached = value is not None and value >= wanted
    return reached, f"{what}: {'not measured' if value is None else digits(value)}, at least {wanted:g}"


def at_most(what: str, value: float | None, wanted: float) -> tuple[bool, str]:
    reached = value is not None and value <= wanted
    return reached, f"{what}: {'not measured' if value is None else digits(value)}, at most {wanted:g}"


def machine(device: torch.device) -> str:
    """What the numbers belong to."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else measuring.processor()
    libraries = "" if device.type == "cuda" else "; " + ", ".join(map(installed, LIBRARIES))
    pages = " with huge pages" if HUGE_PAGES.items() <= os.environ.items() else ""
    return f"{name}, {torch.get_num_threads()} thread, torch {torch.__version__}{pages}{libraries}"


HOW = (
    "Times are medians of up to {rounds} interleaved rounds; the objective is left out, 30 % of the trials improve. "
    "DE has F = 0.5 and CR = 0.9 where one can choose."
)
FLOORS = (
    "Floor: the bytes that an algorithm must touch in float32, at the speed of the copy. An array has the population's "
    "size, and the copy touches two. Drawn numbers are not drawn again, vectors of length dim are left out."
)
GENERATION = (
    "A generation of {n} candidates of Llama-3-8B takes {seconds:.3g} s ({source}); ask and tell may take {share:.0%} "
    "of it."
)
ESTIMATED = "the least it can: necessary tokens × weights at the speed of a large bfloat16 product here"


def report(
    tables: Sequence[Table],
    device: torch.device,
    rounds: int,
    found: Sequence[tuple[bool, str]],
    generation: tuple[float, str] | None,
) -> str:
    """The page: what it was measured on, the tables, how floors are counted, the verdicts."""
    floors = {timed.row.floor.why: timed.row.floor for table in tables for timed in table.rows}
    parts = [f"{machine(device)}. {HOW.format(rounds=rounds)}", *map(markdown, tables), FLOORS]
    parts.append("\n".join(f"- {floor.arrays:g} arrays. {why}." for why, floor in floors.items()))
    if generation is not None:
        seconds, source = generation
        parts.append(GENERATION.format(n=JUDGED[0], seconds=seconds, source=source, share=SHARE))
    if found:
        shape = f"({JUDGED[0]}, {JUDGED[1]:,})"
        parts.append("\n".join(f"- {'reached' if yes else '**missed**'} at {shape}: {what}" for yes, what in found))
    return "\n\n".join(parts)


# ---- command line ----------------------------------------------------------------------------------------------------


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def shape(text: str) -> tuple[int, int]:
    n, dim = text.split(",")
    return int(n), int(dim)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small shape, few rounds")
    parser.add_argument("--shapes", nargs="+", type=shape, metavar="N,DIM", help="instead of the three of the table")
    parser.add_argument("--only", default="", metavar="REGEX", help="rows whose name it finds; e.g. -gn")
    parser.add_argument("--device", default="cpu", help="on cuda only softde's rows are measured")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--cap", type=float, default=CAP, help=f"seconds per optimiser and shape ({CAP:g})")
    parser.add_argument("--huge-pages", action="store_true", help="torch asks for them, as NumPy does by itself")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: where others use the machine, too")
    parser.add_argument("--generation-seconds", type=float, help="what a generation takes, for --device cuda")
    parser.add_argument("--out", type=Path, help="also write the page there")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a target is missed")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    device = torch.device(options.device)
    shapes = options.shapes or (QUICK if options.quick else SHAPES)
    rounds = options.rounds or (3 if options.quick else ROUNDS)
    rows = [*OURS, *(PEERS if device.type == "cpu" else [])]
    rows = [row for row in rows if re.search(options.only, row.name) and (options.only or not row.alone)]
    logging.disable(logging.INFO)  # EvoTorch
    torch.set_num_threads(1)
    tables = [measure(size, rows, device, rounds, options.cap, CLOCKS[options.clock]) for size in shapes]
    generation = None
    if device.type == "cuda":
        given_seconds = options.generation_seconds
        generation = (given_seconds, "given") if given_seconds else least_generation(*JUDGED, device)
    found = verdicts(tables, device, generation and generation[0])
    page = report(tables, device, rounds, found, generation)
    print(page)
    if options.out:
        options.out.write_text(page + "\n", encoding="utf-8")
    return int(options.check and not all(reached for reached, _ in found))


def alone(environment: Mapping[str, str]) -> None:
    """Start over with one thread and one core: libraries read both when they are loaded, and torch its allocator's."""
    wanted = {**ONE_THREAD, **(HUGE_PAGES if "--huge-pages" in sys.argv else {})}
    if any(environment.get(name) != value for name, value in wanted.items()):
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        os.execve(sys.executable, [sys.executable, *sys.argv], {**environment, **wanted})


if __name__ == "__main__":
    alone(os.environ)
    warnings.simplefilter("ignore")  # of other libraries
    sys.exit(main())
