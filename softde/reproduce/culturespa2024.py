"""Xu et al. 2024, *Self-Pluralising Culture Alignment for Large Language Models*, CultureSPA (arXiv 2410.12971)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from softde.abilities import Quiz
from softde.align import AUTO, BUDGET
from softde.baselines import culture_spa as spa
from softde.baselines.combined import combined
from softde.baselines.cross_culture import cross_culture
from softde.baselines.culture_spa import LoRA, Question
from softde.baselines.culture_spa.questions import digest as questions_digest
from softde.baselines.self_alignment import self_alignment
from softde.checks import whole
from softde.compare import Entry, Exam
from softde.condition import UNPROMPTED, Condition
from softde.reproduce import probes
from softde.reproduce.parts import (
    LLAMA,
    Model,
    PathLike,
    People,
    Search,
    check_orders,
    folder_of,
    loaded,
    numbers,
    people,
    quizzes_of,
    regions_of,
    shares_digest,
)
from softde.reproduce.pipeline import CHANGED, Pipeline, Source
from softde.reproduce.study import Study, written
from softde.space import PromptSpace, check_tokens
from softde.surveys import Survey, load_survey
from softde.surveys.human import HumanAnswers
from softde.surveys.item_targets import Distance, SharesTarget

GROWING = frozenset({"seeds", "budget", "quizzes"})
TITLE, THINKING = "CultureSPA", "CultureSPA-CCT"


def culturespa2024(
    lm: Model = LLAMA,
    out: PathLike = "runs/culturespa2024",
    *,
    human: People | None = None,
    survey: Survey | str | None = None,
    questions: PathLike | Sequence[PathLike] | None = None,
    n: int = 1_000,
    regions: Sequence[str] | None = None,
    k: int = 5,
    similar: int = 3,
    thinking: bool = False,
    settings: LoRA = LoRA(),  # noqa: B008 (a frozen value)
    seeds: Sequence[int] = (0,),
    budget: int = BUDGET,
    most: int = 64,
    num_virtual_tokens: int = 8,
    placement: str = "late",
    distance: Distance = "js",
    orders: str = "both",
    quizzes: Sequence[Quiz] = (),
) -> Study:
    """Adapters, and a soft prompt, from questions whose answer changes with the region; beside prompting.

    Questions → answers → collection → LoRA, joint and specific; beside unprompted, P1, P2, P3, P1+P3 and P2+P3. What
    the paper has not: the collected answers as a loss for a soft prompt. All is checked before the model is loaded.

    Parameters
    ----------
    lm : a model, the name or folder of one, or a function that loads one. out : the study's folder.
    human, survey : answers of people to the items that all are compared on, see `choenni2024`.
    questions : recorded ones, files or a folder as `softde.baselines.culture_spa.load_questions` reads them. None has
        the model write n on every topic, after the survey's items.
    regions : all of the human answers' by default. k : examples of P3. similar : regions named in P2, on either side.
    thinking : adapters from answers under P2 as well, the paper's variant with cross-culture thinking.
    settings : of LoRA; few examples get smaller batches. seeds : of adapters and soft prompts.
    budget, most : of a soft prompt's search: candidates, and collected questions. quizzes : see `masoud2025`.

    Raises
    ------
    ValueError
        No human answers, or none of a region; no questions in a file; items without a topic where questions are to be
        written; a folder of another design; or a model that cannot be loaded.
    ImportError
        peft is missing.
    """
    own = load_survey(survey) if isinstance(survey, str) else survey
    given = people(human, own, "this design is scored by answers of people to survey items")
    asked = own or given.survey
    names, quizzes, seeds = regions_of(given, regions), quizzes_of(quizzes), numbers(seeds, "seeds", 0)
    items = _seeds(asked, topics=questions is None)
    recorded = None if questions is None else spa.load_questions(questions, items).kept
    whole(budget, "budget", 1), whole(most, "most", 1), whole(n, "n", 1), check_tokens(num_virtual_tokens)
    exam = Exam(
        asked.id, asked, {region: SharesTarget.of(given, region, distance) for region in names}, check_orders(orders),
        human=given,
    )  # fmt: skip
    aware = {region: spa.aware(region) for region in names}
    thought = {region: cross_culture(region, given, similar) for region in names}
    entries = list(_prompting(asked, given, aware, thought, whole(k, "k", 1)))
    record = {
        "design": "culturespa2024", "human": shares_digest(given), "survey": asked.digest, "regions": list(names),
        "questions": None if recorded is None else questions_digest(recorded), "n": n, "k": k, "similar": similar,
        "thinking": thinking, "settings": repr(settings), "seeds": list(seeds), "budget": budget, "most": most,
        "num_virtual_tokens": num_virtual_tokens, "placement": placement, "distance": distance, "orders": orders,
        "quizzes": [quiz.name for quiz in quizzes],
    }  # fmt: skip
    folder = folder_of(out, record, GROWING)
    check_peft()

    lm = loaded(lm)
    how = Search(PromptSpace.random(lm, num_virtual_tokens, placement), AUTO, budget, "forward")
    asking = probes.asking(lm, asked, orders)
    source = Source(lm, folder, items, recorded, n)
    training = probes.training(lm, source.expected[0], aware[names[0]].system, settings)
    scoring = probes.searching(lm, asked, how.space, orders)
    told = {TITLE: aware, **({THINKING: thought} if thinking else {})}
    lines = {
        title: Pipeline(title, lm, folder / title.lower(), source, conditions, settings, asking, training)
        for title, conditions in told.items()
    }
    steps = [*map(written, entries), *([source.step()] if recorded is None else [])]
    for line in lines.values():
        steps += line.steps(seeds)
    steps += [lines[TITLE].search(how, region, seed, most, scoring) for region in names for seed in seeds]
    return Study(
        "culturespa2024", lm, folder, record, tuple(steps), (exam,), asking, SHARED,
        OURS.format(most=most, budget=budget), quizzes, NOTES, GROWING,
    )  # fmt: skip


def _seeds(survey: Survey, topics: bool) -> tuple[Question, ...]:
    """The survey's items as questions: not to be repeated, and if topics are needed, to write others after."""
    survey.need_texts()
    if topics:
        return spa.seeds_of(survey)
    return tuple(
        Question(item.id, item.text, tuple(option.text for option in item.options), item.topic) for item in survey.items
    )


def _prompting(
    survey: Survey, human: HumanAnswers, aware: Mapping[str, Condition], thought: Mapping[str, Condition], k: int
) -> Iterator[Entry]:
    """The paper's prompting baselines."""
    yield Entry(UNPROMPTED, Condition())
    for region in aware:
        p1, p2, p3 = aware[region], thought[region], self_alignment(region, survey, human, k)
        conditions = {
            "P1: persona": p1, "P2: cross-culture": p2, "P3: self-alignment": p3,
            "P1 + P3": combined(p1, p3), "P2 + P3": combined(p2, p3),
        }  # fmt: skip
        yield from (Entry(method, condition, region) for method, condition in conditions.items())


def check_peft() -> None:
    """Refuse to begin without what trains adapters."""
    try:
        import peft  # noqa: F401
    except ImportError:
        raise ImportError("training adapters needs peft: pip install 'softde[lora]'") from None


NOTES = (
    "Hours of soft prompts are at most: early rejection leaves out questions that cannot change a selection.",
    f"As long as answers are not collected, {CHANGED:.1%} are taken to change with the region, as in the paper.",
    "As long as questions are not written, each text is taken to hold one, and to be as long as the survey's own.",
)
SHARED = (
    "questions on the topics of the World Values Survey, answered by the model itself as nobody in particular and as a "
    "person from each region; those kept whose answer changes; LoRA on all linear layers, one adapter for all regions "
    "and one for each; P1, P2, P3, P1+P3, P2+P3; scored by CultureSPA's score (SPA) on the items that humans answered."
)
OURS = (
    "all texts; answers are the most probable option, not written ones; option probabilities in both orders; few "
    "examples make smaller batches; identification, divergence preserved and intervals; soft prompts searched on at "
    "most {most} collected answers ({budget} candidates), which the paper has not. Tokens of adapters and soft prompts "
    "include each region's part of questions and answers."
)
