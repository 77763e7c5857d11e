"""A quiz asked of a model in parts, so that memory stays flat and an interrupted run goes on where it was.

Parts depend on the quiz alone: a run that goes on asks the same ones, and its answers are those of a run in one go.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softde.abilities.quiz import Flags, Quiz
from softde.administer import administer
from softde.condition import Condition, Panel, members
from softde.files import append_lines
from softde.lm import LM
from softde.lm.adapter import adapted
from softde.readouts import Readout
from softde.surveys import Item, Survey
from softde.surveys.targets import bare

Array = NDArray[np.float64]
Line = Mapping[str, Any]
Known = Mapping[str, Mapping[str, Line]]  # run → item → what a checkpoint says of it

MOST = 64  # items asked together
BYTES = 24_000  # of their texts, some 6,000 tokens in English: their keys and values are what takes memory
KIND = "softde abilities"


@dataclass(frozen=True, eq=False)
class Sheet:
    """What a model answered to a quiz under one condition.

    probabilities : (items, options), NaN for an item without a valid answer and for one that was not asked.
    option_mass : (items,), NaN for an item that was not asked. not_asked : item → why the model could not be asked it.
    """

    quiz: Quiz
    probabilities: Array
    option_mass: Array
    not_asked: Mapping[str, str] = field(default_factory=dict)
    forward_tokens: int = 0

    @property
    def asked(self) -> Flags:
        """(items,)."""
        return np.array([item not in self.not_asked for item in self.quiz.survey.item_ids])

    @property
    def right(self) -> Flags:
        """(items,): is the right option the most probable one? No, if another is as probable, or without an answer."""
        chosen = self.probabilities[np.arange(len(self.quiz.right)), self.quiz.right]
        others = self.probabilities.copy()
        others[np.arange(len(self.quiz.right)), self.quiz.right] = -np.inf
        return np.asarray(chosen > others.max(axis=1))

    @property
    def right_probability(self) -> Array:
        """(items,) probability of the right option among the options."""
        return np.asarray(self.probabilities[np.arange(len(self.quiz.right)), self.quiz.right])


def ask(
    lm: LM,
    quiz: Quiz,
    condition: Condition | Panel,
    orders: str,
    readout: Readout,
    checkpoint: Path | None = None,
    known: Known | None = None,
    tell: Callable[[Sequence[Item], bool], None] = lambda _, __: None,
) -> Sheet:
    """Ask a quiz under a condition, part by part.

    checkpoint : file to which each part's answers are added. known : what it held before, from `read_checkpoint`.
    tell : called after each part with its items and whether they were asked just now.
    """
    run = run_key(lm, quiz, condition, orders, readout)
    found: dict[str, Line] = dict((known or {}).get(run, {}))
    adapter = condition.adapter if isinstance(condition, Condition) else None
    without_adapter = replace(condition, adapter=None, name="") if isinstance(condition, Condition) else condition
    done = {item for item in quiz.survey.item_ids if item in found}
    with adapted(lm, None if len(done) == len(quiz.survey.items) else adapter) as asked:
        for part in parts(quiz.survey):
            new = not done.issuperset(part.item_ids)
            if new:
                lines = list(_answers(asked, part, without_adapter, orders, readout))
                found |= {line["item"]: line for line in lines}
                if checkpoint is not None:
                    head = {"kind": KIND, "run": run, "model": lm.name, "quiz": quiz.name}
                    records = ({**head, "condition": condition.name, **line} for line in lines)
                    append_lines(checkpoint, map(json.dumps, records))
            tell(part.items, new)
    return _sheet(quiz, found)


def parts(survey: Survey) -> Iterator[Survey]:
    """A survey's items in parts that take a bounded memory: the longest first, so that what fails fails soon."""
    longest = sorted(survey.items, key=lambda item: -size(item))
    group: list[Item] = []
    for item in longest:
        if group and (len(group) == MOST or sum(map(size, group)) + size(item) > BYTES):
            yield bare(survey, group)
            group = []
        group.append(item)
    yield bare(survey, group)


def size(item: Item) -> int:
    """Bytes of an item's texts."""
    return len(item.text.encode()) + sum(len(option.text.encode()) for option in item.options)


def unaskable(lm: LM, survey: Survey, condition: Condition | Panel, orders: str) -> dict[str, str]:
    """Items that the model cannot be asked under a condition → why: too long, or an option that is not one token."""
    context = lm.context

    def fault(part: Survey) -> str:
        for member in members(condition):
            try:
                plan = lm.plan(part, member.system, member.placement, orders, examples=member.examples)
            except ValueError as error:
                return str(error)
            soft = member.prompt.num_virtual_tokens if member.prompt else 0
            if context and plan.longest + soft > context:
                return (
                    f"item {part.items[0].id!r} has {plan.longest} tokens and the prompt {soft}, but the model reads "
                    f"{context}"
                )
        return ""

    if not fault(survey):
        return {}
    return {item.id: why for item in survey.items if (why := fault(bare(survey, [item])))}


def _answers(
    lm: LM, part: Survey, condition: Condition | Panel, orders: str, readout: Readout
) -> Iterator[dict[str, Any]]:
    """What a checkpoint keeps of each item of a part."""
    refused_items = unaskable(lm, part, condition, orders)
    for name, why in refused_items.items():
        yield {"item": name, "not_asked": why}
    left = [item for item in part.items if item.id not in refused_items]
    if not left:
        return
    responses = administer(bare(part, left), lm, condition, orders, readout=readout)
    for i, item in enumerate(left):
        shares = responses.probabilities[i, : len(item.options)]
        yield {
            "item": item.id,
            "probabilities": None if np.isnan(shares).any() else shares.tolist(),
            "option_mass": float(responses.option_mass[i]) if np.isfinite(responses.option_mass[i]) else None,
            "tokens": 0 if i else responses.forward_tokens,  # of all of them together
        }


def _sheet(quiz: Quiz, lines: Mapping[str, Line]) -> Sheet:
    probabilities = np.full(quiz.survey.option_values.shape, np.nan)
    mass = np.full(len(quiz.survey.items), np.nan)
    not_asked: dict[str, str] = {}
    tokens = 0
    for i, item in enumerate(quiz.survey.items):
        line = lines[item.id]
        if "not_asked" in line:
            not_asked[item.id] = str(line["not_asked"])
            continue
        if line["probabilities"] is not None:
            probabilities[i] = 0.0
            probabilities[i, : len(item.options)] = line["probabilities"]
        mass[i] = np.nan if line["option_mass"] is None else line["option_mass"]
        tokens += int(line["tokens"])
    return Sheet(quiz, probabilities, mass, not_asked, tokens)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def run_key(lm: LM, quiz: Quiz, condition: Condition | Panel, orders: str, readout: Readout) -> str:
    """Names what decides the answers: model, quiz, condition, option orders and read-out."""
    digest = hashlib.sha256()
    way = re.sub(r" at 0x[0-9a-f]+", "", repr(readout))  # a parser's name, not its place in memory
    for text in (lm.config_hash, lm.tokenizer_hash, lm.weights_sample, str(lm.dtype), quiz.survey.digest, orders, way):
        digest.update(f"{text}\n".encode())
    for member in members(condition):
        digest.update(repr((member.system, member.placement, member.examples)).encode())
        if member.prompt is not None:
            digest.update(member.prompt.embeddings.numpy().tobytes())
        if member.adapter is not None:
            for file in sorted(member.adapter.glob("adapter_*")):
                digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def read_checkpoint(path: Path) -> dict[str, dict[str, Line]]:
    """Run → item → line; lines that were cut off are asked anew.

    Raises
    ------
    ValueError
        The file holds something else.
    """
    found: dict[str, dict[str, Line]] = {}
    if path.is_dir():
        raise ValueError(f"checkpoint: expected the name of a .jsonl file, got the folder {path}; name a file in it")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    for text in lines:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and line.get("kind") == KIND:
            found.setdefault(str(line["run"]), {})[str(line["item"])] = line
    if lines and not found:
        raise ValueError(f"checkpoint: {path} holds no answers to quizzes; choose a new file")
    return found
