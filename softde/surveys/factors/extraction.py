"""Correlations → loadings: principal components by numpy; minres, ml and rotations by factor_analyzer."""

from __future__ import annotations

import warnings
from importlib import metadata
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from softde.surveys.factors.tables import Correlations, need_definite, need_semidefinite
from softde.surveys.scoring import Array

Method: TypeAlias = Literal["minres", "ml", "principal"]
Rotation: TypeAlias = Literal[
    "varimax", "quartimax", "oblimax", "equamax", "geomin_ort", "promax", "oblimin", "quartimin", "geomin_obl"
]

BROKEN_FROM = (1, 8)  # scikit-learn, for factor_analyzer 0.5.1: it dropped an argument of check_array


def extract(c: Correlations, n_factors: int, method: Method) -> Array:
    """(items, factors) loadings before rotation.

    "principal" are the largest principal components, scaled to correlations with the items. "minres" makes the
    off-diagonal residuals smallest, "ml" maximises the likelihood of normal answers; both have a uniqueness per item,
    from 0.005 to 1.

    Raises
    ------
    ValueError
        More factors than the items or rows can carry; a correlation matrix that the method cannot use.
    """
    if method not in get_args(Method):
        raise ValueError(f"method: expected 'minres', 'ml' or 'principal', got {method!r}")
    _need_room(c, n_factors, method)
    need_semidefinite(c)
    if method == "principal":
        values, vectors = np.linalg.eigh(c.matrix)
        return np.asarray(vectors[:, ::-1][:, :n_factors] * np.sqrt(np.maximum(values[::-1][:n_factors], 0)))
    if method == "ml":
        instead = "" if c.rows > len(c.item_ids) else ' or "minres"'
        need_definite(c, 'method="ml"', f', or use method="principal"{instead}')
    elif c.rows > len(c.item_ids):  # fewer rows than items always give a singular matrix, with which minres can do
        need_definite(c, 'method="minres"', ', or use method="principal"')
    return _common_factors(c, n_factors, method)


def _need_room(c: Correlations, n_factors: int, method: Method) -> None:
    items = len(c.item_ids)
    if isinstance(n_factors, bool) or not isinstance(n_factors, (int, np.integer)) or n_factors < 1:
        raise ValueError(f"n_factors: expected a whole number from 1 up, got {n_factors!r}")
    if n_factors > items:
        raise ValueError(f"n_factors: {n_factors} factors but only {items} items; ask for fewer factors")
    if n_factors > c.rows - 2:
        raise ValueError(f"{c.rows} rows are too few for {n_factors} factors: two rows more than factors are needed")
    most = max((k for k in range(items + 1) if (items - k) ** 2 >= items + k), default=0)  # degrees of freedom ≥ 0
    if method != "principal" and n_factors > most:
        raise ValueError(
            f"{items} items determine at most {most} common factor{'s' * (most != 1)}, got n_factors={n_factors}; take "
            'more items, fewer factors, or method="principal"'
        )


def _common_factors(c: Correlations, n_factors: int, method: Method) -> Array:
    fitter = _factor_analyzer("FactorAnalyzer")(
        n_factors=int(n_factors), rotation=None, method=method, is_corr_matrix=True
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fitter.fit(c.matrix.copy())
        except np.linalg.LinAlgError:  # the start from squared multiple correlations inverts the matrix
            fitter.set_params(use_smc=False).fit(c.matrix.copy())
    if any("converge" in str(warning.message) for warning in caught):
        warnings.warn(
            f'method="{method}" did not converge with {n_factors} factors on {len(c.item_ids)} items; the loadings may '
            "be off: try fewer factors or items",
            stacklevel=4,
        )
    return np.array(fitter.loadings_, dtype=np.float64)


def rotate(loadings: Array, rotation: Rotation | None) -> tuple[Array, Array]:
    """Rotated loadings and the matrix (factors, factors) that takes the given loadings there.

    Raises
    ------
    ValueError
        An unknown rotation, or an item that loads on no factor, whose row cannot be normalised.
    """
    if rotation is not None and rotation not in get_args(Rotation):
        raise ValueError(f"rotation: expected None or one of {', '.join(get_args(Rotation))}, got {rotation!r}")
    if rotation is None or loadings.shape[1] == 1:
        return loadings, np.eye(loadings.shape[1])
    rotated = np.array(_factor_analyzer("Rotator")(method=rotation).fit_transform(loadings.copy()), dtype=np.float64)
    if not np.isfinite(rotated).all():
        raise ValueError(
            f"rotation={rotation!r} failed (an item loads on no factor, or the factors collapse); use None"
        )
    return rotated, np.asarray(np.linalg.lstsq(loadings, rotated, rcond=None)[0], dtype=np.float64)


def in_order(loadings: Array, method: Method) -> Array:
    """(factors, factors) that puts the strongest factor first and makes each one's loadings sum to more than zero.

    Principal components stay in the order of their eigenvalues, as factor_analyzer leaves them.
    """
    signs = np.where(loadings.sum(axis=0) < 0, -1.0, 1.0)
    strengths = (loadings**2).sum(axis=0)
    order = np.arange(len(signs)) if method == "principal" else np.argsort(strengths)[::-1]
    return np.asarray(np.diag(signs)[:, order])


def _factor_analyzer(name: Literal["FactorAnalyzer", "Rotator"]) -> Any:
    """A class of factor_analyzer, unless it is missing or the scikit-learn beside it is one it cannot fit with."""
    hint = "install them with pip install 'softde[factors]'"
    try:
        import factor_analyzer
    except ImportError as error:
        raise ImportError(f"minres, ml and rotations need factor_analyzer ({error}); {hint}") from error
    found = metadata.version("scikit-learn")
    if name == "FactorAnalyzer" and tuple(map(int, found.split(".")[:2])) >= BROKEN_FROM:
        raise ImportError(
            f"factor_analyzer {metadata.version('factor-analyzer')} cannot fit with scikit-learn {found}; it needs "
            f"scikit-learn>=1.5,<1.8: {hint}"
        )
    return getattr(factor_analyzer, name)
