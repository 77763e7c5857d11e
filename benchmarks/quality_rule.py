"""The rule of `auto`, made from the records of the quality benchmark, and where it is written.

For each kind of read-out and each budget of the benchmark, the name with the best mean rank over the kind's problems,
dimensions and seeds; of names within one standard error of it the one with the best over all budgets. Losses below 0.1
points count as equal. Where the embedded model was searched with two or more of the names, at a mark near the budget,
its ranks decide. A name holds up to the geometric middle between its budget and the next; budgets with the same name
are one row.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import quality_report
import quality_tiny
from quality_runs import Case

from softde.files import write_file
from softde.optim.auto import ReadoutKind, Row
from softde.optim.named import BY_NAME

Record = Mapping[str, Any]
Values = dict[tuple[str, int, int], dict[str, float]]

ALONE = ("1+1",)  # asks one candidate at a time, which costs the embedded model four times as much as sixteen together
ELIGIBLE = tuple(name for name in BY_NAME if name not in ALONE)
LARGEST = 20_000  # candidates that a rule is wanted for
NEAR = 1.5  # a mark of the embedded model stands for budgets up to so many times away
SIGNIFICANT = 2  # digits of a threshold

HERE = Path(__file__).parents[1]
CODE, PAGE = HERE / "softde/optim/auto.py", HERE / "docs/optimizers.md"


class Pick(NamedTuple):
    """What won at one budget: mean ranks, the winner's first, of so many instances; on the model or on cheap problems.

    close : names whose mean rank is the best or within one standard error of it, of their difference.
    """

    readout: ReadoutKind
    budget: int
    ranks: Mapping[str, float]
    instances: int
    model: bool
    close: frozenset[str]

    @property
    def name(self) -> str:
        return next(iter(self.ranks))


# ---- the rule --------------------------------------------------------------------------------------------------------


def rule(records: Sequence[Record]) -> tuple[Row, ...]:
    """The rows of the table in softde/optim/auto.py."""
    return tuple(row for readout in get_args(ReadoutKind) for row in merged(picks(records, readout)))


def picks(records: Sequence[Record], readout: ReadoutKind) -> list[Pick]:
    """What won at each budget, the smallest first."""
    mine = [r for r in records if r["config"] in ELIGIBLE]
    found = [best(mine, readout, budget) for budget in quality_report.budgets(mine)]
    return [broken_tie(pick, [other for other in found if other]) for pick in found if pick]


def broken_tie(pick: Pick, all_budgets: Sequence[Pick]) -> Pick:
    """Of close names first the one with the best mean over all budgets; then the others in their order."""
    ranks = {name: [p.ranks[name] for p in all_budgets if name in p.ranks] for name in pick.ranks}
    over_all = {name: statistics.mean(ranks[name]) for name in pick.ranks}
    order = sorted(
        pick.ranks,
        key=lambda name: (name not in pick.close, over_all[name] if name in pick.close else pick.ranks[name]),
    )
    return pick._replace(ranks={name: pick.ranks[name] for name in order})


def best(records: Sequence[Record], readout: ReadoutKind, budget: int) -> Pick | None:
    """By the embedded model's records where there are enough, or else by the cheap problems'."""
    for values, model in (
        (asked(records, readout, budget), True),
        (quality_report.losses_at(records, budget, quality_report.KINDS[readout]), False),
    ):
        values = floored(values)
        ranks = quality_report.mean_ranks(values)
        if len(ranks) > model:  # two at least, of the model
            return Pick(readout, budget, ranks, len(values), model, close(values, ranks))
    return None


def close(values: Values, ranks: Mapping[str, float]) -> frozenset[str]:
    """Names of which one cannot say that another is better: by the mean and standard error of differences in rank."""
    each = [quality_report.ranks(row) for row in values.values()]
    first, *others = ranks
    behind = {name: [row[name] - row[first] for row in each] for name in others}
    errors = {n: statistics.stdev(b) / math.sqrt(len(b)) if len(b) > 1 else 0.0 for n, b in behind.items()}
    return frozenset([first, *(name for name in others if statistics.mean(behind[name]) <= errors[name])])


def asked(records: Sequence[Record], readout: ReadoutKind, budget: int) -> Values:
    """Losses on the embedded model at the mark nearest to a budget; noisy ones where the end was asked plainly."""
    found: Values = {}
    for r in records:
        if not r["problem"].startswith(quality_tiny.PREFIX) or Case(r["problem"], 1, 0, 1).kind != readout:
            continue
        marks = [int(mark) for mark in r["losses"] if readout != "noisy" or int(mark) == r["budget"]]
        near = [mark for mark in marks if 1 / NEAR <= mark / budget <= NEAR]
        if near:
            mark = min(near, key=lambda mark: abs(math.log(mark / budget)))
            loss = r["true"] if mark == r["budget"] else r["losses"][str(mark)]
            found.setdefault((r["problem"], r["dim"], r["seed"]), {})[r["config"]] = loss
    return common({key: row for key, row in found.items() if len(row) > 1})  # of one name alone nothing is compared


def common(found: Values) -> Values:
    """The instances that were searched with all names that most of them were searched with."""
    names = {name for row in found.values() for name in row}
    often = [name for name in sorted(names) if 2 * sum(name in row for row in found.values()) > len(found)]
    return {key: {n: row[n] for n in often} for key, row in sorted(found.items()) if often and set(often) <= set(row)}


def floored(values: Values) -> Values:
    """Losses that no difference matters below count as that."""
    return {k: {name: max(loss, quality_report.SMALL) for name, loss in row.items()} for k, row in values.items()}


def merged(found: Sequence[Pick]) -> list[Row]:
    """One row for budgets in turn with one name, each up to the middle before the next."""
    groups = [list(group) for _, group in itertools.groupby(found, key=lambda pick: pick.name)]
    ends = [middle(before[-1].budget, after[0].budget) for before, after in itertools.pairwise(groups)]
    return [Row(g[0].readout, end, g[0].name) for g, end in zip(groups, [*ends, LARGEST], strict=False)]


def middle(before: int, after: int) -> int:
    """Their geometric mean, in round numbers."""
    exact = math.sqrt(before * after)
    return int(round(exact, SIGNIFICANT - 1 - math.floor(math.log10(exact))))


# ---- does the dimension matter ---------------------------------------------------------------------------------------


def by_dimension(records: Sequence[Record]) -> list[str]:
    """Where a rule of one dimension alone would do much better: the chosen name's median is over 1.5 × the best's.

    Budgets that the embedded model decides are left out: it has one dimension.
    """
    mine, lines = [r for r in records if r["config"] in ELIGIBLE], list[str]()
    for readout in get_args(ReadoutKind):
        problems = quality_report.KINDS[readout]
        dims = sorted({r["dim"] for r in mine if r["problem"] in problems})
        for pick, dim in itertools.product((p for p in picks(records, readout) if not p.model), dims):
            values = floored(quality_report.losses_at(mine, pick.budget, problems, [dim]))
            ranks = quality_report.mean_ranks(values)
            alone = next(iter(ranks), pick.name)
            for (problem, _), row in quality_report.medians(values).items():
                if pick.name in row and row[pick.name] > quality_report.NEAR * row[alone]:
                    lines.append(
                        f"- {readout}, {pick.budget:,} candidates, {dim:,} numbers: {alone} has the best mean rank, "
                        f"{ranks[alone]:.1f} against {ranks[pick.name]:.1f} of {pick.name}; medians on {problem} "
                        f"{row[alone]:.3g} and {row[pick.name]:.3g}"
                    )
    return lines


# ---- showing and writing ---------------------------------------------------------------------------------------------


def code(rows: Sequence[Row]) -> str:
    """As it stands in softde/optim/auto.py."""
    lines = [f'    Row("{row.readout}", {row.budget:_}, "{row.name}"),' for row in rows]
    return "\n".join(["TABLE = (", *lines, ")", ""])


def markdown(rows: Sequence[Row]) -> str:
    """As it stands in docs/optimizers.md."""
    lines = [f"| {row.readout} | {row.budget:,} | `{row.name}` |" for row in rows]
    return "\n".join(["| read-out | up to candidates | optimiser |", "|---|---|---|", *lines, ""])


def report(records: Sequence[Record]) -> str:
    """The rule, what won by how much, and whether the dimension matters."""
    lines = ["| read-out | budget | decided on | instances | mean ranks, the winner's first |", "|---|---|---|---|---|"]
    for pick in (pick for readout in get_args(ReadoutKind) for pick in picks(records, readout)):
        first = ", ".join(f"{name} {rank:.1f}" for name, rank in list(pick.ranks.items())[:4])
        where = "the embedded model" if pick.model else "survey-like problems"
        lines.append(f"| {pick.readout} | {pick.budget:,} | {where} | {pick.instances} | {first} |")
    apart = by_dimension(records) or ["- nowhere"]
    heading = "Where a rule for one dimension would take another name, and the median is over 1.5 × that name's:\n"
    return "\n".join([code(rule(records)), *lines, "", heading, *apart])


def write(rows: Sequence[Row], source: Path = CODE, page: Path = PAGE) -> None:
    """Put the rule between its marks in the code and on the page."""
    for path, start, end, text in (
        (source, "# rule: made by benchmarks/bench_optim_quality.py --auto-table --write\n", "# end of the rule\n",
         code(rows)),
        (page, "<!-- auto -->\n", "<!-- /auto -->\n", markdown(rows)),
    ):  # fmt: skip
        old = path.read_text(encoding="utf-8")
        if old.count(start) != 1 or old.count(end) != 1:
            raise ValueError(f"{path}: expected the lines {start.strip()!r} and {end.strip()!r} once each")
        before, rest = old.split(start)
        write_file(path, (before + start + text + end + rest.split(end)[1]).encode())
