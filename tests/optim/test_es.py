"""OpenAI-ES, SPSA and the (1+1)-ES: equal to the slow reference, draws of the right statistics, targets reached."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import torch

from softde.optim import generations, generator_for, minimize
from softde.optim.es import SPSA, OnePlusOneES, OpenAIES, centred_ranks
from tests.optim import functions
from tests.reference import slow_es

DIM = 11
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "peers_es.json").read_text())
PROBLEMS = [problem for problem in GOLDEN["problems"] if problem["optimizer"] != "PSO"]


def points(n, dim=DIM, dtype=torch.float64):
    return torch.rand(n, dim, generator=generator_for(7, n), dtype=dtype) * 2 - 1


def losses_of(candidates, generation):
    """A loss with ties and values that are not finite; the third generation cannot be scored at all."""
    losses = ((candidates - 0.5) ** 2).sum(dim=1).mul(4).round() / 4
    losses[generation % len(losses)] = (math.nan, math.inf, -math.inf)[generation % 3]
    return torch.full_like(losses, math.nan) if generation == 3 else losses


def follow(optimizer, make_slow, count=8):
    """Run both with the same draws; what they ask, and where they stand, is the same. The last state."""
    state = optimizer.init(points(optimizer.population_size))
    candidates, state = optimizer.ask(state, generator_for(1, 0))
    losses = losses_of(candidates, 0)
    first, listed = slow_es.best(candidates.tolist(), losses.tolist()), losses.tolist()
    state, _ = optimizer.tell(state, candidates, losses)
    assert state.mean.tolist() == first and len(state.start) == 0
    slow = make_slow(first, min(slow_es.scored(loss) for loss in listed))
    for generation in range(1, count):
        draws = optimizer.draw(state, generator_for(1, generation))
        expected = torch.tensor(slow.ask(draws.tolist()), dtype=torch.float64)
        candidates, state = optimizer.ask(state, generator_for(1, generation))
        torch.testing.assert_close(candidates, expected, rtol=1e-12, atol=1e-12)
        losses = losses_of(candidates, generation)
        slow.tell(losses.tolist())
        state, info = optimizer.tell(state, candidates, losses)
        torch.testing.assert_close(state.mean, torch.tensor(slow.mean, dtype=torch.float64), rtol=1e-9, atol=1e-9)
        assert info.generation == generation + 1 and info.spread > 0
    return state, slow


# ---- one step equals the slow one, with the same draws ---------------------------------------------------------------


@pytest.mark.parametrize("beta2", [0.999, 0.5, None])
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_openai_es_equals_the_slow_reference(momentum, beta2):
    optimizer = OpenAIES(10, sigma=0.2, lr=0.15, momentum=momentum, beta2=beta2)
    follow(optimizer, lambda mean, _: slow_es.OpenAIES(mean, 0.2, 0.15, momentum, beta2))


@pytest.mark.parametrize("n", [2, 10])
@pytest.mark.parametrize(("A", "memory"), [(0.0, 0.9), (5.0, 0.0)])
def test_spsa_equals_the_slow_reference(n, A, memory):
    optimizer = SPSA(n, a=0.15, c=0.25, A=A, memory=memory)
    follow(optimizer, lambda mean, _: slow_es.SPSA(mean, 0.15, 0.25, A, 0.602, 0.101, memory))


@pytest.mark.parametrize("children", [1, 5])
@pytest.mark.parametrize("sigma_max", [100.0, 0.41])
def test_one_plus_one_es_equals_the_slow_reference(children, sigma_max):
    optimizer = OnePlusOneES(6, children, sigma=0.4, sigma_max=sigma_max, growth=1.5)
    state, slow = follow(optimizer, lambda mean, loss: slow_es.OnePlusOneES(mean, loss, 0.4, sigma_max, 1.5), 30)
    assert state.sigma == pytest.approx(slow.sigma, rel=1e-12) and state.best_loss == slow.loss


def test_gains_are_spalls():
    optimizer = SPSA(8, a=0.4, c=0.3, A=10.0)
    state = replace(optimizer.init(points(8)), generation=1)
    assert optimizer.gains(state) == (0.4, 0.3)  # k = 0
    a, c = optimizer.gains(replace(state, generation=100))  # k = 99: a_k = a (11 / 110)^0.602, c_k = c / 100^0.101
    assert a == pytest.approx(0.4 * 10**-0.602, rel=1e-12) and c == pytest.approx(0.3 * 10**-0.202, rel=1e-12)


def test_ranks_by_hand():
    losses = torch.tensor([3.0, 1.0, math.nan, 1.0, 2.0, math.inf, -math.inf], dtype=torch.float64)
    # 1 and 1 share places 0 and 1, 2 is at 2, 3 at 3, and the three unscored share 4 to 6; divided by 6, less 1/2.
    expected = [3 / 6 - 0.5, 0.5 / 6 - 0.5, 5 / 6 - 0.5, 0.5 / 6 - 0.5, 2 / 6 - 0.5, 5 / 6 - 0.5, 5 / 6 - 0.5]
    assert centred_ranks(losses).tolist() == pytest.approx(expected, abs=1e-15)
    assert centred_ranks(torch.full((4,), 7.0)).tolist() == [0.0] * 4  # a plateau says nothing


@pytest.mark.parametrize("optimizer", [OpenAIES(8), SPSA(8)], ids=lambda o: type(o).__name__)
def test_nothing_but_a_plateau_moves_no_mean(optimizer):
    for loss in (lambda x: torch.ones(len(x)), lambda x: torch.ones(len(x)) * math.nan):
        state = optimizer.init(points(8))
        for generation in range(4):
            candidates, state = optimizer.ask(state, generator_for(0, generation))
            state, _ = optimizer.tell(state, candidates, loss(candidates))
        assert torch.equal(state.mean, points(8)[0])


# ---- what a step does ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [OpenAIES(64), SPSA(64)], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_units_of_the_loss_do_not_matter(optimizer, unit):
    results = list(generations(optimizer, optimizer.init(points(64)), lambda x: functions.sphere(x) * unit, 64 * 20))
    plain = list(generations(optimizer, optimizer.init(points(64)), functions.sphere, 64 * 20))
    torch.testing.assert_close(results[-1].state.mean, plain[-1].state.mean, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("optimizer", [OpenAIES(512), SPSA(512)], ids=lambda o: type(o).__name__)
def test_the_first_step_goes_down_the_gradient(optimizer):
    slope = torch.linspace(-1, 1, DIM, dtype=torch.float64)
    results = list(generations(optimizer, optimizer.init(points(512)), lambda x: x @ slope, 512 * 2))
    step = results[0].state.mean - results[1].state.mean
    size = optimizer.lr if isinstance(optimizer, OpenAIES) else optimizer.a
    assert float(step.norm()) / DIM**0.5 == pytest.approx(size, rel=0.05)  # in units of x, whatever the slope's length
    if isinstance(optimizer, SPSA):  # Adam's first step is the sign of the gradient
        assert float(torch.nn.functional.cosine_similarity(step, slope, dim=0)) > 0.95
    else:
        assert torch.equal(step[slope.abs() > 0.3].sign(), slope[slope.abs() > 0.3].sign())


def test_one_child_in_five_succeeds_in_the_long_run():
    optimizer = OnePlusOneES(4, sigma=3.0, growth=1.2)
    results = list(generations(optimizer, optimizer.init(points(4, 20)), functions.sphere, 1500, seed=1))
    share = sum(r.info.improved for r in results[1:]) / len(results[1:])
    assert 0.15 < share < 0.2  # a fifth where sigma stays as it is; a little less while it falls
    assert results[-1].state.sigma < 0.02  # from 3, as the distance to the minimum falls


def test_one_plus_one_es_crosses_plateaus():
    def stairs(x):  # flat but for steps of height 1: an argmax read-out
        return (x.abs() * 2).floor().sum(dim=1)

    found = [minimize(stairs, OnePlusOneES(4), points(4, 10) * 2, 500, seed=seed) for seed in range(3)]
    assert median(result.best_loss for result in found) <= 1
    assert all(result.state.sigma > 1e-3 for result in found)


def test_sigma_and_mean_stay_finite_where_everything_is_a_plateau():
    optimizer = OnePlusOneES(4, growth=2.0, sigma_max=5.0)
    result = minimize(lambda x: torch.zeros(len(x)), optimizer, points(4), 1000)
    assert result.state.sigma == pytest.approx(5.0) and bool(result.state.mean.isfinite().all())


def test_recommend_is_better_than_the_luckiest_candidate_under_noise():
    for optimizer in (OpenAIES(16, lr=0.1), SPSA(16)):
        gains = []
        for seed in range(3):
            noise = generator_for(seed, 10**6)

            def noisy(x, noise=noise):
                return functions.sphere(x) + 20 * torch.randn(len(x), generator=noise, dtype=x.dtype)

            result = minimize(noisy, optimizer, points(16, 20) * 4, 3000, seed=seed)
            mean = optimizer.recommend(result.state)
            gains.append(float(functions.sphere(result.best_x[None])) / float(functions.sphere(mean[None])))
        assert median(gains) > 1


# ---- draws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "fourth"), [(OpenAIES(400), 3.0), (SPSA(400), 1.0), (OnePlusOneES(4, children=200), 3.0)]
)
def test_draws_are_normal_or_signs(optimizer, fourth):
    state = replace(optimizer.init(points(optimizer.population_size, 500)), generation=1)
    draws = optimizer.draw(state, generator_for(0, 1))
    assert draws.shape == (200, 500)
    count = draws.numel()
    assert abs(float(draws.mean())) < 4 / math.sqrt(count)
    assert abs(float((draws**2).mean()) - 1) <= 4 * math.sqrt((fourth - 1) / count)
    assert abs(float((draws**4).mean()) - fourth) <= 4 * math.sqrt((105 - 9) / count) * (fourth > 1)
    rows = torch.corrcoef(draws)
    assert float((rows - torch.eye(200)).abs().max()) < 6 / math.sqrt(500)


def test_pairs_are_antithetic():
    for optimizer, distance in ((OpenAIES(10, sigma=0.2), 0.2), (SPSA(10, c=0.2), 0.2)):
        _, second = list(generations(optimizer, optimizer.init(points(10)), functions.sphere, 20))
        first = slow_es.best(points(10).tolist(), functions.sphere(points(10)).tolist())
        mean = torch.tensor(first, dtype=torch.float64)
        torch.testing.assert_close(second.candidates[:5] + second.candidates[5:], (2 * mean).expand(5, -1))
        assert 0.5 * distance < float((second.candidates - mean).square().mean().sqrt()) < 1.5 * distance


# ---- targets ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: f"{p['optimizer']}-{p['function']}")
def test_reaches_the_target_about_as_fast_as_its_peer(problem):
    classes = {"OnePlusOneES": OnePlusOneES, "OpenAIES": OpenAIES, "SPSA": SPSA}
    optimizer = classes[problem["optimizer"]](**problem["ours"])
    n, needed = optimizer.population_size, []
    for seed in range(3):
        start = torch.full((n, GOLDEN["dim"]), problem["start"], dtype=torch.float64)
        fn = getattr(functions, problem["function"])
        result = minimize(fn, optimizer, start, GOLDEN["limit"], seed=seed, target_loss=problem["target"])
        needed.append(result.evaluations if result.best_loss <= problem["target"] else GOLDEN["limit"])
    assert median(needed) < GOLDEN["limit"] and median(needed) < 1.3 * median(problem["evaluations"])


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [OpenAIES, SPSA])
def test_pairs_need_an_even_population(optimizer):
    for wrong in (7, 0, -2):
        with pytest.raises(ValueError, match=f"even number of at least 2 .pairs., but got {wrong}"):
            optimizer(population_size=wrong)
    with pytest.raises(ValueError, match="expected a whole number, got 7.5"):
        optimizer(population_size=7.5)


@pytest.mark.parametrize("wrong", [0, -0.1, math.nan, math.inf, None, "fast", True])
@pytest.mark.parametrize(
    ("optimizer", "name"),
    [(OpenAIES, "sigma"), (OpenAIES, "lr"), (SPSA, "a"), (SPSA, "c"), (OnePlusOneES, "sigma"),
     (OnePlusOneES, "sigma_max")],
)  # fmt: skip
def test_lengths_are_positive_numbers(optimizer, name, wrong):
    if (name, wrong) == ("sigma_max", None):
        return  # ten times sigma
    with pytest.raises(ValueError, match=f"Expected {name} as a positive number, but got"):
        optimizer(**{name: wrong})


@pytest.mark.parametrize(
    ("optimizer", "wrong", "message"),
    [
        (OpenAIES, {"momentum": 1.0}, r"momentum, the share .* in \[0, 1\), but got 1.0"),
        (OpenAIES, {"momentum": None}, r"momentum, the share .* in \[0, 1\), but got None"),
        (OpenAIES, {"beta2": -0.1}, r"beta2, the share .* in \[0, 1\), but got -0.1"),
        (SPSA, {"memory": 1}, r"memory, the share .* in \[0, 1\), but got 1"),
        (SPSA, {"A": -1}, "A as a number of at least 0, but got -1"),
        (SPSA, {"alpha": math.nan}, "alpha as a number of at least 0, but got nan"),
        (SPSA, {"gamma": "slow"}, "gamma as a number of at least 0, but got 'slow'"),
        (OnePlusOneES, {"growth": 1.0}, "growth, the factor of sigma after a success, above 1, but got 1.0"),
        (OnePlusOneES, {"sigma": 2.0, "sigma_max": 1.0}, "sigma of at most sigma_max, 1.0, but got 2.0"),
        (OnePlusOneES, {"children": 0}, "children: expected a whole number of at least 1, got 0"),
        (OnePlusOneES, {"population_size": 0}, "population_size: expected a whole number of at least 1, got 0"),
    ],
)
def test_bad_settings(optimizer, wrong, message):
    with pytest.raises(ValueError, match=message):
        optimizer(**wrong)
