"""Several processes, one search: each holds the optimiser and scores its own slice of every population.

Every rank asks for the same candidates (their generator is seeded), scores its slice, and gathers the answers of the
others; all tell the same losses, so all hold the same state and nothing has to be sent back. Messages are bytes in
tensors over gloo, a few kilobytes per generation, whatever device the models are on. What ends one rank ends all of
them, in the same generation and with the same sentence.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from softde.objective import AlignmentLoss, Evaluation

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)  # how long a rank waits for the slowest
GOODBYE = timedelta(seconds=10)  # how long it waits before it ends with an error, so that the first can say which
ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets
DONE, FAILED, INTERRUPTED = range(3)


class Evaluate(Protocol):
    """What scores a population: an `AlignmentLoss`, or something that has several of them do it."""

    def __call__(
        self, x: Float[Tensor, "population dim"], /, *, bound: Tensor | None = None, order: Any = None, draw: int = 0,
        part: str | None = None,
    ) -> Evaluation: ...  # fmt: skip


class Workers(Protocol):
    """Where a search has its populations scored."""

    def start(self, loss: AlignmentLoss) -> AbstractContextManager[Evaluate]:
        """Get ready to score with this loss, until the context ends."""
        ...


# ---- slices --------------------------------------------------------------------------------------------------------


def slices(population: int, parts: int) -> list[slice]:
    """Contiguous, the larger ones first; those beyond the population are empty."""
    size, more = divmod(population, parts)
    starts = [part * size + min(part, more) for part in range(parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(starts)]


def join(parts: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of all candidates: arrays one after the other, counts added up."""
    columns = zip(*parts, strict=True)
    return Evaluation._make(np.concatenate(c) if isinstance(c[0], np.ndarray) else sum(c) for c in columns)


def cut(whole: Evaluation, sizes: Sequence[int]) -> list[Evaluation]:
    """What `join` joined, candidates by candidates; fillers, which belong to nobody, stay with the first."""
    if len(sizes) == 1:
        return [whole]
    stops = np.cumsum(sizes)
    rows = [slice(stop - size, stop) for stop, size in zip(stops, sizes, strict=True)]
    parts = [Evaluation._make(c[r] if isinstance(c, np.ndarray) else 0 for c in whole) for r in rows]
    return [
        part._replace(tokens=int(part.spent.sum()), filler=0 if number else whole.filler)
        for number, part in enumerate(parts)
    ]


def pack(part: Evaluation) -> bytes:
    """An evaluation as bytes, exact."""
    from safetensors.numpy import save

    return save({name: np.array(value, order="C") for name, value in part._asdict().items()})


def unpack(message: bytes) -> Evaluation:
    """The evaluation that `pack` packed."""
    from safetensors.numpy import load

    values = load(message)
    return Evaluation._make(values[n] if values[n].ndim else int(values[n]) for n in Evaluation._fields)


# ---- ranks ---------------------------------------------------------------------------------------------------------


class Interrupts:
    """Ctrl-C breaks off a rank's own work, and waits while it speaks with the others or writes the record."""

    def __init__(self) -> None:
        self.heard = self.pending = False

    def handle(self, *_: Any) -> None:
        if not self.heard:
            self.pending = True
            return
        self.heard = False
        raise KeyboardInterrupt

    @contextmanager
    def installed(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # others never see a Ctrl-C
            yield
            return
        before = signal.signal(signal.SIGINT, self.handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def listening(self) -> Iterator[None]:
        if self.pending:
            self.pending = False
            raise KeyboardInterrupt
        self.heard = True
        try:
            yield
        finally:
            self.heard = False


@dataclass(frozen=True)
class Ranks:
    """One process among `size`; `Ranks()` is a process on its own, for which nothing below does anything special."""

    rank: int = 0
    size: int = 1
    group: Any = None
    interrupts: Interrupts = field(default_factory=Interrupts, repr=False, compare=False)

    @property
    def first(self) -> bool:
        """Is this the rank that writes and prints?"""
        return self.rank == 0

    def together(self) -> AbstractContextManager[None]:
        """In here, Ctrl-C on any rank ends all of them in the same generation."""
        return self.interrupts.installed() if self.size > 1 else _nothing()

    def gather(self, work: Callable[[], bytes], interruptible: bool = True) -> list[bytes]:
        """What `work` returned on every rank, in their order; what it raises on one is raised on all.

        Raises
        ------
        ValueError
            With the message of the first rank that failed (on which the error itself is raised), or because a rank is
            gone.
        """
        if self.size == 1:
            return [work()]
        failure: BaseException | None = None
        try:
            with self.interrupts.listening() if interruptible else _nothing():
                status, message = DONE, work()
        except KeyboardInterrupt as stop:
            status, message, failure = INTERRUPTED, b"", stop
        except Exception as error:
            status, message, failure = FAILED, self._sentence(error).encode(), error
        answers = self._exchange(status, message)
        if failure is not None and status == FAILED:
            raise failure
        for found, text in answers:
            if found == FAILED:
                raise ValueError(text.decode())
        if any(found == INTERRUPTED for found, _ in answers):
            raise KeyboardInterrupt
        return [answer for _, answer in answers]

    def agree(self, work: Callable[[], T], interruptible: bool = True) -> T:
        """What `work` returned here, once it has succeeded everywhere."""
        kept: list[T] = []

        def run() -> bytes:
            kept.append(work())
            return b""

        self.gather(run, interruptible)
        return kept[0]

    def from_first(self, work: Callable[[], bytes], interruptible: bool = True) -> bytes:
        """What `work` returned on the first rank, the only one that does it."""
        return self.gather(work if self.first else bytes, interruptible)[0]

    def check_equal(self, settings: Mapping[str, Any], uncompared: Callable[[str], bool]) -> None:
        """Raise on every rank if one of them was started with other settings, given as flat names and values."""
        import json

        all_settings = [json.loads(m) for m in self.gather(lambda: json.dumps(dict(settings)).encode())]
        for rank, other in enumerate(all_settings):
            for key in {**all_settings[0], **other}:
                here, there = all_settings[0].get(key), other.get(key)
                if here != there and not uncompared(key):
                    raise ValueError(
                        f"ranks 0 and {rank} were started with different settings ({key} is {here!r} and {there!r}): "
                        "give every rank the same model, survey and settings"
                    )

    @contextmanager
    def start(self, loss: AlignmentLoss) -> Iterator[Evaluate]:
        """The loss itself for a process on its own; else each rank's slice, gathered."""
        if self.size == 1:
            yield loss
            return

        def evaluate(
            x: Tensor, /, *, bound: Tensor | None = None, order: Any = None, draw: int = 0, part: str | None = None
        ) -> Evaluation:
            rows = slices(len(x), self.size)[self.rank]

            def score() -> bytes:
                if rows.start == rows.stop:
                    return b""
                limit = None if bound is None else bound[rows]
                return pack(loss(x[rows], bound=limit, order=order, draw=draw, part=part))

            parts = join([unpack(message) for message in self.gather(score) if message])
            # A rank that ran out of memory goes on with smaller groups, and the others with it.
            sizes = self.gather(lambda: str(loss.lm.engine.group_size).encode(), interruptible=False)
            loss.lm.engine.group_size = min(map(int, sizes))
            return parts

        yield evaluate

    def leave(self) -> None:
        """Before ending with an error: wait until every rank has said what it has to say."""
        import torch.distributed as dist

        try:
            if self.group is not None:
                dist.monitored_barrier(self.group, timeout=GOODBYE)
        except (RuntimeError, ValueError):
            pass  # some are gone already

    def _sentence(self, error: Exception) -> str:
        text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return text if self.first else f"rank {self.rank}: {text}"

    def _exchange(self, status: int, message: bytes) -> list[tuple[int, bytes]]:
        """(status, message) of every rank: first the lengths, then all messages padded to the longest."""
        import torch.distributed as dist

        try:
            heads = [torch.zeros(2, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(heads, torch.tensor([status, len(message)]), group=self.group)
            statuses, lengths = torch.stack(heads).T.tolist()
            if not (longest := max(lengths)):
                return [(s, b"") for s in statuses]
            padded = torch.frombuffer(bytearray(message.ljust(longest, b"\0")), dtype=torch.uint8)
            bodies = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(bodies, padded, group=self.group)
        except RuntimeError as error:
            raise ValueError(
                f"rank {self.rank} of {self.size}: another rank is gone, or gave no answer for "
                f"{PATIENCE.total_seconds() / 60:.0f} minutes: look at what the other ranks printed; the same command "
                "goes on from the last checkpoint"
            ) from error
        rows = zip(statuses, bodies, lengths, strict=True)
        return [(s, body.numpy().tobytes()[:length]) for s, body, length in rows]


def launched() -> bool:
    """Was this process started as one of several, by torchrun or alike?"""
    return all(name in os.environ for name in ENVIRONMENT) and int(os.environ["WORLD_SIZE"]) > 1


def ranks() -> Ranks:
    """Among the processes of its torchrun, this one, which joins them if it has not yet; `Ranks()` without others.

    Raises
    ------
    ValueError
        The others cannot be reached.
    """
    import torch.distributed as dist

    if not dist.is_available():
        return Ranks()
    if not dist.is_initialized():
        if not launched():
            return Ranks()
        try:
            dist.init_process_group("gloo", timeout=PATIENCE)
            atexit.register(leave)
        except (RuntimeError, ValueError) as error:
            address = ":".join(os.environ[name] for name in ENVIRONMENT[2:])
            raise ValueError(
                f"rank {os.environ['RANK']} cannot reach the other ranks at {address} ({error}): start all of them "
                "with torchrun, or unset WORLD_SIZE to run alone"
            ) from error
    rank, size = dist.get_rank(), dist.get_world_size()
    return Ranks(rank, size, _gloo()) if size > 1 else Ranks()


def leave() -> None:
    """Leave the group in good order: a process that ends inside it is taken for a crash by the others, now and then."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def _gloo() -> Any:
    """The default process group if it is gloo's, else one like it, made once: making one is a meeting of all ranks."""
    import torch.distributed as dist

    world = dist.group.WORLD
    if dist.get_backend() == "gloo":
        return world
    if world not in _others:
        _others[world] = dist.new_group(backend="gloo", timeout=PATIENCE)
    return _others[world]


_others: dict[Any, Any] = {}


def local_device(device: str | None) -> str | None:
    """A rank's own GPU of its machine, where one was asked for without a number, or nothing was asked for."""
    if launched() and device in (None, "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return device


@contextmanager
def _nothing() -> Iterator[None]:
    yield
