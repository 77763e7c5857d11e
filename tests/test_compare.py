"""compare: the table's numbers against a slow computation, its form, and what it refuses."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from softde import baselines
from softde.compare import Comparison, Row, compare, shortened
from softde.condition import Condition
from softde.lm import LM
from softde.prompt import SoftPrompt
from softde.surveys import Survey, Target, load_survey, nulls
from tests.tiny_random import save


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LM:
    return LM.from_pretrained(save(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def survey() -> Survey:
    """The first six items of vsm13 and the one factor that they make."""
    vsm = load_survey("vsm13")
    items = tuple(i for i in vsm.items if i.id in vsm.factor_models[1].weights)
    return replace(vsm, items=items, factor_models=(vsm.factor_models[1],), variants={}, published=())


@pytest.fixture(scope="module")
def target(survey: Survey) -> Target:
    return Target("Saudi Arabia", "2023", survey.factors, np.array([48.0]), "facts", {"IDV": 50.0})


@pytest.fixture(scope="module")
def prompt(lm: LM) -> SoftPrompt:
    return SoftPrompt(torch.randn(4, lm.hidden_size, generator=torch.Generator().manual_seed(0)), "front")


@pytest.fixture(scope="module")
def comparison(lm: LM, survey: Survey, target: Target, prompt: SoftPrompt) -> Comparison:
    conditions = [Condition(), baselines.persona("Saudi Arabia"), Condition(name="found", prompt=prompt), Condition()]
    return compare(lm, survey, target, conditions)


def slow_scores(lm: LM, survey: Survey, condition: Condition) -> list[float]:
    """Factor scores from one-by-one forwards, summed in plain Python."""
    plan = lm.plan(survey, condition.system, condition.placement, "both")
    prompts = None if condition.prompt is None else condition.prompt.embeddings[None]
    logprobs = lm.option_logprobs(plan, prompts, plain=True).logprobs[0].tolist()
    means = {
        item.id: sum(2.718281828459045**p * option.value for p, option in zip(row, item.options, strict=True))
        for item, row in zip(survey.items, logprobs, strict=True)
    }
    return [50 + sum(w * means[i] for i, w in factor.weights.items()) for factor in survey.factor_models]


def test_scores_and_losses(comparison: Comparison, lm: LM, survey: Survey, target: Target, prompt: SoftPrompt) -> None:
    conditions = [
        Condition(),
        Condition(system="You are a typical person from Saudi Arabia."),
        Condition(prompt=prompt),
    ]
    for row, condition in zip(comparison.rows, conditions, strict=False):
        expected = slow_scores(lm, survey, condition)
        assert row.scores == pytest.approx(expected, abs=1e-2)  # 35 points per option value, float32
        assert row.loss == pytest.approx(
            sum(abs(e - t) for e, t in zip(expected, target.scores, strict=True)), abs=1e-2
        )
        assert 0 <= row.option_mass <= 1
    assert comparison.nulls == nulls(survey, target)


def test_rows_keep_their_order_and_get_unique_names(comparison: Comparison) -> None:
    assert [row.condition for row in comparison.rows] == ["unprompted", "persona", "found", "unprompted (2)"]


def test_records_are_flat_and_complete(comparison: Comparison) -> None:
    records = comparison.records()
    assert [r["kind"] for r in records] == ["target"] + ["condition"] * 4 + ["null"] * 4
    assert len({tuple(r) for r in records}) == 1
    assert records[0]["IDV"] == 48
    assert {r["name"]: r["loss"] for r in records if r["kind"] == "null"} == comparison.nulls
    assert {(r["region"], r["edition"], r["survey"], r["norm"]) for r in records} == {
        ("Saudi Arabia", "2023", "vsm13", "L1")
    }


def test_frame(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    frame = comparison.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == 9
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"softde\[viz\]"):
        comparison.to_frame()


def test_text_shows_everything(comparison: Comparison) -> None:
    text = str(comparison)
    for word in ("Saudi Arabia", "2023", "vsm13", "IDV", "option mass", "persona", "unprompted (2)", *comparison.nulls):
        assert word in text
    assert "Careful: under unprompted" in text  # a random model's mass is everywhere
    rows = [line for line in text.splitlines() if line.startswith(("target", "persona", "found"))]
    assert len({len(line) for line in rows[1:]}) == 1  # aligned


def test_small_scores_have_three_digits() -> None:
    survey = load_survey("iw")
    target = survey.target("Brazil")  # at -0.0703, -0.2974 on the map
    row = Row("unprompted", np.array([0.51234, -1.4]), 1.68494, 1.0)
    text = str(Comparison("model", "iw", target, (row,), {"midpoint": 0.5}))
    assert "-0.070" in text and "0.512" in text and "1.685" in text and "0.500" in text


def test_markdown_is_a_table(comparison: Comparison) -> None:
    lines = [line for line in comparison.to_markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 1 + 4 + 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[-1].startswith("| *best integer respondent* |")


@pytest.mark.parametrize("factors", [1, 6, 20])
def test_text_fits_100_columns(factors: int) -> None:
    names = tuple(f"factor{i:02}" for i in range(factors))
    target = Target(
        "Saint Helena, Ascension and Tristan da Cunha",
        "2023",
        names,
        np.full(factors, 50.0),
        "",
        dict.fromkeys(names, 5.0),
    )
    row = Row("a condition with quite a long name, longer than its column", np.full(factors, -1234.5), 99999.9, 1.0)
    comparison = Comparison(
        "org/a-model-with-a-long-name", "vsm13:cat_35_25", target, (row, row), {"midpoint": float("nan")}
    )
    text = str(comparison)
    assert max(map(len, text.splitlines())) <= 100
    assert all(text.count(name) == 1 for name in names)
    assert "nan" in text
    assert "Careful" not in text


def test_what_is_refused(lm: LM, survey: Survey, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    other = load_survey("vsm13").target("Saudi Arabia")
    monkeypatch.setattr(sys.modules[Comparison.__module__], "administer", None)  # nothing may be asked
    with pytest.raises(ValueError, match="take the target from the same survey"):
        compare(lm, survey, other, [Condition()])
    with pytest.raises(ValueError, match="expected one or more"):
        compare(lm, survey, target, [])
    with pytest.raises(ValueError, match="norm: expected"):
        compare(lm, survey, target, [Condition()], norm="L3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weights"):
        compare(lm, survey, target, [Condition()], weights=[1.0, 2.0])
    wide = Condition(prompt=SoftPrompt(torch.zeros(2, 7)))
    with pytest.raises(ValueError, match="7 numbers wide"):
        compare(lm, survey, target, [Condition(), wide])


def test_norm_and_weights_reach_losses_and_nulls(lm: LM, survey: Survey, target: Target) -> None:
    plain = compare(lm, survey, target, [Condition()])
    double = compare(lm, survey, target, [Condition()], norm="L1", weights={"IDV": 2.0})
    assert double.rows[0].loss == pytest.approx(2 * plain.rows[0].loss)
    assert double.nulls["midpoint"] == pytest.approx(2 * plain.nulls["midpoint"])
    assert "weighted 2" in str(double)


def test_persona() -> None:
    condition = baselines.persona("Saudi Arabia")
    assert condition == Condition("You are a typical person from Saudi Arabia.", name="persona")
    assert baselines.persona("{odd} place", "From {region}!").system == "From {odd} place!"
    with pytest.raises(ValueError, match=r"\{region\}"):
        baselines.persona("Saudi Arabia", "You are a person.")


def test_nothing_is_written_or_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comparison: Comparison) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(comparison) == str(comparison)
    assert comparison.records() == comparison.records()
    assert not list(tmp_path.iterdir())


def test_prompts_and_results_stand_for_their_condition(
    lm: LM, survey: Survey, target: Target, prompt: SoftPrompt
) -> None:
    class Result:
        condition = Condition("Be kind.", name="found")

    conditions = [Condition(prompt=prompt), Result.condition, Condition()]
    want = compare(lm, survey, target, conditions).records()
    assert compare(lm, survey, target, [prompt, Result(), None]).records() == want  # type: ignore[list-item]
    alone = compare(lm, survey, target, prompt)
    assert [row.condition for row in alone.rows] == ["soft prompt"]


def test_other_kinds_of_argument(lm: LM, survey: Survey, target: Target) -> None:
    for arguments, message in (
        (("tiny", survey, target, []), r"lm: expected LM, got 'tiny'; softde.LM.from_pretrained\('tiny'\)"),
        ((survey, lm, target, []), "lm: expected LM, got Survey; "),
        ((lm, "vsm13", target, []), r"survey: expected Survey, got 'vsm13'; softde.load_survey\('vsm13'\)"),
        ((lm, survey, "India", []), r"target: expected Target, got 'India'; survey.target\('India'\)"),
        ((lm, survey, target, "persona"), "conditions: expected Condition, got 'persona'"),
        ((lm, survey, target, [lm]), "conditions: expected Condition, got LM"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(*arguments)


def test_long_names_stay_different() -> None:
    def shown(*names: str) -> list[str]:
        return shortened(names, 30)

    stem = "saudi-arabia-experiment-with-everything"
    assert shown(f"{stem}-seed-1", f"{stem}-seed-2") == [f"saudi-arabia-...rything-seed-{i}" for i in (1, 2)]
    for names in (
        [f"{'a' * 20}{i}{'b' * 20}" for i in range(3)],  # neither end tells them apart
        [f"{i}{'b' * 40}" for i in range(3)],
        [f"{'a' * 9}{i}{'b' * 21}" for i in range(3)],
        [f"{'a' * 17}{i}{'b' * 30}" for i in range(3)],
        ["short", "x" * 30, "x" * 31],
    ):
        cut = shown(*names)
        assert max(map(len, cut)) <= 30
        assert all(c == n for c, n in zip(cut, names, strict=True) if len(n) <= 30)
        if "a" * 20 not in names[0]:
            assert len(set(cut)) == len(names)
