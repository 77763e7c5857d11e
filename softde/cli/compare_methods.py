"""``softde compare`` with several regions, surveys or methods: the table of methods."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softde.cli.folders import PROMPT_FILE
from softde.cli.loading import read_prompt
from softde.cli.targets import target_of
from softde.files import expanded

if TYPE_CHECKING:
    from softde.compare import Entry, Exam
    from softde.condition import Condition
    from softde.prompt import SoftPrompt
    from softde.surveys import Survey
    from softde.surveys.human import HumanAnswers

DEFAULT = "unprompted,persona"
SEARCHED = "soft prompt"  # the method of prompts that were searched for one region each


@dataclass(frozen=True)
class Method:
    """How a method makes its condition, of a region and an exam; `human` for those that need human answers."""

    make: Callable[[str, Exam, Any], Any]
    human: bool = False
    of_region: bool = True
    of_survey: bool = False


def methods() -> dict[str, Method]:
    """The methods that need no search, by name."""
    from softde.baselines.combined import combined
    from softde.baselines.cross_culture import cross_culture
    from softde.baselines.description import description
    from softde.baselines.self_alignment import self_alignment
    from softde.condition import Condition

    def named(region: str, exam: Exam, _human: Any) -> Any:
        return told(region, exam.survey.language)

    def thinking(region: str, exam: Exam, human: Any) -> Any:
        return cross_culture(region, human, language=exam.survey.language)

    def examples(region: str, exam: Exam, human: Any) -> Any:
        return self_alignment(region, exam.survey, human)

    def both(one: Callable[..., Any]) -> Callable[[str, Exam, Any], Any]:
        return lambda *given: combined(one(*given), examples(*given))

    def scores(region: str, exam: Exam, _human: Any) -> Any:
        goal: Any = exam.goals[region]
        if not hasattr(goal, "target"):
            raise ValueError("--methods description: it tells published scores; use --target scores")
        return description(region, goal.target, exam.survey)

    return {
        "unprompted": Method(lambda *_: Condition(), of_region=False),
        "persona": Method(named, of_survey=True),
        "cross-culture": Method(thinking, human=True, of_survey=True),
        "self-alignment": Method(examples, human=True, of_survey=True),
        "persona+self-alignment": Method(both(named), human=True, of_survey=True),
        "cross-culture+self-alignment": Method(both(thinking), human=True, of_survey=True),
        "description": Method(scores, of_survey=True),
    }


def told(region: str, language: str) -> Condition:
    """The persona of a region as one says it: of "the United States", in the survey's language."""
    from softde.baselines.persona import persona
    from softde.baselines.wording import spoken

    return persona(spoken(region, language), language=language)


def named_methods(text: str) -> dict[str, Method]:
    """Those of a list such as unprompted,persona."""
    from softde.surveys.values import nearest

    known, names = methods(), [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ValueError(f"--methods: no method {name!r}; {nearest(name, known)}")
    return {name: known[name] for name in names}


def human_of(survey: Survey, human: Path | None, kind: str, needed: bool) -> HumanAnswers | None:
    """The human answers that targets or methods need: of this survey, or for methods alone, of any."""
    from softde.surveys.human import answers_of, load_human

    if kind == "scores" and not needed:
        if human is not None:
            raise ValueError("--human: no method given uses human answers; add --target shares, means or culture-spa")
        return None
    if human is not None:
        return load_human(human, None if kind == "scores" else survey)
    if not survey.human:
        raise ValueError(f"survey {survey.id!r} names no human answers; add --human FILE")
    return answers_of(survey)


def exam_of(
    survey: Survey, regions: Sequence[str], people: HumanAnswers | None, kind: str, edition: str | None,
    distance: Any, held_out: float, norm: Any, orders: str,
) -> Exam:  # fmt: skip
    """One survey with a target for every region."""
    from softde.compare import Exam
    from softde.surveys.targets import CultureSPATarget, MeansTarget, SharesTarget

    if kind == "scores":
        goals = {r: target_of(survey, r, edition, kind, distance, held_out, None, norm)[0] for r in regions}
        return Exam(survey.id, survey, goals, orders, norm)
    if edition is not None or (distance is not None and kind != "shares") or (norm != "L1" and kind != "means"):
        raise ValueError(
            f"--edition, --distance, --norm: --target {kind} does not have all that were given; leave it out"
        )
    assert people is not None
    of: Mapping[str, Callable[[str], Any]] = {
        "shares": lambda region: SharesTarget.of(people, region, distance or "js", held_out),
        "means": lambda region: MeansTarget.of(people, region, norm, held_out),
        "culture-spa": lambda region: CultureSPATarget.of(people, region, held_out=held_out),
    }
    return Exam(survey.id, survey, {region: of[kind](region) for region in regions}, orders, human=people)


def written_entries(chosen: Mapping[str, Method], exams: Sequence[tuple[Exam, Any]]) -> list[Entry]:
    """Entries of the methods that need no search; those that depend on a survey, for each."""
    from softde.compare import Entry

    found = []
    for name, method in chosen.items():
        for number, (exam, human) in enumerate(exams):
            if number and not method.of_survey:
                continue
            survey = exam.survey.id if method.of_survey else None
            regions = exam.regions if method.of_region else (None,)
            found += [Entry(name, method.make(one or "", exam, human), one, survey=survey) for one in regions]
    return found


def prompt_entries(given: Mapping[str, tuple[str | None, Path, SoftPrompt]], names: Mapping[Path, str]) -> list[Entry]:
    """Soft prompts as entries: one for every region under its own name; those of a region by their number as seeds."""
    from softde.compare import Entry
    from softde.condition import Condition

    found: list[Entry] = []
    for region, path, prompt in given.values():
        tokens, seconds = _spent(path)
        method = names[path] if region is None else SEARCHED
        seed = 0 if region is None else sum(one.region == region for one in found)
        condition = Condition(prompt=prompt, name=method)
        found.append(Entry(method, condition, region, seed, tokens, seconds))
    return found


def read_prompts(texts: Sequence[str], regions: Sequence[str]) -> dict[str, tuple[str | None, Path, SoftPrompt]]:
    """REGION=PATH, or PATH alone for every region → (region, path, prompt)."""
    from softde.surveys.regions import region_name
    from softde.surveys.values import nearest

    names = [region_name(region) or region for region in regions]
    found: dict[str, tuple[str | None, Path, SoftPrompt]] = {}
    for text in texts:
        left, sign, right = text.partition("=")
        region = (region_name(left) or left) if sign and not expanded(text).exists() else None
        if region is not None and region not in names:
            raise ValueError(f"--prompt {text}: {left!r} is none of the regions; {nearest(left, names)}")
        path = expanded(text if region is None else right)
        found[text] = (region, path, read_prompt(path))
    return found


def _spent(path: Path) -> tuple[float, float]:
    """Tokens and seconds of the run that a prompt lies in, 0 where it is not known."""
    folder = path if path.is_dir() else path.parent
    try:
        record = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        known = path.is_dir() or path.name == PROMPT_FILE
        return (float(record["forward_tokens"]), float(record["wall_seconds"])) if known else (0.0, 0.0)
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0, 0.0
