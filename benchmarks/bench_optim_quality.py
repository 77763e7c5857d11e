"""Which optimiser finds most with a few thousand questions: softde's, its `auto`, and the peers' best settings.

    python benchmarks/bench_optim_quality.py --plan                    # how many searches, and how long they take
    python benchmarks/bench_optim_quality.py --part 1/2                # with 2/2 beside it two processes share the work
    python benchmarks/bench_optim_quality.py --tiny --plan             # the embedded model, not cheap objectives
    python benchmarks/bench_optim_quality.py --report --out docs/quality.md --figure docs/figures/quality.svg
    python benchmarks/bench_optim_quality.py --auto-table              # the rule of softde/optim/auto.py, and why
    python benchmarks/bench_optim_quality.py --auto-table --write      # puts it there

Every search is one JSON line in the file of records; one that is there is not run again, so an interrupted benchmark
goes on where it was. Peers that are not installed are left out and named; `--peers FOLDER` also looks for them in
another environment's site-packages. Reports and the rule also read records that gzip has compressed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import quality_report
import quality_rule
import quality_runs
import quality_tiny
import torch
from problems import PROBLEMS
from quality_configs import CONFIGS, DEFAULT
from quality_runs import Case, Config

RESULTS = Path("runs/optim_quality.jsonl")
BUDGETS, DIMS = (500, 2_000, 8_000), (1_000, 20_480)
CALIBRATION = 320  # evaluations of a search that tells how long others take

Key = tuple[str, int, str, int, int]  # problem, dim, config, seed, budget
Record = dict[str, Any]


class Job(NamedTuple):
    """One search, what it is known by, and what tells its cost."""

    key: Key
    settings: str
    marks: tuple[int, ...]  # budgets at which it is read off
    run: Callable[[], Record]

    def is_recorded(self, losses: Mapping[str, float] | None) -> bool:
        """Do the losses of a record of it, if there is one, include all that are read off today?"""
        return losses is not None and all(str(mark) in losses for mark in self.marks)

    @property
    def cost(self) -> tuple[Any, ...]:
        """Searches with the same cost per evaluation."""
        problem, dim, config, _, _ = self.key
        return (problem if problem.startswith(quality_tiny.PREFIX) else "", dim, config)


def main(given: Sequence[str] | None = None) -> int:
    options = parsed(given)
    torch.set_num_threads(1)
    sys.path.extend(options.peers)
    records = read(options.results)
    if options.auto_table or options.report:
        records = [record for record in records if up_to_date(record)]
    if options.auto_table:
        print(quality_rule.report(records))
        if options.write:
            quality_rule.write(quality_rule.rule(records))
    elif options.report:
        show_report(records, options)
    else:
        return search(records, options)
    return 0


def search(records: Sequence[Record], options: argparse.Namespace) -> int:
    """Run what is wanted and not there yet, or say what that would take."""
    jobs = quality_tiny.jobs(options, Job) if options.tiny is not None else synthetic(options)
    known = {(key(record), record["settings"]): record["losses"] for record in records}
    left = [job for job in jobs if not job.is_recorded(known.get((job.key, job.settings)))]
    say(f"{len(jobs)} searches, {len(jobs) - len(left)} of them recorded")
    if options.plan:
        print(plan(left, records))
        return 0
    try:
        work(left, options.results, records)
    except KeyboardInterrupt:
        say("\ninterrupted; the same call goes on")
        return 130
    return 0


# ---- what is run -----------------------------------------------------------------------------------------------------


def synthetic(options: argparse.Namespace) -> list[Job]:
    """All searches of this part, seed by seed, so that whatever is done is done for every problem."""
    part, parts = options.part
    names = options.configs or DEFAULT
    cases = [
        Case(problem, dim, seed, max(options.budgets))
        for seed in range(options.seeds)
        for dim in options.dims
        for problem in options.problems
    ]
    jobs = [job for case in cases[part - 1 :: parts] for name in names for job in runs(name, case, options)]
    for name in names:
        reasons = {CONFIGS[name].missing(case) for case in cases} - {""}
        if reasons:
            say(f"left out: {name} ({'; '.join(sorted(reasons))})")
    return jobs


def runs(name: str, case: Case, options: argparse.Namespace) -> list[Job]:
    """A search with the largest budget, and others where a smaller budget has other settings."""
    config, found = CONFIGS[name], dict[str, Job]()
    if config.missing(case):
        return []
    for budget in sorted(options.budgets, reverse=True):
        each = case._replace(budget=budget)
        found.setdefault(config.settings(each), synthetic_job(config, each, options.budgets))
    return list(found.values())


def synthetic_job(config: Config, case: Case, budgets: Sequence[int]) -> Job:
    """A search of a synthetic problem."""
    known = (case.problem, case.dim, config.name, case.seed, case.budget)
    marks = quality_runs.marks(config, case, budgets)
    return Job(known, config.settings(case), marks, lambda: quality_runs.run(config, case, budgets))


def plan(jobs: Sequence[Job], records: Sequence[Record]) -> str:
    """Searches and core minutes per configuration and dimension, from recorded times or a short search of each."""
    spent: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if "copied" not in record:
            spent.setdefault(Job(key(record), "", (), dict).cost, []).append(record)
    lines, total = (
        ["| problem | dim | configuration | searches | s per 1,000 evaluations | minutes |", "|" + "---|" * 6],
        0.0,
    )
    for cost in dict.fromkeys(job.cost for job in jobs):
        mine = [job for job in jobs if job.cost == cost]
        if cost not in spent:
            spent[cost] = [calibrate(mine[0])]
        each = sum(r["seconds"] for r in spent[cost]) / sum(r["evaluations"] for r in spent[cost])
        minutes = each * sum(job.key[-1] for job in mine) / 60
        total += minutes
        lines.append(f"| {' | '.join(str(part) for part in cost)} | {len(mine)} | {1000 * each:.2f} | {minutes:.1f} |")
    return "\n".join([*lines, f"\n{len(jobs)} searches, {total:.0f} minutes of one core"])


def calibrate(job: Job) -> Record:
    """A short search; of a peer that compiles the second one counts."""
    problem, dim, name, seed, _ = job.key
    if problem.startswith(quality_tiny.PREFIX):
        return quality_tiny.calibrate(job.key)
    case = Case(problem, dim, seed, CALIBRATION)
    quality_runs.run(CONFIGS[name], case, [CALIBRATION])
    return quality_runs.run(CONFIGS[name], case, [CALIBRATION])


# ---- records ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[Record]:
    """All records, of the same search the newest; a line that was cut short is none."""
    records: dict[Key, Record] = {}
    for line in lines_of(path):
        try:
            record = json.loads(line)
            records[key(record)] = record
        except json.JSONDecodeError:
            say(f"{path}: a line is cut short and will be run again")
    return list(records.values())


def lines_of(path: Path) -> list[str]:
    """Of a file of records, which may be compressed; none where there is no file."""
    if not path.exists():
        return []
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return content.decode().splitlines()


def key(record: Record) -> Key:
    """What a search is known by."""
    return (record["problem"], record["dim"], record["config"], record["seed"], record["budget"])


def up_to_date(record: Record) -> bool:
    """Was it made with the settings that its configuration has today? One of a configuration that is gone counts."""
    config = CONFIGS.get(record["config"])
    case = Case(record["problem"], record["dim"], record["seed"], record["budget"])
    return config is None or record["settings"] == config.settings(case)


def append(path: Path, record: Record) -> None:
    """One line in one write, so that processes can share the file."""
    handle = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.write(handle, (json.dumps(record) + "\n").encode())
    finally:
        os.close(handle)


def equal(job: Job, records: Iterable[Record]) -> Record | None:
    """A job's record, from that of another configuration with the same settings, such as the one `auto` chose."""
    problem, dim, name, seed, budget = job.key
    for r in records:
        same = (r["problem"], r["dim"], r["seed"], r["settings"]) == (problem, dim, seed, job.settings)
        if same and job.marks and all(str(mark) in r["losses"] for mark in job.marks):
            losses = {str(mark): r["losses"][str(mark)] for mark in job.marks}
            return {**r, "config": name, "budget": budget, "losses": losses, "copied": r["config"], "seconds": 0.0}
    return None


def work(jobs: Sequence[Job], path: Path, records: Sequence[Record] = ()) -> None:
    """Run the searches one after the other, each recorded as soon as it is done."""
    known: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        known.setdefault((record["problem"], record["dim"], record["seed"]), []).append(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")
    started = time.perf_counter()
    for done, each in enumerate(jobs, start=1):
        alike = known.setdefault((each.key[0], each.key[1], each.key[3]), [])
        record = equal(each, alike) or each.run()
        append(path, record)
        alike.append(record)
        left = (time.perf_counter() - started) / done * (len(jobs) - done) / 60
        problem, dim, name, seed, _ = each.key
        say(f"{done}/{len(jobs)}  {problem} {dim} {name} seed {seed}: {record['seconds']:.1f} s; {left:.0f} min left")


def show_report(records: Sequence[Record], options: argparse.Namespace) -> None:
    """Print the page, write it where that was asked, and draw the figure."""
    page = quality_report.page(records)
    print(page)
    if options.out is not None:
        options.out.write_text(page + "\n")
    if options.figure is not None:
        quality_report.draw(records, options.figure)


# ---- command line ----------------------------------------------------------------------------------------------------


def parsed(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=PROBLEMS, metavar="PROBLEM")
    parser.add_argument("--dims", nargs="+", type=int, default=list(DIMS))
    parser.add_argument("--budgets", nargs="+", type=int, default=list(BUDGETS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--configs", nargs="+", choices=list(CONFIGS), metavar="CONFIG")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--part", type=share, default=(1, 1), help="1/2: the first of two processes")
    parser.add_argument("--peers", nargs="+", default=[], help="site-packages of another environment")
    parser.add_argument("--tiny", nargs="*", choices=list(quality_tiny.SETS), help="sets on the embedded model; all")
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--auto-table", action="store_true")
    parser.add_argument("--write", action="store_true", help="with --auto-table: into auto.py and its page")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args(given)
    if options.results.suffix == ".gz" and not (options.report or options.auto_table):
        parser.error(f"--results: searches cannot be added to compressed records; unpack {options.results} first")
    return options


def share(text: str) -> tuple[int, int]:
    """From "1/2" to (1, 2)."""
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"expected for example 1/2, got {text!r}")
    return int(part), int(parts)


def say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
