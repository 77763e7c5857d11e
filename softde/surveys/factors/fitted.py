"""A fitted factor model as the formulas of a survey."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from softde.surveys.factors.model import FactorModel, MissingScore, ScoreMethod
from softde.surveys.factors.tables import ROUNDING
from softde.surveys.policy import Scoring
from softde.surveys.published import Edition
from softde.surveys.survey import Factor, Survey
from softde.surveys.values import nearest

if TYPE_CHECKING:
    from softde.surveys.human import HumanAnswers


def as_survey(
    model: FactorModel, survey: Survey, human: HumanAnswers | None, method: ScoreMethod, missing: MissingScore
) -> Survey:
    """See `FactorModel.as_survey`: Σ w (x - mean) / deviation is Σ (w / deviation) x - Σ (w / deviation) mean."""
    _check(model, survey)
    weights = model.score_weights(method) / model.deviations[:, None]
    offsets = -model.means @ weights
    how = f"{model.method}, {model.rotation or 'unrotated'}, {method} scores"
    factors = tuple(
        Factor(name, f"{name} ({how})", dict(zip(model.item_ids, column.tolist(), strict=True)), offset=float(offset))
        for name, column, offset in zip(model.factors, weights.T, offsets, strict=True)
    )
    return replace(
        survey,
        id=f"{survey.id}:fitted",
        factor_models=factors,
        variants={},
        published=() if human is None else (_edition(model, human, method, missing),),
        composites=(),
        scoring=Scoring(),
        projection=None,
        constant=0.0,
    )


def _check(model: FactorModel, survey: Survey) -> None:
    """Refuse a survey without the model's items, or with other values for their options."""
    items = {item.id: item for item in survey.items}
    for item, mean in zip(model.item_ids, model.means, strict=True):
        if item not in items:
            raise ValueError(f"survey {survey.id!r} lacks item {item!r}; {nearest(item, items)}")
        values = [option.value for option in items[item].options]
        if not min(values) - ROUNDING <= mean <= max(values) + ROUNDING:
            raise ValueError(
                f"item {item!r}: the model was fitted on answers with mean {mean:g}, but the option values of survey "
                f"{survey.id!r} go from {min(values):g} to {max(values):g}; use the same values in both"
            )


def _edition(model: FactorModel, human: HumanAnswers, method: ScoreMethod, missing: MissingScore) -> Edition:
    rows = {
        region: dict(zip(model.factors, row.tolist(), strict=True))
        for region, row in zip(human.regions, model.scores(human, method, missing), strict=True)
        if np.isfinite(row).all()
    }
    return Edition("human answers", f"scores of {human.source or 'human answers'} by {model!r}", rows)
