"""Tables as text: columns that fit a terminal, names that fit a column, rows of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WIDTH = 100  # columns of the plain table
NAME_WIDTH = 30


def aligned(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], rules: Sequence[int] = ()) -> list[str]:
    """Lines of names and cells, in blocks one below the other where a terminal is too narrow for all columns.

    heads : of the cells. rows : (name, cells). rules : numbers of the rows before which a rule is drawn; one is drawn
    below the heads in any case.
    """
    longest = min(NAME_WIDTH, max(len(name) for name, _ in rows))
    columns = [[head, *(cells[i] for _, cells in rows)] for i, head in enumerate(heads)]
    widths = [max(map(len, column)) + 2 for column in columns]
    names = ["", *shortened([name for name, _ in rows], longest)]
    lines: list[str] = []
    for block in blocks(widths, WIDTH - longest):
        shown = [
            f"{name:<{longest}}" + "".join(f"{columns[i][line]:>{widths[i]}}" for i in block)
            for line, name in enumerate(names)
        ]
        rule = "-" * max(map(len, shown))
        for row in sorted({0, *rules}, reverse=True):
            shown.insert(row + 1, rule)
        lines += ["", *(line.rstrip() for line in shown)]
    return lines


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Names cut in the middle where they are too long, at a place where they stay different, if there is one."""
    room = width - 3
    for head in (room // 2, room // 4, room - room // 4):
        short = [n if len(n) <= width else f"{n[:head]}...{n[len(n) - room + head :]}" for n in names]
        if len(set(short)) == len(set(names)):
            return short
    return short


def blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Column numbers in groups that fit the room."""
    groups: list[list[int]] = [[]]
    for i, width in enumerate(widths):
        if groups[-1] and sum(widths[j] for j in groups[-1]) + width > room:
            groups.append([])
        groups[-1].append(i)
    return groups


def number(value: float | None, digits: int = 1) -> str:
    """A number with so many digits; nothing for None."""
    if value is None:
        return ""
    return f"{value:.{digits}f}" if np.isfinite(value) else "nan"


def markdown(cells: Sequence[str]) -> str:
    """A row of a table."""
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
