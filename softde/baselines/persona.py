"""The persona prompt: the model is told whom to answer as, in words."""

from __future__ import annotations

from softde.condition import Condition

TEMPLATE = "You are a typical person from {region}."


def persona(region: str, template: str = TEMPLATE) -> Condition:
    """A condition whose system text names a region.

    region : as it should stand in the sentence; whether a survey knows it does not matter here.
    template : a sentence with the place "{region}".
    """
    if "{region}" not in template:
        raise ValueError(f"template: expected a sentence with '{{region}}' in it, got {template!r}; add the place")
    return Condition(name="persona", system=template.replace("{region}", region))
