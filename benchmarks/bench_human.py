"""Reading a World Values Survey file of full size: seconds and memory, with and without the cache, beside pandas.

    python benchmarks/bench_human.py                    # 97,000 rows × 600 columns, made up, in a temporary folder
    python benchmarks/bench_human.py --rows 5000        # smaller

Every reading is a fresh process, whose peak is the kernel's VmHWM; imports count. Prints a Markdown table and a verdict
per target (30 s and 1.5 GB for any choice of columns); with --check the exit code is 1 if one is missed. pandas reads
the same columns with `usecols` into a frame, and does nothing with them.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softde.surveys.human.fake import fake_wvs, wvs_columns

SECONDS, GIGABYTES = 30.0, 1.5  # targets
TEN = ("Q46", "Q57", "Q45", "Q209", "Q164", "Q182", "Q184", "Q254", "Q154", "Q155")  # of Inglehart and Welzel's map
HEADER = ("reader", "columns", "seconds", "peak, MB", "of the reading, s", "target")


def main(given: Sequence[str] | None = None) -> int:
    """Make the file, read it in every way, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=97_000)
    parser.add_argument("--columns", type=int, default=600)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.read:
        print(json.dumps(read(json.loads(options.read))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return measure(Path(folder), options.rows, options.columns, options.check)


def measure(folder: Path, rows: int, columns: int, check: bool) -> int:
    """One line per way of reading."""
    path = folder / "WVS_Cross-National_Wave_7_csv.csv"
    start = time.perf_counter()
    fake_wvs(path, rows, columns)
    made = time.perf_counter() - start
    every = [c for c in wvs_columns(columns) if c.startswith("Q") and c[1:].isdecimal() and c not in ("Q261", "Q262")]
    print(f"{rows:,} rows × {columns} columns, {path.stat().st_size / 1e6:,.0f} MB, made in {made:.1f} s; ", end="")
    print(f"{platform.machine()}, Python {platform.python_version()}\n")
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    missed = 0
    for name, items in (("ten items", TEN), ("all questions", every)):
        cache = str(folder / name)
        for reader, how in (
            ("softde", {"cache": None}),
            ("softde, into the cache", {"cache": cache}),
            ("softde, from the cache", {"cache": cache}),
            ("pandas.read_csv", {"pandas": True}),
        ):
            got = fresh({"path": str(path), "items": list(items), **how})
            judged = reader.startswith("softde")
            hit = got["seconds"] <= SECONDS and got["peak"] <= GIGABYTES * 1e9
            missed += judged and not hit
            verdict = ("pass" if hit else "miss") if judged else ""
            print(
                f"| {reader} | {name} ({got['columns']}) | {got['seconds']:.1f} | {got['peak'] / 1e6:,.0f} "
                f"| {got['reading']:.1f} | {verdict} |"
            )
    print(f"\nTargets: {SECONDS:.0f} s and {GIGABYTES} GB: {'missed ' + str(missed) + ' times' if missed else 'met'}.")
    return int(check and missed > 0)


def fresh(task: Mapping[str, Any]) -> dict[str, float]:
    """The task in a process of its own; seconds from its start to its end."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--read", json.dumps(task)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {**json.loads(done.stdout), "seconds": time.perf_counter() - start}


def read(task: Mapping[str, Any]) -> dict[str, float]:
    """Read the items' columns, with those of region and weight."""
    start = time.perf_counter()
    if task.get("pandas"):
        import pandas as pd

        pd.read_csv(task["path"], usecols=[*task["items"], "B_COUNTRY_ALPHA", "W_WEIGHT"])
    else:
        from softde.surveys.human import load_wvs

        human = load_wvs(task["path"], items=task["items"], cache=task["cache"])
        assert human.shares.shape[1] == len(task["items"])
    return {"reading": time.perf_counter() - start, "peak": peak(), "columns": len(task["items"]) + 2}


def peak() -> float:
    """Bytes of this process's largest resident set: VmHWM where there is one, as ru_maxrss counts the parent's too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most) * (1 if platform.system() == "Darwin" else 1024)


if __name__ == "__main__":
    sys.exit(main())
