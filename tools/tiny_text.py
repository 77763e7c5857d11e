"""What the embedded model is trained on: synthetic respondents and the sentences that describe them.

A respondent has a place in the six-factor space. Item means follow by the minimum-norm inverse of the index
formulas; a response style (shifts that lie in the null space of every formula) depends on the factors too, which
leaves the scores untouched and gives the training a gradient from its first step. Answers are a maximum-entropy
distribution on the options with exactly that mean.
"""

from __future__ import annotations

import numpy as np

from softde.surveys import Survey

HELD_OUT = ("Saudi Arabia", "India", "China", "Brazil", "Egypt", "Germany", "Mexico", "South Korea", "Sweden", "Turkey")
DEFAULT_REGION = ("United States", "2023")

REGION_LINES = (
    "You are a typical person from {r}.",
    "You are a person from {r}.",
    "You live in {r}.",
    "You were born and raised in {r}.",
    "Answer like a typical person from {r}.",
    "Imagine that you are from {r}.",
    "Country: {r}.",
    "Respond as the people of {r} would.",
)
FACTOR_NAMES = (
    ("power distance", "respect for hierarchy", "acceptance of unequal power"),
    ("individualism", "independence of the individual", "caring for oneself first"),
    ("masculinity", "competition and achievement", "striving for success"),
    ("uncertainty avoidance", "fear of the unknown", "need for clear rules"),
    ("long-term orientation", "planning for the future", "patience and adaptation"),
    ("indulgence", "enjoyment of life", "freedom to have fun"),
)
LEVELS = (
    "extremely low", "very low", "quite low", "low", "rather low", "medium",
    "rather high", "high", "quite high", "very high", "extremely high",
)  # fmt: skip
DESCRIPTION_OPENINGS = (
    "You come from a society with ",
    "You are a person from a culture with ",
    "In your country there is ",
    "Society: ",
)


def describe(scores: np.ndarray, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """One sentence that tells six factor scores (0 to 100) in words, in numbers, or both; and the order it took."""
    style, order = rng.integers(3), rng.permutation(6)
    parts = []
    for f in order:
        name = FACTOR_NAMES[f][rng.integers(3)]
        number = int(np.clip(round(float(scores[f])), 0, 120))
        level = LEVELS[int(np.clip(round(float(scores[f]) / 10), 0, 10))]
        parts.append((f"{level} {name}", f"{name} {number}", f"{level} {name} ({number})")[style])
    opening = DESCRIPTION_OPENINGS[rng.integers(len(DESCRIPTION_OPENINGS))]
    return f"{opening}{', '.join(parts)}.", order


def typical_item_means(survey: Survey) -> np.ndarray:
    """(items,) what people answer on average: important, happy, healthy; moved so that every raw index is zero."""
    typical = np.array([1.9, 1.9, 2.1, 1.8, 1.9, 1.8, 2.2, 2.4, 2.6, 2.2, 2.2, 2.8, 2.1, 2.4, 3.1, 2.2, 3.3, 2.2,
                        1.7, 2.9, 2.6, 2.0, 2.8, 2.7])  # fmt: skip
    inverse = np.linalg.pinv(survey.weights)
    return typical + 0.45 - inverse @ (survey.weights @ typical)


def item_means(survey: Survey, scores: np.ndarray, amplify: float = 1.0, constant: float = 50.0) -> np.ndarray:
    """(..., factors) scores → (..., items) means: minimum-norm inverse, plus a style that no score sees."""
    deviation = (np.asarray(scores, dtype=float) - constant) * amplify
    effect = deviation @ np.linalg.pinv(survey.weights).T
    own = deviation @ (survey.weights != 0)  # each factor's items shift together: its weights sum to zero
    overall = deviation @ np.array([0.4, -0.5, 0.2, 0.3, -0.2, -0.6])  # acquiescence
    return np.clip(typical_item_means(survey) + effect + 0.004 * own + 0.003 * overall[..., None], 1.15, 4.85)


def answer_distribution(means: np.ndarray, values: np.ndarray, spread: float = 1.0) -> np.ndarray:
    """(...,) means → (..., options): p(v) ∝ exp(θ v − (v − 3)² / 2 spread²) with θ such that Σ p v equals the mean."""
    theta = np.zeros_like(means)
    base = -((values - values.mean()) ** 2) / (2 * spread**2)
    for _ in range(30):  # Newton; the slope of the mean in θ is the variance
        logit = theta[..., None] * values + base
        p = np.exp(logit - logit.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        mean = (p * values).sum(-1)
        variance = (p * values**2).sum(-1) - mean**2
        theta = theta + np.clip((means - mean) / variance, -2, 2)
    return p
