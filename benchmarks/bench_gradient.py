"""What a warm start by gradient steps is worth, at equal forward-equivalents, on the embedded model.

    python benchmarks/bench_gradient.py
    python benchmarks/bench_gradient.py --regions China --ways alone "20 steps" --budgets 800

One forward-equivalent is a candidate asked the whole survey; a gradient step is three. Losses are sums of six absolute
errors (L1, constants 50, edition 2023, options forward). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import softde
from softde.gradient import GradientSteps
from softde.optim import generator_for, named, stop_reason
from softde.start import START

OPTIMIZER: Any = named("de", 1, 1)  # its settings depend on neither dimension nor budget
STEPS = GradientSteps(copies=0.5, spread=0.1)
WAYS: dict[str, GradientSteps | None] = {
    "alone": None,
    "20 steps": replace(STEPS, steps=20),
    "40 steps": replace(STEPS, steps=40),
    "20 steps, 100 % copies": replace(STEPS, steps=20, copies=1.0),
    "20 steps, spread 0.3": replace(STEPS, steps=20, spread=0.3),
    "20 steps, lr 0.2": replace(STEPS, steps=20, lr=0.2),
}
GRADIENT_ONLY = "gradient only"  # screens 64 start points and spends the rest on one descent


def search(loss: softde.AlignmentLoss, way: str, budgets: list[int], seed: int) -> Iterator[float]:
    """Best loss after so many forward-equivalents, one budget after the other."""
    if way == GRADIENT_ONLY:
        yield from (only_gradient(loss, budget, seed) for budget in budgets)
        return
    settings, spent = WAYS[way], 0
    size = OPTIMIZER.population_size
    points = loss.space.sample(settings.wanted(size) if settings else size, generator_for(seed, START))
    if settings:
        start = settings(loss, points, size, seed)
        points, spent = start.points, start.forward_equivalents
    state = OPTIMIZER.init(points)
    for budget in budgets:
        while stop_reason(state, budget - spent) is None:
            candidates, asked = OPTIMIZER.ask(state, generator_for(seed, state.generation))
            state, _ = OPTIMIZER.tell(asked, candidates, loss(candidates, bound=OPTIMIZER.bound(asked)).losses)
        yield state.best_loss


def only_gradient(loss: softde.AlignmentLoss, budget: int, seed: int) -> float:
    """The last forward-equivalent scores what was found."""
    settings = GradientSteps(steps=(budget - 65) // 3, screen=64)
    start = settings(loss, loss.space.sample(64, generator_for(seed, START)), 1, seed)
    return float(loss(start.points).losses[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--regions", nargs="+", default=["Saudi Arabia", "China"])
    parser.add_argument("--ways", nargs="+", default=[*WAYS, GRADIENT_ONLY], choices=[*WAYS, GRADIENT_ONLY])
    parser.add_argument("--budgets", nargs="+", type=int, default=[800, 1600])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    lm, survey = softde.LM.from_pretrained(arguments.model), softde.load_survey("vsm13")
    budgets = sorted(arguments.budgets)
    print("| region | way | forward-equivalents | loss | seconds |\n|---|---|---|---|---|")
    for region in arguments.regions:
        target = survey.target(region, edition="2023")
        loss = softde.AlignmentLoss(lm, survey, target, softde.PromptSpace.random(lm), orders="forward")
        for way in arguments.ways:
            started = time.perf_counter()
            for budget, found in zip(budgets, search(loss, way, budgets, arguments.seed), strict=True):
                seconds = time.perf_counter() - started
                print(f"| {region} | {way} | {budget:,} | {found:.2f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
