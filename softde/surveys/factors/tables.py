"""A table of human answers → what factor models are fitted on: means, deviations, weighted correlations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from softde.surveys.scoring import Array
from softde.surveys.values import listed, nearest

if TYPE_CHECKING:
    from softde.surveys.human import HumanAnswers, Respondents

Missing: TypeAlias = Literal["mean", "pairwise"]
Table: TypeAlias = Union[npt.ArrayLike, "Respondents", "HumanAnswers", "Correlations"]

ROUNDING = 1e-8  # an eigenvalue of a correlation matrix below this is zero, below its negative is truly negative
ALIKE = 0.99  # |r| from here on is named as a near duplicate


@dataclass(frozen=True, eq=False)
class Correlations:
    """What is kept of a table of answers.

    means, deviations : (items,), weighted, deviations with the number of rows (not one less) below.
    matrix : (items, items) weighted correlations.
    rows : rows with at least one answer and a weight. effective_rows : Kish's (Σw)² / Σw², the same without weights.
    source : where the answers came from, for records.
    """

    item_ids: tuple[str, ...]
    means: Array
    deviations: Array
    matrix: Array
    rows: int
    effective_rows: float
    source: str = ""

    def of(self, items: Iterable[str]) -> Correlations:
        """The same for some of the items, in the order given."""
        index = positions(items, self.item_ids)
        ids = tuple(self.item_ids[i] for i in index)
        matrix = self.matrix[np.ix_(index, index)]
        return Correlations(
            ids, self.means[index], self.deviations[index], matrix, self.rows, self.effective_rows, self.source
        )

    @property
    def definite(self) -> bool:
        """Can the matrix be inverted?"""
        return bool(np.linalg.eigvalsh(self.matrix)[0] > ROUNDING)


def correlations(
    table: Table,
    weights: npt.ArrayLike | None = None,
    items: Sequence[str] | None = None,
    missing: Missing = "mean",
) -> Correlations:
    """Means, deviations and weighted correlations of a table of answers.

    Parameters
    ----------
    table : (rows, items) option values, NaN for none; a pandas frame, whose columns are the item ids; `Respondents`
        (rows are respondents, with their weights); `HumanAnswers` (rows are regions, values their item means); or
        `Correlations`, handed back.
    weights : (rows,) from zero up, in place of the table's own.
    items : names of an array's columns ("item1", … by default); otherwise the ids of the items to use, in this order.
    missing : "mean" counts an item's mean for a missing answer, which always gives a valid matrix and makes
        correlations smaller; "pairwise" takes each correlation from the rows that answered both items.

    Raises
    ------
    ValueError
        Items without answers or with the same answer throughout (named), too few rows, weights that do not fit.
    """
    if missing not in ("mean", "pairwise"):
        raise ValueError(f"missing: expected 'mean' or 'pairwise', got {missing!r}")
    if isinstance(table, Correlations):
        if weights is not None:
            raise ValueError("weights go with a table of answers; correlations are weighted already")
        return table if items is None else table.of(items)
    values, ids, own_weights, source = _rows(table, items)
    w = _weights(own_weights if weights is None else weights, len(values))
    kept = (w > 0) & ~np.isnan(values).all(axis=1)
    _check(values[kept], ids, kept)
    values, w = values[kept], w[kept]
    known = ~np.isnan(values)
    means = (w[:, None] * np.where(known, values, 0)).sum(axis=0) / (w[:, None] * known).sum(axis=0)
    if missing == "mean":
        values, known = np.where(known, values, means), np.ones_like(known)
    centred = np.where(known, values - means, 0.0)
    deviations = np.sqrt((w[:, None] * centred**2).sum(axis=0) / (w[:, None] * known).sum(axis=0))
    constant = [i for i, d, m in zip(ids, deviations, means, strict=True) if d <= 1e-10 * max(1.0, abs(m))]
    if constant:
        raise ValueError(f"items with the same answer in every row: {listed(constant)}; leave them out")
    if (
        missing == "mean"
    ):  # without weights factor_analyzer's matrix to the last bit: where its optimiser stops hangs on it
        unequal = w if np.ptp(w) else None
        matrix = np.cov(centred / deviations, rowvar=False, ddof=0, aweights=unequal).reshape(len(ids), len(ids))
    else:
        matrix = _pairwise(centred, known, w, ids)
    return Correlations(ids, means, deviations, matrix, len(w), float(w.sum() ** 2 / (w**2).sum()), source)


def positions(items: Iterable[str], known: Sequence[str]) -> list[int]:
    """Indices of items by id."""
    items = list(items)
    for item in items:
        if item not in known:
            raise ValueError(f"unknown item {item!r}; {nearest(str(item), known)}")
    twice = sorted({item for item in items if items.count(item) > 1})
    if twice:
        raise ValueError(f"items named twice: {listed(twice)}; name each once")
    return [list(known).index(item) for item in items]


def _rows(table: Table, items: Sequence[str] | None) -> tuple[Array, tuple[str, ...], npt.ArrayLike | None, str]:
    """Values (rows, items), item ids, the table's own weights, and its source."""
    survey = getattr(table, "survey", None)
    means = getattr(table, "item_means", None)
    given = table if survey is None else means if means is not None else table.values  # type: ignore[union-attr]
    try:
        values = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"table: expected numbers (rows, items), NaN for no answer, got {type(table).__name__}"
        ) from None
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"table: expected (rows, items), got shape {values.shape}")
    if np.isinf(values).any():
        row, column = np.argwhere(np.isinf(values))[0]
        raise ValueError(f"table: row {row}, column {column} is infinite; use NaN for no answer")
    columns = survey.item_ids if survey is not None else getattr(table, "columns", None)
    own = getattr(table, "weights", None) if survey is not None and means is None else None
    source = "" if survey is None else _source(table, "respondents" if means is None else "regions", len(values))
    if columns is not None:
        ids = tuple(map(str, columns))
        index = positions(ids if items is None else items, ids)
        return values[:, index], tuple(ids[i] for i in index), own, source
    ids = tuple(f"item{i}" for i in range(1, values.shape[1] + 1)) if items is None else tuple(map(str, items))
    if len(ids) != values.shape[1]:
        raise ValueError(f"items: expected one name per column ({values.shape[1]}), got {len(ids)}")
    positions(ids, ids)
    return values, ids, own, source


def _source(table: object, what: str, rows: int) -> str:
    return ", ".join(filter(None, (str(getattr(table, "source", "")), f"{rows} {what}")))


def _weights(weights: npt.ArrayLike | None, rows: int) -> Array:
    array = np.ones(rows) if weights is None else np.asarray(weights, dtype=np.float64)
    if array.shape != (rows,):
        raise ValueError(f"weights: expected one per row, ({rows},), got shape {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any():
        row = int(np.flatnonzero(~(np.isfinite(array) & (array >= 0)))[0])
        raise ValueError(f"weights: expected finite numbers from 0 up, got {array[row]} in row {row}")
    if array.sum() == 0:
        raise ValueError("weights sum to zero; give at least three rows a weight above it")
    return array


def _check(values: Array, ids: tuple[str, ...], kept: npt.NDArray[np.bool_]) -> None:
    """Refuse too few rows and items without answers."""
    if len(values) < 3:
        raise ValueError(f"expected three rows with answers or more, got {len(values)} of {len(kept)}")
    empty = [item for item, column in zip(ids, values.T, strict=True) if np.isnan(column).all()]
    if empty:
        raise ValueError(f"items without any answer: {listed(empty)}; leave them out")


def _pairwise(centred: Array, known: npt.NDArray[np.bool_], w: Array, ids: tuple[str, ...]) -> Array:
    """Pairwise correlations: (i, j) from the rows that answered both, with the means of those rows."""
    together = known.astype(np.float64)
    counts = together.T @ together
    weighted = w[:, None] * together
    both = weighted.T @ together
    if counts.min() < 3:
        i, j = np.unravel_index(counts.argmin(), counts.shape)
        raise ValueError(
            f"items {ids[i]} and {ids[j]} were answered together in {int(counts.min())} rows, three are needed; leave "
            'one out or use missing="mean"'
        )
    first = (w[:, None] * centred).T @ together / both  # mean of i over the rows that answered j too
    square = (w[:, None] * centred**2).T @ together / both - first**2
    product = (w[:, None] * centred).T @ centred / both - first * first.T
    flat = square <= 1e-20
    if flat.any():
        i, j = np.argwhere(flat)[0]
        raise ValueError(
            f"item {ids[i]} has one answer throughout where {ids[j]} was answered too; leave one out or use "
            'missing="mean"'
        )
    matrix = np.asarray(product / np.sqrt(square * square.T))
    return (matrix + matrix.T) / 2


def need_definite(c: Correlations, what: str, instead: str = "") -> None:
    """Refuse a correlation matrix that cannot be inverted, with its smallest eigenvalue and the items at fault."""
    values, vectors = np.linalg.eigh(c.matrix)
    if values[0] <= ROUNDING:
        raise ValueError(
            f"{what} needs a positive definite correlation matrix, and that of these {len(c.item_ids)} items has "
            f"smallest eigenvalue {values[0]:.2g}: {_reason(c, vectors[:, 0], values[0])}{instead}"
        )


def need_semidefinite(c: Correlations) -> None:
    """Refuse a matrix that no complete table can have (pairwise correlations may give one)."""
    smallest = np.linalg.eigvalsh(c.matrix)[0]
    if smallest < -ROUNDING:
        raise ValueError(
            f"the correlation matrix is not positive definite: its smallest eigenvalue is {smallest:.2g}, because each "
            'correlation was taken from other rows; use missing="mean", or leave out items with many missing answers'
        )


def _reason(c: Correlations, vector: Array, smallest: float) -> str:
    """Why a matrix cannot be inverted, and what to do."""
    if c.rows <= len(c.item_ids):
        return f"it comes from only {c.rows} rows; take fewer items"
    upper = np.triu(np.abs(c.matrix), 1)
    alike = sorted(zip(*np.nonzero(upper > ALIKE), strict=True), key=lambda pair: -upper[pair])
    if alike:
        pairs = listed((f"{c.item_ids[i]} and {c.item_ids[j]}" for i, j in alike), 4)
        return f"(nearly) duplicates are {pairs}; leave one of them out"
    if smallest < -ROUNDING:
        return 'correlations taken pair by pair do not fit together; use missing="mean"'
    involved = [c.item_ids[i] for i in np.argsort(-np.abs(vector)) if abs(vector[i]) > 0.1]
    return f"a weighted sum of {listed(involved, 8)} is (nearly) constant; leave one of them out"
