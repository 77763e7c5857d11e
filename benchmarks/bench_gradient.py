"""What a warm start by gradient steps is worth, at equal forward-equivalents, on the embedded model.

    python benchmarks/bench_gradient.py                                # twelve minutes of a core, beside other work
    python benchmarks/bench_gradient.py --regions China --seeds 1 --ways auto "20 steps, then auto" --budgets 800

One forward-equivalent is a candidate asked the whole survey; a gradient step is three. Losses are sums of six absolute
errors (L1, constants 50, edition 2023, late placement, expected values, options forward). A search is planned for the
largest budget and read off at the others; a descent alone, whose step sizes follow its length, is run for each.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import softde
from softde.gradient import GradientSteps
from softde.optim import choose, generator_for, stop_reason
from softde.optim.base import informed
from softde.optim.policies import bound_of
from softde.start import START

REGIONS = ("Saudi Arabia", "United States", "China", "India")
STEPS = GradientSteps(copies=0.5, spread=0.1)
GRADIENT_ONLY = "gradient only"
WAYS: dict[str, GradientSteps | None] = {
    "auto": None,
    "10 steps, then auto": replace(STEPS, steps=10),
    "20 steps, then auto": replace(STEPS, steps=20),
    "40 steps, then auto": replace(STEPS, steps=40),
}
DEFAULT = ("auto", "20 steps, then auto", GRADIENT_ONLY)
SCREENED = 16  # start points of a descent alone


class Found(NamedTuple):
    """The loss after so many forward-equivalents, and the seconds of this process until then."""

    way: str
    region: str
    seed: int
    budget: int
    loss: float
    seconds: float


def search(loss: softde.AlignmentLoss, way: str, budgets: Sequence[int], seed: int) -> Iterator[float]:
    """Best loss at each budget, the smallest first."""
    if way == GRADIENT_ONLY:
        return (descent(loss, budget, seed) for budget in budgets)
    return best_of_search(loss, WAYS[way], budgets, seed)


def best_of_search(
    loss: softde.AlignmentLoss, warm: GradientSteps | None, budgets: Sequence[int], seed: int
) -> Iterator[float]:
    """What `align` does with optimizer="auto": of what the warm start leaves, the optimiser plans with all."""
    left, spent, dim = budgets[-1], 0, loss.space.dim
    if warm is not None:
        left = warm.left(loss, choose(dim, left).optimizer.population_size, left)
    optimizer = choose(dim, left).optimizer
    size = optimizer.population_size
    points = loss.space.sample(warm.wanted(size) if warm else size, generator_for(seed, START))
    if warm is not None:
        start = warm(loss, points, size, seed)
        points, spent = start.points, start.forward_equivalents
    state = optimizer.init(points)
    for budget in budgets:
        while stop_reason(state, budget - spent) is None:
            candidates, asked = optimizer.ask(state, generator_for(seed, state.generation))
            found = loss(candidates, bound=bound_of(optimizer, asked))
            state, _ = optimizer.tell(informed(optimizer, asked, loss.residuals(found)), candidates, found.losses)
        yield state.best_loss


def descent(loss: softde.AlignmentLoss, budget: int, seed: int) -> float:
    """Adam from the best of a few start points; the last forward-equivalent scores what was found."""
    settings = GradientSteps(steps=(budget - SCREENED - 1) // 3, screen=SCREENED)
    start = settings(loss, loss.space.sample(SCREENED, generator_for(seed, START)), 1, seed)
    return float(loss(start.points).losses[0])


# ---- the page --------------------------------------------------------------------------------------------------------


def page(found: Sequence[Found]) -> str:
    """Medians over regions and seeds, with the middle half of the searches in brackets; then each region's median."""
    ways, budgets = list(dict.fromkeys(f.way for f in found)), sorted({f.budget for f in found})
    regions = list(dict.fromkeys(f.region for f in found))
    searches = len({(f.region, f.seed) for f in found})
    seconds = sum(max(f.seconds for f in found if (f.way, f.region, f.seed) == key) for key in
                  {(f.way, f.region, f.seed) for f in found})  # fmt: skip
    head = [f"{b:,}" for b in budgets] + [f"{r}, {budgets[-1]:,}" for r in regions]
    lines = ["| way | " + " | ".join(head) + " |", "|---|" + "---|" * len(head)]
    for way in ways:
        mine = [f for f in found if f.way == way]
        cells = [spread([f.loss for f in mine if f.budget == b]) for b in budgets]
        cells += [
            f"{statistics.median(f.loss for f in mine if (f.region, f.budget) == (r, budgets[-1])):.2f}"
            for r in regions
        ]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join([f"{searches} pairs of region and seed, {seconds / 60:.0f} minutes of one core.\n", *lines])


def spread(losses: Sequence[float]) -> str:
    """The median, and quartiles where there are enough for them."""
    middle = f"{statistics.median(losses):.2f}"
    if len(losses) < 4:
        return middle
    low, _, high = statistics.quantiles(losses, n=4, method="inclusive")
    return f"{middle} ({low:.2f}–{high:.2f})"


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--regions", nargs="+", default=list(REGIONS))
    parser.add_argument("--ways", nargs="+", default=list(DEFAULT), choices=[*WAYS, GRADIENT_ONLY])
    parser.add_argument("--budgets", nargs="+", type=int, default=[200, 400])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args(given)
    lm, survey = softde.LM.from_pretrained(arguments.model), softde.load_survey("vsm13")
    space = softde.PromptSpace.random(lm)
    losses: Mapping[str, softde.AlignmentLoss] = {
        region: softde.AlignmentLoss(lm, survey, survey.target(region, edition="2023"), space, orders="forward")
        for region in arguments.regions
    }
    budgets, found = sorted(arguments.budgets), list[Found]()
    for seed in range(arguments.seeds):
        for region, loss in losses.items():
            for way in arguments.ways:
                started = time.process_time()
                for budget, value in zip(budgets, search(loss, way, budgets, seed), strict=True):
                    found.append(Found(way, region, seed, budget, value, time.process_time() - started))
                    print(f"{region} seed {seed} {way} {budget:,}: {value:.2f} after {found[-1].seconds:.0f} s",
                          file=sys.stderr)  # fmt: skip
    print(page(found))


if __name__ == "__main__":
    main()
