"""Which questions are kept: by hand, and of the 13,000 of Llama-3-8B-Instruct, beside CultureSPA's own counts."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from softde.baselines.culture_spa import TOPICS, Question, load_questions, load_seeds, seeds_of, sift, wvs_topic
from softde.baselines.culture_spa.questions import BARE, BLANK, FEW, SAME, TWICE, as_survey, digest, unnumbered
from softde.surveys import load_survey

YES = ("yes", "no")


def question(text: str, *options: str, name: str = "q") -> Question:
    return Question(name, text, options or YES)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("1. Never", "2. Always"), ("Never", "Always")),
        (("1 - Never", "2", "3 - Always"), ("Never", "2", "Always")),
        (("1) Never", "(2) Always"), ("Never", "Always")),
        (("1: Never", "2 – Always"), ("Never", "Always")),
        (("1 (Never)", "2 (Always)"), ("Never", "Always")),
        (("1-2 times", "3-4 times"), ("1-2 times", "3-4 times")),
        (("Less than 5%", "5-10%", "1.5 or more"), ("Less than 5%", "5-10%", "1.5 or more")),
        (("0", "1", "10"), ("0", "1", "10")),
    ],
)
def test_numbers_before_options_go(given: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert unnumbered(question("?", *given)).options == expected


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (question("IS tea\ngood"), TWICE),
        (question("Is coffee good?", "yes"), FEW),
        (question("Is coffee good?", "yes", "no", " yes"), SAME),
        (question("Is coffee good?", "1. yes", "2. no", "3. yes"), SAME),
        (question("Is coffee good?", "yes", " "), BLANK),
        (question(" "), BLANK),
        (question("How good is coffee?", "1", "2", "3"), BARE),
        (question("How good is coffee, where 3 means very good?", "1", "2", "3"), ""),
        (question("On a scale from 1 to 3, how good is coffee?", "1", "2", "3"), ""),
        (question("How good is coffee, with 0 being bad?", "0", "1", "2"), ""),
        (question("How good is coffee, from 1 (bad) to 3 (good)?", "1", "2", "3"), ""),
        (question("Is coffee good?"), ""),
    ],
)
def test_why_a_question_is_left_out(asked: Question, why: str) -> None:
    found = sift([asked], seeds=[question("Is tea good?")])
    assert dict(found.dropped) == ({"q": why} if why else {})
    assert len(found.kept) == (not why)


def test_the_first_of_two_stays_and_a_count_says_so() -> None:
    found = sift([question("A?", name="1"), question("B?", name="2"), question("a", name="3")])
    assert [q.id for q in found.kept] == ["1", "2"]
    assert str(found) == "2 of 3 questions kept (1 asked before)"
    assert digest(found.kept) == digest(sift(found.kept).kept) != digest(found.kept[::-1])


def test_seeds_have_topics_of_their_own_or_given_or_by_number() -> None:
    assert [wvs_topic(name) for name in ("Q1", "Q45", "Q46", "Q259", "Q234A", "Q260", "x")] == [
        "Social Values, Attitudes & Stereotypes", "Social Values, Attitudes & Stereotypes", "Happiness and Well-being",
        "Political Culture & Political Regimes", "Political Interest & Political Participation", "", "",
    ]  # fmt: skip
    survey = load_survey("vsm13")
    assert {seed.topic for seed in seeds_of(survey, dict.fromkeys(survey.item_ids, "Security"))} == {"Security"}
    assert seeds_of(survey)[0].text == survey.items[0].text
    with pytest.raises(ValueError, match=r"items Q260 have no topic; give topics="):
        seeds_of(as_survey([question("Are you old?", name="Q260")]))


# -- the real questions ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def records(folder: Path) -> list[dict[str, Any]]:
    """All 13,000, as the files have them."""
    files = [folder / f"generated_questions_topic_{topic}_from_all_seed.json.gz" for topic in range(13)]
    return [row for file in files for row in json.loads(gzip.decompress(file.read_bytes()))]


@pytest.fixture(scope="module")
def data(shared_data: Path) -> Path:
    folder = shared_data / "culturespa"
    if not (folder / "generated-questions").is_dir():
        pytest.skip(f"no generated questions at {folder}")
    return folder


def test_counts_of_the_real_questions_and_every_difference_from_theirs(data: Path) -> None:
    found = load_questions(data / "generated-questions", load_seeds(data / "wvs_questions.json"))
    rows = records(data / "generated-questions")
    assert len(rows) == 13_000 == len(found.kept) + len(found.dropped)
    assert found.kept[0].id == "Q0"
    assert found.kept[-1].id == "Q12999"  # numbered through, as their merged file is
    assert Counter(found.dropped.values()) == {TWICE: 112, SAME: 43, BARE: 30}
    assert len(found.kept) == 12_815

    # Theirs: the same text before, 109; bare numbers without one of four phrases, 31.
    seen = {row["question"] for row in json.loads((data / "wvs_questions.json").read_text())}
    twice, bare = set[str](), set[str]()
    for number, row in enumerate(rows):
        phrases = ("on a scale", "with 1 being", "where 1 means", "which 1 means")
        if row["question"] in seen:
            twice.add(f"Q{number}")
        elif "".join(row["option_lst"]).isdigit() and not any(p in row["question"].lower() for p in phrases):
            bare.add(f"Q{number}")
        seen.add(row["question"])
    assert len(rows) - len(twice) == 12_891
    assert len(rows) - len(twice) - len(bare) == 12_860

    ours = {why: {q for q, reason in found.dropped.items() if reason == why} for why in (TWICE, BARE, SAME)}
    texts = {f"Q{number}": row["question"] for number, row in enumerate(rows)}
    assert twice < ours[TWICE]
    letters = [re.sub(r"\W", "", texts[q]).lower() for q in texts]
    for name in ours[TWICE] - twice:  # three that differ in case or punctuation alone
        assert letters.index(re.sub(r"\W", "", texts[name]).lower()) < int(name[1:])
    assert ours[BARE] < bare
    (kept,) = bare - ours[BARE]  # one whose scale begins at 0
    assert "with 0 being" in texts[kept]
    for name in ours[SAME]:
        options = [re.sub(r"^\d+( -|\.)? ", "", option).strip("()") for option in rows[int(name[1:])]["option_lst"]]
        assert len(set(options)) < len(options)


def test_topics_by_number_are_those_their_prompts_took_examples_from(data: Path) -> None:
    topics = {seed.text: seed.topic for seed in load_seeds(data / "wvs_questions.json")}
    named = [
        (topics[text], row["class"])
        for row in records(data / "generated-questions")
        for text in re.findall(r"Question: (.*)\nOptions", row["prompt"])
        if text in topics
    ]
    assert len(named) == 39_039  # three or more of 13,000 prompts' five
    assert all(ours == theirs for ours, theirs in named)
    assert list(dict.fromkeys(row["class"] for row in records(data / "generated-questions"))) == list(TOPICS)
