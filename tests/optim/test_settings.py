"""Settings of the wrong type: every optimiser says which one, what came, and never ends in a TypeError."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from softde import optim
from softde.checks import number, plain_number
from softde.optim import CMAES, DE, PSO, SHADE, Optimizer, bbt

OPTIMIZERS = [
    DE(), optim.JADE(), SHADE(), optim.LSHADE(budget=640), optim.JSO(budget=640), optim.JDE(), CMAES(), PSO(),
    optim.OpenAIES(), optim.SPSA(), optim.OnePlusOneES(), optim.RandomSearch(), optim.Screen(DE()),
    optim.TwoStage(DE(), CMAES()), optim.Subspace(CMAES()), optim.GaussNewton(), optim.Foreign(lambda *_: None, 16),
]  # fmt: skip
WRONG = ["x", "32", None, math.nan, [1, 2, 3], True, object()]


def test_no_optimiser_is_left_out():
    public = {getattr(optim, name) for name in optim.__all__}
    kinds = {kind for kind in public if inspect.isclass(kind) and hasattr(kind, "ask")} - {Optimizer}
    assert kinds == {type(optimizer) for optimizer in OPTIMIZERS}


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        pytest.param(optimizer, field.name, id=f"{type(optimizer).__name__}-{field.name}")
        for optimizer in OPTIMIZERS
        for field in fields(optimizer)
        if not callable(getattr(optimizer, field.name))  # Foreign's functions
    ],
)
def test_a_setting_of_the_wrong_type_is_named(optimizer, name):
    kind = str(next(field.type for field in fields(optimizer) if field.name == name))
    for wrong in WRONG:
        if wrong is None and "None" in kind:
            continue
        with pytest.raises(ValueError, match=rf"^(Expected |Unknown )?{name}\b"):
            replace(optimizer, **{name: wrong})
    assert replace(optimizer, **{name: getattr(optimizer, name)}) == optimizer


@pytest.mark.parametrize("name", ["population_size", "intrinsic_dim", "sigma", "alpha", "seed"])
def test_bbt_names_it_too(name):
    for wrong in WRONG:
        with pytest.raises(ValueError, match=rf"^(Expected |Unknown )?{name}\b"):
            bbt(**{name: wrong})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DE(CR="x"), r"^Expected CR, a probability, in \[0, 1\], but got 'x': give a number\.$"),
        (lambda: DE(F=("x", 1)), r"^Expected F as a number .* or a pair .* but got \('x', 1\)\.$"),
        (lambda: DE(F=(None, 1)), r"F as a number"),
        (lambda: DE(bounds=3), r"^Expected bounds as a pair .* but got 3\.$"),
        (lambda: DE(bounds=("a", "b")), "bounds as a pair"),
        (lambda: DE(bounds=(0.0, [1.0, None])), "bounds as a pair"),
        (lambda: DE(bounds=(0.0, [1.0, math.nan])), "low below high"),
        (lambda: PSO(bounds=(0.0, [1.0, 2.0])), "two numbers with low below high"),
        (lambda: SHADE(p=[0.1]), r"^Expected p, the share .* but got list: give a number\.$"),
        (lambda: CMAES(sigma=math.inf), r"^Expected sigma, .* but got inf\.$"),
    ],
)
def test_the_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("half", [0.5, np.float32(0.5), np.float64(0.5), np.array(0.5), torch.tensor(0.5)])
def test_numbers_of_any_kind_become_pythons_own(half):
    made = DE(F=half, CR=half, bounds=(-half, [half, half]))
    assert made == DE(F=0.5, CR=0.5, bounds=(-0.5, (0.5, 0.5)))
    assert type(made.F) is type(made.CR) is type(made.bounds[0]) is float
    assert PSO(bounds=np.array([-1.0, 1.0])).bounds == (-1.0, 1.0)


def test_what_is_a_number():
    assert [plain_number(v) for v in (1, 0.5, np.int64(3), torch.tensor(2))] == [1, 0.5, 3, 2]
    wrong = (True, np.True_, torch.tensor(True), "1", np.str_("1"), None, [1], np.ones(1), torch.ones(1), 1j)
    assert [plain_number(v) for v in wrong] == [None] * len(wrong)
    for huge in (10**400, math.inf, -math.inf, math.nan):
        with pytest.raises(ValueError, match=r"^Expected n, but got "):
            number(huge, "n", lambda v: True)
