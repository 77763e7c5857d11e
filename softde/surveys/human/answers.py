"""What humans answered: single respondents, and the shares of a region's answers to every item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from softde.surveys.regions import find_region
from softde.surveys.survey import Survey
from softde.surveys.values import listed, nearest

Array: TypeAlias = npt.NDArray[np.float64]
Numbers: TypeAlias = npt.NDArray[np.int64]

TOLERANCE = 1e-6  # by which the shares of an item may miss one


@dataclass(frozen=True, eq=False)
class Respondents:
    """Single answers to a survey.

    answers : (respondents, items) option numbers from 0 in each item's own order, -1 where there is none.
    regions : (respondents,) region of each. weights : (respondents,) from 0 up; each region's sum is above 0.
    """

    survey: Survey
    answers: Numbers
    regions: npt.NDArray[np.str_]
    weights: Array

    def __post_init__(self) -> None:
        answers, weights = np.asarray(self.answers), np.asarray(self.weights, dtype=np.float64)
        regions = np.asarray(self.regions, dtype=np.str_)
        items = len(self.survey.items)
        if answers.ndim != 2 or answers.shape[1] != items or not len(answers):
            raise ValueError(f"answers: expected (respondents, {items} items), one or more, got shape {answers.shape}")
        if not np.issubdtype(answers.dtype, np.integer):
            raise ValueError(f"answers: expected option numbers from 0 as integers, got {answers.dtype}")
        for name, array in (("regions", regions), ("weights", weights)):
            if array.shape != answers.shape[:1]:
                raise ValueError(f"{name}: expected one per respondent ({len(answers)}), got shape {array.shape}")
        _check_numbers(self.survey, answers)
        _check_weights(weights, regions)
        for field, value in (
            ("answers", answers.astype(np.int64, copy=False)),
            ("regions", regions),
            ("weights", weights),
        ):
            object.__setattr__(self, field, _frozen(value))

    @property
    def values(self) -> Array:
        """(respondents, items) option values, NaN where there is no answer."""
        values = np.full(self.answers.shape, np.nan)
        for i, item in enumerate(self.survey.items):
            table = np.array([*(option.value for option in item.options), np.nan])
            values[:, i] = table[self.answers[:, i]]  # -1 is the NaN at the end
        return values

    def of(self, region: str) -> Respondents:
        """The respondents of one region."""
        chosen = self.regions == _found(region, np.unique(self.regions).tolist(), "")
        return Respondents(self.survey, self.answers[chosen], self.regions[chosen], self.weights[chosen])

    def shares(self, source: str = "") -> HumanAnswers:
        """Weighted option shares per region, regions in alphabetical order.

        A share is the weight of an option's answers over the weight of all answers to the item; who gave none does
        not count.
        """
        names, region = np.unique(self.regions, return_inverse=True)
        most = self.survey.option_values.shape[1]
        sums = np.zeros((len(names), len(self.survey.items), most))
        counts = np.zeros(sums.shape[:2])
        first = region * (most + 1) + 1  # where a region's cells begin, after one for no answer
        for i in range(sums.shape[1]):
            cell = first + self.answers[:, i]
            size = len(names) * (most + 1)
            sums[:, i] = np.bincount(cell, self.weights, size).reshape(len(names), most + 1)[:, 1:]
            counts[:, i] = np.bincount(cell, minlength=size).reshape(len(names), most + 1)[:, 1:].sum(-1)
        total = sums.sum(-1)
        for r, i in np.argwhere((counts > 0) & (total <= 0))[:1]:
            raise ValueError(
                f"region {names[r]}, item {self.survey.item_ids[i]}: the weights of all {counts[r, i]:.0f} answers are "
                "zero; leave the item or the region out, or use no weights"
            )
        shares = np.divide(sums, total[..., None], out=np.full_like(sums, np.nan), where=counts[..., None] > 0)
        return HumanAnswers(self.survey, tuple(names.tolist()), shares, counts, source, self)


@dataclass(frozen=True, eq=False)
class HumanAnswers:
    """Option shares per region.

    shares : (regions, items, options), options in each item's own order: they sum to one over an item's options and are
        zero beyond them; all NaN where a region has no answers to an item.
    counts : (regions, items) number of answers, NaN where it is not known.
    leading : (regions, items) the option that counts as the majority where several have the same share, -1 for none;
        None takes the first in the item's order.
    """

    survey: Survey
    regions: tuple[str, ...]
    shares: Array
    counts: Array
    source: str = ""
    respondents: Respondents | None = None
    leading: Numbers | None = None

    def __post_init__(self) -> None:
        shares, counts = np.asarray(self.shares, dtype=np.float64), np.asarray(self.counts, dtype=np.float64)
        regions = tuple(map(str, self.regions))
        expected = (len(regions), *self.survey.option_values.shape)
        if shares.shape != expected:
            raise ValueError(f"shares: expected (regions, items, options) = {expected}, got {shares.shape}")
        if not regions or len(set(regions)) < len(regions):
            raise ValueError(f"regions: expected one or more, each once, got {listed(regions) or 'none'}")
        if counts.shape != expected[:2] or (counts < 0).any():
            raise ValueError(f"counts: expected {expected[:2]} numbers from 0 up, got shape {counts.shape}")
        _check_shares(self.survey, regions, shares)
        if self.leading is not None:
            object.__setattr__(self, "leading", _frozen(_checked_leading(np.asarray(self.leading), shares)))
        for field, value in (("regions", regions), ("shares", _frozen(shares)), ("counts", _frozen(counts))):
            object.__setattr__(self, field, value)

    @property
    def item_means(self) -> Array:
        """(regions, items) mean option value, NaN where a region has no answers."""
        means: Array = (self.shares * np.nan_to_num(self.survey.option_values)).sum(-1)
        return means

    @property
    def majority(self) -> Numbers:
        """(regions, items) number of the most frequent option from 0, -1 where there are no answers."""
        if self.leading is not None:
            return self.leading
        none = np.isnan(self.shares[..., 0])
        return np.where(none, -1, np.nan_to_num(self.shares, nan=-1.0).argmax(-1))

    def row(self, region: str) -> int:
        """Position of a region in the arrays; forgives case and accents, knows names and codes ("BRA", "Brazil")."""
        return self.regions.index(_found(region, self.regions, self.source))

    def select(self, items: Sequence[str] | None = None, regions: Sequence[str] | None = None) -> HumanAnswers:
        """The same for some items, in the order asked for, and some regions."""
        rows = (
            list(range(len(self.regions))) if regions is None else [self.row(r) for r in _several(regions, "regions")]
        )
        survey = self.survey if items is None else some_items(self.survey, items)
        columns = [self.survey.item_ids.index(i) for i in survey.item_ids]
        grid, most = np.ix_(rows, columns), survey.option_values.shape[1]
        people = self.respondents
        if people is not None:
            chosen = np.isin(people.regions, [self.regions[r] for r in rows])
            answers = people.answers[chosen][:, columns]
            people = Respondents(survey, answers, people.regions[chosen], people.weights[chosen])
        return HumanAnswers(
            survey,
            tuple(self.regions[r] for r in rows),
            self.shares[grid][..., :most],
            self.counts[grid],
            self.source,
            people,
            None if self.leading is None else self.leading[grid],
        )

    def save(self, path: str | Path) -> None:
        """Write the shares, a row per region, item and option; as Parquet if the name ends in .parquet, else as CSV.

        `load_human(path, survey)` reads them back to equal shares. Respondents are not written.
        """
        from softde.surveys.human.columns import write_table

        write_table(path, self._rows())

    def _rows(self) -> dict[str, list[str] | list[float]]:
        region, item, option, share, answers = [], [], [], [], []
        values = [[o.value for o in i.options] for i in self.survey.items]
        names: list[list[str]] = [
            [repr(v).removesuffix(".0") for v in v_] if len(set(v_)) == len(v_) else [o.text for o in i.options]
            for v_, i in zip(values, self.survey.items, strict=True)
        ]
        majority = self.majority
        for r, i in np.argwhere(majority >= 0).tolist():
            first = majority[r, i]  # the reader takes the first of equal shares
            for o in (first, *(k for k in range(len(names[i])) if k != first)):
                region.append(self.regions[r])
                item.append(self.survey.item_ids[i])
                option.append(names[i][o])
                share.append(float(self.shares[r, i, o]))
                answers.append(float(self.counts[r, i]))
        return {"region": region, "item": item, "option": option, "share": share, "answers": answers}


def some_items(survey: Survey, items: Sequence[str]) -> Survey:
    """A survey with these items only, without formulas and published scores."""
    wanted = _several(items, "items")
    for item in wanted:
        if item not in survey.item_ids:
            raise ValueError(f"survey {survey.id!r} has no item {item!r}; {nearest(str(item), survey.item_ids)}")
    if tuple(wanted) == survey.item_ids:
        return survey
    by_id = {item.id: item for item in survey.items}
    return Survey(
        survey.id,
        survey.title,
        tuple(by_id[i] for i in wanted),
        version=survey.version,
        source=survey.source,
        note=survey.note,
        language=survey.language,
        instruction=survey.instruction,
        common_first=survey.common_first,
    )


def _several(names: Sequence[str], what: str) -> list[str]:
    if isinstance(names, str) or not len(names) or len(set(names)) < len(names):
        raise ValueError(f"{what}: expected a list of one or more, each once, got {names!r}")
    return list(names)


def _found(region: str, known: Sequence[str], source: str) -> str:
    try:
        return find_region(region, known)
    except ValueError as error:
        if str(error).startswith(f"region {region!r} means"):
            raise
        where = f"{source}: " if source else ""
        raise ValueError(f"{where}no human answers for region {region!r}; {nearest(str(region), known)}") from None


def _check_numbers(survey: Survey, answers: npt.NDArray[np.integer]) -> None:
    sizes = np.array([len(item.options) for item in survey.items])
    if (answers.min(0) >= -1).all() and (answers.max(0) < sizes).all():
        return
    for row, i in np.argwhere((answers < -1) | (answers >= sizes))[:1]:
        raise ValueError(
            f"answers: respondent {row}, item {survey.item_ids[i]}: expected an option number from 0 to "
            f"{sizes[i] - 1}, or -1 for none, got {answers[row, i]}"
        )


def _check_weights(weights: Array, regions: npt.NDArray[np.str_]) -> None:
    for row in np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))[:1]:
        raise ValueError(f"weights: respondent {row}: expected a finite number from 0 up, got {weights[row]}")
    names, number = np.unique(regions, return_inverse=True)
    for name in names[np.bincount(number, weights) <= 0][:1]:
        raise ValueError(f"weights: those of region {name} sum to zero; leave the region out, or use no weights")


def _check_shares(survey: Survey, regions: tuple[str, ...], shares: Array) -> None:
    absent, beyond = np.isnan(shares), np.isnan(survey.option_values)
    none = absent.all(-1)
    filled = np.nan_to_num(shares)
    wrong = (
        (absent.any(-1) & ~none)
        | (filled < 0).any(-1)
        | (~none & ((filled * beyond).any(-1) | ~(np.abs(filled.sum(-1) - 1) <= TOLERANCE)))
    )
    for r, i in np.argwhere(wrong)[:1]:
        raise ValueError(
            f"shares: region {regions[r]}, item {survey.item_ids[i]}: expected numbers from 0 up that sum to one over "
            f"{len(survey.items[i].options)} options and zeros beyond, or NaN throughout, got {shares[r, i].tolist()}"
        )


def _checked_leading(leading: npt.NDArray[np.integer], shares: Array) -> Numbers:
    if leading.shape != shares.shape[:2] or not np.issubdtype(leading.dtype, np.integer):
        raise ValueError(f"leading: expected {shares.shape[:2]} option numbers, got shape {leading.shape}")
    filled = np.nan_to_num(shares, nan=-1.0)
    inside = (leading >= -1) & (leading < shares.shape[-1])
    top = np.take_along_axis(filled, np.where(inside, leading, 0)[..., None], -1)[..., 0]
    none = np.isnan(shares[..., 0])
    if not (inside & ((leading == -1) == none) & (none | (top == filled.max(-1)))).all():
        raise ValueError("leading: expected an option with the largest share, and -1 where there are no answers")
    return leading.astype(np.int64, copy=False)


def _frozen(array: Any) -> Any:
    """A read-only copy; an array that is read-only already is kept."""
    if array.flags.writeable:
        array = array.copy()
        array.setflags(write=False)
    return array
