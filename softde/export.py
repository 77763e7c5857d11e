"""SoftPrompt ↔ PEFT folder, written by hand: `peft` is not needed here, only by those who open the folder.

"front" is PEFT's PROMPT_TUNING: the rows go before everything. PEFT knows no other place, so "late", "user_start" and
"system" become TRAINABLE_TOKENS: the rows replace the embeddings of reserved tokens, and those, as plain text, end or
begin the user's message or are the system text. "after_bos" is a place that no message reaches.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from softde.card import QUESTION, card
from softde.files import write_folder
from softde.lm.loading import skeleton
from softde.lm.template import TEMPLATE_OPTIONS, cut_ids, keeps_system, render, token_ids

if TYPE_CHECKING:
    from softde.lm import LM
    from softde.prompt import SoftPrompt

CONFIG, WEIGHTS, CARD, RECORD = "adapter_config.json", "adapter_model.safetensors", "README.md", "softde.json"
RESERVED = re.compile(r"reserved|unused|placeholder|\[control_\d+\]", re.IGNORECASE)
NAMED = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class Adapter:
    """A PEFT adapter: its configuration and its rows under their names; `tokens` are the reserved ones, if any."""

    config: dict[str, Any]
    tensors: tuple[str, ...]
    rows: Tensor
    tokens: tuple[str, ...] = ()
    scale: float = 1.0


@dataclass(frozen=True)
class Frame:
    """What an export needs of a model: everything but its weights."""

    tokenizer: Any
    embedding: str  # dotted name of the input embedding module
    vocabulary: int  # its rows
    tied_head: str | None  # dotted name of the output head if it has the same weights


def save_peft(prompt: SoftPrompt, folder: str | Path, lm: LM | None = None) -> None:
    """Write the four files; see `SoftPrompt.save_peft`."""
    if lm is not None:
        prompt.check_model(lm)
    if prompt.placement == "after_bos":
        raise ValueError(
            "a prompt placed 'after_bos' cannot be exported to PEFT, which puts soft tokens before everything or in "
            "the place of tokens of a message; align with placement='front', 'system', 'user_start' or 'late', or keep "
            "to the .safetensors file, which softde reads"
        )
    if prompt.placement == "front":
        frame = frame_of(lm.model, lm.tokenizer) if lm else None
        adapter = front_adapter(prompt)
    else:
        frame = frame_of(lm.model, lm.tokenizer) if lm else _load_frame(prompt)
        scale = lm.embedding_probe["module_scale"] if lm else prompt.provenance.get("embedding_scale")
        adapter = message_adapter(prompt, frame, float(scale or 1.0))
    record = json.loads(prompt.to_json()) | {"peft": {"tokens": list(adapter.tokens), "embedding_scale": adapter.scale}}
    files = {
        CONFIG: _json(adapter.config),
        WEIGHTS: safetensors_bytes({name: adapter.rows.clone() for name in adapter.tensors}, metadata={"format": "pt"}),
        CARD: _card(prompt, adapter, frame).encode(),
        RECORD: _json(record),
    }
    write_folder(folder, files, known=files)


def _card(prompt: SoftPrompt, adapter: Adapter, frame: Frame | None) -> str:
    template = str(getattr(frame.tokenizer, "chat_template", None) or "") if frame else "unknown"
    return card(
        prompt.provenance,
        prompt.num_virtual_tokens,
        soft_prompt="".join(adapter.tokens),
        forbid=adapter.config["token_indices"] if adapter.tokens and frame and frame.tied_head else (),
        chat=bool(template),
        placement=prompt.placement,
        system_turn=frame is not None and keeps_system(frame.tokenizer, "x"),
        chat_options={key: value for key, value in TEMPLATE_OPTIONS.items() if key in template},
        revision=_hub_revision(prompt),
    )


def front_adapter(prompt: SoftPrompt) -> Adapter:
    """PROMPT_TUNING; PEFT fills in the model's numbers of layers and heads when it opens it."""
    config = _common(prompt, "PROMPT_TUNING") | {
        "num_virtual_tokens": prompt.num_virtual_tokens,
        "token_dim": prompt.hidden_size,
        "num_transformer_submodules": 1,
        "prompt_tuning_init": "RANDOM",
    }
    return Adapter(config, ("prompt_embeddings",), prompt.embeddings)


def message_adapter(prompt: SoftPrompt, frame: Frame, scale: float) -> Adapter:
    """TRAINABLE_TOKENS on reserved tokens; the tensor's "delta" holds whole rows, before the module scales them."""
    tokens = reserved_tokens(frame, prompt.num_virtual_tokens, prompt.model_name)
    _check_tokenised(frame.tokenizer, tokens, prompt.placement)
    config = _common(prompt, "TRAINABLE_TOKENS") | {
        "token_indices": list(tokens.values()),
        "target_modules": re.escape(frame.embedding),  # a string is a pattern for the whole name
        "init_weights": True,
    }
    modules = [frame.embedding, frame.tied_head] if frame.tied_head else [frame.embedding]
    names = tuple(f"base_model.model.{module}.trainable_tokens_delta" for module in modules)
    return Adapter(config, names, prompt.embeddings / scale, tuple(tokens), scale)


def reserved_tokens(frame: Frame, count: int, name: str) -> dict[str, int]:
    """The first `count` added tokens (text → id) that are reserved by name and play no part in the chat.

    Raises
    ------
    ValueError
        There are fewer.
    """
    named = {getattr(frame.tokenizer, attribute, None) for attribute in NAMED}
    template = str(getattr(frame.tokenizer, "chat_template", None) or "")  # may be several, by name
    added = sorted(getattr(frame.tokenizer, "added_tokens_decoder", {}).items())
    free = {
        str(token): index
        for index, token in added
        if RESERVED.search(str(token)) and index < frame.vocabulary
        if str(token) not in named and str(token) not in template
    }
    if len(free) < count:
        raise ValueError(
            f"a prompt of {count} tokens inside a message needs as many reserved ones, the tokenizer of {name} has "
            f"{len(free)}; align with placement='front' or fewer virtual tokens, or keep to the .safetensors file, "
            "which softde reads"
        )
    return dict(list(free.items())[:count])


def _check_tokenised(tokenizer: Any, tokens: Mapping[str, int], placement: str) -> None:
    """Written where the soft tokens stand, the tokens become their ids and leave the text around them as it was."""
    head, tail, _ = cut_ids(tokenizer, *render(tokenizer, QUESTION, None, placement))
    soft = "".join(tokens)
    user = {"late": QUESTION + soft, "user_start": soft + QUESTION}.get(placement, QUESTION)
    written = "".join(render(tokenizer, user, soft if placement == "system" else None))
    if token_ids(tokenizer, written) != [*head, *tokens.values(), *tail]:
        raise ValueError(
            f"the tokenizer changes the text around {next(iter(tokens))!r} or does not keep it whole; "
            "align with placement='front', or keep to the .safetensors file, which softde reads"
        )


def frame_of(model: Any, tokenizer: Any) -> Frame:
    """The frame of a loaded model, or of one without weights."""
    names = {module: name for name, module in model.named_modules()}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    return Frame(tokenizer, names[embedding], int(embedding.weight.shape[0]), names.get(head) if tied else None)


def _load_frame(prompt: SoftPrompt) -> Frame:
    """The frame of the model that the provenance names: its tokenizer and configuration, no weights."""
    name = prompt.provenance.get("model")
    if not name:
        raise ValueError("the prompt's provenance names no model; give it: save_peft(folder, lm=lm)")
    try:
        return frame_of(*skeleton(str(name), _hub_revision(prompt)))
    except ValueError as error:
        raise ValueError(f"{error}; or give the loaded model: save_peft(folder, lm=lm)") from error


def _common(prompt: SoftPrompt, kind: str) -> dict[str, Any]:
    return {
        "peft_type": kind,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": prompt.provenance.get("model"),
        "revision": _hub_revision(prompt),
        "inference_mode": True,
    }


def _hub_revision(prompt: SoftPrompt) -> str | None:
    """The revision if it is one of the Hub's, not the digest of an embedded model."""
    revision = prompt.provenance.get("revision")
    return None if revision is None or str(revision).startswith("sha256:") else str(revision)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


# -- and back


def read_peft(folder: Path) -> tuple[Tensor, str | None, str, dict[str, Any]]:
    """(embeddings, softde's own record if there is one, placement, provenance of a foreign adapter)."""
    from softde.prompt import read_safetensors

    config = _read_json(folder / CONFIG)
    kind, ours = config.get("peft_type"), (folder / RECORD).exists()
    if kind != "PROMPT_TUNING" and not (kind == "TRAINABLE_TOKENS" and ours):
        raise ValueError(f"{folder} holds a {kind} adapter, which is no soft prompt; give one of PEFT's PROMPT_TUNING")
    tensors, _ = read_safetensors(folder / WEIGHTS)
    rows, *copies = tensors.values() or [torch.empty(0)]
    if any(not torch.equal(rows, copy) for copy in copies):
        raise ValueError(f"{folder / WEIGHTS}: expected one prompt, got {len(tensors)} tensors; give a folder with one")
    if ours:
        record = _read_json(folder / RECORD)
        return rows * float(record.get("peft", {}).get("embedding_scale", 1.0)), json.dumps(record), "", {}
    made_with = {"model": config.get("base_model_name_or_path"), "revision": config.get("revision")}
    return rows, None, "front", {key: value for key, value in made_with.items() if value}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); give the folder of a PEFT adapter") from error
