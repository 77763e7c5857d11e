"""``softde reproduce``: published designs, each one command into one folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from softde.cli.folders import writable
from softde.cli.loading import load_model
from softde.cli.options import VSM, Device, Dtype, Orders, Placement, Revision, SurveyOption, numbers, path
from softde.cli.printing import say
from softde.files import expanded

if TYPE_CHECKING:
    from softde.abilities import Quiz
    from softde.lm import LM
    from softde.reproduce import Study

LLAMA = "meta-llama/Meta-Llama-3-8B-Instruct"

Model = Annotated[str, typer.Option("--model", help='A name on the Hugging Face Hub, a folder, or "tiny" (embedded).')]
Out = Annotated[Path, typer.Option(help="Folder of all results; the same command goes on with it.", parser=path)]
Plan = Annotated[bool, typer.Option("--plan", help="Print the steps, their tokens and hours, and stop.")]
Regions = Annotated[str | None, typer.Option(help="Names or codes, such as KEN,BRA. [default: all with answers]")]
People = Annotated[
    Path | None,
    typer.Option("--human", help="Answers of people: CultureSPA's folder data, or another file.", parser=path),
]
Items = Annotated[str | None, typer.Option("--survey", help="The items, if the file of answers has no texts.")]
Distance = Annotated[Literal["js", "kl", "wasserstein"], typer.Option(help="Loss, between option shares.")]
Budget = Annotated[int, typer.Option(help="Candidates scored in one search.")]
Tokens = Annotated[int, typer.Option(help="Length of a soft prompt.")]
Quizzes = Annotated[
    list[Path] | None, typer.Option("--quiz", help="CulturalBench's or MMLU's file, before and after; may be repeated.")
]

reproduce = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@reproduce.callback()
def designs() -> None:
    """Published designs: a plan with tokens and hours, resumable steps, and one table.

    \b
    Example:  softde reproduce masoud2025 --model tiny --budget 640 --seeds 0 --out runs/masoud2025
    """


@reproduce.command()
def masoud2025(
    model: Model = LLAMA,
    out: Out = Path("runs/masoud2025"),
    plan: Plan = False,
    regions: Annotated[str, typer.Option(help="Names or codes.")] = "Saudi Arabia,United States,China,India",
    survey: SurveyOption = VSM,
    edition: Annotated[str, typer.Option(help="Of the published scores.")] = "2023",
    human: Annotated[
        Path | None,
        typer.Option(help="Answers to the survey, for worked examples. [default: the nearest respondent]", parser=path),
    ] = None,
    examples: Annotated[int, typer.Option(help="Worked examples before an item.")] = 5,
    budget: Budget = 6_400,
    population: Annotated[int, typer.Option(help="Of DE.")] = 32,
    strategy: Annotated[str, typer.Option(help="Of DE, by SciPy's name.")] = "rand1bin",
    weight: Annotated[float, typer.Option("--F", help="DE's differential weight.")] = 0.5,
    crossover: Annotated[float, typer.Option("--CR", help="DE's crossover probability.")] = 0.9,
    num_virtual_tokens: Tokens = 8,
    placement: Annotated[Placement, typer.Option(help="Where soft tokens stand.")] = "late",
    seeds: Annotated[str, typer.Option(help="Of the searches.")] = "0,1,2",
    orders: Orders = "both",
    quiz: Quizzes = None,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Masoud et al. 2025 (arXiv 2503.16094): unprompted, in-context learning and differential evolution.

    \b
    Example:  softde reproduce masoud2025 --quiz CulturalBench-Easy.csv --quiz CulturalBench-Hard.csv --plan
    """
    from softde import reproduce as designs

    _alone()
    _do(
        designs.masoud2025(
            _loader(model, dtype, device, revision), writable(out), regions=_names(regions) or (), survey=survey,
            edition=edition, human=human, k=examples, budget=budget, population=population, strategy=strategy, F=weight,
            CR=crossover, num_virtual_tokens=num_virtual_tokens, placement=placement,
            seeds=numbers(seeds, "seeds"), orders=orders, quizzes=_quizzes(quiz),
        ),
        plan,
    )  # fmt: skip


@reproduce.command()
def choenni2024(
    model: Model = LLAMA,
    out: Out = Path("runs/choenni2024"),
    plan: Plan = False,
    human: People = None,
    survey: Items = None,
    translation: Annotated[
        list[str] | None, typer.Option("--translation", help="The same items in another language; may be repeated.")
    ] = None,
    regions: Regions = None,
    examples: Annotated[str, typer.Option(help="Numbers of worked examples before an item.")] = "1,3,5,10",
    ablated: Annotated[int, typer.Option(help="How many of another region, reversed, and with a persona.")] = 5,
    distance: Distance = "js",
    orders: Orders = "both",
    quiz: Quizzes = None,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Choenni and Shutova 2024 (arXiv 2408.16482): worked examples from people's answers.

    \b
    Example:  softde reproduce choenni2024 --human CultureSPA/data --regions USA,CHN,KEN --plan
    """
    from softde import reproduce as designs

    _alone()
    _do(
        designs.choenni2024(
            _loader(model, dtype, device, revision), writable(out), human=human, survey=survey,
            translations=translation or (), regions=_names(regions), k=numbers(examples, "examples"), ablated=ablated,
            distance=distance, orders=orders, quizzes=_quizzes(quiz),
        ),
        plan,
    )  # fmt: skip


@reproduce.command()
def culturespa2024(
    model: Model = LLAMA,
    out: Out = Path("runs/culturespa2024"),
    plan: Plan = False,
    human: People = None,
    survey: Items = None,
    questions: Annotated[
        list[Path] | None,
        typer.Option("--questions", help="Recorded questions: files, or a folder of them. [default: the model writes]"),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Questions per topic, where the model writes them.")] = 1_000,
    regions: Regions = None,
    examples: Annotated[int, typer.Option(help="Worked examples before an item (P3).")] = 5,
    similar: Annotated[int, typer.Option(help="Regions named as similar, and as different (P2).")] = 3,
    thinking: Annotated[bool, typer.Option("--thinking", help="Adapters from answers under P2 as well.")] = False,
    rank: Annotated[int, typer.Option(help="Of LoRA.")] = 8,
    lr: Annotated[float, typer.Option(help="LoRA's highest step size.")] = 1e-4,
    epochs: Annotated[int, typer.Option(help="Of LoRA.")] = 1,
    batch: Annotated[int, typer.Option(help="Examples per step of LoRA.")] = 128,
    budget: Budget = 3_200,
    most: Annotated[int, typer.Option(help="Collected questions that a soft prompt is searched on.")] = 64,
    num_virtual_tokens: Tokens = 8,
    placement: Annotated[Placement, typer.Option(help="Where soft tokens stand.")] = "late",
    seeds: Annotated[str, typer.Option(help="Of adapters and soft prompts.")] = "0",
    distance: Distance = "js",
    orders: Orders = "both",
    quiz: Quizzes = None,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Xu et al. 2024 (arXiv 2410.12971): adapters from questions whose answer changes with the region.

    \b
    Example:  softde reproduce culturespa2024 --human CultureSPA/data --questions generated-questions --plan
    """
    from softde import reproduce as designs
    from softde.baselines.culture_spa import LoRA

    _alone()
    _do(
        designs.culturespa2024(
            _loader(model, dtype, device, revision), writable(out), human=human, survey=survey,
            questions=questions, n=n, regions=_names(regions), k=examples, similar=similar, thinking=thinking,
            settings=LoRA(rank=rank, alpha=2.0 * rank, lr=lr, epochs=epochs, batch=batch),
            seeds=numbers(seeds, "seeds"), budget=budget, most=most, num_virtual_tokens=num_virtual_tokens,
            placement=placement, distance=distance, orders=orders, quizzes=_quizzes(quiz),
        ),
        plan,
    )  # fmt: skip


def _do(study: Study, only_plan: bool) -> None:
    """Print the plan, and unless that is all, run the study and print its table."""
    from softde import reproduce as designs

    made = designs.plan(study)
    print(made)
    if only_plan:
        return
    print()
    print(designs.run(study, made))
    say(f"softde: the table is in {study.folder / 'table.md'}, its rows in {study.folder / 'rows.csv'}")


def _loader(model: str, dtype: str | None, device: str | None, revision: str | None) -> Callable[[], LM]:
    return lambda: load_model(model, dtype, device, revision)


def _names(regions: str | None) -> list[str] | None:
    return None if regions is None else [name.strip() for name in regions.split(",")]


def _quizzes(files: Sequence[Path] | None) -> list[Quiz]:
    from softde.abilities import load_quiz

    return [load_quiz(expanded(file)) for file in files or ()]


def _alone() -> None:
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ValueError("softde reproduce runs in one process, since all write one folder; start it without torchrun")
