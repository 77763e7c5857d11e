"""A model that writes texts, each from random numbers of its own, whoever else is in the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from softde.checks import number, whole
from softde.lm import LM
from softde.lm.loading import quiet
from softde.lm.template import render, token_ids
from softde.readouts import stop_ids, stream


@dataclass(frozen=True)
class Written:
    """Texts, and the tokens pushed through the model's layers for them, padding included."""

    texts: tuple[str, ...]
    tokens: int


class Writer(Protocol):
    """Anything that writes."""

    def write(self, tasks: Sequence[tuple[str, str]], keys: Sequence[tuple[int, ...]]) -> Written:
        """A text for each (system text, user's text); its random draws depend on its key alone."""

    def record(self) -> Mapping[str, Any]:
        """Plain values that say what writes, and how."""


@dataclass(frozen=True, eq=False)
class LMWriter:
    """A language model through transformers' `generate`; nothing of it is changed.

    Tokens are drawn by inverse cumulative probability, the most probable first, from the smallest set of tokens that
    together have `top_p` of it (Holtzman et al. 2020, arXiv 1904.09751).
    """

    lm: LM
    temperature: float = 0.9
    top_p: float = 0.95
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        number(self.temperature, "temperature, above 0", lambda v: v > 0)
        number(self.top_p, "top_p, a share above 0 and at most 1", lambda v: 0 < v <= 1)
        whole(self.max_new_tokens, "max_new_tokens", 1)

    def record(self) -> dict[str, Any]:
        """See `Writer`."""
        settings = {"temperature": self.temperature, "top_p": self.top_p, "max_new_tokens": self.max_new_tokens}
        return {"model": self.lm.name, "weights": self.lm.weights_sample, **settings}

    def write(self, tasks: Sequence[tuple[str, str]], keys: Sequence[tuple[int, ...]]) -> Written:
        """See `Writer`."""
        from transformers import GenerationConfig, LogitsProcessorList

        tokenizer, model, ends = self.lm.tokenizer, self.lm.model, sorted(stop_ids(self.lm))
        rows = [token_ids(tokenizer, "".join(render(tokenizer, user, system))) for system, user in tasks]
        self._fit(rows)
        longest, pad = max(map(len, rows)), ends[0] if ends else 0
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=self.lm.device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=self.lm.device)
        draws = np.stack([stream(key).random(self.max_new_tokens) for key in keys])
        drawn = Drawn(torch.from_numpy(draws).to(self.lm.device), longest, self.temperature, self.top_p)
        config = GenerationConfig(max_new_tokens=self.max_new_tokens, do_sample=False, num_beams=1, pad_token_id=pad,
                                  eos_token_id=ends or None)  # fmt: skip
        with quiet():
            out = model.generate(input_ids=ids, attention_mask=mask, generation_config=config, do_sample=False,
                                 logits_processor=LogitsProcessorList([drawn]))  # fmt: skip
        new = out[:, longest:]
        texts = tuple(tokenizer.decode(row, skip_special_tokens=True).strip() for row in new.tolist())
        return Written(texts, len(rows) * (longest + max(new.shape[1] - 1, 0)))

    def _fit(self, rows: Sequence[Sequence[int]]) -> None:
        context = self.lm.context
        longest = max(map(len, rows))
        if context and longest + self.max_new_tokens > context:
            raise ValueError(
                f"a task has {longest} tokens and {self.max_new_tokens} are to be written, but the model reads "
                f"{context}; take a smaller max_new_tokens, or seeds with shorter texts"
            )


class Drawn:
    """Leaves each row one token, drawn by its own uniform number of this step; a logits processor of transformers."""

    def __init__(self, draws: Float[Tensor, "rows steps"], prompt: int, temperature: float, top_p: float) -> None:
        self.draws, self.prompt, self.temperature, self.top_p = draws, prompt, temperature, top_p

    def __call__(
        self, ids: Int[Tensor, "rows tokens"], scores: Float[Tensor, "rows vocabulary"]
    ) -> Float[Tensor, "rows vocabulary"]:
        """Scores with all tokens but the drawn ones at minus infinity."""
        step = ids.shape[1] - self.prompt
        probabilities, order = (
            (scores.double() / self.temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
        )
        cumulative = probabilities.cumsum(-1)
        kept = torch.where(cumulative - probabilities < self.top_p, probabilities, 0.0).cumsum(-1)
        place = (kept <= self.draws[:, step, None] * kept[:, -1:]).sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
        token = order.gather(-1, place)
        return torch.full_like(scores, -torch.inf).scatter(-1, token, 0.0)
