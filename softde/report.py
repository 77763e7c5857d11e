"""What a person reads: tables, and the closing lines of a run. Reads records only, never a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WIDTH = 100  # columns of plain text


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Aligned plain text; the columns numbered in `right` are flush right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def shown(line: list[str]) -> str:
        cells = (f"{c:>{w}}" if i in right else f"{c:<{w}}" for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        return "  ".join(cells).rstrip()

    return "\n".join(map(shown, lines))


def summary(record: Mapping[str, Any]) -> str:
    """A run's `Result.record()` in two lines: what was won and what it cost."""
    return (
        f"loss {loss(record['unprompted_loss'])} unprompted, {loss(record['plain_loss'])} with the soft prompt "
        f"({loss(record['loss'])} as the search scored it)\n"
        f"{record['evaluations']:,} candidates in {record['generations']:,} generations, "
        f"{record['forward_tokens']:,} tokens, {duration(record['wall_seconds'])}; stopped: {record['stop_reason']}"
    )


def loss(value: float | None) -> str:
    """A loss, or n/a where the model's answers were not numbers."""
    return "n/a" if value is None else f"{value:.1f}"


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
