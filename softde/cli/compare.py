"""``softde compare``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softde.cli.compare_methods import (
    DEFAULT,
    exam_of,
    human_of,
    named_methods,
    prompt_entries,
    read_prompts,
    told,
    written_entries,
)
from softde.cli.folders import PROMPT_FILE
from softde.cli.loading import load_recorded, load_survey, made_with, recorded_survey
from softde.cli.options import VSM, Device, Dtype, Edition, Norm, Orders, Revision, path
from softde.cli.printing import say
from softde.cli.targets import Distance, HeldOut, Human, Kind, target_of
from softde.files import expanded

if TYPE_CHECKING:
    from softde.prompt import SoftPrompt
    from softde.surveys import Survey


def compare(
    region: Annotated[
        list[str], typer.Argument(help='A region by name, alias or ISO code, such as "Saudi Arabia" or SA; or several.')
    ],
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="A soft prompt's file or run folder, or REGION=FILE; may be repeated."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model to ask. [default: the first prompt's, else tiny]")] = None,
    survey: Annotated[
        list[str] | None,
        typer.Option("--survey", help="Survey to ask; may be repeated. [default: the first prompt's, else vsm13]"),
    ] = None,
    edition: Edition = None,
    target: Kind = "scores",
    distance: Distance = None,
    held_out: HeldOut = 0.0,
    human: Human = None,
    norm: Norm = "L1",
    orders: Orders = "both",
    methods: Annotated[
        str | None,
        typer.Option(
            help="For the table of methods, with commas: unprompted, persona, cross-culture, self-alignment, "
            f"persona+self-alignment, cross-culture+self-alignment, description. [default: {DEFAULT}]"
        ),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--out", help="File for it: .parquet or .csv for its rows, .md to read.")
    ] = None,  # not "out", which is align's folder
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder for its answers; the same command goes on from there.", parser=path)
    ] = None,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Set the unprompted model, a persona prompt and soft prompts beside a region's published scores.

    With several regions, several surveys, --methods, --out or --checkpoint: a table of methods over regions.

    \b
    Example:  softde compare "Saudi Arabia" --prompt runs/saudi-arabia/prompt.safetensors
              softde compare SA India --prompt SA=runs/sa --prompt India=runs/india --survey vsm13 --survey iw
    """
    given = read_prompts(prompt or (), region)
    prompts = {path: made for _, path, made in given.values()}
    names, several = survey or [], any(one is not None for one, _, _ in given.values())
    asked = [load_survey(name) for name in names] or [_first_survey(prompts)]
    wanted = methods is not None or table is not None or checkpoint is not None
    if len(region) == len(asked) == 1 and not several and not wanted:
        goal, norm = target_of(asked[0], region[0], edition, target, distance, held_out, human, norm)
    else:
        from softde.compare.entries import checked

        goal = None
        chosen = named_methods(methods or DEFAULT)
        needed = any(method.human for method in chosen.values())
        people = [human_of(one, human, target, needed) for one in asked]
        exams = [
            exam_of(one, region, answers, target, edition, distance, held_out, norm, orders)
            for one, answers in zip(asked, people, strict=True)
        ]
        entries = written_entries(chosen, list(zip(exams, people, strict=True)))
        entries += prompt_entries(given, dict(zip(prompts, prompt_names(prompts), strict=True)))
        checked(exams, entries)
        _check_files(table, checkpoint)
    for file, made in prompts.items():
        for one in asked:
            _note_another_survey(file, made, one)
    lm = load_recorded(model, list(prompts.values()), dtype, device, revision)
    if goal is None:
        from softde.compare import compare_methods

        found = compare_methods(lm, exams, entries, checkpoint=checkpoint)
        print(found)
        if table is not None:
            found.save(table)
            say(f"softde: the table is in {table}")
        return

    from softde.baselines.wording import languages
    from softde.compare import compare as administer_all
    from softde.condition import Condition

    language = asked[0].language.partition("-")[0]
    language = language if language in languages() else "en"
    conditions = [Condition(), told(goal.region, language)]
    conditions += [Condition(name=n, prompt=p) for n, p in zip(prompt_names(prompts), prompts.values(), strict=True)]
    print(administer_all(lm, asked[0], goal, conditions, orders, norm))


def _check_files(table: Path | None, checkpoint: Path | None) -> None:
    """Refuse files that could not be written, before a model is loaded."""
    from softde.compare.sheets import read_sheets
    from softde.compare.table import check_suffix

    if table is not None:
        check_suffix(table)
        if not expanded(table).parent.is_dir():
            raise ValueError(f"--out: the folder {expanded(table).parent} does not exist; make it first")
    read_sheets(checkpoint)


def _first_survey(prompts: Mapping[Path, SoftPrompt]) -> Survey:
    """The survey of the first prompt that knows its own."""
    first = next((path for path, prompt in prompts.items() if made_with(prompt).get("id")), None)
    return load_survey(VSM) if first is None else recorded_survey(prompts[first], first)


def _note_another_survey(path: Path, prompt: SoftPrompt, asked: Survey) -> None:
    made = made_with(prompt)
    if made.get("digest") not in (None, asked.digest):
        other = "another wording of survey" if made.get("id") == asked.id else "survey"
        say(f"softde: note: {path} was made with {other} {made.get('id')!r}; here it is asked {asked.id!r}")


def prompt_names(paths: Iterable[Path]) -> list[str]:
    """How prompts are called in a table: by file, or folder where the file has the usual name, as short as it goes."""
    files = [path.absolute() for path in paths]
    places = [f.parts[1:-1] if f.name == PROMPT_FILE else (*f.parts[1:-1], f.stem) for f in files]

    def name(place: tuple[str, ...]) -> str:
        others = [other for other in places if other != place]
        tails = ["/".join(place[-n:]) for n in range(1, len(place) + 1)]
        return next((t for t in tails if all(not f"/{'/'.join(o)}".endswith(f"/{t}") for o in others)), tails[-1])

    return [name(place) if place else PROMPT_FILE for place in places]
