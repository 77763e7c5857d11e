"""SoftPrompt: the artefact. A value that is saved as one safetensors file and opens in PEFT."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from softde import __version__
from softde.files import expanded, write_file
from softde.lm.template import check_placement
from softde.surveys.values import FrozenDict

if TYPE_CHECKING:
    from softde.lm import LM

FORMAT = 1  # of the file; goes up when an older softde could not read it
TENSOR = "prompt_embeddings"  # PEFT's name


class PromptMismatch(UserWarning):
    """A soft prompt is used with another model than the one it was made with."""


@dataclass(frozen=True, eq=False, repr=False)
class SoftPrompt:
    """Virtual tokens, where they stand, and where they came from. Equal when all three are.

    embeddings : (tokens, hidden) float32 on the CPU, a copy of what was given, tensor or array: what the model's layers
        see.
    placement : "front" (before everything), "after_bos", "system" (end of the system text), "user_start" or "late"
        (start or end of the user's text).
    provenance : nested JSON values; `model_provenance` gives the part about the model.

    Raises
    ------
    ValueError
        Another shape, values that are not finite, an unknown placement, a provenance that is not JSON.
    """

    embeddings: Float[Tensor, "tokens hidden"]
    placement: str = "late"
    provenance: Mapping[str, Any] = field(default_factory=FrozenDict)

    def __post_init__(self) -> None:
        given: Any = self.embeddings
        if isinstance(given, np.ndarray) and given.dtype.kind == "f":
            given = torch.tensor(given)
        if not isinstance(given, Tensor) or given.ndim != 2 or 0 in given.shape or not given.is_floating_point():
            shown = f"{tuple(given.shape)} {given.dtype}" if isinstance(given, Tensor) else type(given).__name__
            raise ValueError(f"embeddings: expected a floating-point tensor (tokens, hidden), got {shown}")
        embeddings = given.detach().to("cpu", torch.float32, copy=True).contiguous()
        if not embeddings.isfinite().all():
            count = int((~embeddings.isfinite()).sum())
            raise ValueError(f"embeddings: expected finite numbers, got {count} that are not; the prompt is unusable")
        check_placement(self.placement)
        if not isinstance(self.provenance, Mapping):
            raise ValueError(f"provenance: expected a mapping, got {type(self.provenance).__name__}")
        object.__setattr__(self, "embeddings", embeddings)
        object.__setattr__(self, "provenance", json_value(self.provenance, "provenance"))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SoftPrompt):
            return NotImplemented
        return self.to_json() == other.to_json() and torch.equal(self.embeddings, other.embeddings)

    def __hash__(self) -> int:
        return hash((self.to_json(), tuple(self.embeddings.shape), float(self.embeddings.double().sum())))

    def __repr__(self) -> str:
        return f"SoftPrompt({self.num_virtual_tokens} × {self.hidden_size}, {self.placement}, for {self.model_name})"

    @property
    def num_virtual_tokens(self) -> int:
        """How many positions of the context it takes."""
        return int(self.embeddings.shape[0])

    @property
    def hidden_size(self) -> int:
        """Width of the embeddings, and of every model it fits."""
        return int(self.embeddings.shape[1])

    @property
    def model_name(self) -> str:
        """The model it was made with, as far as it is known."""
        return str(self.provenance.get("model") or "an unnamed model")

    def with_provenance(self, entries: Mapping[str, Any]) -> SoftPrompt:
        """The same prompt with entries of its provenance added or replaced."""
        return replace(self, provenance={**self.provenance, **entries})

    # -- one file

    def to_json(self) -> str:
        """Everything but the numbers, sorted and compact: the same text for the same prompt."""
        content = {"format": FORMAT, "placement": self.placement, "provenance": self.provenance}
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file: the same bytes every time, whole or not at all.

        Raises
        ------
        ValueError
            The folder does not exist or cannot be written to, or the disk is full.
        """
        # One metadata key only: safetensors writes several in random order.
        write_file(path, safetensors_bytes({TENSOR: self.embeddings}, metadata={"softde": self.to_json()}))

    @classmethod
    def load(cls, path: str | Path) -> SoftPrompt:
        """Read what `save` wrote, exactly.

        Raises
        ------
        ValueError
            A missing, damaged or foreign file, or one of a newer softde; the sentence names it and says what to do.
        """
        path = expanded(path)
        tensors, metadata = read_safetensors(path)
        if "softde" not in metadata:
            raise ValueError(
                f"{path} is no soft prompt of softde (its header has no 'softde' entry); give a file written by "
                "SoftPrompt.save, or read a PEFT folder with SoftPrompt.from_peft"
            )
        if set(tensors) != {TENSOR} or tensors[TENSOR].dtype != torch.float32:
            found = ", ".join(f"{name} {tensor.dtype}" for name, tensor in tensors.items()) or "none"
            raise ValueError(f"{path}: expected one float32 tensor {TENSOR!r}, got {found}; save the prompt again")
        return _from_json(metadata["softde"], tensors[TENSOR], path)

    # -- PEFT

    def save_peft(self, folder: str | Path, lm: LM | None = None) -> None:
        """Write a folder that `peft.PeftModel.from_pretrained` opens, with a README that says how to use it.

        "front" becomes a PROMPT_TUNING adapter; "late" a TRAINABLE_TOKENS adapter on reserved tokens of the tokenizer,
        which the README puts at the end of the user's text. `lm` is the model it was made with; without it "late" reads
        that model's tokenizer and configuration by the name in the provenance.

        Raises
        ------
        ValueError
            A model that does not fit or cannot be found, a tokenizer without enough reserved tokens, a folder that
            holds other files or cannot be written to.
        """
        from softde.export import save_peft

        save_peft(self, folder, lm)

    @classmethod
    def from_peft(cls, folder: str | Path) -> SoftPrompt:
        """Read a PEFT folder: a PROMPT_TUNING adapter of any origin, or any folder that `save_peft` wrote.

        Raises
        ------
        ValueError
            No adapter there, or one of another kind.
        """
        from softde.export import read_peft

        embeddings, record, placement, provenance = read_peft(expanded(folder))
        return _from_json(record, embeddings, Path(folder)) if record else cls(embeddings, placement, provenance)

    # -- does it belong to this model?

    def check_model(self, lm: LM, advice: str = "check it with softde verify") -> None:
        """Refuse a model of another width; warn (`PromptMismatch`) of one that may read the numbers differently.

        advice : the end of the warning.

        Raises
        ------
        ValueError
            The model's hidden size is not the prompt's.
        """
        if lm.hidden_size != self.hidden_size:
            raise ValueError(
                f"the prompt is {self.hidden_size} numbers wide (made with {self.model_name!r}), but model {lm.name!r} "
                f"is {lm.hidden_size} wide; use the model it was made with, or align a new prompt"
            )
        differences = _differences(self.provenance, model_provenance(lm))
        if differences:
            warnings.warn(
                f"this soft prompt was made with another model ({'; '.join(differences)}); its effect may be lost: "
                f"{advice}",
                PromptMismatch,
                stacklevel=2,
            )


def model_provenance(lm: LM) -> dict[str, Any]:
    """What a soft prompt remembers of the model it was made with."""
    probe = lm.embedding_probe
    return {
        "model": lm.name,
        "revision": lm.revision,
        "model_config_hash": lm.config_hash,
        "tokenizer_hash": lm.tokenizer_hash,
        "hidden_size": lm.hidden_size,
        "embedding_scale": probe["module_scale"],
        "transformers": probe["transformers"],
        "softde": __version__,
    }


def _differences(made: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, what differs between the model of the provenance and this one; unknown entries differ from nothing."""

    def differs(key: str) -> bool:
        return made.get(key) is not None and now[key] is not None and made[key] != now[key]

    def both(key: str) -> str:
        return f"{made[key]!r}, now {now[key]!r}"

    found = []
    if differs("model"):
        found.append(f"name {both('model')}")
    if differs("revision"):
        found.append(f"revision {both('revision')}")
    # The same revision is the same architecture, even if another transformers writes its configuration differently.
    same_revision = not found and made.get("revision") is not None and made["revision"] == now["revision"]
    if differs("model_config_hash") and not same_revision:
        found.append("another configuration")
    if differs("tokenizer_hash"):
        found.append("another tokenizer or chat template")
    # Half precision rounds the scale; what matters is 1 against √hidden.
    if differs("embedding_scale") and not math.isclose(made["embedding_scale"], now["embedding_scale"], rel_tol=0.02):
        found.append(
            f"transformers {both('transformers')}, which scale embeddings by {made['embedding_scale']:g} and "
            f"{now['embedding_scale']:g}"
        )
    return found


def json_value(value: Any, where: str) -> Any:
    """A frozen copy made of JSON values: tuples become lists, numpy and torch numbers plain ones.

    Raises
    ------
    ValueError
        Anything else, and NaN or infinity, named by its place.
    """
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise ValueError(f"{where}: expected text as keys, got {wrong[0]!r}")
        return FrozenDict({key: json_value(entry, f"{where}.{key}") for key, entry in value.items()})
    if isinstance(value, (list, tuple)):
        return [json_value(entry, f"{where}[{i}]") for i, entry in enumerate(value)]
    if hasattr(value, "tolist"):
        return json_value(value.tolist(), where)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, got {value}; JSON has none, so write None instead")
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise ValueError(f"{where}: expected a JSON value, got {type(value).__name__}; give text, numbers, lists, mappings")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a file, or one sentence that says why not."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a .safetensors file, or read a PEFT folder by SoftPrompt.from_peft")
    if not path.exists():
        raise ValueError(f"there is no file {path}; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as safetensors ({error}); it is cut off, damaged or another kind of file: "
            "copy or download it again"
        ) from error


def _from_json(text: str, embeddings: Tensor, path: Path) -> SoftPrompt:
    """The inverse of `SoftPrompt.to_json`."""
    try:
        record = json.loads(text)
        found = record["format"]
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{path}: its softde record is damaged; copy the file again") from None
    if found != FORMAT:
        advice = "upgrade with pip install -U softde"
        raise ValueError(f"{path} has format {found!r}, this softde reads format {FORMAT}; {advice}")
    try:
        return SoftPrompt(embeddings, record.get("placement"), record.get("provenance"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def softde_version() -> str:
    """The version that records name."""
    return __version__
