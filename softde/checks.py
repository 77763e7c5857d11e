"""The wrong kind of object in the wrong place, as a first guess puts it there; and what belongs there."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, get_args

HOW = {
    "LM": ("softde.LM.from_pretrained({!r}) loads one", "tiny"),
    "Survey": ("softde.load_survey({!r}) reads one", "vsm13"),
    "Target": ("survey.target({!r}) is one", "India"),
    "PromptSpace": ("softde.PromptSpace.random(lm) is one", ""),
    "Optimizer": ('softde.DE() is one, "auto" and "shade" are names of some', ""),
    "Halving": ("softde.Halving(keep=0.5) is one", ""),
    "SideEffects": ("softde.SideEffects(weight=10.0) is one", ""),
    "GradientSteps": ("softde.GradientSteps(steps=20) is one", ""),
    "SoftPrompt": ("softde.SoftPrompt.load({!r}) reads one", "prompt.safetensors"),
    "Examples": ("softde.baselines.self_alignment(...) makes a condition with some", ""),
    "Condition": ("softde.Condition(system={!r}) is one, softde.Condition() the unprompted model", "You are ..."),
}


def check_kinds(arguments: Mapping[str, tuple[object, Any]]) -> None:
    """Refuse the first argument, name → (value, class or ``class | None``), of another class.

    Raises
    ------
    ValueError
        What was expected, what came, and how to get the right one.
    """
    for name, (value, kind) in arguments.items():
        if not isinstance(value, kind) or isinstance(value, type):
            wanted = (get_args(kind) or (kind,))[0].__name__
            how, example = HOW[wanted]
            given = value if isinstance(value, str) else example
            raise ValueError(f"{name}: expected {wanted}, got {shown(value)}; {how.format(given)}")


def check_loaded(model: object) -> None:
    """Refuse a name where a loaded model belongs."""
    if isinstance(model, (str, os.PathLike)):
        name = os.fspath(model)
        raise ValueError(f"LM takes a loaded model and its tokenizer; softde.LM.from_pretrained({name!r}) loads both")


def whole(value: object, what: str, least: int | None = None) -> int:
    """A whole number of any kind, numpy's too, as an int; no number is cut."""
    if not isinstance(value, bool):
        try:
            number = operator.index(value)  # type: ignore[arg-type]
            if least is None or number >= least:
                return number
        except TypeError:
            pass
    wanted = "a whole number" if least is None else f"a whole number of at least {least}"
    raise ValueError(f"{what}: expected {wanted}, got {shown(value)}")


def plain_number(value: Any) -> float | None:
    """A number of any kind, numpy's and torch's too, as Python's own; None for anything else."""
    found = value.item() if getattr(value, "ndim", None) == 0 else value
    return found if isinstance(found, (int, float)) and not isinstance(found, bool) else None


def number(value: object, what: str, fits: Callable[[float], bool]) -> float:
    """A finite number that fits, as Python's own; ``what`` is wanted, such as "CR, a probability, in [0, 1]"."""
    found = plain_number(value)
    if found is None:
        raise ValueError(f"Expected {what}, but got {shown(value)}: give a number.")
    if not abs(found) <= sys.float_info.max or not fits(found):
        raise ValueError(f"Expected {what}, but got {shown(value)}.")
    return found


def put(settings: object, values: Mapping[str, object]) -> None:
    """Give fields of a frozen dataclass their checked values, while it is built."""
    for name, value in values.items():
        object.__setattr__(settings, name, value)


def shown(value: object) -> str:
    """A plain value as it is, of any other its class."""
    plain = value is None or isinstance(value, (str, int, float, os.PathLike))
    return repr(value) if plain else f"{type(value).__name__}"
