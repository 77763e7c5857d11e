"""``softde administer``: ask a survey of a model, as it is or of simulated respondents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from softde.cli.loading import load_recorded, load_survey, read_prompt
from softde.cli.options import Device, Dtype, Orders, Revision
from softde.cli.printing import WIDTH, filled, say
from softde.files import expanded

if TYPE_CHECKING:
    import numpy as np

    from softde.administer import Responses
    from softde.condition import Condition
    from softde.design import Design

TOPIC = 34  # columns of an item's topic


def administer(
    survey: Annotated[str, typer.Argument(help="A shipped survey, or your own .toml or .csv file.")],
    model: Annotated[str | None, typer.Option(help="Model to ask. [default: the prompt's, else tiny]")] = None,
    prompt: Annotated[Path | None, typer.Option(help="A soft prompt's file or run folder.")] = None,
    system: Annotated[str | None, typer.Option(help='A system text, such as "You are from Kenya."')] = None,
    respondents: Annotated[
        int, typer.Option(help="Respondents to simulate, 20 or more; 0 takes expected values of nobody in particular.")
    ] = 0,
    answers: Annotated[
        Literal["sampled", "expected"], typer.Option(help="What a respondent answers: a drawn option, or the mean.")
    ] = "sampled",
    seed: Annotated[int, typer.Option(help="Of the respondents and their draws.")] = 0,
    people: Annotated[Path | None, typer.Option(help="A .toml file of who the respondents are.")] = None,
    region: Annotated[str | None, typer.Option(help="Region in --people and in the file written.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the single answers, a row per respondent and item: .csv or .parquet.")
    ] = None,
    orders: Orders = "both",
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Ask a survey of a model, under a soft prompt or a system text, and print means, spreads and scores.

    \b
    Example:  softde administer vsm13 --respondents 50 --out answers.csv
    """
    design = _design(respondents, seed, answers, people, region)
    if out is not None and (not respondents or answers == "expected"):
        raise ValueError("--out: only drawn answers of respondents are written; add --respondents 50 --answers sampled")
    if region is not None and people is None and out is None:
        raise ValueError(
            "--region: names a region in --people and in --out; to ask the model as someone from there, use "
            f'--system "You are from {region}."'
        )
    if out is not None and not expanded(out).parent.is_dir():
        raise ValueError(f"--out: the folder {expanded(out).parent} does not exist; make it first")
    asked = load_survey(survey)
    asked.need_texts()
    soft = None if prompt is None else read_prompt(expanded(prompt))

    from softde.administer import administer as ask
    from softde.condition import Condition

    condition = Condition(system, prompt=soft)
    lm = load_recorded(model, [] if soft is None else [soft], dtype, device, revision)
    responses = ask(asked, lm, condition, orders, design=design)
    for line in _summary(responses, lm.name, condition):
        print(line)
    if out is not None:
        responses.save(out, region)
        say(f"softde: answers are in {out}")


def _design(respondents: int, seed: int, answers: str, people: Path | None, region: str | None) -> Design:
    from softde.design import Design

    if people is None:
        return Design(respondents, seed, answers)
    if not respondents:
        raise ValueError("--people: describes respondents; add --respondents 50")
    return Design.from_toml(expanded(people), region, respondents, seed, answers)


def _summary(responses: Responses, model: str, condition: Condition) -> Iterator[str]:
    """A table of factors, one of items, and how to read them."""
    import numpy as np

    survey, values = responses.survey, responses.values
    errors = np.full(len(survey.factors), np.nan) if values is None else responses.standard_errors()
    item_errors = np.full(len(survey.items), np.nan) if values is None else responses.item_errors
    people = "expected values" if values is None else f"{len(values)} respondents"
    yield filled(f"survey {survey.id}, model {model}, {condition.name}: {people}, {responses.forward_tokens:,} tokens")
    if survey.factors:
        yield ""
        yield from _table("factor", "score", survey.factors, [responses.scores(), errors])
    names = [f"{item.id}  {item.topic}"[:TOPIC] for item in survey.items]
    columns = [responses.item_means, item_errors, responses.spread, responses.option_mass]
    yield ""
    yield from _table("item", "mean", names, columns, ("deviation", "option mass"))
    yield ""
    yield filled(
        "deviation: standard deviation of answers; "
        + ("" if values is None else "error: standard error, as of a random sample; ")
        + "option mass: probability of the options among all tokens"
    )


def _table(
    kind: str, what: str, names: tuple[str, ...] | list[str], columns: list[np.ndarray], more: tuple[str, ...] = ()
) -> Iterator[str]:
    """Lines of a name and numbers; a column without any is left out."""
    shown = [(head, c) for head, c in zip((what, "error", *more), columns, strict=True) if (c == c).any()]
    width = max(map(len, (kind, *names)))
    yield f"{kind:<{width}}" + "".join(f"{head:>13}" for head, _ in shown)
    yield "-" * min(width + 13 * len(shown), WIDTH)
    for i, name in enumerate(names):
        yield f"{name:<{width}}" + "".join(f"{column[i]:>13.2f}" for _, column in shown)
