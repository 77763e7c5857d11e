"""``softde surveys template`` and ``softde surveys check``: an instrument of one's own, shipped or new."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from softde.cli.loading import load_survey
from softde.cli.printing import WIDTH

if TYPE_CHECKING:
    from softde.surveys import Factor, Survey
    from softde.surveys.survey import Composite

SHOWN = 8  # factors side by side in the table of toy answers


def template(name: Annotated[str, typer.Argument(help="A shipped survey; softde surveys lists them.")]) -> None:
    """Print a shipped survey as a TOML file of your own; where texts are not included, they are yours to fill in.

    \b
    Example:  softde surveys template pvq40 > my.toml
    """
    from softde.surveys.toml import template

    print(template(load_survey(name)), end="")


def check(
    file: Annotated[str, typer.Argument(help="Your own .toml or .csv file, or the name of a shipped survey.")],
) -> None:
    """Check a survey file, and score a toy answer sheet with it; the first thing that is wrong ends it.

    \b
    Example:  softde surveys check my.toml
    """
    survey = load_survey(file)
    options = [len(item.options) for item in survey.items]
    values = [option.value for item in survey.items for option in item.options]
    lacking = len(survey.missing_texts)
    _line("survey", f"{survey.id}: {survey.title}, version {survey.version}, language {survey.language}")
    _line("items", f"{len(survey.items)}" + (f", {lacking} of them without text" if lacking else ""))
    _line("options", f"{options[0]}" if len(set(options)) == 1 else f"{min(options)} to {max(options)}")
    _line("values", f"{min(values):g} to {max(values):g}")
    for composite in survey.composites:
        _line("composite", f"{composite.id} ({composite.name or 'no name'}) from {', '.join(_parts(composite))}")
    if survey.scoring.centre:
        _line("centred on", f"a respondent's mean over {len(survey.scoring.centre)} items")
    if survey.scoring.min_valid:
        _line("left out", f"respondents with fewer than {survey.scoring.min_valid} answers")
    for factor in survey.factor_models:
        _line("factor", f"{factor.id} ({factor.name or 'no name'}) = {_formula(survey, factor)}")
    for edition in survey.published:
        _line("edition", f"{edition.name}, {len(edition.scores)} regions")
    if not survey.factor_models:
        _line("factors", "none, so it can be asked but not scored")
        return
    print("\ntoy answer sheets, with the survey's own constants:")
    rows = _toys(survey)
    for start in range(0, len(survey.factors), SHOWN):
        names = survey.factors[start : start + SHOWN]
        print("\n" + " " * 28 + "".join(f"{name[:8]:>9}" for name in names))
        for label, scores in rows.items():
            cells = (
                f"{round(score, 2) + 0.0:9.2f}" if math.isfinite(score) else f"{'-':>9}"
                for score in scores[start : start + SHOWN]
            )
            print(f"{label:<28}" + "".join(cells))
    if not all(math.isfinite(score) for scores in rows.values() for score in scores):
        print("\n-: no score, since a first and a second choice cannot be the same option")


def _line(label: str, text: str) -> None:
    print(textwrap.fill(text, WIDTH, initial_indent=f"  {label:<12}", subsequent_indent=" " * 14))


def _parts(composite: Composite) -> tuple[str, ...]:
    from softde.surveys import Factor

    if isinstance(composite, Factor):
        return (*composite.weights, *composite.mean)
    return composite.items


def _formula(survey: Survey, factor: Factor) -> str:
    """A factor as its file gives it."""
    if factor.mean:
        least = f", {factor.min_valid} or more answered" if factor.min_valid is not None else ", all answered"
        text = f"mean of {', '.join(factor.mean)}{least}"
    elif factor.component:
        text = f"{factor.scale:g} × component {factor.component} of {len(survey.projection.variables)} variables"  # type: ignore[union-attr]
    else:
        text = " ".join(f"{weight:+g} {name}" for name, weight in factor.weights.items()).removeprefix("+")
    return f"{text} {factor.offset:+g}" if factor.offset else text


def _toys(survey: Survey) -> dict[str, list[float]]:
    """What a few answerers score, {label: (factors,)}."""
    import numpy as np

    first = np.array([item.options[0].value for item in survey.items])
    last = np.array([item.options[-1].value for item in survey.items])
    draw = np.random.default_rng(0)
    someone = np.array([item.options[draw.integers(len(item.options))].value for item in survey.items])
    known = ~np.isnan(survey.option_values)
    sheets = {"first option throughout": first, "last option throughout": last, "random respondent (seed 0)": someone}
    rows = {label: survey.score_respondents(sheet[None]).per_respondent[0] for label, sheet in sheets.items()}
    rows["all options equally likely"] = survey.score_probabilities(known / known.sum(1, keepdims=True))
    return {label: scores.tolist() for label, scores in rows.items()}
