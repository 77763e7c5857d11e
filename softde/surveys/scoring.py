"""Item means → factor scores, distances to a target, jointly fitted constants, and what trivial answerers score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from softde.surveys.regions import find_region
from softde.surveys.values import FrozenDict, listed, nearest

if TYPE_CHECKING:
    from softde.surveys.published import Target
    from softde.surveys.survey import Survey

Array: TypeAlias = npt.NDArray[np.float64]
Norm: TypeAlias = Literal["L1", "L2"]

MAX_ROWS = 200_000  # reachable score vectors kept while the best integer respondent is searched


@dataclass(frozen=True)
class Constants:
    """Factor constants fitted jointly on two or more anchor regions (see `fit_constants`)."""

    values: Mapping[str, float]
    anchors: tuple[str, ...]
    norm: Norm = "L1"

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", FrozenDict({k: float(v) for k, v in self.values.items()}))
        object.__setattr__(self, "anchors", tuple(self.anchors))
        if len(set(self.anchors)) < 2:
            raise ValueError(
                f"constants are fitted on at least two anchor regions, got {listed(self.anchors) or 'none'}: one "
                "alone is always met exactly; add an anchor or pass a number"
            )


ConstantsLike: TypeAlias = float | Mapping[str, float] | npt.ArrayLike | Constants


def by_factor(given: Any, factors: tuple[str, ...], what: str) -> Array:
    """A number, a mapping by factor, or an array, as (factors,) float64."""
    if isinstance(given, Mapping):
        for name in given:
            if name not in factors:
                raise ValueError(f"{what}: unknown factor {name!r}; {nearest(str(name), factors)}")
        missing = [name for name in factors if name not in given]
        if missing:
            raise ValueError(f"{what}: expected one number per factor ({listed(factors)}); add {listed(missing)}")
        given = [given[name] for name in factors]
    try:
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{what}: expected a number, a mapping by factor or an array, got {given!r}") from None
    if array.ndim and array.shape != (len(factors),):
        raise ValueError(f"{what}: expected {len(factors)} values ({listed(factors)}), got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what}: expected finite numbers, got {given!r}")
    return np.broadcast_to(array, (len(factors),))


def constants_array(constants: ConstantsLike, factors: tuple[str, ...]) -> Array:
    """Constants in any accepted form as (factors,)."""
    return by_factor(constants.values if isinstance(constants, Constants) else constants, factors, "constants")


def score(
    survey: Survey, item_means: npt.ArrayLike | Mapping[str, npt.ArrayLike], constants: ConstantsLike = 50.0
) -> Array:
    """Factor scores: item means times the survey's weights, plus constants.

    Parameters
    ----------
    item_means : (..., items), in the order of `survey.item_ids`, or a mapping from item id to (...); a NaN leaves only
        the factors that use it NaN.
    constants : one number for all factors, a mapping by factor, (factors,), or fitted `Constants`.

    Returns
    -------
    (..., factors) float64, in the order of `survey.factors`.
    """
    _need_factors(survey)
    given = _in_order(item_means, survey) if isinstance(item_means, Mapping) else item_means
    means = np.asarray(given, dtype=np.float64)
    if means.ndim == 0 or means.shape[-1] != len(survey.items):
        raise ValueError(
            f"item means of survey {survey.id!r} end in {len(survey.items)} values, one per item in the order of "
            f"survey.item_ids; got shape {means.shape}"
        )
    absent = np.isnan(means)
    scores = np.where(absent, 0.0, means) @ survey.weights.T
    if absent.any():
        scores = np.where(absent @ (survey.weights != 0).T, np.nan, scores)
    return np.asarray(scores + constants_array(constants, survey.factors))


def _in_order(item_means: Mapping[str, npt.ArrayLike], survey: Survey) -> Array:
    """A mapping by item id as (..., items)."""
    for item in item_means:
        if item not in survey.item_ids:
            raise ValueError(f"item means: unknown item {item!r}; {nearest(str(item), survey.item_ids)}")
    missing = [item for item in survey.item_ids if item not in item_means]
    if missing:
        raise ValueError(f"item means: expected one for every item; add {listed(missing)}, or NaN where there is none")
    return np.stack([np.asarray(item_means[item], dtype=np.float64) for item in survey.item_ids], axis=-1)


def distance(
    scores: npt.ArrayLike,
    target: Target,
    norm: Norm = "L1",
    weights: float | Mapping[str, float] | npt.ArrayLike | None = None,
) -> Array:
    """Distance of factor scores (..., factors) from a target's published scores, as (...,).

    "L1" is Σ w|e| over factors (the loss of Masoud et al., arXiv 2503.16094), "L2" is √(Σ w e²); w is one by default.
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != len(target.factors):
        raise ValueError(f"scores end in {len(target.factors)} values ({listed(target.factors)}); got {array.shape}")
    return _reduce(array - target.scores, norm, _loss_weights(weights, target.factors))


def _loss_weights(weights: Any, factors: tuple[str, ...]) -> Array:
    array = by_factor(1.0 if weights is None else weights, factors, "weights")
    if (array < 0).any() or not (array > 0).any():
        raise ValueError(f"weights: expected numbers from 0 up with at least one above, got {array.tolist()}")
    return array


def _reduce(errors: Array, norm: Norm, weights: Array) -> Array:
    if norm == "L1":
        return np.asarray((weights * np.abs(errors)).sum(-1))
    if norm == "L2":
        return np.asarray(np.sqrt((weights * errors**2).sum(-1)))
    raise ValueError(f"norm: expected 'L1' or 'L2', got {norm!r}")


def fit_constants(
    survey: Survey,
    item_means: Mapping[str, npt.ArrayLike],
    targets: Mapping[str, Target] | Iterable[Target],
    norm: Norm = "L1",
) -> Constants:
    """Constants that bring the anchors' scores closest to their published ones, one constant per factor.

    Parameters
    ----------
    item_means : region → (items,), the same model's answers for each anchor region.
    targets : the published scores of the same regions; their own constants are not used.
    norm : "L1" takes the median of the anchors' residuals, "L2" their mean.

    Raises
    ------
    ValueError
        Fewer than two different regions: with one anchor, any answers meet the target exactly.
    """
    if norm not in ("L1", "L2"):
        raise ValueError(f"norm: expected 'L1' or 'L2', got {norm!r}")
    published = list(targets.values() if isinstance(targets, Mapping) else targets)
    by_region = {target.region: target for target in published}
    anchors = {_anchor(name, by_region): np.asarray(means, dtype=np.float64) for name, means in item_means.items()}
    if not len(anchors) == len(item_means) == len(by_region) == len(published):
        raise ValueError(
            f"expected one row of item means and one target per anchor, got means for {listed(item_means)} and targets "
            f"for {listed(t.region for t in published)}; give each region once in both"
        )
    fitted_on = Constants(dict.fromkeys(survey.factors, 0.0), tuple(anchors), norm)  # refuses one anchor
    for name, means in anchors.items():
        _same_factors(survey, by_region[name])
        if means.ndim != 1:
            raise ValueError(f"item means of {name}: expected ({len(survey.items)},), got shape {means.shape}")
    residuals = np.stack([by_region[name].scores - score(survey, means, 0.0) for name, means in anchors.items()])
    if not np.isfinite(residuals).all():
        raise ValueError("item means of the anchors must be finite; a factor cannot be fitted on missing answers")
    fitted = np.median(residuals, axis=0) if norm == "L1" else residuals.mean(axis=0)
    return Constants(dict(zip(survey.factors, fitted.tolist(), strict=True)), fitted_on.anchors, norm)


def _anchor(name: str, targets: Mapping[str, Target]) -> str:
    try:
        return find_region(name, targets)
    except ValueError:
        raise ValueError(f"item means for {name!r} but no target of that region; add survey.target({name!r})") from None


def nulls(
    survey: Survey,
    target: Target,
    norm: Norm = "L1",
    weights: float | Mapping[str, float] | npt.ArrayLike | None = None,
) -> dict[str, float]:
    """What answerers who know nothing, and the best single integer respondent, would lose against a target.

    Uses the target's constants. "one option throughout" is the best option position that every item has; "midpoint"
    the middle of each item's range; "uniform answerer" the mean of an answerer with equal probabilities; "best integer
    respondent" the exact minimum over one definite answer per item, NaN where the answers are too many to enumerate.
    """
    _same_factors(survey, target)
    values = [np.array([option.value for option in item.options]) for item in survey.items]
    constants = constants_array(target.constants, survey.factors)

    def loss(means: Array) -> Array:
        return distance(score(survey, means, constants), target, norm, weights)

    shared = min(len(v) for v in values)
    return {
        "one option throughout": float(loss(np.stack([v[:shared] for v in values], axis=-1)).min()),
        "midpoint": float(loss(np.array([(v.min() + v.max()) / 2 for v in values]))),
        "uniform answerer": float(loss(np.array([v.mean() for v in values]))),
        "best integer respondent": _best_integer(
            survey.weights, values, target.scores - constants, norm, _loss_weights(weights, survey.factors)
        ),
    }


def _best_integer(weights: Array, values: list[Array], goal: Array, norm: Norm, loss_weights: Array) -> float:
    """Exact: groups of factors that share items are independent, so each group is minimised by itself."""
    total = 0.0
    for group in _groups(weights != 0):
        used = np.flatnonzero((weights[group] != 0).any(axis=0))
        reachable = _reachable([values[i] for i in used], weights[group][:, used])
        if reachable is None:
            return float("nan")
        errors = np.abs(reachable - goal[group])
        total += float((loss_weights[group] * (errors if norm == "L1" else errors**2)).sum(-1).min())
    return total if norm == "L1" else float(np.sqrt(total))


def _groups(uses: npt.NDArray[np.bool_]) -> list[list[int]]:
    """Factors (rows) joined into groups wherever two use the same item (column)."""
    groups: list[list[int]] = []
    for factor in range(len(uses)):
        joined = [g for g in groups if (uses[g].any(axis=0) & uses[factor]).any()]
        groups = [g for g in groups if g not in joined] + [[f for g in joined for f in g] + [factor]]
    return groups


def _reachable(values: list[Array], weights: Array) -> Array | None:
    """Every score vector (rows, factors) that definite answers can give, one item at a time; None past MAX_ROWS."""
    sums = np.zeros((1, len(weights)))
    for options, weight in zip(values, weights.T, strict=True):
        grown = sums[:, None, :] + options[None, :, None] * weight
        sums = np.unique(grown.reshape(-1, len(weights)).round(9), axis=0)
        if len(sums) > MAX_ROWS:
            return None
    return sums


def _need_factors(survey: Survey) -> None:
    if not survey.factor_models:
        raise ValueError(
            f'survey {survey.id!r} has no factor formulas, so it cannot be scored; add [[factors]] or base = "vsm13"'
        )


def _same_factors(survey: Survey, target: Target) -> None:
    _need_factors(survey)
    if target.factors != survey.factors:
        raise ValueError(
            f"the target has factors {listed(target.factors)}, survey {survey.id!r} has {listed(survey.factors)}; "
            "take the target from the same survey"
        )
