"""What a soft prompt does to answers that have nothing to do with a survey: the next token after neutral texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from softde.checks import plain_number, shown
from softde.lm.decode import State, run_questions
from softde.lm.layout import Question
from softde.lm.template import after_bos, cut_ids, render

if TYPE_CHECKING:
    from softde.lm.model import LM

# Of different kinds: a fact, a sum, code, a rewrite, a list, an instruction, a continuation, small talk.
NEUTRAL = (
    "Name the chemical element with the symbol Fe.",
    "How much is seventeen plus twenty-six?",
    "Write a line of Python that reverses the list `numbers`.",
    "Put this sentence into the past tense: The train leaves at noon.",
    "List three animals that live in the sea.",
    "Explain in one sentence how a bicycle stays upright.",
    "Continue the series: 2, 4, 8, 16,",
    "Good morning! Which day comes after Tuesday?",
)


@dataclass(frozen=True)
class SideEffects:
    """A loss for what a prompt does to answers that have nothing to do with the survey.

    The loss grows by weight times the KL divergence, in bits, of the next token under the prompt from that of the
    unprompted model, KL(prompted ‖ unprompted) over the whole vocabulary, mean over some neutral prompts. One bit more
    costs as much as `weight` of the target's loss.

    prompts : texts of a user's turn; None takes softde's own.
    """

    weight: float
    prompts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        weight = plain_number(self.weight)
        if weight is None or not 0 < weight < math.inf:
            raise ValueError(f"side_effects: expected a weight above 0, got {shown(self.weight)}")
        object.__setattr__(self, "weight", weight)
        if self.prompts is not None:
            given: Any = self.prompts
            if isinstance(given, str) or not (given := tuple(map(str, given))) or not all(map(str.strip, given)):
                raise ValueError(f"side_effects: expected prompts as a list of texts, got {self.prompts!r}")
            object.__setattr__(self, "prompts", given)

    @property
    def texts(self) -> tuple[str, ...]:
        return NEUTRAL if self.prompts is None else self.prompts


def neutral_plan(lm: LM, texts: Sequence[str], placement: str | None) -> tuple[Question, ...]:
    """The texts as questions without options, soft tokens at their placement."""
    questions = []
    for number, text in enumerate(texts):
        before, after = render(lm.tokenizer, text, None, placement or "late")
        head, tail, _ = cut_ids(lm.tokenizer, before, after)
        ids, at = (*head, *tail), len(head)
        if placement in ("front", "after_bos"):
            at = 0 if placement == "front" else after_bos(lm.tokenizer, ids)
        questions.append(Question(number, "forward", tuple(ids[:at]), tuple(ids[at:]), ()))
    return tuple(questions)


@dataclass(frozen=True)
class Shift:
    """KL(prompted ‖ unprompted) of the next token after some texts, in bits, mean over the texts.

    A candidate's number is the same in any company, as its answers are.
    """

    lm: LM
    questions: tuple[Question, ...]

    @cached_property
    def reference(self) -> Float[Tensor, "texts vocabulary"]:
        """Log-probabilities of the unprompted model, float32."""

        def ask(_state: State, logits: Tensor, _numbers: list[int], _group: int) -> tuple[list[Tensor], int]:
            return [logits.float().log_softmax(-1)], 0

        (found,), _ = run_questions(self.lm.engine, self.questions, None, ask)
        return found[0]

    def __call__(
        self, prompts: Float[Tensor, "population tokens hidden"], plain: bool = False
    ) -> tuple[NDArray[np.float64], int]:
        """(bits (population,), tokens pushed through the layers)."""
        reference = self.reference

        def ask(_state: State, logits: Tensor, numbers: list[int], group: int) -> tuple[list[Tensor], int]:
            mine = logits.float().log_softmax(-1)
            base = reference[numbers].to(mine).repeat_interleave(group, 0)
            shift = torch.where(mine > -torch.inf, mine.exp() * (mine - base), 0.0).sum(-1)
            return [shift.where(~mine.isnan().any(-1), torch.nan)], 0

        (found,), tokens = run_questions(self.lm.engine, self.questions, prompts, ask, plain)
        bits: Any = found.double().cpu().numpy() / np.log(2)
        return np.maximum(bits, 0.0).mean(axis=1), tokens
