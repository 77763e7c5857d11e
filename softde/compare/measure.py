"""From answers to numbers: the rows of a table, and what can only be said of several regions together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from softde.compare.entries import Entry
from softde.compare.one import loss_of
from softde.compare.paper import Paper
from softde.compare.sheets import Sheet
from softde.surveys import metrics, nulls
from softde.surveys.human import HumanAnswers
from softde.surveys.metrics.identification import rank_targets
from softde.surveys.metrics.nulls import OTHERS
from softde.surveys.regions import region_name
from softde.surveys.scoring import Array
from softde.surveys.targets import ScoresTarget
from softde.surveys.targets import nulls as target_nulls

Record = dict[str, Any]

FLOOR = "best integer respondent"  # of `softde.surveys.nulls`
SAME = "same scores for all regions"
VALUES = (
    "loss", "held_out_loss", "culture_spa", "top1", "rank", "ranked_among", "option_mass", "order_shift",
    "wording_shift", "found_tokens", "found_seconds", "asked_tokens", "asked_seconds",
)  # fmt: skip


def record(paper: Paper, kind: str, method: str, region: str, seed: int, **values: float) -> Record:
    """A row: where it belongs, and every number that a row can have, NaN where it has none."""
    exam = paper.exam
    about = {"exam": exam.name, "held_out": exam.held_out, "survey": paper.survey.id, "kind": kind, "method": method}
    place = {"region": region, "edition": paper.goals[region].edition, "seed": seed, "nearest": ""}
    return {**about, **place, **dict.fromkeys(VALUES, math.nan), **values}


def rows_of(paper: Paper, entry: Entry, sheets: Sequence[Sheet]) -> Iterator[tuple[Record, Array]]:
    """One row per region that the entry is for, with the answers (items, options) that it was made from."""
    answers = paper.pooled(sheets)
    shared = {
        "option_mass": paper.option_mass(sheets),
        "order_shift": shift(paper, by_order(paper, sheets)),
        "wording_shift": shift(paper, by_wording(paper, sheets)),
        "found_tokens": entry.forward_tokens,
        "found_seconds": entry.seconds,
        "asked_tokens": float(sum(sheet.forward_tokens for sheet in sheets)),
        "asked_seconds": sum(sheet.seconds for sheet in sheets),
    }
    for region in paper.regions if entry.region is None else (entry.region,):
        row = record(paper, "condition", entry.method, region, entry.seed, **shared, **losses(paper, region, answers))
        goal = paper.goals[region]
        if isinstance(goal, ScoresTarget):
            scores = goal.values(paper.survey, answers[None])[0].tolist()
            row |= {f"score_{factor}": score for factor, score in zip(goal.terms, scores, strict=True)}
        row["culture_spa"] = culture_spa(paper, region, answers)
        yield row | identified(paper, region, answers), answers


def losses(paper: Paper, region: str, answers: Array) -> Record:
    """The loss, and that of held-out items where the target has some."""
    goal = paper.goals[region]
    held = goal.held_out_target
    found = {"loss": loss_of(goal, paper.survey, answers)}
    return found if held is None else {**found, "held_out_loss": loss_of(held, paper.survey, answers)}


def culture_spa(paper: Paper, region: str, answers: Array) -> float:
    """CultureSPA's score of the most probable answers; NaN without human answers, or where nothing was answered."""
    if paper.human is None:
        return math.nan
    mine = answers[paper.human_places]
    sheet = {
        item.id: item.options[int(row.argmax())].value
        for item, row in zip(paper.human.survey.items, mine, strict=True)
        if not np.isnan(row).any()
    }
    try:
        return metrics.culture_spa_score(sheet, paper.human.select(regions=[region]))
    except ValueError:  # a model that answered nothing
        return math.nan


# -- is it this region?


def identified(paper: Paper, region: str, answers: Array) -> Record:
    """The region's own rank among all that the exam knows, and which one the answers are nearest to.

    With human answers by Jensen-Shannon divergence from every region's shares, else by the loss for every region's
    target, over the items that all have.
    """
    if paper.human is not None:
        if len(paper.human.regions) < 2 or np.isnan(answers[paper.human_places]).all():
            return {}
        width = paper.human.shares.shape[-1]
        mine = answers[paper.human_places][:, :width]
        try:
            found = metrics.identification({region: mine}, paper.human)
        except ValueError:  # no item that all regions have
            return {}
        return _ranked(found, len(paper.human.regions))
    names = tuple(paper.comparable)
    if len(names) < 2:
        return {}
    likeness = np.array([[-loss_of(goal, paper.survey, answers) for goal in paper.comparable.values()]])
    if np.isnan(likeness).any():
        return {}
    return _ranked(rank_targets(likeness, [names.index(region)], names), len(names))


def _ranked(found: metrics.Identification, regions: int) -> Record:
    best = region_name(found.best[0]) or found.best[0]
    return {"nearest": best, "top1": found.top1, "rank": found.mean_rank, "ranked_among": float(regions)}


# -- does it depend on how one asks?


def by_order(paper: Paper, sheets: Sequence[Sheet]) -> dict[str, Array]:
    """Order → (items, options), wordings averaged."""
    orders = dict.fromkeys(asked.order for asked in paper.sheets)
    return {order: paper.pooled(sheets, order=order) for order in orders}


def by_wording(paper: Paper, sheets: Sequence[Sheet]) -> dict[str, Array]:
    """Wording → (items, options), orders averaged; an item without it keeps its own text's, so it does not move."""
    own = paper.pooled(sheets, wording=0)
    found = {"0": own}
    for wording in range(1, int(paper.wordings.max()) + 1):
        lacking = (paper.wordings < wording)[:, None]
        found[str(wording)] = np.where(lacking, own, paper.pooled(sheets, wording=wording))
    return found


def shift(paper: Paper, variants: Mapping[str, Array]) -> float:
    """`metrics.robustness`: deviation between variants over that between regions; 1 is as much as regions differ.

    Of item means beside those of humans, or else of factor scores beside published ones; NaN where there is one variant
    or one region.
    """
    if paper.human is not None:
        places, values = paper.human_places, np.nan_to_num(paper.survey.option_values)
        rows = {name: (p * values).sum(-1)[places] for name, p in variants.items()}
        people = paper.human.item_means
    elif paper.published is not None:
        goal = next(iter(paper.goals.values()))
        rows = {name: goal.values(paper.survey, p[None])[0][paper.counted] for name, p in variants.items()}
        people = paper.published[:, paper.counted]
    else:
        return math.nan
    if len(variants) < 2 or len(people) < 2:
        return math.nan
    try:
        return metrics.robustness(rows, people).mean
    except ValueError:  # nothing was answered
        return math.nan


# -- are regions told apart?


def across(paper: Paper, method: str, seed: int, answers: Mapping[str, Array]) -> Record:
    """What several regions' answers (region → (items, options)) say together: differences kept, and their order."""
    about = {"exam": paper.exam.name, "method": method, "seed": seed, "regions": len(answers)}
    found = {"divergence": math.nan, "tau": math.nan}
    if len(answers) > 1 and paper.published is not None:
        order = list(paper.goals)
        people = paper.published[[order.index(name) for name in answers]][:, paper.counted]
        mine = np.stack([paper.goals[name].values(paper.survey, p[None])[0] for name, p in answers.items()])
        mine = mine[:, paper.counted]
        factors = [str(number) for number in range(people.shape[1])]
        found = {"tau": metrics.rank_agreement(mine, people, factors).mean_tau, "divergence": spread_kept(mine, people)}
    if len(answers) > 1 and paper.human is not None:
        found["divergence"] = _divergence_kept(paper, paper.human, answers)
    return {**about, **found}


def _divergence_kept(paper: Paper, human: HumanAnswers, answers: Mapping[str, Array]) -> float:
    shares = np.stack([given[paper.human_places] for given in answers.values()])[..., : human.shares.shape[-1]]
    try:
        return metrics.divergence_preserved(shares, human.shares[[human.row(name) for name in answers]]).ratio
    except ValueError:  # nothing was answered
        return math.nan


def spread_kept(model: Array, people: Array) -> float:
    """(regions, factors) twice → mean distance of regions from their mean, of the model over that of the people."""
    of_people = np.abs(people - people.mean(axis=0)).mean()
    return float(np.abs(model - model.mean(axis=0)).mean() / of_people) if of_people > 0 else math.nan


# -- who knows nothing, and what nobody can do better


def null_rows(paper: Paper) -> Iterator[Record]:
    """Rows of kind "null" (trivial answerers) and "floor" (the best of a kind of answerer), per region."""
    for region in paper.regions:
        found: dict[str, dict[str, float]] = {}
        for name, loss in _null_losses(paper, region).items():
            found.setdefault(name, {})["loss"] = loss
        held = paper.goals[region].held_out_target
        for name, loss in ({} if held is None else target_nulls(held, paper.survey)).items():
            found.setdefault(name, {})["held_out_loss"] = loss
        if paper.human is not None:
            for name, score in metrics.culture_spa_nulls(paper.human, region).items():
                found.setdefault(name, {})["culture_spa"] = score
        for name, values in found.items():
            if not all(map(math.isnan, values.values())):
                yield record(paper, "floor" if name in (FLOOR, SAME) else "null", name, region, 0, **values)


def _null_losses(paper: Paper, region: str) -> dict[str, float]:
    goal = paper.goals[region]
    if isinstance(goal, ScoresTarget) and goal.norm in ("L1", "L2"):
        norm: Any = goal.norm
        found = nulls(paper.survey, goal.target, norm, goal.weights)
    else:
        found = target_nulls(goal, paper.survey)
    return {**found, **_others(paper, region), **_same_for_all(paper, region)}


def _others(paper: Paper, region: str) -> dict[str, float]:
    """What is known of people without knowing the region: the mean of the other regions."""
    goal = paper.goals[region]
    if paper.published is not None and len(paper.published) > 1:
        others = np.delete(paper.published, list(paper.goals).index(region), axis=0)
        return {OTHERS: float(goal.loss(goal.errors(others.mean(axis=0)[None]))[0])}
    if paper.human is not None and len(paper.human.regions) > 1:
        answers = np.full(paper.survey.option_values.shape, np.nan)
        known = metrics.null_shares(paper.human)[OTHERS][paper.human.row(region)]
        answers[paper.human_places, : known.shape[-1]] = known
        return {OTHERS: loss_of(goal, paper.survey, answers)}
    return {}


def _same_for_all(paper: Paper, region: str) -> dict[str, float]:
    """Of published scores in the L1 norm: the loss of their median over regions, than which no mean is lower."""
    goals = [paper.goals[name] for name in paper.regions]
    first = goals[0]
    if paper.published is None or len(goals) < 2 or first.norm != "L1":
        return {}
    if any(g.weights != first.weights or g.target.constants != first.target.constants for g in goals):
        return {}
    middle = np.median([goal.target.scores for goal in goals], axis=0)
    goal = paper.goals[region]
    return {SAME: float(goal.loss(goal.errors(middle[None]))[0])}
