"""What a person reads of a table of methods, as text of 100 columns or as Markdown."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from softde.compare.text import WIDTH, aligned, markdown, number
from softde.condition import UNPROMPTED
from softde.surveys.targets import ScoresTarget

if TYPE_CHECKING:
    from softde.compare.entries import Exam
    from softde.compare.table import MethodTable

COARSE, FINE = 10.0, 2.0  # losses from here up are shown with one digit, with three, and below with four
LOW_MASS = 0.5  # below it, the model mostly says something else
MANY = 20  # regions from which on a bootstrap interval is about as wide as it should be
COLUMNS = {  # of a summary: head, digits, what it is
    "regions": ("regions", 0, "regions: of a method's mean; means over different regions do not compare, tests do"),
    "culture_spa": ("SPA", 1, "SPA: CultureSPA's score of the most probable answers, in percent"),
    "top1": ("own", 2, "own: share of regions whose answers are nearest to that region's humans or scores"),
    "rank": ("rank", 1, "rank: mean rank of the own region among {among}"),
    "divergence": (
        "kept",
        2,
        "kept: differences between regions, the model's over the {people} (below 1 flattened, above caricatured)",
    ),
    "tau": ("tau", 2, "tau: Kendall's, order of the regions, mean over factors"),
    "option_mass": ("mass", 2, "mass: probability of the options among all tokens"),
    "order_shift": ("order", 2, "order: deviation between option orders over that between regions"),
    "wording_shift": ("words", 2, "words: the same between wordings"),
    "found_tokens": ("tokens", 0, "tokens: spent on finding one condition"),
    "found_seconds": ("s", 0, "s: seconds for that"),
}
COSTS = ("found_tokens", "found_seconds")  # shown where a condition cost anything


@dataclass(frozen=True)
class Section:
    """A table with a title above and a note below; rules stand before the rows of these numbers."""

    title: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]
    rules: Sequence[int] = ()
    note: str = ""


def as_text(table: MethodTable) -> str:
    """Lines of at most 100 columns."""
    parts: list[str] = []
    for section in sections(table):
        parts += [textwrap.fill(section.title, WIDTH), *aligned(section.heads, section.rows, section.rules), ""]
        parts += [textwrap.fill(section.note, WIDTH), ""] if section.note else []
    return "\n".join(parts).rstrip()


def as_markdown(table: MethodTable) -> str:
    """The same as headings and tables."""
    lines: list[str] = []
    for section in sections(table):
        lines += [f"### {section.title}", "", markdown(["", *section.heads])]
        lines.append(markdown(["---", *["---:"] * len(section.heads)]))
        first = min(section.rules, default=len(section.rows))
        for place, (name, cells) in enumerate(section.rows):
            lines.append(markdown([f"*{name}*" if place >= first else name, *cells]))
        lines += ["", section.note, ""] if section.note else [""]
    return "\n".join(lines)


def sections(table: MethodTable) -> Iterator[Section]:
    """Per exam: methods, paired tests against the unprompted model, losses by region."""
    summary = table.summary()
    tests = table.tests() if UNPROMPTED in table.methods else []
    for exam in table.exams:
        lines = [line for line in summary if line["exam"] == exam.name]
        yield _methods(table, exam, lines)
        mine = [test for test in tests if test["exam"] == exam.name]
        if mine:
            yield _tests(table, exam, mine, len(tests))
        yield _regions(table, exam, lines)


def _methods(table: MethodTable, exam: Exam, lines: Sequence[dict[str, Any]]) -> Section:
    conditions = [line for line in lines if line["kind"] == "condition"]
    digits = _digits(lines)
    level = f"{100 * table.confidence:g} %"
    heads, columns = ["loss", level], [["loss"], ["loss_low", "loss_high"]]
    if any(not math.isnan(line["held_out_loss"]) for line in lines):
        heads, columns = (
            [*heads, "held out", level],
            [*columns, ["held_out_loss"], ["held_out_loss_low", "held_out_loss_high"]],
        )
    shown = [name for name in COLUMNS if _says_something(name, conditions)]
    rows = [
        (
            line["method"],
            [_cell(line, names, digits) for names in columns] + [_plain(line[n], COLUMNS[n][1]) for n in shown],
        )
        for line in lines
    ]
    what = f"held out: {exam.held_out}; " if exam.held_out else ""
    counts = f"{_span(conditions, 'regions')} regions, seeds: {_span(conditions, 'seeds')}"
    title = f"{exam.name}: {what}survey {exam.survey.id}, orders {exam.orders}, {counts}, model {table.model}"
    return Section(
        title, [*heads, *(COLUMNS[n][0] for n in shown)], rows, [len(conditions)], _legend(table, exam, lines, shown)
    )


def _says_something(name: str, conditions: Sequence[dict[str, Any]]) -> bool:
    """A column that differs where it should not, costs that are some, and whatever there is a number of."""
    if name == "regions":
        return len({line[name] for line in conditions}) > 1
    return any(not math.isnan(line[name]) and (name not in COSTS or line[name] > 0) for line in conditions)


def _legend(table: MethodTable, exam: Exam, lines: Sequence[dict[str, Any]], shown: Sequence[str]) -> str:
    conditions = [line for line in lines if line["kind"] == "condition"]
    among = _span(conditions, "ranked_among")
    people = "published ones" if exam.human is None else "humans'"
    goal = next(iter(exam.goals.values()))
    weights = goal.weights if isinstance(goal, ScoresTarget) else None  # items have too many to list
    weighted = "" if weights is None else f", weighted {', '.join(f'{w:g}' for w in weights)}"
    parts = [
        f"loss: {goal.label()}{weighted}, lower is better, mean over regions and seeds",
        f"{100 * table.confidence:g} %: bootstrap over regions, and over seeds where there are several"
        + ", too narrow for so few regions" * (max((line["regions"] for line in lines), default=0) < MANY),
    ]
    parts += [COLUMNS[name][2].format(among=among, people=people) for name in shown]
    chance = next((line for line in conditions if not math.isnan(line["chance_rank"])), None)
    if chance is not None:
        parts.append(f"chance: own {chance['chance_top1']:.2f}, rank {chance['chance_rank']:g}")
    parts.append("below the rule: answerers who know nothing, and floors")
    careful = ""
    editions = sorted({goal.edition for goal in exam.goals.values() if isinstance(goal, ScoresTarget)})
    if len(editions) > 1:
        careful = f" Careful: regions' scores are of different editions, {' and '.join(editions)}."
    low = [line["method"] for line in conditions if not line["option_mass"] >= LOW_MASS]
    if low:
        careful += f" Careful: under {', '.join(low)} the options hold less than {LOW_MASS:.0%} of the probability."
    return "; ".join(parts) + "." + careful


def _tests(table: MethodTable, exam: Exam, tests: Sequence[dict[str, Any]], family: int) -> Section:
    digits = _digits([{"loss": abs(test["difference"])} for test in tests])
    rows = [
        (
            test["method"],
            [
                _plain(test["difference"], digits), _cell(test, ["low", "high"], digits),
                f"{test['better']}/{test['regions']}", f"{test['p']:.3g}", f"{test['p_holm']:.3g}",
            ],
        )
        for test in tests
    ]  # fmt: skip
    heads = ["difference", f"{100 * table.confidence:g} %", "better", "p", "p (Holm)"]
    regions = max(test["regions"] for test in tests)
    note = (
        f"Paired by region, seeds averaged; p: flips of the differences' signs, which for {regions} regions is never "
        f"below {min(test['smallest_p'] for test in tests):.2g}; Holm's correction is for {family} tests, which makes "
        f"that {min(1.0, family * min(test['smallest_p'] for test in tests)):.2g}."
    )
    return Section(f"{exam.name}: loss of each method less that of {UNPROMPTED}", heads, rows, note=note)


def _regions(table: MethodTable, exam: Exam, lines: Sequence[dict[str, Any]]) -> Section:
    regions = list(dict.fromkeys(row["region"] for row in table.rows if row["exam"] == exam.name))
    digits = _digits(lines)
    rows = []
    for line in lines:
        values = table.by_region(exam.name, line["method"], "loss")
        rows.append((line["method"], [_plain(values.get(region, math.nan), digits) for region in regions]))
    first = sum(line["kind"] == "condition" for line in lines)
    return Section(f"{exam.name}: loss by region, seeds averaged", regions, rows, [first])


def _cell(line: dict[str, Any], names: Sequence[str], digits: int) -> str:
    """A number, or two as an interval."""
    values = [_plain(line[name], digits) for name in names]
    return values[0] if len(names) == 1 else f"[{', '.join(values)}]" if all(values) else ""


def _plain(value: float, digits: int) -> str:
    """Nothing for NaN; large numbers short."""
    if math.isnan(value):
        return ""
    return number(round(value, digits) + 0.0, digits) if abs(value) < 1e6 else f"{value:.2e}"  # never "-0.0"


def _digits(lines: Sequence[dict[str, Any]]) -> int:
    most = max((line["loss"] for line in lines if not math.isnan(line["loss"])), default=0.0)
    return 1 if most >= COARSE else 3 if most >= FINE else 4


def _span(lines: Sequence[dict[str, Any]], name: str) -> str:
    """One number, or "3 to 6" where methods differ."""
    values = sorted({int(line[name]) for line in lines if not math.isnan(line[name])})
    return "no" if not values else f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"
