"""Does a model write what its first token says? The survey asked twice: by the most probable label, and in text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softde.administer import Responses, administer
from softde.checks import shown
from softde.condition import Condition, Panel, as_condition
from softde.lm import LM
from softde.lm.layout import ORDERS
from softde.readouts import NONE, Argmax, Generated
from softde.surveys import Item, Survey

Array = NDArray[np.float64]
WIDTH = 100
SHOWN = 12  # items that are shown


@dataclass(frozen=True, eq=False)
class Written:
    """One condition's answers to a survey by both read-outs, question by question (an item in one order and wording).

    labels : `Responses` of the most probable option label; texts : of what was written and read by the parser.
    """

    model: str
    labels: Responses
    texts: Responses

    @cached_property
    def same(self) -> NDArray[np.bool_]:
        """(questions of an item, items): does the text name the option that the first token does?"""
        assert self.labels.answers is not None and self.texts.answers is not None
        return np.asarray((self.labels.answers == self.texts.answers) & (self.texts.answers != NONE))

    @property
    def agreeing(self) -> tuple[str, ...]:
        """Items whose texts all name what the first token does."""
        return self._items(np.all(self.same, axis=0))

    @property
    def differing(self) -> tuple[str, ...]:
        """Items with a text that names another option, or none."""
        return self._items(~np.all(self.same, axis=0))

    @property
    def unparsable(self) -> tuple[str, ...]:
        """Items with a text that names no option and does not refuse."""
        return self._items(self.texts.invalid > 0)

    @property
    def refused(self) -> tuple[str, ...]:
        """Items with a text that refuses."""
        return self._items(self.texts.refused > 0)

    @property
    def scores(self) -> tuple[Array, Array]:
        """(factors,) by the first token and by text; NaN where an item of the factor has no valid answer."""
        return self.labels.scores(), self.texts.scores()

    def records(self) -> list[dict[str, Any]]:
        """One dict per question: item, order of options, wording, label by first token, text, label read from it."""
        assert self.labels.answers is not None and self.texts.answers is not None and self.texts.texts is not None
        survey, orders = self.labels.survey, self.labels.orders
        return [
            {
                "item": item.id,
                "order": orders[row % len(orders)],
                "wording": row // len(orders) % (1 + len(item.phrasings)),
                "first_token": _label(item, self.labels.answers[row, i]),
                "text": self.texts.texts[row][i],
                "read": _label(item, self.texts.answers[row, i]),
                "same": bool(self.same[row, i]),
            }
            for i, item in enumerate(survey.items)
            for row in range(len(self.same))
        ]

    def verdict(self) -> str:
        """One sentence."""
        items = len(self.labels.survey.items)
        alike = (
            f"the text names the option that the first token does in {len(self.agreeing)} of {items} items "
            f"({int(self.same.sum())} of {self.same.size} questions)"
        )
        silent = f"in {len(self.unparsable)} items a text names no option and in {len(self.refused)} one refuses"
        return f"Under {self.labels.condition.name!r} {alike}; {silent}; {self._moved()}."

    def __str__(self) -> str:
        lines = textwrap.wrap(self.verdict(), WIDTH)
        factors = self.labels.survey.factors
        if factors:
            width = max(len("first token"), *map(len, factors)) + 2
            lines += ["", f"{'factor':<{width}}{'first token':>12}{'text':>12}"]
            lines += [
                f"{f:<{width}}{one:>12.1f}{other:>12.1f}" for f, one, other in zip(factors, *self.scores, strict=True)
            ]
        unlike = [record for record in self.records() if not record["same"]]
        if unlike:
            lines += ["", "questions that differ, options numbered in the item's own order:"]
        lines += [_line(record) for record in unlike[:SHOWN]]
        if len(unlike) > SHOWN:
            lines.append(f"  and {len(unlike) - SHOWN} more")
        return "\n".join(lines)

    def _items(self, flags: Any) -> tuple[str, ...]:
        return tuple(item for item, there in zip(self.labels.survey.item_ids, flags, strict=True) if there)

    def _moved(self) -> str:
        """How far apart the factor scores are."""
        factors = self.labels.survey.factors
        if not factors:
            return "the survey has no factors"
        apart = np.abs(np.subtract(*self.scores))
        unknown = int(np.isnan(apart).sum())
        if unknown == len(factors):
            return "no factor score can be told from the texts"
        at = int(np.nanargmax(apart))
        rest = f", and {unknown} cannot be told from the texts" if unknown else ""
        return f"factor scores are at most {apart[at]:.1f} apart ({factors[at]}){rest}"


def written(
    lm: LM,
    survey: Survey,
    condition: Any = None,
    orders: str = "both",
    readout: Generated = Generated(),  # noqa: B008 (a frozen value)
) -> Written:
    """Ask a survey by the most probable label and in text, and compare.

    Parameters
    ----------
    condition : as in `administer`, but one only, usually the winner of a comparison.
    readout : how the text is written and read: greedy, and softde's parser, unless it says otherwise.

    Raises
    ------
    ValueError
        A panel; a read-out that writes several texts, or labels only; whatever `administer` refuses.
    """
    under = as_condition(condition)
    if isinstance(under, Panel):
        raise ValueError(
            f"condition: expected one condition, got the panel {under.name!r} of {len(under.members)}; check its "
            "members one by one"
        )
    if not isinstance(readout, Generated) or readout.n != 1 or readout.constrained:
        raise ValueError(f"readout: expected softde.Generated() with n=1 and free text, got {shown(readout)}")
    if orders not in ORDERS:
        raise ValueError(f"orders: expected one of {', '.join(ORDERS)}, got {orders!r}")
    one: Condition = under
    labels = administer(survey, lm, one, orders, readout=Argmax())
    return Written(lm.name, labels, administer(survey, lm, one, orders, readout=readout))


def _label(item: Item, number: int) -> str:
    """An option's label in the item's own order, empty for none."""
    return "" if number == NONE else item.options[number].label


def _line(record: Mapping[str, Any]) -> str:
    """A question that differs, on one line."""
    read = f"option {record['read']}" if record["read"] else "no option"
    where = f"{record['item']}, {record['order']}{f', wording {w}' if (w := record['wording']) else ''}"
    text = textwrap.shorten(repr(record["text"]), WIDTH // 2, placeholder=" ...")
    return f"  {where}: first token option {record['first_token']}, text {text}: {read}"
