"""Asking: against one-by-one forwards written out by hand, in parts, interrupted, and with items that do not fit."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from softde.abilities import Quiz, abilities, asking, evaluate, load_quiz, make_quiz, quiz_item
from softde.abilities.asking import parts, read_checkpoint, size
from softde.condition import Condition, Panel
from softde.lm import LM
from softde.prompt import SoftPrompt
from softde.readouts import Argmax, Sampled
from softde.surveys.examples import Example, Examples
from tests.reference import slow_lm
from tests.tiny_random import make_model, make_tokenizer

SYSTEM = "You come from Orn."


@pytest.fixture
def easy(easy_file: Path) -> Quiz:
    return load_quiz(easy_file)


@pytest.fixture
def hard(hard_file: Path) -> Quiz:
    return load_quiz(hard_file)


@pytest.fixture(scope="module")
def soft(llama: LM) -> SoftPrompt:
    noise = torch.randn(3, llama.hidden_size, generator=torch.Generator().manual_seed(5))
    return SoftPrompt(noise * 10 * llama.embedding_stats[1])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Two items a part; the items of each call of `administer`."""
    calls: list[tuple[str, ...]] = []
    real = asking.administer

    def spy(survey: Any, *arguments: Any, **settings: Any) -> Any:
        calls.append(survey.item_ids)
        return real(survey, *arguments, **settings)

    monkeypatch.setattr(asking, "MOST", 2)
    monkeypatch.setattr(asking, "administer", spy)
    return calls


def ask(lm: LM, quizzes: Any, conditions: Any = (), **settings: Any) -> Any:
    return abilities(lm, quizzes, conditions, progress=False, **settings)


@pytest.mark.parametrize("orders", ["both", "forward"])
def test_answers_are_those_of_plain_forwards(llama: LM, hard: Quiz, easy: Quiz, soft: SoftPrompt, orders: str) -> None:
    found = ask(llama, [easy, hard], [None, SYSTEM_CONDITION, soft], orders=orders)
    under = [{}, {"system": SYSTEM}, {"soft": soft.embeddings}]
    for quiz, sheets in zip((easy, hard), found.sheets, strict=True):
        for sheet, how in zip(sheets, under, strict=True):
            slow = slow_lm.answers(llama, quiz.survey, orders, **how)
            right = []
            for i, (shares, mass) in enumerate(slow):
                assert sheet.probabilities[i, : len(shares)] == pytest.approx(shares, abs=1e-4)
                assert sheet.option_mass[i] == pytest.approx(mass, abs=1e-4)
                right.append(shares.index(max(shares)) == quiz.right[i])
            assert sheet.right.tolist() == right
            solved = {g: all(r for r, other in zip(right, quiz.groups, strict=True) if other == g) for g in quiz.groups}
            name = found.conditions[sheets.index(sheet)]
            row = found.row(name, quiz.name)
            assert row.accuracy.value == pytest.approx(sum(solved.values()) / len(solved))
            assert row.probability == pytest.approx(np.mean([s[k] for (s, _), k in zip(slow, quiz.right, strict=True)]))
            assert row.option_mass == pytest.approx(np.mean([m for _, m in slow]), abs=1e-4)
        one, *others = (sheet.probabilities for sheet in sheets)
        assert all(np.abs(one - other).max() > 0.01 for other in others)


SYSTEM_CONDITION = Condition(SYSTEM)


def test_single_answers_are_right_if_all_orders_say_so(llama: LM, easy: Quiz) -> None:
    both = ask(llama, easy, readout=Argmax()).sheets[0][0].right
    ways = [
        [s.index(max(s)) for s, _ in slow_lm.answers(llama, easy.survey, order)] for order in ("forward", "reversed")
    ]
    assert both.tolist() == [a == b == k for a, b, k in zip(*ways, easy.right, strict=True)]


def test_examples_and_panels_are_conditions_too(llama: LM, easy: Quiz) -> None:
    shown = Examples({item: (Example(quiz_item("x", "Tea?", ["yes", "no"], 0), 0),) for item in easy.survey.item_ids})
    panel = Panel((Condition(SYSTEM), Condition("You come from Lomé-on-Sea.")), "two")
    found = ask(llama, easy, [Condition(), Condition(examples=shown), panel]).sheets[0]
    members = ask(llama, easy, panel.members).sheets[0]
    mean = np.mean([sheet.probabilities for sheet in members], axis=0)
    np.testing.assert_allclose(found[2].probabilities, mean, atol=1e-6)
    assert np.abs(found[1].probabilities - found[0].probabilities).max() > 1e-3


def test_parts_hold_every_item_once_and_little_at_a_time() -> None:
    rng = np.random.default_rng(1)
    items = [quiz_item(str(i), "x" * int(n), ["a", "é"], 0) for i, n in enumerate(rng.integers(1, 30_000, 300))]
    items += [quiz_item(f"short {i}", "?", ["a", "b"], 0) for i in range(200)]
    found = list(parts(make_quiz("q", items).survey))
    assert sorted(i for part in found for i in part.item_ids) == sorted(item.id for item in items)
    assert all(len(p.items) <= asking.MOST for p in found)
    assert all(sum(map(size, p.items)) <= asking.BYTES or len(p.items) == 1 for p in found)
    assert len(found) < 300
    lengths = [size(item) for part in found for item in part.items]
    assert lengths == sorted(lengths, reverse=True)
    assert size(items[0]) == len(items[0].text) + 3  # é has two bytes


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_is_put_in_once_and_named_as_given(
    llama: LM, easy: Quiz, tmp_path: Path, counted: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(copy.deepcopy(llama.model), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.fill_(0.3)
    wrapped.save_pretrained(tmp_path / "lora")
    loaded: list[object] = []
    real = asking.adapted
    monkeypatch.setattr(asking, "adapted", lambda lm, folder: loaded.append(folder) or real(lm, folder))
    condition = Condition(adapter=tmp_path / "lora", name="tuned")
    found = ask(llama, easy, [Condition(), condition], checkpoint=tmp_path / "c.jsonl")
    assert found.conditions == ("unprompted", "tuned") and loaded == [None, tmp_path / "lora"] and len(counted) == 4
    merged = LM(wrapped.merge_and_unload(), llama.tokenizer)
    np.testing.assert_allclose(
        found.sheets[0][1].probabilities, ask(merged, easy).sheets[0][0].probabilities, atol=1e-5
    )
    assert np.abs(found.sheets[0][1].probabilities - found.sheets[0][0].probabilities).max() > 1e-3
    loaded.clear()
    assert ask(llama, easy, [condition], checkpoint=tmp_path / "c.jsonl").conditions == ("tuned",)
    assert loaded == [None]  # all its answers are known
    key = asking.run_key(llama, easy, condition, "both", Argmax())
    weights = tmp_path / "lora" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")  # another adapter in the same folder is another run
    assert asking.run_key(llama, easy, condition, "both", Argmax()) != key


# ---- interrupted and resumed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("readout", [Argmax(), Sampled(n=3)])  # draws go by the place in a part
def test_an_interrupted_run_goes_on(
    llama: LM, easy: Quiz, tmp_path: Path, counted: list[tuple[str, ...]], readout: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions, path = [Condition(), SYSTEM_CONDITION], tmp_path / "answers.jsonl"
    whole = ask(llama, easy, conditions, readout=readout)
    assert len(counted) == 4

    def stopping(*_: Any) -> Any:
        def tell(_: Sequence[Any], __: bool) -> None:
            if len(counted) == 7:
                raise KeyboardInterrupt

        return lambda *_: tell

    monkeypatch.setattr(evaluate, "_teller", stopping)
    with pytest.raises(KeyboardInterrupt):
        abilities(llama, easy, conditions, readout=readout, checkpoint=path)
    kept = path.read_text()
    assert len(kept.splitlines()) == 6
    path.write_text(kept[:-20])  # and the last line was cut off
    counted.clear()
    again = ask(llama, easy, conditions, readout=readout, checkpoint=path)
    assert len(counted) == 2 and again.records() == whole.records()
    counted.clear()
    assert ask(llama, easy, conditions, readout=readout, checkpoint=path).records() == whole.records()
    assert not counted
    for line in path.read_text().splitlines():
        assert line.startswith('{"kind": "softde abilities"')


def test_answers_of_another_condition_are_not_taken(
    llama: LM, easy: Quiz, soft: SoftPrompt, tmp_path: Path, counted: list[tuple[str, ...]]
) -> None:
    path = tmp_path / "answers.jsonl"
    ask(llama, easy, [SYSTEM_CONDITION], checkpoint=path)
    others = [Condition("Another text.", name="system text"), Condition(SYSTEM, prompt=soft, name="system text")]
    for one in others:
        counted.clear()
        ask(llama, easy, [one], checkpoint=path)
        assert len(counted) == 2
    counted.clear()
    ask(llama, easy, [SYSTEM_CONDITION], orders="forward", checkpoint=path)
    ask(LM(make_model(seed=1), make_tokenizer()), easy, [SYSTEM_CONDITION], checkpoint=path)
    assert len(counted) == 4
    assert len(read_checkpoint(path)) == 5


def test_a_file_of_something_else_is_no_checkpoint(llama: LM, easy: Quiz, easy_file: Path, tmp_path: Path) -> None:
    before = easy_file.read_bytes()
    with pytest.raises(ValueError, match="checkpoint: .*CulturalBench-Easy.csv holds no answers to quizzes"):
        ask(llama, easy, checkpoint=easy_file)
    assert easy_file.read_bytes() == before
    with pytest.raises(ValueError, match="checkpoint: the folder .*nowhere does not exist"):
        ask(llama, easy, checkpoint=tmp_path / "nowhere" / "a.jsonl")
    with pytest.raises(ValueError, match=r"checkpoint: expected the name of a \.jsonl file, got the folder"):
        ask(llama, easy, checkpoint=tmp_path)


def test_progress_is_said_on_standard_error(llama: LM, easy: Quiz, capsys: pytest.CaptureFixture[str]) -> None:
    abilities(llama, easy, [Condition(), SYSTEM_CONDITION])
    out, err = capsys.readouterr()
    assert not out
    assert "CulturalBench-Easy, unprompted: 4 of 4 items, 0:00 left\n" in err or "left" in err.splitlines()[0]
    assert err.splitlines()[-1].startswith("CulturalBench-Easy, system text: 4 of 4 items")


# ---- what does not fit -----------------------------------------------------------------------------------------------


def test_items_that_one_condition_has_no_room_for_are_left_out_for_all(counted: list[tuple[str, ...]]) -> None:
    items = [quiz_item(str(n), "why? " * n, ["a", "b"], 0, "s") for n in (1, 2, 20, 200)]
    quiz = make_quiz("lengths", items, ["p", "p", "q", "r"])
    text = "You are from Orn. " * 2
    alone = LM(make_model(), make_tokenizer()).plan(quiz.survey)
    room = 1 + max(q.length for q in alone.questions if q.item < 3)
    lm = LM(make_model(max_position_embeddings=room), make_tokenizer())
    found = ask(lm, quiz, [Condition(), Condition(text)])
    alone, under = found.sheets[0]
    assert list(alone.not_asked) == ["200"] and f"the model reads {room}" in alone.not_asked["200"]
    assert sorted(under.not_asked) == ["20", "200"]
    assert np.isnan(alone.probabilities[3]).all() and np.isfinite(alone.probabilities[:3]).all()
    assert [(row.questions, row.judgements, row.not_asked) for row in found.rows] == [(1, 2, 2)] * 2
    assert "1 question of 2 judgements" in str(found)
    assert "left out since the model cannot be asked them: 2 questions" in found.to_markdown()
    assert all("200" not in call for call in counted)
    assert [r["asked"] for r in found.answers()] == [True, True, True, False, True, True, False, False]
    # what was found not to fit is in the checkpoint as well
    with pytest.raises(ValueError, match="quiz 'long': no question of it can be asked under every condition; item '1'"):
        ask(lm, make_quiz("long", [quiz_item("1", "why? " * 200, ["a", "b"], 0)]))


def test_soft_tokens_take_room_as_well(soft: SoftPrompt) -> None:
    item = quiz_item("1", "why? " * 20, ["a", "b"], 0)
    quiz = make_quiz("one", [item, quiz_item("2", "why?", ["a", "b"], 0)])
    lm = LM(make_model(), make_tokenizer())
    room = lm.plan(quiz.survey).longest + 2
    lm = LM(make_model(max_position_embeddings=room), make_tokenizer())
    found = ask(lm, quiz, [Condition(), soft])
    assert not found.sheets[0][0].not_asked
    assert list(found.sheets[0][1].not_asked) == ["1"]
    assert f"tokens and the prompt 3, but the model reads {room}" in found.sheets[0][1].not_asked["1"]


def test_bad_input_is_refused_before_anything_is_asked(
    llama: LM, easy: Quiz, counted: list[tuple[str, ...]], tmp_path: Path
) -> None:
    wide = SoftPrompt(torch.zeros(2, llama.hidden_size + 1))
    cases: list[tuple[Any, Any, dict[str, Any], str]] = [
        (easy, [Condition(), wide], {}, "the prompt is 33 numbers wide"),
        (easy, [Condition(), Condition(adapter=tmp_path)], {}, "adapter"),
        (easy, "unprompted", {}, "conditions: expected Condition, got 'unprompted'"),
        ("easy.csv", [], {}, "quizzes: expected Quiz, got 'easy.csv'; softde.abilities.load_quiz reads one"),
        ([], [], {}, "quizzes: expected one or more, got none"),
        ([easy, easy], [], {}, "quizzes: two are named 'CulturalBench-Easy'"),
        (easy, [], {"orders": "backwards"}, "orders: expected one of .*, got 'backwards'"),
        (easy, [], {"readout": Argmax}, "readout: expected a read-out, got the class Argmax"),
        (easy, [], {"confidence": 95}, "confidence: expected a number between 0 and 1, got 95"),
    ]
    for quizzes, conditions, settings, message in cases:
        with pytest.raises(ValueError, match=message):
            ask(llama, quizzes, conditions, **settings)
    assert not counted


def test_checkpoint_lines_are_plain_json(llama: LM, easy: Quiz, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    found = ask(llama, easy, checkpoint=path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["item"] for line in lines} == set(easy.survey.item_ids)
    assert sum(line["tokens"] for line in lines) == found.rows[0].forward_tokens > 0
    assert {line["quiz"] for line in lines} == {"CulturalBench-Easy"}
