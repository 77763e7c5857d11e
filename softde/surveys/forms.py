"""Factor forms, checked against a survey and compiled to one matrix on item means and pair values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from softde.surveys.checks import unique
from softde.surveys.composites import Array, Pair, Subset
from softde.surveys.values import listed, nearest

if TYPE_CHECKING:
    from softde.surveys.survey import Composite, Factor, Item, Survey


@dataclass(frozen=True, eq=False)
class Compiled:
    """Every factor as a linear form in item means and, where joint answers count, in values of pairs.

    weights : (factors, items). pair_weights : (factors, pairs). offsets : (factors,).
    uses : (factors, items), whether a factor needs an item's answers, alone or in a pair.
    """

    weights: Array
    pair_weights: Array
    offsets: Array
    uses: npt.NDArray[np.bool_]
    pairs: tuple[Pair, ...]

    def __post_init__(self) -> None:
        for array in (self.weights, self.pair_weights, self.offsets, self.uses):
            array.setflags(write=False)


def keyed(key: str, known: Iterable[str]) -> tuple[str, int]:
    """A key, id or "-id", as (id, 1) or (id, -1); an id that itself starts with a minus is taken as it stands."""
    return (key, 1) if key in known or not key.startswith("-") else (key[1:], -1)


def ordered(composites: Iterable[Composite]) -> tuple[Composite, ...]:
    """Composites, each after those it is made of."""
    by_id = {composite.id: composite for composite in composites}
    done: dict[str, Composite] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " → ".join((*path[path.index(name) :], name))
            raise ValueError(f"composites are circular: {circle}; take one of them out of another's formula")
        if name not in done:
            for part in parts(by_id[name], by_id):
                if part in by_id:
                    visit(part, (*path, name))
            done[name] = by_id[name]

    for name in by_id:
        visit(name, ())
    return tuple(done.values())


def parts(form: Composite, known: Iterable[str]) -> tuple[str, ...]:
    """Ids that a composite or factor names, signs taken off."""
    if isinstance(form, Pair):
        return form.items
    if isinstance(form, Subset):
        return tuple(keyed(key, known)[0] for key in form.items)
    return (*form.weights, *(keyed(key, known)[0] for key in form.mean))


# ---- checks ----------------------------------------------------------------------------------------------------------


def check(survey: Survey) -> None:
    """Refuse composites, factors, scoring and projection that do not fit the survey's items or each other."""
    unique((composite.id for composite in survey.composites), "composite id")
    items = {item.id: item for item in survey.items}
    for composite in survey.composites:
        if composite.id in items:
            raise ValueError(f"composite {composite.id!r} has the id of an item; rename one of them")
    variables = dict.fromkeys((*items, *(composite.id for composite in survey.composites)))
    for composite in survey.composites:
        where = f"{_kind(composite)} {composite.id!r}"
        if isinstance(composite, Pair):
            _pair(composite, items, where)
        elif isinstance(composite, Subset):
            _subset(composite, items, where)
        else:
            check_factor(composite, survey, variables, where)
    ordered(survey.composites)
    _known(survey.scoring.centre, items, "scoring: centre")
    if survey.scoring.min_valid > len(items):
        raise ValueError(
            f"scoring: min_valid: {survey.scoring.min_valid} of {len(items)} items; give at most that many"
        )
    if survey.projection is not None:
        _known(survey.projection.variables, variables, "projection: variables")
    for factor in survey.factor_models:
        check_factor(factor, survey, variables, f"factor {factor.id!r}")


def check_factor(factor: Factor, survey: Survey, variables: Mapping[str, object], where: str) -> None:
    """Refuse a factor whose variables, keys or component the survey does not have."""
    for name in factor.weights:
        if name not in variables:
            raise ValueError(f"{where}: weight for item {name!r}, which does not exist; {nearest(name, variables)}")
    named = [keyed(key, variables) for key in factor.mean]
    unique((name for name, _ in named), f"item in {where}:")
    _known((name for name, _ in named), variables, f"{where}: mean")
    for name, sign in named:
        if sign < 0 and name not in survey.item_ids:
            raise ValueError(f"{where}: -{name} reverses a composite; only items have a range to reverse in")
        if sign < 0 and survey.scoring.centre:
            raise ValueError(
                f"{where}: -{name} reverses an answer that is centred; give the item's options reversed values instead"
            )
    if factor.component and survey.projection is None:
        raise ValueError(f"{where}: component {factor.component} of no projection; add [projection]")
    if factor.component and factor.component > survey.projection.components:  # type: ignore[union-attr]
        raise ValueError(
            f"{where}: component {factor.component}, but the projection has {survey.projection.components}"  # type: ignore[union-attr]
        )
    if factor.component and factor.min_valid is not None:
        count = len(survey.projection.variables)  # type: ignore[union-attr]
        if factor.min_valid > count:
            raise ValueError(f"{where}: min_valid: {factor.min_valid} of {count} variables; give {count} or less")


def _kind(composite: Composite) -> str:
    return "pair" if isinstance(composite, Pair) else "subset" if isinstance(composite, Subset) else "composite"


def _known(names: Iterable[str], known: Mapping[str, object], where: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: {name!r} does not exist; {nearest(name, known)}")


def _pair(pair: Pair, items: Mapping[str, Item], where: str) -> None:
    _known(pair.items, items, where)
    first, second = (items[name] for name in pair.items)
    if [o.text for o in first.options] != [o.text for o in second.options]:
        raise ValueError(
            f"{where}: items {first.id!r} and {second.id!r} have different options; both choices are made from one list"
        )
    for item in (first, second):
        unique((f"{option.value:g}" for option in item.options), f"option value of item {item.id!r}, used in {where}:")
    for number in (n for group in pair.groups for n in group):
        if number > len(first.options):
            raise ValueError(f"{where}: groups name option {number}, but its items have {len(first.options)}")


def _subset(subset: Subset, items: Mapping[str, Item], where: str) -> None:
    names = parts(subset, items)
    _known(names, items, where)
    unique(names, f"item in {where}:")
    for name in names:
        values = [option.value for option in items[name].options]
        if len(values) != 2 or values[0] == values[1]:
            raise ValueError(
                f"{where}: item {name!r} has {len(values)} options valued {listed(f'{v:g}' for v in values)}; "
                "an item of a subset has two, chosen or not, with different values"
            )


# ---- compiling -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Form:
    """row · (item means, pair values) + constant."""

    row: Array
    constant: float = 0.0

    def __add__(self, other: _Form) -> _Form:
        return _Form(self.row + other.row, self.constant + other.constant)

    def __mul__(self, number: float) -> _Form:
        return _Form(self.row * number, self.constant * number)

    def plus(self, number: float) -> _Form:
        return _Form(self.row, self.constant + number)


def compile_factors(survey: Survey) -> Compiled:
    """The factors of a checked survey; exact for complete answers."""
    count = len(survey.items)
    pairs = tuple(composite for composite in survey.composites if isinstance(composite, Pair))
    unit = np.eye(count + len(pairs))
    raw = {name: _Form(unit[i]) for i, name in enumerate(survey.item_ids)}
    middle = sum((raw[name] for name in survey.scoring.centre), _Form(np.zeros(len(unit))))
    middle = middle * (-1 / max(len(survey.scoring.centre), 1))
    variables = {name: form + middle for name, form in raw.items()} if survey.scoring.centre else dict(raw)
    variables |= {pair.id: _Form(unit[count + i]) for i, pair in enumerate(pairs)}
    for composite in ordered(survey.composites):
        if isinstance(composite, Subset):
            variables[composite.id] = _subset_form(composite, raw, survey)
        elif not isinstance(composite, Pair):
            variables[composite.id] = _factor_form(composite, variables, survey)
    forms = [_factor_form(factor, variables, survey) for factor in survey.factor_models]
    matrix = np.array([form.row for form in forms]).reshape(len(forms), len(unit))
    weights, pair_weights = matrix[:, :count].copy(), matrix[:, count:].copy()
    in_pair = np.array([[name in pair.items for name in survey.item_ids] for pair in pairs]).reshape(-1, count)
    uses = (weights != 0) | ((pair_weights != 0).astype(np.float64) @ in_pair > 0)
    return Compiled(weights, pair_weights, np.array([form.constant for form in forms]), uses, pairs)


def _subset_form(subset: Subset, raw: Mapping[str, _Form], survey: Survey) -> _Form:
    """A two-valued item's mean is linear in the share that chose it."""
    total = _Form(np.zeros_like(next(iter(raw.values())).row))
    for name, sign in (keyed(key, raw) for key in subset.items):
        chosen, other = subset_values(subset, survey.items[survey.item_ids.index(name)])
        total = total + raw[name].plus(-other) * (sign / (chosen - other))
    return total


def subset_values(subset: Subset, item: Item) -> tuple[float, float]:
    """The option values that mean chosen and not chosen."""
    return item.options[subset.mentioned - 1].value, item.options[2 - subset.mentioned].value


def _factor_form(factor: Factor, variables: Mapping[str, _Form], survey: Survey) -> _Form:
    form = _Form(np.zeros_like(next(iter(variables.values())).row), factor.offset)
    for name, weight in factor.weights.items():
        form = form + variables[name] * weight
    for name, sign in (keyed(key, variables) for key in factor.mean):
        part = variables[name] if sign > 0 else (variables[name] * -1).plus(sum(item_range(survey, name)))
        form = form + part * (1 / len(factor.mean))
    if factor.component:
        projection = survey.projection
        assert projection is not None  # checked when the survey was built
        column = projection.coefficients[:, factor.component - 1]
        for name, mean, deviation, weight in zip(
            projection.variables, projection.means, projection.deviations, column.tolist(), strict=True
        ):
            form = form + variables[name].plus(-mean) * (factor.scale * weight / deviation)
    return form


def item_range(survey: Survey, name: str) -> tuple[float, float]:
    """The least and the greatest option value of an item; reversed, an answer x is their sum less x."""
    values = [option.value for option in survey.items[survey.item_ids.index(name)].options]
    return min(values), max(values)
