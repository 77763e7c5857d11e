"""``softde surveys`` and ``softde regions``: what there is to ask, and whom to align with."""

from __future__ import annotations

import textwrap

import typer

from softde.cli.loading import load_survey
from softde.cli.options import VSM, Edition, SurveyOption
from softde.cli.printing import WIDTH


def surveys(context: typer.Context) -> None:
    """List the shipped surveys with their sources and cautions; template and check help with your own.

    \b
    Example:  softde surveys
    """
    if context.invoked_subcommand is not None:
        return
    from softde.surveys import load_survey, shipped_surveys

    for name in sorted(shipped_surveys(), key=lambda name: (name != VSM, name)):
        survey = load_survey(name)
        print(f"{survey.id}  {survey.title}, version {survey.version}, language {survey.language}")
        for label, text in (
            ("items", f"{len(survey.items)}{', texts not included' if survey.missing_texts else ''}"),
            ("factors", ", ".join(f"{f.id} ({f.name})" for f in survey.factor_models)),
            ("variants", ", ".join(f"{survey.id}:{variant}" for variant in survey.variants)),
            ("editions", ", ".join(f"{e.name} ({len(e.scores)} regions)" for e in survey.published)),
            ("source", survey.source),
            ("caution", survey.note),
        ):
            if text:
                print(textwrap.fill(text, WIDTH, initial_indent=f"  {label:<10}", subsequent_indent=" " * 12))


def regions(survey: SurveyOption = VSM, edition: Edition = None) -> None:
    """List the regions of a survey with their published scores.

    \b
    Example:  softde regions --edition 2023
    """
    from softde.report import region_table

    asked = load_survey(survey)
    if not asked.published:
        raise ValueError(f"survey {asked.id!r} has no published scores; add a [[published]] table to its file")
    print(region_table(asked, edition))
