"""The embedded model while it is trained: a Llama written for many short questions that share their beginnings.

A batch is a set of roots with leaves: each leaf goes on from its root (the same persona before different items, or the
same item before different personas), so a root goes through the layers once. `to_llama` gives the Hugging Face model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PROBE_MARKS = 2  # layers before a description's parts are probed
EPS, THETA = 1e-5, 10_000.0


@dataclass(frozen=True)
class Shape:
    vocabulary: int
    hidden: int = 128
    layers: int = 5
    intermediate: int = 384
    heads: int = 4
    kv_heads: int = 2

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


class Layer(nn.Module):
    def __init__(self, s: Shape) -> None:
        super().__init__()
        std, out = 1 / math.sqrt(s.hidden), math.sqrt(2 * s.layers)

        def weight(rows: int, columns: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns) * scale)

        self.input_norm, self.post_norm = nn.Parameter(torch.ones(s.hidden)), nn.Parameter(torch.ones(s.hidden))
        self.q = weight(s.hidden, s.hidden, std)
        self.k = weight(s.kv_heads * s.head_dim, s.hidden, std)
        self.v = weight(s.kv_heads * s.head_dim, s.hidden, std)
        self.o = weight(s.hidden, s.hidden, std / out)
        self.gate = weight(s.intermediate, s.hidden, std)
        self.up = weight(s.intermediate, s.hidden, std)
        self.down = weight(s.hidden, s.intermediate, 1 / math.sqrt(s.intermediate) / out)


class Net(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.randn(shape.vocabulary, shape.hidden) / math.sqrt(shape.hidden))
        self.head = nn.Parameter(torch.randn(shape.vocabulary, shape.hidden) * 0.02)
        self.norm = nn.Parameter(torch.ones(shape.hidden))
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        # Two read-outs that only training uses: the six factors where a part of a description ends, and at the answer.
        self.probe_mark, self.probe_answer = nn.Linear(shape.hidden, 6), nn.Linear(shape.hidden, 6)

    def forward(self, roots: list[list[int]], leaves: list[list[list[int]]]) -> Outputs:
        """Every root has as many leaves as the others; leaves are answered in order, root by root."""
        per_root = len(leaves[0])
        root_ids, root_mask = padded(roots)
        leaf_ids, leaf_mask = padded([leaf for group in leaves for leaf in group])
        n, m = root_ids.shape[1], leaf_ids.shape[1]
        causal = torch.ones(n, n, dtype=torch.bool).tril()
        _, root_marks, past = self.segment(
            root_ids, torch.arange(n).expand(len(roots), n), causal.expand(len(roots), 1, n, n)
        )
        past = [(k.repeat_interleave(per_root, 0), v.repeat_interleave(per_root, 0)) for k, v in past]
        positions = root_mask.sum(1).repeat_interleave(per_root)[:, None] + torch.arange(m)
        rows = len(leaf_ids)
        seen = root_mask.repeat_interleave(per_root, 0)[:, None, None].expand(-1, 1, m, n)
        mask = torch.cat([seen, torch.ones(m, m, dtype=torch.bool).tril().expand(rows, 1, m, m)], dim=-1)
        middle, leaf_marks, _ = self.segment(leaf_ids, positions, mask, past, leaf_mask.sum(1) - 1)
        logits = F.linear(rms_norm(middle[0], self.norm), self.head)
        return Outputs(logits, self.probe_answer(middle[1]), root_marks, leaf_marks)

    def segment(
        self,
        ids: Tensor,
        positions: Tensor,
        mask: Tensor,
        past: list[tuple[Tensor, Tensor]] | None = None,
        last: Tensor | None = None,
    ) -> tuple[tuple[Tensor, Tensor], Tensor, list[tuple[Tensor, Tensor]]]:
        """Layers over (rows, tokens); with `last`, the final layer only computes that position of each row."""
        s, x, kept = self.shape, F.embedding(ids, self.embedding), []
        rows, tokens = ids.shape
        cos, sin = rotation(positions, s.head_dim)
        every, answer, marks = torch.arange(rows), x[:, 0], x
        for i, layer in enumerate(self.layers):
            if i == PROBE_MARKS:
                marks = x
            if last is not None and i == s.layers - 2:
                answer = x[every, last]
            h = rms_norm(x, layer.input_norm)
            k = rotated(F.linear(h, layer.k).view(rows, tokens, s.kv_heads, -1).transpose(1, 2), cos, sin)
            v = F.linear(h, layer.v).view(rows, tokens, s.kv_heads, -1).transpose(1, 2)
            kept.append((k, v))
            at, q_cos, q_sin = mask, cos, sin
            if last is not None and i == s.layers - 1:
                h, x, at = h[every, last][:, None], x[every, last][:, None], mask[every, :, last][:, :, None]
                q_cos, q_sin = cos[every, :, last][:, :, None], sin[every, :, last][:, :, None]
            q = rotated(F.linear(h, layer.q).view(rows, -1, s.heads, s.head_dim).transpose(1, 2), q_cos, q_sin)
            if past is not None:
                k, v = torch.cat([past[i][0], k], dim=2), torch.cat([past[i][1], v], dim=2)
            x = x + F.linear(attend(q, k, v, at).transpose(1, 2).reshape(rows, -1, s.hidden), layer.o)
            h = rms_norm(x, layer.post_norm)
            x = x + F.linear(F.silu(F.linear(h, layer.gate)) * F.linear(h, layer.up), layer.down)
        return (x[:, 0], answer), marks, kept


@dataclass(frozen=True)
class Outputs:
    logits: Tensor  # (leaves, vocabulary) at each leaf's last token
    factors: Tensor  # (leaves, 6) probe at the answer
    root_marks: Tensor  # (roots, tokens, hidden) for the probe of description parts
    leaf_marks: Tensor  # (leaves, tokens, hidden)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Grouped-query attention written out: on a CPU faster than the fused kernel at these sizes."""
    rows, heads, tokens, head_dim = q.shape
    groups = k.shape[1]
    grouped = q.reshape(rows, groups, heads // groups * tokens, head_dim)
    weights = torch.matmul(grouped, k.transpose(-1, -2)).float().view(rows, groups, heads // groups, tokens, -1)
    weights = (weights / math.sqrt(head_dim) + torch.where(mask, 0.0, -1e9)[:, :, None]).softmax(-1)
    return torch.matmul(weights.view(rows, groups, heads // groups * tokens, -1).to(v.dtype), v).view(q.shape)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * weight


def rotation(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """cos and sin (rows, 1, tokens, head_dim) of rotary position embedding, in Hugging Face's half-split layout."""
    angles = positions[..., None].float() / THETA ** (torch.arange(0, head_dim, 2).float() / head_dim)
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    return angles.cos(), angles.sin()


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def padded(sequences: list[list[int]]) -> tuple[Tensor, Tensor]:
    """(rows, longest) ids, padded on the right with 0, and the mask of real tokens."""
    lengths = torch.tensor([len(s) for s in sequences])
    longest = int(lengths.max())
    ids = torch.tensor([s + [0] * (longest - len(s)) for s in sequences])
    return ids, torch.arange(longest) < lengths[:, None]


def to_llama(net: Net, **config: int) -> nn.Module:
    """The same model as transformers' LlamaForCausalLM."""
    from transformers import LlamaConfig, LlamaForCausalLM

    s = net.shape
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=s.vocabulary, hidden_size=s.hidden, intermediate_size=s.intermediate, num_hidden_layers=s.layers,
            num_attention_heads=s.heads, num_key_value_heads=s.kv_heads, max_position_embeddings=2048, rms_norm_eps=EPS,
            rope_theta=THETA, tie_word_embeddings=False, initializer_range=1 / math.sqrt(s.hidden), **config,
        )
    )  # fmt: skip
    names = {"self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v", "self_attn.o_proj": "o",
             "mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down",
             "input_layernorm": "input_norm", "post_attention_layernorm": "post_norm"}  # fmt: skip
    weights = {"model.embed_tokens.weight": net.embedding, "lm_head.weight": net.head, "model.norm.weight": net.norm}
    for i, layer in enumerate(net.layers):
        weights |= {f"model.layers.{i}.{theirs}.weight": getattr(layer, ours) for theirs, ours in names.items()}
    llama.load_state_dict({name: w.detach() for name, w in weights.items()}, strict=True)
    return llama.eval()
