"""What the model is under before it answers; every method softde knows is a function that returns one of these."""

from __future__ import annotations

from dataclasses import dataclass

from softde.prompt import SoftPrompt


@dataclass(frozen=True)
class Condition:
    """A system text, a soft prompt, both, or neither (the unprompted model).

    name : the row's name in tables; by default it says what the condition holds.
    """

    name: str = ""
    system: str | None = None
    prompt: SoftPrompt | None = None

    def __post_init__(self) -> None:
        if not self.name:
            parts = [word for word, part in (("system text", self.system), ("soft prompt", self.prompt)) if part]
            object.__setattr__(self, "name", " + ".join(parts) or "unprompted")

    @property
    def placement(self) -> str:
        """Where the soft prompt stands; "late" where there is none, which then means nothing."""
        return self.prompt.placement if self.prompt else "late"
