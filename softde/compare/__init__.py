"""compare: conditions beside one target; and methods × regions on one or more surveys, with intervals and tests."""

from softde.compare.entries import Entry, Exam
from softde.compare.grid import compare_methods
from softde.compare.one import Comparison, Row, compare, loss_of
from softde.compare.stats import sign_flip
from softde.compare.table import MethodTable
from softde.compare.text import shortened

__all__ = [
    "Comparison", "Entry", "Exam", "MethodTable", "Row", "compare", "compare_methods", "loss_of", "shortened",
    "sign_flip",
]  # fmt: skip
