"""Stage 4: LoRA adapters that answer, told where they are from, as the model did where that changed its answer.

Hu et al. 2021, arXiv 2106.09685; the recipe is CultureSPA's (arXiv 2410.12971): all linear layers, the loss on the
answer alone, AdamW, a cosine with warm-up, one epoch, 128 examples per step.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from softde.baselines.culture_spa.answer import name_left_out, unasked
from softde.baselines.culture_spa.collect import Collected, Collection
from softde.baselines.culture_spa.counting import Count
from softde.baselines.culture_spa.injected import injected, need_peft, save_adapter
from softde.baselines.culture_spa.questions import as_survey, batches
from softde.baselines.culture_spa.steps import State, Steps, load_state, opened
from softde.baselines.trained import Trained
from softde.checks import check_kinds, number, put, whole
from softde.condition import Condition
from softde.files import expanded
from softde.lm import LM
from softde.lm.adapter import check_adapter
from softde.lm.compat import embed
from softde.lm.layout import make_plan
from softde.lm.network import Network, padding

JOINT, ADAPTER = "joint", "adapter"
BACKWARD = 2  # forwards that a backward pass counts as
BETAS, EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class LoRA:
    """How an adapter is trained; the defaults are CultureSPA's.

    rank, alpha : of the two factors of every linear layer's change, which is scaled by alpha / rank. lr : the highest
    step size, reached after a share `warmup` of the steps, from where it falls to zero as half a cosine. batch :
    examples per step, `micro_batch` of them in a forward. clip : the largest norm of a step's gradient. save_every :
    steps between checkpoints.
    """

    rank: int = 8
    alpha: float = 16.0
    lr: float = 1e-4
    warmup: float = 0.1
    epochs: int = 1
    batch: int = 128
    micro_batch: int = 4
    weight_decay: float = 0.0
    clip: float = 1.0
    seed: int = 0
    save_every: int = 20

    def __post_init__(self) -> None:
        for name in ("rank", "epochs", "batch", "micro_batch", "save_every"):
            put(self, {name: whole(getattr(self, name), name, 1)})
        whole(self.seed, "seed", 0)
        for name in ("alpha", "lr", "clip"):
            number(getattr(self, name), f"{name}, above 0", lambda v: v > 0)
        number(self.warmup, "warmup, a share of the steps in [0, 1]", lambda v: 0 <= v <= 1)
        number(self.weight_decay, "weight_decay, from 0 up", lambda v: v >= 0)

    def rate(self, step: int, steps: int) -> float:
        """The step size of a step, from 0; as transformers' cosine schedule with warm-up."""
        warm = math.ceil(self.warmup * steps)
        if step < warm:
            return self.lr * step / warm
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@dataclass(frozen=True)
class Example:
    """A question as it is asked, and the token of its answer."""

    ids: np.ndarray[Any, np.dtype[np.int32]]
    label: int


def train(
    lm: LM,
    collection: Collection,
    out: str | os.PathLike[str],
    settings: LoRA = LoRA(),
    joint: bool = True,
    progress: bool = True,
) -> dict[str, Trained]:
    """Region → a condition with its system text and a trained adapter; goes on where an earlier call stopped.

    The model's weights are only read; afterwards they are the same bytes. Questions that it cannot be asked are named
    and left out.

    Parameters
    ----------
    collection : see `collect` and `load_collection`.
    out : a folder; adapters are in out/joint/adapter, or out/<region>/adapter each.
    joint : one adapter for all regions, which tell themselves apart by their system texts; else one for each region. Of
        a joint adapter each region's cost is an equal share.

    Raises
    ------
    ValueError
        A folder with a training of other settings, a collection that does not say what a region is told, or no question
        that can be asked.
    ImportError
        peft is missing.
    """
    check_kinds({"lm": (lm, LM)})
    need_peft()
    regions = collection.regions
    if not regions:
        raise ValueError("collection: no region kept a question, so there is nothing to train on; ask more questions")
    texts = {region: collection.told(region) for region in regions}
    groups = {JOINT: regions} if joint else {region: (region,) for region in regions}
    places = {name: expanded(os.fspath(out)) / _slug(name) for name in groups}
    if len(set(places.values())) < len(places):
        raise ValueError(f"regions {', '.join(regions)}: their folders would have the same name; rename one")
    kept = _askable(lm, collection)
    found: dict[str, Trained] = {}
    for name, members in groups.items():
        examples = prepared(lm, [row for row in kept if row.region in members], collection)
        made = _trained(lm, examples, places[name], settings, name, progress)
        for region in members:
            title = f"CultureSPA ({'joint' if joint else 'specific'})"
            condition = Condition(texts[region], adapter=places[name] / ADAPTER, name=title)
            found[region] = Trained(condition, made.tokens / len(members), made.seconds / len(members), made.loss)
    return found


def _askable(lm: LM, collection: Collection) -> list[Collected]:
    """The rows whose questions can be asked, of every region one or more; the others are named."""
    questions = list({row.question.id: row.question for row in collection.rows}.values())
    left_out = unasked(lm, questions, list(collection.systems.values()), collection.order)
    name_left_out(left_out, len(questions))
    kept = [row for row in collection.rows if row.question.id not in left_out]
    without = set(collection.regions) - {row.region for row in kept}
    if without or not kept:
        of = f" of region {min(without)!r}" if without else ""
        raise ValueError(f"collection: no question{of} is left that this model can be asked; take another model")
    return kept


def prepared(lm: LM, rows: Sequence[Collected], collection: Collection) -> list[Example]:
    """Rows as token ids, exactly as `administer` asks them under the region's system text."""
    made: dict[tuple[str, str], Example] = {}
    for region in dict.fromkeys(row.region for row in rows):
        mine = [row for row in rows if row.region == region]
        for part in batches(mine, 64):
            survey = as_survey([row.question for row in part])
            plan = make_plan(lm.tokenizer, survey, collection.systems[region], "late", collection.order)
            for q in plan.questions:
                row = part[q.item]
                ids = np.array(q.prefix_ids + q.suffix_ids, dtype=np.int32)
                made[row.question.id, region] = Example(ids, q.option_ids[row.aware])
    return [made[row.question.id, row.region] for row in rows]


def _trained(lm: LM, examples: Sequence[Example], folder: Path, settings: LoRA, name: str, progress: bool) -> State:
    """Train one adapter, or find it trained."""
    steps = Steps(len(examples), settings.batch, settings.epochs, settings.seed)
    record = {"model": lm.name, "weights": lm.weights_sample, "examples": _digest(examples), **asdict(settings)}
    record.pop("save_every")
    if not any(settings.rate(step, steps.total) for step in range(steps.total)):
        raise ValueError(
            f"settings: {len(examples)} examples make {steps.total} step, whose step size is 0 with warmup="
            f"{settings.warmup}; take a smaller batch than {settings.batch}, more epochs, or warmup=0"
        )
    saved = opened(folder, record)
    if saved is not None and saved.step >= steps.total and (folder / ADAPTER).is_dir():
        check_adapter(lm, folder / ADAPTER)
        return saved
    with injected(lm, settings.rank, settings.alpha, settings.seed) as wrapped:
        weights = {k: p for k, p in wrapped.named_parameters() if p.requires_grad}
        adam = torch.optim.AdamW(weights.values(), settings.lr, BETAS, EPSILON, settings.weight_decay)
        state = saved or State()
        if saved is not None:
            load_state(folder, weights, adam)
        count = Count(f"{name}: steps", steps.total, state.step, progress)
        began = time.monotonic() - state.seconds
        network = Network(lm.model)
        while state.step < steps.total:
            chosen = [examples[i] for i in steps.examples(state.step)]
            adam.param_groups[0]["lr"] = rate = settings.rate(state.step, steps.total)
            losses, tokens = _step(network, adam, list(weights.values()), chosen, settings)
            first = state.step % steps.per_epoch == 0
            state = state.after(losses, (1 + BACKWARD) * tokens, time.monotonic() - began, first)
            if state.step % settings.save_every == 0 or state.step == steps.total:
                state.save(folder, weights, adam)
            count(state.step, f"loss {state.loss:.4f}  step size {rate:.2g}")
        save_adapter(wrapped, lm, folder / ADAPTER)
    return state


def _step(
    network: Network, adam: torch.optim.Optimizer, weights: list[Tensor], chosen: Sequence[Example], settings: LoRA
) -> tuple[Tensor, int]:
    """One step on the mean loss of some examples: their losses before it, and the tokens pushed through forward."""
    size = 1 if network.reads_padding else settings.micro_batch
    found, tokens = [], 0
    adam.zero_grad(set_to_none=True)
    for part in batches(chosen, size):
        losses, count = answer_losses(network, part)
        (losses.sum() / len(chosen)).backward()
        found.append(losses.detach().double().cpu())
        tokens += count
    torch.nn.utils.clip_grad_norm_(weights, settings.clip)
    adam.step()
    return torch.cat(found), tokens


def answer_losses(network: Network, part: Sequence[Example]) -> tuple[Float[Tensor, "examples"], int]:
    """−log p of each answer's token among all tokens, in nats, and the tokens of the forward."""
    longest = max(len(example.ids) for example in part)
    pads = [longest - len(example.ids) for example in part]
    ids = network.ids([[network.soft] * pad + example.ids.tolist() for pad, example in zip(pads, part, strict=True)])
    positions, mask = padding(network, pads, longest, 1)
    logits = network.logits(embed(network.model, ids), positions, ids, mask)[:, -1].float()
    labels = network.ids([example.label for example in part]).to(logits.device)
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none"), ids.numel()


def _digest(examples: Sequence[Example]) -> str:
    found = hashlib.sha256()
    for example in examples:
        found.update(example.ids.tobytes() + example.label.to_bytes(4, "little"))
    return found.hexdigest()


def _slug(name: str) -> str:
    """A folder's name for a region."""
    return re.sub(r"[^\w-]+", "-", name.strip()).strip("-").lower() or "region"
