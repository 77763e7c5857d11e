"""What an optimiser's search takes in memory, in copies of its population: softde beside other libraries.

    python benchmarks/bench_optim_memory.py            # the other libraries: requirements-peers.txt

Every optimiser runs six generations in a process of its own, with fitness from a table in which 30 % of the trials
improve. The kernel's resident memory counts, less what the process held before the search; a copy is the population in
float32. "Between" is after the last generation, "at most" the peak of any, candidates and start points included.
Linux only. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import subprocess
import sys
from collections.abc import Sequence

import measuring
import torch
from bench_optim_overhead import shape
from overhead_rows import LIBRARIES, OURS, PEERS, TOKEN, Row, fitness, installed

SHAPE = (64, 204_800)
GENERATIONS = 6
WARM = 3  # generations of a small search first, so that code and compilers are loaded


def main(given: Sequence[str] | None = None) -> int:
    options = parsed(given)
    if options.row is not None:
        print(json.dumps(taken(next(row for row in (*OURS, *PEERS) if row.name == options.row), *options.shape)))
        return 0
    rows = [row for row in (*OURS, *PEERS) if re.search(options.only, row.name)]
    n, dim = options.shape
    print(f"({n}, {dim:,}), a copy is {4 * n * dim / 1e6:.1f} MB. {', '.join(map(installed, LIBRARIES))}.\n")
    print("| optimiser | between, copies | at most, copies |\n|---|---|---|")
    for row in rows:
        if row.missing:
            print(f"| {row.shown} | not installed | |")
            continue
        command = [sys.executable, __file__, "--row", row.name, "--shape", f"{n},{dim}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        between, most = json.loads(done.stdout.splitlines()[-1])
        print(f"| {row.shown} | {between:.1f} | {most:.1f} |", flush=True)
    return 0


def taken(row: Row, n: int, dim: int) -> tuple[float, float]:
    """Copies of the population in memory between generations, and at most."""
    logging.disable(logging.INFO)  # EvoTorch
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    search(row, n, TOKEN, WARM)
    before = measuring.held(cpu)
    kept, most = measuring.with_peak(lambda: search(row, n, dim, GENERATIONS), cpu)
    between = measuring.held(cpu)
    del kept
    return (between - before) / (4 * n * dim), (most - before) / (4 * n * dim)


def search(row: Row, n: int, dim: int, generations: int) -> object:
    """So many generations; what comes back holds on to the search."""
    generation = row.drive(torch.randn(n, dim), fitness(n))
    for _ in range(generations):
        generation()
    return generation


def parsed(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=shape, default=SHAPE, metavar="N,DIM")
    parser.add_argument("--only", default="", metavar="REGEX", help="rows whose name it finds")
    parser.add_argument("--row", help=argparse.SUPPRESS)  # one row, in this process
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
