"""Options that commands share, and how their texts are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

TINY, VSM = "tiny", "vsm13"

Region = Annotated[str, typer.Argument(help='A region by name, alias or ISO code, such as "Saudi Arabia" or SA.')]
SurveyOption = Annotated[str, typer.Option("--survey", help="A shipped survey, or your own .toml or .csv file.")]
Edition = Annotated[
    str | None, typer.Option(help="Edition of the published scores. [default: the newest complete one]")
]
ModelOption = Annotated[
    str, typer.Option("--model", help='"tiny" (embedded), a folder, or a name on the Hugging Face Hub.')
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16. [default: float32 on a CPU]")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N. [default: cuda if there is one]")]
Norm = Annotated[Literal["L1", "L2"], typer.Option(help="How errors over the factors make one loss.")]
Placement = Literal["front", "after_bos", "system", "user_start", "late"]
Orders = Annotated[
    Literal["both", "forward", "reversed"], typer.Option(help="How the options are listed; both are averaged.")
]


def path(text: str) -> Path:
    if not text:
        raise typer.BadParameter("expected a folder, got an empty text; '.' is this folder.")
    return Path(text)


def numbers(text: str, name: str) -> list[int]:
    """Whole numbers from a text such as 0,1,2."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--{name}: expected whole numbers with commas between them, such as 0,1,2, got {text!r}"
        ) from None
