"""LM: a frozen causal language model, its tokenizer and its chat template."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from softde.checks import check_loaded
from softde.lm.compat import embed
from softde.lm.engine import Engine, OptionLogprobs, Survives
from softde.lm.explain import Explanation, shape_of
from softde.lm.layout import Asked, Plan, make_plan
from softde.surveys import Survey
from softde.surveys.examples import Examples

TINY = "tiny"
VOLATILE_CONFIG = ("_name_or_path", "_commit_hash", "transformers_version", "dtype", "torch_dtype")
CACHED_IDS = 4_000_000  # token ids in plans that are kept, some 40 bytes each; a hundred respondents need a fifth
SAMPLED = 64  # numbers per parameter, about


@dataclass(frozen=True, eq=False)
class LM:
    """A causal language model that is only read: option log-probabilities under soft prompts.

    Which tokens are compared: with a chat template, the label directly after the assistant header ("1"); without one,
    the label after "Answer:" with its space (" 1"). These are different tokens.

    model, tokenizer : as Hugging Face loads them. name, revision : where they came from. group_size : candidates per
    forward, default 4 on a CPU and up to 16 on a GPU, as free memory allows (64 and 256 MiB per candidate); it changes
    the last bits of bfloat16 results, so a run records it (`engine.group_size` after an out-of-memory). compiles : try
    `torch.compile` on the first forwards, and keep it where it is right and faster.
    """

    model: Any
    tokenizer: Any = None
    name: str = ""
    revision: str | None = None
    group_size: int | None = None
    compiles: bool = False
    _plans: dict[tuple[Any, ...], Plan] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_loaded(self.model)
        self.model.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
        group_size: int | None = None,
        quantization: Any = None,
        compiles: bool = False,
    ) -> LM:
        """Load "tiny" (embedded), a folder, or a model of the Hugging Face Hub.

        dtype : default is float32 on CPU, the checkpoint's own elsewhere. device : default is cuda if there is one;
        "auto" spreads a model that is too large for one device over all there are. quantization : "int8" (torchao),
        "int4" (bitsandbytes), or a quantization config of transformers.

        Raises
        ------
        ValueError
            One sentence that says what to do: gated, unknown or incomplete model, no network, no tokenizer, unknown
            dtype or device, out of memory.
        ImportError
            A package is missing that "auto" or a quantization needs.
        """
        from softde.lm.loading import load

        model, tokenizer, name, found = load(name_or_path, dtype, device, revision, quantization)
        return cls(model, tokenizer, name, found, group_size, compiles)

    @property
    def is_tiny(self) -> bool:
        """Is this the embedded default model?"""
        return self.name == TINY

    @property
    def hidden_size(self) -> int:
        """Width of the input embeddings, and so of a soft prompt."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    def context(self) -> int | None:
        """How many tokens the model reads; None if its configuration does not say."""
        found: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return found

    @property
    def device(self) -> torch.device:
        """Where prompts enter."""
        return self.engine.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the input embeddings."""
        return self.engine.dtype

    @cached_property
    def engine(self) -> Engine:
        """Runs the plans; holds cached prefixes."""
        return Engine(self.model, self.group_size, self.compiles)

    def plan(
        self,
        survey: Survey,
        system: str | None = None,
        placement: str = "late",
        orders: str = "both",
        asked: Sequence[Asked] | None = None,
        examples: Examples | None = None,
    ) -> Plan:
        """The survey as token ids: every item in every order and wording.

        placement : soft tokens stand at the "front" (before everything), "after_bos", in the "system" turn, at
        "user_start" or "late" (the start or the end of the user's text). asked : (item, order, phrasing) of the
        questions to ask, of every item one or more, instead of all; orders then says nothing. examples : answered items
        that stand before those that are asked.
        """
        key = (survey.digest, system, placement, orders, None if asked is None else tuple(asked), examples)
        if key not in self._plans:
            plan = make_plan(self.tokenizer, survey, system, placement, orders, asked, examples)
            self._fits(survey, plan)
            self._plans[key] = plan
            while len(self._plans) > 1 and sum(p.hard_tokens for p in self._plans.values()) > CACHED_IDS:
                del self._plans[next(iter(self._plans))]
        return self._plans[key]

    def explain(self, plan: Plan, population: int, num_virtual_tokens: int) -> Explanation:
        """What a generation of a plan asks and costs; print it."""
        return Explanation(plan, population, num_virtual_tokens, shape_of(self.model))

    def option_logprobs(
        self,
        plan: Plan,
        prompts: Float[Tensor, "population tokens hidden"] | None = None,
        plain: bool = False,
        order: Sequence[int] | None = None,
        survives: Survives | None = None,
    ) -> OptionLogprobs:
        """Answers of every candidate to every item; `prompts=None` is the unprompted model, a population of one.

        plain : one forward per candidate and question, without a cache: slow, and the reference for all else.
        order, survives : the plan's blocks in the order in which they are asked and, from the answers after each, which
        candidates (population,) are asked on; the items that a candidate was not asked are NaN.
        A candidate whose logits are not finite gets NaN; the others are unaffected.
        """
        return self.engine.run(plan, prompts, plain=plain, order=order, survives=survives)

    def embed(self, ids: Int[Tensor, "*shape"] | Sequence[int]) -> Float[Tensor, "*shape hidden"]:
        """Embeddings as the model sees them, through its own module, which may scale them."""
        with torch.no_grad():
            return embed(self.model, torch.as_tensor(ids, dtype=torch.long, device=self.device))

    @cached_property
    def embedding_stats(self) -> tuple[Float[Tensor, "hidden"], float]:
        """Mean embedding (hidden,) float32 and the standard deviation of all entries around it, over the vocabulary."""
        vocabulary = min(len(self.tokenizer), self.model.get_input_embeddings().weight.shape[0])
        total = torch.zeros(self.hidden_size, dtype=torch.float64)
        squares = torch.zeros(self.hidden_size, dtype=torch.float64)
        for ids in torch.arange(vocabulary).split(4096):
            rows = self.embed(ids).cpu().double()
            total += rows.sum(0)
            squares += rows.square().sum(0)
        mean = total / vocabulary
        return mean.float(), float((squares / vocabulary - mean.square()).mean().clamp(min=0).sqrt())

    @cached_property
    def embedding_probe(self) -> dict[str, float | str]:
        """Tells apart versions of transformers that scale embeddings in different places.

        "module_scale": norm of the module's output over the norm of its weight rows (1, or √hidden where Gemma scales
        inside the module); "transformers": the version.
        """
        import transformers

        ids = torch.arange(min(64, len(self.tokenizer)), device=self.device)
        rows = self.model.get_input_embeddings().weight[ids].float().norm()
        return {
            "module_scale": round(float(self.embed(ids).float().norm() / rows), 3),
            "transformers": transformers.__version__,
        }

    @cached_property
    def tokenizer_hash(self) -> str:
        """SHA-256 of the tokenizer's serialised form and its chat template."""
        return hashlib.sha256(_serialised(self.tokenizer).encode()).hexdigest()

    @cached_property
    def config_hash(self) -> str:
        """SHA-256 of the architecture: the configuration without names, versions and dtype."""
        config = {k: v for k, v in self.model.config.to_diff_dict().items() if k not in VOLATILE_CONFIG}
        return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()

    @cached_property
    def weights_sample(self) -> str:
        """SHA-256 of a few numbers of every parameter: tells apart a model before and after it was trained on."""
        digest = hashlib.sha256()
        for name, parameter in self.model.named_parameters():
            digest.update(name.encode())
            try:
                flat = parameter.detach().flatten()
                digest.update(flat[:: max(1, len(flat) // SAMPLED)].float().cpu().numpy().tobytes())
            except (NotImplementedError, RuntimeError):  # some quantised weights cannot be cut
                continue
        return digest.hexdigest()

    def _fits(self, survey: Survey, plan: Plan) -> None:
        rows = self.model.get_input_embeddings().weight.shape[0]
        top = max(max(q.prefix_ids + q.suffix_ids + q.option_ids) for q in plan.questions)
        if top >= rows:
            raise ValueError(
                f"the tokenizer gives token {top} but model {self.name!r} embeds only {rows}; "
                "use the tokenizer that belongs to the model"
            )
        context = self.context
        longest = max(plan.questions, key=lambda q: q.length)
        if context and longest.length >= context:
            shown = "system text" if plan.examples is None else "system text and examples"
            raise ValueError(
                f"item {survey.items[longest.item].id!r} has {longest.length} tokens with its {shown}, but the "
                f"model reads {context}; shorten the item{', take fewer examples' * bool(plan.examples)} or shorten "
                "the system text"
            )


def _serialised(tokenizer: Any) -> str:
    """Everything that turns text into ids, as text; without truncation and padding, which are settings of a call."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = json.loads(backend.to_str()) if backend is not None else {"vocabulary": tokenizer.get_vocab()}
    content.update(truncation=None, padding=None, chat_template=getattr(tokenizer, "chat_template", None))
    return json.dumps(content, sort_keys=True)
