"""Metrics that answer the critics, each a pure function; what each asks and its floors stand in docs/metrics.md."""

from softde.surveys.metrics.answers import AnswerSheet, answer_sheet, load_answers
from softde.surveys.metrics.bootstrap import Interval, bootstrap
from softde.surveys.metrics.culture_spa import (
    CultureSPAScore,
    culture_spa,
    culture_spa_by_region,
    culture_spa_corrected,
    culture_spa_score,
)
from softde.surveys.metrics.divergence import (
    DivergencePreserved,
    answer_shares,
    cultural_divergence,
    divergence_preserved,
    divergences,
    human_majority,
    js_divergence,
    one_hot,
)
from softde.surveys.metrics.identification import Identification, identification, rank_targets
from softde.surveys.metrics.multiple import holm
from softde.surveys.metrics.nulls import culture_spa_nulls, null_answers, null_shares
from softde.surveys.metrics.ranks import RankAgreement, kendall_tau, misranked_share, rank_agreement, ranks
from softde.surveys.metrics.robustness import Robustness, between_region_deviation, robustness
from softde.surveys.metrics.structure import StructureAgreement, item_correlations, structure_agreement
from softde.surveys.metrics.validity import ShareSummary, invalid_summary, option_mass_summary

__all__ = [
    "AnswerSheet",
    "CultureSPAScore",
    "DivergencePreserved",
    "Identification",
    "Interval",
    "RankAgreement",
    "Robustness",
    "ShareSummary",
    "StructureAgreement",
    "answer_shares",
    "answer_sheet",
    "between_region_deviation",
    "bootstrap",
    "cultural_divergence",
    "culture_spa",
    "culture_spa_by_region",
    "culture_spa_corrected",
    "culture_spa_nulls",
    "culture_spa_score",
    "divergence_preserved",
    "divergences",
    "holm",
    "human_majority",
    "identification",
    "invalid_summary",
    "item_correlations",
    "js_divergence",
    "kendall_tau",
    "load_answers",
    "misranked_share",
    "null_answers",
    "null_shares",
    "one_hot",
    "option_mass_summary",
    "rank_agreement",
    "rank_targets",
    "ranks",
    "robustness",
    "structure_agreement",
]
