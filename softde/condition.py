"""What the model is under before it answers; every method softde knows is a function that returns one of these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from softde.checks import check_kinds, shown
from softde.prompt import SoftPrompt

UNPROMPTED = "unprompted"


@dataclass(frozen=True)
class Condition:
    """A system text, a soft prompt, both, or neither (the unprompted model).

    name : the row's name in tables; by default it says what the condition holds.

    Raises
    ------
    ValueError
        Another kind of value; a blank system text; a name for what holds nothing.
    """

    system: str | None = None
    prompt: SoftPrompt | None = field(default=None, kw_only=True)
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        system: Any = self.system
        if not isinstance(system, str | None):
            advice = "; give it as prompt=" if isinstance(system, SoftPrompt) else ""
            raise ValueError(f"system: expected a text, got {shown(system)}{advice}")
        check_kinds({"prompt": (self.prompt, SoftPrompt | None)})
        if self.system and not self.system.strip():
            raise ValueError(f"system: expected a text that is not blank, got {self.system!r}; leave it out for none")
        parts = [word for word, part in (("system text", self.system), ("soft prompt", self.prompt)) if part]
        if not parts and self.name not in ("", UNPROMPTED):
            raise ValueError(
                f"the condition {self.name!r} holds nothing to put the model under; give it a system text or a prompt, "
                "or leave out the name for the unprompted model"
            )
        object.__setattr__(self, "system", self.system or None)
        object.__setattr__(self, "name", self.name or " + ".join(parts) or UNPROMPTED)

    @property
    def placement(self) -> str:
        """Where the soft prompt stands; "late" where there is none, which then means nothing."""
        return self.prompt.placement if self.prompt else "late"


def as_condition(value: object, what: str = "condition") -> Condition:
    """A condition, a soft prompt, or the outcome of a search, which holds one; None is the unprompted model."""
    if value is None:
        return Condition()
    if isinstance(value, SoftPrompt):
        return Condition(prompt=value)
    found = getattr(value, "condition", value)
    check_kinds({what: (found if isinstance(found, Condition) else value, Condition)})
    assert isinstance(found, Condition)
    return found
