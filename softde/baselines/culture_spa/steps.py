"""Which examples a step sees, and the state of a training on the disk, from which it goes on to the same bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softde.baselines.culture_spa.records import MODEL
from softde.files import refused, write_file
from softde.readouts import stream

RUN, STATE = "run.json", "checkpoint.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Steps:
    """A number of epochs over `count` examples, each shuffled by itself; the last step of one may have fewer."""

    count: int
    batch: int
    epochs: int
    seed: int

    @property
    def per_epoch(self) -> int:
        return math.ceil(self.count / self.batch)

    @property
    def total(self) -> int:
        return self.per_epoch * self.epochs

    def examples(self, step: int) -> list[int]:
        """Numbers of the examples of a step."""
        epoch, within = divmod(step, self.per_epoch)
        order: list[int] = stream([self.seed, epoch]).permutation(self.count).tolist()
        return order[within * self.batch : (within + 1) * self.batch]


@dataclass(frozen=True)
class State:
    """How far a training is: steps, forward tokens and seconds, and the losses of this epoch's examples, in nats."""

    step: int = 0
    tokens: float = 0.0
    seconds: float = 0.0
    total: float = 0.0
    seen: int = 0

    @property
    def loss(self) -> float:
        """Mean over the examples of an epoch, each as it was when its step came."""
        return self.total / self.seen if self.seen else math.nan

    def after(self, losses: Tensor, tokens: float, seconds: float, new_epoch: bool) -> State:
        """After a step on some examples."""
        total, seen = (0.0, 0) if new_epoch else (self.total, self.seen)
        return State(self.step + 1, self.tokens + tokens, seconds, total + float(losses.sum()), seen + len(losses))

    def save(self, folder: Path, weights: Mapping[str, Tensor], adam: torch.optim.Optimizer) -> None:
        """Write weights, moments and this in one file."""
        from safetensors.torch import save

        tensors = {name: weight.detach() for name, weight in weights.items()}
        for name, weight in weights.items():
            moments = adam.state.get(weight, {})
            tensors |= {f"{name}:{kind}": moments[kind] for kind in MOMENTS if kind in moments}
        plain = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        write_file(folder / STATE, save(plain, {"state": json.dumps(asdict(self))}))


def opened(folder: Path, record: Mapping[str, Any]) -> State | None:
    """Prepare a folder for a training; its state if one of the same settings is there.

    Raises
    ------
    ValueError
        It holds another training, whose differences are named, or cannot be made.
    """
    from safetensors import safe_open

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(refused(folder, error)) from error
    run = folder / RUN
    if run.exists():
        old = json.loads(run.read_text(encoding="utf-8"))
        differ = [f"{k}: {old.get(k)!r} there, {v!r} now" for k, v in record.items() if k != MODEL and old.get(k) != v]
        if differ:
            raise ValueError(
                f"{folder} holds a training with other settings ({'; '.join(differ)}); choose another folder"
            )
    else:
        write_file(run, (json.dumps(record, indent=2) + "\n").encode())
    if not (folder / STATE).exists():
        return None
    with safe_open(str(folder / STATE), "pt") as file:
        return State(**json.loads(file.metadata()["state"]))


def load_state(folder: Path, weights: Mapping[str, Tensor], adam: torch.optim.Optimizer) -> None:
    """Put what `State.save` wrote into the weights and the optimiser."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(str(folder / STATE), "pt") as file:
        step = json.loads(file.metadata()["state"])["step"]
    tensors = load_file(str(folder / STATE))
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(tensors[name])
            moments = {kind: tensors[f"{name}:{kind}"].to(weight.device) for kind in MOMENTS}
            adam.state[weight] = {"step": torch.tensor(float(step)), **moments}
