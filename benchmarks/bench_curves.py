"""DE and `auto` against what a gradient finds and against Black-Box-Tuning, for the same number of forwards.

    python benchmarks/bench_curves.py --plan                           # how many searches, and how long they take
    python benchmarks/bench_curves.py                                  # all: four regions, late and front, three seeds
    python benchmarks/bench_curves.py --placements front --regions China --seeds 1 --budgets 800 3200
    python benchmarks/bench_curves.py --report                         # docs/curves.md and its figure

One forward-equivalent is a candidate asked the whole survey; a step down the gradient is three. Losses are sums of six
absolute errors (L1, constants 50, edition 2023, 8 virtual tokens, expected values, options forward). A search ends at a
loss of 0.1, below which no difference matters: published scores are whole numbers.

Every search is one JSON line in the file of records; one that is there is not run again. Beside that file each search
has a folder, from which an interrupted one goes on, and so does one with a larger budget.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import curves_report
import torch
from bench_optim_quality import Job, append, key, read, say, share
from curves_report import ENOUGH, ORACLE
from quality_tiny import MARKS as SHORTER
from quality_tiny import PREFIX, REGIONS, TOKENS, model

import softde
from softde.baselines.gradient_oracle import gradient_oracle
from softde.baselines.rounds import Rounds
from softde.baselines.searched import searched
from softde.baselines.trained import Trained
from softde.optim import DE, Optimizer, RandomSearch
from softde.optim.auto import choose
from softde.optim.named import named
from softde.progress import Progress

RESULTS, PAGE, FIGURE = Path("runs/curves.jsonl"), Path("docs/curves.md"), Path("docs/figures/curves.svg")
PLACEMENTS, BUDGETS, SEEDS = ("late", "front"), (800, 3_200, 12_800), 3
MARKS = (50, 100, 200, *SHORTER, 12_800)
EVERY = 60.0  # seconds between lines of a search
CALIBRATION = 32  # candidates, and their forward-equivalents in steps

Record = dict[str, Any]

METHODS, ASIDE = ("rand1bin", "auto", "bbt", "random", ORACLE), ("de", "shade")  # the latter by name only
FIXED: Mapping[str, Optimizer[Any] | Rounds] = {"rand1bin": DE(32, "rand1bin", F=0.5, CR=0.9), ORACLE: Rounds()}


def settings(method: str, dim: int, budget: int) -> Optimizer[Any] | Rounds:
    """What a method does with this budget."""
    if method == "auto":
        return choose(dim, budget).optimizer
    if method == "random":  # every token a row of the vocabulary, as in the others' start points
        return RandomSearch(100, block=dim // TOKENS)
    return FIXED[method] if method in FIXED else named(method, dim, budget)


def described(method: str, dim: int, budget: int) -> str:
    """The same in words; a record with other settings is out of date."""
    return repr(settings(method, dim, budget))


# ---- one search ------------------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """What a search shows now and then, and how many forward-equivalents this session spent on it."""

    name: str
    spent: int = 0
    shown: float = 0.0

    def __call__(self, progress: Progress) -> None:
        self.spent = progress.evaluations
        if time.monotonic() - self.shown > EVERY or progress.last:
            self.shown = time.monotonic()
            say(f"  {self.name}: {progress}")


@lru_cache(maxsize=8)
def space(placement: str) -> softde.PromptSpace:
    return softde.PromptSpace.random(model(), TOKENS, placement)


def run(known: tuple[str, int, str, int, int], folder: Path) -> Record:
    """One search, as a record; the seconds are this session's, of the processor."""
    problem, dim, method, seed, budget = known
    _, placement, _, region = problem.split(" ", 3)
    survey, watch, started = softde.load_survey("vsm13"), Watch(f"{placement}, {region}, {method}"), time.process_time()
    found = find(
        settings(method, dim, budget), survey, survey.target(region, edition="2023"), space(placement), budget, seed,
        folder, watch,
    )  # fmt: skip
    assert found.condition.prompt is not None
    after = {mark: found.best_after(mark) for mark in MARKS if found.trajectory[0][0] <= mark <= budget}
    return {
        "problem": problem, "dim": dim, "config": method, "seed": seed, "budget": budget,
        "settings": described(method, dim, budget),
        "losses": {str(mark): digits(loss) for mark, loss in after.items()},
        "improvements": [(spent, digits(loss)) for spent, loss in found.trajectory],
        "true": digits(found.loss), "unprompted": digits(found.condition.prompt.provenance["loss_before"]),
        "tokens": int(found.forward_tokens), "spent": found.condition.prompt.provenance["evaluations"],
        "evaluations": watch.spent, "seconds": round(time.process_time() - started, 3),
    }  # fmt: skip


def find(
    how: Optimizer[Any] | Rounds, survey: softde.Survey, target: softde.Target, space: softde.PromptSpace, budget: int,
    seed: int, folder: Path, watch: Watch,
) -> Trained:  # fmt: skip
    """What a method finds."""
    if isinstance(how, Rounds):
        return gradient_oracle(
            model(), survey, target, space, budget, seed, how, orders="forward", target_loss=ENOUGH,
            checkpoint=folder, progress=watch,
        )  # fmt: skip
    return searched(
        model(), survey, target, space, how, budget, seed, orders="forward", target_loss=ENOUGH,
        checkpoint=folder, progress=watch,
    )  # fmt: skip


def digits(loss: float) -> float:
    return float(f"{loss:.6g}")


# ---- all of them -----------------------------------------------------------------------------------------------------


def jobs(options: argparse.Namespace) -> list[Job]:
    """Seed by seed and budget by budget, so that whatever is done is done for every method."""
    dim = TOKENS * model().hidden_size
    cases = [
        (f"{PREFIX} {placement} expected {region}", dim, seed, budget)
        for seed in range(options.seeds)
        for budget in sorted(options.budgets)
        for placement in options.placements
        for region in options.regions
    ]
    part, parts = options.part
    return [
        job((problem, dim, method, seed, budget), options.results)
        for problem, dim, seed, budget in cases[part - 1 :: parts]
        for method in options.methods
    ]


def job(known: tuple[str, int, str, int, int], results: Path) -> Job:
    """A search; with the same settings and another budget it has the same folder."""
    problem, dim, method, seed, budget = known
    how = described(method, dim, budget)
    digest = hashlib.sha256(how.encode()).hexdigest()[:6]
    folder = results.parent / results.stem / f"{problem} {method} {seed} {digest}".replace(" ", "-")
    return Job(known, how, (), lambda: run(known, folder))


def usable(records: Sequence[Record]) -> list[Record]:
    """Records of searches as they would be run today."""
    return [r for r in records if r["settings"] == described(r["config"], r["dim"], r["budget"])]


def is_recorded(job: Job, records: Sequence[Record]) -> bool:
    """Is there a record of it, or of a longer search that began alike?"""
    *same, budget = job.key
    return any(
        [*key(r)[:4]] == same and r["settings"] == job.settings and (r["budget"] >= budget or ended(r)) for r in records
    )


def ended(record: Record) -> bool:
    """Was the loss low enough for the search to end?"""
    return bool(record["improvements"][-1][1] <= ENOUGH)


def work(left: Sequence[Job], path: Path) -> None:
    """Run the searches, each recorded as soon as it is done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        with path.open("ab") as file:  # a line cut short
            file.write(b"\n")
    for done, each in enumerate(left, start=1):
        if is_recorded(each, usable(read(path))):  # it ended with a smaller budget
            continue
        record = each.run()
        append(path, record)
        problem, _, method, seed, budget = each.key
        say(f"{done}/{len(left)}  {problem} {method} seed {seed}, {budget:,}: {record['true']:.2f}, "
            f"{record['seconds']:.0f} s")  # fmt: skip


# ---- how long it takes -----------------------------------------------------------------------------------------------


def plan(left: Sequence[Job], records: Sequence[Record]) -> str:
    """Searches and core minutes at most, by placement and method: what goes on from a smaller budget costs the rest."""
    lines = ["| placement | method | searches | s per 1,000 | minutes, at most |", "|" + "---|" * 5]
    total = 0.0
    for placement, method in dict.fromkeys((each.key[0].split()[1], each.key[2]) for each in left):
        mine = [each for each in left if (each.key[0].split()[1], each.key[2]) == (placement, method)]
        rate = known_rate(records, placement, method) or measured_rate(placement, method)
        longest = {(each.key[:4], each.settings): each.key[4] for each in sorted(mine, key=lambda one: one.key[4])}
        minutes = rate * sum(longest.values()) / 60
        total += minutes
        lines.append(f"| {placement} | {method} | {len(mine)} | {1000 * rate:.1f} | {minutes:.1f} |")
    return "\n".join([*lines, f"\n{len(left)} searches, at most {total:.0f} minutes of one core"])


def known_rate(records: Sequence[Record], placement: str, method: str) -> float | None:
    """Seconds per forward-equivalent of recorded searches."""
    mine = [r for r in records if (r["problem"].split()[1], r["config"]) == (placement, method) and r["evaluations"]]
    return sum(r["seconds"] for r in mine) / sum(r["evaluations"] for r in mine) if mine else None


@lru_cache(maxsize=8)
def measured_rate(placement: str, method: str) -> float:
    """The same from a few candidates or steps; early rejection, which is not counted, makes searches faster."""
    from softde.gradient import GradientSteps

    survey = softde.load_survey("vsm13")
    loss = softde.AlignmentLoss(model(), survey, survey.target(REGIONS[0], edition="2023"), space(placement), "forward")
    points = loss.space.sample(CALIBRATION, torch.Generator().manual_seed(0))
    loss(points)
    started = time.process_time()
    if method == ORACLE:
        found = GradientSteps(steps=CALIBRATION // 3)(loss, points[:1], 1)
        return (time.process_time() - started) / found.forward_equivalents
    loss(points)
    return (time.process_time() - started) / CALIBRATION


# ---- command line ----------------------------------------------------------------------------------------------------


def main(given: Sequence[str] | None = None) -> int:
    options = parsed(given)
    torch.set_num_threads(1)
    records = usable(read(options.results))
    if options.report:
        curves_report.write(records, described, options.page, options.figure)
        return 0
    wanted = jobs(options)
    left = [each for each in wanted if not is_recorded(each, records)]
    say(f"{len(wanted)} searches, {len(wanted) - len(left)} of them recorded")
    if options.plan:
        print(plan(left, records))
        return 0
    try:
        work(left, options.results)
    except KeyboardInterrupt:
        say("\ninterrupted; the same call goes on")
        return 130
    return 0


def parsed(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--placements", nargs="+", default=list(PLACEMENTS), choices=PLACEMENTS)
    parser.add_argument("--regions", nargs="+", default=list(REGIONS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--budgets", nargs="+", type=int, default=list(BUDGETS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *ASIDE], metavar="METHOD")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--part", type=share, default=(1, 1), help="1/2: the first of two processes")
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
