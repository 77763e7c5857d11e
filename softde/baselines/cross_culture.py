"""Cross-culture thinking: the model is told which regions its region is like, and which it is unlike."""

from __future__ import annotations

import numpy as np

from softde.baselines.wording import fill, listing, spoken, wording
from softde.checks import shown, whole
from softde.condition import Condition
from softde.surveys.checks import need_text
from softde.surveys.human import HumanAnswers
from softde.surveys.metrics.culture_spa import gold_answers, span
from softde.surveys.scoring import Array


def cross_culture(
    region: str, human: HumanAnswers, n: int = 3, template: str | None = None, language: str = "en"
) -> Condition:
    """A persona that is asked to think of the regions most similar to its own, and of the most different ones.

    P2 of Xu et al. (arXiv 2410.12971), who compute the likeness of regions from human answers: see `similar_regions`.

    Parameters
    ----------
    region : known to `human`, by name or code; in the sentence stands its name.
    n : how many similar and how many different regions are named.
    template : a text with the places {region}, {similar} and {different}; None is `wording(language).cross_culture`.

    Raises
    ------
    ValueError
        A region without human answers, too few other regions, no texts in the language, a place is missing.
    """
    text = wording(language).cross_culture if template is None else template
    similar, different = similar_regions(human, region, n)
    places = {
        "region": spoken(region, language),
        "similar": listing([spoken(name, language) for name in similar], language),
        "different": listing([spoken(name, language) for name in different], language),
    }
    return Condition(name="cross-culture", system=fill(text, ("region", "similar", "different"), places))


def similar_regions(human: HumanAnswers, region: str, n: int = 3) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The n regions most like a region, the most similar first, and the n least like it, the most different first.

    By `region_similarity`; names are those of `human`. Regions that share no item with it are left out; of equals, the
    one that `human` has first comes first.
    """
    row, n = row_of(human, region), whole(n, "n", 1)
    likeness = region_similarity(human)[row]
    others = [r for r in range(len(likeness)) if r != row and not np.isnan(likeness[r])]
    if 2 * n > len(others):
        raise ValueError(
            f"n: {n} similar and {n} different regions need {2 * n} others with answers to the same items, but "
            f"{human.regions[row]} has {len(others)}; give n of at most {len(others) // 2}, or answers of more regions"
        )
    ranked = sorted(others, key=lambda r: -likeness[r])
    unlike = sorted(others, key=lambda r: likeness[r])
    return tuple(human.regions[r] for r in ranked[:n]), tuple(human.regions[r] for r in unlike[:n])


def region_similarity(human: HumanAnswers) -> Array:
    """(regions, regions) in percent, 100 for the same majority answers throughout, NaN where no item is shared.

    CultureSPA's score with one region's majority answers against another's: 100 · (1 − ‖a − b‖₂ / ‖n − 1‖₂) over the
    items that both have. So are the published likenesses of the 18 regions made (country_similarity.json): with the
    same shares all 306 agree to their one decimal.
    """
    gold, size = gold_answers(human), span(human.survey)
    apart = gold[:, None] - gold[None]
    shared = np.where(np.isnan(apart), 0.0, size**2).sum(-1)
    with np.errstate(invalid="ignore"):
        return np.asarray(100 * (1 - np.sqrt(np.nansum(apart**2, axis=-1) / shared)))


def row_of(human: HumanAnswers, region: str) -> int:
    """A region's row in human answers; "the United States" is the United States."""
    if not isinstance(human, HumanAnswers):
        raise ValueError(
            f"human: expected human answers, got {shown(human)}; softde.load_human(path, survey) reads some"
        )
    need_text(region, "region")
    return human.row(region.removeprefix("the "))
