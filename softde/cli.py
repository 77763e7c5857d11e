"""The command line: one command per public verb. Each parses, checks what is cheap, calls, prints."""

from __future__ import annotations

import logging
import os
import sys
import textwrap
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from softde.files import expanded

if TYPE_CHECKING:
    from softde.align import Result
    from softde.lm import LM
    from softde.prompt import SoftPrompt
    from softde.space import PromptSpace
    from softde.surveys import Survey, Target

WIDTH = 100
TINY, VSM = "tiny", "vsm13"
PROMPT_FILE = "prompt.safetensors"


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C, with what to say about it."""


class Commands(TyperGroup):
    """Says the same about Ctrl-C in every version of typer."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("interrupted; the same command goes on from its last checkpoint, if it has one") from None


def _path(text: str) -> Path:
    if not text:
        raise typer.BadParameter("expected a folder, got an empty text; '.' is this folder.")
    return Path(text)


app = typer.Typer(
    name="softde",
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
)

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


@app.callback(invoke_without_command=True)
def softde(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print it.")] = False
) -> None:
    """Align a frozen language model with a region's published survey scores by searching a soft prompt.

    \b
    Example:  softde align "Saudi Arabia"
    """
    if version:
        from softde import __version__

        print(f"softde {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command(epilog="Docs: docs/ in the repository.")
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
        str, typer.Option(help="auto, or de, shade, lshade, jso, cma, bbt, es, spsa, pso, random, ... by name.")
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
    out: Annotated[Path | None, typer.Option(help="Folder of the run. [default: runs/REGION]", parser=_path)] = None,
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
    quiet = quiet or _rank() > 0
    asked = _load_survey(survey)
    target = asked.target(region, edition)
    folder = _writable(out or Path("runs") / _slug(target.region))
    limit = _budget(optimizer, strategy, population, budget)
    several = None if seeds is None else _numbers(seeds, "seeds")
    steps = _gradient(warm_start)
    _check_stops(target_loss, patience, max_seconds, max_tokens)
    _check_tokens(num_virtual_tokens)
    if not quiet:
        _introduce(asked, target, edition)
    from softde.parallel import local_device, ranks

    lm = ranks().agree(lambda: _load(model, dtype, local_device(device), revision, quiet))
    space = _space(lm, init_text, num_virtual_tokens, placement)
    lm.plan(asked, None, space.placement, orders)  # refuses labels that are not one token before a folder is made

    from softde.align import align as search

    engine = _optimizer(optimizer, strategy, population, limit, space.dim, readout, draws)
    found = search(
        lm, asked, target, space, engine, limit, seed, norm, None, orders, folder, resume, not quiet,
        readout=_readout(readout), draws=draws, seeds=several, target_loss=target_loss, patience=patience,
        max_seconds=max_seconds, max_tokens=max_tokens, warm_start=steps,
    )  # fmt: skip
    results = {folder / f"seed-{r.seed}": r for r in found} if isinstance(found, tuple) else {folder: found}
    for place, result in results.items():
        if result.interrupted:
            raise _interrupted(result, place, resume)
    if _rank() > 0:
        return
    for place, result in results.items():
        written = _write_peft(result, lm, place)
        _show_result(result, lm, place, norm, orders, quiet)
        if not quiet:
            _next_steps(context, place, target, written)


@app.command()
def compare(
    region: Region,
    prompt: Annotated[
        list[Path] | None, typer.Option("--prompt", help="A soft prompt's file or run folder; may be repeated.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model to ask. [default: the first prompt's, else tiny]")] = None,
    survey: Annotated[str | None, typer.Option(help="Survey to ask. [default: the first prompt's, else vsm13]")] = None,
    edition: Edition = None,
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
    prompts = {path: _read_prompt(path) for path in map(expanded, prompt or ())}
    asked = _first_survey(prompts) if survey is None else _load_survey(survey)
    target = asked.target(region, edition)
    for path, made in prompts.items():
        _note_another_survey(path, made, asked)

    from softde.baselines import persona
    from softde.compare import compare as administer_all
    from softde.condition import Condition

    conditions = [Condition(), persona(target.region)]
    conditions += [Condition(name=n, prompt=p) for n, p in zip(_prompt_names(prompts), prompts.values(), strict=True)]
    lm = _load_recorded(model, list(prompts.values()), dtype, device, revision)
    print(administer_all(lm, asked, target, conditions, orders, norm))


@app.command()
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
    prompt = _read_prompt(expanded(file))

    from softde.verify import recorded
    from softde.verify import verify as ask_again

    recorded(prompt)  # without a record, no survey or model helps
    asked = _recorded_survey(prompt, file) if survey is None else _load_survey(survey)
    lm = _load_recorded(model, [prompt], dtype, device, revision)
    outcome = ask_again(prompt, lm, asked)
    print(_filled(str(outcome)))
    return 0 if outcome.ok else 1


@app.command("explain-plan")
def explain_plan(
    model: ModelOption = TINY,
    survey: SurveyOption = VSM,
    placement: Annotated[Placement | None, typer.Option(help="Where soft tokens stand. [default: late]")] = None,
    num_virtual_tokens: Annotated[int, typer.Option(help="Length of the soft prompt.")] = 8,
    population: Annotated[int, typer.Option(help="Candidates per generation.")] = 24,
    orders: Orders = "both",
    revision: Revision = None,
) -> None:
    """Show what a search would ask: tokens per generation, what is shared, and the work. Needs no weights.

    \b
    Example:  softde explain-plan --model meta-llama/Meta-Llama-3-8B-Instruct --placement front
    """
    from softde.lm.explain import Explanation, shape_of
    from softde.lm.layout import make_plan
    from softde.lm.loading import skeleton
    from softde.lm.template import PLACEMENTS

    asked = _load_survey(survey)
    _check_tokens(num_virtual_tokens)
    if population < 1:
        raise ValueError(f"population: expected 1 or more candidates, got {population}")
    frame, tokenizer = skeleton(model, revision)
    shape = shape_of(frame)

    def explained(name: str) -> Explanation:
        return Explanation(make_plan(tokenizer, asked, None, name, orders), population, num_virtual_tokens, shape)

    chosen = explained(placement or "late")
    print(f"{chosen}\n\ntokens per generation by placement:")
    for name in PLACEMENTS:
        try:
            tokens = f"{(chosen if name == chosen.plan.placement else explained(name)).needed:>12,}"
        except ValueError as error:
            tokens = f"{'none':>12}  {error}"
        print(_filled(f"  {name:<10}{tokens}"))


@app.command()
def surveys() -> None:
    """List the shipped surveys with their sources and cautions.

    \b
    Example:  softde surveys
    """
    from softde.surveys import load_survey, shipped_surveys

    for name in shipped_surveys():
        survey = load_survey(name)
        print(f"{survey.id}  {survey.title}, version {survey.version}, language {survey.language}")
        for label, text in (
            ("items", str(len(survey.items))),
            ("factors", ", ".join(f"{f.id} ({f.name})" for f in survey.factor_models)),
            ("variants", ", ".join(f"{survey.id}:{variant}" for variant in survey.variants)),
            ("editions", ", ".join(f"{e.name} ({len(e.scores)} regions)" for e in survey.published)),
            ("source", survey.source),
            ("caution", survey.note),
        ):
            if text:
                print(textwrap.fill(text, WIDTH, initial_indent=f"  {label:<10}", subsequent_indent=" " * 12))


@app.command()
def regions(survey: SurveyOption = VSM, edition: Edition = None) -> None:
    """List the regions of a survey with their published scores.

    \b
    Example:  softde regions --edition 2023
    """
    from softde.report import region_table

    asked = _load_survey(survey)
    if not asked.published:
        raise ValueError(f"survey {asked.id!r} has no published scores; add a [[published]] table to its file")
    print(region_table(asked, edition))


# ---- what is cheap to check, before a model is loaded ----------------------------------------------------------------


def _load_survey(name: str) -> Survey:
    from softde.surveys import load_survey

    return load_survey(name)


def _writable(folder: Path) -> Path:
    """The folder, if it can be written to or made; nothing is made yet."""
    folder = expanded(folder)
    nearest = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise ValueError(f"cannot write into {folder}: {nearest} is a file; choose another folder with --out")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write into {folder}: no permission for {nearest}; choose another folder with --out")
    return folder


ANY_DIM = 10_000  # what is checked before a model is loaded does not depend on it


def _budget(name: str, strategy: str | None, population: int | None, budget: int | None) -> int:
    """How many candidates; refuses settings that cannot work, before anything is loaded."""
    from softde.align import AUTO, BUDGET
    from softde.optim import choose, named
    from softde.optim.base import check_budget

    limit = BUDGET if budget is None else budget
    found = _optimizer(name, strategy, population, limit, ANY_DIM, "expected", "fixed")
    if isinstance(found, str):
        found = choose(ANY_DIM, limit).optimizer if found == AUTO else named(found, ANY_DIM, limit)
    check_budget(found, limit)
    return limit


def _optimizer(
    name: str, strategy: str | None, population: int | None, budget: int, dim: int, readout: str, draws: str
) -> Any:
    """The optimiser; its name alone where nothing else was asked for, since `align` knows what the budget is for."""
    from dataclasses import replace

    from softde.align import AUTO, kind_of_readout
    from softde.optim import choose, named

    if strategy is not None and name not in (AUTO, "de"):
        raise ValueError(f"--strategy: only differential evolution has strategies, not {name!r}; use --optimizer de")
    if strategy is None and population is None:
        return name
    if name == AUTO and strategy is None:
        choice = choose(dim, budget, kind_of_readout(_readout(readout), draws), population)
        if dim != ANY_DIM:
            _say(f"softde: {choice.why}")
        return choice.optimizer
    if strategy is None:
        return named(name, dim, budget, population)
    found: Any = named("de", dim, budget)
    size = found.population_size if population is None else population
    return replace(found, strategy=strategy, population_size=size)


def _check_stops(
    target_loss: float | None, patience: int | None, max_seconds: float | None, max_tokens: int | None
) -> None:
    from softde.align import Stops

    Stops(target_loss, patience, 0.0, max_seconds, max_tokens)


def _readout(name: str) -> Any:
    from softde import readouts

    kinds = {
        "argmax": readouts.Argmax, "sampled": readouts.Sampled, "sequence": readouts.SequenceLogprob,
        "generated": readouts.Generated,
    }  # fmt: skip
    return kinds[name]() if name in kinds else None


def _gradient(steps: int | None) -> Any:
    from softde.gradient import GradientSteps

    return None if steps is None else GradientSteps(steps)


def _numbers(text: str, name: str) -> list[int]:
    """Whole numbers from a text such as 0,1,2."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--{name}: expected whole numbers with commas between them, such as 0,1,2, got {text!r}"
        ) from None


def _check_tokens(num_virtual_tokens: int | None) -> None:
    from softde.space import check_tokens

    if num_virtual_tokens is not None:
        check_tokens(num_virtual_tokens)


def _read_prompt(path: Path) -> SoftPrompt:
    from softde.prompt import SoftPrompt

    if (path / "adapter_config.json").is_file() and not (path / PROMPT_FILE).exists():
        return SoftPrompt.from_peft(path)
    return SoftPrompt.load(path / PROMPT_FILE if path.is_dir() else path)


def _model_of(prompt: SoftPrompt) -> str:
    """The model that a prompt was made with."""
    name = prompt.provenance.get("model")
    if not name:
        raise ValueError("the prompt does not say which model it was made with; name one with --model")
    return str(name)


def _made_with(prompt: SoftPrompt) -> dict[str, Any]:
    """What a prompt says of the survey that it was made with."""
    return dict(prompt.provenance.get("survey") or {})


def _recorded_survey(prompt: SoftPrompt, path: Path) -> Survey:
    """The shipped survey that a prompt was made with."""
    from softde.surveys import shipped_surveys

    name = str(_made_with(prompt).get("id", "unknown"))
    if name.partition(":")[0] not in shipped_surveys():
        raise ValueError(f"{path} was made with survey {name!r}, which is not shipped; give its file with --survey")
    return _load_survey(name)


def _first_survey(prompts: Mapping[Path, SoftPrompt]) -> Survey:
    """The survey of the first prompt that knows its own."""
    first = next((path for path, prompt in prompts.items() if _made_with(prompt).get("id")), None)
    return _load_survey(VSM) if first is None else _recorded_survey(prompts[first], first)


def _note_another_survey(path: Path, prompt: SoftPrompt, asked: Survey) -> None:
    made = _made_with(prompt)
    if made.get("digest") not in (None, asked.digest):
        other = "another wording of survey" if made.get("id") == asked.id else "survey"
        _say(f"softde: note: {path} was made with {other} {made.get('id')!r}; here it is asked {asked.id!r}")


def _prompt_names(paths: Iterable[Path]) -> list[str]:
    """How prompts are called in a table: by file, or folder where the file has the usual name, as short as it goes."""
    files = [path.absolute() for path in paths]
    places = [f.parts[1:-1] if f.name == PROMPT_FILE else (*f.parts[1:-1], f.stem) for f in files]

    def name(place: tuple[str, ...]) -> str:
        others = [other for other in places if other != place]
        tails = ["/".join(place[-n:]) for n in range(1, len(place) + 1)]
        return next((t for t in tails if all(not f"/{'/'.join(o)}".endswith(f"/{t}") for o in others)), tails[-1])

    return [name(place) if place else PROMPT_FILE for place in places]


def _slug(region: str) -> str:
    """A region's name as a folder's; of a name without letters, the numbers of its characters."""
    from softde.surveys.regions import is_letter

    plain = unicodedata.normalize("NFC", region.casefold())
    words = "".join(c if is_letter(c) else " " for c in plain).split()
    return "-".join(words or (f"u{ord(c):x}" for c in region))


# ---- the model and the search ----------------------------------------------------------------------------------------


def _load(model: str, dtype: str | None, device: str | None, revision: str | None, quiet: bool = False) -> LM:
    if not quiet:
        print(f"loading model {model}", file=sys.stderr, flush=True)
    from softde.lm import LM

    return LM.from_pretrained(model, dtype, device, revision)


def _load_recorded(
    model: str | None, prompts: Sequence[SoftPrompt], dtype: str | None, device: str | None, revision: str | None
) -> LM:
    """The model asked for, or else the one that the first prompt names."""
    name = model or next(map(_model_of, prompts), TINY)
    try:
        return _load(name, dtype, device, revision)
    except ValueError as error:
        if model or not prompts:
            raise
        raise ValueError(f"{error} [the prompt names model {name!r}; --model names another, or its place]") from None


def _space(lm: LM, text: str | None, tokens: int | None, placement: str | None) -> PromptSpace:
    """A space with align's own defaults where nothing was asked for."""
    from softde.space import PromptSpace

    asked: dict[str, Any] = {"num_virtual_tokens": tokens, "placement": placement}
    given = {name: value for name, value in asked.items() if value is not None}
    return PromptSpace.random(lm, **given) if text is None else PromptSpace.from_text(lm, text, **given)


# ---- what is printed and written -------------------------------------------------------------------------------------


def _introduce(survey: Survey, target: Target, edition: str | None) -> None:
    others = [name for name in survey.editions if name != target.edition]
    chosen = "the newest complete edition" if edition is None else "as asked"
    also = f"; also known: {', '.join(others)}" if others else ""
    print(_filled(f"target: {target} [{chosen}{also}]"))
    if survey.note:
        print(_filled(f"caution: {survey.note}"))
    sys.stdout.flush()


def _show_result(result: Result, lm: LM, folder: Path, norm: Any, orders: str, quiet: bool) -> None:
    from softde.baselines import persona
    from softde.compare import compare as administer_all
    from softde.condition import Condition
    from softde.files import write_file
    from softde.report import summary

    conditions = [Condition(), persona(result.target.region), result.condition]
    comparison = administer_all(lm, result.survey, result.target, conditions, orders, norm)
    closing = summary(result.record())
    write_file(folder / "comparison.md", f"{comparison.to_markdown()}\n{closing}\n".encode())
    print(comparison if quiet else f"\n{comparison}\n\n{closing}")


def _write_peft(result: Result, lm: LM, folder: Path) -> bool:
    """Write peft/; a tokenizer without reserved tokens has none, which does not fail the run."""
    try:
        result.prompt.save_peft(folder / "peft", lm)
    except ValueError as error:
        print(f"softde: note: no peft/ folder: {error}", file=sys.stderr)
        return False
    return True


def _next_steps(context: typer.Context, folder: Path, target: Target, peft: bool) -> None:
    prompt = quote(str(folder / PROMPT_FILE))
    names = [PROMPT_FILE, *(["peft/"] if peft else []), "result.json", "comparison.md", "log.jsonl", "run.yaml"]
    print(f"\nfiles in {folder}: {', '.join(names)}\n\nnext:")
    print(f"  softde verify {prompt}{_given(context, 'verify')}")
    print(f"  softde compare {quote(target.region)} --prompt {prompt}{_given(context, 'compare')}")
    if peft:
        print(f"  in Python: peft.PeftModel.from_pretrained(model, {str(folder / 'peft')!r})")


def _given(context: Any, command: str) -> str:
    """The options given on this command line that another command has too."""
    known = {parameter.name for parameter in context.parent.command.commands[command].params}
    words = [""]
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name).name == "COMMANDLINE"
        if given and parameter.name in known and parameter.opts[0].startswith("--"):
            words += [parameter.opts[0], quote(str(context.params[parameter.name]))]
    return " ".join(words)


def _interrupted(result: Result, folder: Path, resume: bool) -> Interrupted:
    if sys.stderr.isatty():
        _say("")  # ends the live line
    return Interrupted(
        f"interrupted after {result.evaluations} candidates at loss {result.plain_loss:.1f}; the best prompt so far is "
        f"{folder / PROMPT_FILE}, and the same command{'' if resume else ' without --no-resume'} goes on from here"
    )


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


# ---- errors: one sentence and an exit code ---------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, 2 after an error that the user can mend, 130 after Ctrl-C."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # no word on each of its retries; the failure itself is told
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin crawl on a machine in use
    code = 1
    try:
        code = run(sys.argv[1:] if arguments is None else arguments)
    finally:
        if code and os.environ.get("WORLD_SIZE", "1") != "1":  # torchrun ends all ranks as soon as one has failed
            from softde.parallel import ranks

            ranks().leave()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """One command; its exit code. Anything that is nobody's mistake but ours keeps its traceback."""
    debug = os.environ.get("SOFTDE_DEBUG", "") not in ("", "0")
    with _voice(debug):
        try:
            code = app(args=list(arguments), prog_name="softde", standalone_mode=False)
            sys.stdout.flush()
            return int(code or 0)
        except BrokenPipeError:  # the reader, `head` say, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 1
        except Interrupted as stop:
            _say(f"softde: {stop}")
            return 130
        except Exception as error:
            message = _sentence(error)
            if message is None or debug:
                raise
            _say(f"softde: error: {message}")
            return 2


def _rank() -> int:
    """Which of torchrun's processes this is; the first, and one on its own, is 0. Only that one prints and writes."""
    return int(os.environ.get("RANK", "0")) if os.environ.get("WORLD_SIZE", "1") != "1" else 0


def _say(text: str) -> None:
    if _rank() == 0:
        print(text, file=sys.stderr)


def _sentence(error: Exception) -> str | None:
    """The message of an error that the user can mend, on one line; None for any other."""
    if hasattr(error, "format_message"):  # typer's own: a missing argument, an unknown option
        return _line(f"{error.format_message()} See softde --help.").replace("Value error, ", "")
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return _line(f"{place}{error.strerror or error}")
    if isinstance(error, ValueError) or (isinstance(error, ImportError) and "pip install" in str(error)):
        return _line(str(error))
    return None


def _line(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def _voice(debug: bool) -> Iterator[None]:
    """softde's own warnings as one line on standard error, others' only when debugging; odd letters never fail."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("softde: %(levelname)s: %(message)s"))
    log = logging.getLogger("softde")
    log.addHandler(handler)

    handler.addFilter(lambda _: _rank() == 0)

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if debug or category.__module__.startswith("softde"):
            _say(f"softde: warning: {_line(str(message))}")

    try:
        with (
            warnings.catch_warnings(),
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(nowhere if _rank() else sys.stdout),
        ):
            warnings.simplefilter("default")
            warnings.showwarning = show
            yield
    finally:
        log.removeHandler(handler)


if __name__ == "__main__":
    main()
