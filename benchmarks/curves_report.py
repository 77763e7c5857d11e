"""What the records of bench_curves say: tables of losses, of wins and of costs, and the figure."""

from __future__ import annotations

import math
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Record = Mapping[str, Any]
Settings = Callable[[str, int, int], str]  # method, dim, budget → what it does
Pair = tuple[str, int]  # region, seed

ENOUGH = 0.1  # index points at which a search ends
FIRST = 40.0  # where the figure begins
TICKS = (50, 200, 800, 3_200, 12_800)
LEVELS = (30.0, 10.0, 1.0)  # losses to be reached
ORACLE = "gradient oracle"
RIVALS = (("rand1bin", "bbt"), ("rand1bin", "random"), ("rand1bin", ORACLE), ("auto", "rand1bin"), ("auto", "bbt"),
          ("auto", ORACLE))  # fmt: skip
COLOURS = {
    ORACLE: "black",
    "auto": "tab:blue",
    "rand1bin": "tab:red",
    "bbt": "tab:green",
    "random": "tab:gray",
}


class Column(NamedTuple):
    """A placement and a budget; method → pair → a search that has been there, for the pairs that all methods have."""

    placement: str
    budget: int
    searches: Mapping[str, Mapping[Pair, Record]]

    @property
    def pairs(self) -> list[Pair]:
        return sorted(next(iter(self.searches.values()), {}))

    def losses(self, method: str) -> list[float]:
        """Best losses within the budget, one per pair."""
        return [best_after(self.searches[method][pair], self.budget) for pair in self.pairs]


def columns(records: Sequence[Record], settings: Settings, budgets: Sequence[int] = ()) -> list[Column]:
    """All columns that have a pair; the budgets are those that were searched with."""
    placements = list(dict.fromkeys(placement_of(r) for r in records))
    methods = list(dict.fromkeys(r["config"] for r in records))
    found = []
    for placement in placements:
        mine = [r for r in records if placement_of(r) == placement]
        for budget in budgets or sorted({r["budget"] for r in mine}):
            each = {method: searches(mine, method, budget, settings) for method in methods}
            pairs = set.intersection(*(set(one) for one in each.values()))
            if pairs:
                kept = {m: {pair: one[pair] for pair in pairs} for m, one in each.items()}
                found.append(Column(placement, budget, kept))
    return found


def searches(records: Sequence[Record], method: str, budget: int, settings: Settings) -> dict[Pair, Record]:
    """Searches with this budget, or that began like one with it."""
    found: dict[Pair, Record] = {}
    for r in sorted(records, key=lambda one: int(one["budget"])):
        there = r["budget"] >= budget or r["improvements"][-1][1] <= ENOUGH
        if r["config"] == method and there and r["settings"] == settings(method, r["dim"], budget):
            found[region_of(r), r["seed"]] = r
    return found


def placement_of(record: Record) -> str:
    return str(record["problem"].split(" ", 3)[1])


def region_of(record: Record) -> str:
    return str(record["problem"].split(" ", 3)[3])


def best_after(record: Record, spent: float) -> float:
    """The lowest loss within so many forward-equivalents."""
    return min((loss for count, loss in record["improvements"] if count <= spent), default=math.inf)


def needed(record: Record, loss: float) -> float:
    """Forward-equivalents to a loss of this or less; +inf if it was never reached."""
    return min((count for count, best in record["improvements"] if best <= loss), default=math.inf)


# ---- the page --------------------------------------------------------------------------------------------------------


def page(records: Sequence[Record], settings: Settings) -> str:
    """Markdown of everything."""
    shown = columns(records, settings)
    if not shown:
        return "No region and seed has been searched by all methods yet."
    minutes = sum(r["seconds"] for r in records) / 60
    who = [f"{c.placement}, {c.budget:,}: {len(c.pairs)} ({', '.join(names(c.pairs))})" for c in shown]
    return "\n".join([
        f"{len(records)} searches, {minutes:.0f} minutes of one core. Regions: {'; '.join(who)}.",
        "",
        *losses_table(shown),
        "",
        *wins_table(shown),
        "",
        *cost_table(shown),
    ])  # fmt: skip


def names(pairs: Sequence[Pair]) -> list[str]:
    """Regions, with how many seeds where there are several."""
    seeds = {region: sum(r == region for r, _ in pairs) for region, _ in pairs}
    return [region if count == 1 else f"{region} × {count}" for region, count in seeds.items()]


def losses_table(shown: Sequence[Column]) -> Iterator[str]:
    """Median loss, and the lowest and highest of the pairs; the last row is the model without a prompt."""
    yield from head("best loss", shown)
    for method in shown[0].searches:
        yield row(method, [spread(column.losses(method)) for column in shown])
    first = next(iter(shown[0].searches))
    yield row("unprompted", [spread([c.searches[first][p]["unprompted"] for p in c.pairs]) for c in shown])


def wins_table(shown: Sequence[Column]) -> Iterator[str]:
    """How often one method's loss is the lower one, and the other's; at the loss where searches end, nobody's."""
    yield from head("lower loss, pairs won : lost", shown)
    for one, other in RIVALS:
        if all({one, other} <= set(column.searches) for column in shown):
            yield row(f"{one} : {other}", [score(column.losses(one), column.losses(other)) for column in shown])


def score(mine: Sequence[float], theirs: Sequence[float]) -> str:
    pairs = [(max(a, ENOUGH), max(b, ENOUGH)) for a, b in zip(mine, theirs, strict=True)]
    return f"{sum(a < b for a, b in pairs)} : {sum(b < a for a, b in pairs)}"


def cost_table(shown: Sequence[Column]) -> Iterator[str]:
    """Of the pairs searched furthest: forward-equivalents to some losses, and what one costs."""
    longest = list({column.placement: column for column in shown}.values())
    levels = [f"to {level:g}" for level in LEVELS]
    what = [f"{c.placement}, {label}" for c in longest for label in (*levels, "tokens each", "ms each")]
    yield row("forward-equivalents", what)
    yield "|" + "---|" * (len(what) + 1)
    for method in longest[0].searches:
        cells = []
        for column in longest:
            mine = [column.searches[method][pair] for pair in column.pairs]
            cells += [counted([needed(r, level) for r in mine]) for level in LEVELS]
            cells.append(f"{sum(r['tokens'] for r in mine) / sum(r['spent'] for r in mine):.0f}")
            cells.append(f"{1000 * sum(r['seconds'] for r in mine) / max(1, sum(r['evaluations'] for r in mine)):.0f}")
        yield row(method, cells)


def head(what: str, shown: Sequence[Column]) -> list[str]:
    return [row(what, [f"{c.placement}, {c.budget:,}" for c in shown]), "|" + "---|" * (len(shown) + 1)]


def row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def spread(losses: Sequence[float]) -> str:
    """Median, lowest and highest."""
    middle = small(statistics.median(losses))
    return middle if len(losses) == 1 else f"{middle} ({small(min(losses))}–{small(max(losses))})"


def small(loss: float) -> str:
    return "–" if math.isinf(loss) else f"≤ {ENOUGH}" if loss <= ENOUGH else f"{loss:.1f}"


def counted(counts: Sequence[float]) -> str:
    """The median; where some never get there, in how many they do."""
    never, middle = sum(math.isinf(count) for count in counts), statistics.median(counts)
    if never == len(counts):
        return "never"
    shown = "–" if math.isinf(middle) else f"{middle:,.0f}"
    return shown if not never else f"{shown} ({len(counts) - never} of {len(counts)})"


# ---- the figure ------------------------------------------------------------------------------------------------------


def draw(records: Sequence[Record], settings: Settings, path: Path) -> None:
    """A panel per placement: every search as a thin line, the median over pairs as a thick one.

    Between two budgets the median is over the pairs that were searched up to the larger one, so it may jump there.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "curves"  # the same file every time
    from matplotlib import pyplot

    shown = columns(records, settings)
    placements = list(dict.fromkeys(column.placement for column in shown))
    figure, axes = pyplot.subplots(1, len(placements), figsize=(5 * len(placements), 4), squeeze=False, sharey=True)
    for axis, placement in zip(axes[0], placements, strict=True):
        panel(axis, [column for column in shown if column.placement == placement])
        axis.set_title(placement)
    axes[0][0].set_ylabel("best loss, index points")
    axes[0][0].legend(fontsize=8, loc="lower left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def panel(axis: Any, shown: Sequence[Column]) -> None:
    """One placement."""
    for method in shown[0].searches:
        style = {"color": COLOURS.get(method), "drawstyle": "steps-post"}
        label: str | None = method
        for low, column in zip([FIRST, *(c.budget for c in shown)], shown, strict=False):
            spots = [low * (column.budget / low) ** (i / 60) for i in range(61)]
            mine = column.searches[method]
            axis.plot(spots, [statistics.median(floored(mine[p], s) for p in column.pairs) for s in spots], label=label,
                      linewidth=2.2, **style)  # fmt: skip
            label = None
            for pair in column.pairs:
                axis.plot(spots, [floored(mine[pair], s) for s in spots], linewidth=0.5, alpha=0.5, **style)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("forward-equivalents")
    axis.set_xticks(TICKS, [f"{tick:,}" for tick in TICKS])
    axis.set_xticks([], minor=True)
    axis.set_xlim(FIRST, shown[-1].budget)
    axis.grid(alpha=0.3, which="both")


def floored(record: Record, spent: float) -> float:
    """The best loss, no lower than where searches end; NaN before there is one, which leaves a gap."""
    loss = best_after(record, spent)
    return math.nan if math.isinf(loss) else max(loss, ENOUGH)


def write(records: Sequence[Record], settings: Settings, path: Path, figure: Path) -> None:
    """Put the tables between the page's markers, and the figure beside it."""
    sys.path.append(str(Path(__file__).parents[1] / "tools"))
    from marked import replace_between

    text = page(records, settings)
    if columns(records, settings):
        draw(records, settings, figure)
        text += f"\n\n![Best loss by forward-equivalents]({Path(os.path.relpath(figure, path.parent)).as_posix()})"
    replace_between(path, "curves", text)
