"""What an alignment reaches: four regions, several seeds, default settings, on the embedded model.

    python benchmarks/bench_align.py
    python benchmarks/bench_align.py --regions China --seeds 1 --budget 640

Prints a Markdown table and one JSON line. Losses are sums of six absolute errors (L1, constants 50, edition 2023).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import softde
from softde.surveys import nulls

REGIONS = ("Saudi Arabia", "United States", "China", "India")
NULLS = ("midpoint", "uniform answerer", "best integer respondent")


def measure(lm: softde.LM, region: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """All conditions of one region."""
    survey = softde.load_survey("vsm13")
    target = survey.target(region, edition="2023")
    losses, seconds, mass = [], [], []
    for seed in range(arguments.seeds):
        started = time.perf_counter()
        space = softde.PromptSpace.random(lm, placement=arguments.placement)
        result = softde.align(lm, survey, target, space, budget=arguments.budget, seed=seed, progress=False)
        losses.append(result.plain_loss)
        mass.append(result.option_mass)
        seconds.append(time.perf_counter() - started)
    conditions = [softde.Condition(), softde.baselines.persona(region)]
    found = {row.condition: row.loss for row in softde.compare(lm, survey, target, conditions).rows}
    return {
        "region": region,
        "unprompted": found["unprompted"],
        "persona": found["persona"],
        "soft prompt": losses,
        "option_mass": statistics.median(mass),
        "seconds": statistics.median(seconds),
        **{name: value for name, value in nulls(survey, target).items() if name in NULLS},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """One line per region; the soft prompt's median over seeds, with the range."""
    lines = [
        "| region | unprompted | persona | **soft prompt** (range over seeds) | of unprompted | "
        + " | ".join(NULLS)
        + " | option mass | seconds |",
        "|" + "---|" * (7 + len(NULLS)),
    ]
    for row in rows:
        found = statistics.median(row["soft prompt"])
        lines.append(
            f"| {row['region']} | {row['unprompted']:.1f} | {row['persona']:.1f} | **{found:.1f}** "
            f"({min(row['soft prompt']):.1f}–{max(row['soft prompt']):.1f}) | {found / row['unprompted']:.0%} | "
            + " | ".join(f"{row[name]:.1f}" for name in NULLS)
            + f" | {row['option_mass']:.2f} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device")
    parser.add_argument("--regions", nargs="+", default=REGIONS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=3200)
    parser.add_argument("--placement", default="late")
    arguments = parser.parse_args()
    lm = softde.LM.from_pretrained(arguments.model, device=arguments.device)
    rows = []
    for region in arguments.regions:
        rows.append(measure(lm, region, arguments))
        print(table(rows[-1:]).splitlines()[-1], file=sys.stderr)
    print(f"model {lm.name}, {arguments.placement}, {arguments.budget} candidates, {arguments.seeds} seeds\n")
    print(table(rows))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
