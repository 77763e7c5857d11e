"""What the designs have in common: the model, when all else has been checked; and the step of a search."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from softde.abilities import Quiz
from softde.baselines.searched import searched
from softde.checks import check_kinds, shown, whole
from softde.compare import Entry
from softde.condition import Condition
from softde.files import expanded, write_file
from softde.lm import LM
from softde.lm.layout import ORDERS
from softde.optim import Optimizer
from softde.prompt import SoftPrompt
from softde.reproduce.counting import search_tokens
from softde.reproduce.records import check_folder, digest
from softde.reproduce.study import Made, Probe, Step, Work
from softde.space import PromptSpace
from softde.surveys import Survey
from softde.surveys.human import HumanAnswers, load_human
from softde.surveys.regions import region_name

LLAMA = "meta-llama/Meta-Llama-3-8B-Instruct"
PROMPT, FOUND = "prompt.safetensors", "found.json"

Model: TypeAlias = LM | str | Callable[[], LM]
PathLike: TypeAlias = str | os.PathLike[str]
People: TypeAlias = HumanAnswers | PathLike


# ---- what is checked before a model is loaded


def folder_of(out: PathLike, settings: dict[str, Any], growing: frozenset[str]) -> Path:
    """Where a study is written, if it may be."""
    folder = expanded(os.fspath(out))
    check_folder(folder, settings, growing | {"weights", "dtype"})
    return folder


def check_orders(orders: str) -> str:
    """Refuse an unknown one."""
    if orders not in ORDERS:
        raise ValueError(f"orders: expected one of {', '.join(ORDERS)}, got {orders!r}")
    return orders


def numbers(values: Sequence[int], what: str, least: int) -> tuple[int, ...]:
    """Whole numbers, one or more, each once."""
    found = tuple(whole(value, what, least) for value in values)
    if not found or len(set(found)) < len(found):
        raise ValueError(f"{what}: expected one whole number or more, each once, got {list(found)}")
    return found


def people(human: People | None, survey: Survey | None, why: str) -> HumanAnswers:
    """Human answers, from a file or as they are.

    Raises
    ------
    ValueError
        None are given; `why` says what they are for.
    """
    if human is None:
        raise ValueError(
            f"human: {why}; give a file or folder that softde.load_human reads, such as CultureSPA's folder data "
            "(--human FOLDER)"
        )
    return human if isinstance(human, HumanAnswers) else load_human(human, survey)


def regions_of(human: HumanAnswers, regions: Sequence[str] | None) -> tuple[str, ...]:
    """Names of those that are asked for, or of all."""
    rows = range(len(human.regions)) if regions is None else [human.row(region) for region in regions]
    names = tuple(region_name(human.regions[row]) or human.regions[row] for row in rows)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"regions: expected one or more, each once, got {list(regions or ())}")
    return names


def quizzes_of(quizzes: Sequence[Quiz]) -> tuple[Quiz, ...]:
    """Refuse anything else."""
    for quiz in quizzes:
        if not isinstance(quiz, Quiz):
            raise ValueError(f"quizzes: expected Quiz, got {shown(quiz)}; softde.load_quiz reads one")
    return tuple(quizzes)


def shares_digest(human: HumanAnswers | None) -> str | None:
    """Names human answers by their content."""
    if human is None:
        return None
    return digest([human.survey.digest, human.regions, human.shares.round(12).tolist()])


def loaded(lm: Model) -> LM:
    """The model: as it is, by name, or from a function that loads it."""
    found = LM.from_pretrained(lm) if isinstance(lm, str) else lm if isinstance(lm, LM) else lm()
    check_kinds({"lm": (found, LM)})
    return found


# ---- a search


@dataclass(frozen=True, eq=False)
class Search:
    """How soft prompts are searched, whatever for. orders : in which options are listed."""

    space: PromptSpace
    optimizer: Optimizer[Any] | str
    budget: int
    orders: str

    def work(self, lm: LM, survey: Survey, asking: Probe, scoring: Probe) -> tuple[Work, ...]:
        """What a search takes at most, where nothing is rejected early."""
        size = getattr(self.optimizer, "population_size", 1)
        candidates, once = search_tokens(lm, survey, self.space, self.orders, self.budget // size * size)
        return Work(candidates, scoring), Work(once, asking)

    def step(
        self, lm: LM, method: str, region: str, seed: int, folder: Path, work: Callable[[], tuple[Work, ...]],
        problem: Callable[[], tuple[Survey, Any] | None], earlier: Callable[[], float] = lambda: 0.0,
    ) -> Step:  # fmt: skip
        """One search; found.json in its folder says that it is done, with what settings and at what cost.

        problem : the survey and the target, which earlier steps may make, or not: then there is nothing to search for.
        earlier : tokens that it owes to these.
        """
        place = folder / "runs" / re.sub(r"\W+", "-", f"{method} {region} {seed}".casefold())

        def run(progress: bool) -> Made:
            asked = problem()
            if asked is None:
                return Made()
            survey, target = asked
            settings = digest(
                [self.budget, repr(self.optimizer), self.orders, self.space.record(), survey.digest, target.as_dict()]
            )
            found = _read(place / FOUND)
            if found.get("settings") != settings:
                made = searched(
                    lm, survey, target, self.space, self.optimizer, self.budget, seed, orders=self.orders,
                    checkpoint=place, progress=progress,
                )  # fmt: skip
                found = {"settings": settings, "forward_tokens": made.forward_tokens, "seconds": made.seconds}
                write_file(place / FOUND, (json.dumps(found) + "\n").encode())
            condition = Condition(prompt=SoftPrompt.load(place / PROMPT), name=method)
            tokens = found["forward_tokens"]
            return Made((Entry(method, condition, region, seed, tokens + earlier(), found["seconds"]),), tokens)

        like = Condition(prompt=SoftPrompt(self.space.centre, self.space.placement), name=method)
        return Step(f"{method}, {region}, seed {seed}", run, work, (Entry(method, like, region, seed),))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
