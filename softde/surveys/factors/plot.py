"""A figure of a factor model's loadings."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from softde.files import write_file
from softde.surveys.factors.model import FactorModel
from softde.surveys.scoring import Array


def plot_loadings(
    model: FactorModel, path: str | Path | None = None, labels: Mapping[str, str] | None = None, most: int = 40
) -> Any:
    """A table of loadings in colour, items grouped by the factor they load on most, strongest first.

    Parameters
    ----------
    path : where to write it as a PNG file, if anywhere.
    labels : item id → text beside the id, such as its topic.
    most : of more items than this, those with the largest loadings are shown.

    Returns
    -------
    matplotlib's Figure.

    Raises
    ------
    ImportError
        matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib; install it with pip install 'softde[viz]'") from error
    if most < 1:
        raise ValueError(f"most: expected a number of items from 1 up, got {most}")
    rows = display_order(model.loadings, most)
    shown = model.loadings[rows]
    figure = Figure(figsize=(3.5 + 0.9 * len(model.factors), 1.4 + 0.26 * len(rows)), layout="constrained", dpi=150)
    axes = figure.subplots()
    image = axes.imshow(shown, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for (row, column), loading in np.ndenumerate(shown):
        colour = "white" if abs(loading) > 0.65 else "black"
        axes.text(column, row, f"{round(loading, 2) + 0.0:.2f}", ha="center", va="center", color=colour, fontsize=8)
    names = [model.item_ids[i] for i in rows]
    axes.set_yticks(range(len(rows)), [_label(name, labels) for name in names], fontsize=8)
    heads = [f"{f}\n{share:.0%}" for f, share in zip(model.factors, model.variance_explained, strict=True)]
    axes.set_xticks(range(len(heads)), heads)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    hidden = len(model.item_ids) - len(rows)
    axes.set_xlabel(f"{hidden} items with smaller loadings are not shown" if hidden else "")
    figure.suptitle(f"Loadings ({model.method}, {model.rotation or 'unrotated'}) and share of variance", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.6, label="loading")
    if path is not None:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        write_file(path, buffer.getvalue())
    return figure


def display_order(loadings: Array, most: int) -> list[int]:
    """Rows to show: the `most` with the largest loading, by factor and then by size."""
    strength, factor = np.abs(loadings).max(axis=1), np.abs(loadings).argmax(axis=1)
    kept = np.argsort(-strength, kind="stable")[:most]
    return [int(i) for i in sorted(kept, key=lambda i: (factor[i], -strength[i]))]


def _label(item: str, labels: Mapping[str, str] | None) -> str:
    text = (labels or {}).get(item, "")
    return f"{item}  {text[:50]}" if text else item
