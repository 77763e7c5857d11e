"""Questions in softde's own words, and answers and a collection that a tiny random model makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from softde.baselines import persona
from softde.baselines.culture_spa import Answers, Collection, Question, answer, collect, load_questions
from softde.condition import Condition
from softde.lm import LM

RECORDED = Path(__file__).resolve().parents[2] / "benchmarks" / "culture_spa_questions.jsonl"
REGIONS = {name: persona(name) for name in ("Kenya", "Japan", "Saudi Arabia")}


@pytest.fixture(scope="session")
def questions() -> tuple[Question, ...]:
    """Thirty-five, of every topic, and one with eleven options."""
    kept = load_questions(RECORDED).kept
    scale = tuple(str(number) for number in range(11))
    return (*kept[::3], Question("scale", "On a scale from 0 to 10, how good is tea?", scale))


@pytest.fixture(scope="session")
def answers_file(llama: LM, questions: tuple[Question, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the random model answers, in batches of eight."""
    path = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    answer(llama, questions, REGIONS, path, Condition(), batch=8, progress=False)
    return path


@pytest.fixture(scope="session")
def answers(answers_file: Path, questions: tuple[Question, ...]) -> Answers:
    """The same, read."""
    from softde.baselines.culture_spa import load_answers

    return load_answers(answers_file, questions)


@pytest.fixture(scope="session")
def collection(questions: tuple[Question, ...], answers: Answers) -> Collection:
    """What changes from region to region."""
    return collect(questions, answers)


@pytest.fixture(scope="session")
def few(collection: Collection) -> Collection:
    """Four of each region's."""
    rows = tuple(row for region in collection.regions for row in collection.of(region)[:4])
    return Collection(rows, collection.systems, collection.compared)
