"""Who is asked, and how: simulated respondents, each with a persona, an option order and a wording for every item."""

from __future__ import annotations

import math
import os
import string
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from softde.checks import whole
from softde.files import expanded
from softde.lm import LM, Plan
from softde.lm.layout import Asked, every_question
from softde.readouts import (
    NONE,
    Array,
    Expected,
    Prompts,
    Reading,
    none_invalid,
    pooled,
    probabilities,
    question_by_question,
    stream,
)
from softde.surveys import Survey
from softde.surveys.checks import check_keys, expect, naming
from softde.surveys.regions import find_region
from softde.surveys.values import FrozenDict, listed, nearest

Numbers = NDArray[np.int64]
Shares = Mapping[str, Mapping[str, float]]

# Fewest and best numbers of respondents per country: VSM 94 manual, on samples.
FEWEST, BEST = 20, 50
BLOCK = 5  # respondents in a row among whom it is drawn who gets which level; divides 20, 50, 100
ANSWERS = ("sampled", "expected")
# All levels have the same share, since no other distribution fits every region: give the census's own.
ATTRIBUTES: Shares = {
    "gender": {"a woman": 1 / 2, "a man": 1 / 2},
    "age": {
        "between 18 and 29": 1 / 4,
        "between 30 and 44": 1 / 4,
        "between 45 and 59": 1 / 4,
        "60 or older": 1 / 4,
    },
    "education": {
        "did not finish secondary school": 1 / 3,
        "finished secondary school": 1 / 3,
        "have a university degree": 1 / 3,
    },
    "residence": {"in a city": 1 / 2, "in the countryside": 1 / 2},
}
TEMPLATE = "You are {gender}, your age is {age}, you {education}, and you live {residence}."


class FewRespondents(UserWarning):
    """Fewer simulated respondents than a survey of people may have."""


@dataclass(frozen=True)
class Design:
    """Simulated respondents; also a read-out, so that `align(..., readout=Design(respondents=50))` searches with them.

    Every respondent has a persona, a sentence of drawn attributes that follows the condition's own system text; one
    order of the options and one wording for every item; and one answer to it. All is a function of seed, respondent and
    item: every condition and every candidate is asked by the same respondents with the same random numbers, and more
    respondents leave the earlier ones as they are.

    respondents : how many; 0 or None asks nobody in particular: expected values over orders and wordings, as
        `Expected()`. answers : "sampled" draws one option by its probability; "expected" takes the expected value.
    attributes : name → wording of each level → its share; the shares of an attribute sum to one. Drawn by quota, each
        attribute on its own: after every five respondents a level is less than one respondent away from its share. {}
        with the template left alone makes no personas.
    template : the persona, with every attribute's name in braces.

    Raises
    ------
    ValueError
        A negative number; shares that are negative or do not sum to one; a template that lacks an attribute or names
        one that is not there.
    """

    respondents: int = 0
    seed: int = 0
    answers: str = "sampled"
    attributes: Shares = field(default_factory=lambda: ATTRIBUTES)
    template: str = TEMPLATE

    def __post_init__(self) -> None:
        given: Any = self.respondents
        object.__setattr__(self, "respondents", whole(0 if given is None else given, "respondents", 0))
        whole(self.seed, "seed", 0)
        if self.answers not in ANSWERS:
            raise ValueError(f"answers: expected one of {', '.join(ANSWERS)}, got {self.answers!r}")
        if not isinstance(self.attributes, Mapping):
            raise ValueError(f"attributes: expected a mapping name → {{level: share}}, got {self.attributes!r}")
        attributes = {name: _checked_shares(name, levels) for name, levels in self.attributes.items()}
        object.__setattr__(self, "attributes", FrozenDict(attributes))
        if self.has_personas:
            _check_template(self.template, attributes)
        if 0 < self.respondents < FEWEST:
            warnings.warn(
                f"respondents: {self.respondents} are fewer than {FEWEST}, the VSM 94 manual's minimum per country "
                f"({BEST} are ideal); scores of so few say little about a population",
                FewRespondents,
                stacklevel=3,
            )

    @classmethod
    def from_toml(
        cls,
        path: str | os.PathLike[str],
        region: str | None = None,
        respondents: int = BEST,
        seed: int = 0,
        answers: str = "sampled",
    ) -> Design:
        """Respondents as a file describes them: a template, attributes, and attributes of regions in their place.

        ::

            template = "You are {gender}."
            [attributes.gender]
            "a woman" = 0.5
            "a man" = 0.5
            [regions.KEN.gender]
            "a woman" = 0.51
            "a man" = 0.49

        region : by name or code; None takes the file's general attributes. One that the file does not name is refused.
        """
        with naming(Path(path).name):
            document = _read_toml(expanded(os.fspath(path)))
            attributes = dict(document["attributes"])
            if region is not None:
                attributes |= document["regions"][_found(region, tuple(document["regions"]))]
            return cls(respondents, seed, answers, attributes, document["template"])

    @property
    def has_personas(self) -> bool:
        """Are respondents told who they are?"""
        return bool(self.attributes) or self.template != TEMPLATE

    @cached_property
    def people(self) -> dict[str, tuple[str, ...]]:
        """Attribute → the level of each respondent."""
        found = {}
        for name, shares in self.attributes.items():
            levels = list(shares)
            quota = quotas([shares[level] for level in levels], _blocks(self.respondents, BLOCK) * BLOCK)
            drawn = dealt(quota, BLOCK, self._uniforms("attribute", name, len(quota)))
            found[name] = tuple(levels[i] for i in drawn[: self.respondents])
        return found

    @cached_property
    def personas(self) -> tuple[str, ...]:
        """The sentence of each respondent; empty texts where there is none."""
        if not self.has_personas:
            return ("",) * self.respondents
        rows = [{name: levels[r] for name, levels in self.people.items()} for r in range(self.respondents)]
        return tuple(self.template.format_map(row) for row in rows)

    def sheets(self, survey: Survey, orders: Sequence[str] = ("forward", "reversed")) -> tuple[tuple[Asked, ...], ...]:
        """(respondents, items) the question, (item, order, phrasing), that each respondent gets of each item.

        An item's pairs of order and wording are dealt out: of as many respondents in a row as there are pairs, each
        gets another one.
        """
        columns = []
        for i, item in enumerate(survey.items):
            ways = [(i, order, phrasing) for phrasing in range(1 + len(item.phrasings)) for order in orders]
            blocks = _blocks(self.respondents, len(ways))
            draws = self._uniforms("question", item.id, blocks * len(ways))
            columns.append([ways[k] for k in dealt(np.tile(np.arange(len(ways)), blocks), len(ways), draws)])
        return tuple(tuple(column[r] for column in columns) for r in range(self.respondents))

    def draws(self, survey: Survey) -> Array:
        """(respondents, items) numbers in [0, 1) by which answers are sampled."""
        return np.stack([self._uniforms("answer", item.id, self.respondents) for item in survey.items], axis=1)

    def read(self, lm: LM, plan: Plan, survey: Survey, prompts: Prompts | None, plain: bool = False) -> Reading:
        """See `Readout`. Who has the same persona is asked together, the same question once."""
        if not self.respondents:
            return Expected().read(lm, plan, survey, prompts, plain=plain)
        sheets = self.sheets(survey, tuple(dict.fromkeys(q.order for q in plan.questions)))
        population, people, items = 1 if prompts is None else len(prompts), self.respondents, len(survey.items)
        given = np.zeros((population, people, items, plan.n_options))
        mass, tokens = np.zeros((population, people, items)), 0
        for persona in dict.fromkeys(self.personas):
            rows = [r for r, text in enumerate(self.personas) if text == persona]
            wanted = {question for r in rows for question in sheets[r]}
            asked = [question for question in every_question(survey, "both") if question in wanted]
            system = "\n".join(filter(None, (plan.system, persona))) or None
            mine = lm.plan(survey, system, plan.placement, asked=asked, examples=plan.examples)
            answer = question_by_question(lm, mine, prompts, plain)
            column = {question: number for number, question in enumerate(asked)}
            columns = np.array([[column[question] for question in sheets[r]] for r in rows])
            given[:, rows] = probabilities(answer.logprobs)[:, columns]
            mass[:, rows] = answer.option_mass.double().cpu().numpy()[:, columns]
            tokens += answer.ledger
        if self.answers == "expected":
            return _expected(survey, given, mass.mean(axis=1), tokens)
        chosen = chosen_options(given, self.draws(survey))
        once = replace(plan, questions=tuple(plan.questions[slots[0]] for slots in plan.by_item))
        return pooled(once, survey, chosen.transpose(0, 2, 1), torch.from_numpy(mass.mean(axis=1)), tokens)

    def _uniforms(self, what: str, name: str, count: int) -> Array:
        """The first `count` numbers in [0, 1) of a stream that seed, purpose and name choose."""
        numbers: Array = stream([self.seed, *f"{what}:{name}".encode()]).random(count)
        return numbers


def quotas(shares: Sequence[float], count: int) -> Numbers:
    """(count,) levels in a row, so that among the first n of them, for every n, level k is near n · shares[k] times.

    Tijdeman (1980), The chairman assignment problem, Discrete Mathematics 32: of the levels that are due, that which
    must come soonest; of K levels none is ever more than 1 − 1/(2K−2) away from its share.
    """
    slack = 1 / max(2 * len(shares) - 2, 1)
    counts, row = [0] * len(shares), np.zeros(count, dtype=np.int64)
    for n in range(1, count + 1):
        due = [n * share - had for share, had in zip(shares, counts, strict=True)]
        ready = [k for k in range(len(shares)) if shares[k] > 0 and due[k] >= slack - 1e-9]
        row[n - 1] = min(ready, key=lambda k: round((1 - slack - due[k]) / shares[k], 9))
        counts[row[n - 1]] += 1
    return row


def dealt(values: Numbers, block: int, draws: Array) -> Numbers:
    """The values, those of each `block` in a row in the order of their draws, (values,) numbers in [0, 1)."""
    order = draws.reshape(-1, block).argsort(axis=1, kind="stable")
    numbers: Numbers = np.take_along_axis(values.reshape(-1, block), order, axis=1).reshape(-1)
    return numbers


def chosen_options(given: Array, draws: Array) -> Numbers:
    """(population, respondents, items, options) probabilities and (respondents, items) draws → option numbers.

    By inverse cumulative probability; NONE where a probability is NaN.
    """
    cumulative = given.cumsum(axis=-1)
    chosen = (cumulative <= draws[..., None] * cumulative[..., -1:]).sum(axis=-1)
    return np.where(np.isnan(given).any(axis=-1), NONE, chosen)


def _expected(survey: Survey, given: Array, mass: Array, tokens: int) -> Reading:
    """What respondents answer by expected values, which stay among the options' values whatever the rounding."""
    values = survey.option_values
    means = (given * np.nan_to_num(values)).sum(axis=-1).clip(np.nanmin(values, axis=1), np.nanmax(values, axis=1))
    found = given.mean(axis=1)
    return Reading(found, mass, *none_invalid(found), tokens, values=means)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read it ({error.strerror or error}); check the path") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"invalid TOML: {error}") from None
    check_keys(document, ("template", "attributes", "regions"), "respondents", required=("template", "attributes"))
    document.setdefault("regions", {})
    for key in ("attributes", "regions"):
        for name, table in expect(document[key], dict, key).items():
            expect(table, dict, f"[{key}.{name}]")
    for where, tables in (("attributes", document["attributes"]), *document["regions"].items()):
        with naming(where):
            for name, levels in tables.items():
                _checked_shares(name, levels)
    return document


def _found(region: str, known: Sequence[str]) -> str:
    try:
        return find_region(region, known)
    except ValueError:
        raise ValueError(f"no [regions.…] for region {region!r}; {nearest(region, known)}") from None


def _blocks(count: int, block: int) -> int:
    return -(-count // block)


def _checked_shares(name: str, levels: Mapping[str, float]) -> Mapping[str, float]:
    if not isinstance(levels, Mapping) or not levels:
        raise ValueError(f"attribute {name!r}: expected a mapping wording → share, got {levels!r}")
    for level, share in levels.items():
        if isinstance(share, bool) or not isinstance(share, (int, float, np.number)) or not 0 <= share <= 1:
            raise ValueError(f"attribute {name!r}, {level!r}: expected a share from 0 to 1, got {share!r}")
    total = math.fsum(levels.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"attribute {name!r}: the shares of {listed(levels)} sum to {total:g}; make them sum to one")
    return FrozenDict({level: float(share) for level, share in levels.items()})


def _check_template(template: str, attributes: Mapping[str, Mapping[str, float]]) -> None:
    if not isinstance(template, str) or not template.strip():
        raise ValueError(f"template: expected a sentence with the attributes' names in braces, got {template!r}")
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ValueError(
            f"template: {template!r} has a brace too many or too few ({error}); write {{{{ for one"
        ) from None
    for name in fields:
        if name not in attributes:
            raise ValueError(f"template: unknown attribute {name!r} in {template!r}; {nearest(name, attributes)}")
    missing = [name for name in attributes if name not in fields]
    if missing:
        raise ValueError(
            f"template: {template!r} does not say {listed(missing)}; put {{{missing[0]}}} into it, or leave that "
            "attribute out"
        )
