"""Options that say what to align to, for the commands that have a target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from softde.cli.options import path

if TYPE_CHECKING:
    from softde.surveys import Survey

Kind = Annotated[
    Literal["scores", "shares", "means", "culture-spa"],
    typer.Option("--target", help="Published factor scores; or human answers: option shares, item means, majorities."),
]
Distance = Annotated[
    Literal["js", "kl", "wasserstein"] | None, typer.Option(help="With --target shares: between shares. [default: js]")
]
HeldOut = Annotated[
    float, typer.Option("--held-out", help="With human answers: share of the items that a search does not ask.")
]
Human = Annotated[
    Path | None, typer.Option(help="File or folder of human answers. [default: what the survey names]", parser=path)
]


def target_of(
    survey: Survey, region: str, edition: str | None, kind: str, distance: str | None, held_out: float,
    human: Path | None, norm: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """The target, and the norm to give beside it: a target of human answers has its own."""
    if distance is not None and kind != "shares":
        raise ValueError(f"--distance: only --target shares has distances, not {kind}; leave it out")
    if kind == "scores":
        if held_out or human is not None:
            given = "--held-out" if held_out else "--human"
            raise ValueError(f"{given}: it goes with human answers; add --target shares, means or culture-spa")
        if survey.human and not survey.editions:
            raise ValueError(
                f"survey {survey.id!r} has no published scores, but human answers; add --target shares, means or "
                "culture-spa"
            )
        return survey.target(region, edition), norm
    if edition is not None:
        raise ValueError("--edition: it goes with published scores; leave it out, or use --target scores")
    if norm != "L1" and kind != "means":
        raise ValueError(f"--norm: --target {kind} has its own loss; leave it out")
    if human is None and not survey.human:
        raise ValueError(f"--target {kind}: survey {survey.id!r} names no human answers; add --human FILE")
    from softde.surveys.human import answers_of, load_human
    from softde.surveys.targets import CultureSPATarget, MeansTarget, SharesTarget

    answers = load_human(human, survey) if human is not None else answers_of(survey)
    if kind == "shares":
        chosen: Any = distance or "js"
        return SharesTarget.of(answers, region, chosen, held_out), "L1"
    if kind == "means":
        return MeansTarget.of(answers, region, norm, held_out), "L1"
    return CultureSPATarget.of(answers, region, held_out=held_out), "L1"
