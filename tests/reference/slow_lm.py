"""Asking a model the slow and obvious way: transformers alone, one forward per candidate, item and option order."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from softde.surveys import Item, Survey

SYSTEM = "<|start_header_id|>system<|end_header_id|>\n\n{}<|eot_id|>"
USER = "<|start_header_id|>user<|end_header_id|>\n\n{}"
CUE = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"


def ask(
    model: Any,
    tokenizer: Any,
    item: Item,
    instruction: str,
    soft: Tensor | None = None,
    placement: str = "late",
    system: str | None = None,
    reverse: bool = False,
) -> tuple[list[float], float]:
    """(probability of each option, in the item's own order and summing to one; their mass among all tokens).

    The prompt is Llama-3's conversation, written out by hand; `soft` (tokens, hidden) stands before everything
    ("front") or after the user's text ("late").
    """
    texts = [option.text for option in item.options]
    shown = list(reversed(texts)) if reverse else texts
    lines = [item.text] + [f"{number} = {text}" for number, text in enumerate(shown, start=1)] + [instruction]
    before = "<|begin_of_text|>" + (SYSTEM.format(system) if system else "") + USER.format("\n".join(lines))

    table = model.get_input_embeddings().weight
    embedded = [table[tokenizer.encode(text, add_special_tokens=False)] for text in (before, CUE)]
    soft = torch.zeros(0, table.shape[1]) if soft is None else soft
    parts = [soft, *embedded] if placement == "front" else [embedded[0], soft, embedded[1]]
    with torch.no_grad():
        logits = model(inputs_embeds=torch.cat(parts)[None]).logits[0, -1].double()

    total = sum(math.exp(value) for value in logits.tolist())
    masses = []
    for text in texts:
        (token,) = tokenizer.encode(str(shown.index(text) + 1), add_special_tokens=False)
        masses.append(math.exp(float(logits[token])) / total)
    return [mass / sum(masses) for mass in masses], sum(masses)


def answers(lm: Any, survey: Survey, orders: str = "both", **condition: Any) -> list[tuple[list[float], float]]:
    """For every item, `ask` averaged over the option orders."""
    found = []
    for item in survey.items:
        turns = {"forward": (False,), "reversed": (True,), "both": (False, True)}[orders]
        asked = [ask(lm.model, lm.tokenizer, item, survey.instruction, reverse=r, **condition) for r in turns]
        probabilities = [sum(column) / len(asked) for column in zip(*(p for p, _ in asked), strict=True)]
        found.append((probabilities, sum(mass for _, mass in asked) / len(asked)))
    return found


def item_means(lm: Any, survey: Survey, orders: str = "both", **condition: Any) -> dict[str, float]:
    """Expected option value of every item."""
    found = answers(lm, survey, orders, **condition)
    return {
        item.id: sum(p * option.value for p, option in zip(probabilities, item.options, strict=True))
        for item, (probabilities, _) in zip(survey.items, found, strict=True)
    }


def scores(lm: Any, survey: Survey, constant: float = 50.0, orders: str = "both", **condition: Any) -> list[float]:
    """Factor scores: the weighted item means, plus the constant."""
    means = item_means(lm, survey, orders, **condition)
    return [constant + sum(w * means[item] for item, w in f.weights.items()) for f in survey.factor_models]
