"""What a study's folder says of itself: which design it belongs to, and which steps are done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from softde.files import append_lines, refused, write_file
from softde.reproduce.study import Made, Step, Study

STUDY, STEPS = "study.json", "steps.jsonl"
SHOWN = 60  # letters of a setting in a message
OF_STEPS = ("regions", "seeds")  # what steps are made for, so that a step says it itself


def check_folder(folder: Path, settings: Mapping[str, Any], growing: Collection[str]) -> None:
    """Refuse a folder of something else, or of the same design with other settings; makes nothing.

    growing : names of settings that may differ.

    Raises
    ------
    ValueError
        With every difference, and what to do.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose a folder with out= (--out)")
    inside = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if not inside:
        return
    try:
        old = json.loads((folder / STUDY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        old = None
    if not isinstance(old, dict):
        raise ValueError(
            f"{folder} holds other files ({', '.join(inside[:3])}) and no {STUDY} of a design; choose a new or an "
            "empty folder with out= (--out)"
        )
    changed = [name for name in {**old, **settings} if name not in growing and old.get(name) != settings.get(name)]
    if "design" in changed:
        changed = ["design"]
    differences = "; ".join(f"{name} was {_short(old.get(name))}, now {_short(settings.get(name))}" for name in changed)
    if changed:
        raise ValueError(
            f"{folder} holds a design with other settings ({differences}); use the same ones to go on, or another "
            "folder with out= (--out)"
        )


def open_folder(study: Study) -> None:
    """Make the folder a study's own, or find that it is."""
    settings = {**study.settings, **model_settings(study)}
    check_folder(study.folder, settings, study.growing)
    try:
        study.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(refused(study.folder, error)) from error
    write_file(study.folder / STUDY, (json.dumps(settings, indent=1, ensure_ascii=False) + "\n").encode())


def model_settings(study: Study) -> dict[str, str]:
    """The model, by its weights: it may lie elsewhere now."""
    return {"weights": study.lm.weights_sample, "dtype": str(study.lm.dtype)}


def done_steps(study: Study) -> set[str]:
    """Names of the steps that the folder has with these settings."""
    path, key = study.folder / STEPS, settings_key(study)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return {line["step"] for line in map(_line, lines) if line.get("settings") == key}


def note_step(study: Study, step: Step, made: Made, asked_tokens: float, seconds: float) -> None:
    """Add a line for a step that is done; once."""
    if step.name not in done_steps(study):
        spent = {"found_tokens": made.forward_tokens, "asked_tokens": asked_tokens, "seconds": round(seconds, 3)}
        line = {"step": step.name, "settings": settings_key(study), **spent}
        append_lines(study.folder / STEPS, [json.dumps(line)])


def settings_key(study: Study) -> str:
    """Names all that decides a step, but what its own name says."""
    decides = {name: value for name, value in study.settings.items() if name not in OF_STEPS}
    content = json.dumps({**decides, **model_settings(study)}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def digest(content: object) -> str:
    """Names plain values by their content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _line(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:  # cut off
        return {}
    return found if isinstance(found, dict) else {}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
