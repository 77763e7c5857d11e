"""culturespa2024 at a tiny size: its stages, the plan before and after the collection, runs that are broken off."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softde import LM, Condition
from softde.baselines import combined, cross_culture
from softde.baselines.culture_spa import (
    Answers,
    LMWriter,
    LoRA,
    Written,
    aware,
    collect,
    load_answers,
    load_collection,
    load_questions,
)  # fmt: skip
from softde.reproduce import Outcome, Study, culturespa2024, plan, run
from softde.reproduce.pipeline import CHANGED, fitted
from softde.surveys.human import HumanAnswers
from tests.reproduce.conftest import steps_of, values

RECORDED = Path(__file__).resolve().parents[2] / "benchmarks" / "culture_spa_questions.jsonl"
SETTINGS: dict[str, Any] = {
    "regions": ("KEN", "CHN"), "k": 1, "similar": 1, "budget": 16, "most": 4, "orders": "forward",
    "settings": LoRA(rank=2, lr=0.01, batch=4, micro_batch=1), "num_virtual_tokens": 2,
}  # fmt: skip
PADDING = 1.03


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen of the recorded ones."""
    path = tmp_path_factory.mktemp("questions") / "some.jsonl"
    path.write_text("\n".join(RECORDED.read_text(encoding="utf-8").splitlines()[::8][:14]), encoding="utf-8")
    return path


def design(llama: LM, out: Path, human: HumanAnswers, questions: Path | None, **more: Any) -> Study:
    return culturespa2024(llama, out, human=human, questions=questions, **{**SETTINGS, **more})


@pytest.fixture(scope="module")
def study(llama: LM, human: HumanAnswers, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return design(llama, tmp_path_factory.mktemp("spa") / "run", human, questions)


@pytest.fixture(scope="module")
def first_plan(study: Study) -> Any:
    return plan(study)


@pytest.fixture(scope="module")
def outcome(study: Study, first_plan: Any) -> Outcome:
    return run(study, first_plan, progress=False)


def test_stages_leave_their_files_and_adapters_are_compared_with_prompting(
    study: Study, outcome: Outcome, questions: Path, human: HumanAnswers
) -> None:
    folder = study.folder / "culturespa"
    asked = load_questions(questions).kept
    answers = load_answers(folder / "answers.jsonl", asked)
    assert isinstance(answers, Answers) and answers.regions == ("Kenya", "China")
    kept = load_collection(folder / "collection.jsonl")
    assert kept.rows == collect(asked, answers).rows and len(kept.rows) > 4
    assert outcome.table.methods == (
        "unprompted", "P1: persona", "P2: cross-culture", "P3: self-alignment", "P1 + P3", "P2 + P3",
        "CultureSPA (joint)", "CultureSPA (specific)", "CultureSPA (soft prompt)",
    )  # fmt: skip
    found = {(entry.method, entry.region): entry for entry in outcome.entries}
    told = aware("Kenya").system
    for method, place in (("joint", "joint"), ("specific", "kenya")):
        condition = found[f"CultureSPA ({method})", "Kenya"].condition
        assert condition == Condition(
            told, adapter=folder / "seed-0" / place / "adapter", name=f"CultureSPA ({method})"
        )
    thought = cross_culture("KEN", human, 1)
    assert found["P2: cross-culture", "Kenya"].condition == thought
    p3 = found["P3: self-alignment", "Kenya"].condition
    assert isinstance(p3, Condition) and found["P2 + P3", "Kenya"].condition == combined(thought, p3)
    assert found["CultureSPA (soft prompt)", "Kenya"].condition.prompt.num_virtual_tokens == 2  # type: ignore[union-attr]
    rows = [row for row in outcome.table.rows if row["kind"] == "condition"]
    assert all(row["culture_spa"] == row["culture_spa"] and row["ranked_among"] == 4 for row in rows)
    by_method = {row["method"]: row["loss"] for row in rows if row["region"] == "Kenya"}
    assert len(set(by_method.values())) == 9  # adapters change answers


def test_costs_hold_each_regions_part_of_the_answers(study: Study, outcome: Outcome) -> None:
    folder, spent = study.folder / "culturespa", steps_of(study)
    part = spent["CultureSPA: answers"]["found_tokens"] / 2
    found = {(entry.method, entry.region): entry.forward_tokens for entry in outcome.entries}
    assert found["P1: persona", "Kenya"] == 0
    assert (
        found["CultureSPA (specific)", "Kenya"] == part + spent["CultureSPA (specific), Kenya, seed 0"]["found_tokens"]
    )
    assert found["CultureSPA (joint)", "Kenya"] == part + spent["CultureSPA (joint), seed 0"]["found_tokens"] / 2
    record = json.loads((folder / "runs" / "culturespa-soft-prompt-kenya-0" / "found.json").read_text())
    assert found["CultureSPA (soft prompt)", "Kenya"] == part + record["forward_tokens"]


def test_the_plan_says_what_is_then_spent(
    study: Study, first_plan: Any, outcome: Outcome, llama: LM, human: HumanAnswers, questions: Path
) -> None:
    del outcome
    spent = steps_of(study)
    made = {line.name: line for line in plan(design(llama, study.folder, human, questions)).lines}
    before = {line.name: line for line in first_plan.lines}
    assert made.keys() == before.keys() == spent.keys()
    for name, line in made.items():
        assert line.done and not before[name].done
        if "prompt" not in name:
            assert line.asked <= spent[name]["asked_tokens"] <= PADDING * line.asked
    answers = "CultureSPA: answers"
    assert made[answers].found == before[answers].found
    assert made[answers].found <= spent[answers]["found_tokens"] <= PADDING * made[answers].found
    for name in ("CultureSPA (joint), seed 0", "CultureSPA (specific), Kenya, seed 0"):  # one by one, without padding
        assert made[name].found == spent[name]["found_tokens"] != before[name].found
    # before: 26.9 % of the answers, each a forward and a backward pass
    nobody, kenya, china = (before[answers].found * share for share in _shares(llama, questions))
    assert before["CultureSPA (joint), seed 0"].found == pytest.approx(3 * CHANGED * (kenya + china))
    assert nobody > 0
    soft = "CultureSPA (soft prompt), China, seed 0"
    assert 0 < spent[soft]["found_tokens"] < made[soft].found
    works = [rate.work for rate in first_plan.rates]
    assert works == ["asking questions", "training adapters", "scoring candidates"]


def _shares(llama: LM, questions: Path) -> list[float]:
    """What nobody and two regions have of the tokens of all questions, one plan for each."""
    from softde.baselines.culture_spa import as_survey, unaware

    survey = as_survey(load_questions(questions).kept)
    systems = [unaware().system, aware("Kenya").system, aware("China").system]
    tokens = [sum(q.length for q in llama.plan(survey, system, orders="forward").questions) for system in systems]
    return [n / sum(tokens) for n in tokens]


def test_broken_off_and_resumed_it_ends_in_the_same_table(
    llama: LM, human: HumanAnswers, questions: Path, outcome: Outcome, tmp_path: Path, broken_off: Callable[..., Any]
) -> None:
    found, done = broken_off(lambda: design(llama, tmp_path / "run", human, questions), 40)
    assert values(found) == values(outcome)
    stages = list(steps_of(outcome.study))
    begun = {stages[number] for number in done}
    assert any("P1" in name or "P3" in name or name == "unprompted" for name in begun), begun
    assert any("joint" in name or "specific" in name or "answers" in name for name in begun), begun


@pytest.mark.parametrize("options", [("yes", "no"), ("never", "seldom", "sometimes", "often", "always")])
def test_with_cross_culture_thinking_and_questions_of_its_own(
    llama: LM, human: HumanAnswers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    survey = human.survey
    items = tuple(replace(item, topic="Life" if i % 2 else "Faith") for i, item in enumerate(survey.items[:6]))
    own = replace(human.select([item.id for item in items]), survey=replace(survey, items=items))

    def write(_: LMWriter, tasks: Sequence[tuple[str, str]], keys: Sequence[tuple[int, ...]]) -> Written:
        texts = tuple(json.dumps({"question": f"Is {sum(key) % 997} right?", "options": options}) for key in keys)
        return Written(texts, 100 * len(tasks))

    monkeypatch.setattr(LMWriter, "write", write)
    study = design(llama, tmp_path / "run", own, None, n=4, thinking=True, regions=("KEN",))
    before = plan(study, measure=False)
    assert [line.name for line in before.lines[6:]] == [
        "8 questions", "CultureSPA: answers", "CultureSPA: collection", "CultureSPA (joint), seed 0",
        "CultureSPA (specific), Kenya, seed 0", "CultureSPA-CCT: answers", "CultureSPA-CCT: collection",
        "CultureSPA-CCT (joint), seed 0", "CultureSPA-CCT (specific), Kenya, seed 0",
        "CultureSPA (soft prompt), Kenya, seed 0",
    ]  # fmt: skip
    assert all(line.found > 0 for line in before.lines[6:] if "collection" not in line.name)
    found = run(study, progress=False)
    assert len(load_questions(study.folder / "questions.jsonl").kept) == 8
    assert load_answers(
        study.folder / "culturespa-cct" / "answers.jsonl", load_questions(study.folder / "questions.jsonl").kept
    )
    made = {entry.method for entry in found.entries}
    for title in ("CultureSPA", "CultureSPA-CCT"):
        kept = (study.folder / title.lower() / "collection.jsonl").read_text().count('"region": "Kenya"')
        assert (f"{title} (joint)" in made) == (f"{title} (specific)" in made) == (kept >= 2) == (len(options) > 2)
    assert steps_of(study)["8 questions"]["found_tokens"] == 800
    with pytest.raises(ValueError, match="seeds: items xQ46, .* have no topic"):
        untold = replace(survey, items=tuple(replace(i, id=f"x{i.id}") for i in survey.items))
        design(llama, tmp_path / "other", replace(human, survey=untold), None)


def test_few_examples_make_small_batches() -> None:
    assert fitted(LoRA(), 5_000).batch == 128
    assert fitted(LoRA(), 45).batch == 4
    assert fitted(LoRA(), 3).batch == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"human": None}, r"human: this design is scored by answers of people .* \(--human FOLDER\)"),
        ({"questions": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"regions": ("Atlantis",)}, "no human answers for region 'Atlantis'"),
        ({"similar": 2}, "n: 2 similar and 2 different regions need 4 others"),
        ({"k": 9}, "k: expected at most 6 examples"),
        ({"most": 0}, "most: expected a whole number of at least 1"),
    ],
)
def test_bad_input_is_refused_before_the_model_is_loaded(
    human: HumanAnswers, questions: Path, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    def load() -> LM:
        raise AssertionError("loaded")

    with pytest.raises(ValueError, match=message):
        culturespa2024(load, tmp_path / "run", **{"human": human, "questions": questions, **SETTINGS, **wrong})
