"""What the records of the quality benchmark say: mean ranks, medians, verdicts, and the figure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import quality_tiny
from problems import FUNCTIONS, READOUTS

Record = Mapping[str, Any]
Instance = tuple[str, int, int]  # problem, dim, seed
Values = dict[Instance, dict[str, float]]  # instance → configuration → loss

AUTO = "auto"
NEAR = 1.5  # times the best configuration's median
SMALL = quality_tiny.SMALL
KINDS = {"smooth": ("soft",), "coarse": ("argmax8", "argmax1"), "noisy": ("sample8",)}
SETS = {"survey-like": READOUTS, "functions": tuple(FUNCTIONS)}
PEERS = ("scipy", "pycma", "cmaes ", "EvoTorch", "EvoX", "evosax", "fcmaes", "nevergrad")  # how peers' names begin


class Verdict(NamedTuple):
    """Whether a target is reached, and the numbers."""

    reached: bool
    text: str


# ---- from records to numbers -----------------------------------------------------------------------------------------


def budgets(records: Sequence[Record]) -> list[int]:
    """The budgets that most configurations were run with or are read off at."""
    cheap = [r for r in records if not r["problem"].startswith(quality_tiny.PREFIX)]
    names = {r["config"] for r in cheap}
    marks = {int(mark) for r in cheap for mark in r["losses"]}
    have = {m: {r["config"] for r in cheap if str(m) in r["losses"]} for m in marks}
    return sorted(m for m in marks if 2 * len(have[m]) > len(names))


def losses_at(records: Sequence[Record], budget: int, problems: Sequence[str], dims: Sequence[int] = ()) -> Values:
    """Losses after so many evaluations, where all configurations have one.

    A configuration that has no more than half of a problem's seeds is left out; of the others, only the instances
    (problem, dim, seed) count that all of them have.
    """
    found: Values = {}
    for r in records:
        if r["problem"] in problems and str(budget) in r["losses"] and (not dims or r["dim"] in dims):
            found.setdefault((r["problem"], r["dim"], r["seed"]), {})[r["config"]] = r["losses"][str(budget)]
    enough = _often(found)
    return {
        instance: {name: row[name] for name in enough}
        for instance, row in sorted(found.items())
        if set(enough) <= set(row)
    }


def _often(found: Values) -> list[str]:
    """Configurations that have more than half of the seeds of every problem."""
    seeds = Counter(instance[:2] for instance in found)
    counts = Counter((instance[:2], name) for instance, row in found.items() for name in row)
    names = sorted({name for _, name in counts})
    return [name for name in names if all(2 * counts[kind, name] > n for kind, n in seeds.items())]


def ranks(row: Mapping[str, float]) -> dict[str, float]:
    """1 is the best; equal losses share the mean of their places."""
    losses = list(row.values())
    return {
        name: 1 + sum(other < loss for other in losses) + (losses.count(loss) - 1) / 2 for name, loss in row.items()
    }


def mean_ranks(values: Values) -> dict[str, float]:
    """Mean over instances, best first."""
    each = [ranks(row) for row in values.values()]
    means = {name: statistics.mean(row[name] for row in each) for name in each[0]} if each else {}
    return dict(sorted(means.items(), key=lambda item: item[1]))


def medians(values: Values) -> dict[tuple[str, int], dict[str, float]]:
    """(problem, dim) → configuration → median over seeds."""
    objectives = list(dict.fromkeys(instance[:2] for instance in values))
    rows = {o: [row for instance, row in values.items() if instance[:2] == o] for o in objectives}
    return {o: {name: statistics.median(row[name] for row in each) for name in each[0]} for o, each in rows.items()}


def near(values: Values) -> dict[str, int]:
    """On how many objectives the median is within 1.5 × that of the best configuration."""
    table = medians(values)
    names = next(iter(table.values()), {})
    return {n: sum(row[n] <= NEAR * min(row.values()) for row in table.values()) for n in names}


def profile(values: Values, name: str, ratios: Sequence[float]) -> list[float]:
    """Share of instances on which the loss is within each ratio of the best (Dolan and Moré 2002, eq. 2)."""
    each = [row[name] / max(min(row.values()), 1e-9) for row in values.values()]
    return [sum(r <= max(ratio, 1) for r in each) / len(each) for ratio in ratios]


# ---- verdicts --------------------------------------------------------------------------------------------------------


def verdicts(records: Sequence[Record]) -> list[Verdict]:
    """The issue's targets for `auto` on the survey-like set."""
    found = []
    for budget in budgets(records):
        values = losses_at(records, budget, READOUTS)
        means = mean_ranks(values)
        if AUTO not in means:
            continue
        place = list(means).index(AUTO) + 1
        best = next(iter(means))
        found.append(Verdict(
            place == 1,
            f"{budget:,} evaluations, survey-like set: mean rank of auto {means[AUTO]:.1f}, place {place} of "
            f"{len(means)} (first: {best}, {means[best]:.1f})",
        ))  # fmt: skip
        found += [_near(budget, objective, row) for objective, row in medians(values).items()]
    return found


def _near(budget: int, objective: tuple[str, int], row: Mapping[str, float]) -> Verdict:
    best = min((name for name in row if name != AUTO), key=lambda name: row[name])
    text = (
        f"{budget:,} evaluations, {objective[0]} at D = {objective[1]:,}: median of auto {row[AUTO]:.3g}, best "
        f"configuration {row[best]:.3g} ({best}), {row[AUTO] / max(row[best], 1e-12):.2f} ×"
    )
    small = " (both below 0.1 points)" if max(row[AUTO], row[best]) < SMALL else ""
    return Verdict(row[AUTO] <= NEAR * row[best], text + small)


# ---- the page --------------------------------------------------------------------------------------------------------


def page(records: Sequence[Record]) -> str:
    """Markdown: ranks, medians, verdicts, and the embedded model's part."""
    parts = ["# What the optimisers find", facts(records)]
    there = {r["problem"] for r in records}
    parts += [f"## Mean ranks, {s}\n\n{rank_table(records, p)}" for s, p in SETS.items() if there & set(p)]
    parts.append("## Must reach\n\n" + "\n".join(f"- {'reached' if v.reached else '**missed**'}: {v.text}" for v in
                                                 verdicts(records)))  # fmt: skip
    for dim in sorted({r["dim"] for r in records if not r["problem"].startswith(quality_tiny.PREFIX)}):
        parts += [
            f"## Medians, D = {dim:,}, {budget:,} evaluations\n\n{median_table(records, dim, budget)}"
            for budget in budgets(records)
        ]
    parts.append(quality_tiny.section(records))
    return "\n\n".join(part for part in parts if part)


def facts(records: Sequence[Record]) -> str:
    """How much was run."""
    cheap = [r for r in records if not r["problem"].startswith(quality_tiny.PREFIX)]
    seeds = len({r["seed"] for r in cheap})
    minutes = sum(r["seconds"] for r in cheap) / 60
    return (
        f"{len(cheap):,} searches, {len({r['config'] for r in cheap})} configurations, {seeds} seeds, {minutes:.0f} "
        "minutes of one core. Ranks are means over objectives and seeds; equal losses share their places. Losses are "
        "mean absolute errors of six indices (survey-like) or function values; of sample8, the true loss of the point "
        "that a search returns."
    )


def rank_table(records: Sequence[Record], problems: Sequence[str]) -> str:
    """Configurations by their mean rank over all dimensions and budgets; in brackets, objectives within 1.5 × best."""
    dims = sorted({r["dim"] for r in records if r["problem"] in problems})
    columns = {(d, b): losses_at(records, b, problems, [d]) for d in dims for b in budgets(records)}
    means = {column: mean_ranks(values) for column, values in columns.items()}
    close = {column: near(values) for column, values in columns.items()}
    names = sorted(
        {n for row in means.values() for n in row}, key=lambda n: _mean(row.get(n) for row in means.values())
    )
    head = [f"D {d:,}, {b:,}" for d, b in columns]
    lines = ["| configuration | mean | " + " | ".join(head) + " |", "|---|" + "---|" * (1 + len(columns))]
    for n in names:
        cells = [f"{means[c][n]:.1f} ({close[c][n]})" if n in means[c] else "–" for c in columns]
        mean = _mean(row.get(n) for row in means.values())
        lines.append(f"| {_shown(n)} | {mean:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def median_table(records: Sequence[Record], dim: int, budget: int) -> str:
    """Configurations × objectives; bold: within 1.5 × the best."""
    table = {o: row for p in SETS.values() for o, row in medians(losses_at(records, budget, p, [dim])).items()}
    order = mean_ranks(losses_at(records, budget, [p for s in SETS.values() for p in s], [dim]))
    lines = ["| configuration | " + " | ".join(o[0] for o in table) + " |", "|---|" + "---|" * len(table)]
    for name in order:
        cells = [_cell(row[name], min(row.values())) if name in row else "–" for row in table.values()]
        lines.append(f"| {_shown(name)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(loss: float, best: float) -> str:
    return f"**{loss:.3g}**" if loss <= NEAR * best else f"{loss:.3g}"


def _mean(values: Any) -> float:
    known = [value for value in values if value is not None]
    return statistics.mean(known)


def _shown(name: str) -> str:
    return f"*{name}*" if name.startswith(PEERS) else f"**{name}**" if name == AUTO else name


# ---- the figure ------------------------------------------------------------------------------------------------------

RATIOS = [10 ** (i / 30) for i in range(46)]  # 1 to 32


def draw(records: Sequence[Record], path: Path, shown: int = 9) -> None:
    """Performance profiles: of each set and budget, `auto`, the best configurations by mean rank, and the peers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = budgets(records)
    figure, axes = pyplot.subplots(len(SETS), len(columns), figsize=(4 * len(columns), 3.4 * len(SETS)), squeeze=False,
                                   sharex=True, sharey=True)  # fmt: skip
    for line, (title, problems) in zip(axes, SETS.items(), strict=True):
        for panel, budget in zip(line, columns, strict=True):
            _panel(panel, losses_at(records, budget, problems), shown)
            panel.set_title(f"{title}, {budget:,} evaluations", fontsize=9)
    for panel in axes[-1]:
        panel.set_xlabel("loss ≤ so many times the best")
    for line in axes:
        line[0].set_ylabel("share of problems")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _panel(panel: Any, values: Values, shown: int) -> None:
    means = mean_ranks(values)
    peers = [name for name in means if name.startswith(PEERS)]
    names = dict.fromkeys([*([AUTO] if AUTO in means else []), *list(means)[: shown - 2], *peers[:2]])
    for name in names:
        style = {"color": "black", "linewidth": 2.2, "zorder": 3} if name == AUTO else {"linewidth": 1.2}
        dashes = "--" if name in peers else "-"
        panel.plot(RATIOS, profile(values, name, RATIOS), dashes, label=name, **style)
    panel.set_xscale("log")
    panel.set_ylim(0, 1.02)
    panel.grid(alpha=0.3)
    if names:
        panel.legend(fontsize=6, loc="lower right")
