"""The commands, in the order of ``softde --help``. Each has a file: it parses, checks what is cheap, calls, prints."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from softde.cli.abilities import abilities
from softde.cli.administer import administer
from softde.cli.align import align
from softde.cli.compare import compare
from softde.cli.culture_spa import culture_spa
from softde.cli.errors import Interrupted
from softde.cli.explain import explain_plan
from softde.cli.instruments import check, template
from softde.cli.printing import WIDTH
from softde.cli.reproduce import reproduce
from softde.cli.score_answers import score_answers
from softde.cli.surveys import regions, surveys
from softde.cli.surveys_import import import_survey
from softde.cli.verify import verify


class Commands(TyperGroup):
    """Says the same about Ctrl-C in every version of typer."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("interrupted; the same command goes on from its last checkpoint, if it has one") from None


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


app = typer.Typer(
    name="softde",
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
)

app.callback(invoke_without_command=True)(softde)
app.command(epilog="Docs: docs/ in the repository.")(align)
app.command()(compare)
app.command()(abilities)
app.command()(administer)
app.command()(verify)
app.command("explain-plan")(explain_plan)
shelf = typer.Typer(cls=Commands, invoke_without_command=True, rich_markup_mode=None, callback=surveys)
shelf.command()(template)
shelf.command()(check)
shelf.command("import")(import_survey)
app.add_typer(shelf, name="surveys")
app.add_typer(culture_spa, name="culture-spa", cls=Commands)
app.add_typer(reproduce, name="reproduce", cls=Commands)
app.command()(regions)
app.command("score-answers")(score_answers)
