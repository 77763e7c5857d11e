"""Stage 1: what is asked for, what is kept, and that a file made with interruptions is the same."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from softde.baselines.culture_spa import LMWriter, Question, Written, generate, load_questions
from softde.baselines.culture_spa.prompts import parsed, task
from softde.baselines.culture_spa.writing import Drawn
from softde.lm import LM
from softde.lm.template import render, token_ids
from softde.readouts import stop_ids, stream

SEEDS = tuple(Question(f"s{i}", f"Seed {i} on {t}?", ("yes", "no"), t) for t in ("Tea", "Coffee") for i in range(4))


@dataclass
class Recorded:
    """Writes what a function makes of a task's topic and key, and remembers what it was asked."""

    text: Callable[[str, int], str]
    stop_after: int | None = None
    asked: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        return {"model": "recorded"}

    def write(self, tasks: Sequence[tuple[str, str]], keys: Sequence[tuple[int, ...]]) -> Written:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += [(user, key) for (_, user), key in zip(tasks, keys, strict=True)]
        texts = tuple(self.text(topic_of(user), key[-2]) for (_, user), key in zip(tasks, keys, strict=True))
        return Written(texts, 10 * len(tasks))


def topic_of(user: str) -> str:
    return "Tea" if "topic: Tea" in user else "Coffee"


def json_of(topic: str, number: int) -> str:
    """Of every five texts one is no JSON, one repeats the last and one has bare numbers."""
    if number % 5 == 1:
        return f"I would ask about {topic}."
    number -= number % 5 == 2
    options = ["1", "2"] if number % 5 == 3 else ["1. often", "2. never"]
    return "Sure:\n" + json.dumps({"Question:": f"How often {topic} {number}?", "Options": options})


def plain(question: str) -> str:
    return json.dumps({"question": question, "options": ["a", "b"]})


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_texts_become_questions_and_the_others_are_counted(tmp_path: Path) -> None:
    made = generate(Recorded(json_of), SEEDS, tmp_path / "q.jsonl", n=6, progress=False)
    # of texts 0 … 9 of a topic: 1 and 6 are no JSON, 3 and 8 have bare numbers; 2 and 7 stand for 1 and 6
    assert [q.id for q in made.questions] == [f"{t}.{i}" for t in (1, 2) for i in (0, 2, 4, 5, 7, 9)]
    assert made.questions[0] == Question("1.0", "How often Tea 0?", ("often", "never"), "Tea")
    assert made.dropped == {"no question in JSON": 4, "numbers without words for them": 4}
    assert made.forward_tokens == 10 * 20
    assert load_questions(tmp_path / "q.jsonl").kept == tuple(
        q for pair in zip(made.questions[:6], made.questions[6:], strict=True) for q in pair
    )


def test_repeated_questions_are_left_out_over_topics_too(tmp_path: Path) -> None:
    same = Recorded(lambda topic, number: plain(f"Same {number // 2}?"))
    made = generate(same, SEEDS, tmp_path / "q.jsonl", n=2, progress=False)
    assert made.dropped["asked before"] == len(same.asked) - 4
    assert len({q.key for q in made.questions}) == 4


def test_examples_are_three_seeds_and_two_written_before_in_random_order(tmp_path: Path) -> None:
    writer = Recorded(lambda topic, number: plain(f"{topic} {number}?"))
    generate(writer, SEEDS, tmp_path / "q.jsonl", n=12, progress=False)
    places = []
    for user, key in writer.asked:
        topic, number = topic_of(user), key[-2]
        shown = [line[2:] for line in user.splitlines() if line.startswith("- ")]
        before = [line for line in shown if not line.startswith("Seed")]
        assert len(before) == min(number, 2)
        assert len(set(shown)) == len(shown) == min(5, 4 + len(before))
        assert all(topic in line for line in shown)
        assert all(int(line.split()[1][:-1]) < number for line in before)
        places += [shown.index(line) for line in before]
    assert set(places) == {0, 1, 2, 3, 4}


def test_a_file_made_with_interruptions_is_the_same_and_grows_when_more_are_wanted(tmp_path: Path) -> None:
    whole = generate(Recorded(json_of), SEEDS, tmp_path / "whole.jsonl", n=8, at_once=2, progress=False)
    path = tmp_path / "parts.jsonl"
    for stop in (0, 5, 9):
        with pytest.raises(KeyboardInterrupt):
            generate(Recorded(json_of, stop), SEEDS, path, n=8, at_once=2, progress=False)
        with path.open("a") as file:
            file.write('{"topic": "Tea", "text_nu')
    again = Recorded(json_of)
    assert generate(again, SEEDS, path, n=8, at_once=2, progress=False) == whole
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len(again.asked) < 20
    nothing = Recorded(json_of)
    assert generate(nothing, SEEDS, path, n=8, at_once=2, progress=False) == whole
    assert not nothing.asked
    assert len(generate(Recorded(json_of), SEEDS, path, n=10, at_once=2, progress=False).questions) == 20
    for changed in ({"seed": 1}, {"seeds": SEEDS[:6]}, {"at_once": 1}):
        given = {"seeds": SEEDS, "at_once": 2, **changed}
        with pytest.raises(ValueError, match="made with other settings"):
            generate(Recorded(json_of), out=path, n=8, progress=False, **given)  # type: ignore[arg-type]


def test_what_cannot_be_done_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "q.jsonl"
    with pytest.raises(ValueError, match=r"wrote no question in 40 texts, such as 'no'; take a model"):
        generate(Recorded(lambda *_: "no"), SEEDS, out, n=5, progress=False)
    assert len(rows(out)) == 1 + 40 + 20  # nothing that was written is lost
    with pytest.raises(ValueError, match=r"seeds: expected questions with a topic each, got none of 'x'"):
        generate(Recorded(json_of), [Question("x", "X?", ("a", "b"))], out)
    with pytest.raises(ValueError, match=r"expected the name of a \.jsonl file"):
        generate(Recorded(json_of), SEEDS, tmp_path / "q.json")
    with pytest.raises(ValueError, match="there is no folder"):
        generate(Recorded(json_of), SEEDS, tmp_path / "no" / "q.jsonl")
    once = Recorded(lambda topic, number: plain(f"{topic}?"))
    with caplog.at_level(logging.WARNING):
        generate(once, SEEDS, tmp_path / "few.jsonl", n=2, progress=False)
    assert caplog.messages == [f"topic {t!r} has 1 of 2 questions after 46 texts" for t in ("Tea", "Coffee")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"question": "A?", "options": ["x", 2]}', ("A?", ("x", "2"))),
        ('```json\n{"Question:": " A? ", "Options": ["x"]}\n```', ("A?", ("x",))),
        ('{x} {"QUESTION": "A?", "OPTIONS": []} more', ("A?", ())),
        ('{"question": "A?", "options": "x"}', None),
        ('{"question": "A?", "options": [["x"]]}', None),
        ('{"question": 3, "options": ["x"]}', None),
        ('{"question": "A?", "options": ["x"', None),
        ("no", None),
        ("", None),
    ],
)
def test_json_in_a_written_text(text: str, found: object) -> None:
    assert parsed(text) == found


# -- a model that writes -----------------------------------------------------------------------------------------------


def test_tokens_are_drawn_as_transformers_filters_them() -> None:
    scores = torch.randn(1, 12, generator=torch.Generator().manual_seed(0)) * 2
    filtered = TopPLogitsWarper(0.9)(torch.zeros(1, 1), TemperatureLogitsWarper(0.7)(torch.zeros(1, 1), scores))
    expected = filtered.double().softmax(-1)[0].numpy()
    draws = torch.from_numpy((np.arange(10_000) + 0.5) / 10_000)[:, None]
    drawn = Drawn(draws, prompt=3, temperature=0.7, top_p=0.9)(torch.zeros(10_000, 3), scores.expand(10_000, -1))
    shares = np.bincount(drawn.argmax(-1).numpy(), minlength=12) / 10_000
    np.testing.assert_allclose(shares, expected, atol=2e-4)
    assert (expected == 0).any()
    assert (drawn.isfinite().sum(-1) == 1).all()


def test_texts_are_their_own_whoever_else_is_in_the_batch_and_the_model_stays(llama: LM) -> None:
    before = {name: value.clone() for name, value in llama.model.state_dict().items()}
    config = llama.model.generation_config.to_dict()
    tasks = [task("Tea", SEEDS[:1]), task("Coffee", SEEDS), task("Tea", SEEDS[:3])]
    writer = LMWriter(llama, max_new_tokens=6)
    keys = [(0, i) for i in range(3)]
    together = writer.write(tasks, keys)
    alone = [writer.write([one], [key]) for one, key in zip(tasks, keys, strict=True)]
    assert list(together.texts) == [one.texts[0] for one in alone] == list(slow(llama, tasks, keys, 6))
    assert writer.write(tasks, [(1, i) for i in range(3)]).texts != together.texts
    longest = max(len(token_ids(llama.tokenizer, "".join(render(llama.tokenizer, u, s)))) for s, u in tasks)
    assert together.tokens == 3 * (longest + 5)
    after = llama.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert llama.model.generation_config.to_dict() == config


def slow(lm: LM, tasks: Sequence[tuple[str, str]], keys: Sequence[tuple[int, ...]], steps: int) -> list[str]:
    """One text after another, without a cache: the whole sequence goes through the model for every token."""
    texts = []
    for (system, user), key in zip(tasks, keys, strict=True):
        ids = token_ids(lm.tokenizer, "".join(render(lm.tokenizer, user, system)))
        start, draws = len(ids), stream(key).random(steps)
        for draw in draws:
            with torch.no_grad():
                p, order = (
                    (lm.model(torch.tensor([ids])).logits[0, -1].double() / 0.9).softmax(-1).sort(descending=True)
                )
            kept, total = [], 0.0
            for value in p.tolist():
                if total >= 0.95:
                    break
                kept.append(value)
                total += value
            ids.append(int(order[int(np.searchsorted(np.cumsum(kept), draw * sum(kept), side="right"))]))
            if ids[-1] in stop_ids(lm):
                break
        texts.append(lm.tokenizer.decode(ids[start:], skip_special_tokens=True).strip())
    return texts


def test_a_random_model_writes_no_json_and_nothing_is_lost(llama: LM, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the model wrote no question in 42 texts"):
        generate(LMWriter(llama, max_new_tokens=2), SEEDS, tmp_path / "q.jsonl", n=3, at_once=3, progress=False)
    header = rows(tmp_path / "q.jsonl")[0]
    assert (header["temperature"], header["top_p"], header["model"]) == (0.9, 0.95, llama.name)


def test_wrong_settings_of_a_writer(llama: LM) -> None:
    for wrong in ({"temperature": 0}, {"top_p": 1.5}, {"max_new_tokens": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LMWriter(llama, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"5000 are to be written, but the model reads 2048; take a smaller"):
        LMWriter(llama, max_new_tokens=5000).write([task("Tea", SEEDS)], [(0,)])
