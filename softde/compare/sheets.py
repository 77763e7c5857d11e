"""Asking, one sheet at a time: all items of a survey in one wording and one order, under one condition.

A sheet is known by its content: the model, the questions, the condition. One that two exams, seeds or regions have in
common is asked once, and a file of sheets can be read again whatever the targets are.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from softde.administer import administer
from softde.condition import Condition, Panel, members
from softde.files import append_lines, expanded, refused
from softde.lm import LM
from softde.lm.layout import ORDERS
from softde.prompt import model_provenance
from softde.surveys import Item, Survey
from softde.surveys.examples import Examples
from softde.surveys.scoring import Array
from softde.surveys.targets import bare

FILE = "answers.jsonl"
WEIGHTS = ("adapter_config.json", "*.safetensors", "*.bin")  # of an adapter's folder, what changes answers

_log = logging.getLogger("softde")


@dataclass(frozen=True, eq=False)
class Questions:
    """Items in one wording and one order; `places` are theirs among the exam's items."""

    survey: Survey
    order: str
    wording: int
    places: tuple[int, ...]

    def key(self, model: str, condition: str) -> str:
        """What a sheet is known by."""
        return _digest([model, self.survey.digest, self.order, condition])


@dataclass(frozen=True, eq=False)
class Sheet:
    """What came back: (items, options) probabilities, (items,) option mass, and what it cost."""

    probabilities: Array
    option_mass: Array
    forward_tokens: int
    seconds: float


def questions(survey: Survey, orders: str) -> list[Questions]:
    """A survey as sheets: every wording that an item has, in every order."""
    most = max(len(item.phrasings) for item in survey.items)
    found = []
    for wording in range(1 + most):
        places = tuple(i for i, item in enumerate(survey.items) if len(item.phrasings) >= wording)
        items = [replace(survey.items[i].worded(wording), phrasings=()) for i in places]
        found += [Questions(bare(survey, items), order, wording, places) for order in ORDERS[orders]]
    return found


def ask(lm: LM, asked: Questions, condition: Condition | Panel) -> Sheet:
    """Administer one sheet."""
    start = time.perf_counter()
    responses = administer(asked.survey, lm, condition, asked.order)
    seconds = time.perf_counter() - start
    return Sheet(responses.probabilities, responses.option_mass, responses.forward_tokens, seconds)


# -- what a sheet is known by


def model_identity(lm: LM) -> str:
    """The model, its weights and its tokenizer, wherever they were loaded from."""
    made = {k: v for k, v in model_provenance(lm).items() if k not in ("model", "revision", "transformers", "softde")}
    return _digest([made, lm.weights_sample, str(lm.dtype)])


def condition_identity(condition: Condition | Panel) -> str:
    """What a condition holds, by content: its name says nothing."""
    return _digest([[_held(member) for member in members(condition)], isinstance(condition, Panel)])


def _held(condition: Condition) -> list[Any]:
    prompt = condition.prompt
    tokens = None if prompt is None else [list(prompt.embeddings.shape), _hash(prompt.embeddings.numpy().tobytes())]
    return [condition.system, condition.placement, tokens, _shown(condition.examples), _adapter(condition.adapter)]


def _shown(examples: Examples | None) -> list[Any] | None:
    if examples is None:
        return None
    by_item = {
        asked: [[_worded(example.item), example.option] for example in given]
        for asked, given in examples.by_item.items()
    }
    return [by_item, examples.turns, examples.template]


def _worded(item: Item) -> list[Any]:
    return [item.id, item.text, [[option.label, option.text] for option in item.options]]


def _adapter(folder: Path | None) -> list[Any] | None:
    """The files that hold an adapter's weights, by content."""
    if folder is None:
        return None
    files = sorted({path for pattern in WEIGHTS for path in folder.glob(pattern)})
    return [[path.name, _hash(path.read_bytes())] for path in files]


def _digest(content: Any) -> str:
    return _hash(json.dumps(content, sort_keys=True, ensure_ascii=True).encode())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# -- the file of sheets


def read_sheets(folder: str | Path | None) -> dict[str, Sheet]:
    """Key → sheet, of the lines that are whole; a line that was cut off by a crash is asked again.

    Raises
    ------
    ValueError
        The folder cannot be made or written to, before anything is asked.
    """
    if folder is None:
        return {}
    path = expanded(folder) / FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:  # writable?
            file.seek(0)
            lines = file.read().split(b"\n")
    except OSError as error:
        raise ValueError(f"checkpoint: {refused(path, error)}") from error
    found: dict[str, Sheet] = {}
    broken = 0
    for line in filter(None, lines):
        try:
            record = json.loads(line)
            found[record["key"]] = _sheet(record)
        except (ValueError, KeyError, TypeError):
            broken += 1
    if broken:
        _log.warning("%s: %s of %s lines cannot be read; what they held is asked again", path, broken, len(lines))
    return found


def append_sheet(folder: str | Path, key: str, about: Mapping[str, Any], asked: Questions, sheet: Sheet) -> None:
    """Add a line; whatever an earlier crash left of one is closed first."""
    path = expanded(folder) / FILE
    counts = [len(item.options) for item in asked.survey.items]
    record = {
        "key": key,
        **about,
        "items": list(asked.survey.item_ids),
        "order": asked.order,
        "wording": asked.wording,
        "probabilities": [_finite(row[:n]) for row, n in zip(sheet.probabilities.tolist(), counts, strict=True)],
        "option_mass": _finite(sheet.option_mass.tolist()),
        "forward_tokens": sheet.forward_tokens,
        "seconds": round(sheet.seconds, 6),
    }
    line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    try:
        append_lines(path, [line])
    except ValueError as error:
        raise ValueError(f"checkpoint: {error}") from error


def _sheet(record: Mapping[str, Any]) -> Sheet:
    rows = record["probabilities"]
    table = np.zeros((len(rows), max(map(len, rows))))
    for row, given in zip(table, rows, strict=True):
        row[: len(given)] = [np.nan if value is None else value for value in given]
        if np.isnan(row).any():
            row[:] = np.nan  # as administer has it
    mass = np.array([np.nan if value is None else value for value in record["option_mass"]], dtype=np.float64)
    if mass.shape != table.shape[:1]:
        raise ValueError("expected one option mass per item")
    return Sheet(table, mass, int(record["forward_tokens"]), float(record["seconds"]))


def _finite(values: Sequence[float]) -> list[float | None]:
    """None for NaN, which strict JSON does not have."""
    return [value if np.isfinite(value) else None for value in values]
