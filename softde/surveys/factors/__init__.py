"""Factor models of one's own: fitted on human answers, checked, aligned with others, and used like published ones."""

from softde.surveys.factors.alignment import congruence, procrustes
from softde.surveys.factors.model import FactorModel
from softde.surveys.factors.plot import plot_loadings
from softde.surveys.factors.reliability import (
    bartlett_sphericity,
    cronbach_alpha,
    eigenvalues,
    kaiser,
    kmo,
    mcdonald_omega,
    parallel_analysis,
)
from softde.surveys.factors.tables import Correlations, correlations

__all__ = [
    "Correlations",
    "FactorModel",
    "bartlett_sphericity",
    "congruence",
    "correlations",
    "cronbach_alpha",
    "eigenvalues",
    "kaiser",
    "kmo",
    "mcdonald_omega",
    "parallel_analysis",
    "plot_loadings",
    "procrustes",
]
