"""The figure of loadings, by the values drawn in it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from softde.surveys.factors import FactorModel
from softde.surveys.factors.plot import plot_loadings
from tests.surveys.factor_tables import TABLE


def test_loadings_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    model = FactorModel.fit(TABLE, 3, "principal", names=["warm", "cold", "dry"])
    figure = plot_loadings(model, tmp_path / "loadings.png", labels={"item1": "trust in others"})
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    rows = [int(name.split()[0].removeprefix("item")) - 1 for name in names]
    assert sorted(rows) == list(range(9))
    assert names[rows.index(0)] == "item1  trust in others"
    np.testing.assert_array_equal(np.asarray(axes.images[0].get_array()), model.loadings[rows])
    assert axes.images[0].get_clim() == (-1, 1)
    written = [float(text.get_text()) for text in axes.texts]
    np.testing.assert_allclose(np.reshape(written, (9, 3)), model.loadings[rows], atol=0.005 + 1e-9)
    strongest = np.abs(model.loadings[rows]).argmax(axis=1)
    assert (np.diff(strongest) >= 0).all()  # grouped by factor
    for factor in range(3):
        sizes = np.abs(model.loadings[rows])[strongest == factor, factor]
        assert (np.diff(sizes) <= 0).all()  # strongest first
    heads = [label.get_text() for label in axes.get_xticklabels()]
    assert heads[0] == f"warm\n{model.variance_explained[0]:.0%}"
    assert (tmp_path / "loadings.png").read_bytes().startswith(b"\x89PNG")


def test_few_of_many_items() -> None:
    pytest.importorskip("matplotlib")
    model = FactorModel.fit(TABLE, 2, "principal")
    axes = plot_loadings(model, most=4).axes[0]
    shown = {label.get_text() for label in axes.get_yticklabels()}
    strength = np.abs(model.loadings).max(axis=1)
    assert shown == {model.item_ids[i] for i in np.argsort(-strength)[:4]}
    assert axes.get_xlabel() == "5 items with smaller loadings are not shown"
    with pytest.raises(ValueError, match="most: expected a number of items from 1 up, got 0"):
        plot_loadings(model, most=0)


def test_matplotlib_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"softde\[viz\]"):
        plot_loadings(FactorModel.fit(TABLE, 2, "principal"))
