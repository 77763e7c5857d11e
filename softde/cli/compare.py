"""``softde compare``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softde.cli.folders import PROMPT_FILE
from softde.cli.loading import load_recorded, load_survey, made_with, read_prompt, recorded_survey
from softde.cli.options import VSM, Device, Dtype, Edition, Norm, Orders, Region, Revision
from softde.cli.printing import say
from softde.cli.targets import Distance, HeldOut, Human, Kind, target_of
from softde.files import expanded

if TYPE_CHECKING:
    from softde.prompt import SoftPrompt
    from softde.surveys import Survey


def compare(
    region: Region,
    prompt: Annotated[
        list[Path] | None, typer.Option("--prompt", help="A soft prompt's file or run folder; may be repeated.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model to ask. [default: the first prompt's, else tiny]")] = None,
    survey: Annotated[str | None, typer.Option(help="Survey to ask. [default: the first prompt's, else vsm13]")] = None,
    edition: Edition = None,
    target: Kind = "scores",
    distance: Distance = None,
    held_out: HeldOut = 0.0,
    human: Human = None,
    norm: Norm = "L1",
    orders: Orders = "both",
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Set the unprompted model, a persona prompt and soft prompts beside a region's published scores.

    \b
    Example:  softde compare "Saudi Arabia" --prompt runs/saudi-arabia/prompt.safetensors
    """
    prompts = {path: read_prompt(path) for path in map(expanded, prompt or ())}
    asked = _first_survey(prompts) if survey is None else load_survey(survey)
    goal, norm = target_of(asked, region, edition, target, distance, held_out, human, norm)
    for path, made in prompts.items():
        _note_another_survey(path, made, asked)

    from softde.baselines import persona
    from softde.compare import compare as administer_all
    from softde.condition import Condition

    conditions = [Condition(), persona(goal.region)]
    conditions += [Condition(name=n, prompt=p) for n, p in zip(prompt_names(prompts), prompts.values(), strict=True)]
    lm = load_recorded(model, list(prompts.values()), dtype, device, revision)
    print(administer_all(lm, asked, goal, conditions, orders, norm))


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
