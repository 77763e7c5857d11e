"""What an optimiser is, and the loop that drives one.

An optimiser is a frozen dataclass of hyper-parameters with three pure methods, and a search is three lines::

    state = optimizer.init(points)                                     # points: (population, dim)
    candidates, state = optimizer.ask(state, generator)                # the first ask returns the points themselves
    state, info = optimizer.tell(state, candidates, losses)            # losses: (population,), lower is better

Nothing given to them is changed. A loss that is not finite means "could not be scored": it loses every comparison and
never becomes the best, but stays in the record as it came.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeVar, get_origin, get_type_hints, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from softde.checks import plain_number, shown, whole


@dataclass(frozen=True, eq=False)
class State:
    """What every search carries between two calls; an optimiser's own state adds tensors and numbers."""

    best_x: Tensor  # (dim,), best ever
    best_loss: float  # best ever; +inf until a candidate has been scored
    generation: int  # generations told
    evaluations: int  # candidates scored
    asked: bool  # an ask is waiting for its tell
    population_size: int  # candidates of the next ask

    @property
    def shape(self) -> tuple[int, int]:
        """(population, dim) of the next ask."""
        return self.population_size, len(self.best_x)


S = TypeVar("S", bound=State)

BLOCK_NUMBERS = 2**18  # numbers per block on a CPU: 1 MiB in float32


@runtime_checkable
class Optimizer(Protocol[S]):
    """The contract of every optimiser. Minimises."""

    @property
    def population_size(self) -> int: ...
    @property
    def state_type(self) -> type[S]: ...
    def init(self, points: Any) -> S: ...
    def ask(self, state: S, generator: torch.Generator) -> tuple[Tensor, S]: ...
    def tell(self, state: S, candidates: Tensor, losses: Any) -> tuple[S, Info]: ...


@runtime_checkable
class Bounded(Protocol):
    """An optimiser that need not know how bad a bad candidate is."""

    def bound(self, state: Any) -> Tensor | None:
        """For each candidate of the pending ask, the loss above which every other leaves the search as it is.

        None for a search that needs exact losses throughout.
        """
        ...


@runtime_checkable
class Recommends(Protocol):
    """An optimiser whose best guess is not the best candidate it has seen, such as the mean of a distribution."""

    def recommend(self, state: Any) -> Tensor:
        """The point (dim,) that it would return; under noise better than the luckiest candidate."""
        ...


@runtime_checkable
class Informed(Protocol):
    """An optimiser that can use the signed errors that a loss is made of."""

    def inform(self, state: Any, residuals: Any) -> Any:
        """Between ask and tell: the residuals (population, residuals) of the pending candidates, 0 where all is well.

        They may be left out, for any generation.
        """
        ...


class Scored(NamedTuple):
    """What a function to be minimised may return instead of losses."""

    losses: Any  # (population,)
    residuals: Any = None  # (population, residuals): signed errors, 0 where all is well


@dataclass(frozen=True)
class Info:
    """The record of one generation.

    ``best`` is the best loss ever. ``median``, ``worst`` and ``spread`` (root mean square distance of a coordinate from
    the population's mean, in the units of x) describe the population that goes on; an unscored member counts as +inf.
    ``improved`` counts candidates better than what they were compared with, ``nan_count`` those whose loss was NaN;
    ``losses`` are the candidates' own, as they came.
    """

    generation: int
    evaluations: int
    best: float
    median: float
    worst: float
    improved: int
    nan_count: int
    spread: float
    losses: tuple[float, ...]


class StopReason(StrEnum):
    """Why a search ended."""

    BUDGET = "the budget is used up"
    TARGET = "the target loss is reached"
    UNSCORED = "no candidate of the first generation could be scored"
    CALLBACK = "the callback asked to stop"
    PLATEAU = "the best loss has not fallen for as long as patience lasts"
    TIME = "the time is used up"
    TOKENS = "the tokens are used up"


class Step(NamedTuple):
    """One generation: the state after it, what was scored, and its record."""

    state: Any
    candidates: Tensor
    losses: Tensor
    info: Info


# ---- the loop ------------------------------------------------------------------------------------------------------


def generations(
    optimizer: Optimizer[S],
    state: S,
    loss_fn: Callable[[Tensor], Any],
    budget: int,
    seed: int = 0,
    target_loss: float | None = None,
) -> Iterator[Step]:
    """Run generation after generation from any state; each draws from its own generator, so a saved state resumes."""
    while stop_reason(state, budget, target_loss) is None:
        result = step(optimizer, state, loss_fn, generator_for(seed, state.generation, state.best_x.device))
        state = result.state
        yield result


def step(optimizer: Optimizer[S], state: S, loss_fn: Callable[[Tensor], Any], generator: torch.Generator) -> Step:
    """One generation: ask, score, tell."""
    candidates, state = optimizer.ask(state, generator)
    scored = as_scored(loss_fn(candidates))
    losses = as_losses(scored.losses, candidates)
    state, info = optimizer.tell(informed(optimizer, state, scored.residuals), candidates, losses)
    return Step(state, candidates, losses, info)


def informed(optimizer: Optimizer[S], state: S, residuals: Any) -> S:
    """The state of a pending ask after an optimiser that can use them was given residuals."""
    if residuals is None or not isinstance(optimizer, Informed):
        return state
    new: S = optimizer.inform(state, residuals)
    return new


def stop_reason(state: State, budget: int, target_loss: float | None = None) -> StopReason | None:
    """Why the search must not go on from here, or None."""
    if target_loss is not None and state.best_loss <= target_loss:
        return StopReason.TARGET
    if state.evaluations > 1 and math.isinf(state.best_loss):  # of one start point alone nothing follows
        return StopReason.UNSCORED
    if state.evaluations + state.population_size > budget:
        return StopReason.BUDGET
    return None


def stale(history: Iterable[tuple[int, float]], min_improvement: float = 0.0) -> int:
    """Candidates scored since the best loss last fell; history has (evaluations, best loss) of every generation.

    A best loss that falls by less than min_improvement is compared with again, so that many small falls make one.
    """
    evaluations, since, best = 0, 0, math.inf
    for evaluations, loss in history:
        if loss < best and (math.isinf(best) or best - loss >= min_improvement):
            since, best = evaluations, loss
    return evaluations - since


def generator_for(seed: int, generation: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one generation of one run: what it draws depends on nothing else."""
    digest = hashlib.sha256(f"softde optim {whole(seed, 'seed')} {int(generation)}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


# ---- what optimisers share -----------------------------------------------------------------------------------------


def comparable(losses: Tensor) -> Tensor:
    """Losses for comparing: everything that is not finite counts as +inf."""
    return losses.nan_to_num(math.inf, math.inf, math.inf)


def filled(losses: Tensor, before: Tensor) -> Tensor:
    """Losses for an optimiser that takes finite ones only: the worst so far in place of the others, 0 if there is none.

    before : finite losses of earlier generations.
    """
    scored = torch.cat([before.flatten(), losses[losses.isfinite()]])
    return losses.where(losses.isfinite(), scored.max() if len(scored) else 0.0)


def best_ever(state: State, candidates: Tensor, losses: Tensor) -> tuple[Tensor, float]:
    """The better of the best so far and the best candidate; a tie keeps the older."""
    value, row = comparable(losses).min(dim=0)
    if float(value) < state.best_loss:
        return candidates[int(row)].clone(), float(value)
    return state.best_x, state.best_loss


def recommendation(optimizer: Optimizer[S], state: S) -> Tensor:
    """The point that an optimiser would return, (dim,): its own choice, or the best candidate."""
    return optimizer.recommend(state) if isinstance(optimizer, Recommends) else state.best_x


def advance(state: S, candidates: Tensor, scored: Tensor, /, **changes: Any) -> S:
    """The state one generation on: the best ever, the counts, and the optimiser's own changes."""
    best_x, best_loss = best_ever(state, candidates, scored)
    return replace(
        state,
        best_x=best_x,
        best_loss=best_loss,
        generation=state.generation + 1,
        evaluations=state.evaluations + len(scored),
        asked=False,
        **changes,
    )


def describe(state: State, members: Tensor, member_losses: Tensor, losses: Tensor, improved: int) -> Info:
    """The record of the generation that led to ``state``; members (population, dim) are those that go on."""
    kept = comparable(member_losses).sort().values.tolist()
    n = len(kept)
    return Info(
        generation=state.generation,
        evaluations=state.evaluations,
        best=state.best_loss,
        median=(kept[(n - 1) // 2] + kept[n // 2]) / 2,
        worst=kept[-1],
        improved=improved,
        nan_count=int(losses.isnan().sum()),
        spread=spread(members),
        losses=tuple(losses.tolist()),
    )


def spread(members: Float[Tensor, "population dim"]) -> float:
    """Root mean square distance to the mean of the population, per coordinate.

    It is taken from the mean of squares and the squared mean, in half the time, where that keeps its digits.
    """
    n, numbers = len(members), members.numel()
    share = members.new_full((n,), 1 / n)
    block_numbers = BLOCK_NUMBERS if members.device.type == "cpu" else numbers  # elsewhere each would be waited for
    mean, parts = members.T.mv(share), members.flatten().split(block_numbers)
    squares = sum(float(part.dot(part)) for part in parts)
    around = squares - n * float(mean.dot(mean))
    if around > squares / 10:
        return math.sqrt(around / numbers)
    around, blocks = 0.0, members.split(max(1, block_numbers // n), dim=1)
    spare = members.new_empty(blocks[0].shape)
    for block in blocks:  # both passes over a block read it from the cache
        centered = torch.sub(block, block.T.mv(share), out=spare[:, : block.shape[1]]).flatten()
        around += float(centered.dot(centered))
    return math.sqrt(around / numbers)


def passed_on(info: Info, state: State) -> Info:
    """The record of an optimiser within another, as the outer one's."""
    return replace(info, generation=state.generation, evaluations=state.evaluations, best=state.best_loss)


def row_blocks(matrix: Tensor) -> Iterator[slice]:
    """Slices of rows small enough that temporaries stay in a CPU's cache; all rows at once elsewhere."""
    rows, columns = matrix.shape
    size = max(1, BLOCK_NUMBERS // columns) if matrix.device.type == "cpu" else rows
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


# ---- bad input -----------------------------------------------------------------------------------------------------


def check_budget(optimizer: Optimizer[S], budget: int) -> None:
    """Refuse a budget that is no whole number or does not pay for the start population."""
    if whole(budget, "budget") < optimizer.population_size:
        raise ValueError(
            f"The budget counts candidates scored and must be at least the population size, which is "
            f"{optimizer.population_size}, but it is {budget}: raise the budget or lower population_size."
        )


def check_optimizer(optimizer: object, what: str = "optimizer") -> None:
    """Refuse what is no optimiser: its class, a name where an object belongs, anything else."""
    if isinstance(optimizer, type) or not isinstance(optimizer, Optimizer):
        hint = f"{optimizer.__name__}() makes one" if isinstance(optimizer, type) else "DE() is one"
        raise ValueError(f"{what}: expected an optimiser of softde.optim, but got {shown(optimizer)}; {hint}")


def check_patience(patience: int | None, min_improvement: float) -> None:
    """Refuse a patience that is no whole number from 1 up, and an improvement that is none."""
    if patience is not None:
        whole(patience, "patience", 1)
    found = plain_number(min_improvement)
    if found is None or not 0 <= found < math.inf:
        raise ValueError(f"min_improvement: expected a finite number from 0 up, got {shown(min_improvement)}")


def check_target(target_loss: float | None) -> None:
    """Refuse a loss to stop at that is no number."""
    if target_loss is not None:
        found = plain_number(target_loss)
        if found is None or math.isnan(found):
            raise ValueError(f"target_loss: expected a number, got {shown(target_loss)}")


def as_points(points: Any, population_size: int) -> Tensor:
    """A copy of the start points as (population, dim), float32 or float64."""
    copy = as_tensor(points, "start points")
    if copy.ndim != 2 or copy.shape[0] != population_size or copy.shape[1] == 0:
        raise ValueError(
            f"Expected start points of shape (population, dim) with population_size={population_size} rows, but got "
            f"shape {tuple(copy.shape)}: give one row per candidate or change population_size."
        )
    if copy.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"Expected start points in float32 or float64, but got {copy.dtype}: convert them first.")
    if not bool(torch.stack(copy.aminmax()).isfinite().all()):  # NaN makes both NaN; a mask takes memory
        raise ValueError("Expected finite start points, but some are NaN or infinite: replace them before the search.")
    return copy


def as_tensor(values: Any, what: str) -> Tensor:
    """A copy as a tensor; whole numbers in a list say nothing of a dtype and become float32."""
    if isinstance(values, Tensor):  # row by row: a search rounds as one that was saved and read does
        return values.detach().clone(memory_format=torch.contiguous_format)
    copy = _tensor(values, what, None)
    return copy.float() if isinstance(values, (list, tuple)) and not copy.is_floating_point() else copy


def as_scored(found: Any) -> Scored:
    """What a function returned: losses alone, or with what they are made of."""
    if isinstance(found, tuple) and not isinstance(found, Scored) and any(map(_has_rows, found)):
        raise ValueError(
            "Expected losses (population,) from the function, but got a tuple of arrays: return Scored(losses, "
            "residuals)."
        )
    return found if isinstance(found, Scored) else Scored(found)


def as_losses(losses: Any, candidates: Tensor) -> Tensor:
    """Losses as float64 (population,), on the candidates' device."""
    told = losses.detach() if isinstance(losses, Tensor) else _tensor(losses, "losses", torch.float64)
    if tuple(told.shape) != (candidates.shape[0],):
        raise ValueError(
            f"Expected one loss per candidate, shape ({candidates.shape[0]},), but got shape {tuple(told.shape)}: the "
            "loss takes all candidates (population, dim) at once and returns (population,)."
        )
    if told.is_complex():
        raise ValueError(f"Expected real losses, but got {told.dtype}: return their absolute values or real parts.")
    return told.to(device=candidates.device, dtype=torch.float64)


def as_residuals(residuals: Any, state: State) -> Tensor:
    """Residuals as float64 (population, residuals), on the state's device."""
    if not state.asked:
        raise ValueError("inform came before ask: call ask first and inform with the state that it returned.")
    told = as_tensor(residuals, "residuals")
    if told.ndim != 2 or len(told) != state.population_size or told.shape[1] == 0:
        raise ValueError(
            f"Expected the residuals of each candidate, shape ({state.population_size}, residuals), but got shape "
            f"{tuple(told.shape)}: give one row per candidate."
        )
    return told.to(device=state.best_x.device, dtype=torch.float64)


def as_candidates(asked: Any, state: State) -> Tensor:
    """What an optimiser from elsewhere asks, as a copy in the type and on the device of the state."""
    try:
        numbers = np.asarray(asked).astype(float, casting="same_kind", copy=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Expected a search that yields rows of numbers, (population, dim), but got {shown(asked)} ({error}): "
            "yield one row for each candidate, all of one length, and not an optimiser's own objects."
        ) from None
    candidates = torch.tensor(numbers, dtype=state.best_x.dtype, device=state.best_x.device)
    if tuple(candidates.shape) != state.shape or not bool(candidates.isfinite().all()):
        raise ValueError(
            f"Expected an optimiser that asks for {state.shape} finite numbers, (population, dim), but got shape "
            f"{tuple(candidates.shape)} with {int((~candidates.isfinite()).sum())} that are not finite: let it ask for "
            "as many candidates as population_size says."
        )
    return candidates


def _has_rows(value: Any) -> bool:
    return bool(getattr(value, "ndim", isinstance(value, (list, tuple))))


def _tensor(values: Any, what: str, dtype: torch.dtype | None) -> Tensor:
    try:
        return torch.tensor(values, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Expected {what} as a tensor, array or list of numbers, but got {type(values).__name__}: {error}."
        ) from None


def check_ask(optimizer: Optimizer[Any], state: object, generator: object) -> None:
    """Refuse a state of another kind of optimiser, and a seed where a generator belongs."""
    check_state(optimizer, state, "ask")
    if not isinstance(generator, torch.Generator):
        raise ValueError(
            f"generator: expected a torch.Generator, but got {shown(generator)}: softde.optim.generator_for(seed, "
            "generation) makes one, and ask takes the state first."
        )


def check_state(optimizer: Optimizer[Any], state: object, method: str) -> None:
    """Refuse what is no state of this kind of optimiser. method : which was called."""
    if type(state) is not optimizer.state_type:
        raise ValueError(
            f"Expected a state of {type(optimizer).__name__} ({optimizer.state_type.__name__}), but got "
            f"{shown(state)}: give {method} what this optimiser's init or its last ask or tell returned."
        )


def check_tell(optimizer: Optimizer[Any], state: State, candidates: Tensor, within: bool = False) -> None:
    """Refuse a state of another kind of optimiser, a tell without its ask, and candidates of another shape or dtype.

    within : they go on to an optimiser within, which knows itself what dtype it asked.
    """
    check_state(optimizer, state, "tell")
    if not state.asked:
        raise ValueError("tell came before ask: call ask first and tell with the state that it returned.")
    if not isinstance(candidates, Tensor):
        raise ValueError(
            f"Expected the candidates that ask returned, a tensor, but got {type(candidates).__name__}: tell them as "
            "they were asked, and convert a copy for the objective."
        )
    if tuple(candidates.shape) != state.shape:
        raise ValueError(
            f"Expected the candidates that ask returned, of shape {state.shape}, but got "
            f"shape {tuple(candidates.shape)}: score all of them and tell them together."
        )
    if candidates.dtype != state.best_x.dtype and not within:
        raise ValueError(
            f"Expected the candidates that ask returned, of {state.best_x.dtype}, but got {candidates.dtype}: tell "
            "them as they were asked, and convert a copy for the objective."
        )


# ---- saving --------------------------------------------------------------------------------------------------------


def state_to_tensors(state: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split a state into tensors (for safetensors) and numbers (for strict JSON); exact.

    A state within a state, and a mapping of tensors, become entries with dotted names. A field that takes no part in
    comparisons (``compare=False``) is no part of the value, and is not saved.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for field in _of_value(state):
        name, value = field.name, getattr(state, field.name)
        if isinstance(value, State):
            inner, counts = state_to_tensors(value)
            tensors |= {f"{name}.{key}": tensor for key, tensor in inner.items()}
            numbers |= {f"{name}.{key}": number for key, number in counts.items()}
        elif isinstance(value, Mapping):
            tensors |= {f"{name}.{key}": _saved(tensor) for key, tensor in value.items()}
        elif isinstance(value, Tensor):
            tensors[name] = _saved(value)
        else:
            numbers[name] = _to_json(value)
    return tensors, numbers


def state_from_tensors(
    optimizer: Optimizer[S],
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, Any],
    device: torch.device | str = "cpu",
) -> S:
    """The state that ``state_to_tensors`` split.

    A state within it is of the optimiser that has the same name in ``optimizer``; it may be absent.
    """
    hints = get_type_hints(optimizer.state_type)
    values: dict[str, Any] = {}
    missing = []
    for field in _of_value(optimizer.state_type):
        name, inside = field.name, f"{field.name}."
        below = {key.removeprefix(inside): tensor for key, tensor in tensors.items() if key.startswith(inside)}
        if name in tensors:
            values[name] = tensors[name].to(device)
        elif name in numbers:
            values[name] = None if numbers[name] is None else hints[name](numbers[name])
        elif get_origin(hints[name]) is Mapping:
            values[name] = {key: tensor.to(device) for key, tensor in below.items()}
        elif below:
            counts = {key.removeprefix(inside): number for key, number in numbers.items() if key.startswith(inside)}
            values[name] = state_from_tensors(getattr(optimizer, name), below, counts, device)
        else:
            missing.append(name)
    if missing:
        raise ValueError(
            f"Expected a saved state of {type(optimizer).__name__}, but {', '.join(missing)} is missing: resume with "
            "the optimiser that wrote it."
        )
    return optimizer.state_type(**values)


def settings(optimizer: Any) -> dict[str, Any]:
    """An optimiser's name and hyper-parameters, those of the optimisers in it too, as plain values for a record."""
    values = {field.name: getattr(optimizer, field.name) for field in fields(optimizer)}
    plain = {name: settings(value) if isinstance(value, Optimizer) else value for name, value in values.items()}
    return {"name": type(optimizer).__name__, **plain}


def _of_value(state: Any) -> list[Any]:
    return [field for field in fields(state) if field.compare]


def _saved(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _to_json(value: Any) -> Any:
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value
