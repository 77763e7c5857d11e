"""What the model is under before it answers; every method softde knows is a function that returns one of these."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softde.checks import check_kinds, shown
from softde.files import expanded
from softde.prompt import SoftPrompt
from softde.surveys.examples import Examples

UNPROMPTED = "unprompted"


@dataclass(frozen=True)
class Condition:
    """A system text, worked examples, a soft prompt, an adapter, some of these, or none (the unprompted model).

    examples : answered items that stand before each item. adapter : folder of weights that peft saved (LoRA), put into
        the model for as long as it is asked. name : the row's name in tables; by default it says what the condition
        holds.

    Raises
    ------
    ValueError
        Another kind of value; a blank system text; a name for what holds nothing.
    """

    system: str | None = None
    prompt: SoftPrompt | None = field(default=None, kw_only=True)
    examples: Examples | None = field(default=None, kw_only=True)
    adapter: Path | None = field(default=None, kw_only=True)
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        system: Any = self.system
        if not isinstance(system, str | None):
            advice = "; give it as prompt=" if isinstance(system, SoftPrompt) else ""
            raise ValueError(f"system: expected a text, got {shown(system)}{advice}")
        check_kinds({"prompt": (self.prompt, SoftPrompt | None), "examples": (self.examples, Examples | None)})
        adapter: Any = self.adapter
        if not isinstance(adapter, str | os.PathLike | None):
            raise ValueError(f"adapter: expected the folder of an adapter, got {shown(adapter)}")
        object.__setattr__(self, "adapter", None if adapter is None else expanded(os.fspath(adapter)))
        if self.system and not self.system.strip():
            raise ValueError(f"system: expected a text that is not blank, got {self.system!r}; leave it out for none")
        held = {
            "system text": self.system,
            "examples": self.examples,
            "soft prompt": self.prompt,
            "adapter": self.adapter,
        }
        parts = [word for word, part in held.items() if part]
        if not parts and self.name not in ("", UNPROMPTED):
            raise ValueError(
                f"the condition {self.name!r} holds nothing to put the model under; give it a system text, examples, a "
                "prompt or an adapter, or leave out the name for the unprompted model"
            )
        object.__setattr__(self, "system", self.system or None)
        object.__setattr__(self, "name", self.name or " + ".join(parts) or UNPROMPTED)

    @property
    def placement(self) -> str:
        """Where the soft prompt stands; "late" where there is none, which then means nothing."""
        return self.prompt.placement if self.prompt else "late"


@dataclass(frozen=True)
class Panel:
    """Several conditions that answer in turn, such as sampled personas: their answers count as one, each alike.

    Raises
    ------
    ValueError
        No members, or something that is no condition.
    """

    members: tuple[Condition, ...]
    name: str = "panel"

    def __post_init__(self) -> None:
        given: Any = self.members
        if not isinstance(given, Sequence) or isinstance(given, str) or not given:
            raise ValueError(f"members: expected a list of one condition or more, got {shown(given)}")
        for number, member in enumerate(given):
            check_kinds({f"members[{number}]": (member, Condition)})
        object.__setattr__(self, "members", tuple(given))


def as_condition(value: object, what: str = "condition") -> Condition | Panel:
    """A condition, several in turn, a soft prompt, or the outcome of a search, which holds one; None is unprompted."""
    if value is None:
        return Condition()
    if isinstance(value, Panel):
        return value
    if isinstance(value, SoftPrompt):
        return Condition(prompt=value)
    found = getattr(value, "condition", value)
    check_kinds({what: (found if isinstance(found, Condition) else value, Condition)})
    assert isinstance(found, Condition)
    return found


def members(condition: Condition | Panel) -> tuple[Condition, ...]:
    """The conditions that answer."""
    return condition.members if isinstance(condition, Panel) else (condition,)


def unique_names(conditions: Sequence[Condition | Panel]) -> list[str]:
    """The conditions' names; the second of one name gets " (2)", and so on."""
    names: list[str] = []
    for condition in conditions:
        name, copy = condition.name, 1
        while name in names:
            copy += 1
            name = f"{condition.name} ({copy})"
        names.append(name)
    return names
