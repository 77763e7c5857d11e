"""A survey with human answers of three regions, and a stand-in for `administer` that answers as a condition says."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from softde.compare import sheets
from softde.condition import Condition, Panel, members
from softde.surveys import Survey
from softde.surveys.human import HumanAnswers

REGIONS = ("Ireland", "Italy", "Japan")
# (regions, items, options) of the small survey: five, five, three and two options
SHARES = np.zeros((3, 4, 5))
SHARES[0] = [[0.7, 0.2, 0.1, 0, 0], [0.1, 0.6, 0.3, 0, 0], [0.5, 0.3, 0.2, 0, 0], [0.8, 0.2, 0, 0, 0]]
SHARES[1] = [[0.1, 0.2, 0.4, 0.2, 0.1], [0, 0.1, 0.3, 0.6, 0], [0.2, 0.6, 0.2, 0, 0], [0.3, 0.7, 0, 0, 0]]
SHARES[2] = [[0, 0, 0.1, 0.2, 0.7], [0.6, 0.3, 0.1, 0, 0], [0.1, 0.2, 0.7, 0, 0], [0.4, 0.6, 0, 0, 0]]

Answers = Callable[[str, str, str], Any]


@pytest.fixture(scope="session")
def human(mini: Survey) -> HumanAnswers:
    return HumanAnswers(mini, REGIONS, SHARES, np.full((3, 4), 100.0), "made up")


class Asked(list[tuple[str, str, str]]):
    """(system text, order, survey id) of everything that was asked; `answers` says what comes back for an item."""

    answers: Answers


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, mini: Survey) -> Asked:
    """Stands in for the model: under "I am from Italy." it answers as Italians did, unprompted as nobody in particular.

    `answers(system text, item id, order)` may be replaced.
    """
    log = Asked()
    place = {item: i for i, item in enumerate(mini.item_ids)}

    def answers(system: str, item: str, _order: str) -> Any:
        region = next((r for r, name in enumerate(REGIONS) if name in system), None)
        rows = SHARES[:, place[item]]
        return rows.mean(axis=0) if region is None else rows[region]

    log.answers = answers

    def administer(survey: Survey, _lm: Any, condition: Condition | Panel, orders: str) -> Any:
        systems = [member.system or "" for member in members(condition)]
        log.append((" + ".join(systems), orders, survey.id))
        rows = [np.mean([log.answers(s, item.id, orders) for s in systems], axis=0) for item in survey.items]
        most = max(len(item.options) for item in survey.items)
        found = np.stack([np.pad(row, (0, 5 - len(row)))[:most] for row in rows])
        return SimpleNamespace(
            probabilities=found, option_mass=np.full(len(rows), 0.9), forward_tokens=10 * len(rows), survey=survey
        )

    monkeypatch.setattr(sheets, "administer", administer)
    return log


def as_region(region: str, name: str = "persona") -> Condition:
    return Condition(f"I am from {region}.", name=name)
