"""``softde verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softde.cli.loading import load_recorded, load_survey, read_prompt, recorded_survey
from softde.cli.options import Device, Dtype, Revision
from softde.cli.printing import filled
from softde.files import expanded


def verify(
    file: Annotated[Path, typer.Argument(help="A soft prompt's file or run folder.")],
    model: Annotated[str | None, typer.Option(help="Model to ask. [default: the one it was made with]")] = None,
    survey: Annotated[str | None, typer.Option(help="Its survey. [default: the one it was made with]")] = None,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
) -> int:
    """Ask a model again what a soft prompt's file says it answered.

    \b
    Example:  softde verify runs/saudi-arabia/prompt.safetensors --model tiny
    """
    prompt = read_prompt(expanded(file))

    from softde.verify import recorded
    from softde.verify import verify as ask_again

    recorded(prompt)  # without a record, no survey or model helps
    asked = recorded_survey(prompt, file) if survey is None else load_survey(survey)
    lm = load_recorded(model, [prompt], dtype, device, revision)
    outcome = ask_again(prompt, lm, asked)
    print(filled(str(outcome)))
    return 0 if outcome.ok else 1
