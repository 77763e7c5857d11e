"""choenni2024: its conditions, other languages, what is spent, runs that are broken off, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softde import LM, Condition
from softde.reproduce import Study, choenni2024, plan, run
from softde.reproduce.choenni2024 import least_similar
from softde.surveys.human import HumanAnswers
from softde.surveys.metrics import culture_spa_score, js_divergence
from tests.reference import slow_lm
from tests.reproduce.conftest import steps_of, values

METHODS = ("P1: persona", "P3: k = 1", "P3: k = 3", "P3: k = 2, other region", "P3: k = 2, reversed", "P1 + P3: k = 2")


def design(llama: LM, out: Path, human: HumanAnswers, **more: Any) -> Study:
    return choenni2024(llama, out, human=human, **{"regions": ("KEN", "USA"), "k": (1, 3), "ablated": 2, **more})


def condition_of(study: Study, method: str, region: str) -> Condition:
    (found,) = [e.condition for step in study.steps for e in step.like if (e.method, e.region) == (method, region)]
    assert isinstance(found, Condition)
    return found


def test_conditions_hold_what_their_names_say(llama: LM, human: HumanAnswers, tmp_path: Path) -> None:
    study = design(llama, tmp_path / "run", human)
    assert [step.name for step in study.steps] == [
        "unprompted",
        *(f"{m}, {r}" for r in ("Kenya", "United States") for m in METHODS),
    ]
    majority = {
        r: dict(zip(human.survey.item_ids, human.majority[human.row(r)].tolist(), strict=True)) for r in human.regions
    }

    def shown(method: str) -> dict[str, list[tuple[str, int]]]:
        examples = condition_of(study, method, "Kenya").examples
        assert examples is not None
        return {item: [(e.item.id, e.option) for e in some] for item, some in examples.by_item.items()}

    three, one = shown("P3: k = 3"), shown("P3: k = 1")
    for item, some in three.items():
        assert some[:1] == one[item] and len(some) == 3
        assert item not in dict(some) and "Q199" not in dict(some)  # Kenya has no answers to it
        assert all(option == majority["KEN"][other] for other, option in some)
    far = least_similar(human, "Kenya")
    assert all(
        option == majority[far][other] for some in shown("P3: k = 2, other region").values() for other, option in some
    )
    sizes = {item.id: len(item.options) for item in human.survey.items}
    for item, some in shown("P3: k = 2, reversed").items():
        assert some == [(other, sizes[other] - 1 - option) for other, option in three[item][:2]]
    both = condition_of(study, "P1 + P3: k = 2", "United States")
    assert both.system == condition_of(study, "P1: persona", "United States").system
    assert both.system is not None and "the United States" in both.system
    assert all(len(some) == 2 for some in both.examples.by_item.values())  # type: ignore[union-attr]


def test_the_least_similar_region_by_a_loop(human: HumanAnswers) -> None:
    size = np.array([len(item.options) - 1 for item in human.survey.items])
    for region in human.regions:
        scores = {}
        for other in human.regions:
            mine, theirs = human.majority[human.row(region)], human.majority[human.row(other)]
            both = (mine >= 0) & (theirs >= 0)
            apart = float(((mine - theirs)[both] ** 2).sum())
            scores[other] = 1 - (apart / float((size[both] ** 2).sum())) ** 0.5
        assert least_similar(human, region) == min((o for o in scores if o != region), key=scores.__getitem__)
    alone = human.select(regions=["KEN"])
    with pytest.raises(ValueError, match="no other region has answers to the items of KEN"):
        least_similar(alone, "KEN")


def test_the_table_holds_losses_and_scores_of_slow_answers(llama: LM, human: HumanAnswers, tmp_path: Path) -> None:
    study = design(llama, tmp_path / "run", human, regions=("KEN",), orders="forward", k=(1,), ablated=1)
    found = run(study, progress=False)
    rows = {row["method"]: row for row in found.table.rows if row["kind"] == "condition"}
    for method, system in (("unprompted", None), ("P1: persona", condition_of(study, "P1: persona", "Kenya").system)):
        answers = slow_lm.answers(llama, human.survey, "forward", system=system)
        kenya = human.row("KEN")
        bits = [float(js_divergence(p, human.shares[kenya, i, : len(p)])) for i, (p, _) in enumerate(answers[:7])]
        assert rows[method]["loss"] == pytest.approx(np.mean(bits), abs=1e-4)
        sheet = {
            item.id: item.options[int(np.argmax(p))].value
            for item, (p, _) in zip(human.survey.items, answers, strict=True)
        }
        assert rows[method]["culture_spa"] == pytest.approx(culture_spa_score(sheet, human.select(regions=["KEN"])))
    spent, made = steps_of(study), plan(study, measure=False)
    for line in made.lines:
        assert line.asked <= spent[line.name]["asked_tokens"] <= 1.03 * line.asked
    assert all(line.done for line in made.lines)


def test_other_languages_are_exams_of_their_own(llama: LM, human: HumanAnswers, tmp_path: Path) -> None:
    survey = human.survey
    chinese = replace(survey, language="zh", items=survey.items[:5], instruction="只回答数字。")
    study = design(llama, tmp_path / "run", human, translations=[chinese], k=(1,), ablated=1, regions=("KEN",))
    assert [exam.name for exam in study.exams] == ["culture-spa", "culture-spa:zh"]
    entries = [e for step in study.steps for e in step.like if e.survey == "culture-spa:zh" and e.region == "Kenya"]
    assert len(entries) == 5
    told = {e.method: e.condition for e in entries}
    assert isinstance(told["P1: persona"], Condition) and "肯尼亚" in (told["P1: persona"].system or "")
    found = run(study, progress=False)
    rows = [(r["exam"], r["method"]) for r in found.table.rows if r["kind"] == "condition" and r["region"] == "Kenya"]
    assert len(rows) == len(set(rows)) == 2 * 6
    strange = replace(chinese, items=(replace(survey.items[0], id="Q1"), *survey.items[1:]))
    with pytest.raises(
        ValueError, match="translations: survey 'culture-spa' has item 'Q1', which 'culture-spa' has not"
    ):
        design(llama, tmp_path / "other", human, translations=[strange])


def test_broken_off_and_resumed_it_ends_in_the_same_table(
    llama: LM, human: HumanAnswers, tmp_path: Path, broken_off: Callable[..., Any]
) -> None:
    settings: dict[str, Any] = {"regions": ("KEN",), "k": (1,), "ablated": 1, "orders": "forward"}
    found, done = broken_off(lambda: design(llama, tmp_path / "run", human, **settings))
    assert values(found) == values(run(design(llama, tmp_path / "again", human, **settings), progress=False))
    assert len(done) >= 2 and max(done) > 1, done


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"human": None}, r"human: this design compares with answers of people .* \(--human FOLDER\)"),
        ({"regions": ("Atlantis",)}, "no human answers for region 'Atlantis'"),
        ({"k": (9,)}, "k: expected at most 6 examples for item 'Q46'"),
        ({"k": (0,)}, "k: expected a whole number of at least 1, got 0"),
        ({"distance": "far"}, "distance: expected one of"),
        ({"orders": "up"}, "orders: expected one of"),
    ],
)
def test_bad_input_is_refused_before_the_model_is_loaded(
    human: HumanAnswers, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    def load() -> LM:
        raise AssertionError("loaded")

    with pytest.raises(ValueError, match=message):
        choenni2024(load, tmp_path / "run", **{"human": human, "regions": ("KEN",), "k": (1,), "ablated": 1, **wrong})


def test_examples_longer_than_the_model_reads_are_refused_before_anything_is_asked(
    llama: LM, human: HumanAnswers, tmp_path: Path
) -> None:
    long = replace(human.survey.items[3], text="How much does God matter in your life? " * 60)
    survey = replace(human.survey, items=tuple(long if i.id == long.id else i for i in human.survey.items))
    study = design(llama, tmp_path / "run", replace(human, survey=survey), k=(1, 5))
    for begin in (plan, run):
        with pytest.raises(
            ValueError, match=r"P3: k = 5, Kenya: item 'Q\d+' has \d+ tokens with its system text and examples"
        ):
            begin(study)
    assert not (tmp_path / "run").exists()
