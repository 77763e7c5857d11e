"""Charts, trust regions and warm starts: by hand, their statistics, and what they refuse."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
import yaml

from softde.lm import LM
from softde.prompt import SoftPrompt
from softde.space import (
    Convex,
    Full,
    LowRank,
    Projected,
    PromptSpace,
    interpolate,
    nearest_rows,
    vocabulary_rows,
)
from tests.test_space import generator, table

ROWS = torch.randn(40, 32, generator=generator(5))
CHARTS = {
    "full": Full(),
    "gaussian": Projected("gaussian", 20),
    "sparse": Projected("sparse", 20, 3),
    "fastfood": Projected("fastfood", 20),
    "low-rank": LowRank(2),
    "convex": Convex(ROWS),
}
every = pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS.keys())


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


def space_of(chart=None, tokens: int = 3, hidden: int = 32, **fields) -> PromptSpace:
    return PromptSpace(normal(tokens, hidden, seed=11), 0.5, chart=chart, **fields)


def prompt(seed: int = 0, tokens: int = 3, placement: str = "late", **provenance) -> SoftPrompt:
    return SoftPrompt(normal(tokens, 32, seed=seed), placement, provenance)


# ---- every chart -----------------------------------------------------------------------------------------------------


@every
def test_shapes_bits_and_gradients(chart) -> None:
    space = space_of(chart)
    x = space.sample(9, generator())
    assert x.shape == (9, space.dim) and x.dtype == torch.float32
    embeddings = space.decode(x)
    assert embeddings.shape == (9, 3, 32)
    for part in (slice(0, 1), slice(4, 5), slice(2, 8)):
        assert torch.equal(space.decode(x[part]), embeddings[part])
    x.requires_grad_()
    weights = normal(9, 3, 32, seed=2)
    (space.decode(x) * weights).sum().backward()
    step = 1e-2 * normal(9, space.dim, seed=3)  # the gradient says by how much a small step changes the sum
    moved = ((space.decode(x.detach() + step) - space.decode(x.detach() - step)) * weights).sum() / 2
    assert float(moved) == pytest.approx(float((x.grad * step).sum()), rel=0.02, abs=1e-3)


@every
def test_start_points_have_the_spread_of_the_vocabulary(chart) -> None:
    for spread in (1.0, 0.25):
        space = PromptSpace(ROWS.mean(0).expand(3, -1), float(ROWS.std()), chart=chart, start_spread=spread)
        offsets = (space.decode(space.sample(400, generator())) - space.centre) / space.scale
        if isinstance(chart, Convex):  # a mixture has less spread than rows, and one of flat weights almost none
            assert (0.6 < float(offsets.std()) < 1) if spread == 1 else float(offsets.std()) < 0.7
        else:
            assert float(offsets.std()) == pytest.approx(spread, rel=0.08)


@every
def test_around_a_text_the_text_is_the_first_candidate(chart, llama: LM) -> None:
    if isinstance(chart, Convex):
        chart = Convex(nearest_rows(llama, table(llama)[[40, 41, 42]], 10))
    space = PromptSpace(table(llama)[[40, 41, 42]], 0.3, origin="text: a", chart=chart)
    x = space.sample(4, generator())
    assert torch.allclose(space.decode(x)[0], space.centre, atol=1e-4)
    assert not torch.allclose(space.decode(x)[1], space.centre, atol=1e-2)
    assert torch.equal(x, space.sample(4, generator()))


@every
def test_encode_finds_what_was_decoded(chart) -> None:
    space = space_of(chart)
    target = space.decode(space.encode(space.decode(space.sample(5, generator()))))  # of a mixture: one of its rows
    assert torch.allclose(space.decode(space.encode(target)), target, atol=1e-4)
    if isinstance(chart, Full):
        anything = normal(4, 3, 32)
        assert torch.allclose(space.decode(space.encode(anything)), anything, atol=1e-6)
    if not isinstance(chart, Convex):
        assert torch.allclose(target, space.decode(space.sample(5, generator())), atol=1e-4)


@every
def test_records_are_plain_and_tell_charts_apart(chart) -> None:
    record = space_of(chart).record()
    assert yaml.safe_load(yaml.safe_dump(record)) == json.loads(json.dumps(record)) == record
    others = [space_of(other).record() for other in CHARTS.values() if other is not chart]
    assert record not in others and record != space_of().record()
    assert record["chart"] == chart.record()


# ---- one by one ------------------------------------------------------------------------------------------------------


def test_a_space_without_the_new_parts_has_the_record_it_had() -> None:
    keys = "num_virtual_tokens placement intrinsic_dim projection_seed origin scale start_spread centre vocabulary"
    assert list(space_of().record()) == keys.split()
    changed = (
        space_of(trust_region=0.5),
        space_of(trust_region=0.6),
        space_of(starts=normal(2, 3, 32)),
        replace(space_of(), scale=torch.tensor([0.5, 0.5, 0.4])),
        space_of(Projected("sparse", 20, 4)),
        space_of(Projected("sparse", 21, 3)),
        space_of(LowRank(3)),
        space_of(Convex(ROWS[1:])),
        space_of(Convex(ROWS, 5.0)),
    )
    records = [space.record() for space in (*changed, *(space_of(chart) for chart in (None, *CHARTS.values())))]
    assert all(one != other for i, one in enumerate(records) for other in records[:i])


def test_an_intrinsic_dimension_is_a_gaussian_projection() -> None:
    short, long = space_of(intrinsic_dim=7, projection_seed=2), space_of(Projected("gaussian", 7, 2))
    x = normal(4, 7)
    assert torch.equal(short.decode(x), long.decode(x)) and torch.equal(short.projection, long.projection)
    # The bits of softde 0.1: files of runs hold x, not embeddings.
    A = torch.randn(7, 96, generator=torch.Generator().manual_seed(2)) / 7**0.5
    old = short.centre + short.scale * torch.stack([row @ A for row in x]).view(-1, 3, 32)
    assert torch.equal(short.decode(x), old)
    assert space_of(Projected("fastfood", 7)).projection is None


def test_low_rank_by_hand() -> None:
    space = PromptSpace(torch.zeros(2, 3), 2.0, chart=LowRank(1))
    assert space.dim == 5
    got = space.decode(torch.tensor([[1.0, -2.0, 3.0, 0.0, 5.0]]))
    assert got.tolist() == [[[6.0, 0.0, 10.0], [-12.0, 0.0, -20.0]]]
    space = space_of(LowRank(2), tokens=4)
    x = space.sample(3, generator())
    for row, embeddings in zip(x, space.decode(x), strict=True):
        U, V = row[:8].view(4, 2), row[8:].view(2, 32)
        expected = space.centre + 0.5 * (U @ V) / math.sqrt(2)
        assert torch.allclose(embeddings, expected, atol=1e-5)


def test_low_rank_takes_the_nearest_matrix_of_its_rank() -> None:
    space, target = space_of(LowRank(1)), normal(1, 3, 32)
    offsets = ((target - space.centre) / 0.5)[0].double()
    lost = torch.linalg.svdvals(offsets)[1:].square().sum().sqrt() * 0.5  # Eckart and Young
    assert float((space.decode(space.encode(target)) - target).norm()) == pytest.approx(float(lost), rel=1e-4)


def test_of_low_rank_start_points_are_the_nearest_to_vocabulary_rows(llama: LM) -> None:
    full, low, high = (PromptSpace.random(llama, 3, chart=chart) for chart in (None, LowRank(1), LowRank(3)))
    rows = full.decode(full.sample(20, generator()))
    assert torch.allclose(
        high.decode(high.sample(20, generator())), rows, atol=1e-4
    )  # of full rank the rows themselves
    assert torch.allclose(low.decode(low.sample(20, generator())), low.decode(low.encode(rows)), atol=1e-4)
    assert PromptSpace.random(llama, 3, chart=Projected("sparse", 9)).vocabulary is None
    assert PromptSpace.random(llama, 3, chart=Convex(ROWS)).vocabulary is None


def test_mixtures_are_weighted_rows() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]])
    space = PromptSpace(torch.tensor([[5.0, 5.0], [6.0, 6.0]]), 0.7, chart=Convex(rows, sharpness=1.0))
    logs = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]).log().flatten()[None]
    assert torch.allclose(space.decode(logs)[0], torch.tensor([[0.25, 0.75], [-0.6, 1.1]]), atol=1e-6)
    assert torch.allclose(space.decode(space.encode(rows[[2, 0]][None]))[0], rows[[2, 0]], atol=1e-5)


def test_rows_near_a_text_hold_its_own_tokens(llama: LM) -> None:
    ids = llama.tokenizer.encode("boss time", add_special_tokens=False)
    rows = nearest_rows(llama, table(llama)[ids], len(set(ids)))
    assert torch.equal(rows, table(llama)[sorted(set(ids))])
    assert nearest_rows(llama, table(llama)[ids], 30).shape == (30, 32)
    assert torch.equal(vocabulary_rows(llama, 0, 9), vocabulary_rows(llama, 0, 9))
    assert vocabulary_rows(llama, 0, 9).shape == (9, 32)


def test_every_token_in_units_of_its_own_distance(llama: LM) -> None:
    space = PromptSpace.from_text(llama, "You are a boss", per_token_scale=True)
    mean = table(llama).double().mean(0)
    own = (space.centre.double() - mean).square().mean(1).sqrt().float()
    assert torch.allclose(space.scale, own, rtol=1e-4)
    x = normal(2, space.dim)
    expected = torch.stack([space.centre + own[:, None] * row.view(-1, 32) for row in x])
    assert torch.allclose(space.decode(x), expected, atol=1e-5)
    assert space.record()["scale"] == space.scale.tolist()
    assert torch.allclose(space.decode(space.encode(expected)), expected, atol=1e-5)
    assert PromptSpace(torch.zeros(2, 3), torch.tensor(0.5)).record()["scale"] == 0.5


def test_a_trust_region_keeps_every_token_near_its_centre() -> None:
    free, held = space_of(), space_of(trust_region=0.4)
    x = 0.4 * normal(30, 96)
    wide, near = ((space.decode(x) - space.centre) / space.scale for space in (free, held))
    before, after = (offsets.square().mean(-1).sqrt() for offsets in (wide, near))
    out = before > 0.4
    assert 10 < int(out.sum()) < 80
    assert torch.equal(held.decode(x)[~out], free.decode(x)[~out])  # bit for bit
    assert torch.allclose(after[out], torch.tensor(0.4), atol=1e-5)
    cosine = torch.nn.functional.cosine_similarity(wide, near, dim=-1)
    assert torch.allclose(cosine, torch.ones(30, 3), atol=1e-4)
    assert torch.equal(held.decode(x)[3:4], held.decode(x[3:4]))


def test_a_trust_region_has_gradients_everywhere_also_at_its_centre() -> None:
    space = space_of(trust_region=0.4)
    x = torch.stack([torch.zeros(96), 0.1 * normal(96), 3 * normal(96)]).requires_grad_()
    (space.decode(x) * normal(3, 3, 32, seed=4)).sum().backward()
    assert x.grad.isfinite().all()
    assert torch.allclose(x.grad[:2], 0.5 * normal(3, 96, seed=4)[:2], atol=1e-6)
    radial = (x.grad[2].view(3, 32) * x.detach()[2].view(3, 32)).sum(1)
    assert torch.allclose(radial, torch.zeros(3), atol=1e-5)  # outside, only along the sphere


# ---- from other prompts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chart", [None, LowRank(3)])
def test_other_prompts_are_the_first_start_points(llama: LM, chart) -> None:
    prompts = [prompt(seed) for seed in range(3)]
    space = PromptSpace.from_prompts(llama, prompts, start_spread=1e-6, chart=chart)
    stack = torch.stack([p.embeddings for p in prompts])
    assert torch.allclose(space.centre, stack.mean(0)) and space.placement == "late"
    decoded = space.decode(space.sample(40, generator()))
    assert torch.allclose(decoded[:3], stack, atol=1e-4)
    flat = stack.flatten(1).double()
    weights = torch.linalg.lstsq(flat.T, decoded[3:].flatten(1).double().T).solution.T
    assert torch.allclose(weights @ flat, decoded[3:].flatten(1).double(), atol=1e-3)  # each is a mixture,
    assert torch.allclose(weights.sum(1), torch.ones(37).double(), atol=1e-3)
    assert weights.min() > -1e-3
    assert torch.allclose(weights.mean(0), torch.full((3,), 1 / 3).double(), atol=0.15)  # of all alike
    assert float(weights.max()) > 0.8
    assert torch.equal(space.sample(2, generator()), space.sample(40, generator())[:2])


def test_mixtures_have_noise_and_prompts_do_not(llama: LM) -> None:
    prompts = [prompt(1), prompt(2)]
    still, noisy = (PromptSpace.from_prompts(llama, prompts, start_spread=s) for s in (1e-9, 0.2))
    difference = noisy.sample(60, generator()) - still.sample(60, generator())
    assert not difference[:2].any()
    assert float(difference[2:].std()) == pytest.approx(0.2, rel=0.05)
    assert PromptSpace.from_prompts(llama, prompts[:1]).sample(3, generator()).shape == (3, 96)


def test_between_two_prompts() -> None:
    a = SoftPrompt(torch.tensor([[2.0, 0.0], [1.0, 1.0]]), "front", {"model": "m", "seed": 1, "verification": [1]})
    b = SoftPrompt(torch.tensor([[0.0, 4.0], [-1.0, -1.0]]), "front", {"model": "m", "seed": 2, "verification": [1]})
    middle = interpolate(a, b, 0.5)
    assert middle.embeddings.tolist() == [[1.0, 2.0], [0.0, 0.0]] and middle.placement == "front"
    assert set(middle.provenance) == {"model", "interpolated"} and middle.provenance["interpolated"]["t"] == 0.5
    turned = interpolate(a, b, 0.5, spherical=True).embeddings  # length (2 + 4)/2, at 45°; opposite tokens go straight
    assert torch.allclose(turned, torch.tensor([[3 / math.sqrt(2), 3 / math.sqrt(2)], [0.0, 0.0]]), atol=1e-6)
    for spherical in (False, True):
        assert torch.allclose(interpolate(a, b, 0, spherical).embeddings, a.embeddings, atol=1e-6)
        assert torch.allclose(interpolate(a, b, 1, spherical).embeddings, b.embeddings, atol=1e-6)
    zero = SoftPrompt(torch.zeros(2, 2), "front")
    assert torch.allclose(interpolate(a, zero, 0.5, spherical=True).embeddings, a.embeddings / 2)


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_charts_that_do_not_fit_are_refused() -> None:
    for rank in (0, 4, -1):
        with pytest.raises(
            ValueError, match=f"rank: expected 1 to 3, the smaller of tokens and hidden size, got {rank}"
        ):
            space_of(LowRank(rank))
    with pytest.raises(ValueError, match="rank: expected a whole number, got 1.5"):
        LowRank(1.5)  # type: ignore[arg-type]
    for dim in (0, 97):
        with pytest.raises(ValueError, match=rf"intrinsic_dim: expected 1 to 96 \(tokens × hidden\), got {dim}"):
            space_of(Projected("sparse", dim))
    with pytest.raises(ValueError, match="kind: expected one of gaussian, sparse, fastfood, got 'dense'"):
        Projected("dense", 4)
    with pytest.raises(ValueError, match="rows: expected the hidden size 32 as their width, got 5"):
        space_of(Convex(torch.zeros(4, 5)))
    with pytest.raises(ValueError, match=r"rows: expected two or more, \(rows, hidden\), got shape \(1, 32\)"):
        Convex(ROWS[:1])
    for rows, got in ([1, 2], "list: give a tensor"), (torch.zeros(3), r"shape \(3,\)"):
        with pytest.raises(ValueError, match=rf"rows: expected two or more, \(rows, hidden\), got {got}"):
            Convex(rows)  # type: ignore[arg-type]
    for sharpness in (0.0, math.inf, math.nan, "x"):
        with pytest.raises(ValueError, match=f"Expected sharpness, above 0, but got {sharpness!r}"):
            Convex(ROWS, sharpness)
    for chart, got in ("fastfood", "'fastfood'"), (LowRank, "<class '.*LowRank'>"):
        with pytest.raises(ValueError, match=rf"chart: expected Full\(\), .*, got {got}; make one"):
            space_of(chart)
    with pytest.raises(ValueError, match="chart, intrinsic_dim: expected one of them"):
        space_of(LowRank(1), intrinsic_dim=4)
    with pytest.raises(ValueError, match="vocabulary: its rows do not lie in a subspace"):
        space_of(Projected("sparse", 4), vocabulary=ROWS)
    assert space_of(Full(), vocabulary=ROWS).sample(2, generator()).shape == (2, 96)
    assert space_of(LowRank(3)).dim == 105


def test_other_bad_fields_are_refused() -> None:
    for radius in (0.0, -1.0, math.nan, math.inf, "x"):
        with pytest.raises(ValueError, match=f"Expected trust_region, a radius .*, above 0, but got {radius!r}"):
            space_of(trust_region=radius)
    with pytest.raises(ValueError, match=r"scale: expected one number or one per token, \(3,\), got shape \(2,\)"):
        replace(space_of(), scale=torch.ones(2))
    for wrong in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"scale: expected finite numbers above 0, got \[1.0, "):
            replace(space_of(), scale=torch.tensor([1.0, wrong, 1.0]))
    with pytest.raises(ValueError, match="starts: other prompts do not lie in this chart"):
        space_of(Projected("sparse", 4), starts=normal(2, 3, 32))
    with pytest.raises(ValueError, match=r"starts: expected prompts of the centre's shape \(3, 32\), got \(2, 32\)"):
        space_of(starts=normal(2, 2, 32))
    for wrong in (torch.zeros(3, 32), torch.zeros(1, 2, 32)):
        with pytest.raises(ValueError, match=r"embeddings: expected \(population, 3, 32\), got shape"):
            space_of().encode(wrong)


@pytest.mark.parametrize(
    ("name", "make"),
    {
        "prompt": lambda lm, wrong: PromptSpace.from_prompt(lm, wrong),
        r"prompts\[0\]": lambda lm, wrong: PromptSpace.from_prompts(lm, [wrong]),
        r"prompts\[1\]": lambda lm, wrong: PromptSpace.from_prompts(lm, (prompt(), wrong)),
        "a": lambda lm, wrong: interpolate(wrong, prompt(), 0.5),
        "b": lambda lm, wrong: interpolate(prompt(), wrong, 0.5),
    }.items(),
)
def test_a_file_of_a_prompt_is_loaded_first(llama: LM, name: str, make) -> None:
    loads = r"softde.SoftPrompt.load\('x.safetensors'\) reads one"
    with pytest.raises(ValueError, match=f"^{name}: expected SoftPrompt, got 'x.safetensors'; {loads}"):
        make(llama, "x.safetensors")
    with pytest.raises(ValueError, match=f"^{name}: expected SoftPrompt, got Tensor; "):
        make(llama, torch.zeros(3, 32))


@pytest.mark.parametrize(
    ("wrong", "got"), [("x.safetensors", "'x.safetensors'"), (prompt(), "SoftPrompt"), (None, "None"), (ROWS, "Tensor")]
)
def test_other_prompts_are_a_list(llama: LM, wrong, got: str) -> None:
    with pytest.raises(ValueError, match=f"prompts: expected one or more soft prompts, got {got}; give a list of them"):
        PromptSpace.from_prompts(llama, wrong)


def test_prompts_that_have_nothing_between_them_are_refused(llama: LM) -> None:
    pairs = {
        "one length and width, got 3 × 32 and 2 × 32": (prompt(0), prompt(1, tokens=2)),
        "one placement, got 'late' and 'front'": (prompt(0), prompt(1, placement="front")),
        "one model, got 'a' and 'b'": (
            prompt(0, model="a", model_config_hash="1"),
            prompt(1, model="b", model_config_hash="2"),
        ),
    }
    for message, pair in pairs.items():
        with pytest.raises(ValueError, match=f"prompts: expected {message}"):
            PromptSpace.from_prompts(llama, pair)
        with pytest.raises(ValueError, match=f"prompts: expected {message}"):
            interpolate(*pair, 0.5)
    with pytest.raises(ValueError, match="prompts: expected one or more soft prompts, got none"):
        PromptSpace.from_prompts(llama, [])
    with pytest.raises(ValueError, match="7 numbers wide"):
        PromptSpace.from_prompts(llama, [SoftPrompt(torch.zeros(2, 7))] * 2)
    for t in (-0.1, 1.1, math.nan, "half"):
        with pytest.raises(ValueError, match="t: expected a number from 0"):
            interpolate(prompt(0), prompt(1), t)
