"""What the model is told, in softde's own words; every text can be replaced."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from softde.baselines.culture_spa.questions import Question
from softde.baselines.persona import persona
from softde.baselines.wording import spoken
from softde.condition import Condition

UNAWARE = "You are a real person with values of your own. Answer the survey as you yourself see things."
AWARE = (
    "You are a real person who grew up and lives in {region}, with values of your own. "
    "Answer the survey as you yourself see things."
)
RESEARCHER = (
    "You work on an international survey that compares what people in different societies value. "
    "You write its questions."
)
TASK = """Write one new question for a survey on this topic: {topic}.

These questions are there already:

{examples}

The new question has to be about the topic and must not repeat any of these. Give it answers to choose from, in order, \
without numbers before them.
Answer with JSON alone, in this form: {{"question": "...", "options": ["...", "..."]}}"""
EXAMPLE = "- {question}\n  {options}"


def unaware(text: str = UNAWARE) -> Condition:
    """A person from nowhere in particular."""
    return Condition(text, name="culture-unaware")


def aware(region: str, template: str = AWARE) -> Condition:
    """A person from a region, in English: "USA" stands in the sentence as "the United States".

    template : a text with the place {region}, or {adjective} ("American").

    Raises
    ------
    ValueError
        It has neither place.
    """
    told = persona(region if "{adjective}" in template else spoken(region), template)
    return replace(told, name=f"culture-aware {region}")


def task(topic: str, examples: Sequence[Question]) -> tuple[str, str]:
    """(system text, user's text) that ask for one question like the examples."""
    shown = [EXAMPLE.format(question=e.text, options=json.dumps(list(e.options), ensure_ascii=False)) for e in examples]
    return RESEARCHER, TASK.format(topic=topic, examples="\n".join(shown))


def parsed(text: str) -> tuple[str, tuple[str, ...]] | None:
    """Question and options from the first JSON object in a written text, which may stand among other words.

    Keys count whatever their case, with or without a colon behind them.
    """
    decoder, start = json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            found, _ = decoder.raw_decode(text, start)
            break
        except (json.JSONDecodeError, RecursionError):
            start = text.find("{", start + 1)
    else:
        return None
    values = {str(key).strip(" :").casefold(): value for key, value in found.items()}
    question, options = values.get("question"), values.get("options")
    if not isinstance(question, str) or not isinstance(options, list):
        return None
    plain = all(isinstance(option, (str, int, float)) for option in options)
    return (question.strip(), tuple(map(str, options))) if plain else None
