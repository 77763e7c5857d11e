"""LoRA layers in a model for as long as they are trained."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from softde.files import refused
from softde.lm import LM
from softde.lm.adapter import record_base


def need_peft() -> None:
    """Refuse to train where peft is missing."""
    try:
        import peft  # noqa: F401
    except ImportError:
        raise ImportError("training an adapter needs peft: pip install 'softde[lora]'") from None


@contextmanager
def injected(lm: LM, rank: int, alpha: float, seed: int) -> Iterator[Any]:
    """The model with new LoRA layers on all its linear ones but the head; afterwards its modules are its own again.

    The layers begin without an effect: one factor is zero, the other drawn by `seed`.
    """
    from peft import LoraConfig, get_peft_model

    _ = lm.weights_sample  # of its own weights, while they have their own names
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM",
    )  # fmt: skip
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between versions of peft and transformers
        warnings.filterwarnings("ignore", message="fan_in_fan_out")  # peft sets it right, and says so
        torch.manual_seed(seed)
        wrapped = get_peft_model(lm.model, config)
    try:
        yield wrapped
    finally:
        wrapped.unload()
        if hasattr(lm.model, "peft_config"):
            del lm.model.peft_config
        lm.model.eval().requires_grad_(False)


def save_adapter(wrapped: Any, lm: LM, folder: Path) -> None:
    """Write the trained layers as peft does, whole or not at all, with a record of the model they belong to."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        wrapped.peft_config["default"].base_model_name_or_path = lm.name
        wrapped.save_pretrained(str(temporary), save_embedding_layers=False)
        (temporary / "README.md").unlink(missing_ok=True)  # a form to fill in
        record_base(lm, temporary)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    except OSError as error:
        raise ValueError(refused(folder, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
