"""A search whose populations are scored by a Ray cluster, whose machines may come and go.

Every worker is a process that loads the model once. A population is cut into slices, a free worker takes the next one,
and the slice of a worker that is lost goes back to be taken by another.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softde.objective import AlignmentLoss, Evaluation
from softde.parallel import Evaluate, join
from softde.prompt import model_provenance

if TYPE_CHECKING:
    from softde.lm import LM

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RayWorkers:
    """Processes of a Ray cluster that score a search: ``softde.align(..., workers=RayWorkers(4, num_gpus=1))``.

    The cluster is the one that Ray is connected to or finds (``RAY_ADDRESS``); without any, a local one is started and
    ended again.

    num_workers : how many, each with its own model. num_cpus, num_gpus : what Ray sets aside for each.
    chunk : candidates per slice; default an even share of the population. Smaller ones lose less with a machine.
    load : called in each worker for its model; default ``LM.from_pretrained`` with the name, revision and dtype of the
        model that the search was given, on the worker's GPU if it has one.
    replacements : lost workers that are started anew before one has answered. patience : seconds to wait for a first or
        another worker when there is none.
    """

    num_workers: int = 2
    num_cpus: float = 1
    num_gpus: float = 0
    chunk: int | None = None
    load: Callable[[], LM] | None = None
    replacements: int = 10
    patience: float = 600.0

    def __post_init__(self) -> None:
        for name in ("num_workers", "chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected 1 or more, got {value}")

    @contextmanager
    def start(self, loss: AlignmentLoss) -> Iterator[Evaluate]:
        """Start the workers and score with them; they end with the context.

        Raises
        ------
        ImportError
            Ray is not installed.
        ValueError
            The cluster cannot be reached.
        """
        ray = import_ray()
        own = not ray.is_initialized()
        if own:
            connect(ray)
        crew = Crew(ray, self, loss)
        try:
            yield crew
        finally:
            crew.close()
            if own:
                ray.shutdown()


class Task(NamedTuple):
    """A slice of a population."""

    x: NDArray[Any]
    bound: NDArray[np.float64] | None
    order: Any
    draw: int
    part: str | None
    group_size: int


class Worker:
    """In a process of the cluster: a model of its own and the loss of the search."""

    def prepare(self, load: Callable[[], LM], settings: dict[str, Any], threads: int) -> dict[str, Any]:
        """Load the model; who this worker is. No part of __init__: Ray takes an error there for a lost worker."""
        torch.set_num_threads(threads)  # the last bits depend on their number
        self.loss = AlignmentLoss(lm=load(), **settings)
        return identity(self.loss)

    def evaluate(self, task: Task) -> tuple[Evaluation, int]:
        """What the slice scored, and the group size it was scored with."""
        engine = self.loss.lm.engine
        engine.group_size = task.group_size
        bound = None if task.bound is None else torch.tensor(task.bound)
        found = self.loss(torch.tensor(task.x), bound=bound, order=task.order, draw=task.draw, part=task.part)
        return found, engine.group_size


@dataclass
class Crew:
    """The workers of one search, and what each is doing."""

    ray: Any
    plan: RayWorkers
    loss: AlignmentLoss
    starting: dict[Any, Any] = field(default_factory=dict)  # ref of its identity → worker
    free: list[Any] = field(default_factory=list)
    busy: dict[Any, tuple[Any, int]] = field(default_factory=dict)  # ref of its answer → (worker, slice)
    lost: int = 0
    in_a_row: int = 0  # lost since the last answer

    def __post_init__(self) -> None:
        for _ in range(self.plan.num_workers):
            self.hire()

    def __call__(
        self, x: Tensor, /, *, bound: Tensor | None = None, order: Any = None, draw: int = 0, part: str | None = None
    ) -> Evaluation:
        """Score a population.

        Raises
        ------
        ValueError
            No worker is left, or a worker met an error that another would meet too.
        """
        size = self.plan.chunk or -(-len(x) // self.plan.num_workers)
        rows = [slice(start, start + size) for start in range(0, len(x), size)]
        waiting, parts = list(range(len(rows))), dict[int, Evaluation]()
        while len(parts) < len(rows):
            while waiting and self.free:
                worker, number = self.free.pop(0), waiting.pop(0)
                mine = x[rows[number]].cpu().numpy(), None if bound is None else bound[rows[number]].cpu().numpy()
                task = Task(*mine, order, draw, part, self.loss.lm.engine.group_size)
                self.busy[worker.evaluate.remote(task)] = worker, number
            ref = self.next_news()
            worker, number = self.busy.pop(ref, (None, -1))
            if worker is None:
                worker = self.starting.pop(ref)
            try:
                answer = self.ray.get(ref)
            except self.ray.exceptions.RayTaskError as error:  # the worker is well; what it was asked is not
                raise ValueError(f"a Ray worker failed: {type(error.cause).__name__}: {error.cause}") from error
            except self.ray.exceptions.RayError as error:
                self.replace(worker, error, 0 if number < 0 else len(x[rows[number]]))
                waiting[:0] = [number] if number >= 0 else []
                continue
            self.free.append(worker)
            if number < 0:
                check_identity(identity(self.loss), answer)
            else:
                self.in_a_row = 0
                parts[number], group_size = answer
                self.loss.lm.engine.group_size = min(group_size, self.loss.lm.engine.group_size)
        return join([parts[number] for number in range(len(rows))])

    def next_news(self) -> Any:
        """Wait for the next answer, new worker or loss."""
        refs, deadline = [*self.busy, *self.starting], time.monotonic() + self.plan.patience
        while refs:
            ready, _ = self.ray.wait(refs, num_returns=1, timeout=1.0)
            if ready:
                return ready[0]
            if not self.busy and time.monotonic() > deadline:
                break
        raise ValueError(
            f"no Ray worker is left ({self.lost} lost, {len(self.starting)} not up in {self.plan.patience:g} seconds): "
            f"start machines with {self.plan.num_cpus:g} CPUs and {self.plan.num_gpus:g} GPUs free, then run the same "
            "call again; it goes on from its last checkpoint"
        )

    def hire(self) -> None:
        """Start one more worker; it is free once its model is loaded."""
        remote = self.ray.remote(num_cpus=self.plan.num_cpus, num_gpus=self.plan.num_gpus, scheduling_strategy="SPREAD")
        load = self.plan.load or loader(self.loss.lm, "cuda" if self.plan.num_gpus else "cpu")
        worker = remote(Worker).remote()
        self.starting[worker.prepare.remote(load, settings(self.loss), torch.get_num_threads())] = worker

    def replace(self, worker: Any, error: Exception, candidates: int) -> None:
        """Say once that a worker is lost, and start another."""
        self.ray.kill(worker)  # one that cannot be reached may still live
        self.lost, self.in_a_row = self.lost + 1, self.in_a_row + 1
        again = self.in_a_row <= self.plan.replacements
        _log.warning(
            "a Ray worker was lost (%s): %s; %s",
            type(error).__name__,
            f"its {candidates} candidates are scored by another" if candidates else "it had not started yet",
            "starting a new one"
            if again
            else f"going on without it, after {self.plan.replacements} replacements without an answer",
        )
        if again:
            self.hire()

    def close(self) -> None:
        """End all workers."""
        for worker in [*self.free, *self.starting.values(), *(worker for worker, _ in self.busy.values())]:
            self.ray.kill(worker)


# ---- what a worker is made of --------------------------------------------------------------------------------------


def loader(lm: LM, device: str) -> Callable[[], LM]:
    """How a worker loads the same model again."""
    if not lm.name:
        raise ValueError("workers: this LM was made by hand and has no name to load it by; give RayWorkers(load=...)")
    name, dtype, revision, group_size = lm.name, lm.dtype, None if lm.is_tiny else lm.revision, lm.engine.group_size
    compiles = lm.compiles

    def load() -> LM:
        from softde.lm import LM

        return LM.from_pretrained(name, dtype, device, revision, group_size, compiles=compiles)

    return load


def settings(loss: AlignmentLoss) -> dict[str, Any]:
    """Everything of a loss but its model."""
    names = [f.name for f in dataclasses.fields(loss) if f.init and f.name != "lm"]
    return {name: getattr(loss, name) for name in names}


def identity(loss: AlignmentLoss) -> dict[str, Any]:
    """What a worker and the search must have in common."""
    return {**model_provenance(loss.lm), "dtype": str(loss.lm.dtype), "survey": loss.survey.digest}


def check_identity(here: dict[str, Any], there: dict[str, Any]) -> None:
    """Refuse a worker with another model."""
    for key, value in here.items():
        if there.get(key) != value:
            raise ValueError(
                f"a Ray worker has another model than the search: {key} is {there.get(key)!r}, expected {value!r}; "
                "install the same versions on every machine, or give RayWorkers a `load` that loads the same model"
            )


# ---- Ray -----------------------------------------------------------------------------------------------------------


def import_ray() -> Any:
    """Ray, or one sentence on how to get it."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ImportError("scoring on a Ray cluster needs Ray: pip install 'softde[ray]'") from error
    return ray


def connect(ray: Any) -> None:
    """Join the cluster that the environment names, or start one here."""
    try:
        ray.init(configure_logging=False, log_to_driver=False, include_dashboard=None if found() else False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"cannot reach or start a Ray cluster ({str(error).splitlines()[0][:200]}): start one with `ray start "
            "--head`, or unset RAY_ADDRESS to use this machine alone"
        ) from error


def found() -> bool:
    """Does the environment name a cluster?"""
    return bool(os.environ.get("RAY_ADDRESS"))
