"""What written answers are read as."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from softde.surveys import Item, Option, options
from softde.surveys.parsing import find_option, is_refusal

BOSS = Item("a", "?", options(["very important", "important", "undecided", "of little importance", "not important"]))
OFTEN = Item("b", "?", options(["always", "usually", "sometimes", "seldom", "never"]))
YES = Item("c", "?", options(["no", "yes"], [0, 1]))
AGREE = Item("d", "?", options(["I don't know", "not at all", "a great deal/a lot", "U.S.A."]))
COLOURS = {"A": "red", "B": "green", "C": "blue", "I": "pink"}
LETTERS = SimpleNamespace(options=tuple(Option(label, text, 0) for label, text in COLOURS.items()))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("3", 3), ("3.", 3), (" (3) ", 3), ("**3**", 3), ("３", 3), ("3 = undecided", 3), ("3: undecided", 3),
        ("Answer: 3", 3), ("I'd say 3.", 3), ("The answer is 3", 3), ("#3", 3), ("3, definitely 3.", 3),
        ("3/5", 3), ("3 out of 5", 3), ("a 2 of 5", 2), ("5", 5), ("three", 3), ("Three.", 3), ("My answer is two", 2),
        ("very important", 1), ("Very Important!", 1), ("It is important to me.", 2), ("It's not important.", 5),
        ("“Undecided”", 3), ("of little\timportance", 4), ("I'm sorry, but if I had to: 4", 4),
        ("As an AI language model I have no opinion, but I'd pick 2.", 2), ("2\n\nQuestion: what next?", 2),
        ("Sure.\n4", 4), ("1. Very important", 1), ("1 - very important", 1),
    ],
)  # fmt: skip
def test_an_option_is_found(text: str, label: int) -> None:
    assert find_option(text, BOSS) == label - 1


@pytest.mark.parametrize(
    "text",
    [
        "", " \n ", "...", "1 or 2", "2-3", "1, 2", "6", "0", "13", "3.5", "30%", "1990", "$3", "2nd",
        "As an AI language model I cannot", "I cannot choose between 1 and 5.", "hello", "unimportant",
        "1 = undecided", "3 (very important)", "between important and undecided", "It is not very important.",
        "This isn't important", "no more than undecided", "1 = very important\n2 = important\n3 =", "3\n4\n5",
        "one should think so",
    ],
)  # fmt: skip
def test_no_option_is_found(text: str) -> None:
    assert find_option(text, BOSS) is None


@pytest.mark.parametrize(
    ("text", "item", "found"),
    [
        ("No.", YES, 0), ("yes", YES, 1), ("No, I am not proud", YES, 0), ("yes and no", YES, None),
        ("I have no idea", YES, None), ("no opinion", YES, None), ("Nobody knows", YES, None),
        ("Never!", OFTEN, 4), ("sometimes or seldom", OFTEN, None), ("I sometimes am.", OFTEN, 2),
        ("not at all", AGREE, 1), ("A great deal/a lot", AGREE, 2), ("U.S.A.", AGREE, 3),
    ],
)  # fmt: skip
def test_texts_of_other_scales(text: str, item: Item, found: int | None) -> None:
    assert find_option(text, item) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("B", 1), ("b", 1), ("(B)", 1), ("B) green", 1), ("B: green", 1), ("Answer: B", 1), ("I'd say B.", 1),
        ("Option C, since", None), ("Option C.", 2), ("A boss is fine", None), ("I would choose A", 0),
        ("A) blue", None), ("green", 1), ("A or B", None),
    ],
)  # fmt: skip
def test_labels_that_are_letters(text: str, found: int | None) -> None:
    assert find_option(text, LETTERS) == found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("As an AI language model I cannot", True), ("As a large language model, I", True), ("I'm just an AI", True),
        ("I’m sorry, but", True), ("Sorry.", True), ("I can't answer that.", True), ("I am unable to", True),
        ("I don't have personal opinions", True), ("I do not know", True), ("I'd rather not say", True),
        ("I decline to answer", True), ("I have no opinion", True), ("I will not", True), ("I apologize", True),
        ("3", False), ("", False), ("It is important", False), ("hello there", False), ("I can say 3", False),
        ("I know", False), ("As a manager I care", False), ("as an airline pilot", False),
    ],
)  # fmt: skip
def test_refusals(text: str, refuses: bool) -> None:
    assert is_refusal(text) == refuses
