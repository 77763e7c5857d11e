"""CultureSPA from end to end on the embedded model: recorded questions, answers, collection, adapters, comparison.

    python benchmarks/bench_culture_spa.py                          # 105 questions, six regions; minutes on two cores
    python benchmarks/bench_culture_spa.py --folder runs/spa        # the same command goes on where it was interrupted
    python benchmarks/bench_culture_spa.py --questions shared/data/culturespa/generated-questions --every 40

The embedded model cannot write questions, so they are recorded ones, in softde's own words. A quarter of them is held
out: adapters and prompts are made from the others. Prints what each stage took, what was kept, and one table of methods
on the VSM 2013, which nothing here was trained on, and on the questions held out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

import softde
from softde.baselines import culture_spa as spa
from softde.baselines import persona
from softde.baselines.trained import Trained
from softde.compare import Entry, Exam, MethodTable, compare_methods
from softde.condition import Condition
from softde.lm import LM
from softde.surveys import load_survey
from softde.surveys.item_targets import SharesTarget

RECORDED = Path(__file__).with_name("culture_spa_questions.jsonl")
REGIONS = ("Japan", "France", "Pakistan", "Saudi Arabia", "India", "China")  # the last three tiny never heard of
SETTINGS = spa.LoRA(lr=1e-3, epochs=4, batch=16, micro_batch=8, save_every=5)  # CultureSPA's step has 128 of 62,127
HELD_OUT = 0.25
BUDGET, MOST, TOKENS = 128, 12, 8  # candidates, questions and virtual tokens of a soft prompt's search


@dataclass
class Clock:
    """Seconds of each stage in this session."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - began


@dataclass(frozen=True)
class Run:
    """What came out."""

    answers: spa.Answers
    collection: spa.Collection
    trained: dict[str, dict[str, Trained]]
    table: MethodTable
    seconds: dict[str, float]


def run(
    lm: LM,
    questions: Sequence[spa.Question],
    regions: Sequence[str],
    folder: Path,
    settings: spa.LoRA = SETTINGS,
    budget: int = BUDGET,
    exams: Sequence[Exam] = (),
    progress: bool = True,
) -> Run:
    """All stages, each from the file of the one before; `budget` 0 searches no soft prompt."""
    clock = Clock()
    told = {region: persona(region) for region in regions}
    with clock("answers"):
        found = spa.answer(lm, questions, told, folder / "answers.jsonl", Condition(), progress=progress)
    with clock("collection"):
        answers = spa.load_answers(folder / "answers.jsonl", questions)
        spa.collect(questions, answers, folder / "collection.jsonl")
        collection = spa.load_collection(folder / "collection.jsonl")
        seen, unseen = split(collection, questions)
    trained: dict[str, dict[str, Trained]] = {}
    for name, joint in (("joint", True), ("specific", False)):
        with clock(f"LoRA, {name}"):
            trained[f"LoRA, {name}"] = spa.train(lm, seen, folder / name, settings, joint, progress)
    entries = [Entry("unprompted", Condition())]
    entries += [Entry("persona", told[region], region) for region in regions]
    entries += [Entry.of(name, made, region) for name, mine in trained.items() for region, made in mine.items()]
    if budget:
        with clock("soft prompts"):
            entries += list(prompts(lm, seen, folder, budget, progress))
    with clock("comparison"):
        papers = [*exams, held_out_exam(unseen)]
        table = compare_methods(lm, papers, entries, checkpoint=folder / "comparison", progress=progress)
    return Run(found, collection, trained, table, clock.seconds)


def split(collection: spa.Collection, questions: Sequence[spa.Question]) -> tuple[spa.Collection, spa.Collection]:
    """The rows of most questions, and those of the questions held out."""
    drawn = np.random.default_rng(0).permutation(len(questions))[: round(HELD_OUT * len(questions))]
    held = {questions[i].id for i in drawn.tolist()}
    rows = collection.rows
    return (
        replace(collection, rows=tuple(row for row in rows if row.question.id not in held)),
        replace(collection, rows=tuple(row for row in rows if row.question.id in held)),
    )


def held_out_exam(unseen: spa.Collection) -> Exam:
    """Does a method answer as the persona did where that changed the answer, on questions that it was not made from?"""
    human = spa.collected_answers(unseen)
    targets = {region: SharesTarget.of(human, region, "kl") for region in unseen.regions}
    return Exam("questions held out", human.survey, targets, "forward", held_out="items")


def prompts(lm: LM, seen: spa.Collection, folder: Path, budget: int, progress: bool) -> Iterator[Entry]:
    """What the paper did not do: a soft prompt for each region from its questions, no weight touched."""
    for region in seen.regions:
        survey, target = spa.collected_target(seen, region, most=MOST)
        space = softde.PromptSpace.random(lm, num_virtual_tokens=TOKENS)
        result = softde.align(
            lm, survey, target, space, "auto", budget, orders="forward", progress=progress,
            checkpoint=folder / "prompts" / region.lower().replace(" ", "-"),
        )  # fmt: skip
        yield Entry.of("soft prompt, collected", result, region)


def report(done: Run, lm: LM, questions: int) -> Iterator[str]:
    """Markdown of everything."""
    yield f"model {lm.name}, {questions} questions, {len(done.answers.regions)} regions\n"
    yield "| stage | seconds | |\n|---|---|---|"
    costs = {
        "answers": f"{done.answers.forward_tokens:,.0f} tokens, {len(done.answers.left_out)} questions left out",
        "collection": f"{len(done.collection.rows)} (question, region) kept",
        **{
            name: f"loss {np.mean([made.loss for made in mine.values()]):.3f} nats, "
            f"{sum(made.forward_tokens for made in mine.values()):,.0f} forward tokens"
            for name, mine in done.trained.items()
        },
    }
    for stage, seconds in done.seconds.items():
        yield f"| {stage} | {seconds:.0f} | {costs.get(stage, '')} |"
    yield f"| all | {sum(done.seconds.values()):.0f} | |\n"
    yield f"```\n{done.collection}\n```\n"
    yield done.table.to_markdown()


def main(given: Sequence[str] | None = None) -> int:
    """Run it and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep files here, and go on with them")
    parser.add_argument("--questions", type=Path, default=RECORDED)
    parser.add_argument("--every", type=int, default=1, help="take every so many of the questions")
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args(given)
    kept = spa.load_questions(options.questions).kept[:: options.every]
    lm, survey = LM.from_pretrained(options.model), load_survey("vsm13")
    exam = Exam("VSM 2013", survey, {region: survey.target(region) for region in REGIONS}, held_out="survey")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        done = run(lm, kept, REGIONS, folder, exams=[exam])
    for line in report(done, lm, len(kept)):
        print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
