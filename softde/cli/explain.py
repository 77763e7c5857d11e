"""``softde explain-plan``."""

from __future__ import annotations

from typing import Annotated

import typer

from softde.cli.loading import load_survey
from softde.cli.options import TINY, VSM, ModelOption, Orders, Placement, Revision, SurveyOption
from softde.cli.printing import filled
from softde.cli.search import check_tokens


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

    asked = load_survey(survey)
    check_tokens(num_virtual_tokens)
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
        print(filled(f"  {name:<10}{tokens}"))
