"""What the records of bench_methods say: tables of losses, of what else a reviewer asks, of tests, and the figure."""

from __future__ import annotations

import gzip
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from methods_exams import BOTH_ORDERS, BOTH_WORDINGS, PEOPLE, REVERSED, REWORDED, SEEN, named, papers, tiny_text

from softde.compare import MethodTable
from softde.condition import UNPROMPTED
from softde.files import write_file
from softde.surveys.metrics import holm

Record = dict[str, Any]
BASELINES = (UNPROMPTED, "persona")
TOLD = {  # what a method is told of a region
    UNPROMPTED: "nothing",
    "persona": "name",
    "cross-culture": "name, answers of all",
    "self-alignment": "answers",
    "self-alignment, reversed": "answers, turned round",
    "persona + self-alignment": "name, answers",
    "cross-culture + self-alignment": "name, answers of all",
    "sequential": "name",
    "description": "name, scores",
    "description, tiny's words": "scores",
    "value personas": "name, scores",
    "random prompt": "nothing",
    "CultureSPA, joint": "name",
    "CultureSPA, specific": "name",
    "soft prompt, collected": "name, in training",
}
SCORES = "scores, in training"
TICKS = (0.1, 0.3, 1, 3, 10, 30, 100, 300)  # of the figure; what is below the first is drawn there

# ---- records ---------------------------------------------------------------------------------------------------------


def save(table: MethodTable, about: Mapping[str, Any], path: Path) -> None:
    """One compressed JSON line for what the table was made with, and one for each of its rows; NaN is left out."""
    kinds = {"row": table.rows, "across": table.across}
    lines = [{"about": {**about, "columns": {kind: [*rows[0]] for kind, rows in kinds.items()}}}]
    lines += [{kind: _known(row)} for kind, rows in kinds.items() for row in rows]
    text = "".join(f"{json.dumps(line, ensure_ascii=False, allow_nan=False)}\n" for line in lines)
    write_file(path, gzip.compress(text.encode(), mtime=0))


def load(path: Path) -> tuple[Record, MethodTable]:
    """The same again; no model is needed."""
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    about = lines[0]["about"]
    rows, across = (
        tuple({**dict.fromkeys(about["columns"][kind], math.nan), **line[kind]} for line in lines if kind in line)
        for kind in ("row", "across")
    )
    return about, MethodTable(about["model"], papers(about["regions"]).exams, rows, across)


def _known(row: Mapping[str, Any]) -> Record:
    return {k: _digits(v) for k, v in row.items() if not (isinstance(v, float) and math.isnan(v))}


def _digits(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


# ---- the page --------------------------------------------------------------------------------------------------------


def page(about: Record, table: MethodTable) -> str:
    """Markdown of everything."""
    lines: dict[tuple[str, str], Record] = {(line["exam"], line["method"]): line for line in table.summary()}
    order = [line["method"] for line in lines.values() if line["exam"] == SEEN]
    known = [region for region in about["regions"] if named(region)]
    counts = sorted({line["seeds"] for line in lines.values() if line["kind"] == "condition"})
    head = (
        f"{len(table.methods)} methods, {len(about['regions'])} regions ({', '.join(known)} known by name; "
        f"{', '.join(r for r in about['regions'] if r not in known)} not), seeds: {' or '.join(map(str, counts))}, "
        f"{about['budget']:,} candidates per search; {about['seconds'] / 60:.0f} minutes of one core to find them."
    )
    parts = [[head], losses(table, lines, order, known), questions(lines, list(table.methods)), tests(table),
             by_region(table, about["regions"], order)]  # fmt: skip
    return "\n\n".join("\n".join(part) for part in parts)


def losses(
    table: MethodTable, lines: Mapping[tuple[str, str], Record], order: Sequence[str], known: Sequence[str]
) -> Iterator[str]:
    """Loss in the order that searches saw, by group of regions; in the other order, in other words; what it cost."""
    yield "### Losses, and what they cost\n"
    yield from head("", "is told", "loss", "95 %", "names known", "not known", "reversed", "95 %", "reworded", "95 %",
                    "tokens to find", "s", "tokens to ask")  # fmt: skip
    for method in order:
        line = lines[SEEN, method]
        mine = table.by_region(SEEN, method, "loss")
        groups = [[loss for r, loss in mine.items() if (r in known) == wanted] for wanted in (True, False)]
        cells = [shown(line["loss"], 1), interval(line, "loss_low", "loss_high")]
        cells += [shown(statistics.fmean(group) if group else math.nan, 1) for group in groups]
        if line["kind"] != "condition":
            yield row(f"*{method}*", ["", *cells, *[""] * 7])
            continue
        for exam in (REVERSED, REWORDED):
            other = lines[exam, method]
            cells += [shown(other["loss"], 1), interval(other, "loss_low", "loss_high")]
        cells += [count(line["found_tokens"]), count(line["found_seconds"]), count(line["asked_tokens"])]
        yield row(method, [TOLD.get(method, SCORES), *cells])


def questions(lines: Mapping[tuple[str, str], Record], methods: Sequence[str]) -> Iterator[str]:
    """Is it this region, does it hold, are they people's answers?"""
    yield "### What else a reviewer asks\n"
    among = lines[BOTH_ORDERS, methods[0]]
    yield from head(
        "", "own", f"rank of {among['ranked_among']:.0f}", "kept", "τ", "mass", "order", "words", "JS", "SPA"
    )
    for method in methods:
        line, words, people = (lines[exam, method] for exam in (BOTH_ORDERS, BOTH_WORDINGS, PEOPLE))
        cells = [shown(line["top1"], 2), shown(line["rank"], 1), shown(line["divergence"], 2), shown(line["tau"], 2),
                 shown(line["option_mass"], 3), shown(line["order_shift"], 2), shown(words["wording_shift"], 2),
                 shown(people["loss"], 3), shown(people["culture_spa"], 1)]  # fmt: skip
        yield row(method, cells)
    yield row("*chance*", [shown(among["chance_top1"], 2), shown(among["chance_rank"], 1), *[""] * 7])
    for (exam, method), line in lines.items():
        if exam == PEOPLE and line["kind"] != "condition":
            yield row(f"*{method}*", [*[""] * 7, shown(line["loss"], 3), shown(line["culture_spa"], 1)])


def tests(table: MethodTable) -> Iterator[str]:
    """Paired differences in the order that no search saw."""
    alone = replace(table, exams=tuple(exam for exam in table.exams if exam.name == REVERSED))
    found = [test for base in BASELINES if base in table.methods for test in alone.tests(base)]
    if not found:
        return
    corrected = dict(zip(map(_pair, found), holm([test["p"] for test in found]), strict=True))
    by_pair = {_pair(test): test for test in found}
    least = min(test["smallest_p"] for test in found)
    yield "### Paired tests, options reversed\n"
    yield from head(
        "loss less that of", *[cell for base in BASELINES for cell in (base, "95 %", "better", "p", "Holm")]
    )
    for method in table.methods:
        cells: list[str] = []
        for base in BASELINES:
            test = by_pair.get((method, base))
            if test is None:
                cells += [""] * 5
                continue
            better = f"{test['better']}/{test['regions']}"
            cells += [shown(test["difference"], 1), interval(test, "low", "high"), better]
            cells += [f"{test['p']:.3g}", f"{corrected[method, base]:.2g}"]
        yield row(method, cells)
    yield (
        "\nLoss less the baseline's, paired by region, seeds averaged; p: flips of the differences' signs. With "
        f"{found[0]['regions']} regions no p is below {least:.2g}; Holm's correction for {len(found)} tests makes that "
        f"{min(1.0, len(found) * least):.2g}."
    )


def _pair(test: Record) -> tuple[str, str]:
    return test["method"], test["baseline"]


def by_region(table: MethodTable, regions: Sequence[str], order: Sequence[str]) -> Iterator[str]:
    """Mean over seeds, with the lowest and highest."""
    yield "### Losses by region, options forward\n"
    yield from head("", *regions)
    for method in order:
        mine = [r for r in table.rows if (r["exam"], r["method"]) == (SEEN, method)]
        seeds = {region: [r["loss"] for r in mine if r["region"] == region] for region in regions}
        name = method if mine[0]["kind"] == "condition" else f"*{method}*"
        yield row(name, [spread(seeds[region]) for region in regions])


# ---- cells -----------------------------------------------------------------------------------------------------------


def head(first: str, *others: str) -> list[str]:
    return [row(first, others), "|---|" + "---:|" * len(others)]


def row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def shown(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def count(value: float) -> str:
    return "" if math.isnan(value) or not value else f"{value:,.0f}"


def interval(line: Record, low: str, high: str) -> str:
    return "" if math.isnan(line[low]) else f"[{line[low]:.1f}, {line[high]:.1f}]"


def spread(losses: Sequence[float]) -> str:
    """Mean, and the ends where there are several."""
    mean = shown(statistics.fmean(losses), 1)
    return mean if max(losses) - min(losses) < 0.05 else f"{mean} ({min(losses):.1f}–{max(losses):.1f})"


# ---- the figure ------------------------------------------------------------------------------------------------------


def draw(table: MethodTable, path: Path) -> None:
    """A panel for the order that searches saw and one for the other: regions as dots, means with their intervals."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "methods"  # the same file every time
    from matplotlib import pyplot

    methods = list(table.methods)
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 0.3 * len(methods) + 1.6), sharey=True, sharex=True)
    for axis, exam in zip(axes, (SEEN, REVERSED), strict=True):
        panel(axis, table, exam, methods)
        axis.set_title(f"options {exam}")
    axes[0].set_yticks(range(len(methods)), methods, fontsize=8)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="lower center", ncol=len(labels))
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def panel(axis: Any, table: MethodTable, exam: str, methods: Sequence[str]) -> None:
    """One exam."""
    lines = {line["method"]: line for line in table.summary() if line["exam"] == exam}
    labels = {True: "name known", False: "name not known"}  # each once
    for place, method in enumerate(methods):
        for region, loss in table.by_region(exam, method, "loss").items():
            known = named(region)
            axis.plot(max(loss, TICKS[0]), place, "o", markersize=5, markeredgecolor="tab:blue",
                      markerfacecolor="tab:blue" if known else "none", label=labels.pop(known, None))  # fmt: skip
        mean, low, high = (max(lines[method][name], TICKS[0]) for name in ("loss", "loss_low", "loss_high"))
        axis.plot([low, high], [place, place], color="black", linewidth=1)
        axis.plot(mean, place, "|", color="black", markersize=10, label=None if place else "mean, 95 %")
    for name, style in (("uniform answerer", ":"), ("best integer respondent", "--")):
        if name in lines:
            axis.axvline(lines[name]["loss"], color="gray", linewidth=1, linestyle=style, label=name)
    axis.set_xscale("log")
    axis.set_xticks(TICKS, map(str, TICKS))
    axis.set_xlabel("loss, index points")
    axis.grid(alpha=0.3, axis="x")


def write(records: tuple[Record, MethodTable], path: Path, figure: Path) -> None:
    """Put the tables between the page's markers, and the figure beside it."""
    tiny_text()  # whose folder has the markers' tool
    from marked import replace_between

    replace_between(path, "methods", page(*records))
    draw(records[1], figure)
