"""Factor models fitted on human answers: fitted with factor_analyzer, scored, aligned, saved and loaded without it.

Matrices as in psychometrics' own letters: Λ loadings (items, factors), Φ factor correlations, Ψ uniquenesses, R the
items' correlations, Σ = ΛΦΛ' + Ψ what the model makes of them, W score weights on standardised items.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union, get_args

import numpy as np
import numpy.typing as npt

from softde.surveys.factors.alignment import assignment, congruence, procrustes
from softde.surveys.factors.extraction import Method, Rotation, extract, in_order, rotate
from softde.surveys.factors.tables import ROUNDING, Missing, Table, correlations, positions
from softde.surveys.scoring import Array
from softde.surveys.values import listed

if TYPE_CHECKING:
    from softde.surveys.human import HumanAnswers, Respondents
    from softde.surveys.survey import Survey

ScoreMethod: TypeAlias = Literal["regression", "bartlett", "tenberge"]
MissingScore: TypeAlias = Literal["nan", "mean"]
Reference: TypeAlias = Union["FactorModel", npt.ArrayLike]

LEAST_UNIQUENESS = 0.005  # scores divide by uniquenesses; no smaller one is believed (factor_analyzer's own bound)


@dataclass(frozen=True, eq=False, repr=False)
class FactorModel:
    """A fitted factor model: frozen statistics of the items, loadings, rotation.

    Parameters
    ----------
    item_ids : items in the order of every (..., items) array.
    factors : names in the order of every (..., factors) array.
    means, deviations : (items,) of the answers it was fitted on; whatever is scored later is standardised with these.
    loadings : (items, factors) after rotation: the pattern matrix where factors correlate.
    rotation_matrix : (factors, factors) from the unrotated loadings to these, with signs and order.
    phi : (factors, factors) factor correlations; the identity after orthogonal rotations.
    correlation : (items, items) correlations of the answers.
    method, rotation : how it was fitted. rows : respondents or regions it was fitted on. source : where they came from.

    Raises
    ------
    ValueError
        Arrays whose shapes do not belong together or that are not finite; deviations that are not above zero.
    """

    item_ids: tuple[str, ...]
    factors: tuple[str, ...]
    means: Array
    deviations: Array
    loadings: Array
    rotation_matrix: Array
    phi: Array
    correlation: Array
    method: str
    rotation: str | None
    rows: int
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "item_ids", tuple(self.item_ids))
        object.__setattr__(self, "factors", _names(self.factors, len(self.factors)))
        items, factors = len(self.item_ids), len(self.factors)
        for name, shape in array_shapes(items, factors).items():
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"factor model: {name}: expected finite numbers of shape {shape}, got {array.shape}")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if (self.deviations <= 0).any():
            item = self.item_ids[int(self.deviations.argmin())]
            raise ValueError(f"factor model: deviations: expected numbers above zero, got another for item {item!r}")

    @classmethod
    def fit(
        cls,
        table: Table,
        n_factors: int,
        method: Method = "minres",
        rotation: Rotation | None = None,
        weights: npt.ArrayLike | None = None,
        items: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        missing: Missing = "mean",
    ) -> FactorModel:
        """Fit a factor model on answers of respondents or on item means of regions.

        Parameters
        ----------
        table, weights, items, missing : see `correlations.correlations`.
        n_factors : see `reliability.parallel_analysis` for a way to choose it.
        method : "minres", "ml", or "principal" for principal components; see `extraction.extract`. With fewer rows than
            items the correlations are singular: "ml" is refused, the other two fit.
        rotation : None; orthogonal: "varimax", "quartimax", "oblimax", "equamax", "geomin_ort"; oblique: "promax",
            "oblimin", "quartimin", "geomin_obl".
        names : of the factors; "F1", "F2", … by default.

        Raises
        ------
        ValueError
            A table, correlations or a number of factors that cannot be fitted; the sentence names the items at fault.
        ImportError
            factor_analyzer is missing, or scikit-learn is a version it cannot fit with.
        """
        c = correlations(table, weights, items, missing)
        unrotated = extract(c, n_factors, method)
        names = _names(names, int(n_factors))
        rotated, matrix = rotate(unrotated, rotation)
        arranged = in_order(rotated, method)
        matrix = matrix @ arranged
        phi = np.asarray(
            np.linalg.inv(matrix.T @ matrix), dtype=np.float64
        )  # Λ = A M, so A A' = Λ Φ Λ' asks for Φ = (M'M)⁻¹
        return cls(
            item_ids=c.item_ids,
            factors=names,
            means=c.means,
            deviations=c.deviations,
            loadings=rotated @ arranged,
            rotation_matrix=matrix,
            phi=phi,
            correlation=c.matrix,
            method=method,
            rotation=rotation,
            rows=c.rows,
            source=c.source,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FactorModel):
            return NotImplemented
        arrays = array_shapes(0, 0)
        return self.record() == other.record() and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in arrays
        )

    def __hash__(self) -> int:
        return hash((self.item_ids, self.factors, self.loadings.tobytes()))

    def __repr__(self) -> str:
        how = f"{self.method}, {self.rotation or 'no rotation'}, {self.rows} rows"
        return f"FactorModel({len(self.item_ids)} items, {listed(self.factors)}; {how})"

    def record(self) -> dict[str, Any]:
        """Everything but the numbers, as JSON values."""
        texts = {name: getattr(self, name) for name in ("method", "rotation", "rows", "source")}
        return {"items": list(self.item_ids), "factors": list(self.factors), **texts}

    # -- what it explains

    @cached_property
    def communalities(self) -> Array:
        """(items,) share of an item's variance that the factors explain: the diagonal of ΛΦΛ'."""
        return np.asarray(((self.loadings @ self.phi) * self.loadings).sum(axis=1))

    @property
    def uniquenesses(self) -> Array:
        """(items,) the rest; below zero where the fit claims more than there is (a Heywood case)."""
        return 1.0 - self.communalities

    @property
    def structure(self) -> Array:
        """(items, factors) correlations of items with factors, ΛΦ."""
        return self.loadings @ self.phi

    @property
    def ss_loadings(self) -> Array:
        """(factors,) variance explained in items; sums to that of the communalities, also where factors correlate."""
        return np.asarray((self.loadings * self.structure).sum(axis=0))

    @property
    def variance_explained(self) -> Array:
        """(factors,) the same as shares of all items' variance."""
        return self.ss_loadings / len(self.item_ids)

    @property
    def implied(self) -> Array:
        """(items, items) correlations that the model implies, ΛΦΛ' + Ψ with uniquenesses of at least 0.005."""
        psi = np.maximum(self.uniquenesses, LEAST_UNIQUENESS)
        return self.structure @ self.loadings.T + np.diag(psi)

    # -- scores

    def score_weights(self, method: ScoreMethod = "regression") -> Array:
        """(items, factors) weights W on standardised items.

        "regression" (Thurstone 1935): R⁻¹ΛΦ, closest to the factors. "bartlett" (1937): Ψ⁻¹Λ(Λ'Ψ⁻¹Λ)⁻¹, unbiased for
        each factor. "tenberge" (ten Berge, Krijnen, Wansbeek and Shapiro 1999): scores correlate exactly as Φ says.
        Where R cannot be inverted (fewer rows than items), the first and third use Σ. Of principal components, which
        have no uniquenesses, all three are the component scores Λ(Λ'Λ)⁻¹.
        """
        if method not in get_args(ScoreMethod):
            raise ValueError(f"method: expected 'regression', 'bartlett' or 'tenberge', got {method!r}")
        if self.method == "principal":
            return np.asarray(np.linalg.pinv(self.loadings).T)
        if method == "bartlett":
            weighted = self.loadings / np.maximum(self.uniquenesses, LEAST_UNIQUENESS)[:, None]
            return np.asarray(np.linalg.solve(self.loadings.T @ weighted, weighted.T).T)
        R = self.correlation if np.linalg.eigvalsh(self.correlation)[0] > ROUNDING else self.implied
        if method == "regression":
            return np.asarray(np.linalg.solve(R, self.structure))
        half, root = power(self.phi, 0.5), power(R, -0.5)
        L = root @ self.loadings @ half
        return root @ L @ power(L.T @ L, -0.5) @ half

    def scores(
        self,
        values: npt.ArrayLike | Respondents | HumanAnswers,
        method: ScoreMethod = "regression",
        missing: MissingScore = "nan",
    ) -> Array:
        """Factor scores of answers: standardised with the fitted means and deviations, times the score weights.

        Parameters
        ----------
        values : (..., items) option values or item means in the order of `item_ids`, or human answers of a survey that
            has these items.
        missing : "nan" gives rows with a missing answer NaN scores; "mean" counts the fitted mean for it.

        Returns
        -------
        (..., factors) float64.
        """
        if missing not in ("nan", "mean"):
            raise ValueError(f"missing: expected 'nan' or 'mean', got {missing!r}")
        standard = (self._values(values) - self.means) / self.deviations
        return (np.nan_to_num(standard) if missing == "mean" else standard) @ self.score_weights(method)

    def _values(self, values: Any) -> Array:
        survey = getattr(values, "survey", None)
        if survey is not None:
            means = getattr(values, "item_means", None)
            values = np.asarray(values.values if means is None else means)[:, positions(self.item_ids, survey.item_ids)]
        array = np.asarray(values, dtype=np.float64)
        if array.ndim == 0 or array.shape[-1] != len(self.item_ids):
            raise ValueError(
                f"values end in {len(self.item_ids)} numbers, one per item in the order of item_ids; got {array.shape}"
            )
        return array

    def as_survey(
        self,
        survey: Survey,
        human: HumanAnswers | None = None,
        method: ScoreMethod = "regression",
        missing: MissingScore = "nan",
    ) -> Survey:
        """The survey with this model's factors as its formulas: linear in item means, with an offset.

        Its `score(item_means)` then equals `scores(item_means, method)`. Formulas, variants, published scores and
        scoring rules that the survey had are left out.

        Parameters
        ----------
        human : regions whose scores become the published edition "human answers", to be targets.
        missing : for `human`, see `scores`; a region without scores is left out.

        Raises
        ------
        ValueError
            An item that the survey lacks, or whose option values cannot have the fitted mean.
        """
        from softde.surveys.factors.fitted import as_survey

        return as_survey(self, survey, human, method, missing)

    # -- the same factors under another sign, order or rotation

    def aligned_to(self, reference: Reference, rotate: bool = False) -> FactorModel:
        """The same model with its factors in the reference's order and direction.

        Parameters
        ----------
        reference : another factor model, matched by the items both have and whose factor names are taken over, or
            (items, factors) loadings.
        rotate : True turns the factors towards the reference by an orthogonal Procrustes rotation; otherwise only signs
            and order change, to the assignment with the largest sum of |congruence|.

        Raises
        ------
        ValueError
            Another number of factors or items, or fewer items in common than factors.
        """
        mine, other, names = self._matched(reference)
        turn = procrustes(mine, other)[1] if rotate else assignment(congruence(mine, other))
        return replace(
            self,
            factors=names,
            loadings=self.loadings @ turn,
            rotation_matrix=self.rotation_matrix @ turn,
            phi=turn.T @ self.phi @ turn,
        )

    def _matched(self, reference: Reference) -> tuple[Array, Array, tuple[str, ...]]:
        """Loadings of this model and the reference on the items both have, and the names the factors get."""
        mine, names = self.loadings, self.factors
        if isinstance(reference, FactorModel):
            shared = [item for item in self.item_ids if item in reference.item_ids]
            if len(shared) < len(self.factors):
                raise ValueError(f"expected at least {len(self.factors)} items in common, got {len(shared)}")
            mine = mine[positions(shared, self.item_ids)]
            other, names = reference.loadings[positions(shared, reference.item_ids)], reference.factors
        else:
            other = np.asarray(reference, dtype=np.float64)
        if other.shape != mine.shape:
            raise ValueError(f"reference: expected loadings of shape {mine.shape} (items, factors), got {other.shape}")
        return mine, other, names

    # -- one file

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, its texts as JSON in the header: whole or not at all."""
        from softde.surveys.factors.files import save

        save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> FactorModel:
        """Read what `save` wrote, exactly; needs no factor_analyzer."""
        from softde.surveys.factors.files import load

        return load(path)


def array_shapes(items: int, factors: int) -> dict[str, tuple[int, ...]]:
    """Name → shape of a model's arrays."""
    return {
        "means": (items,),
        "deviations": (items,),
        "loadings": (items, factors),
        "rotation_matrix": (factors, factors),
        "phi": (factors, factors),
        "correlation": (items, items),
    }


def power(matrix: Array, exponent: float) -> Array:
    """A power of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * values**exponent) @ vectors.T)


def _names(names: Iterable[str] | None, n_factors: int) -> tuple[str, ...]:
    given = tuple(names) if names is not None else tuple(f"F{i}" for i in range(1, n_factors + 1))
    if len(given) != n_factors or len(set(given)) != n_factors or not all(isinstance(n, str) and n for n in given):
        raise ValueError(f"names: expected {n_factors} different names of factors, got {listed(map(str, given))}")
    return given
