"""Small values every survey module shares: a mapping that cannot change, and the nearest known word for a typo."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict that refuses to change, so that frozen dataclasses with one can be hashed, shared and written as JSON."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("this mapping is frozen; build a new one instead")

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = pop = popitem = clear = setdefault = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)

    def __repr__(self) -> str:
        return dict.__repr__(self)


def listed(words: Iterable[str], limit: int = 12) -> str:
    """Words joined by commas, cut off after `limit` with a count of the rest."""
    words = list(words)
    rest = f" and {len(words) - limit} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + rest


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error message: the closest known words, or all of them when none is close."""
    known = list(known)
    close = difflib.get_close_matches(word.casefold(), {k.casefold(): k for k in known}, n=3, cutoff=0.6)
    if close:  # the best first; one that is much less alike would only confuse
        alike = [difflib.SequenceMatcher(None, word.casefold(), k).ratio() for k in close]
        close = [k for k, ratio in zip(close, alike, strict=True) if ratio > alike[0] - 0.15]
        return f"did you mean {' or '.join(repr(k) for k in known if k.casefold() in close)}?"
    return f"known: {listed(known)}" if known else "none are known"
