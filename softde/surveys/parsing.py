"""What a written answer says: an option, a refusal, or neither. Strict: where two options are named, there is none."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from softde.surveys.survey import Item

NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
LEAD = r"(?:(?:my|the|your)\s+)?(?:answer|option|choice|response|number)(?:\s+is)?"
REFUSAL = re.compile(
    r"""
    \bas\s+an?\s+(?:\w+\s+)?(?:ai|artificial\s+intelligence|(?:large\s+)?language\s+model|chat\s?bot|assistant)\b
        (?:\s+language\s+model|\s+assistant|\s+model)?
    | \bi(?:'m|\s+am)\s+(?:just\s+|only\s+)?an?\s+(?:ai|(?:large\s+)?language\s+model|chat\s?bot|virtual\s+assistant)\b
        (?:\s+language\s+model|\s+assistant|\s+model)?
    | \bi(?:'m|\s+am)\s+(?:very\s+|so\s+)?sorry\b | ^\W*sorry\b | \bi\s+apologi[sz]e\b | \bmy\s+apologies\b
    | \bi\s+(?:cannot|can\s*not|can't|could\s+not|couldn't|won't|will\s+not|would\s+rather\s+not|prefer\s+not\s+to)\b
    | \bi(?:'m|\s+am)\s+(?:not\s+able|unable|not\s+comfortable|not\s+allowed)\b | \b(?:i\s+)?decline\s+to\b
    | \bi\s+(?:do\s+not|don't)\s+(?:know|have\s+(?:an?\s+|any\s+)?(?:personal\s+|own\s+)*
        (?:opinions?|feelings?|preferences?|beliefs?|experiences?|emotions?|idea|views?|values))\b
    | \b(?:prefer|rather)\s+not\s+(?:to\s+)?(?:say|answer)\b
    | \bno\s+(?:idea|opinion|comment|preference|answer)\b
    """,
    re.VERBOSE,
)
NEGATION = re.compile(r"\b(?:not|no|never|neither|nor|hardly|cannot|without|than)\b|n't\b")


def find_option(text: str, item: Item) -> int | None:
    """The number (from 0) of the option that a text names, or None if it names none or several.

    Read from the first line that names an option: its label as a number of its own ("3", "(3).", "I'd say 3", "3/5") or
    in words if that is all ("three"), and its text ("very important"), of overlapping texts the longest. A label beside
    the text of another option, a negated text ("not very important" where that is no option), or lines that go on to
    list other options name nothing. Phrases of refusal are skipped.
    """
    lines = [line for line in _plain(text).split("\n") if line.strip()]
    for number, line in enumerate(lines):
        named = set(_named(line, item))
        if named:
            following = set(_labels(lines[number + 1], item)) if number + 1 < len(lines) else set()
            return named.pop() if len(named) == 1 and following <= named else None
    return None


def is_refusal(text: str) -> bool:
    """Does a text say that its writer cannot, will not or does not know what to answer?"""
    return bool(REFUSAL.search(_plain(text)))


def _plain(text: str) -> str:
    """One way of writing: NFKC, straight apostrophes, lower case, no markup."""
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'").casefold()
    return re.sub(r"[*_`\"\u201c\u201d]+", " ", text)


def _named(line: str, item: Item) -> Iterator[int]:
    """Options that a line names, by label or text."""
    line = REFUSAL.sub(" ; ", line)
    yield from _labels(line, item)
    yield from _texts(line, item)


def _labels(line: str, item: Item) -> Iterator[int]:
    count = len(item.options)
    line = re.sub(rf"(?:\s*/\s*|\s+(?:out\s+)?of\s+){count}\b", " ", line)  # "3 out of 5"
    alone = re.sub(rf"^\W*(?:{LEAD})?\W*|\W*$", "", line)
    for i, option in enumerate(item.options):
        label = re.escape(option.label.casefold())
        if option.label.isdecimal():
            if re.search(rf"(?<![\w.,$]){label}(?![\w%]|[.,]\d)", line) or alone == _word(option.label):
                yield i
        elif alone == option.label.casefold() or re.search(
            rf"(?:\b(?:{LEAD}|say|choose|pick|select)\W+|^\W*){label}(?=\s*(?:[).:=]|$))", line
        ):
            yield i


def _word(label: str) -> str | None:
    """A number as it is spelt."""
    return NUMBER_WORDS[int(label) - 1] if 1 <= int(label) <= len(NUMBER_WORDS) else None


def _texts(line: str, item: Item) -> Iterator[int]:
    """Options whose text stands in a line, not inside a longer one's and not negated."""
    taken: list[tuple[int, int]] = []
    for i, option in sorted(enumerate(item.options), key=lambda pair: -len(pair[1].text)):
        words = re.sub(r"\\?\s+", r"\\s+", re.escape(_plain(option.text).strip().rstrip(".")))
        for found in re.finditer(rf"(?<!\w){words}(?!\w)", line):
            start, end = found.span()
            if any(start < stop and begin < end for begin, stop in taken):
                continue
            taken.append((start, end))
            clause = re.split(r"[.,;:!?=\-]", line[:start])[-1]
            if not NEGATION.search(" ".join(clause.split()[-3:])):
                yield i
