"""One target: conditions administered to one model, one table, with what trivial answerers lose below it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from softde.administer import administer
from softde.align.beside import askable, checked_target
from softde.checks import check_kinds
from softde.compare.text import WIDTH, aligned, markdown, number
from softde.condition import Condition, Panel, as_condition, members, unique_names
from softde.lm import LM
from softde.lm.adapter import check_adapter
from softde.surveys import Survey, Target, distance, nulls
from softde.surveys.scoring import Array, Norm, by_factor
from softde.surveys.targets import TargetLike, as_target_like, needs_factors, only_items
from softde.surveys.targets import nulls as target_nulls

if TYPE_CHECKING:
    from softde.align import Result
    from softde.prompt import SoftPrompt

COARSE = 10.0  # factors with scores from here up, such as 0 to 100, are shown with one digit, smaller ones with three
LOW_MASS = 0.5  # below it, the model mostly says something else
LOSS_NAMES = {"L1": "sum of absolute errors", "L2": "root of the sum of squared errors"}


@dataclass(frozen=True, eq=False)
class Row:
    """One condition's outcome.

    scores : (factors,), or (0,) for a target of items. option_mass : probability on the options, mean over items.
    held_out : the loss of the items that the target holds out, None without any.
    """

    condition: str
    scores: Array
    loss: float
    option_mass: float
    held_out: float | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Rows of one survey, model and target.

    nulls, held_out_nulls : what answerers who know nothing lose, by the same loss.
    """

    model: str
    survey: str
    target: Target | TargetLike
    rows: tuple[Row, ...]
    nulls: Mapping[str, float]
    norm: str = "L1"
    weights: tuple[float, ...] | None = None
    orders: str = "both"
    held_out_nulls: Mapping[str, float] | None = None

    @property
    def factors(self) -> tuple[str, ...]:
        """Factors with a column: those of published scores."""
        return self.target.factors if isinstance(self.target, Target) else ()

    def records(self) -> list[dict[str, Any]]:
        """One flat dict per line of the table; its kind is "target", "condition" or "null"."""
        shared = {
            "model": self.model,
            "survey": self.survey,
            "region": self.target.region,
            "edition": self.target.edition,
            "norm": self.norm,
            "orders": self.orders,
        }
        blank = dict.fromkeys(self.factors)
        known = self._by_factor(self.target.scores) if isinstance(self.target, Target) else blank
        lines: list[tuple[str, str, Mapping[str, float | None], float, float | None]] = [
            ("target", "target", known, 0.0, None)
        ]
        lines += [("condition", r.condition, self._by_factor(r.scores), r.loss, r.option_mass) for r in self.rows]
        lines += [("null", name, blank, loss, None) for name, loss in self.nulls.items()]
        records = [
            {**shared, "kind": kind, "name": name, "loss": loss, "option_mass": mass, **scores}
            for kind, name, scores, loss, mass in lines
        ]
        if self.held_out_nulls is not None:
            held = [0.0, *(r.held_out for r in self.rows), *self.held_out_nulls.values()]
            return [{**record, "held_out_loss": value} for record, value in zip(records, held, strict=True)]
        return records

    def to_frame(self) -> Any:
        """The records as a pandas DataFrame."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_frame needs pandas: pip install 'softde[viz]'") from None
        return pandas.DataFrame(self.records())

    def to_markdown(self) -> str:
        """The table in Markdown, with its title and nulls."""
        head = ["", *self._heads()]
        lines = [self.title(), "", markdown(head), markdown(["---", *["---:"] * (len(head) - 1)])]
        lines += [markdown([f"*{name}*" if kind == "null" else name, *cells]) for kind, name, cells in self._cells()]
        return "\n".join([*lines, "", self.legend()]) + "\n"

    def __str__(self) -> str:
        rows = [(name, cells) for _, name, cells in self._cells()]
        lines = aligned(self._heads(), rows, [1 + len(self.rows)])
        return "\n".join([textwrap.fill(self.title(), WIDTH), *lines, "", textwrap.fill(self.legend(), WIDTH)])

    def title(self) -> str:
        """What is compared with what."""
        edition = f"edition {self.target.edition}" if isinstance(self.target, Target) else self.target.edition
        return f"{self.target.region}, {edition}: survey {self.survey}, model {self.model}"

    def legend(self) -> str:
        """How to read the numbers."""
        if not isinstance(self.target, Target):
            return self._target_legend(self.target) + self._mass_note()
        weighted = "" if self.weights is None else ", weighted " + ", ".join(f"{w:g}" for w in self.weights)
        constants = ", ".join(f"{c:g}" for c in dict.fromkeys(self.target.constants.values()))
        return (
            f"loss: {LOSS_NAMES.get(self.norm, self.norm)} over the factors{weighted}, lower is better; constants "
            f"{constants}; option mass: probability of the options among all tokens. The last {len(self.nulls)} rows: "
            "what answerers who know nothing lose, and the best that one definite answer per item can reach."
        ) + self._mass_note()

    def _target_legend(self, target: TargetLike) -> str:
        held = "; held out: the same of items that a search does not ask" if self.held_out_nulls is not None else ""
        return (
            f"loss: {target.label()}, over {len(target.terms)} terms, lower is better{held}; option mass: probability "
            f"of the options among all tokens. The last {len(self.nulls)} rows: what answerers who know nothing lose."
        )

    def _mass_note(self) -> str:
        """A warning where a condition keeps the model from answering with an option."""
        low = [row.condition for row in self.rows if not row.option_mass >= LOW_MASS]
        if not low:
            return ""
        return (
            f" Careful: under {', '.join(low)} the options hold less than {LOW_MASS:.0%} of the probability, so the "
            "scores say little about what the model would write."
        )

    def _heads(self) -> list[str]:
        return [*self.factors, "loss", *(["held out"] if self.held_out_nulls is not None else []), "option mass"]

    def _cells(self) -> list[tuple[str, str, list[str]]]:
        """(kind, name, texts): target first, then conditions, then nulls."""
        fine = isinstance(self.target, Target) and np.abs(self.target.scores).max() < COARSE
        scores = 3 if fine else 1
        digits = scores if isinstance(self.target, Target) else 4
        losses = ["loss", *(["held_out_loss"] if self.held_out_nulls is not None else [])]

        def texts(record: Mapping[str, Any]) -> list[str]:
            shown = ["" if record["kind"] == "target" else number(record[name], digits) for name in losses]
            return [*(number(record[f], scores) for f in self.factors), *shown, number(record["option_mass"], 2)]

        return [(record["kind"], record["name"], texts(record)) for record in self.records()]

    def _by_factor(self, scores: Array) -> dict[str, float]:
        return dict(zip(self.factors, scores.tolist(), strict=True))


def compare(
    lm: LM,
    survey: Survey,
    target: Target | TargetLike,
    conditions: Sequence[Condition | Panel | SoftPrompt | Result] | Condition | Panel | SoftPrompt | Result,
    orders: str = "both",
    norm: Norm = "L1",
    weights: float | Mapping[str, float] | Sequence[float] | None = None,
) -> Comparison:
    """Administer a survey under each condition and set the scores beside a target.

    Parameters
    ----------
    conditions : a list of conditions; a soft prompt and a `Result` stand for the condition that they make.
    orders : "both", "forward" or "reversed" listing of the options, as in `administer`.
    target : published scores, or another of `softde.surveys.targets`, whose items alone are asked, held out or not.
    norm, weights : the loss of published scores, as in `align`; the nulls use the same.

    Raises
    ------
    ValueError
        Survey and target of different factors, no conditions, or a soft prompt of another hidden size; or another kind
        of object.
    """
    check_kinds({"lm": (lm, LM), "survey": (survey, Survey), **checked_target(target)})
    if isinstance(target, Target):
        floors = nulls(survey, target, norm, weights)  # first, since it refuses a wrong target, norm or weights
    else:
        as_target_like(target, norm, weights).check(survey)
    given: Any = conditions
    several = isinstance(given, Iterable) and not isinstance(given, str)
    asked = [as_condition(one, "conditions") for one in (given if several else [given])]
    if not asked:
        raise ValueError("conditions: expected one or more, got none; softde.Condition() is the unprompted model")
    check_fit(lm, asked)
    if not isinstance(target, Target):
        return _compare_items(lm, survey, target, asked, orders)
    rows = []
    for name, condition in zip(unique_names(asked), asked, strict=True):
        responses = administer(survey, lm, condition, orders)
        scores = responses.scores(target.constants)
        loss = float(distance(scores, target, norm, weights))
        rows.append(Row(name, scores, loss, float(np.mean(responses.option_mass))))
    own_weights = None if weights is None else tuple(by_factor(weights, target.factors, "weights").tolist())
    return Comparison(lm.name, survey.id, target, tuple(rows), floors, norm, own_weights, orders)


def _compare_items(
    lm: LM, survey: Survey, target: TargetLike, asked: Sequence[Condition | Panel], orders: str
) -> Comparison:
    """For a target that is not published scores alone: its loss, and that of held-out items."""
    target, _ = askable(lm, survey, target, orders, tokens=most_tokens(asked))
    goals = [target] if target.held_out_target is None else [target, target.held_out_target]
    used = np.any([goal.uses(survey).any(axis=0) for goal in goals], axis=0)
    part = only_items(survey, [item for item, there in zip(survey.item_ids, used, strict=True) if there])
    part = survey if any(map(needs_factors, goals)) and not part.factors else part
    rows = []
    for name, condition in zip(unique_names(asked), asked, strict=True):
        responses = administer(part, lm, condition, orders)
        found = [loss_of(goal, part, responses.probabilities) for goal in goals]
        rows.append(Row(name, np.zeros(0), found[0], float(np.mean(responses.option_mass)), *found[1:]))
    floors = [target_nulls(goal, part) for goal in goals]
    return Comparison(lm.name, survey.id, target, tuple(rows), floors[0], "", None, orders, *floors[1:])


def loss_of(target: TargetLike, survey: Survey, probabilities: Array) -> float:
    """The loss of one answerer's (items, options) probabilities."""
    return float(target.loss(target.errors(target.values(survey, probabilities[None])))[0])


def check_fit(lm: LM, conditions: Iterable[Condition | Panel]) -> None:
    """Refuse soft prompts and adapters of other models before anything is asked."""
    for condition in conditions:
        for member in members(condition):
            if member.prompt is not None and member.prompt.hidden_size != lm.hidden_size:
                member.prompt.check_model(lm)
            if member.adapter is not None:
                check_adapter(lm, member.adapter)


def most_tokens(conditions: Iterable[Condition | Panel]) -> int:
    """How many places of the context the longest soft prompt takes."""
    prompts = [member.prompt for condition in conditions for member in members(condition)]
    return max((prompt.num_virtual_tokens for prompt in prompts if prompt is not None), default=0)
