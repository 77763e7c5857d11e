"""The real thing: searches on the embedded model, and when `auto` is where others are after 6,400 evaluations."""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from quality_configs import CONFIGS
from quality_runs import Case, Ours

import softde
from softde.readouts import Argmax, Expected, Generated, Readout, Sampled, SequenceLogprob

Record = Mapping[str, Any]

PREFIX = "tiny"
REGIONS = ("Saudi Arabia", "United States", "China", "India")
TOKENS = 8
MARKS = (400, 800, 1_600, 3_200, 6_400)
READOUTS: dict[str, Readout] = {
    "expected": Expected(), "argmax": Argmax(), "sampled": Sampled(8), "sequence": SequenceLogprob(),
    "generated": Generated(max_new_tokens=1),  # it never learnt to stop
}  # fmt: skip


@dataclass(frozen=True)
class Set:
    """Searches of all regions: budgets by configuration, and seeds."""

    placement: str
    readout: str
    budgets: Mapping[str, int]
    seeds: int


AUTO, RIVALS, LONG, HEADLINE = "auto", ("rand1bin n32", "bbt"), 6_400, "late-expected"
HALF = 0.5  # of their evaluations `auto` may take
SMALL = 0.1  # index points: below it no difference matters


def same(budget: int, names: Sequence[str] = (AUTO, *RIVALS)) -> dict[str, int]:
    """One budget for all."""
    return dict.fromkeys(names, budget)


SETS = {
    HEADLINE: Set("late", "expected", {AUTO: LONG // 4, **dict.fromkeys(RIVALS, LONG)}, 5),
    "late-argmax": Set("late", "argmax", same(1_600), 5),
    "late-sampled": Set("late", "sampled", same(1_600), 5),
    "late-sequence": Set("late", "sequence", same(400), 5),
    "late-generated": Set("late", "generated", same(400), 5),
    "front-expected": Set("front", "expected", same(800), 5),
    "front-argmax": Set("front", "argmax", same(800), 5),
    "front-sampled": Set("front", "sampled", same(800), 5),
    "front-sequence": Set("front", "sequence", same(400), 5),
    "front-generated": Set("front", "generated", same(400), 5),
    # names that the rule of auto chooses from: those that win on the cheap problems
    "names-expected": Set("late", "expected", same(1_600, ("cma", "cma-gn", "shade")), 1),
    "names-argmax": Set("late", "argmax", same(1_600, ("cma-gn", "shade", "shade-gn")), 3),
    "names-sampled": Set("late", "sampled", same(1_600, ("cma", "cma-gn", "es", "es-wide")), 1),
}


def jobs(options: argparse.Namespace, job: Callable[..., Any]) -> list[Any]:
    """All searches of the sets that were asked for, those of this part, seed by seed."""
    part, parts = options.part
    found = []
    for seed in range(options.seeds):
        for each in (SETS[name] for name in options.tiny or SETS):
            for region in REGIONS if seed < each.seeds else ():
                for config, budget in each.budgets.items():
                    case = Case(f"{PREFIX} {each.placement} {each.readout} {region}", dim(), seed, budget)
                    if config in (options.configs or CONFIGS):
                        key = (case.problem, case.dim, config, seed, budget)
                        found.append(job(key, CONFIGS[config].settings(case), (), runner(case, config)))
    return found[part - 1 :: parts]


def runner(case: Case, config: str) -> Callable[[], dict[str, Any]]:
    """A search that is run when it is called."""
    return lambda: run(case, config)


def calibrate(key: tuple[Any, ...]) -> dict[str, Any]:
    """A few generations of a search."""
    problem, size, config, seed, _ = key
    return run(Case(problem, size, seed, 96), config)


@lru_cache(maxsize=1)
def model() -> softde.LM:
    return softde.LM.from_pretrained(PREFIX, device="cpu")


def dim() -> int:
    return TOKENS * model().hidden_size


def run(case: Case, name: str) -> dict[str, Any]:
    """One search by `align`, options listed forward only, as a record with all improvements."""
    _, placement, readout, region = case.problem.split(" ", 3)
    config, survey = CONFIGS[name], softde.load_survey("vsm13")
    assert isinstance(config, Ours)
    started = time.perf_counter()
    result = softde.align(
        model(), survey, survey.target(region, edition="2023"), softde.PromptSpace.random(model(), TOKENS, placement),
        config.make(case), case.budget, case.seed, orders="forward", progress=False, readout=READOUTS[readout],
    )  # fmt: skip
    found = improvements(result.trajectory)
    return {
        "problem": case.problem, "dim": case.dim, "config": name, "seed": case.seed, "budget": case.budget,
        "losses": {str(m): reached(found, m) for m in MARKS if m <= case.budget}, "improvements": found,
        "settings": config.settings(case), "true": float(f"{result.plain_loss:.6g}"), "evaluations": result.evaluations,
        "tokens": result.forward_tokens, "seconds": round(time.perf_counter() - started, 3),
    }  # fmt: skip


# ---- what the records say --------------------------------------------------------------------------------------------


def improvements(trajectory: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """(evaluations, best loss) of every generation that found a better one."""
    found: list[tuple[int, float]] = []
    for line in trajectory:
        if line["best"] is not None and (not found or line["best"] < found[-1][1]):
            found.append((line["evaluations"], float(f"{line['best']:.6g}")))
    return found


def reached(found: Sequence[Sequence[float]], evaluations: int) -> float:
    """The best loss after so many evaluations."""
    return min((loss for count, loss in found if count <= evaluations), default=math.inf)


def needed(found: Sequence[Sequence[float]], loss: float) -> float:
    """Evaluations until the best loss is at or below this one; +inf if it never is."""
    return min((count for count, best in found if best <= loss), default=math.inf)


def shares(records: Sequence[Record], rival: str) -> list[float]:
    """For each region and seed: the evaluations `auto` needs for the rival's final loss, over the rival's 6,400."""
    each = SETS[HEADLINE]
    searches = {
        (r["problem"], r["seed"], r["config"]): r
        for r in records
        if r["problem"].startswith(f"{PREFIX} {each.placement} {each.readout}")
        and r["budget"] == each.budgets.get(r["config"])
    }
    pairs = [
        (searches[problem, seed, AUTO], r)
        for (problem, seed, config), r in searches.items()
        if config == rival and (problem, seed, AUTO) in searches
    ]
    return [needed(mine["improvements"], theirs["losses"][str(LONG)]) / LONG for mine, theirs in pairs]


def section(records: Sequence[Record]) -> str:
    """Markdown of the embedded model's part; nothing where there are no records of it."""
    mine = [r for r in records if r["problem"].startswith(PREFIX)]
    if not mine:
        return ""
    lines = ["## The embedded model\n"]
    for rival in RIVALS:
        found = shares(mine, rival)
        if found:
            middle = statistics.median(found)
            text = "never" if math.isinf(middle) else f"after {middle:.0%} of the evaluations"
            verdict = "reached" if middle <= HALF else "**missed**"
            lines.append(
                f"- {verdict}: median over {len(found)} pairs of region and seed, auto has the loss that {rival} has "
                f"at {LONG:,} {text} (it never has in {sum(map(math.isinf, found))} of them)"
            )
    return "\n".join([*lines, "", table(mine)])


def table(records: Sequence[Record]) -> str:
    """Median best loss over regions and seeds, by set, configuration and evaluations; how often `auto` ends ahead."""
    lines = ["| placement, read-out | configuration | searches | " + " | ".join(f"{m:,}" for m in MARKS)
             + " | asked plainly | auto ahead, equal, behind |", "|" + "---|" * (len(MARKS) + 5)]  # fmt: skip
    autos = {(r["problem"], r["seed"]): r["true"] for r in records if r["config"] == AUTO}
    groups: dict[tuple[str, str, int], list[Record]] = {}
    for r in records:
        what = ", ".join(r["problem"].split(" ", 3)[1:3])
        groups.setdefault((what, r["config"], r["budget"]), []).append(r)
    for (what, config, _), each in sorted(groups.items()):
        cells = [_median([r["losses"][str(m)] for r in each if str(m) in r["losses"]]) for m in MARKS]
        cells.append(_median([r["true"] for r in each]))
        pairs = [(autos[r["problem"], r["seed"]], r["true"]) for r in each if (r["problem"], r["seed"]) in autos]
        cells.append("–" if config == AUTO or not pairs else duel(pairs))
        lines.append(f"| {what} | {config} | {len(each)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def duel(pairs: Sequence[tuple[float, float]]) -> str:
    """In how many pairs of losses the first is lower, the same, higher; below `SMALL` points apart is the same."""
    ahead, behind = (sum(sign * (other - mine) > SMALL for mine, other in pairs) for sign in (1, -1))
    return f"{ahead}, {len(pairs) - ahead - behind}, {behind}"


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f}" if values else "–"
