"""The warm start: its gradient against finite differences of plain forwards, counts by hand, the model left alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from softde.gradient import GradientSteps, Slope, WarmStart, warm_start
from softde.lm import LM
from softde.lm.engine import Engine
from softde.objective import AlignmentLoss
from softde.optim import DE, generator_for, minimize
from softde.readouts import Argmax
from softde.space import PromptSpace
from softde.surveys import Survey, Target, load_survey
from tests import tiny_random
from tests.reference import slow_lm

FEW = GradientSteps(steps=2, lr=0.05)
H = 1e-2  # of finite differences, in units of x; norms and positions are float32 in any model, so no smaller


def random_lm(dtype: torch.dtype = torch.float32, **changes: Any) -> LM:
    model = tiny_random.make_model(initializer_range=0.1, **changes).to(dtype)
    return LM(model, tiny_random.make_tokenizer(), "random")


def of(lm: LM, survey: Survey, target: Target, tokens: int = 2, placement: str = "late", **settings: Any) -> Any:
    orders = settings.pop("orders", "forward")
    return AlignmentLoss(lm, survey, target, PromptSpace.random(lm, tokens, placement), orders, **settings)


@pytest.fixture
def loss(llama: LM, mini: Survey, ireland: Target) -> AlignmentLoss:
    return of(llama, mini, ireland)


@pytest.fixture
def points(loss: AlignmentLoss) -> Tensor:
    return loss.space.sample(5, generator_for(0, -1))


def italy(lm: LM, **settings: Any) -> AlignmentLoss:
    survey = load_survey("vsm13")
    return of(lm, survey, survey.target("Italy", edition="2015"), **settings)


# ---- the gradient ----------------------------------------------------------------------------------------------------


def slow(loss: AlignmentLoss, soft: Tensor) -> float:
    """The loss of soft tokens in float64, from transformers alone, without the engine."""
    found = slow_lm.scores(loss.lm, loss.survey, 50.0, loss.orders, soft=soft, placement=loss.space.placement)
    weights = loss.weights or [1.0] * len(found)
    errors = [a - b for a, b in zip(found, loss.target.scores.tolist(), strict=True)]
    if loss.norm == "L1":
        return sum(w * abs(e) for w, e in zip(weights, errors, strict=True))
    return math.sqrt(sum(w * e * e for w, e in zip(weights, errors, strict=True)))


@pytest.mark.parametrize("norm", ["L1", "L2"])
@pytest.mark.parametrize(
    ("placement", "orders", "weights", "items"),
    [("late", "forward", None, None), ("front", "both", (2.0, 0.5), None), ("late", "both", (0.3, 1.0), 1)],
)
def test_it_is_the_slope_of_plain_forwards(
    mini: Survey, ireland: Target, norm: str, placement: str, orders: str, weights: Any, items: int | None
) -> None:
    loss = of(random_lm(torch.float64), mini, ireland, 2, placement, orders=orders, norm=norm, weights=weights)
    x = loss.space.sample(1, generator_for(3, 0))[0]
    value, gradient, _ = Slope.of(loss, items)(x)
    soft = loss.space.centre.double() + loss.space.scale * x.double().view(2, -1)
    assert value == pytest.approx(slow(loss, soft), rel=1e-5)
    for seed in range(2):
        direction = torch.randn(soft.shape, generator=generator_for(seed, 0), dtype=torch.float64)
        step = H * loss.space.scale * direction
        expected = (slow(loss, soft + step) - slow(loss, soft - step)) / (2 * H)
        assert float(gradient.double() @ direction.flatten()) == pytest.approx(expected, rel=2e-3)


def test_in_a_subspace_it_is_the_slope_too(mini: Survey, ireland: Target) -> None:
    lm = random_lm(torch.float64)
    loss = AlignmentLoss(lm, mini, ireland, PromptSpace.random(lm, 2, intrinsic_dim=7), "forward")
    z = loss.space.sample(1, generator_for(0, 0))[0]
    _, gradient, _ = Slope.of(loss)(z)
    assert gradient.shape == (7,)
    for i in (0, 6):
        step = H * torch.eye(7)[i]
        ends = [slow(loss, loss.space.decode((z + sign * step)[None])[0].double()) for sign in (1, -1)]
        assert float(gradient[i]) == pytest.approx((ends[0] - ends[1]) / (2 * H), rel=5e-3, abs=5e-3)


@pytest.mark.parametrize("norm", ["L1", "L2"])
@pytest.mark.parametrize("items", [None, 3])
def test_pieces_add_up_to_the_whole_graph(norm: str, items: int | None) -> None:
    loss = italy(random_lm(), norm=norm, weights=[1.0, 2.0, 0.5, 1.0, 0.0, 3.0])
    x = loss.space.sample(1, generator_for(0, 0))
    survey, goal = loss.survey, torch.from_numpy(loss.target.scores.copy())
    leaf = x.clone().requires_grad_()
    logprobs = loss.lm.engine.run(loss.plan, loss.space.decode(leaf), grad=True).logprobs
    means = (logprobs.double().exp() * torch.from_numpy(np.nan_to_num(survey.option_values))).sum(-1)
    errors = means @ torch.from_numpy(survey.weights.copy()).T + 50 - goal
    w = torch.tensor([1.0, 2.0, 0.5, 1.0, 0.0, 3.0], dtype=torch.float64)
    whole = (w * errors.abs()).sum() if norm == "L1" else (w * errors.square()).sum().sqrt()
    whole.backward()
    slope = Slope.of(loss, items)
    assert len(slope.pieces.plan.blocks) == {None: 6, 3: 12}[items] and slope.pieces.twice is (items is not None)
    value, gradient, _ = slope(x[0])
    assert value == pytest.approx(whole.item(), rel=1e-5)
    torch.testing.assert_close(gradient, leaf.grad[0], rtol=1e-3, atol=1e-4 * float(leaf.grad.abs().max()))
    assert gradient.dtype == torch.float32 and gradient.abs().max() > 1e-3


def test_a_half_precision_model_gives_nearly_the_same(mini: Survey, ireland: Target) -> None:
    losses = [of(random_lm(dtype), mini, ireland) for dtype in (torch.float32, torch.bfloat16)]
    x = losses[0].space.sample(1, generator_for(0, 0))[0]
    losses[1] = replace(losses[1], space=losses[0].space)
    (_, one, _), (_, other, _) = (Slope.of(loss)(x) for loss in losses)
    assert one.dtype == other.dtype == torch.float32
    assert torch.cosine_similarity(one, other, dim=0) > 0.98
    assert warm_start(losses[1], x[None], steps=1).points.dtype == torch.float32


def test_steps_are_those_of_torch(loss: AlignmentLoss, points: Tensor) -> None:
    scale = torch.linspace(0.1, 3.0, loss.space.dim)

    def bowl(x: Tensor) -> tuple[float, Tensor, int]:
        return float((scale * x.square()).sum() / 2), scale * x, 5

    found = GradientSteps(steps=7, lr=0.2).descend(bowl, points[0])  # type: ignore[arg-type]
    x = points[0].clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 7)
    seen = []
    for _ in range(7):
        x.grad = scale * x.detach()
        seen.append(bowl(x.detach())[0])
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(found.x, x.detach(), rtol=1e-4, atol=1e-6)
    assert found.losses == pytest.approx(seen, rel=1e-5) and found.tokens == 35


def test_a_descent_that_rises_in_the_end_comes_back_from_its_lowest_point(points: Tensor) -> None:
    values = iter([5.0, 3.0, math.nan, 4.0])
    visited: list[Tensor] = []

    def bumpy(x: Tensor) -> tuple[float, Tensor, int]:
        visited.append(x)
        return next(values), torch.ones_like(x), 1

    found = GradientSteps(steps=4).descend(bumpy, points[0])  # type: ignore[arg-type]
    assert torch.equal(found.x, visited[1])


# ---- the warm start --------------------------------------------------------------------------------------------------


def test_the_loss_falls_on_the_embedded_model() -> None:
    lm = LM.from_pretrained("tiny")
    survey = load_survey("vsm13")
    one = survey.factor_models[0]
    items = tuple(item for item in survey.items if item.id in one.weights)
    survey = replace(survey, items=items, factor_models=(one,), variants={}, published=())
    target = Target("Italy", "made up", survey.factors, np.array([90.0]), "made up", {one.id: 50.0})
    loss = of(lm, survey, target, 4)
    points = loss.space.sample(4, generator_for(0, -1))
    found = warm_start(loss, points, steps=10)
    before, after = loss(points).losses, loss(found.points).losses
    assert found.losses[0, 0] == pytest.approx(before.min(), rel=1e-3)
    assert found.losses[0, -1] < 0.7 * before.min() and after[0] < 0.7 * before.min()


def test_the_population(loss: AlignmentLoss, points: Tensor) -> None:
    found = GradientSteps(steps=2, lr=0.05, starts=2, copies=0.3, spread=0.01)(loss, points, 7, seed=1)
    losses = loss(points).losses
    order = losses.argsort()
    assert found.screened.tolist() == losses.tolist()
    assert found.points.shape == (7, loss.space.dim) and found.losses.shape == (2, 2)
    assert found.losses[:, 0] == pytest.approx(losses[order[:2]], rel=1e-4)
    ends = found.points[:2]
    moved = (ends - points[order[:2]]).abs().max(dim=1).values  # Adam's first step is lr itself, its second half of it
    assert (moved > 0.04).all() and (moved < 0.08).all()
    for copy, end in ((2, 0), (3, 1)):  # 0.3 · 7 = 2.1 copies
        assert 0.005 < float((found.points[copy] - ends[end]).std()) < 0.02
    assert torch.equal(found.points[4:], points[order[2:]])
    full = GradientSteps(steps=1, copies=1.0)(loss, points, 4)
    assert (full.points[1:] - full.points[0]).abs().max() < 1
    small = GradientSteps(steps=1, starts=2, copies=0.4)(loss, points, 2)
    assert small.points.shape == (2, loss.space.dim)
    lone = warm_start(loss, points[:1], steps=1, population_size=3)
    assert lone.points.shape == (3, loss.space.dim) and lone.screened.shape == (0,)


def test_nothing_but_seed_loss_and_points_decides(loss: AlignmentLoss, points: Tensor) -> None:
    given = points.clone()
    one, same, other = (FEW(loss, points, 6, seed) for seed in (1, 1, 2))
    assert torch.equal(points, given)
    assert torch.equal(one.points, same.points) and one.losses.tolist() == same.losses.tolist()
    assert torch.equal(one.points[0], other.points[0]) and not torch.equal(one.points, other.points)
    with torch.inference_mode():
        assert torch.equal(FEW(loss, points, 6, 1).points, one.points)
    back = WarmStart.from_bytes(one.to_bytes())
    assert torch.equal(back.points, one.points) and back.record() == one.record()
    assert back.screened.tolist() == one.screened.tolist() and back.losses.shape == one.losses.shape
    assert json.loads(json.dumps(one.record(), allow_nan=False)) == one.record()


def test_points_of_another_precision_and_kind(loss: AlignmentLoss, points: Tensor) -> None:
    wide = FEW(loss, points.double(), 5)
    assert wide.points.dtype == torch.float64
    assert torch.equal(wide.points[0].float(), FEW(loss, points.numpy(), 5).points[0])


def test_any_optimiser_starts_from_it(loss: AlignmentLoss, points: Tensor) -> None:
    start = FEW(loss, points, 6)
    found = minimize(lambda x: loss(x).losses, DE(6), start.points, 12)
    assert found.best_loss <= float(loss(start.points).losses.min())


def test_other_readouts_choose_where_it_starts(llama: LM, mini: Survey, ireland: Target) -> None:
    loss = of(llama, mini, ireland, readout=Argmax())
    points = loss.space.sample(6, generator_for(0, -1))
    found = FEW(loss, points, 6)
    true, relaxed = loss(points).losses, replace(loss, readout=None)(points).losses
    assert found.screened.tolist() == true.tolist() and true.tolist() != relaxed.tolist()
    assert found.losses[0, 0] == pytest.approx(relaxed[true.argmin()], rel=1e-4)


# ---- what it costs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("items", "passes"), [(None, 3), (4, 3), (2, 4)])
def test_forward_equivalents_are_what_is_asked(
    loss: AlignmentLoss, points: Tensor, monkeypatch: pytest.MonkeyPatch, items: int | None, passes: int
) -> None:
    asked = {True: 0, False: 0}
    run = Engine.run

    def counting(self: Engine, *arguments: Any, grad: bool = False, **options: Any) -> Any:
        answer = run(self, *arguments, grad=grad, **options)
        asked[grad] += int(answer.asked.sum())
        return answer

    monkeypatch.setattr(Engine, "run", counting)
    settings = GradientSteps(steps=3, starts=2, items=items)
    found = settings(loss, points, 5)
    # Five points screened; two descents of three steps: a forward and a backward that counts twice, and one more
    # forward where the one block of four items is cut.
    by_hand = 5 + 2 * 3 * passes
    assert found.forward_equivalents == settings.forward_equivalents(loss, 5) == by_hand
    assert asked[False] + 3 * asked[True] == by_hand * len(loss.survey.items)
    assert found.tokens == by_hand * loss.plan.tokens(2)


def test_a_budget_pays_for_both(loss: AlignmentLoss) -> None:
    settings = GradientSteps(steps=20, starts=2, screen=64)
    assert settings.left(loss, 24, 800) == 800 - 64 - 2 * 20 * 3
    assert settings.left(loss, 24, 208) == 24
    with pytest.raises(ValueError, match="at least 208, .* warm start, 184 .* population of 24, but got 207"):
        settings.left(loss, 24, 207)


def test_without_a_choice_nothing_is_screened(loss: AlignmentLoss, points: Tensor) -> None:
    settings = GradientSteps(steps=1, starts=5)
    found = settings(loss, points, 5)
    assert found.forward_equivalents == settings.forward_equivalents(loss, 5) == 15
    assert found.tokens == 15 * loss.plan.tokens(2) and found.losses.shape == (5, 1)
    assert GradientSteps(starts=2).wanted(24) == 24 and GradientSteps(screen=64).wanted(24) == 64


def test_items_of_no_factor_are_not_asked(llama: LM) -> None:
    survey = load_survey("vsm13")
    one = replace(survey, factor_models=survey.factor_models[:1], variants={}, published=())
    target = Target("Italy", "made up", one.factors, np.array([40.0]), "made up", {one.factors[0]: 50.0})
    loss = of(llama, one, target)
    value, gradient, tokens = Slope.of(loss)(loss.space.sample(1, generator_for(0, 0))[0])
    assert tokens == loss.plan.tokens(2) * 3 // 6 and math.isfinite(value) and (gradient != 0).any()


# ---- the model -------------------------------------------------------------------------------------------------------


def test_the_model_stays_as_it_is(mini: Survey, ireland: Target) -> None:
    lm = random_lm()
    loss = of(lm, mini, ireland)
    points = loss.space.sample(4, generator_for(0, 0))
    before, group = loss(points).losses, lm.engine.group_size
    first, *rest = lm.model.parameters()
    first.requires_grad_(True)
    lm.model.train()
    lm.model.get_input_embeddings().eval()
    bits = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    training = [module.training for module in lm.model.modules()]
    FEW(loss, points, 4)
    assert all(torch.equal(tensor, bits[name]) for name, tensor in lm.model.state_dict().items())
    assert first.requires_grad and not any(p.requires_grad for p in rest)
    assert all(p.grad is None for p in lm.model.parameters())
    assert [module.training for module in lm.model.modules()] == training and any(training) and not all(training)
    assert loss(points).losses.tolist() == before.tolist() and lm.engine.group_size == group


def test_what_was_changed_is_put_back_after_an_error(mini: Survey, ireland: Target) -> None:
    loss = of(random_lm(), mini, ireland)
    loss.lm.model.train().requires_grad_(True)
    with pytest.raises(ValueError, match="x: expected one row of 64 numbers"):
        FEW(loss, torch.zeros(3, 5), 3)
    assert loss.lm.model.training and all(p.requires_grad for p in loss.lm.model.parameters())


def test_a_model_that_gives_no_numbers_moves_nothing(mini: Survey, ireland: Target) -> None:
    loss = of(random_lm(), mini, ireland)
    _ = loss.lm.embedding_stats
    with torch.no_grad():
        loss.lm.model.lm_head.weight.fill_(math.nan)
    points = loss.space.sample(2, generator_for(0, 0))
    found = warm_start(loss, points, steps=2, copies=0.0)
    assert torch.equal(found.points, points) and np.isnan(found.losses).all()
    assert found.record()["losses"] == [[None, None]]


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"steps": 2.5}, "steps: expected a whole number of at least 1, got 2.5"),
        ({"starts": 0}, "starts: expected a whole number of at least 1"),
        ({"screen": 0}, "screen: expected a whole number of at least 1"),
        ({"items": 0}, "items: expected a whole number of at least 1"),
        ({"lr": 0.0}, "Expected lr, a step size above 0, but got 0.0."),
        ({"lr": -0.1}, "Expected lr, .* but got -0.1."),
        ({"lr": math.nan}, "Expected lr, .* but got nan."),
        ({"lr": "fast"}, "Expected lr, .* but got 'fast'."),
        ({"copies": 1.1}, r"Expected copies, a share of the population in \[0, 1\], but got 1.1."),
        ({"spread": -1}, "Expected spread, a standard deviation of at least 0, but got -1."),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradientSteps(**settings)


def test_points_that_do_not_fit(loss: AlignmentLoss, points: Tensor) -> None:
    with pytest.raises(ValueError, match="at most the points and the population, 5 and 5, but got 6: give more points"):
        warm_start(loss, points, starts=6)
    with pytest.raises(ValueError, match="at most the points and the population, 5 and 1, but got 2"):
        warm_start(loss, points, starts=2, population_size=1)
    with pytest.raises(ValueError, match="Expected finite start points"):
        warm_start(loss, points / 0)


class Detached(PromptSpace):
    """A chart that goes through numpy."""

    def decode(self, x: Tensor) -> Tensor:
        return super().decode(x).detach()


class Opaque(torch.autograd.Function):
    """A kernel that was made for inference."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, *gradients: Any) -> Any:
        raise NotImplementedError("no backward kernel")


def exhausted(*_: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


class Greedy(Opaque):
    """A kernel with too large a backward pass."""

    backward = staticmethod(exhausted)


def wrapped(lm: LM, outside: Callable[[Tensor], Tensor]) -> LM:
    """The model with something behind its head."""
    lm.model.lm_head.register_forward_hook(lambda _module, _inputs, output: outside(output))
    return lm


@pytest.mark.parametrize(
    ("outside", "message"),
    [
        (Tensor.detach, "the model's answers do not keep the graph: leave out warm_start, which no search needs"),
        (Opaque.apply, "NotImplementedError: no backward kernel: leave out warm_start, .* without quantization"),
        (Greedy.apply, r"out of memory while the graph of one piece .* smaller items \(1 is the least\)"),
    ],
)
def test_a_model_without_a_gradient(mini: Survey, ireland: Target, outside: Any, message: str) -> None:
    loss = of(wrapped(random_lm(), outside), mini, ireland)
    with pytest.raises(ValueError, match=message):
        FEW(loss, loss.space.sample(2, generator_for(0, 0)), 2)


def test_a_space_without_a_gradient(loss: AlignmentLoss, points: Tensor) -> None:
    space = Detached(loss.space.centre, loss.space.scale)
    with pytest.raises(ValueError, match="the space's decode does not keep the graph: leave out warm_start"):
        FEW(replace(loss, space=space), points, 5)
