"""chrF++ against sacrebleu, pair by pair, and against one pair by hand."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softde.baselines import chrf

sacrebleu = pytest.importorskip("sacrebleu", reason="sacrebleu is not installed")
TEXTS = [
    *("", " ", "a", "a a", "ab", "(hi)", "!!", "“quoted” ?", "How happy are you?", "How happy are you all in all?"),
    *(
        "  HOW   happy\nare you?  ",
        "aaaaaaaaaa",
        "aaaa aaaa",
        "你好，世界",
        "你们好，世界！",
        "مرحبا بالعالم!",
        "مرحبًا يا عالم",
    ),
]


def slow(hypothesis: str, reference: str, char_order: int = 6, word_order: int = 2, beta: int = 2) -> float:
    metric = sacrebleu.metrics.CHRF(char_order=char_order, word_order=word_order, beta=beta)
    return float(metric.sentence_score(hypothesis, [reference]).score)


def test_one_pair_by_hand() -> None:
    # "ab" against "abb": characters a b | a b b, so P1 = 2/2, R1 = 2/3; pairs ab | ab bb, so P2 = 1/1, R2 = 1/2; orders
    # 3 to 6 are in at most one of them; words differ, P7 = R7 = 0; pairs of words are in neither. Means over three
    # orders: P = 2/3, R = (2/3 + 1/2) / 3 = 7/18; 5 P R / (4 P + R) = (5 · 14/54) / (55/18) = 14/33.
    assert chrf(["ab"], ["abb"])[0, 0] == pytest.approx(100 * 14 / 33)


@pytest.mark.parametrize(("char_order", "word_order", "beta"), [(6, 2, 2), (6, 0, 2), (3, 1, 1)])
def test_equals_sacrebleu(char_order: int, word_order: int, beta: int) -> None:
    expected = [[slow(one, other, char_order, word_order, beta) for other in TEXTS] for one in TEXTS]
    np.testing.assert_allclose(chrf(TEXTS, TEXTS, char_order, word_order, beta), expected, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab c.(é", max_size=12), min_size=1, max_size=3), st.text("ab c.(é", max_size=12))
def test_equals_sacrebleu_for_any_text(texts: list[str], other: str) -> None:
    np.testing.assert_allclose(chrf(texts, [other]), [[slow(text, other)] for text in texts], atol=1e-9)


def test_all_pairs_of_a_survey_take_seconds(shared_data: Path) -> None:
    questions = json.loads((shared_data / "culturespa" / "wvs_questions.json").read_text(encoding="utf-8"))
    texts = [question["question"] for question in questions]
    start = time.process_time()
    found = chrf(texts, texts)
    assert time.process_time() - start < 10
    random = np.random.default_rng(0)
    for i, j in random.integers(0, len(texts), (150, 2)):
        assert found[i, j] == pytest.approx(slow(texts[i], texts[j]), abs=1e-9)
    assert chrf(texts, texts) is found  # asked again, by the next region
