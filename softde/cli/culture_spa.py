"""``softde culture-spa``: questions, answers, a collection and adapters, each from file to file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softde.cli.loading import load_model
from softde.cli.options import TINY, Device, Dtype, ModelOption, Revision, path
from softde.cli.printing import filled
from softde.files import expanded

if TYPE_CHECKING:
    from softde.baselines.culture_spa import Question
    from softde.condition import Condition

Questions = Annotated[
    list[Path], typer.Argument(help="Files of questions, .json or .jsonl, gzipped or not, or a folder of them.")
]
Seeds = Annotated[Path | None, typer.Option(help="Survey or file of questions; those that repeat one are left out.")]
Out = Annotated[Path, typer.Option(help="File to write, .jsonl; the same command goes on with it.", parser=path)]

culture_spa = typer.Typer(rich_markup_mode=None)


@culture_spa.callback(invoke_without_command=True)
def stages(context: typer.Context) -> None:
    """CultureSPA: adapters from questions whose answer changes when a model is told where it is from.

    \b
    Example:  softde culture-spa answer questions.jsonl --region Kenya --region Brazil --out answers.jsonl
              softde culture-spa collect questions.jsonl --answers answers.jsonl --out collection.jsonl
              softde culture-spa train collection.jsonl --out runs/culture-spa
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


@culture_spa.command()
def generate(
    seeds: Annotated[Path, typer.Option(help="Survey, or .json or .jsonl file of questions, with a topic each.")],
    out: Out,
    model: Annotated[str, typer.Option(help="Model that writes: a folder, or a name on the Hugging Face Hub.")],
    n: Annotated[int, typer.Option("-n", help="Questions per topic.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of examples and texts.")] = 0,
    temperature: Annotated[float, typer.Option(help="Of the texts.")] = 0.9,
    top_p: Annotated[float, typer.Option(help="Share of the probability that tokens are drawn from.")] = 0.95,
    max_new_tokens: Annotated[int, typer.Option(help="Longest text.")] = 256,
    at_once: Annotated[int, typer.Option(help="Questions of a topic in one forward.")] = 1,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Have a model write questions on every topic of the seeds.

    \b
    Example:  softde culture-spa generate --seeds wvs_questions.json --model Qwen/Qwen3-8B --out questions.jsonl
    """
    from softde.baselines import culture_spa as spa
    from softde.baselines.culture_spa.records import jsonl

    given = _seeds(seeds)
    jsonl(out)
    lm = load_model(model, dtype, device, revision)
    print(filled(str(spa.generate(spa.LMWriter(lm, temperature, top_p, max_new_tokens), given, out, n, seed, at_once))))


@culture_spa.command()
def answer(
    questions: Questions,
    region: Annotated[list[str], typer.Option("--region", help="A region by name or code; may be repeated.")],
    out: Out,
    aware: Annotated[
        str | None, typer.Option(help="What the model is told, with the place {region} or {adjective}.")
    ] = None,
    unaware: Annotated[str | None, typer.Option(help='And for nobody in particular; "" for nothing.')] = None,
    cross_culture: Annotated[
        Path | None, typer.Option(help="CultureSPA's data folder: think of similar and different regions as well.")
    ] = None,
    systems: Annotated[Path | None, typer.Option(help="A .json file of texts by region, instead of --aware.")] = None,
    sampled: Annotated[int | None, typer.Option(help="Draw answers by this seed, not the most probable one.")] = None,
    seeds: Seeds = None,
    batch: Annotated[int, typer.Option(help="Questions asked and written together.")] = 64,
    model: ModelOption = TINY,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Ask every question of nobody in particular and of a person from each region.

    \b
    Example:  softde culture-spa answer questions.jsonl --region Kenya --region Brazil --out answers.jsonl
    """
    from softde.baselines import culture_spa as spa
    from softde.baselines.culture_spa.records import jsonl
    from softde.condition import Condition
    from softde.readouts import Argmax, Sampled

    jsonl(out)
    told = _conditions(region, aware, cross_culture, systems)
    kept = _questions(questions, seeds)
    lm = load_model(model, dtype, device, revision)
    nobody = spa.unaware() if unaware is None else Condition(unaware or None)
    readout = Argmax() if sampled is None else Sampled(1, sampled)
    print(filled(str(spa.answer(lm, kept, told, out, nobody, readout, batch=batch))))


@culture_spa.command()
def collect(
    questions: Questions,
    answers: Annotated[
        list[str], typer.Option("--answers", help='A file of `answer`; or others\' files as "Kenya=a.json", "=b.json".')
    ],
    out: Out,
    systems: Annotated[
        Path | None, typer.Option(help="For others' files: a .json file of what the model was told, by region.")
    ] = None,
    seeds: Seeds = None,
) -> None:
    """Keep a question for a region where the answer there is another than nobody's. Loads no model.

    \b
    Example:  softde culture-spa collect questions.jsonl --answers answers.jsonl --out collection.jsonl
    """
    from dataclasses import replace

    from softde.baselines import culture_spa as spa

    kept = _questions(questions, seeds)
    found = spa.load_answers(_files(answers), kept)
    if systems is not None:
        found = replace(found, systems={**found.systems, **_texts(systems)})
    print(spa.collect(kept, found, out))


@culture_spa.command()
def train(
    collection: Annotated[Path, typer.Argument(help="The file that `collect` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder of the adapters; the same command goes on with it.", parser=path)],
    systems: Annotated[
        Path | None,
        typer.Option(help="A .json file of what the model is told, by region, where the collection does not say."),
    ] = None,
    specific: Annotated[bool, typer.Option("--specific", help="An adapter per region, not one for all.")] = False,
    rank: Annotated[int, typer.Option(help="Of the changes of weights.")] = 8,
    alpha: Annotated[float, typer.Option(help="Changes are scaled by alpha / rank.")] = 16.0,
    lr: Annotated[float, typer.Option(help="Highest step size.")] = 1e-4,
    warmup: Annotated[float, typer.Option(help="Share of the steps until it is reached.")] = 0.1,
    epochs: Annotated[int, typer.Option(help="How often every example is seen.")] = 1,
    batch: Annotated[int, typer.Option(help="Examples per step.")] = 128,
    micro_batch: Annotated[int, typer.Option(help="Examples per forward.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the first weights and the order of examples.")] = 0,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 20,
    model: ModelOption = TINY,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Train LoRA adapters on the collected answers; the model itself stays as it is.

    \b
    Example:  softde culture-spa train collection.jsonl --out runs/culture-spa
    """
    from softde.baselines import culture_spa as spa
    from softde.baselines.culture_spa.injected import need_peft

    settings = spa.LoRA(rank, alpha, lr, warmup, epochs, batch, micro_batch, seed=seed, save_every=save_every)
    rows = spa.load_collection(collection, None if systems is None else _texts(systems))
    for told in rows.regions:
        rows.told(told)
    need_peft()
    lm = load_model(model, dtype, device, revision)
    for region, made in spa.train(lm, rows, out, settings, joint=not specific).items():
        print(f"{region}: loss {made.loss:.4f}, adapter {made.condition.adapter}")


def _seeds(file: Path) -> tuple[Question, ...]:
    from softde.baselines import culture_spa as spa
    from softde.surveys import load_survey, shipped_surveys

    if str(file) in shipped_surveys():
        return spa.seeds_of(load_survey(str(file)))
    place = expanded(file)
    return spa.seeds_of(load_survey(place)) if place.suffix.lower() in (".toml", ".csv") else spa.load_seeds(place)


def _questions(files: Sequence[Path], seeds: Path | None) -> tuple[Question, ...]:
    """The questions that are kept, said in a line."""
    from softde.baselines import culture_spa as spa

    found = spa.load_questions(files, () if seeds is None else _seeds(seeds))
    print(filled(str(found)))
    return found.kept


def _conditions(
    regions: Sequence[str], template: str | None, cross: Path | None, systems: Path | None
) -> dict[str, Condition]:
    """What makes the model aware of each region."""
    from softde.baselines import cross_culture
    from softde.baselines import culture_spa as spa
    from softde.condition import Condition
    from softde.surveys.human import load_culture_spa

    given = {"--aware": template, "--cross-culture": cross, "--systems": systems}
    several = [name for name, value in given.items() if value is not None]
    if len(several) > 1:
        raise ValueError(f"{several[1]}: says what the model is told, and so does {several[0]}; give one of them")
    if cross is not None:
        human = load_culture_spa(cross)
        return {region: cross_culture(region, human) for region in regions}
    if systems is not None:
        texts = _texts(systems)
        missing = [region for region in regions if region not in texts]
        if missing:
            raise ValueError(f"--systems: {systems} has no text for {missing[0]!r}; add it")
        return {region: Condition(texts[region]) for region in regions}
    return {region: spa.aware(region, *filter(None, [template])) for region in regions}


def _texts(file: Path) -> dict[str, str]:
    try:
        found: Any = json.loads(expanded(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: no JSON ({error}); expected texts by region") from None
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError(f'{file}: expected texts by region, such as {{"Kenya": "You are from Kenya."}}')
    return found


def _files(answers: Sequence[str]) -> Path | Mapping[str, Path]:
    """One file of ours, or others' by region."""
    if len(answers) == 1 and ("=" not in answers[0] or expanded(answers[0]).is_file()):
        return expanded(answers[0])
    if not all("=" in given for given in answers):
        raise ValueError('--answers: expected one file of `answer`, or others\' files as "region=file" and "=file"')
    return {region: expanded(file) for region, _, file in (given.partition("=") for given in answers)}
