"""What a model can do beside what it was aligned to: quizzes before and after, Pareto front, written answers."""

from softde.abilities.evaluate import abilities
from softde.abilities.keys import by_letter, by_text, from_one, from_zero
from softde.abilities.loading import load_quiz
from softde.abilities.pareto import Pareto, Point, pareto, points_of
from softde.abilities.quiz import Quiz, make_quiz, quiz_item
from softde.abilities.reading import Columns
from softde.abilities.scoring import Row
from softde.abilities.statistics import Estimate
from softde.abilities.table import Abilities
from softde.abilities.written import Written, written

__all__ = [
    "Abilities",
    "Columns",
    "Estimate",
    "Pareto",
    "Point",
    "Quiz",
    "Row",
    "Written",
    "abilities",
    "by_letter",
    "by_text",
    "from_one",
    "from_zero",
    "load_quiz",
    "make_quiz",
    "pareto",
    "points_of",
    "quiz_item",
    "written",
]
