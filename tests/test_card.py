"""What an exported prompt's README says of its losses."""

from __future__ import annotations

from softde.card import facts

MADE = {"loss_before": 57.9, "loss_after": 24.7}


def test_a_distance_names_its_norm_and_weights() -> None:
    assert facts({**MADE, "norm": "L1"}).endswith("scores (L1, sum of absolute errors): 57.9 before, 24.7 after.")
    assert "scores (L2, root of the sum of squared errors): 57.9 before" in facts({**MADE, "norm": "L2"})
    assert "squared errors), weighted 1, 0.5: 57.9" in facts({**MADE, "norm": "L2", "weights": [1.0, 0.5]})
    assert facts(MADE).endswith("Distance to its scores: 57.9 before, 24.7 after.")  # made before norms were recorded
