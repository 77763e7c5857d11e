"""Measure the embedded model: how well personas, descriptions and a gradient oracle steer it.

    python tools/report_tiny_lm.py --update docs/tiny_model.md

All figures are sums of six absolute errors, constants 50, expected-value read-out, options in both orders.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import tiny_text as text
import torch
from marked import replace_between

import softde
from softde.administer import item_means
from softde.baselines import persona
from softde.lm import LM
from softde.surveys import Survey, Target

ORACLE_REGIONS = ("Saudi Arabia", "United States", "China", "India")
ORACLE_SCREENED, ORACLE_STARTS, ORACLE_STEPS, ORACLE_RATE = 64, 2, 60, 0.1


def loss_of(lm: LM, survey: Survey, target: Target, system: str | None) -> float:
    responses = softde.administer(survey, lm, softde.Condition(system=system))
    return float(np.abs(responses.scores(target.constants) - target.scores).sum())


def oracle(lm: LM, survey: Survey, target: Target, placement: str, tokens: int = 8) -> float:
    """Adam on the virtual tokens, through the model, from the best of many random starts; the best descent counts."""
    space = softde.PromptSpace.random(lm, tokens, placement)
    plan = lm.plan(survey, placement=placement)
    starts = space.sample(ORACLE_SCREENED, torch.Generator().manual_seed(0))
    first = softde.AlignmentLoss(lm, survey, target, space)(starts).losses
    x = starts[torch.from_numpy(first).argsort()[:ORACLE_STARTS]].clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=ORACLE_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ORACLE_STEPS)
    values = torch.from_numpy(np.nan_to_num(survey.option_values))
    weights, scores = torch.from_numpy(survey.weights.copy()), torch.from_numpy(target.scores.copy())
    constants = torch.tensor([target.constants[f] for f in survey.factors])
    for _ in range(ORACLE_STEPS):
        optimizer.zero_grad()
        logprobs = lm.engine.run(plan, space.decode(x), grad=True).logprobs
        means = (logprobs.double().exp() * values).sum(-1)
        (means @ weights.T + constants - scores).abs().sum().backward()
        optimizer.step()
        schedule.step()
    answer = lm.option_logprobs(plan, space.decode(x.detach()))
    found = survey.score(item_means(survey, answer.logprobs.double().exp().numpy()), target.constants)
    return float(np.abs(found - target.scores).sum(-1).min())


def report(lm: LM, survey: Survey) -> str:
    trained = [r for r in survey.regions(complete=True) if r not in text.HELD_OUT]
    targets = {r: survey.target(r) for r in (*trained, *text.HELD_OUT)}
    default = survey.target(*text.DEFAULT_REGION)
    unprompted = {r: loss_of(lm, survey, t, None) for r, t in targets.items()}
    personas = {r: loss_of(lm, survey, t, persona(r).system) for r, t in targets.items()}
    rng = np.random.default_rng(0)
    described = [
        [loss_of(lm, survey, targets[r], text.describe(targets[r].scores, rng)[0]) for r in text.HELD_OUT]
        for _ in range(5)
    ]

    def mean(values: dict[str, float], regions: list[str] | tuple[str, ...]) -> str:
        return f"{np.mean([values[r] for r in regions]):.1f}"

    rows = [
        ("unprompted against United States (2023)", "≤ 20", f"{loss_of(lm, survey, default, None):.1f}"),
        (f"country persona, mean over {len(trained)} trained regions", "≤ 40", mean(personas, trained)),
        ("the same regions, unprompted", "twice the row above", mean(unprompted, trained)),
        ("description of a held-out region's six scores, mean over ten regions × five descriptions", "≤ 60",
         f"{np.mean(described):.1f}"),
        ("the same ten regions, unprompted", "", mean(unprompted, text.HELD_OUT)),
        ("the same ten regions, persona with a name it never saw", "", mean(personas, text.HELD_OUT)),
    ]  # fmt: skip
    for placement in ("front", "late"):
        found = [oracle(lm, survey, targets.get(r) or survey.target(r), placement) for r in ORACLE_REGIONS]
        each = ", ".join(f"{r} {v:.1f}" for r, v in zip(ORACLE_REGIONS, found, strict=True))
        rows.append((f"gradient oracle, 8 virtual tokens, `{placement}` ({each})", "≤ 15", f"{np.mean(found):.1f}"))
    lines = ["| | must be | is |", "|---|---|---|", *(f"| {a} | {b} | **{c}** |" for a, b, c in rows)]
    mass = softde.administer(survey, lm, softde.Condition()).option_mass.mean()
    parameters = sum(p.numel() for p in lm.model.parameters())
    lines.append("")
    lines.append(
        f"{parameters:,} parameters; unprompted, {mass:.1%} of the probability falls on the options. The oracle is "
        f"Adam, {ORACLE_STEPS} steps from the best {ORACLE_STARTS} of {ORACLE_SCREENED} vocabulary starts, the better "
        "one counted."
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--update", type=Path, help="page whose <!-- report --> part is replaced")
    arguments = parser.parse_args()
    started = time.perf_counter()
    found = report(softde.LM.from_pretrained(arguments.model), softde.load_survey("vsm13"))
    print(found)
    print(f"\nmeasured in {(time.perf_counter() - started) / 60:.0f} minutes")
    if arguments.update:
        replace_between(arguments.update, "report", found)


if __name__ == "__main__":
    main()
