"""Identification: do a model's answers as a region look more like that region's humans than like any other's?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from softde.surveys.metrics.answers import AnswersLike
from softde.surveys.metrics.culture_spa import culture_spa_by_region
from softde.surveys.metrics.divergence import js_divergence
from softde.surveys.scoring import Array
from softde.surveys.values import listed

if TYPE_CHECKING:
    from softde.surveys.human.answers import HumanAnswers


@dataclass(frozen=True)
class Identification:
    """Is the region a model was asked to answer as the one whose humans it is most like?

    ranks : (targets,) of the target among all regions, 1 best; ties share the mean of their ranks. best : the region
    that each target's answers are most like. top1 : share of targets with no region above them; one of k equals counts
    1/k. chance_top1 = 1 / regions, chance_mean_rank = (regions + 1) / 2 are what answers that ignore the target get.
    """

    targets: tuple[str, ...]
    ranks: Array
    best: tuple[str, ...]
    top1: float
    mean_rank: float
    chance_top1: float
    chance_mean_rank: float


def identification(own: Mapping[str, AnswersLike | Array], human: HumanAnswers) -> Identification:
    """Rank every region by its likeness to what a model answered as a target region.

    Parameters
    ----------
    own : target region → its answers. An array (items, options) of option probabilities is compared by Jensen-Shannon
        divergence, over the items that it and all regions have; an answer sheet by `culture_spa_score`, as in the
        check of Xu et al.'s stored answers. Regions without a common item are ranked last.
    human : two regions or more; the targets are among them.
    """
    if len(human.regions) < 2:
        raise ValueError(f"identification needs two regions or more, got {listed(human.regions) or 'none'}; load more")
    if not own:
        raise ValueError("own: expected the answers of one target region or more, got none")
    likeness = np.stack([_likeness(given, human) for given in own.values()])
    return rank_targets(likeness, [human.row(region) for region in own], tuple(human.regions))


def rank_targets(likeness: Array, targets: Sequence[int], regions: Sequence[str]) -> Identification:
    """`identification` from likeness (targets, regions), larger is more alike; targets are columns."""
    likeness = np.where(np.isnan(likeness), -np.inf, likeness)
    own = np.take_along_axis(likeness, np.asarray(targets)[:, None], axis=1)
    above, equal = (likeness > own).sum(axis=1), (likeness == own).sum(axis=1)
    ranks = above + (equal + 1) / 2
    return Identification(
        targets=tuple(regions[t] for t in targets),
        ranks=ranks,
        best=tuple(regions[i] for i in likeness.argmax(axis=1)),
        top1=float(np.where(above == 0, 1 / equal, 0.0).mean()),
        mean_rank=float(ranks.mean()),
        chance_top1=1 / len(regions),
        chance_mean_rank=(len(regions) + 1) / 2,
    )


def _likeness(given: AnswersLike | Array, human: HumanAnswers) -> Array:
    if not isinstance(given, np.ndarray):
        return culture_spa_by_region(given, human)
    shares = np.asarray(human.shares)
    if given.shape != shares.shape[1:]:
        raise ValueError(
            f"own: expected option probabilities of shape {shares.shape[1:]} (items, options), got {given.shape}"
        )
    divergence = js_divergence(given, shares)
    common = ~np.isnan(divergence).any(axis=0)
    if not common.any():
        raise ValueError("own: no item has answers in it and in every region; select the regions that share items")
    return np.asarray(-divergence[:, common].mean(axis=1))
