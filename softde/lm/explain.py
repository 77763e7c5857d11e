"""What a plan costs, as a table: tokens that go through the layers for one generation, and how much work that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

from softde.lm.layout import Plan


@dataclass(frozen=True)
class Shape:
    """Sizes of a model: parameters that every token passes, those of the output head, layers, width of all heads."""

    layer_parameters: int
    head_parameters: int
    layers: int
    attention_width: int

    def flops(self, tokens: float, keys: float, read: int) -> float:
        """Of `tokens` tokens that see `keys` positions on average, of which `read` go through the head.

        A multiplication and an addition per parameter; in attention, two products per key and position (Kaplan et al.
        2020, arXiv 2001.08361, table 1).
        """
        linear = 2 * self.layer_parameters * tokens + 2 * self.head_parameters * read
        return linear + 4 * self.layers * self.attention_width * keys * tokens


@dataclass(frozen=True)
class Explanation:
    """One generation of a plan. `str()` prints it."""

    plan: Plan
    population: int
    num_virtual_tokens: int
    shape: Shape | None = None

    @property
    def unshared(self) -> int:
        """Tokens with no reuse at all: every question of every candidate from its first token."""
        soft = self.num_virtual_tokens * len(self.plan.questions)
        return self.population * (soft + sum(q.length for q in self.plan.questions))

    @property
    def padded(self) -> int:
        """The same in one padded batch per candidate."""
        return self.population * len(self.plan.questions) * (self.plan.longest + self.num_virtual_tokens)

    @property
    def needed(self) -> int:
        """Tokens of this plan."""
        return self.population * self.plan.tokens(self.num_virtual_tokens)

    @property
    def flops(self) -> float | None:
        """Floating-point operations of this plan; None where the model's sizes are not known."""
        if self.shape is None:
            return None
        context = mean(q.length for q in self.plan.questions) + self.num_virtual_tokens
        new = self.needed / self.population / len(self.plan.questions)
        return self.shape.flops(self.needed, context - new / 2, self.population * len(self.plan.questions))

    def parts(self) -> Iterator[tuple[str, int, str]]:
        """(what, tokens, how often) for every part of the plan that is computed."""
        plan, soft = self.plan, self.num_virtual_tokens
        yield "before the soft tokens", plan.prefix_tokens, "once a run"
        if plan.stemmed:
            yield "soft tokens and what all questions begin with", soft + plan.stem, "per candidate"
            grown = plan.tokens(soft) - soft - plan.stem
            own = sum(len(plan.rest(i)) for i in range(len(plan.questions)))
            yield f"the rest of {len(plan.questions)} questions ({own:,} unshared)", grown, "per candidate"
        else:
            each = plan.tokens(soft)
            yield f"soft tokens and answer cue, {len(plan.questions)} questions", each, "per candidate"

    def record(self) -> Mapping[str, Any]:
        """Plain values."""
        return {
            "placement": self.plan.placement,
            "population": self.population,
            "num_virtual_tokens": self.num_virtual_tokens,
            "questions": len(self.plan.questions),
            "blocks": len(self.plan.blocks),
            "tokens_once": self.plan.prefix_tokens,
            "tokens_per_candidate": self.plan.tokens(self.num_virtual_tokens),
            "tokens_per_generation": self.needed,
            "tokens_unshared": self.unshared,
            "tokens_padded": self.padded,
            "flops_per_generation": self.flops,
        }

    def __str__(self) -> str:
        plan = self.plan
        lengths = [q.length for q in plan.questions]
        lines = [
            (
                f"placement {plan.placement}: {self.population} candidates × {len(lengths)} questions "
                f"({plan.n_items} items), {self.num_virtual_tokens} soft tokens"
            ),
            f"hard tokens of a question: {min(lengths)} to {max(lengths)}, mean {mean(lengths):.1f}",
            "",
        ]
        lines += [f"  {tokens:>10,}  {often:<14} {what}" for what, tokens, often in self.parts()]
        lines += ["", f"  {self.needed:>10,}  tokens per generation"]
        for name, tokens in (("no reuse", self.unshared), ("padded batches", self.padded)):
            lines.append(f"  {tokens:>10,}  with {name} ({tokens / self.needed:.1f} ×)")
        if self.flops is not None:
            lines.append(f"  {self.flops / 1e12:>10.3g}  TFLOP per generation (estimate)")
        if len(plan.blocks) > 1:
            lines.append(f"\nasked in {len(plan.blocks)} blocks, between which early rejection drops candidates")
        return "\n".join(lines)


def shape_of(model: Any) -> Shape:
    """Sizes of a model, which may be without weights; of experts, only those that a token passes count."""
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    outside = {
        id(p) for module in (model.get_input_embeddings(), head) if module is not None for p in module.parameters()
    }
    layers = sum(p.numel() * _share(name, config) for name, p in model.named_parameters() if id(p) not in outside)
    heads = getattr(config, "num_attention_heads", None) or 1
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return Shape(int(layers), sum(p.numel() for p in head.parameters()) if head else 0, config.num_hidden_layers, width)


def _share(name: str, config: Any) -> float:
    """The share of a parameter that one token uses: that of the experts it is sent to, if it belongs to experts."""
    experts = next(
        (n for k in ("num_local_experts", "num_experts", "n_routed_experts") if (n := getattr(config, k, None))), None
    )
    chosen = getattr(config, "num_experts_per_tok", None)
    return chosen / experts if experts and chosen and ".experts." in f"{name}." else 1.0
