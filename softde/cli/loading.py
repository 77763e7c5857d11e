"""The surveys, prompts and models that a command names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softde.cli.folders import PROMPT_FILE
from softde.cli.options import TINY

if TYPE_CHECKING:
    from softde.lm import LM
    from softde.prompt import SoftPrompt
    from softde.surveys import Survey


def load_survey(name: str) -> Survey:
    from softde.surveys import load_survey

    return load_survey(name)


def read_prompt(path: Path) -> SoftPrompt:
    from softde.prompt import SoftPrompt

    if (path / "adapter_config.json").is_file() and not (path / PROMPT_FILE).exists():
        return SoftPrompt.from_peft(path)
    return SoftPrompt.load(path / PROMPT_FILE if path.is_dir() else path)


def made_with(prompt: SoftPrompt) -> dict[str, Any]:
    """What a prompt says of the survey that it was made with."""
    return dict(prompt.provenance.get("survey") or {})


def recorded_survey(prompt: SoftPrompt, path: Path) -> Survey:
    """The shipped survey that a prompt was made with."""
    from softde.surveys import shipped_surveys

    name = str(made_with(prompt).get("id", "unknown"))
    if name.partition(":")[0] not in shipped_surveys():
        raise ValueError(f"{path} was made with survey {name!r}, which is not shipped; give its file with --survey")
    return load_survey(name)


def _model_of(prompt: SoftPrompt) -> str:
    """The model that a prompt was made with."""
    name = prompt.provenance.get("model")
    if not name:
        raise ValueError("the prompt does not say which model it was made with; name one with --model")
    return str(name)


def load_model(model: str, dtype: str | None, device: str | None, revision: str | None, quiet: bool = False) -> LM:
    if not quiet:
        print(f"loading model {model}", file=sys.stderr, flush=True)
    from softde.lm import LM

    return LM.from_pretrained(model, dtype, device, revision)


def load_recorded(
    model: str | None, prompts: Sequence[SoftPrompt], dtype: str | None, device: str | None, revision: str | None
) -> LM:
    """The model asked for, or else the one that the first prompt names."""
    name = model or next(map(_model_of, prompts), TINY)
    try:
        return load_model(name, dtype, device, revision)
    except ValueError as error:
        if model or not prompts:
            raise
        raise ValueError(f"{error} [the prompt names model {name!r}; --model names another, or its place]") from None
