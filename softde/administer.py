"""The survey, asked of a model under one condition."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from softde.checks import check_kinds
from softde.condition import Condition, Panel, as_condition, members
from softde.design import Design, FewRespondents
from softde.lm import LM
from softde.lm.adapter import adapted, check_adapter
from softde.lm.layout import ORDERS
from softde.readouts import Answers, Expected, Generated, Reading, Readout, Sampled, check_readout
from softde.readouts import probabilities as probabilities
from softde.surveys import Item, Survey
from softde.surveys.values import listed

if TYPE_CHECKING:
    from softde.surveys.human import Respondents

Array = NDArray[np.float64]

_log = logging.getLogger("softde")


@dataclass(frozen=True, eq=False)
class Responses:
    """What came back, in each item's own order of options.

    probabilities : (items, options) float64, averaged over option orders and wordings; they sum to one over an item's
        options and are zero beyond them. Of single answers (`Argmax`, `Sampled`, `Generated`, the respondents of a
        `Design`), their shares among the valid ones.
    option_mass : (items,), probability of what can be read as an answer among all tokens, or texts; near zero, the
        model does not answer.
    invalid, refused : (items,), shares of answers that name no option: those that refuse, and all others. Where the two
        make one, probabilities and item means are NaN, and `texts` shows what was written.
    answers : (respondents, items) option numbers from 0, -1 for none; `texts` in the same axes. None where the read-out
        has none. values : the same as option values, NaN for none; also of respondents with expected values.
    orders : in which the options were listed.
    """

    survey: Survey
    condition: Condition | Panel
    probabilities: Array
    option_mass: Array
    forward_tokens: int
    readout: Readout
    invalid: Array
    refused: Array
    answers: Answers | None = None
    texts: tuple[tuple[str, ...], ...] | None = None
    values: Array | None = None
    orders: tuple[str, ...] = ("forward", "reversed")

    def __repr__(self) -> str:
        return (
            f"<Responses of {self.condition.name!r} to {self.survey.id}: {len(self.survey.items)} items, "
            f"{self.readout}, options {' and '.join(self.orders)}, mean option mass {self.option_mass.mean():.2f}>"
        )

    @property
    def item_means(self) -> Array:
        """(items,) expected option value; NaN without a valid answer."""
        return item_means(self.survey, self.probabilities)

    @property
    def spread(self) -> Array:
        """(items,) standard deviation of respondents' values; without respondents, of one answer by the probabilities.

        NaN where fewer than two respondents gave a valid answer.
        """
        if self.values is None:
            squares = (self.probabilities * np.nan_to_num(self.survey.option_values) ** 2).sum(axis=-1)
            spread: Array = np.sqrt(np.maximum(squares - self.item_means**2, 0.0))
            return spread
        return np.sqrt(_variances(self.values))

    @property
    def item_errors(self) -> Array:
        """(items,) standard errors of the item means: spread over the root of the number of valid answers."""
        counts = (~np.isnan(self._needed("item_errors"))).sum(axis=0)
        return self.spread / np.sqrt(np.where(counts, counts, np.nan))

    @property
    def item_covariances(self) -> Array:
        """(items, items) covariances of respondents' values; NaN in the rows of items that one gave no answer to."""
        values = self._needed("item_covariances")
        if len(values) < 2:
            return np.full((values.shape[1],) * 2, np.nan)
        return np.atleast_2d(np.cov(values, rowvar=False))

    @property
    def respondents(self) -> Respondents:
        """The answers as the table that humans have; its region is the condition's name.

        Raises
        ------
        ValueError
            Nobody answered singly, or by expected values, which are no options.
        """
        from softde.surveys.human import Respondents

        if self.answers is None:
            self._needed("respondents")
            raise ValueError(
                "respondents: answers are expected values, which are no options; `values` has them, and "
                "Design(answers='sampled') draws options"
            )
        people = len(self.answers)
        return Respondents(self.survey, self.answers, np.array([self.condition.name] * people), np.ones(people))

    def scores(self, constants: Any = None) -> Array:
        """(factors,) factor scores, in the order of ``survey.factors``; NaN where an item of the factor is.

        constants : None takes the survey's own, 50 unless it says otherwise.
        """
        values = self.values
        if values is None or not (np.isnan(values).any() or self.survey.compiled.pairs):  # then the formulas are linear
            return self.survey.score_probabilities(self.probabilities, constants)  # bit by bit as a search scores them
        return self.survey.score_respondents(values, constants=constants).mean

    def standard_errors(self) -> Array:
        """(factors,) standard errors of the scores from the respondents' own scores, as of a simple random sample."""
        return self.survey.score_respondents(self._needed("standard_errors")).standard_error

    def save(self, path: str | os.PathLike[str], region: str | None = None) -> None:
        """Write the single answers, a row per respondent and item, as Parquet or, by any other name, CSV.

        `softde.surveys.human.load_human(path, survey)` reads them back. Columns: respondent, region (the condition's
        name, if none is given), item, answer (the option's value; its text where values repeat; empty for none) and, of
        a design, the respondent's persona and the order and wording in which the item was asked, the survey's own being
        wording 0.
        """
        from softde.surveys.human.columns import write_table

        people = self.respondents
        columns: dict[str, list[Any]] = {"respondent": [], "region": [], "item": [], "answer": []}
        for (r, i), number in np.ndenumerate(people.answers):
            item = self.survey.items[i]
            columns["respondent"].append(f"{r + 1:0{len(str(len(people.answers)))}}")
            columns["region"].append(region or self.condition.name)
            columns["item"].append(item.id)
            columns["answer"].append(_written(item, int(number)))
        if isinstance(self.readout, Design):
            designs = _read_outs(self.readout, self.condition)
            sheets = [sheet for one in designs for sheet in one.sheets(self.survey, self.orders)]
            columns["persona"] = [text for one in designs for text in one.personas for _ in self.survey.items]
            columns["order"] = [order for sheet in sheets for _, order, _ in sheet]
            columns["wording"] = [phrasing for sheet in sheets for _, _, phrasing in sheet]
        write_table(path, columns)

    def _needed(self, what: str) -> Array:
        if self.values is None:
            raise ValueError(
                f"{what}: these answers are expected values of nobody in particular; ask respondents with "
                "administer(..., design=softde.Design(respondents=50))"
            )
        return self.values


def administer(
    survey: Survey,
    lm: LM,
    condition: Condition | Panel | None = None,
    orders: str = "both",
    plain: bool = False,
    readout: Readout = Expected(),  # noqa: B008 (a frozen value)
    design: Design | None = None,
) -> Responses:
    """Ask every item under a condition and read the answers.

    Parameters
    ----------
    condition : what the model is under; None is the unprompted model, a `Panel` several conditions in turn, each with
        random draws of its own.
    orders : "both" asks with the options listed forward and reversed, and averages; or "forward", "reversed". Of items
        with several wordings all are asked.
    plain : one forward per question without any shared computation: slow, and the reference.
    readout : what counts as an answer: `Expected()` (default), `Argmax()`, `Sampled()`, `SequenceLogprob()`,
        `Generated()`.
    design : who is asked, and how: ``Design(respondents=50)`` simulates respondents, who share out orders and wordings
        among them. It reads the options' probabilities, so it goes with no other read-out.

    Raises
    ------
    ValueError
        If the condition's soft prompt has another hidden size than the model, its adapter is of another model, an
        option label is not one token, `readout` is none, or a design comes with another read-out.
    """
    check_kinds({"survey": (survey, Survey), "lm": (lm, LM)})
    check_readout(readout)
    readout = _asked_by(design, readout)
    condition = as_condition(condition)
    for member in members(condition):
        if member.prompt is not None:
            member.prompt.check_model(lm)
        if member.adapter is not None:
            check_adapter(lm, member.adapter)
        if member.examples is not None and not set(member.examples.by_item) & set(survey.item_ids):
            _log.warning(
                "condition %s: none of its examples is shown: they are for items (%s) that survey %s does not have",
                member.name, listed(member.examples.by_item, 3), survey.id,
            )  # fmt: skip
    readings = [
        _read(survey, lm, member, orders, plain, own)
        for member, own in zip(members(condition), _read_outs(readout, condition), strict=True)
    ]
    reading = readings[0] if isinstance(condition, Condition) else together(survey, readings)
    return Responses(
        survey,
        condition,
        reading.probabilities[0],
        reading.option_mass[0],
        reading.tokens,
        readout,
        reading.invalid[0],
        reading.refused[0],
        None if reading.answers is None else reading.answers[0],
        None if reading.texts is None else reading.texts[0],
        _values(survey, reading),
        ORDERS[orders],
    )


def _read(survey: Survey, lm: LM, condition: Condition, orders: str, plain: bool, readout: Readout) -> Reading:
    with adapted(lm, condition.adapter) as asked:
        plan = asked.plan(survey, condition.system, condition.placement, orders, examples=condition.examples)
        prompts = None if condition.prompt is None else condition.prompt.embeddings[None]
        return readout.read(asked, plan, survey, prompts, plain=plain)


def _read_outs(readout: Any, condition: Condition | Panel) -> list[Any]:
    """Each member's read-out. Who draws at random draws anew, or all members would be lucky in the same items."""
    found = [readout] * len(members(condition))
    if isinstance(readout, Sampled | Generated | Design):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FewRespondents)  # said when the design was made
            found = [replace(readout, seed=readout.seed + (number << 32)) for number in range(len(found))]
    return found


def together(survey: Survey, readings: Sequence[Reading]) -> Reading:
    """The answers of several conditions as those of one; without single answers, each condition's item means are one's.

    Probabilities are means over the conditions that gave a valid answer to the item.
    """

    def mean(name: str) -> Array:
        return np.asarray(np.mean([getattr(reading, name) for reading in readings], axis=0))

    def rows(name: str) -> Any:
        parts = [getattr(reading, name) for reading in readings]
        return None if any(part is None for part in parts) else np.concatenate(parts, axis=1)

    found = np.stack([reading.probabilities for reading in readings])  # (conditions, population, items, options)
    valid = ~np.isnan(found)
    with np.errstate(invalid="ignore"):  # nobody's valid answer: 0 / 0 is the NaN that says so
        shares = np.where(valid, found, 0.0).sum(axis=0) / valid.sum(axis=0)
    answers, values, texts = rows("answers"), rows("values"), [reading.texts for reading in readings]
    if answers is None and values is None:
        values = item_means(survey, found).swapaxes(0, 1)
    written = [text for text in texts if text is not None]
    return Reading(
        shares,
        mean("option_mass"),
        mean("invalid"),
        mean("refused"),
        sum(reading.tokens for reading in readings),
        answers,
        tuple(sum(people, ()) for people in zip(*written, strict=True)) if len(written) == len(texts) else None,
        values,
    )


def _written(item: Item, number: int) -> str:
    """An option as a table's cell that says which it is."""
    if number < 0:
        return ""
    values = [option.value for option in item.options]
    return f"{values[number]:.17g}" if len(set(values)) == len(values) else item.options[number].text


def _asked_by(design: Design | None, readout: Readout) -> Readout:
    """The read-out of a design; one without respondents leaves the other."""
    if design is None:
        return readout
    if not isinstance(design, Design):
        raise ValueError(f"design: expected softde.Design(respondents=50), got {design!r}")
    if design.respondents and type(readout) is not Expected:
        raise ValueError(
            f"design: its respondents answer by the options' probabilities; leave readout={readout!r} or the design out"
        )
    return design if design.respondents else readout


def _values(survey: Survey, reading: Reading) -> Array | None:
    """(respondents, items) of the one candidate."""
    if reading.answers is None:
        return None if reading.values is None else reading.values[0]
    answers = reading.answers[0]
    table = np.pad(survey.option_values, ((0, 0), (0, 1)), constant_values=np.nan)  # at the end for -1
    values: Array = table[np.arange(answers.shape[1]), answers]
    return values


def _variances(values: Array) -> Array:
    """(rows, columns) → (columns,) sample variances of what is not NaN."""
    known = ~np.isnan(values)
    counts = known.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(known, values, 0.0).sum(axis=0) / counts
        squares = np.where(known, (values - means) ** 2, 0.0).sum(axis=0)
        variances: Array = squares / np.where(counts > 1, counts - 1, np.nan)
    return variances


def item_means(survey: Survey, probabilities: Array) -> Array:
    """(..., items, options) probabilities → (..., items) expected option values."""
    means: Array = (probabilities * np.nan_to_num(survey.option_values)).sum(axis=-1)
    return means
