"""Scores in words: levels by rank, and lines of text; people sampled from answers, each in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from softde.baselines import Pole, description, personas_around, value_personas, wording
from softde.baselines.description import levels, published
from softde.baselines.value_personas import DRAWN
from softde.condition import Panel
from softde.surveys import HumanAnswers, Respondents, Survey, Target, load_survey
from tests.surveys import spa

VSM = load_survey("vsm13")
LEVELS = ("very low", "low", "medium", "high", "very high")


def slow_level(score: float, others: list[float]) -> int:
    others = [other for other in others if other == other]
    rank = sum(1.0 if other < score else 0.5 if other == score else 0.0 for other in others) / len(others)
    return sum(rank >= bound for bound in (0.1, 0.35, 0.65, 0.9))


def pool(*editions: str) -> list[dict[str, float]]:
    """Rows of all regions; of a score that several editions have, the last one's."""
    rows: dict[str, dict[str, float]] = {}
    for name in editions:
        for region, row in next(e for e in VSM.published if e.name == name).scores.items():
            rows[region] = rows.get(region, {}) | dict(row)
    return list(rows.values())


@pytest.mark.parametrize("editions", [("2023", "2015"), ("2015", "2023")])
def test_levels_are_ranks_among_all_regions(editions: tuple[str, str]) -> None:
    target = VSM.target("India", edition=editions[1])
    parts = str(description("India", target, VSM, template="{values}").system).split(", ")
    for part, factor, score in zip(parts, VSM.factor_models, target.scores, strict=True):
        level = slow_level(score, [row.get(factor.id, np.nan) for row in pool(*editions)])
        assert part == f"{LEVELS[level]} {factor.name}"


@pytest.mark.parametrize(("edition", "individualism"), [("2015", 91.0), ("2023", 60.0)])
def test_scores_are_those_of_the_targets_edition_where_that_has_them(edition: str, individualism: float) -> None:
    rows = published(VSM.target("India", edition=edition), VSM).tolist()
    us = [row for row in rows if row[:1] + row[2:4] == [40.0, 62.0, 46.0]]  # the same in both
    assert [row[1] for row in us] == [individualism]
    assert len(rows) == len(pool("2015", "2023"))


def test_the_text() -> None:
    # United States 2015: individualism 91 is the highest of all, power distance 40 in the lower half
    target = VSM.target("United States", edition="2015")
    condition = description("USA", target, VSM)
    assert condition.name == "description" and str(condition.system).startswith(
        "You are a typical person from the United States, a society with low power distance, very high individualism, "
    )
    long = str(description("USA", target, VSM, line=wording("en").pole_line).system)
    assert "very high individualism (putting oneself and one's closest family first), " in long
    assert "(between “holding to tradition" not in long  # no factor is medium
    middling = str(description("Saudi Arabia", VSM.target("Saudi Arabia"), VSM, line=wording("en").pole_line).system)
    assert "medium individualism (between “putting the group first" in middling


def test_levels_by_hand() -> None:
    one = replace(VSM, factor_models=VSM.factor_models[:1], variants={}, published=())
    reference = np.append(np.arange(1.0, 11.0), np.nan)[:, None]  # ranks of 1 … 10 are 0.05, 0.15, …, 0.95
    found = levels(np.array([[1.0], [2], [4], [7], [9], [10], [4.5], [0]]), reference, one)
    assert found[:, 0].tolist() == [0, 1, 2, 3, 3, 4, 2, 0]
    with pytest.raises(ValueError, match="reference: expected 10 scores or more of factor PDI, got 2"):
        levels(np.array([[1.0]]), np.array([[1.0], [2.0], [np.nan]]), one)
    with pytest.raises(ValueError, match=r"reference: expected \(regions, 1 factors\), got shape \(3,\)"):
        levels(np.array([[1.0]]), np.ones(3), one)


def test_languages_templates_and_words_of_ones_own() -> None:
    target = VSM.target("Saudi Arabia")
    arabic = str(description("SAU", target, load_survey("vsm13:ar")).system)
    assert arabic.startswith("أنت شخص عادي من المملكة العربية السعودية، ") and "، مستوى الانطلاق منخفض جدًا" in arabic
    chinese = str(description("SAU", target, VSM, language="zh", line=wording("zh").pole_line).system)
    assert "，放任很低（克制愿望，遵守严格的规范）。" in chinese
    poles = {"IDV": Pole("self", "we", "I"), "PDI": Pole("power")}
    own = description("X", target, VSM, poles=poles, template="{values}!", line="{name} is {level}")
    assert str(own.system).startswith("power is high, self is medium, masculinity is low, ")
    with pytest.raises(ValueError, match="factor 'power' has no words for its ends; give poles="):
        description("X", target, VSM, poles=poles, line="{level} {name}: {pole}")
    mfq = load_survey("mfq2")
    care = Target("X", "own", mfq.factors, np.full(6, 9.0), "mine", dict.fromkeys(mfq.factors, 0.0))
    reference = np.tile(np.arange(10.0)[:, None], (1, 6))
    assert "very high care, " in str(description("X", care, mfq, reference=reference).system)
    with pytest.raises(ValueError, match="factor 'care' has no words in this language; give poles="):
        description("X", care, mfq, reference=reference, language="zh")
    with pytest.raises(ValueError, match="survey 'mfq2' has no published scores to compare with; give reference="):
        description("X", care, mfq)
    with pytest.raises(ValueError, match="target has factors PDI, .*give the survey that the target belongs to"):
        description("X", target, mfq)
    with pytest.raises(ValueError, match="poles: survey 'vsm13' has no factor 'PD'; did you mean 'PDI'"):
        description("X", target, VSM, poles={"PD": Pole("p")})
    with pytest.raises(ValueError, match="template: expected a text with {values} in it"):
        description("X", target, VSM, template="From {region}")


def people(mini: Survey) -> HumanAnswers:
    """Thirty respondents of two regions; the last five of the second have no weight."""
    random = np.random.default_rng(5)
    answers = np.stack([random.integers(0, len(item.options), 30) for item in mini.items], axis=1)
    answers[3, 0] = -1  # the first factor needs it
    weights = np.where(np.arange(30) < 25, 3.0 ** (np.arange(30) % 5), 0.0)  # 1, 3, 9, 27, 81, 1, …
    return Respondents(mini, answers, np.repeat(["Ireland", "Italy"], 15), weights).shares()


def texts(panel: Panel) -> list[str]:
    return [str(member.system) for member in panel.members]


def test_members_are_respondents_in_words(mini: Survey) -> None:
    human = people(mini)
    assert human.respondents is not None
    scores = mini.score_respondents(human.respondents.values).per_respondent
    described = []
    for row in scores:
        names = [LEVELS[slow_level(s, column.tolist())] for s, column in zip(row, scores.T, strict=True)]
        described.append(f"{names[0]} BOS, {names[1]} CAL")
    italians = {text for n, text in enumerate(described) if 15 <= n < 25}
    found = texts(value_personas("Italy", human, members=2000, template="{values}"))
    assert set(found) == italians  # all who have a weight, and nobody else
    weight = {text: sum(3 ** (n % 5) for n in range(15, 25) if described[n] == text) / 242 for text in italians}
    assert all(abs(found.count(text) / 2000 - share) < 4 * np.sqrt(share / 2000) for text, share in weight.items())
    irish = set(texts(value_personas("IRL", human, members=2000, template="{values}")))
    assert irish == {text for n, text in enumerate(described) if n < 15 and n != 3}


def test_seeds_names_and_the_default_text(mini: Survey) -> None:
    one, same, other = (value_personas("Ireland", people(mini), seed=seed) for seed in (1, 1, 2))
    assert one == same and one != other and one.name == "value personas" and len(one.members) == 20
    assert texts(one)[0].startswith("You are a person from Ireland, with ")
    assert one.members[3].name == "value persona 4"


def test_people_drawn_from_shares(mini: Survey) -> None:
    """With certain answers, everybody of a region is the same person, whose scores are the formulas'."""
    shares = np.zeros((2, 4, 5))
    for i, (irish, italian) in enumerate([(0, 4), (0, 4), (0, 2), (1, 0)]):
        shares[0, i, irish], shares[1, i, italian] = 1.0, 1.0
    human = HumanAnswers(mini, ("Ireland", "Italy"), shares, np.ones((2, 4)))
    # BOS = 35 boss − 25 time + 20 nerves: 35 − 25 + 60 = 70 and 175 − 125 + 20 = 70;
    # CAL = −15 nerves + 40 proud: −45 + 40 = −5 and −15 + 0 = −15
    found = texts(value_personas("Ireland", human, members=3, template="{values}"))
    assert found == ["medium BOS, high CAL"] * 3
    assert texts(value_personas("Italy", human, 1, template="{values}")) == ["medium BOS, low CAL"]
    half = shares.copy()
    half[0, 3] = [0.25, 0.75, 0, 0, 0]  # a quarter of the Irish is not proud: CAL −45, lowest of 2 · DRAWN people
    human = HumanAnswers(mini, ("Ireland", "Italy"), half, np.ones((2, 4)))
    drawn = texts(value_personas("Ireland", human, 400, template="{values}"))
    assert DRAWN == 200 and 0.12 < sum("low CAL" in text for text in drawn) / 400 < 0.38
    none = shares.copy()
    none[0, 0] = np.nan
    human = HumanAnswers(mini, ("Ireland", "Italy"), none, np.ones((2, 4)))
    with pytest.raises(ValueError, match="nobody of Ireland has scores on all factors of survey 'mini'"):
        value_personas("Ireland", human)


def test_personas_around_a_target() -> None:
    target = VSM.target("Sweden")
    still = personas_around("Sweden", target, VSM, spread=0.0, members=3)
    assert len(set(texts(still))) == 1
    assert texts(still)[0].split(", ", 1)[1][5:] == str(description("Sweden", target, VSM).system).split("with ")[1]
    wide = personas_around("Sweden", target, VSM, spread={**dict.fromkeys(VSM.factors, 0.0), "PDI": 25.0}, members=30)
    assert len({text.split(", ")[1] for text in texts(wide)}) > 2
    assert len({tuple(text.split(", ")[2:]) for text in texts(wide)}) == 1
    with pytest.raises(ValueError, match="spread: expected standard deviations from 0 up, got -1"):
        personas_around("Sweden", target, VSM, -1.0)
    with pytest.raises(ValueError, match="spread: expected one number per factor .*; add IDV"):
        personas_around("Sweden", target, VSM, {"PDI": 1.0})


def test_what_is_refused(mini: Survey, shared_data) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="no human answers for region 'Peru'; known: Ireland, Italy"):
        value_personas("Peru", people(mini))
    with pytest.raises(ValueError, match="members: expected a whole number of at least 1, got 0"):
        value_personas("Italy", people(mini), members=0)
    with pytest.raises(ValueError, match="has no factor formulas, so it cannot be scored"):
        value_personas("USA", spa.human(shared_data / "culturespa"))
