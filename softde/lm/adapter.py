"""Adapters that peft trained (LoRA and its kin): put into a model for as long as it is asked, then taken out again."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from softde.files import expanded, write_file
from softde.lm.model import LM

CONFIG = "adapter_config.json"
RECORD = "softde.json"  # beside it: which model the adapter was trained on
PROMPTS = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING")

_log = logging.getLogger("softde")


@contextmanager
def adapted(lm: LM, adapter: str | os.PathLike[str] | None) -> Iterator[LM]:
    """The model with an adapter, for the length of a `with`; `lm` is not to be used meanwhile. None gives `lm` itself.

    Afterwards the model's modules are those from before, with the same weights: peft alone would leave biases and whole
    modules that an adapter brings along (``bias``, ``modules_to_save``) in their place.

    Raises
    ------
    ValueError
        The folder holds no adapter, or one of another model.
    ImportError
        peft is missing.
    """
    if adapter is None:
        yield lm
        return
    folder = check_adapter(lm, adapter)
    modules = dict(lm.model.named_modules(remove_duplicate=False))
    biases = {name: p.detach().clone() for name, p in lm.model.named_parameters() if "bias" in name}
    try:
        yield replace(lm, model=_with_adapter(lm, folder), _plans={})
    finally:
        _put_back(lm.model, modules, biases)


def _with_adapter(lm: LM, folder: Path) -> Any:
    """The model itself, with the adapter in its modules."""
    try:
        from peft import PeftModel
    except ImportError:
        raise ImportError("an adapter needs peft: pip install 'softde[lora]'") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # between versions of peft and transformers
            warnings.filterwarnings("error", message=".*[Mm]issing adapter keys.*")
            return PeftModel.from_pretrained(lm.model, str(folder)).get_base_model()
    except Exception as error:  # whatever does not fit: sizes, module names, files
        raise ValueError(
            f"adapter {str(folder)!r} does not fit model {lm.name!r} ({_first_line(error)}); use the model that it was "
            "trained on"
        ) from error


def check_adapter(lm: LM, adapter: str | os.PathLike[str]) -> Path:
    """The folder of an adapter for this model; refuses what can be refused without loading it."""
    folder = expanded(os.fspath(adapter))
    config = _json(folder / CONFIG, "an adapter's folder, as peft saves one")
    if config.get("peft_type") in PROMPTS:
        raise ValueError(
            f"adapter {str(folder)!r} is a prompt ({config['peft_type']}), not weights; "
            "softde.SoftPrompt.from_peft reads one"
        )
    made: dict[str, Any] = {}
    if (folder / RECORD).exists():
        made = _json(folder / RECORD, "the record of the model it was trained on")
    if made.get("config_hash", lm.config_hash) != lm.config_hash:
        raise ValueError(
            f"adapter {str(folder)!r} was trained on model {made.get('model')!r}, of another architecture than "
            f"{lm.name!r}; use that model, or train an adapter for this one"
        )
    base = made.get("model") or config.get("base_model_name_or_path")
    others = made.get("weights_sample", lm.weights_sample) != lm.weights_sample
    if others or (not made and base and lm.name and Path(base).name != Path(lm.name).name):
        _log.warning("adapter %s was trained on %s, not on these weights of %s; its effect may be lost",
                     folder, base, lm.name)  # fmt: skip
    return folder


def record_base(lm: LM, folder: str | os.PathLike[str]) -> None:
    """Write into an adapter's folder which model it was trained on; `check_adapter` reads it.

    Call it while `lm` has its own weights.
    """
    made = {"model": lm.name, "revision": lm.revision, "config_hash": lm.config_hash}
    content = json.dumps({**made, "weights_sample": lm.weights_sample}, indent=2) + "\n"
    write_file(expanded(os.fspath(folder)) / RECORD, content.encode())


def _json(path: Path, what: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {str(path)!r} ({error.strerror}); expected {what}") from None
    except ValueError as error:
        raise ValueError(f"{path}: no JSON ({error}); expected {what}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected {what}, got a list or a number")
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _put_back(model: Any, modules: Mapping[str, Any], biases: Mapping[str, torch.Tensor]) -> None:
    """Undo a loading, also one that failed half way."""
    for name, module in modules.items():
        parent, _, leaf = name.rpartition(".")
        if name and getattr(modules[parent], leaf, None) is not module:
            setattr(modules[parent], leaf, module)
    with torch.no_grad():
        for name, bias in biases.items():
            model.get_parameter(name).copy_(bias)
    if hasattr(model, "peft_config"):
        del model.peft_config
