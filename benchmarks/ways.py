"""The ways people ask a model a survey under soft prompts today, each as short as it is usually written.

All take the model, the questions of a plan and soft prompts (candidates, tokens, hidden), and return the next-token
logits (candidates, questions, vocabulary) with the number of tokens that went through the layers. What is kept is a
copy: a view of the last position would keep the logits of all positions in memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softde.lm import Question

NEW_TOKENS = 8  # that a loop with `generate` lets the model write before it parses the answer


class Asked(NamedTuple):
    """Next-token logits (candidates, questions, vocabulary), and tokens through the layers, padding included."""

    logits: Tensor
    tokens: int


def sequence(model: Any, question: Question, prompt: Tensor) -> Tensor:
    """Embeddings (tokens, hidden) of one question with its soft tokens."""
    ids = torch.tensor(question.prefix_ids + question.suffix_ids, device=prompt.device)
    rows = model.get_input_embeddings()(ids)
    cut = len(question.prefix_ids)
    return torch.cat([rows[:cut], prompt.to(rows.dtype), rows[cut:]])


@torch.inference_mode()
def generate_loop(model: Any, questions: Sequence[Question], prompts: Tensor, pad: int) -> Asked:
    """(a) `generate` for one question after the other."""
    logits, tokens = [], 0
    for prompt in prompts:
        for question in questions:
            row = sequence(model, question, prompt)[None]
            output = model.generate(
                inputs_embeds=row,
                attention_mask=torch.ones(row.shape[:2], dtype=torch.long, device=row.device),
                max_new_tokens=NEW_TOKENS,
                min_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=pad,
                output_logits=True,
                return_dict_in_generate=True,
            )
            logits.append(output.logits[0][0])
            tokens += row.shape[1] + NEW_TOKENS - 1
    return Asked(torch.stack(logits).unflatten(0, (len(prompts), -1)), tokens)


@torch.inference_mode()
def one_by_one(model: Any, questions: Sequence[Question], prompts: Tensor) -> Asked:
    """(b) One forward for one question after the other: nothing is padded, cached or shared."""
    logits, tokens = [], 0
    for prompt in prompts:
        for question in questions:
            row = sequence(model, question, prompt)[None]
            logits.append(model(inputs_embeds=row, use_cache=False).logits[0, -1].clone())
            tokens += row.shape[1]
    return Asked(torch.stack(logits).unflatten(0, (len(prompts), -1)), tokens)


@torch.inference_mode()
def padded_batch(model: Any, questions: Sequence[Question], prompts: Tensor, pad: int, full_logits: bool) -> Asked:
    """(c) All questions of a candidate in one batch, padded on the left; logits everywhere, or of the last token."""
    logits, tokens = [], 0
    longest = max(q.length for q in questions) + prompts.shape[1]
    filler = model.get_input_embeddings()(torch.tensor([pad], device=prompts.device))
    for prompt in prompts:
        rows = [sequence(model, question, prompt) for question in questions]
        batch = torch.stack([torch.cat([filler.expand(longest - len(row), -1), row]) for row in rows])
        lengths = torch.tensor([len(row) for row in rows], device=batch.device)
        places = torch.arange(longest, device=batch.device) - (longest - lengths)[:, None]
        output = model(
            inputs_embeds=batch,
            attention_mask=(places >= 0).long(),
            position_ids=places.clamp(min=0),
            use_cache=False,
            logits_to_keep=0 if full_logits else 1,
        )
        logits.append(output.logits[:, -1].clone())
        tokens += batch.shape[0] * batch.shape[1]
    return Asked(torch.stack(logits), tokens)


def prompt_tuning(model: Any, num_virtual_tokens: int) -> Any:
    """A PEFT prompt-tuning model around the same frozen model."""
    from peft import PromptTuningConfig, TaskType, get_peft_model

    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=num_virtual_tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT reads a name that transformers has given up
        return get_peft_model(model, config).eval()


@torch.inference_mode()
def peft_batch(tuned: Any, questions: Sequence[Question], prompts: Tensor, pad: int, side: str = "right") -> Asked:
    """(d) A candidate's rows copied into a PEFT prompt-tuning model, its questions in one padded batch of ids.

    PEFT puts soft tokens before the padding and ignores `position_ids`. Padded on the left, a question then stands too
    far from its soft tokens and is answered otherwise; padded on the right it is exact, and the logits of the last
    real token are picked from those of all positions.
    """
    table = tuned.prompt_encoder["default"].embedding.weight
    ids = [torch.tensor(q.prefix_ids + q.suffix_ids) for q in questions]
    lengths = torch.tensor([len(row) for row in ids], device=prompts.device)
    batch = torch.nn.utils.rnn.pad_sequence(ids, True, pad, side).to(prompts.device)
    places = torch.arange(batch.shape[1], device=batch.device)
    real = places < lengths[:, None] if side == "right" else places >= batch.shape[1] - lengths[:, None]
    last = lengths - 1 if side == "right" else torch.full_like(lengths, batch.shape[1] - 1)
    logits, tokens = [], 0
    for prompt in prompts:
        table.data.copy_(prompt)
        output = tuned(input_ids=batch, attention_mask=real.long(), use_cache=False)
        logits.append(output.logits[torch.arange(len(batch)), last + prompts.shape[1]])
        tokens += batch.shape[0] * (batch.shape[1] + prompts.shape[1])
    return Asked(torch.stack(logits), tokens)
