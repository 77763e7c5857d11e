"""The chart between flat vectors and embeddings: by hand, and the statistics of its draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from softde.lm import LM
from softde.optim import generator_for
from softde.prompt import PromptMismatch, SoftPrompt
from softde.space import POOL, PromptSpace, vocabulary_rows
from tests import tiny_random


def table(lm: LM) -> torch.Tensor:
    """The model's own embeddings of the tokenizer's tokens; its matrix has a few rows more."""
    return lm.model.get_input_embeddings().weight.detach()[: len(lm.tokenizer)]


def generator(seed: int = 0) -> torch.Generator:
    return generator_for(seed, 0)


# ---- decode --------------------------------------------------------------------------------------------------------


def test_decode_by_hand() -> None:
    centre = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    space = PromptSpace(centre, 0.5)
    assert (space.dim, space.num_virtual_tokens, space.projection) == (6, 2, None)
    got = space.decode(torch.tensor([[0.0, 2.0, -2.0, 4.0, 0.0, 1.0], [0.0] * 6]))
    assert got.tolist() == [[[1.0, 3.0, 2.0], [6.0, 5.0, 6.5]], centre.tolist()]
    assert space.decode(torch.zeros(1, 6, dtype=torch.float64)).dtype == torch.float32


def test_decode_in_a_subspace_by_hand() -> None:
    centre = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    space = PromptSpace(centre, 0.5, intrinsic_dim=2, projection_seed=3)
    assert space.dim == 2
    rows = space.projection
    assert rows is not None and rows.shape == (2, 6)
    z = torch.tensor([[0.0, 0.0], [3.0, -1.0]])
    for vector, got in zip(z.tolist(), space.decode(z).tolist(), strict=True):
        for token in range(2):
            for j in range(3):
                moved = sum(vector[k] * float(rows[k, 3 * token + j]) for k in range(2))
                assert got[token][j] == pytest.approx(float(centre[token, j]) + 0.5 * moved, abs=1e-6)


def test_the_projection_follows_its_seed_and_keeps_the_spread() -> None:
    space = PromptSpace(torch.zeros(8, 128), 2.0, intrinsic_dim=100)
    A, again = space.projection, replace(space).projection
    other = replace(space, projection_seed=1).projection
    assert A is not None and again is not None and other is not None
    assert torch.equal(A, again) and not torch.allclose(A, other)
    # A ~ N(0, 1/d), 102,400 draws: a mean within 4 standard errors, a variance within 4 √(2/n).
    n = A.numel()
    assert abs(float(A.mean())) < 4 * (0.01 / n) ** 0.5
    assert float(A.var()) * 100 == pytest.approx(1, abs=4 * (2 / n) ** 0.5)
    # z ~ N(0, 1) moves a coordinate by one spread, on average over coordinates and draws.
    moved = space.decode(torch.randn(400, 100, generator=generator())) / space.scale
    assert float(moved.var()) == pytest.approx(1, rel=0.05)


def test_a_new_generator_gives_the_same_samples_as_an_old_one(llama: LM) -> None:
    for space in (PromptSpace.random(llama, 3), PromptSpace.random(llama, 3, intrinsic_dim=5)):
        assert torch.equal(space.sample(4, generator(1)), space.sample(4, generator(1)))
        assert not torch.equal(space.sample(4, generator(1)), space.sample(4, generator(2)))


# ---- random --------------------------------------------------------------------------------------------------------


def test_random_vocabulary_rows(llama: LM) -> None:
    space = PromptSpace.random(llama, 3, "front")
    rows = table(llama)
    assert (space.placement, space.num_virtual_tokens, space.dim) == ("front", 3, 96)
    assert torch.allclose(space.centre, rows.double().mean(0).float().expand(3, -1), atol=1e-6)
    assert space.scale == pytest.approx(float((rows - rows.mean(0)).square().mean().sqrt()), rel=1e-5)

    x = space.sample(50, generator())
    assert x.shape == (50, 96) and x.dtype == torch.float32
    distances = torch.cdist(space.decode(x).flatten(0, 1).double(), rows.double())
    nearest = distances.min(1)
    assert float(nearest.values.max()) < 1e-5  # every token is a row of the vocabulary,
    special = {llama.tokenizer.convert_tokens_to_ids(token) for token in tiny_random.LLAMA3_SPECIALS}
    assert not special & set(nearest.indices.tolist())  # none of them a special one,
    assert len(set(nearest.indices.tolist())) > 80  # and they differ


def test_start_spread_shrinks_start_points_towards_the_centre(llama: LM) -> None:
    wide, narrow = PromptSpace.random(llama, 2), PromptSpace.random(llama, 2, start_spread=0.25)
    assert torch.allclose(narrow.sample(6, generator()), 0.25 * wide.sample(6, generator()), atol=1e-6)
    wide, narrow = (PromptSpace.random(llama, 2, init="noise", start_spread=s) for s in (1.0, 0.25))
    assert torch.allclose(narrow.sample(6, generator()), 0.25 * wide.sample(6, generator()), atol=1e-6)


def test_noise_has_the_spread_of_the_vocabulary(llama: LM) -> None:
    for space in (PromptSpace.random(llama, 4, init="noise"), PromptSpace.random(llama, 4, intrinsic_dim=60)):
        assert space.vocabulary is None and space.record()["origin"] == "noise around the mean embedding"
        x = space.sample(300, generator())
        assert x.shape == (300, space.dim)
        assert float(x.mean()) == pytest.approx(0, abs=0.03)
        assert float(x.std()) == pytest.approx(1, abs=0.03)
        assert float((space.decode(x) - space.centre).std()) == pytest.approx(space.scale, rel=0.15)


def test_a_large_vocabulary_is_represented_by_a_part() -> None:
    class Tokenizer:
        all_special_ids = (0,)

        def __len__(self) -> int:
            return 3 * POOL

    class Stub:  # as much of an LM as is asked for
        tokenizer = Tokenizer()
        model = type("Model", (), {"get_input_embeddings": lambda self: torch.nn.Embedding(3 * POOL, 2)})()

        def embed(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.stack([ids.float(), -ids.float()], 1)

    rows, again, other = (vocabulary_rows(Stub(), seed) for seed in (0, 0, 1))  # type: ignore[arg-type]
    assert rows.shape == (POOL, 2) and torch.equal(rows, again) and not torch.equal(rows, other)
    assert len(set(rows[:, 0].tolist())) == POOL and 0 not in rows[:, 0].tolist()


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows(tmp_path: Path) -> None:
    lm = LM.from_pretrained(tiny_random.save(tmp_path, vocab_size=390))
    assert len(lm.tokenizer) > 390
    space = PromptSpace.random(lm, 2)
    assert space.vocabulary is not None and len(space.vocabulary) == 390 - len(tiny_random.LLAMA3_SPECIALS)


# ---- from a text, from a prompt ------------------------------------------------------------------------------------


def test_from_text_takes_the_texts_own_tokens(llama: LM) -> None:
    text = "You are a typical person from somewhere."
    ids = llama.tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) > 3
    space = PromptSpace.from_text(llama, text)
    assert torch.equal(space.centre, table(llama)[ids])
    assert torch.equal(PromptSpace.from_text(llama, text, 2).centre, table(llama)[ids[:2]])
    longer = PromptSpace.from_text(llama, text, len(ids) + 2, "front")
    assert torch.equal(longer.centre, table(llama)[[*ids, *ids[:2]]])
    assert longer.placement == "front"

    x = space.sample(100, generator())
    assert not x[0].any()  # the text itself is the first candidate
    assert torch.equal(space.decode(x[:1])[0], space.centre)
    assert float(x[1:].std()) == pytest.approx(0.3, rel=0.05)
    assert not PromptSpace.from_text(llama, text, intrinsic_dim=4).sample(3, generator())[0].any()


def test_from_prompt_takes_its_embeddings_and_placement(llama: LM) -> None:
    prompt = SoftPrompt(torch.randn(3, 32, generator=generator()), "front")
    space = PromptSpace.from_prompt(llama, prompt)
    assert torch.equal(space.centre, prompt.embeddings) and space.centre is not prompt.embeddings
    assert (space.placement, space.scale) == ("front", llama.embedding_stats[1])
    assert torch.equal(space.decode(space.sample(4, generator())[:1])[0], prompt.embeddings)
    with pytest.raises(ValueError, match="7 numbers wide"):
        PromptSpace.from_prompt(llama, SoftPrompt(torch.zeros(2, 7)))
    with pytest.warns(PromptMismatch, match="made with another model"):
        PromptSpace.from_prompt(llama, SoftPrompt(torch.zeros(2, 32), "late", {"model": "another"}))


# ---- the record, and bad input -------------------------------------------------------------------------------------


def test_the_record_tells_spaces_apart(llama: LM) -> None:
    spaces = [
        PromptSpace.random(llama, 2),
        PromptSpace.random(llama, 3),
        PromptSpace.random(llama, 2, "front"),
        PromptSpace.random(llama, 2, init="noise"),
        PromptSpace.random(llama, 2, intrinsic_dim=4),
        PromptSpace.random(llama, 2, intrinsic_dim=4, seed=1),
        PromptSpace.random(llama, 2, start_spread=0.5),
        PromptSpace.from_text(llama, "boss"),
        PromptSpace.from_text(llama, "time", len(llama.tokenizer.encode("boss", add_special_tokens=False))),
        PromptSpace(torch.zeros(2, 32), 1.0),
        PromptSpace(torch.zeros(2, 32), 2.0),
        PromptSpace(torch.ones(2, 32), 2.0),
        PromptSpace(torch.ones(2, 32), 2.0, vocabulary=torch.zeros(5, 32)),
        PromptSpace(torch.ones(2, 32), 2.0, vocabulary=torch.ones(5, 32)),
    ]
    records = [space.record() for space in spaces]
    assert all(one != other for i, one in enumerate(records) for other in records[:i])
    assert records[0] == PromptSpace.random(llama, 2).record()


def test_bad_input_is_refused(llama: LM) -> None:
    centre = torch.zeros(2, 3)
    for wrong in (torch.zeros(3), torch.zeros(0, 3), torch.zeros(1, 2, 3)):
        with pytest.raises(ValueError, match=r"centre: expected shape \(tokens, hidden\), got"):
            PromptSpace(wrong, 1.0)
    with pytest.raises(ValueError, match="placement: expected one of front, .*, late, got 'middle'"):
        PromptSpace(centre, 1.0, "middle")
    for wrong in (0.0, -1.0, float("nan"), float("inf"), "x", None):
        with pytest.raises(ValueError, match=f"Expected scale, .*above 0, but got {wrong!r}"):
            PromptSpace(centre, wrong)
        with pytest.raises(ValueError, match=f"Expected start_spread, .*above 0, but got {wrong!r}"):
            PromptSpace(centre, 1.0, start_spread=wrong)
    with pytest.raises(ValueError, match="centre: expected shape .*, got list: give a tensor"):
        PromptSpace([[1.0]], 1.0)  # type: ignore[arg-type]
    for dim in (0, 7):
        with pytest.raises(ValueError, match=rf"intrinsic_dim: expected 1 to 6 \(tokens × hidden\), got {dim}"):
            PromptSpace(centre, 1.0, intrinsic_dim=dim)
    with pytest.raises(ValueError, match="vocabulary: its rows do not lie in a subspace; leave out"):
        PromptSpace(centre, 1.0, intrinsic_dim=2, vocabulary=torch.zeros(5, 3))
    with pytest.raises(ValueError, match="init: expected 'vocabulary' or 'noise', got 'zeros'"):
        PromptSpace.random(llama, init="zeros")
    for count in (0, -1):
        with pytest.raises(ValueError, match=f"num_virtual_tokens: expected 1 or more, got {count}"):
            PromptSpace.random(llama, count)
        with pytest.raises(ValueError, match=f"num_virtual_tokens: expected 1 or more, got {count}"):
            PromptSpace.from_text(llama, "boss", count)
    for text in ("", None, 3):
        with pytest.raises(ValueError, match=f"text: expected a text of at least one token, got {text!r}; "):
            PromptSpace.from_text(llama, text)


@pytest.mark.parametrize("make", ["random", "from_text", "from_prompt", "from_prompts"])
def test_the_name_of_a_model_is_no_model(make: str) -> None:
    prompt = SoftPrompt(torch.zeros(2, 32))
    given = {"random": (), "from_text": ("boss",), "from_prompt": (prompt,), "from_prompts": ([prompt],)}[make]
    with pytest.raises(ValueError, match=r"lm: expected LM, got 'tiny'; softde.LM.from_pretrained\('tiny'\) loads one"):
        getattr(PromptSpace, make)("tiny", *given)


@pytest.mark.parametrize("spread", [1, np.float32(0.25), torch.tensor(0.25), np.array(0.25)])
def test_numbers_of_any_kind_are_kept_as_pythons_own(spread) -> None:
    space = PromptSpace(torch.zeros(2, 3), spread, start_spread=spread, trust_region=spread)
    for got in (space.scale, space.start_spread, space.trust_region):
        assert isinstance(got, (int, float)) and got == float(spread)


def test_decode_takes_arrays_and_refuses_another_width() -> None:
    space = PromptSpace(torch.zeros(2, 3), 2.0)
    x = np.arange(12.0).reshape(2, 6)
    assert torch.equal(space.decode(x), space.decode(torch.from_numpy(x)))  # type: ignore[arg-type]
    for wrong in (
        torch.zeros(2, 3),
        torch.zeros(1, 12),
        torch.zeros(6),
        np.zeros((1, 7)),
    ):  # (1, 12): no two candidates
        with pytest.raises(ValueError, match=r"x: expected one row of 6 numbers per candidate, .*got shape"):
            space.decode(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got shape \(2, 5\)"):
        PromptSpace(torch.zeros(2, 3), 2.0, intrinsic_dim=4).decode(torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"x: expected a tensor or an array \(population, dim\), got 'x'"):
        space.decode("x")  # type: ignore[arg-type]


def test_a_length_is_a_whole_number(llama: LM) -> None:
    assert PromptSpace.random(llama, np.int64(2)).num_virtual_tokens == 2  # type: ignore[arg-type]
    for wrong in (2.0, "2", None):
        with pytest.raises(ValueError, match="num_virtual_tokens: expected a whole number, got"):
            PromptSpace.random(llama, wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_virtual_tokens: expected a whole number, got 2.5"):
        PromptSpace.from_text(llama, "boss", 2.5)  # type: ignore[arg-type]
