"""Which regions are alike, against CultureSPA's published table, and what the model is told of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from softde.baselines import cross_culture, region_similarity, similar_regions
from softde.surveys import HumanAnswers, Item, Survey, options
from tests.surveys import spa

SURVEY = Survey("s", "S", (Item("a", "A?", options("12345")), Item("b", "B?", options("12"))))
NAMES = ("United States", "Netherlands", "India", "China", "Egypt")
MAJORITY = [(0, 0), (1, 0), (4, 1), (3, 1), (-1, -1)]  # option numbers by item, -1 for no answers


def human() -> HumanAnswers:
    shares = np.zeros((5, 2, 5))
    for r, answers in enumerate(MAJORITY):
        for i, option in enumerate(answers):
            shares[r, i] = np.nan if option < 0 else np.eye(5)[option]
    return HumanAnswers(SURVEY, NAMES, shares, np.ones((5, 2)))


def test_similarity_by_hand() -> None:
    # largest distances 4 and 1, so the denominator is √17; United States to the Netherlands 1, to India √(16 + 1)
    found = region_similarity(human())
    assert found[0, 1] == pytest.approx(100 * (1 - 1 / np.sqrt(17)))
    assert found[0, 2] == pytest.approx(0.0, abs=1e-12) and found[2, 2] == 100
    assert np.isnan(found[:, 4]).all() and (found[:4, :4] == found[:4, :4].T).all()


def test_similar_and_different_regions() -> None:
    assert similar_regions(human(), "USA", 1) == (("Netherlands",), ("India",))
    assert similar_regions(human(), "the Netherlands", 1) == (("United States",), ("India",))
    with pytest.raises(
        ValueError, match="2 similar and 2 different regions need 4 others .* United States has 3; give n"
    ):
        similar_regions(human(), "USA", 2)
    with pytest.raises(ValueError, match="no human answers for region 'Peru'"):
        similar_regions(human(), "Peru", 1)
    with pytest.raises(ValueError, match="human: expected human answers, got None; softde.load_human"):
        cross_culture("USA", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="region: expected a text that is not empty, got None"):
        cross_culture(None, human())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="n: expected a whole number of at least 1, got 0"):
        similar_regions(human(), "USA", 0)


def test_published_likenesses(shared_data: Path) -> None:
    """All 306 of CultureSPA's table to its one decimal; so the three most similar and most different are theirs."""
    folder = shared_data / "culturespa"
    theirs = spa.read(folder / "country_similarity.json")
    ours = spa.human(folder).select(regions=spa.REGIONS)
    found = region_similarity(ours)
    apart = [abs(found[ours.row(a), ours.row(b)] - number) for a, row in theirs.items() for b, number in row.items()]
    assert len(apart) == 306 and max(apart) < 0.05
    for region, row in theirs.items():
        similar, different = similar_regions(ours, region)
        ranked = sorted(row.values())  # two regions may share a place
        assert [row[name] for name in similar] == ranked[:-4:-1] and [row[name] for name in different] == ranked[:3]


def test_the_sentence() -> None:
    condition = cross_culture("NLD", human(), n=1)
    assert condition.name == "cross-culture" and condition.examples is None
    assert str(condition.system).startswith("You are a typical person from the Netherlands. ")
    assert "people from the United States," in str(condition.system) and "people from India." in str(condition.system)
    assert cross_culture("NLD", human(), 1, language="zh").system == (
        "你是一个来自荷兰的普通人。回答时，请想一想荷兰人与美国人有哪些相同之处，与印度人又有哪些不同之处。"
    )
    mine = cross_culture("USA", human(), 1, template="{region}: {similar}, not {different}", language="fr")
    assert mine.system == "USA: Netherlands, not India"
    with pytest.raises(ValueError, match=r"template: expected a text with {similar} and {different} in it"):
        cross_culture("USA", human(), 1, template="From {region}")
    with pytest.raises(ValueError, match="not in 'fr'"):
        cross_culture("USA", human(), 1, language="fr")
