"""``softde score-answers``: single answers in a file against what humans of a region answered. Loads no model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from softde.cli.loading import load_survey
from softde.cli.printing import filled
from softde.files import expanded

if TYPE_CHECKING:
    from softde.surveys.human.answers import HumanAnswers
    from softde.surveys.metrics import AnswerSheet, CultureSPAScore

Metric = Literal["culture-spa", "culture-spa-corrected", "identification"]
SHOWN = 5  # item ids named per line, and rows that are left out


def score_answers(
    survey: Annotated[str, typer.Option(help="A shipped survey, a .toml or .csv file, or CultureSPA's questions.")],
    human: Annotated[Path, typer.Option(help="Human answers: CultureSPA's shares (.json), or any table softde reads.")],
    answers: Annotated[Path, typer.Option(help="Answers to score: .json, .jsonl or .csv with item and answer.")],
    region: Annotated[str, typer.Option(help="Region to compare with, by name or code, such as BRA.")],
    metric: Annotated[Metric, typer.Option(help="What to print.")] = "culture-spa",
    labels: Annotated[
        bool, typer.Option("--labels", help="Answers count from 1 for every item, whatever its options' values.")
    ] = False,
) -> None:
    """Score single answers against a region's humans.

    \b
    Example:  softde score-answers --survey wvs_questions.json --human proportions_group_by_country.json
              --answers wvs_result_culture_aware_BRA_0.json --region BRA --metric culture-spa
    """
    from softde.surveys.metrics import culture_spa, culture_spa_corrected, load_answers

    if labels and metric != "culture-spa-corrected":
        raise ValueError(f"--labels goes with --metric culture-spa-corrected; {metric} reads answers as they do")
    sheet = load_answers(answers)
    people = _human(survey, expanded(human))
    name = people.regions[people.row(region)]
    if metric == "identification":
        lines = _identified(sheet, people, name)
    else:
        one = people.select(regions=[name])
        found = culture_spa(sheet, one) if metric == "culture-spa" else culture_spa_corrected(sheet, one, labels=labels)
        lines = _scored(found, metric, name)
    for line in lines:
        print(filled(line))
    for row in sheet.left_out[:SHOWN]:
        print(filled(f"{answers.name}: {row}"))
    if len(sheet.left_out) > SHOWN:
        print(f"{answers.name}: {len(sheet.left_out) - SHOWN} more rows left out")


def _human(survey: str, human: Path) -> HumanAnswers:
    """Human answers to the items of a survey, which may be CultureSPA's list of questions."""
    from softde.surveys.human import load_culture_spa, load_human
    from softde.surveys.human.culture_spa import PROPORTIONS, QUESTIONS

    if Path(survey).suffix.lower() != ".json":
        return load_human(human, load_survey(survey))
    shares = human / PROPORTIONS if human.is_dir() else human
    for file, what in ((expanded(survey), QUESTIONS), (shares, PROPORTIONS)):
        if not file.is_file():
            raise ValueError(f"cannot read {str(file)!r}; expected CultureSPA's {what}, whatever its name")
    return load_culture_spa(shares, questions=survey)


def _scored(found: CultureSPAScore, metric: str, region: str) -> Iterator[str]:
    counted = "farthest from the majority" if metric == "culture-spa-corrected" else "left out"
    yield f"{metric} {region}: {found.score:.2f}"
    yield f"items scored: {found.items}"
    for what, items in (
        (f"no valid answer, {counted}", found.invalid),
        (f"no human answers in {region}, left out", found.no_human),
        ("not answered, left out", found.not_answered),
        ("not in the survey, left out", found.unknown),
    ):
        if items:
            rest = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
            yield f"{what}: {len(items)} ({', '.join(items[:SHOWN])}{rest})"


def _identified(sheet: AnswerSheet, people: HumanAnswers, region: str) -> Iterator[str]:
    from softde.surveys.metrics import culture_spa_by_region, identification

    found = identification({region: sheet}, people)
    scores = culture_spa_by_region(sheet, people)
    best = found.best[0]
    yield f"identification {region}: rank {found.mean_rank:g} of {len(people.regions)} regions"
    yield f"chance: rank {found.chance_mean_rank:g}; first place {found.chance_top1:.2f}"
    yield (
        f"most like {best}, culture-spa {scores[people.row(best)]:.2f}; "
        f"{region} itself {scores[people.row(region)]:.2f}"
    )
