"""The generated-text check: agreement counted by hand from the model's own first-token answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from softde.abilities import Written, written
from softde.administer import administer
from softde.condition import Condition, Panel
from softde.lm import LM
from softde.readouts import NONE, Argmax, Expected, Generated, Sampled
from softde.surveys import Item, Survey, load_survey
from softde.surveys.targets import only_items


@pytest.fixture(scope="module")
def tiny() -> LM:
    return LM.from_pretrained("tiny")


@pytest.fixture(scope="module")
def vsm13() -> Survey:
    return load_survey("vsm13")


PERSONA = Condition("You are a typical person from Japan.")
ONE_TOKEN = Generated(max_new_tokens=1)  # tiny writes its label on and on


def test_one_token_of_tiny_is_its_first_token(tiny: LM, vsm13: Survey) -> None:
    found = written(tiny, vsm13, PERSONA, orders="forward", readout=ONE_TOKEN)
    assert found.agreeing == vsm13.item_ids and not found.differing + found.unparsable + found.refused
    labels = administer(vsm13, tiny, PERSONA, "forward", readout=Argmax())
    assert found.labels.answers is not None
    np.testing.assert_array_equal(found.labels.answers, labels.answers)
    np.testing.assert_array_equal(found.scores, [labels.scores()] * 2)
    assert found.verdict() == (
        "Under 'system text' the text names the option that the first token does in 24 of 24 items (24 of 24 "
        "questions); in 0 items a text names no option and in 0 one refuses; factor scores are at most 0.0 apart (PDI)."
    )
    assert "questions that differ" not in str(found)
    assert ["factor", "first", "token", "text"] in [line.split() for line in str(found).splitlines()]


def reading(parser: Callable[[str, Item], int | None]) -> Generated:
    return Generated(max_new_tokens=1, parser=parser)


def test_texts_that_say_something_else_are_counted_and_shown(tiny: LM, mini: Survey) -> None:
    """A parser that always reads the second option shown, and nothing at all for one item."""
    found = written(tiny, mini, PERSONA, readout=reading(lambda _, item: None if item.id == "proud" else 1))
    assert found.labels.answers is not None
    forward, backward = found.labels.answers
    last = np.array([len(item.options) - 1 for item in mini.items])
    same = np.array([forward == 1, backward == last - 1])  # the second shown is the last but one when reversed
    same[:, mini.item_ids.index("proud")] = False
    np.testing.assert_array_equal(found.same, same)
    assert found.agreeing == tuple(i for i, good in zip(mini.item_ids, same.all(axis=0), strict=True) if good)
    assert set(found.differing) == set(mini.item_ids) - set(found.agreeing)
    assert found.unparsable == ("proud",)
    assert f"in {len(found.agreeing)} of 4 items ({same.sum()} of 8 questions)" in found.verdict()
    # BOS is 35 boss − 25 time + 20 nerves + 50, each the mean of the second and the last but one value, by either order
    middle = {"boss": (2 + 4) / 2, "time": (2 + 4) / 2, "nerves": 2}
    by_label, by_text = found.scores
    assert by_text[0] == pytest.approx(50 + 35 * middle["boss"] - 25 * middle["time"] + 20 * middle["nerves"])
    assert np.isnan(by_text[1]) and np.isfinite(by_label).all()  # CAL needs the item without an answer
    apart = abs(by_text[0] - by_label[0])
    assert f"at most {apart:.1f} apart (BOS), and 1 cannot be told from the texts" in found.verdict()
    lines = str(found).splitlines()
    start = lines.index("questions that differ, options numbered in the item's own order:")
    assert len(lines) - start - 1 == (~same).sum()
    assert any(
        line.startswith("  proud, reversed: first token option ") and line.endswith(": no option") for line in lines
    )


def test_records_number_options_in_the_items_own_order(tiny: LM, vsm13: Survey) -> None:
    records = written(tiny, only_items(vsm13, vsm13.item_ids[:3]), PERSONA, readout=ONE_TOKEN).records()
    assert [(r["item"], r["order"]) for r in records[:4]] == [
        ("m01", "forward"), ("m01", "reversed"), ("m02", "forward"), ("m02", "reversed"),
    ]  # fmt: skip
    for r in records:
        shown = int(r["text"])  # of five options
        assert int(r["read"]) == (shown if r["order"] == "forward" else 6 - shown)
        assert r["same"] and r["first_token"] == r["read"] and r["wording"] == 0


def test_wordings_are_told_apart(tiny: LM, mini: Survey) -> None:
    items = (replace(mini.items[0], phrasings=("Is a respectable boss important?",)), *mini.items[1:])
    records = written(tiny, replace(mini, items=items), PERSONA, readout=ONE_TOKEN).records()
    ways = [(r["order"], r["wording"]) for r in records if r["item"] == "boss"]
    assert ways == [("forward", 0), ("reversed", 0), ("forward", 1), ("reversed", 1)]


def test_refusals_are_counted_apart(tiny: LM, mini: Survey) -> None:
    found = written(tiny, mini, PERSONA, orders="forward", readout=reading(lambda text, item: min(int(text), 2) - 1))
    texts = found.texts
    assert texts.answers is not None and texts.texts is not None and found.labels.answers is not None
    answers, refused = found.labels.answers.copy(), np.zeros(4)
    answers[0, 2], refused[2] = NONE, 1.0
    said = (tuple("I cannot say." if i == 2 else t for i, t in enumerate(texts.texts[0])),)
    other = Written(found.model, found.labels, replace(texts, answers=answers, refused=refused, texts=said))
    assert other.refused == other.differing == ("nerves",) and not other.unparsable
    assert (
        "in 3 of 4 items (3 of 4 questions); in 0 items a text names no option and in 1 one refuses" in other.verdict()
    )
    assert "nerves, forward: first token option" in str(other) and "text 'I cannot say.': no option" in str(other)


def test_a_text_that_goes_on_is_read_by_the_shipped_parser(tiny: LM, mini: Survey) -> None:
    assert written(tiny, mini, PERSONA, readout=ONE_TOKEN).unparsable == ("proud",)  # "3" of two options
    found = written(tiny, mini, PERSONA)  # "22222222" is no label
    assert found.unparsable == mini.item_ids and not found.agreeing
    assert found.verdict().endswith("no factor score can be told from the texts.")


def test_bad_input(tiny: LM, mini: Survey) -> None:
    with pytest.raises(
        ValueError, match="condition: expected one condition, got the panel 'two' of 2; check its members"
    ):
        written(tiny, mini, Panel((PERSONA, Condition("You are old.")), "two"))
    for readout in (Generated(n=2, temperature=1.0), Generated(constrained=True), Sampled(), Expected()):
        with pytest.raises(ValueError, match=r"readout: expected softde.Generated\(\) with n=1 and free text, got "):
            written(tiny, mini, PERSONA, readout=readout)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="orders: expected one of"):
        written(tiny, mini, PERSONA, orders="up")
