"""What a person reads: tables, and the closing lines of a run. Reads records only, never a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WIDTH = 100  # columns of plain text
FINE = 2.0  # below it a loss is shown with four digits


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Aligned plain text; the columns numbered in `right` are flush right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def shown(line: list[str]) -> str:
        cells = (f"{c:>{w}}" if i in right else f"{c:<{w}}" for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        return "  ".join(cells).rstrip()

    return "\n".join(map(shown, lines))


def summary(record: Mapping[str, Any]) -> str:
    """A run's `Result.record()` in a few lines: what was won, on held-out items too, and what it cost."""
    return (
        f"loss {loss(record['unprompted_loss'])} unprompted, {loss(record['plain_loss'])} with the soft prompt "
        f"({loss(record['loss'])} as the search scored it)\n"
        f"{beside(record)}"
        f"{record['evaluations']:,} candidates in {record['generations']:,} generations, "
        f"{record['forward_tokens']:,} tokens, {duration(record['wall_seconds'])}; stopped: {record['stop_reason']}"
    )


def loss(value: float | None) -> str:
    """A loss, or n/a where the model's answers were not numbers; more digits where they are not score points."""
    return "n/a" if value is None else f"{value:.1f}" if value >= FINE else f"{value:.4f}"


def beside(record: Mapping[str, Any]) -> str:
    """Lines on what not every run has: held-out items, side effects, what moved that should not."""
    lines = []
    if held := record.get("held_out"):
        lines.append(
            f"{held['items']} held-out items: loss {loss(held['unprompted_loss'])} unprompted, {loss(held['loss'])} "
            "with the soft prompt"
        )
    if (bits := record.get("side_effects")) is not None:
        lines.append(f"side effects: {bits:.3f} bits on neutral texts")
    moved = record.get("selectivity") or {}
    if moved.get("ratio") is not None:
        lines.append(f"answers to other items moved {moved['ratio']:.2f} times as far as those to the target's")
    if left := record.get("left_out"):
        lines.append(f"left out, since this model cannot be asked them: {', '.join(left)}")
    return "".join(f"{line}\n" for line in lines)


def duration(seconds: float) -> str:
    """Seconds as 7 s, 12 min 30 s or 1 h 02 min."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def region_table(survey: Any, edition: str | None = None) -> str:
    """Regions with their published scores: of one edition, or of each region's newest complete one; "-" is missing."""
    from softde.surveys import known_regions

    codes = {region.name: region.iso3 or region.code for region in known_regions()}
    complete = {name: set(survey.regions(name, complete=True)) for name in survey.editions}
    present = {name: set(survey.regions(name)) for name in survey.editions}
    rows = []
    for region in sorted(survey.regions(edition)):
        newest_first = [edition] if edition is not None else survey.editions[::-1]
        found = next((e for e in newest_first if region in complete[e]), None)
        chosen = found or next(e for e in newest_first if region in present[e])
        scores = survey.published_scores(region, chosen)
        rows.append([region, codes.get(region, ""), chosen, *("-" if s != s else f"{s:g}" for s in scores)])
    return table(["region", "code", "edition", *survey.factors], rows, right=range(3, 3 + len(survey.factors)))
