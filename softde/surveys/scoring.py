"""Item means → factor scores, distances to a target, jointly fitted constants, and what trivial answerers score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from softde.surveys.composites import pair_joint
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
    need_factors(survey)
    _need_means(survey)
    given = _in_order(item_means, survey) if isinstance(item_means, Mapping) else item_means
    means = np.asarray(given, dtype=np.float64)
    if means.ndim == 0 or means.shape[-1] != len(survey.items):
        raise ValueError(
            f"item means of survey {survey.id!r} end in {len(survey.items)} values, one per item in the order of "
            f"survey.item_ids; got shape {means.shape}"
        )
    scores = _linear(means, survey.weights) + survey.offsets
    return np.asarray(scores + constants_array(constants, survey.factors))


def score_probabilities(survey: Survey, probabilities: npt.ArrayLike, constants: ConstantsLike = 50.0) -> Array:
    """Expected factor scores of one who answers each item on its own, by given probabilities of its options.

    Equals `score` of the item means wherever the formulas are linear. The value of a pair is its expectation over
    independent choices, with the same option twice left out and the rest scaled to one.

    Parameters
    ----------
    probabilities : (..., items, options), an item's options first, zero beyond them; NaN for an item without answers
        leaves only the factors that use it NaN.
    constants : see `score`.

    Returns
    -------
    (..., factors) float64, in the order of `survey.factors`.
    """
    need_factors(survey)
    shares = _shares(survey, probabilities)
    means = (shares * np.nan_to_num(survey.option_values)).sum(axis=-1)
    pairs = [(joint * np.nan_to_num(table)).sum(axis=(-2, -1)) for joint, table in _joints(survey, shares)]
    compiled = survey.compiled
    scores = _linear(means, compiled.weights)
    if pairs:
        scores = scores + _linear(np.stack(pairs, axis=-1), compiled.pair_weights)
    return np.asarray(scores + compiled.offsets + constants_array(constants, survey.factors))


def standard_errors(survey: Survey, probabilities: npt.ArrayLike, respondents: npt.ArrayLike) -> Array:
    """Standard errors of factor scores from so many respondents who answer each item on its own.

    √(Σ weight² · variance / respondents), with the variance of an item's option values, or of a pair's values over
    independent choices. Real answers of one person hang together: where there is a table, use `score_respondents`.

    Parameters
    ----------
    probabilities : (..., items, options), as in `score_probabilities`.
    respondents : how many answered, one number or (..., items); NaN where not known gives NaN, as do items without
        answers.

    Returns
    -------
    (..., factors) float64.
    """
    need_factors(survey)
    shares = _shares(survey, probabilities)
    count = np.broadcast_to(np.asarray(respondents, dtype=np.float64), shares.shape[:-1])
    count = np.where((count == 0) & np.isnan(shares).any(axis=-1), np.nan, count)
    if (count <= 0).any():
        raise ValueError("respondents: expected numbers above 0, or NaN where not known")
    values = np.nan_to_num(survey.option_values)
    variances = (shares * values**2).sum(axis=-1) - (shares * values).sum(axis=-1) ** 2
    squares = _linear(np.maximum(variances, 0.0) / count, survey.compiled.weights**2)
    pairs = []
    for pair, (joint, table) in zip(survey.compiled.pairs, _joints(survey, shares), strict=True):
        table = np.nan_to_num(table)
        spread = (joint * table**2).sum(axis=(-2, -1)) - (joint * table).sum(axis=(-2, -1)) ** 2
        both = count[..., [survey.item_ids.index(name) for name in pair.items]].min(axis=-1)
        pairs.append(np.maximum(spread, 0.0) / both)
    if pairs:
        squares = squares + _linear(np.stack(pairs, axis=-1), survey.compiled.pair_weights**2)
    return np.asarray(np.sqrt(squares))


def standard_errors_of_means(survey: Survey, variances: npt.ArrayLike, respondents: npt.ArrayLike) -> Array:
    """Standard errors of `score` from the variances of each item's answers, as if the items were independent.

    Parameters
    ----------
    variances : (..., items) of the option values that were answered; NaN where not known gives NaN.
    respondents : how many answered, one number or (..., items); NaN where not known gives NaN.

    Returns
    -------
    (..., factors) float64.
    """
    need_factors(survey)
    _need_means(survey)
    spread = np.asarray(variances, dtype=np.float64)
    count = np.asarray(respondents, dtype=np.float64)
    count = np.where((count == 0) & np.isnan(spread), np.nan, count)
    if spread.ndim == 0 or spread.shape[-1] != len(survey.items):
        raise ValueError(f"variances end in {len(survey.items)} values, one per item; got shape {spread.shape}")
    if (spread < 0).any() or (count <= 0).any():
        raise ValueError("expected variances from 0 up and numbers of respondents above 0, or NaN where not known")
    return np.asarray(np.sqrt(_linear(spread / count, survey.weights**2)))


def _shares(survey: Survey, probabilities: npt.ArrayLike) -> Array:
    shares = np.asarray(probabilities, dtype=np.float64)
    expected = survey.option_values.shape
    if shares.shape[-2:] != expected:
        raise ValueError(
            f"option probabilities of survey {survey.id!r} end in {expected[0]} items × {expected[1]} options, zero "
            f"beyond an item's own; got shape {shares.shape}"
        )
    sums = shares.sum(axis=-1)
    off = np.argwhere(np.abs(sums - 1) > 0.01)  # false where NaN
    if len(off):
        item = survey.item_ids[off[0][-1]]
        raise ValueError(
            f"option probabilities of item {item!r} sum to {sums[tuple(off[0])]:g}; expected one, or NaN for no answers"
        )
    return shares


def _joints(survey: Survey, shares: Array) -> Iterator[tuple[Array, Array]]:
    """(..., options, options) probabilities of both choices of each pair, and the pair's table."""
    for pair in survey.compiled.pairs:
        first, second = (survey.item_ids.index(name) for name in pair.items)
        count = len(survey.items[first].options)
        yield pair_joint(shares[..., first, :count], shares[..., second, :count]), pair.table(count)


def _linear(values: Array, weights: Array) -> Array:
    """(..., variables) times (factors, variables); NaN only where a factor weighs a NaN."""
    absent = np.isnan(values)
    scores = np.where(absent, 0.0, values) @ weights.T
    if absent.any():
        scores = np.where(absent @ (weights != 0).T, np.nan, scores)
    return np.asarray(scores)


def _need_means(survey: Survey) -> None:
    """Refuse factors that need joint answers where there are only means."""
    compiled = survey.compiled
    for pair, weights in zip(compiled.pairs, compiled.pair_weights.T, strict=True):
        if weights.any():
            factor = survey.factors[int(np.flatnonzero(weights)[0])]
            raise ValueError(
                f"factor {factor!r} of survey {survey.id!r} uses pair {pair.id!r}, and a pair item cannot be scored "
                "from item means: score option probabilities (score_probabilities) or respondents (score_respondents)"
            )


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
    Where a factor uses a pair, one option throughout is no answer, so its loss is NaN.
    """
    _same_factors(survey, target)
    values = [np.array([option.value for option in item.options]) for item in survey.items]
    tables = [pair.table(len(values[survey.item_ids.index(pair.items[0])])) for pair in survey.compiled.pairs]
    joint = [np.unique(table[~np.isnan(table)]) for table in tables]
    constants = constants_array(target.constants, survey.factors)
    compiled = survey.compiled

    def loss(means: Array, pairs: Array) -> Array:
        scores = _linear(means, compiled.weights) + _linear(pairs, compiled.pair_weights) + compiled.offsets
        return distance(scores + constants, target, norm, weights)

    shared = min(len(v) for v in values)
    same = np.stack([v[:shared] for v in values], axis=-1)
    nowhere = np.full((shared, len(joint)), np.nan)
    free = not compiled.weights[:, _paired(survey)].any()  # no pair's item counts by itself
    return {
        "one option throughout": float(loss(same, nowhere).min()),
        "midpoint": float(loss(np.array([_middle(v) for v in values]), np.array([_middle(v) for v in joint]))),
        "uniform answerer": float(
            loss(np.array([v.mean() for v in values]), np.array([np.nanmean(table) for table in tables]))
        ),
        "best integer respondent": _best_integer(
            np.hstack([compiled.weights, compiled.pair_weights]),
            values + joint,
            target.scores - constants - compiled.offsets,
            norm,
            _loss_weights(weights, survey.factors),
        )
        if free
        else float("nan"),
    }


def _middle(values: Array) -> float:
    return float((values.min() + values.max()) / 2)


def _paired(survey: Survey) -> list[int]:
    """Numbers of the items that belong to a pair."""
    return [survey.item_ids.index(name) for pair in survey.compiled.pairs for name in pair.items]


def _best_integer(weights: Array, values: list[Array], goal: Array, norm: Norm, loss_weights: Array) -> float:
    """Exact: groups of factors that share items are independent, so each group is minimised by itself."""
    total = 0.0
    for group in groups(weights != 0):
        used = np.flatnonzero((weights[group] != 0).any(axis=0))
        reachable = _reachable([values[i] for i in used], weights[group][:, used])
        if reachable is None:
            return float("nan")
        errors = np.abs(reachable - goal[group])
        total += float((loss_weights[group] * (errors if norm == "L1" else errors**2)).sum(-1).min())
    return total if norm == "L1" else float(np.sqrt(total))


def groups(uses: npt.NDArray[np.bool_]) -> list[list[int]]:
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


def need_factors(survey: Survey) -> None:
    """Refuse to score a survey without formulas."""
    if not survey.factor_models:
        raise ValueError(
            f'survey {survey.id!r} has no factor formulas, so it cannot be scored; add [[factors]] or base = "vsm13"'
        )


def _same_factors(survey: Survey, target: Target) -> None:
    need_factors(survey)
    if target.factors != survey.factors:
        raise ValueError(
            f"the target has factors {listed(target.factors)}, survey {survey.id!r} has {listed(survey.factors)}; "
            "take the target from the same survey"
        )
