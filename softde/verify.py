"""Does a soft prompt still do here what it did where it was made? A few answers are kept with it and asked again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from softde.lm import LM
from softde.prompt import SoftPrompt
from softde.surveys import Survey
from softde.surveys.targets import bare

TOLERANCE = 1e-3  # float32: another machine, version or path of the engine
HALF_TOLERANCE = 0.25  # bfloat16 and float16: batch shapes alone move a log-probability by 0.1
EXACT = ("float32", "float64")


@dataclass(frozen=True)
class Verification:
    """The outcome: largest difference of an option's log-probability, where, and what is allowed."""

    max_error: float
    tolerance: float
    item: str
    items: tuple[str, ...]
    advice: str = ""

    @property
    def ok(self) -> bool:
        """Is the prompt's effect what it was?"""
        return self.max_error <= self.tolerance

    def __str__(self) -> str:
        asked = f"{len(self.items)} items asked again: log-probabilities differ by at most {self.max_error:.2g}"
        if self.ok:
            return f"verified: {asked} (allowed: {self.tolerance:g})"
        return f"not verified: {asked} (item {self.item!r}; allowed: {self.tolerance:g}); {self.advice}"


def make_verification(
    lm: LM, survey: Survey, prompt: SoftPrompt, items: int = 3, among: Sequence[str] | None = None
) -> dict[str, Any]:
    """Option log-probabilities of some items under the prompt, for `prompt.with_provenance({"verification": …})`.

    The items are spread over the survey, or over those named in `among`; both option orders are averaged, one forward
    per question, no system text. Options that an item does not have are None.

    Raises
    ------
    ValueError
        A prompt for another hidden size, or one under which the model's answers are not numbers.
    """
    names = survey.item_ids if among is None else tuple(among)
    chosen = np.linspace(0, len(names) - 1, min(items, len(names))).round().astype(int)
    ids = [names[i] for i in chosen]
    logprobs = _logprobs(lm, survey, prompt, ids)
    return {
        "items": ids,
        "survey_digest": survey.digest,
        "dtype": _dtype(lm),
        "logprobs": [[None if np.isneginf(value) else float(value) for value in row] for row in logprobs],
    }


def verify(prompt: SoftPrompt, lm: LM, survey: Survey) -> Verification:
    """Ask the recorded items again.

    Warns (`PromptMismatch`) if the model is not the one of the record.

    Raises
    ------
    ValueError
        No record in the prompt, a survey without its items, or a model of another hidden size.
    """
    record = recorded(prompt)
    prompt.check_model(lm, "the answers asked now show whether it is")
    ids = _known_items(record, survey)
    got = _logprobs(lm, survey, prompt, ids)
    expected = np.array([[-np.inf if v is None else v for v in row] for row in record["logprobs"]], dtype=np.float64)
    if expected.shape != got.shape or not (np.isneginf(expected) == np.isneginf(got)).all():
        raise ValueError(
            f"survey {survey.id!r} has other numbers of options than the record; use the survey of the alignment"
        )
    errors = np.abs(np.where(np.isneginf(got), 0.0, got) - np.where(np.isneginf(expected), 0.0, expected)).max(axis=1)
    exact = _dtype(lm) in EXACT and record.get("dtype") in EXACT
    tolerance = TOLERANCE if exact else HALF_TOLERANCE
    return Verification(float(errors.max()), tolerance, ids[int(errors.argmax())], tuple(ids), _advice(prompt, survey))


def recorded(prompt: SoftPrompt) -> Mapping[str, Any]:
    """The verification record that a prompt holds."""
    record = prompt.provenance.get("verification")
    if not record:
        raise ValueError(
            "the prompt holds no verification record, so there is nothing to compare with; where it was made, add one "
            "with prompt.with_provenance({'verification': make_verification(lm, survey, prompt)})"
        )
    return dict(record)


def _known_items(record: Mapping[str, Any], survey: Survey) -> list[str]:
    ids = [str(item) for item in record.get("items", [])]
    missing = [item for item in ids if item not in survey.item_ids]
    if missing or not ids:
        raise ValueError(
            f"survey {survey.id!r} lacks the recorded item {missing[0]!r}; use the survey of the alignment"
            if missing
            else "the verification record names no item; make it again with make_verification"
        )
    return ids


def _logprobs(lm: LM, survey: Survey, prompt: SoftPrompt, ids: Sequence[str]) -> np.ndarray:
    """(items, options) float64, one forward per question; −inf where an item has fewer options."""
    part = bare(survey, [survey.items[survey.item_ids.index(i)] for i in ids])
    plan = lm.plan(part, placement=prompt.placement, orders="both")
    logprobs = lm.option_logprobs(plan, prompt.embeddings[None], plain=True).logprobs[0].double().cpu().numpy()
    if np.isnan(logprobs).any():
        raise ValueError("under this prompt the model's answers are not numbers; use float32, or align a new prompt")
    return np.asarray(logprobs)


def _advice(prompt: SoftPrompt, survey: Survey) -> str:
    """What to change so that it does."""
    made, record = prompt.provenance, prompt.provenance["verification"]
    if record.get("survey_digest") not in (None, survey.digest):
        return f"survey {survey.id!r} is not worded as it was; use the survey of the alignment"
    revision = f", revision {made['revision']}" if made.get("revision") else ""
    version = f" with transformers {made['transformers']}" if made.get("transformers") else ""
    return f"use the model it was made with ({prompt.model_name}{revision}){version}, in {record.get('dtype')}"


def _dtype(lm: LM) -> str:
    return str(lm.dtype).removeprefix("torch.")
