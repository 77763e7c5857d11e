"""Methods of bench_methods that are searched or trained for, each piece of work a record that is not made again."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from bench_culture_spa import RECORDED, SETTINGS
from bench_curves import settings
from bench_optim_quality import append, say

from softde.baselines import culture_spa as spa
from softde.baselines import persona, random_prompt
from softde.baselines.gradient_oracle import gradient_oracle
from softde.baselines.rounds import Rounds
from softde.baselines.searched import searched
from softde.baselines.trained import Trained
from softde.compare import Entry
from softde.compare.splits import Training
from softde.condition import Condition
from softde.lm import LM
from softde.prompt import SoftPrompt
from softde.space import PromptSpace

TOKENS, ENOUGH = 8, 0.1  # virtual tokens; the loss at which a search ends
RAND1BIN, COLLECTED = "DE rand1bin", "soft prompt, collected"
SEARCHES = {  # method → its name in bench_curves
    "random search": "random",
    "Black-Box-Tuning": "bbt",
    RAND1BIN: "rand1bin",
    "auto": "auto",
    "gradient oracle": "gradient oracle",
}
RANDOM = "random prompt"  # as long as that of RAND1BIN
ADAPTERS = {"CultureSPA, joint": True, "CultureSPA, specific": False}
ANSWERS = "CultureSPA's answers"  # a piece of work that is no method

Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Bench:
    """What is found for whom, with what, and where it is kept."""

    lm: LM
    training: Training
    regions: tuple[str, ...]
    seeds: int
    budget: int
    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "found.jsonl"

    @property
    def culture_spa(self) -> Path:
        """The folder of CultureSPA's stages, one for all that they depend on."""
        return self.folder / f"culture-spa-{_settings(self, f'{self.regions} {questions()} {SETTINGS}')}"


@dataclass(frozen=True, eq=False)
class Work:
    """A method for some regions and a seed; run : () → what it found for each region. settings : all it depends on."""

    method: str
    regions: tuple[str, ...]
    seed: int
    settings: str
    run: Callable[[], Mapping[str, Trained]]

    @property
    def key(self) -> list[Any]:
        return [self.method, [*self.regions], self.seed, self.settings]


def key(record: Record) -> list[Any]:
    return [record["method"], record["regions"], record["seed"], record["settings"]]


# ---- all of it -------------------------------------------------------------------------------------------------------


def works(bench: Bench, methods: Sequence[str]) -> list[Work]:
    """Seed by seed, so that whatever is done is done for every region and method."""
    found = []
    if {COLLECTED, *ADAPTERS} & set(methods):
        found.append(Work(ANSWERS, bench.regions, 0, _settings(bench, repr(questions())), lambda: answered(bench)))
    for seed in range(bench.seeds):
        found += [
            Work(method, bench.regions, seed, _settings(bench, repr(SETTINGS)), _training(bench, joint, seed))
            for method, joint in ADAPTERS.items()
            if method in methods
        ]
        for region in bench.regions:
            for method in [*SEARCHES, COLLECTED]:
                if method in methods or (method == RAND1BIN and RANDOM in methods):
                    found.append(_search(bench, method, region, seed))
    return found


def do(bench: Bench, left: Sequence[Work]) -> None:
    """Run pieces of work, each recorded as soon as it is done."""
    for folder in (bench.folder / "prompts", bench.culture_spa):
        folder.mkdir(parents=True, exist_ok=True)
    if bench.results.exists() and not bench.results.read_bytes().endswith(b"\n"):
        with bench.results.open("ab") as file:  # a line cut short
            file.write(b"\n")
    for done, work in enumerate(left, start=1):
        started = time.process_time()
        found = work.run()
        seconds = (time.process_time() - started) / len(work.regions)
        record = dict(zip(("method", "regions", "seed", "settings"), work.key, strict=True))
        record["found"] = {region: _kept(bench, work, region, one, seconds) for region, one in found.items()}
        append(bench.results, record)
        losses = ", ".join(f"{one.loss:.2f}" for one in found.values() if not math.isnan(one.loss))
        say(
            f"{done}/{len(left)}  {work.method}, {', '.join(work.regions)}, seed {work.seed}: "
            f"{f'loss {losses}, ' if losses else ''}{seconds:.0f} s each"
        )


def recorded(bench: Bench) -> list[Record]:
    """All records; a line that was cut short is none."""
    if not bench.results.exists():
        return []
    found = []
    for line in bench.results.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            say(f"{bench.results}: a line is cut short and will be run again")
    return found


def entries(bench: Bench, wanted: Sequence[Work], methods: Sequence[str]) -> Iterator[Entry]:
    """What was found, as it is compared; answers that several methods are made from are part of the cost of each."""
    records = {json.dumps(key(record)): record["found"] for record in recorded(bench)}
    mine = [(work, records[json.dumps(work.key)]) for work in wanted]
    shared: Record = next((found for work, found in mine if work.method == ANSWERS), {})
    for work, found in mine:
        for region, one in found.items() if work.method != ANSWERS else ():
            condition = _condition(bench, one)
            if work.method in methods:
                also = {} if work.method in SEARCHES else shared[region]
                tokens, seconds = (one[name] + also.get(name, 0.0) for name in ("tokens", "seconds"))
                yield Entry(work.method, condition, region, work.seed, tokens, seconds)
            if work.method == RAND1BIN and RANDOM in methods:
                assert condition.prompt is not None
                yield Entry(RANDOM, random_prompt(condition.prompt, work.seed), region, work.seed)


# ---- soft prompts ----------------------------------------------------------------------------------------------------


def _search(bench: Bench, method: str, region: str, seed: int) -> Work:
    how = settings(SEARCHES.get(method, "auto"), TOKENS * bench.lm.hidden_size, bench.budget)
    if method == COLLECTED:
        made = f"{how!r}, {bench.budget}, {_settings(bench, repr(questions()))}, of {bench.regions}"
        return Work(method, (region,), seed, made, lambda: {region: collected(bench, how, region, seed)})
    made = _settings(bench, f"{how!r}, {bench.budget}")
    return Work(method, (region,), seed, made, lambda: {region: search(bench, how, region, seed)})


def search(bench: Bench, how: Any, region: str, seed: int) -> Trained:
    """A soft prompt for the published scores."""
    space, given = PromptSpace.random(bench.lm, TOKENS, "late"), bench.training.arguments(region)
    if isinstance(how, Rounds):
        return gradient_oracle(
            bench.lm, **given, space=space, budget=bench.budget, seed=seed, rounds=how, target_loss=ENOUGH,
            progress=False,
        )  # fmt: skip
    return searched(
        bench.lm, **given, space=space, optimizer=how, budget=bench.budget, seed=seed, target_loss=ENOUGH,
        progress=False,
    )  # fmt: skip


def collected(bench: Bench, how: Any, region: str, seed: int) -> Trained:
    """A soft prompt for CultureSPA's collected answers, as many questions as the survey has items."""
    most = len(bench.training.survey.items)
    survey, target = spa.collected_target(collection(bench), region, seed=seed, most=most)
    space = PromptSpace.random(bench.lm, TOKENS, "late")
    return searched(bench.lm, survey, target, space, how, bench.budget, seed, orders="forward", progress=False)


# ---- CultureSPA ------------------------------------------------------------------------------------------------------


@cache
def questions() -> tuple[spa.Question, ...]:
    """The recorded ones: the embedded model cannot write any."""
    return tuple(spa.load_questions(RECORDED).kept)


def answered(bench: Bench) -> dict[str, Trained]:
    """Stage 2, for all regions; its cost in equal shares."""
    told = {region: persona(region) for region in bench.regions}
    path = bench.culture_spa / "answers.jsonl"
    made = spa.answer(bench.lm, questions(), told, path, Condition(), progress=False)
    return {region: Trained(told[region], made.forward_tokens / len(told), 0.0) for region in told}


def collection(bench: Bench) -> spa.Collection:
    """Stage 3."""
    return spa.collect(questions(), spa.load_answers(bench.culture_spa / "answers.jsonl", questions()))


def _training(bench: Bench, joint: bool, seed: int) -> Callable[[], dict[str, Trained]]:
    """Stage 4; a region that kept no question, which does not occur here, would have no adapter."""

    def run() -> dict[str, Trained]:
        folder = bench.culture_spa / f"adapters-{seed}"
        folder.mkdir(exist_ok=True)
        return spa.train(bench.lm, collection(bench), folder, replace(SETTINGS, seed=seed), joint, progress=False)

    return run


# ---- what is kept ----------------------------------------------------------------------------------------------------


def _settings(bench: Bench, what: str) -> str:
    """A digest of all that a record depends on."""
    return hashlib.sha256(f"{what} {bench.lm.weights_sample} {bench.training.survey.digest}".encode()).hexdigest()[:12]


def _kept(bench: Bench, work: Work, region: str, found: Trained, seconds: float) -> Record:
    """A record of a condition; its soft prompt is saved beside it."""
    condition = found.condition
    loss = None if math.isnan(found.loss) else float(f"{found.loss:.6g}")
    record: Record = {"tokens": found.forward_tokens, "seconds": round(seconds, 3), "loss": loss}
    if condition.prompt is not None:
        name = re.sub(r"[^\w]+", "-", f"{work.method} {region} {work.seed} {work.settings[:6]}").lower()
        condition.prompt.save(bench.folder / "prompts" / f"{name}.safetensors")
        return {**record, "prompt": f"prompts/{name}.safetensors"}
    if condition.adapter is None:
        return record
    return {**record, "adapter": str(condition.adapter.relative_to(bench.folder)), "system": condition.system}


def _condition(bench: Bench, kept: Record) -> Condition:
    if "prompt" in kept:
        return Condition(prompt=SoftPrompt.load(bench.folder / kept["prompt"]))
    return Condition(kept["system"], adapter=bench.folder / kept["adapter"])
