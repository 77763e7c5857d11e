"""``softde surveys import``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from softde.cli.folders import writable
from softde.cli.options import path
from softde.files import expanded, write_file


def import_survey(
    folder: Annotated[Path, typer.Argument(help="CultureSPA's data folder, with its two JSON files.", parser=path)],
    out: Annotated[Path, typer.Option(help="The survey's file; human answers go beside it.", parser=path)] = Path(
        "wvs.toml"
    ),
) -> None:
    """Make a survey of the World Values Survey items that CultureSPA publishes, and of 19 regions' answers to them.

    \b
    Example:  softde surveys import CultureSPA/data --out wvs.toml
    """
    from softde.surveys.human.culture_spa import PROPORTIONS, load_culture_spa

    if out.suffix.lower() != ".toml":
        raise ValueError(f"--out: expected a .toml file, got {str(out)!r}")
    human = load_culture_spa(folder)
    source = expanded(folder)
    answers = (source / PROPORTIONS if source.is_dir() else source).read_bytes()
    place = writable(out.parent) / out.name
    beside = place.with_name(f"{place.stem}-human.json")
    survey = replace(human.survey, id=place.stem, human=beside.name)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_file(beside, answers)
    write_file(place, survey.to_toml().encode())
    print(f"{place}: {len(survey.items)} items; {beside}: answers of {len(human.regions)} regions")
    print(f"\nnext:\n  softde align {human.regions[0]} --survey {place} --target shares --held-out 0.2")
