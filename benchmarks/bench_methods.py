"""Every method of softde on the embedded model: six regions, three seeds, one budget, one table.

    python benchmarks/bench_methods.py --plan                    # how many pieces of work, and how long they take
    python benchmarks/bench_methods.py                           # all of it; the same call goes on where it was stopped
    python benchmarks/bench_methods.py --regions Japan India --seeds 1 --budget 200 --methods persona auto
    python benchmarks/bench_methods.py --report                  # docs/methods_compared.md and its figure, from records

Soft prompts are searched for the published scores of the VSM 2013, options listed forward, with as many candidates each
(a step down the gradient is three). All methods are then asked the same in that order, in the other one and in other
words. The embedded model knows three of the regions by name and three not at all.

Each search is a JSON line in the folder of the run, each answer a line in its folder `answers`; what is there is not
made again. At the end the rows of the table are written as compressed JSON lines, from which the page is made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import methods_report
import torch
from bench_curves import measured_rate
from bench_optim_quality import say
from methods_exams import REGIONS, papers
from methods_found import ADAPTERS, ANSWERS, COLLECTED, RANDOM, SEARCHES, Bench, Work, do, entries, key, recorded, works
from methods_told import SEQUENTIAL, told

from softde.compare import MethodTable, compare_methods
from softde.lm import LM

FOLDER, RECORDS = Path("runs/methods"), Path("benchmarks/records/methods.jsonl.gz")
PAGE, FIGURE = Path("docs/methods_compared.md"), Path("docs/figures/methods.svg")
SEEDS, BUDGET = 3, 800

TOLD = ("unprompted", "persona", "cross-culture", "self-alignment", "self-alignment, reversed",
        "persona + self-alignment", "cross-culture + self-alignment", SEQUENTIAL, "description",
        "description, tiny's words", "value personas")  # fmt: skip
METHODS = (*TOLD, RANDOM, *SEARCHES, *ADAPTERS, COLLECTED)

# As many candidates as take about as long, seen on the embedded model: a piece of work that is no search, for all
# regions, and asking one sheet under a condition.
WORTH = {ANSWERS: 200, "CultureSPA, joint": 500, "CultureSPA, specific": 500}
SHEET, SHEETS = {SEQUENTIAL: 550, "value personas": 100, "self-alignment": 30}, 3
TURNS = 350  # holding a region's conversations


def main(given: Sequence[str] | None = None) -> int:
    """What the first lines say."""
    options = parsed(given)
    torch.set_num_threads(1)
    if options.report:
        methods_report.write(methods_report.load(options.records), options.page, options.figure)
        return 0
    asked = papers(options.regions)
    bench = Bench(LM.from_pretrained(options.model), asked.training, tuple(options.regions), options.seeds,
                  options.budget, options.folder)  # fmt: skip
    wanted = works(bench, options.methods)
    known = [key(record) for record in recorded(bench)]
    left = [work for work in wanted if work.key not in known]
    say(f"{len(wanted)} pieces of work, {len(wanted) - len(left)} of them recorded")
    if options.plan:
        print(plan(bench, left, options.methods))
        return 0
    try:
        do(bench, left)
        conditions = list(
            told(bench.lm, bench.training.survey, asked.human, bench.regions, bench.seeds, options.methods)
        )
        conditions += entries(bench, wanted, options.methods)
        conditions.sort(key=lambda entry: METHODS.index(entry.method))
        table = compare_methods(bench.lm, asked.exams, conditions, checkpoint=bench.folder / "answers")
    except KeyboardInterrupt:
        say("\ninterrupted; the same call goes on")
        return 130
    save(table, bench, wanted, options.records)
    return 0


def save(table: MethodTable, bench: Bench, wanted: Sequence[Work], records: Path) -> None:
    """Write the rows, and what they were made with."""
    records.parent.mkdir(parents=True, exist_ok=True)
    keys = [work.key for work in wanted]
    seconds = sum(one["seconds"] for r in recorded(bench) if key(r) in keys for one in r["found"].values())
    about = {"model": table.model, "regions": bench.regions, "seeds": bench.seeds, "budget": bench.budget}
    methods_report.save(table, {**about, "seconds": round(seconds)}, records)
    say(f"{records}: {len(table.rows)} rows; --report makes the page")


def plan(bench: Bench, left: Sequence[Work], methods: Sequence[str]) -> str:
    """Pieces of work and core minutes, about, from the time of a few candidates."""
    rate = measured_rate("late", "random") / 60
    lines, total = ["| | pieces | minutes, about |", "|---|---|---|"], 0.0

    def add(name: str, pieces: int, candidates: float) -> None:
        nonlocal total
        total += pieces * candidates * rate
        lines.append(f"| {name} | {pieces} | {pieces * candidates * rate:.1f} |")

    for method in dict.fromkeys(work.method for work in left):
        add(method, sum(work.method == method for work in left), WORTH.get(method, bench.budget))
    sheets = SHEETS * len(bench.regions)
    if SEQUENTIAL in methods:
        add(f"{SEQUENTIAL}: conversations", len(bench.regions), TURNS)
        add(f"asking: {SEQUENTIAL}", sheets, SHEET[SEQUENTIAL])
    for name in ("value personas", "self-alignment"):
        mine = [method for method in methods if name in method]
        add(f"asking: {name}", sheets * len(mine) * (bench.seeds if name == "value personas" else 1), SHEET[name])
    rest = [m for m in methods if m != SEQUENTIAL and not any(name in m for name in SHEET)]
    add("asking: others", sheets * len(rest) * bench.seeds, 10)
    return "\n".join([*lines, f"\n{total:.0f} minutes of one core, {1000 * 60 * rate:.0f} ms a candidate"])


def parsed(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", nargs="+", default=list(REGIONS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the run, to go on with")
    parser.add_argument("--records", type=Path, default=RECORDS, help="of the table, .jsonl.gz")
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
