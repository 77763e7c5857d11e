"""Two conditions as one: a persona with worked examples, sampled personas with a soft prompt, and the like."""

from __future__ import annotations

from typing import Any, overload

from softde.checks import shown
from softde.condition import Condition, Panel, members


@overload
def combined(a: Condition, b: Condition, name: str = "") -> Condition: ...
@overload
def combined(a: Condition | Panel, b: Condition | Panel, name: str = "") -> Condition | Panel: ...
def combined(a: Condition | Panel, b: Condition | Panel, name: str = "") -> Condition | Panel:
    """What both hold: system texts one after the other, and examples, soft prompt and adapter of the one that has some.

    A panel with a condition is the panel of each member with it.

    name : by default "a + b".

    Raises
    ------
    ValueError
        Both have examples, a soft prompt or an adapter; or both are panels.
    """
    for what, part in (("a", a), ("b", b)):
        if not isinstance(part, Condition | Panel):
            raise ValueError(f"{what}: expected a Condition or a Panel, got {shown(part)}")
    name = name or f"{a.name} + {b.name}"
    if isinstance(a, Condition) and isinstance(b, Condition):
        system = "\n\n".join(part.system for part in (a, b) if part.system) or None
        return Condition(
            system,
            prompt=_of_one(a, b, "prompt"),
            examples=_of_one(a, b, "examples"),
            adapter=_of_one(a, b, "adapter"),
            name=name,
        )
    if isinstance(a, Panel) and isinstance(b, Panel):
        raise ValueError(
            f"two panels, {a.name!r} and {b.name!r}, have no common members; combine a panel with a condition"
        )
    made = [combined(one, other) for one in members(a) for other in members(b)]
    return Panel(tuple(made), name)


def _of_one(a: Condition, b: Condition, part: str) -> Any:
    held = [getattr(condition, part) for condition in (a, b) if getattr(condition, part) is not None]
    if len(held) > 1:
        raise ValueError(
            f"{part}: conditions {a.name!r} and {b.name!r} both have one; a model takes only one at a time"
        )
    return held[0] if held else None
