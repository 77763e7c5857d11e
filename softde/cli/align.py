"""``softde align``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from softde.cli.folders import slug, writable
from softde.cli.loading import load_model, load_survey
from softde.cli.options import (
    TINY,
    VSM,
    Device,
    Dtype,
    Edition,
    ModelOption,
    Norm,
    Orders,
    Placement,
    Region,
    Revision,
    SurveyOption,
    path,
)
from softde.cli.outcome import interrupted, introduce, next_steps, show_result, write_peft
from softde.cli.printing import rank
from softde.cli.search import (
    budget_of,
    check_stops,
    check_tokens,
    gradient_of,
    optimizer_of,
    readout_of,
    seeds_of,
    side_effects_of,
    space_of,
)
from softde.cli.targets import Distance, HeldOut, Human, Kind, target_of


def align(
    context: typer.Context,
    region: Region,
    model: ModelOption = TINY,
    survey: SurveyOption = VSM,
    edition: Edition = None,
    placement: Annotated[
        Placement | None,
        typer.Option(help="Where soft tokens stand: late (end of the user's text) costs least. [default: late]"),
    ] = None,
    num_virtual_tokens: Annotated[
        int | None, typer.Option(help="Length of the soft prompt. [default: 8, or that of --init-text]")
    ] = None,
    init_text: Annotated[str | None, typer.Option(help="Start around the embeddings of this text.")] = None,
    optimizer: Annotated[
        str, typer.Option(help="auto, or de, shade, jso, cma, cma-gn, shade-gn, bbt, es, spsa, pso, ... by name.")
    ] = "auto",
    strategy: Annotated[
        str | None, typer.Option(help="With --optimizer de: SciPy's name of a strategy. [default: currenttopbest1bin]")
    ] = None,
    population: Annotated[
        int | None, typer.Option(help="Candidates per generation. [default: the optimiser's own]")
    ] = None,
    budget: Annotated[int | None, typer.Option(help="Candidates scored in all. [default: 3200]")] = None,
    seed: Annotated[int, typer.Option(help="The whole run follows from it.")] = 0,
    seeds: Annotated[
        str | None, typer.Option(help="Several searches side by side, such as 0,1,2, each in OUT/seed-N.")
    ] = None,
    readout: Annotated[
        Literal["expected", "argmax", "sampled", "sequence", "generated"],
        typer.Option(help="What counts as an answer."),
    ] = "expected",
    draws: Annotated[
        Literal["fixed", "fresh"], typer.Option(help="For sampled answers: the same luck all along, or anew each time.")
    ] = "fixed",
    target: Kind = "scores",
    distance: Distance = None,
    held_out: HeldOut = 0.0,
    human: Human = None,
    side_effects: Annotated[
        float | None, typer.Option(help="Weight of a loss, in bits, for what changes in answers to neutral texts.")
    ] = None,
    norm: Norm = "L1",
    orders: Orders = "both",
    target_loss: Annotated[float | None, typer.Option(help="Stop at this loss.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many candidates without a better one.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Stop after so much time, over all sessions.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Stop after so many tokens through the model.")] = None,
    warm_start: Annotated[
        int | None, typer.Option(help="Begin with so many gradient steps; each costs as much as three candidates.")
    ] = None,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. [default: runs/REGION]", parser=path)] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with a run found there, or set it aside.")
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the table only.")] = False,
) -> None:
    """Search a soft prompt under which the model answers like a region.

    Ctrl-C ends cleanly with the best prompt so far; the same command goes on. Several processes share the work with
    torchrun --nproc-per-node 2 -m softde align ...

    \b
    Example:  softde align "Saudi Arabia" --model tiny --budget 3200 --out runs/saudi-arabia
    """
    quiet = quiet or rank() > 0
    asked = load_survey(survey)
    goal, norm = target_of(asked, region, edition, target, distance, held_out, human, norm)
    folder = writable(out or Path("runs") / slug(goal.region))
    limit = budget_of(optimizer, strategy, population, budget, readout, draws)
    several = seeds_of(seed, seeds)
    steps = gradient_of(warm_start)
    beside = side_effects_of(side_effects)
    check_stops(target_loss, patience, max_seconds, max_tokens)
    check_tokens(num_virtual_tokens)
    if not quiet:
        introduce(asked, goal, edition)
    from softde.parallel import local_device, ranks

    lm = ranks().agree(lambda: load_model(model, dtype, local_device(device), revision, quiet))
    space = space_of(lm, init_text, num_virtual_tokens, placement)
    if target == "scores":
        lm.plan(asked, None, space.placement, orders)  # refuses labels that are not one token before a folder is made

    from softde.align import align as search

    engine = optimizer_of(optimizer, strategy, population, limit, space.dim, readout, draws)
    found = search(
        lm, asked, goal, space, engine, limit, seed, norm, None, orders, folder, resume, not quiet,
        readout=readout_of(readout), draws=draws, seeds=several, target_loss=target_loss, patience=patience,
        max_seconds=max_seconds, max_tokens=max_tokens, warm_start=steps, side_effects=beside,
    )  # fmt: skip
    results = {folder / f"seed-{r.seed}": r for r in found} if isinstance(found, tuple) else {folder: found}
    for place, result in results.items():
        if result.interrupted:
            raise interrupted(result, place, resume)
    if rank() > 0:
        return
    for place, result in results.items():
        written = write_peft(result, lm, place)
        show_result(result, lm, place, norm, orders, quiet)
        if not quiet:
            next_steps(context, place, goal, written)
