"""Where soft prompts are searched: charts between flat vectors, which an optimiser moves, and embeddings."""

from softde.space.charts import Chart, Convex, Frame, Full, LowRank, Projected, digest
from softde.space.interpolation import interpolate
from softde.space.promptspace import POOL, PromptSpace, check_tokens, nearest_rows, vocabulary_rows

__all__ = [
    "POOL",
    "Chart",
    "Convex",
    "Frame",
    "Full",
    "LowRank",
    "Projected",
    "PromptSpace",
    "check_tokens",
    "digest",
    "interpolate",
    "nearest_rows",
    "vocabulary_rows",
]
