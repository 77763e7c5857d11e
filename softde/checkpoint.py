"""A run's folder: what is written while a search goes on, so that a kill at any moment loses one generation at most.

run.yaml : the resolved configuration. log.jsonl : one line per generation, without wall-clock values.
checkpoint.safetensors : the whole state of the search after a generation, replaced atomically.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softde.files import refused, write_file
from softde.prompt import softde_version

RUN, LOG, STATE = "run.yaml", "log.jsonl", "checkpoint.safetensors"
LONGEST = 200  # letters that a message shows of a setting
RESULTS = ("prompt.safetensors", "result.json", "comparison.md", "peft")  # what a finished run adds


@dataclass(frozen=True)
class Saved:
    """What a folder holds of an unfinished or finished search."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    trajectory: tuple[dict[str, Any], ...]
    wall_seconds: float
    forward_tokens: int

    @property
    def group_size(self) -> int | None:
        """Candidates per forward of the last generation; None if the run did not write it down."""
        return self.trajectory[-1].get("group_size") if self.trajectory else None

    def to_bytes(self) -> bytes:
        """Everything, for a process that does not see the folder."""
        from safetensors.torch import save as as_bytes

        record = {k: v for k, v in vars(self).items() if k != "tensors"}
        return json.dumps(record).encode() + b"\n" + as_bytes(self.tensors)

    @classmethod
    def from_bytes(cls, message: bytes) -> Saved:
        """What `to_bytes` wrote."""
        from safetensors.torch import load

        record, _, tensors = message.partition(b"\n")
        values = json.loads(record)
        return cls(
            load(tensors), values["numbers"], tuple(values["trajectory"]), values["wall_seconds"],
            values["forward_tokens"],
        )  # fmt: skip


def open_run(folder: Path, config: Mapping[str, Any], resume: bool) -> Saved | None:
    """Prepare the folder; the saved search if there is one to go on with.

    Raises
    ------
    ValueError
        If the folder holds a run of another configuration (the differences are named), a damaged one, or one without
        its run.yaml.
    """
    import yaml

    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"cannot write to folder {folder} ({error.strerror}): choose another one") from error
    rest = [name for name in (STATE, LOG) if (folder / name).exists()]
    if resume and rest and not (folder / RUN).exists():
        raise ValueError(
            f"{folder} holds {' and '.join(rest)} but no {RUN}, which says of which run: restore it, use another "
            "folder, or start over with resume=False (--no-resume)"
        )
    if resume and (folder / RUN).exists():
        try:
            earlier = yaml.safe_load((folder / RUN).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError, OSError):
            earlier = None
        if not isinstance(earlier, Mapping):
            raise ValueError(damaged(folder / RUN))
        refuse_changes(folder, earlier, config)
        extend(folder, earlier, config)
        if (folder / STATE).exists():
            return read(folder)
    if not resume:
        set_aside(folder)
    (folder / STATE).unlink(missing_ok=True)
    (folder / LOG).unlink(missing_ok=True)
    write_file(folder / RUN, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True).encode())
    return None


def set_aside(folder: Path) -> None:
    """Move an earlier run into a folder of its own, "previous-1" and so on: nothing is lost or mixed up."""
    found = [folder / name for name in (*RESULTS, LOG, STATE, RUN) if (folder / name).exists()]
    if found:
        number = next(n for n in count(1) if not (folder / f"previous-{n}").exists())
        (folder / f"previous-{number}").mkdir()
        for path in found:
            path.rename(folder / f"previous-{number}" / path.name)


def refuse_changes(folder: Path, earlier: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise if the run in the folder was started with other settings."""
    old, new = dict(flatten(earlier)), dict(flatten(config))
    changed = [
        k
        for k in {**old, **new}
        if old.get(k) != new.get(k) and not uncompared(k) and not extends(k, old.get(k), new.get(k))
    ]
    if changed:
        differences = "; ".join(f"{k} {_changed(old.get(k), new.get(k))}" for k in changed[:4])
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        raise ValueError(
            f"{folder} holds a run with another configuration ({differences}{more}): use the same settings to go on, "
            "another folder, or resume=False (--no-resume) to start over"
        )


def _changed(old: Any, new: Any) -> str:
    """What a setting was and is, of a list only as much as fits."""
    found = f"was {old!r}, now {new!r}"
    if len(found) <= LONGEST:
        return found
    was, now = (textwrap.shorten(repr(value), LONGEST // 4, placeholder=" ...") for value in (old, new))
    return f"was {was}, now {now}"


def uncompared(setting: str) -> bool:
    """May this differ when a run goes on? Versions cost exactness only; the group size is taken from the log; why an
    optimiser was chosen matters less than which.
    """
    return setting.startswith("versions.") or setting in ("group_size", "optimizer_choice")


def extends(setting: str, old: Any, new: Any) -> bool:
    """Does another value only decide when the run ends? An optimiser that plans with the budget has it in its own."""
    return setting.startswith("stops.") or (setting == "budget" and isinstance(old, int) and new > old)


def extend(folder: Path, earlier: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Write down that the run goes on to a larger budget or other stops."""
    import yaml

    now = {**earlier, **{name: config[name] for name in ("budget", "stops") if name in config}}
    if now != earlier:
        write_file(folder / RUN, yaml.safe_dump(now, sort_keys=False, allow_unicode=True).encode())


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings and lists as dotted names."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from flatten(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        yield name, list(value)
    else:
        yield name, value


def save(folder: Path, tensors: dict[str, Tensor], numbers: dict[str, Any], wall: float, tokens: int) -> None:
    """Replace the checkpoint; one metadata key, since several are written in random order."""
    from safetensors.torch import save as as_bytes

    record = json.dumps({"numbers": numbers, "wall_seconds": wall, "forward_tokens": tokens}, sort_keys=True)
    write_file(folder / STATE, as_bytes(tensors, metadata={"softde": record}))


def log(folder: Path, line: Mapping[str, Any]) -> None:
    """Append one generation, on disk when this returns; written before its checkpoint, so a resume may cut a line."""
    try:
        with (folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ValueError(f"{refused(folder / LOG, error)}; the last checkpoint is unchanged") from error


def read(folder: Path) -> Saved:
    """The last checkpoint, and the log up to it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / STATE, framework="pt") as file:
            record = json.loads(file.metadata()["softde"])
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        numbers, wall, tokens = record["numbers"], float(record["wall_seconds"]), int(record["forward_tokens"])
        generations = int(numbers["generation"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(damaged(folder / STATE, f" ({error})")) from None
    lines = (folder / LOG).read_bytes().split(b"\n")[:-1] if (folder / LOG).exists() else []
    if len(lines) < generations:
        raise ValueError(
            f"{folder / LOG} has {len(lines)} lines but the checkpoint {generations} generations: restore the log, or "
            "start over with resume=False"
        )
    kept = lines[:generations]
    try:
        trajectory = tuple(json.loads(line) for line in kept)
    except ValueError:
        raise ValueError(damaged(folder / LOG)) from None
    write_file(folder / LOG, b"".join(line + b"\n" for line in kept))
    return Saved(tensors, numbers, trajectory, wall, tokens)


def damaged(path: Path, why: str = "") -> str:
    return f"{path} is damaged{why}: use another folder, or start over with resume=False (--no-resume)"


def versions() -> dict[str, str]:
    """Versions that the last bits of a run depend on."""
    import transformers

    return {"softde": softde_version(), "torch": str(torch.__version__), "transformers": transformers.__version__}
