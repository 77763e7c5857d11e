"""CultureSPA's stages as steps of a study: questions, answers, a collection, adapters, and soft prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from softde.baselines import culture_spa as spa
from softde.baselines.culture_spa import Collection, LoRA, Question
from softde.baselines.culture_spa.prompts import task
from softde.baselines.culture_spa.records import read_rows, spent
from softde.baselines.culture_spa.train import BACKWARD
from softde.compare import Entry
from softde.condition import Condition
from softde.lm import LM
from softde.lm.template import render, token_ids
from softde.reproduce import probes
from softde.reproduce.counting import SAMPLE, askable, question_tokens, spread
from softde.reproduce.parts import Search
from softde.reproduce.study import Made, Probe, Step, Work
from softde.surveys import Survey
from softde.surveys.item_targets import SharesTarget

CHANGED = 0.269  # share of answers that change with the region: 62,127 of 18 × 12,847 in the paper's log (Llama-3-8B)
LEAST = 2  # examples that an adapter is trained on
STEPS = 10  # of a training, at least, where there are so many examples


@dataclass(frozen=True, eq=False)
class Source:
    """Where the questions come from: files that were read, or the model itself, which is still to write them.

    seeds : questions of people's own survey: none is repeated, and the model writes after them. given : those of files;
    None has n written on every topic of the seeds.
    """

    lm: LM
    folder: Path
    seeds: tuple[Question, ...]
    given: tuple[Question, ...] | None
    n: int

    @property
    def file(self) -> Path:
        """Where written questions are."""
        return self.folder / "questions.jsonl"

    @cached_property
    def texts(self) -> int:
        """How many questions are written in all."""
        return self.n * len({seed.topic for seed in self.seeds})

    def questions(self) -> tuple[Question, ...]:
        """All of them, once they are there."""
        return spa.load_questions(self.file, self.seeds).kept if self.given is None else self.given

    @property
    def expected(self) -> tuple[Sequence[Question], float]:
        """Questions to count tokens with, and how many times as many there will be."""
        return (self.seeds, self.texts / len(self.seeds)) if self.given is None else (self.given, 1.0)

    def step(self) -> Step:
        """Stage 1."""
        probe = probes.writing(self.lm, self.seeds)

        def run(progress: bool) -> Made:
            return Made((), spa.generate(self.lm, self.seeds, self.file, self.n, progress=progress).forward_tokens)

        return Step(f"{self.texts} questions", run, lambda: (Work(self.texts * self._text_tokens(), probe),))

    def _text_tokens(self) -> float:
        """Of one text: a task with five examples, and a question as long as the seeds are."""
        tokenizer, some = self.lm.tokenizer, spread(self.seeds, SAMPLE)
        system, user = task(self.seeds[0].topic, spread(self.seeds, 5))
        new = sum(len(token_ids(tokenizer, f"{seed.text} {list(seed.options)}")) for seed in some)
        return len(token_ids(tokenizer, "".join(render(tokenizer, user, system)))) + new / len(some)


@dataclass(frozen=True, eq=False)
class Pipeline:
    """From questions to adapters and soft prompts under one way of telling the model where it is from.

    title : "CultureSPA", or that of a variant. told : region → what the model is told. asking, training : probes.
    """

    title: str
    lm: LM
    folder: Path
    source: Source
    told: Mapping[str, Condition]
    settings: LoRA
    asking: Probe
    training: Probe

    @property
    def answers_file(self) -> Path:
        """Stage 2's."""
        return self.folder / "answers.jsonl"

    @property
    def collection_file(self) -> Path:
        """Stage 3's."""
        return self.folder / "collection.jsonl"

    def steps(self, seeds: Sequence[int]) -> list[Step]:
        """Stages 2 to 4: by every seed an adapter for all regions, and one for each."""
        regions = tuple(self.told)
        adapters = [self._training(f"{self.title} (joint)", seed, regions, joint=True) for seed in seeds]
        for seed in seeds:
            adapters += [self._training(f"{self.title} (specific)", seed, (r,), joint=False) for r in regions]
        return [Step(f"{self.title}: answers", self._answer, self._answer_work),
                Step(f"{self.title}: collection", self._collect, tuple), *adapters]  # fmt: skip

    # -- stages 2 and 3

    def _answer(self, progress: bool) -> Made:
        self.folder.mkdir(parents=True, exist_ok=True)
        found = spa.answer(self.lm, self.source.questions(), self.told, self.answers_file, progress=progress)
        return Made((), found.forward_tokens)

    def _answer_work(self) -> tuple[Work, ...]:
        some, times = self.source.expected
        systems = [spa.unaware().system, *(condition.system for condition in self.told.values())]
        return (Work(times * sum(question_tokens(self.lm, some, systems, "forward")), self.asking),)

    def _collect(self, _: bool) -> Made:
        questions = self.source.questions()
        spa.collect(questions, spa.load_answers(self.answers_file, questions), self.collection_file)
        return Made()

    def earlier(self) -> float:
        """A region's part of the tokens that questions and answers took."""
        written = 0.0 if self.source.given is not None else spent(self.source.file)
        return (written + spent(self.answers_file)) / len(self.told)

    # -- stage 4

    def _training(self, method: str, seed: int, regions: tuple[str, ...], joint: bool) -> Step:
        """An adapter for some regions; none is made where they kept too few questions."""

        def run(progress: bool) -> Made:
            mine = self._collected(regions)
            if mine is None:
                return Made()
            settings = fitted(replace(self.settings, seed=seed), len(mine.rows))
            found = spa.train(self.lm, mine, self.folder / f"seed-{seed}", settings, joint, progress)
            entries = [
                Entry(method, made.condition, region, seed, made.forward_tokens + self.earlier(), made.seconds)
                for region, made in found.items()
            ]
            return Made(tuple(entries), sum(made.forward_tokens for made in found.values()))

        def work() -> tuple[Work, ...]:
            tokens = sum(self._kept_tokens(region) for region in regions)
            return (Work((1 + BACKWARD) * self.settings.epochs * tokens, self.training),)

        name = method if joint else f"{method}, {regions[0]}"
        like = tuple(Entry(method, self.told[region], region, seed) for region in regions)
        return Step(f"{name}, seed {seed}", run, work, like)

    def _collected(self, regions: Sequence[str], least: int = LEAST) -> Collection | None:
        """What some regions kept, without those that kept too few; None if nothing is left."""
        if not read_rows(self.collection_file).rows:
            return None
        found = spa.load_collection(self.collection_file)
        enough = [r for r in regions if sum(row.region == r for row in found.rows) >= least]
        return replace(found, rows=tuple(row for row in found.rows if row.region in enough)) if enough else None

    def _kept_tokens(self, region: str) -> float:
        """Of the questions that a region kept, or will keep if as many answers change as in the paper."""
        system = self.told[region].system
        if self.collection_file.exists():
            kept = self._collected([region])
            return (
                question_tokens(self.lm, [row.question for row in kept.rows], [system], "forward")[0] if kept else 0.0
            )
        some, times = self.source.expected
        return CHANGED * times * question_tokens(self.lm, some, [system], "forward")[0]

    # -- what the paper has not

    def search(self, how: Search, region: str, seed: int, most: int, scoring: Probe) -> Step:
        """A soft prompt for a region's collected answers, at most so many of them; no weight is touched."""

        def problem() -> tuple[Survey, SharesTarget] | None:
            kept = self._collected([region], least=1)
            return spa.collected_target(kept, region, seed=seed, most=most) if kept else None

        def work() -> tuple[Work, ...]:
            found = problem() if self.collection_file.exists() else None
            some = askable(self.lm, spread(self.source.expected[0], most))
            survey = spa.as_survey(some) if found is None else found[0]
            return how.work(self.lm, survey, self.asking, scoring)

        name = f"{self.title} (soft prompt)"
        return how.step(self.lm, name, region, seed, self.folder, work, problem, self.earlier)


def fitted(settings: LoRA, examples: int) -> LoRA:
    """The same, with batches so small that few examples make a few steps."""
    return replace(settings, batch=max(1, min(settings.batch, examples // STEPS)))
