"""What a search prints and writes, before and after."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import typer

from softde.cli.errors import Interrupted
from softde.cli.folders import PROMPT_FILE
from softde.cli.printing import filled, say

if TYPE_CHECKING:
    from softde.align import Result
    from softde.lm import LM
    from softde.surveys import Survey, Target
    from softde.surveys.targets import TargetLike


def introduce(survey: Survey, target: Target | TargetLike, edition: str | None) -> None:
    if hasattr(target, "kind"):
        print(filled(f"target: {target}"), flush=True)
        return
    others = [name for name in survey.editions if name != target.edition]
    chosen = "the newest complete edition" if edition is None else "as asked"
    also = f"; also known: {', '.join(others)}" if others else ""
    print(filled(f"target: {target} [{chosen}{also}]"))
    if survey.note:
        print(filled(f"caution: {survey.note}"))
    sys.stdout.flush()


def show_result(result: Result, lm: LM, folder: Path, norm: Any, orders: str, quiet: bool) -> None:
    from softde.baselines import persona, spoken
    from softde.compare import compare as administer_all
    from softde.condition import Condition
    from softde.files import write_file
    from softde.report import summary

    conditions = [Condition(), persona(spoken(result.target.region)), result.condition]
    comparison = administer_all(lm, result.survey, result.target, conditions, orders, norm)
    closing = summary(result.record())
    write_file(folder / "comparison.md", f"{comparison.to_markdown()}\n{closing}\n".encode())
    print(comparison if quiet else f"\n{comparison}\n\n{closing}")


def write_peft(result: Result, lm: LM, folder: Path) -> bool:
    """Write peft/; a tokenizer without reserved tokens has none, which does not fail the run."""
    try:
        result.prompt.save_peft(folder / "peft", lm)
    except ValueError as error:
        print(f"softde: note: no peft/ folder: {error}", file=sys.stderr)
        return False
    return True


def next_steps(context: typer.Context, folder: Path, target: Target | TargetLike, peft: bool) -> None:
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


def interrupted(result: Result, folder: Path, resume: bool) -> Interrupted:
    from softde.align.result import finite
    from softde.report import loss

    if sys.stderr.isatty():
        say("")  # ends the live line
    reached = loss(finite(result.plain_loss))
    return Interrupted(
        f"interrupted after {result.evaluations} candidates at loss {reached}; the best prompt so far is "
        f"{folder / PROMPT_FILE}, and the same command{'' if resume else ' without --no-resume'} goes on from here"
    )
