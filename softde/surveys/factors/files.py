"""A factor model as one safetensors file. No pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from softde.files import expanded, write_file
from softde.surveys.checks import check_keys, expect, naming
from softde.surveys.factors.model import FactorModel, array_shapes
from softde.surveys.scoring import Array
from softde.surveys.values import listed

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1  # of the file; goes up when an older softde could not read it
HEADER = "softde_factor_model"
RECORD = ("format", "items", "factors", "method", "rotation", "rows", "source")


def save(model: FactorModel, path: str | Path) -> None:
    """Write the model: the same bytes every time, whole or not at all."""
    from safetensors.numpy import save as safetensors_bytes

    record = json.dumps({"format": FORMAT, **model.record()}, sort_keys=True, separators=(",", ":"))
    arrays = {name: np.ascontiguousarray(getattr(model, name)) for name in array_shapes(0, 0)}
    write_file(path, safetensors_bytes(arrays, metadata={HEADER: record}))


def load(path: str | Path) -> FactorModel:
    """Read what `save` wrote.

    Raises
    ------
    ValueError
        A missing, damaged or foreign file, or one of a newer softde; the sentence names it and says what to do.
    """
    path = expanded(path)
    arrays, metadata = _read(path)
    if HEADER not in metadata:
        raise ValueError(
            f"{path} is no factor model of softde (no {HEADER!r} in its header); give a file of FactorModel.save"
        )
    with naming(str(path)):
        return _model(metadata[HEADER], arrays)


def _read(path: Path) -> tuple[dict[str, Array], Mapping[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror or 'no such file'}); check the path") from None
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}); save the model again") from None


def _model(text: str, arrays: Mapping[str, Array]) -> FactorModel:
    try:
        record: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the header is damaged ({error}); save the model again") from None
    if record.get("format") != FORMAT:
        raise ValueError(f"file format {record.get('format')!r}, but this softde reads format {FORMAT}; update softde")
    check_keys(record, RECORD, "header", required=RECORD)
    for name in ("items", "factors"):
        expect(record[name], list, f"header: {name}")
    missing = [name for name in array_shapes(0, 0) if name not in arrays]
    if missing:
        raise ValueError(f"missing arrays {listed(missing)}; save the model again")
    given: dict[str, Any] = {"item_ids": record.pop("items"), **{name: arrays[name] for name in array_shapes(0, 0)}}
    return FactorModel(**given, **{name: value for name, value in record.items() if name != "format"})
