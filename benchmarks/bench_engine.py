"""What a candidate costs: soft tokens in front, soft tokens late with a cached prefix, and one forward at a time.

Prints a Markdown table from one run in one process; every time is the median of `--repeats` interleaved measurements.
    python benchmarks/bench_engine.py [--model tiny|FOLDER|HUB NAME] [--device cpu|cuda] [--population 32]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from softde.lm import LM, OptionLogprobs, Plan
from softde.surveys import load_survey

PLAIN_CANDIDATES = 2  # the slow reference is timed on few candidates


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default=None)
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--survey", default="vsm13")
    parser.add_argument("--population", type=int, default=32)
    parser.add_argument("--num-virtual-tokens", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, the device's queue included."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main() -> None:
    """Measure front, late and plain; print the table."""
    args = arguments()
    lm = LM.from_pretrained(args.model, dtype=args.dtype, device=args.device)
    survey = load_survey(args.survey)
    mean, std = lm.embedding_stats
    noise = torch.randn(
        args.population, args.num_virtual_tokens, lm.hidden_size, generator=torch.Generator().manual_seed(0)
    )
    prompts = mean + std * noise
    plans: dict[str, Plan] = {name: lm.plan(survey, placement=name) for name in ("front", "late")}
    few = prompts[:PLAIN_CANDIDATES]
    cases: dict[str, Callable[[], OptionLogprobs]] = {
        "plain, one by one": lambda: lm.option_logprobs(plans["late"], few, plain=True),
        "front, batched": lambda: lm.option_logprobs(plans["front"], prompts),
        f"late, {lm.engine.path(plans['late'])} prefix": lambda: lm.option_logprobs(plans["late"], prompts),
    }
    answers = {name: run() for name, run in cases.items()}  # also the warm-up
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(args.repeats):
        for name, run in cases.items():
            times[name].append(seconds(run, lm.device))

    references = {name: lm.option_logprobs(plan, few, plain=True).logprobs for name, plan in plans.items()}
    per_candidate = {}
    print(
        f"\n{args.model}, {lm.device} {lm.dtype}, {torch.get_num_threads()} threads, torch {torch.__version__}: "
        f"{args.population} candidates × {len(plans['late'].questions)} questions × {args.num_virtual_tokens} virtual "
        f"tokens, groups of {lm.engine.group_size}, median of {args.repeats}\n"
    )
    print("| path | tokens | seconds | candidates/s | cost per candidate, front = 1 | max error |")
    print("|---|---|---|---|---|---|")
    for name, answer in answers.items():
        per_candidate[name] = statistics.median(times[name]) / len(answer.logprobs)
    for name, answer in answers.items():
        reference = references[name.split(",")[0]] if not name.startswith("plain") else answer.logprobs
        error = (answer.logprobs[: len(few)] - reference).nan_to_num(0.0).abs().max()
        cost = per_candidate[name]
        ratio = cost / per_candidate["front, batched"]
        tokens = f"{answer.ledger:,}"
        median = statistics.median(times[name])
        print(
            f"| {name} ({len(answer.logprobs)}) | {tokens} | {median:.3f} | {1 / cost:.1f} "
            f"| {ratio:.3f} | {error:.1e} |"
        )
    print(f"\nCached once per run for late: {plans['late'].prefix_tokens:,} prefix tokens.")


if __name__ == "__main__":
    main()
