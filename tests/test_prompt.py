"""The artefact: a value, one file, and a check of the model it meets."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from softde.lm import LM
from softde.prompt import PromptMismatch, SoftPrompt, model_provenance
from tests import tiny_random


def prompt(tokens: int = 3, hidden: int = 32, placement: str = "late", **provenance: object) -> SoftPrompt:
    embeddings = torch.randn(tokens, hidden, generator=torch.Generator().manual_seed(0))
    return SoftPrompt(embeddings, placement, provenance)


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LM:
    return LM.from_pretrained(tiny_random.save(tmp_path_factory.mktemp("llama")))


# -- a value


def test_equality_is_by_value() -> None:
    one, same = prompt(seed=1), prompt(seed=1)
    assert one == same and hash(one) == hash(same) and one.embeddings is not same.embeddings
    assert one != prompt(seed=2)
    assert one != replace(one, placement="front")
    assert one != replace(one, embeddings=one.embeddings + 1e-6)
    assert one != prompt(tokens=2, seed=1)
    assert one != "a prompt"


def test_it_keeps_a_copy_in_float32() -> None:
    given = torch.ones(2, 4, dtype=torch.bfloat16, requires_grad=True)
    kept = SoftPrompt(given, "front", {})
    with torch.no_grad():
        given.zero_()
    assert kept.embeddings.dtype == torch.float32 and not kept.embeddings.requires_grad
    assert kept.embeddings.eq(1).all()
    with pytest.raises(FrozenInstanceError):
        kept.placement = "late"  # type: ignore[misc]
    with pytest.raises(TypeError, match="frozen"):
        kept.provenance["seed"] = 1  # type: ignore[index]


def test_its_printed_form_is_one_line() -> None:
    assert repr(prompt(model="tiny")) == "SoftPrompt(3 × 32, late, for tiny)"


@pytest.mark.parametrize(
    ("embeddings", "said"),
    [
        (torch.zeros(4), r"expected a floating-point tensor \(tokens, hidden\), got \(4,\)"),
        (torch.zeros(1, 2, 4), r"got \(1, 2, 4\)"),
        (torch.zeros(0, 4), r"got \(0, 4\)"),
        (torch.zeros(2, 4, dtype=torch.long), "got .* torch.int64"),
        ([[0.0]], "got list"),
        (torch.tensor([[0.0, math.nan]]), "expected finite numbers, got 1 that are not"),
        (torch.tensor([[1e300]], dtype=torch.float64), "expected finite numbers"),  # beyond float32
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_bad_embeddings(embeddings: torch.Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SoftPrompt(embeddings, "late", {})


def test_bad_placement() -> None:
    with pytest.raises(ValueError, match="expected one of front, .*, late, got 'middle'"):
        SoftPrompt(torch.zeros(1, 2), "middle", {})


# -- provenance


def test_provenance_becomes_json_values() -> None:
    given = {
        "a": (1, 2.5),
        "b": {"c": np.float64(0.1), "d": np.arange(2)},
        "e": torch.tensor([1.5]),
        "f": None,
        "g": True,
    }
    kept = prompt(**given).provenance
    assert kept == {"a": [1, 2.5], "b": {"c": 0.1, "d": [0, 1]}, "e": [1.5], "f": None, "g": True}
    assert type(kept["b"]["c"]) is float


@pytest.mark.parametrize(
    ("provenance", "said"),
    [
        ({"a": {"b": [1.0, math.nan]}}, r"provenance\.a\.b\[1\]: expected a finite number, got nan; .* write None"),
        ({"a": -math.inf}, "got -inf"),
        ({"a": np.array([np.inf])}, r"provenance\.a\[0\]"),
        ({"a": Path("x")}, r"provenance\.a: expected a JSON value, got PosixPath"),
        ({"a": {1: 2}}, r"provenance\.a: expected text as keys, got 1"),
        ([1], "expected a mapping, got list"),
    ],
)
def test_what_is_no_json_is_refused(provenance: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SoftPrompt(torch.zeros(1, 2), "late", provenance)


def test_entries_are_added_to_a_new_prompt() -> None:
    old = prompt(seed=1)
    assert old.with_provenance({"budget": 5}).provenance == {"seed": 1, "budget": 5}
    assert old.provenance == {"seed": 1}


# -- one file

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(
    numbers=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8),
    placement=st.sampled_from(["front", "late"]),
    provenance=st.dictionaries(st.text(), json_values, max_size=4),
)
def test_round_trip_is_equality(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[float], placement: str, provenance: dict[str, object]
) -> None:
    path = tmp_path_factory.mktemp("round") / "p.safetensors"
    saved = SoftPrompt(torch.tensor([numbers]), placement, provenance)
    saved.save(path)
    loaded = SoftPrompt.load(path)
    assert loaded == saved and hash(loaded) == hash(saved)
    # Bits, not only values: −0.0 stays −0.0, subnormal numbers stay.
    assert torch.equal(loaded.embeddings.view(torch.int32), saved.embeddings.view(torch.int32))


def test_repeated_saves_have_the_same_bytes(tmp_path: Path) -> None:
    for name in "abc":
        prompt(b=1, a={"z": 1, "y": 2}).save(tmp_path / name)
    prompt(a={"y": 2, "z": 1}, b=1).save(tmp_path / "other order")
    assert len({(tmp_path / name).read_bytes() for name in ("a", "b", "c", "other order")}) == 1
    SoftPrompt.load(tmp_path / "a").save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "a").read_bytes()


def test_the_header_is_readable_without_softde(tmp_path: Path) -> None:
    prompt(seed=7).save(tmp_path / "p")
    content = (tmp_path / "p").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # the safetensors format
    assert set(header) == {"prompt_embeddings", "__metadata__"} and set(header["__metadata__"]) == {"softde"}
    assert header["__metadata__"]["softde"] == '{"format":1,"placement":"late","provenance":{"seed":7}}'


def test_an_older_file_survives_a_failed_save(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    prompt(seed=1).save(path)
    with pytest.raises(ValueError, match="there is no folder .*; create it first"):
        prompt().save(tmp_path / "no" / "p.safetensors")
    with pytest.raises(ValueError, match="cannot write .*"):
        prompt().save(tmp_path)  # a folder
    assert SoftPrompt.load(path) == prompt(seed=1)


def _broken(path: Path, kind: str) -> None:
    prompt(seed=1).save(path)
    good = path.read_bytes()
    record = {"softde": prompt().to_json()}
    tensor = {"prompt_embeddings": torch.zeros(2, 4)}
    if kind == "cut off":
        path.write_bytes(good[:-40])
    elif kind == "header only":
        path.write_bytes(good[:30])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pickle":
        torch.save(tensor, path)
    elif kind == "foreign":
        save_file(tensor, path)
    elif kind == "newer":
        save_file(tensor, path, {"softde": '{"format":2}'})
    elif kind == "no json":
        save_file(tensor, path, {"softde": "{"})
    elif kind == "two tensors":
        save_file({**tensor, "more": torch.zeros(1)}, path, record)
    elif kind == "half":
        save_file({"prompt_embeddings": torch.zeros(2, 4).half()}, path, record)
    elif kind == "nan":
        save_file({"prompt_embeddings": torch.full((2, 4), math.nan)}, path, record)
    elif kind == "rank":
        save_file({"prompt_embeddings": torch.zeros(4)}, path, record)
    elif kind == "placement":
        save_file(tensor, path, {"softde": '{"format":1,"provenance":{}}'})


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("cut off", "cannot be read as safetensors .*copy or download it again"),
        ("header only", "cannot be read as safetensors"),
        ("empty", "cannot be read as safetensors"),
        ("pickle", "cannot be read as safetensors"),
        ("foreign", "no soft prompt of softde .*SoftPrompt.from_peft"),
        ("newer", "has format 2, this softde reads format 1; upgrade"),
        ("no json", "its softde record is damaged"),
        ("two tensors", "expected one float32 tensor 'prompt_embeddings', got"),
        ("half", "expected one float32 tensor .*float16"),
        ("nan", "expected finite numbers, got 8 that are not"),
        ("rank", r"expected a floating-point tensor \(tokens, hidden\), got \(4,\)"),
        ("placement", "expected one of front, .*, late, got None"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, kind: str, said: str) -> None:
    path = tmp_path / "some.safetensors"
    _broken(path, kind)
    with pytest.raises(ValueError, match=said) as caught:
        SoftPrompt.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file .*; check the path"):
        SoftPrompt.load(tmp_path / "no.safetensors")
    with pytest.raises(ValueError, match="is a folder; give a .safetensors file"):
        SoftPrompt.load(tmp_path)


# -- the model it meets


def test_its_own_model_passes_silently(lm: LM) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prompt(**model_provenance(lm)).check_model(lm)
        prompt().check_model(lm)  # nothing is known, nothing differs


def test_another_width_is_refused(lm: LM) -> None:
    with pytest.raises(ValueError, match=r"the prompt is 16 numbers wide \(made with 'big'\), but model .* is 32 wide"):
        prompt(hidden=16, model="big").check_model(lm)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "org/other"}, "name 'org/other', now "),
        ({"model_config_hash": "0"}, "another configuration"),
        ({"tokenizer_hash": "0"}, "another tokenizer or chat template"),
        (
            {"embedding_scale": 5.657, "transformers": "5.0.0"},
            "transformers '5.0.0', now '.*', which scale embeddings by 5.657 and 1",
        ),
    ],
)
def test_another_model_warns(lm: LM, change: dict[str, object], said: str) -> None:
    with pytest.warns(PromptMismatch, match=said) as caught:
        prompt(**{**model_provenance(lm), **change}).check_model(lm)
    assert len(caught) == 1 and caught[0].filename == __file__


def test_revisions(lm: LM) -> None:
    now = replace(lm, revision="b" * 40)
    with pytest.warns(PromptMismatch, match="revision 'a+', now 'b+'"):
        prompt(**model_provenance(replace(lm, revision="a" * 40))).check_model(now)
    # The same revision written differently by another transformers, and one in half precision: no reason to worry.
    made = {**model_provenance(now), "model_config_hash": "0", "transformers": "5.0.0", "embedding_scale": 1.002}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prompt(**made).check_model(now)


def test_model_provenance_is_json(lm: LM) -> None:
    known = model_provenance(lm)
    assert json.loads(json.dumps(known)) == known
    assert known["hidden_size"] == 32 and known["embedding_scale"] == 1.0


def test_an_array_is_as_good_as_a_tensor() -> None:
    numbers = np.arange(6, dtype=np.float64).reshape(2, 3)
    made = SoftPrompt(numbers)  # type: ignore[arg-type]
    assert made == SoftPrompt(torch.arange(6.0).reshape(2, 3))
    numbers[0, 0] = 9
    assert made.embeddings[0, 0] == 0  # a copy
    with pytest.raises(ValueError, match="expected a floating-point tensor"):
        SoftPrompt(np.arange(6).reshape(2, 3))  # type: ignore[arg-type]
