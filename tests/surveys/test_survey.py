from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from softde.surveys import Edition, Factor, Item, Option, Survey, load_survey, options, shipped_surveys
from softde.surveys.values import FrozenDict

VSM = load_survey("vsm13")


def small(**changes: object) -> Survey:
    fields: dict[str, object] = {
        "id": "s",
        "title": "S",
        "items": (
            Item("a", "A?", options(["no", "yes"])),
            Item("b", "B?", options(["never", "at times", "always"], [0, 1, 2])),
        ),
        "factor_models": (Factor("F", "f", {"a": 2, "b": -1}),),
    }
    return Survey(**(fields | changes))  # type: ignore[arg-type]


def test_vsm13_has_24_items_of_five_options_and_six_factors() -> None:
    assert shipped_surveys() == ("ipip50", "iw", "mfq2", "pvq21", "pvq40", "pvqrr", "vsm13", "vsm94")
    assert VSM.item_ids == tuple(f"m{i:02d}" for i in range(1, 25))
    assert VSM.factors == ("PDI", "IDV", "MAS", "UAI", "LTO", "IVR")
    assert VSM.editions == ("2015", "2023")
    assert VSM.option_values.tolist() == [[1, 2, 3, 4, 5]] * 24
    assert all(o.label == str(i) for item in VSM.items for i, o in enumerate(item.options, start=1))


def test_vsm13_scales_follow_the_directions_of_the_instrument() -> None:
    """Which pole is answer 1, for every item: 1–14 importance, 15–17 always first, 20 never first, 21–24 agreement."""
    first = {item.id: item.options[0].text for item in VSM.items}
    assert {first[f"m{i:02d}"] for i in range(1, 15)} == {"of the utmost importance"}
    assert [first[i] for i in ("m15", "m16", "m17")] == ["always"] * 3
    assert first["m18"] == "very good"
    assert first["m19"] == "very proud"
    assert first["m20"] == "never"
    assert {first[f"m{i}"] for i in range(21, 25)} == {"strongly agree"}


def test_every_vsm_item_enters_one_factor_and_weights_cancel() -> None:
    assert (VSM.weights != 0).sum(axis=0).tolist() == [1] * 24
    assert VSM.weights.sum(axis=1).tolist() == [0] * 6


def test_option_values_are_padded_with_nan() -> None:
    values = small().option_values
    assert values.shape == (2, 3)
    assert np.isnan(values[0, 2])
    assert values[1].tolist() == [0, 1, 2]


def test_surveys_are_frozen_hashable_and_picklable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        VSM.id = "other"  # type: ignore[misc]
    with pytest.raises(TypeError, match="frozen"):
        VSM.factor_models[0].weights["m07"] = 0  # type: ignore[index]
    with pytest.raises(ValueError, match="read-only"):
        VSM.weights[0, 0] = 1
    assert hash(VSM) == hash(load_survey("vsm13"))
    assert copy.deepcopy(VSM) == VSM
    assert pickle.loads(pickle.dumps(VSM)) == VSM  # process pools send surveys this way


def test_frozen_dict_refuses_every_change_and_is_json() -> None:
    d = FrozenDict({"a": 1})
    changes: list[Callable[[], object]] = [
        lambda: d.update({}),
        lambda: d.pop("a"),
        lambda: d.popitem(),
        lambda: d.clear(),
        lambda: d.setdefault("b", 1),
        lambda: d.__delitem__("a"),
        lambda: d.__ior__({}),
    ]
    for change in changes:
        with pytest.raises(TypeError, match="frozen"):
            change()
    assert json.dumps(d) == '{"a": 1}'
    assert {d: 1}[FrozenDict({"a": 1})] == 1


def test_digest_changes_with_what_is_shown_or_scored_and_with_nothing_else() -> None:
    one = small()
    assert one.digest == small(title="other", note="n", published=(Edition("1", "s", {}),)).digest
    assert len(one.digest) == 64
    changed = [
        small(instruction="Say a number."),
        small(factor_models=(Factor("F", "f", {"a": 3, "b": -1}),)),
        small(items=(replace(one.items[0], text="A!"), one.items[1])),
        small(items=(replace(one.items[0], options=options(["no", "yes"], [0, 1])), one.items[1])),
    ]
    assert len({one.digest, *(s.digest for s in changed)}) == 5


def test_variant_replaces_the_named_factor_only() -> None:
    cat = VSM.variant("cat_35_25")
    assert cat.id == "vsm13:cat_35_25"
    assert load_survey("vsm13:cat_35_25") == cat
    differs = (cat.weights != VSM.weights).any(axis=1)
    assert [f for f, d in zip(VSM.factors, differs, strict=True) if d] == ["MAS"]
    assert dict(cat.factor_models[2].weights) == {"m05": 35, "m03": -35, "m08": 25, "m10": -25}
    assert cat.factor_models[2].name == "masculinity"
    assert cat.digest != VSM.digest
    with pytest.raises(ValueError, match=r"no variant 'cat_35'; did you mean 'cat_35_25'\?"):
        VSM.variant("cat_35")


TWO = options(["no", "yes"])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: small(items=()), "one item or more"),
        (lambda: small(items=(Item("a", "x", TWO), Item("a", "y", TWO)), factor_models=()), "duplicate item id 'a'"),
        (
            lambda: small(factor_models=(Factor("F", "", {"a": 1}), Factor("F", "", {"b": 1}))),
            "duplicate factor id 'F'",
        ),
        (
            lambda: small(factor_models=(Factor("F", "", {"c": 1}),)),
            "factor 'F': weight for item 'c', which does not exist",
        ),
        (lambda: small(variants={"v": (Factor("G", "", {"a": 1}),)}), "variant 'v': unknown factor 'G'"),
        (lambda: small(variants={"v": (Factor("F", "", {"z": 1}),)}), "variant 'v', factor 'F': weight for item 'z'"),
        (lambda: small(published=(Edition("1", "", {}), Edition("1", "", {}))), "duplicate edition '1'"),
        (lambda: small(published=(Edition("1", "", {"X": {"G": 1}}),)), "edition 1, X: unknown factor 'G'"),
        (lambda: small(id=" "), "survey: id: expected a text"),
        (lambda: Edition("1", "", {"X": {"F": float("nan")}}), "must be finite; leave it out"),
        (lambda: Item("a", "", TWO), "item 'a': text: expected a text"),
        (lambda: Item("a", "x", TWO[:1]), "item 'a': expected two options or more, got 1"),
        (lambda: Item("a", "x", (Option("A", "no", 1), Option("B", "yes", 2))), "labels are their positions"),
        (lambda: Item("a", "x", options(["yes", "no", "yes "])), "duplicate option text in item 'a': 'yes'"),
        (lambda: Option("1", "  ", 1), "option 1: text"),
        (lambda: Option("1", "x", float("inf")), "option 1: value: expected a finite number"),
        (lambda: options(["a", "b"], [1]), "2 options but 1 values"),
        (lambda: Factor("F", "", {}), "factor 'F': expected a weight"),
        (lambda: Factor("F", "", {"a": "35"}), "factor 'F', item 'a': weight: expected a finite number"),  # type: ignore[dict-item]
    ],
)
def test_bad_parts_are_refused_when_built(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        build()
