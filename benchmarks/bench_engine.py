"""What a generation costs: softde's engine beside the ways people ask a population of soft prompts today.

    python benchmarks/bench_engine.py --model random-llama-4x640 --threads 1 --check
    python benchmarks/bench_engine.py --model llama-3-8b-random --device cuda --check

One process; after a warm-up, in which memory and errors are taken, all ways are timed in turn, `--repeats` rounds of
them, and the median of each counts. Slow ways are run on few candidates and scaled to the population. Prints a
Markdown table and one JSON line; with --check the exit code is 1 if a target for this model and device is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import measuring
import models
import torch
import ways
from results import TARGETS, Measured, Way, Yardsticks, scaled, shown, table, verdicts
from torch import Tensor

import softde
from softde.lm import PLACEMENTS, OptionLogprobs, Plan
from softde.objective import Evaluation
from softde.optim import generator_for, named

# The common instruction of a study. With the embedded tokenizer a vsm13 question then has about 118 tokens.
SYSTEM = (
    "You take part in a survey about values at work. Choose the answer that fits you best. There are no right or wrong "
    "answers."
)
# The textbook's differential evolution; the settings of Masoud et al. (arXiv 2503.16094) are not known to us.
TEXTBOOK = softde.DE(population_size=32, strategy="rand1bin", F=0.5, CR=0.9)
OPTIMIZER: Any = named("de", 1, 1)  # its settings depend on neither dimension nor budget
AHEAD = "front"  # where people put soft tokens today, and PEFT's only place


@dataclass(frozen=True)
class SystemLoss(softde.AlignmentLoss):
    """The loss of a run whose questions come under a system text."""

    system: str | None = None

    @cached_property
    def plan(self) -> Plan:
        return self.lm.plan(self.survey, self.system, self.space.placement, self.orders)


# ---- the rows --------------------------------------------------------------------------------------------------------


def option_logprobs(plan: Plan, logits: Tensor) -> Tensor:
    """Next-token logits (candidates, questions, vocabulary) → log-probabilities over each item's options."""
    answer = torch.full((len(logits), plan.n_items, plan.n_options), -torch.inf)
    for number, question in enumerate(plan.questions):
        some = logits[:, number, list(question.option_ids)].float()
        answer[:, question.item, : len(question.option_ids)] = some.log_softmax(-1).cpu()
    return answer


def todays_ways(lm: softde.LM, plan: Plan, few: Tensor) -> list[Way]:
    """(a) to (d), soft tokens in front."""
    questions, soft = plan.questions, few.shape[1]
    prompts = few.to(lm.device, lm.dtype)
    pad = lm.tokenizer.pad_token_id or 0
    tuned = ways.prompt_tuning(lm.model, soft)

    def way(key: str, name: str, ask: Callable[[], ways.Asked], more: int = 0) -> Way:
        def run() -> tuple[Tensor, int]:
            asked = ask()
            return option_logprobs(plan, asked.logits), asked.tokens

        return Way(key, key, name, plan.placement, len(few), measuring.unshared(questions, soft, more), run)

    return [
        way("a", f"loop with `generate`, {ways.NEW_TOKENS} tokens",
            lambda: ways.generate_loop(lm.model, questions, prompts, pad), ways.NEW_TOKENS - 1),
        way("b", "one-by-one forward", lambda: ways.one_by_one(lm.model, questions, prompts)),
        way("c", "padded batch, full logits", lambda: ways.padded_batch(lm.model, questions, prompts, pad, True)),
        way("c'", "padded batch, last token", lambda: ways.padded_batch(lm.model, questions, prompts, pad, False)),
        way("d", "PEFT prompt tuning, padded batch", lambda: ways.peft_batch(tuned, questions, prompts, pad)),
    ]  # fmt: skip


def our_way(lm: softde.LM, plan: Plan, prompts: Tensor) -> Way:
    """(e) the engine on one placement."""

    def run() -> tuple[Tensor, int]:
        answer = lm.option_logprobs(plan, prompts)
        return answer.logprobs.float().cpu(), answer.ledger

    name = f"softde, {plan.placement} ({lm.engine.path(plan, prompts.shape[1])})"
    work = measuring.shared(plan.questions, prompts.shape[1])
    return Way(plan.placement, "e", name, plan.placement, len(prompts), work, run)


@dataclass(frozen=True)
class Duel:
    """One generation of a search: trials and the losses that they have to beat."""

    loss: SystemLoss
    trials: Tensor
    parents: Tensor
    generation: int

    def way(self) -> Way:
        """(f) late, questions in stages."""

        def run() -> tuple[None, int]:
            return None, self.staged().tokens

        return Way("early", "f", "softde, late + early rejection", "late", len(self.trials), None, run)

    def staged(self) -> Evaluation:
        """With the bound of the parents' losses."""
        return self.loss(self.trials, bound=self.parents)

    def check(self) -> dict[str, Any]:
        """Against full losses: is the selection the same, and what survives?"""
        full, early = self.loss(self.trials).losses, self.staged().losses
        kept = full <= self.parents.numpy()
        return {
            "generation": self.generation + 1,
            "survivors": int(kept.sum()),
            "selected_otherwise": int((kept != (early <= self.parents.numpy())).sum()),
            "loss_error": float(abs(full - early)[kept].max(initial=0.0)),
        }


def duel(lm: softde.LM, survey: softde.Survey, options: argparse.Namespace) -> Duel:
    """The trials of a search that has run for some generations with the default optimiser, late."""
    space = softde.PromptSpace.random(lm, options.num_virtual_tokens, "late")
    target = survey.target(options.region, edition=options.edition)
    loss = SystemLoss(lm, survey, target, space, orders="forward", system=SYSTEM)
    optimizer = dataclasses.replace(OPTIMIZER, population_size=options.population)
    state = optimizer.init(space.sample(options.population, generator_for(0, 0)))
    for _ in range(options.generations):
        candidates, asked = optimizer.ask(state, generator_for(0, state.generation))
        state, _ = optimizer.tell(asked, candidates, loss(candidates, bound=optimizer.bound(asked)).losses)
    trials, asked = optimizer.ask(state, generator_for(0, state.generation))
    return Duel(loss, trials, optimizer.bound(asked), state.generation)


# ---- measuring -------------------------------------------------------------------------------------------------------


def references_of(lm: softde.LM, plans: Mapping[str, Plan], few: Tensor) -> dict[str, Tensor]:
    """The reference: (b) on a few candidates, for every placement."""
    prompts = few.to(lm.device, lm.dtype)
    return {
        name: option_logprobs(p, ways.one_by_one(lm.model, p.questions, prompts).logits) for name, p in plans.items()
    }


def difference(answer: Tensor | None, reference: Tensor) -> float | None:
    """Largest absolute difference of an option's log-probability on the candidates that both have; NaN stays NaN."""
    if answer is None:
        return None
    count = min(len(answer), len(reference))
    there = reference[:count].isneginf().logical_not()  # an option that the item has
    return float((answer[:count] - reference[:count])[there].abs().max())


def plain_forward(lm: softde.LM, length: int) -> tuple[Callable[[], object], int]:
    """A large forward without anything around it, last token only, and its number of tokens.

    Tokens are random: a GPU is faster on numbers that repeat.
    """
    rows = 32 if lm.device.type == "cpu" else 128
    embeddings = lm.embed(torch.randint(len(lm.tokenizer), (rows, length), generator=generator_for(0, 0)))

    @torch.inference_mode()
    def forward() -> object:
        return lm.model(inputs_embeds=embeddings, use_cache=False, logits_to_keep=1)

    return forward, rows * length


def measure(
    rows: Sequence[Way],
    references: Mapping[str, Tensor],
    lm: softde.LM,
    plans: Mapping[str, Plan],
    model_bytes: int,
    options: argparse.Namespace,
) -> tuple[dict[str, Measured], Yardsticks]:
    """Rows by key, and the machine's speed; everything is timed in turn, round after round."""
    seen = {}
    for row in rows:
        say(f"warm-up: {row.name}")
        (answer, tokens), peak = measuring.with_peak(row.run, lm.device)
        seen[row.key] = Measured(tokens, peak - model_bytes, difference(answer, references[row.placement]))
    length = round(statistics.mean(q.length for q in plans[AHEAD].questions)) + options.num_virtual_tokens
    forward, forward_tokens = plain_forward(lm, length)
    product = measuring.matmul(lm.device) if lm.device.type == "cuda" else None
    forward_times, product_times = [], []
    for number in range(-1, options.repeats):
        say(f"round {number + 1} of {options.repeats}")
        forward_times.append(measuring.seconds(forward, lm.device))
        product_times += [measuring.seconds(product, lm.device)] if product else []
        for row in rows if number >= 0 else ():  # round 0 warms the yardsticks up
            seen[row.key].times.append(measuring.seconds(row.run, lm.device))
    flops = 2 * measuring.MATMUL**3 / statistics.median(product_times[1:]) if product else None
    return seen, Yardsticks(statistics.median(forward_times[1:]) / forward_tokens, forward_tokens, flops)


def left_padded(
    lm: softde.LM, plans: Mapping[str, Plan], few: Tensor, references: Mapping[str, Tensor]
) -> dict[str, Any]:
    """How far PEFT is off when it is padded on the left."""
    prompt, plan = few[:1].to(lm.device, lm.dtype), plans[AHEAD]
    tuned = ways.prompt_tuning(lm.model, few.shape[1])
    asked = ways.peft_batch(tuned, plan.questions, prompt, lm.tokenizer.pad_token_id or 0, side="left")
    return {"peft_left_padded_error": difference(option_logprobs(plan, asked.logits), references[AHEAD])}


def float32_errors(lm: softde.LM, plans: Mapping[str, Plan], few: Tensor) -> dict[str, float | None]:
    """Our rows again with the same weights in float32. The model stays in float32."""
    exact = softde.LM(lm.model.float(), lm.tokenizer, lm.name)
    references = references_of(exact, plans, few)
    return {name: difference(our_way(exact, plan, few).run()[0], references[name]) for name, plan in plans.items()}


@dataclass(frozen=True, eq=False)
class CountingLM(softde.LM):
    """Counts what the search pushes through the layers, copies that fill up groups included."""

    pushed: list[int] = field(default_factory=lambda: [0])

    def option_logprobs(self, *given: Any, **named: Any) -> OptionLogprobs:
        answer = super().option_logprobs(*given, **named)
        plain = named.get("plain", given[2] if len(given) > 2 else False)
        self.pushed[0] += 0 if plain else answer.ledger + answer.filler
        return answer


def saved_by_rejection(generations: int) -> dict[str, Any]:
    """Tokens of whole runs on the embedded model, with and without early rejection."""
    tiny, survey = softde.LM.from_pretrained("tiny", device="cpu"), softde.load_survey("vsm13")
    embedded = (tiny.model, tiny.tokenizer, tiny.name, tiny.revision)
    target = survey.target("Saudi Arabia", edition="2023")
    runs = []
    for name, optimizer in {"rand1bin": TEXTBOOK, "de": OPTIMIZER}.items():
        results, pushed = {}, {}
        for early in (False, True):
            say(f"{generations} generations on tiny, {name}, early rejection {'on' if early else 'off'}")
            lm = CountingLM(*embedded)
            results[early] = softde.align(
                lm, survey, target, softde.PromptSpace.random(lm), optimizer, generations * optimizer.population_size,
                seed=0, progress=False, early_rejection=early,
            )  # fmt: skip
            pushed[early] = lm.pushed[0]
        off, on = results[False], results[True]
        runs.append(
            {
                "optimizer": name,
                "population": optimizer.population_size,
                "generations": generations,
                "tokens": [off.forward_tokens, on.forward_tokens],
                "seconds": [off.wall_seconds, on.wall_seconds],
                "saved": 1 - on.forward_tokens / off.forward_tokens,
                "saved_with_filler": 1 - pushed[True] / pushed[False],
                "same_prompt": off.loss == on.loss and torch.equal(off.prompt.embeddings, on.prompt.embeddings),
            }
        )
    return {"runs": runs, "saved": runs[0]["saved"]}


# ---- command line ----------------------------------------------------------------------------------------------------


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Command line; defaults that depend on the device are set here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help=f"tiny, {', '.join(models.SHAPES)}, a folder, or a Hub name")
    parser.add_argument("--device", help="default: cuda if there is one")
    parser.add_argument("--dtype", help="default: float32 on a CPU, else bfloat16")
    parser.add_argument("--threads", type=int, help="of torch on the CPU; default: as torch has it")
    parser.add_argument("--survey", default="vsm13")
    parser.add_argument("--region", default="Saudi Arabia", help="target of the search behind row (f)")
    parser.add_argument("--edition", default="2023")
    parser.add_argument("--population", type=int, default=64)
    parser.add_argument("--num-virtual-tokens", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--candidates-slow", type=int, help="of (a) to (d) and of the reference; default: 1 on a CPU, else 2"
    )
    parser.add_argument("--candidates-ours", type=int, help="of ours but late; default: one group on a CPU, else all")
    parser.add_argument("--generations", type=int, default=5, help="of the search behind row (f)")
    parser.add_argument("--run-generations", type=int, default=50, help="of the two runs on tiny; 0 leaves them out")
    parser.add_argument("--profile", help="a row's key (late, front, c', early ...): print what its time is spent on")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    options = parser.parse_args(given)
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    options.candidates_slow = options.candidates_slow or (1 if options.device == "cpu" else 2)
    return options


def say(line: str) -> None:
    """Progress, beside the table."""
    print(line, file=sys.stderr, flush=True)


def main(given: Sequence[str] | None = None) -> int:
    """Measure, print, judge."""
    options = arguments(given)
    if options.threads:
        torch.set_num_threads(options.threads)
    lm = models.load(options.model, options.device, options.dtype)
    survey = softde.load_survey(options.survey)
    plans = {name: lm.plan(survey, SYSTEM, name, "forward") for name in PLACEMENTS}
    space = softde.PromptSpace.random(lm, options.num_virtual_tokens)
    prompts = space.decode(space.sample(options.population, generator_for(0, 0)))
    one_group = lm.engine.group_size if lm.device.type == "cpu" else options.population
    few, some = prompts[: options.candidates_slow], prompts[: options.candidates_ours or one_group]

    whole_runs = saved_by_rejection(options.run_generations) if options.run_generations else {}
    say("reference")
    references = references_of(lm, plans, few)
    rows = todays_ways(lm, plans[AHEAD], few)
    model_bytes = measuring.held(lm.device)
    rows += [our_way(lm, plan, prompts if name == "late" else some) for name, plan in plans.items()]
    fight = duel(lm, survey, options)
    rows.append(fight.way())
    seen, yard = measure(rows, references, lm, plans, model_bytes, options)

    facts = {
        **setting(lm, plans, options),
        **left_padded(lm, plans, few, references),
        **fight.check(),
        **whole_runs,
    }
    for row in rows:
        if row.key == options.profile:
            say(measuring.profile(row.run, lm.device))
    precise: Mapping[str, float | None] = {name: seen[name].error for name in plans}
    if lm.dtype != torch.float32:
        precise = float32_errors(lm, plans, few)
    lines = scaled(rows, seen, options.population, yard, lm.model, precise)
    found = verdicts(TARGETS.get((options.model, lm.device.type)), lines, facts.get("saved"))
    show(facts, lines, yard)
    missed = [sentence for reached, sentence in found if not reached]
    print(json.dumps({**facts, **dataclasses.asdict(yard), "rows": lines, "missed": missed}))
    if options.check:
        for reached, sentence in found:
            say(f"{'reached' if reached else 'MISSED '}  {sentence}")
        say("" if found else f"no targets are set for {options.model} on {lm.device.type}")
    return int(options.check and bool(missed))


def setting(lm: softde.LM, plans: Mapping[str, Plan], options: argparse.Namespace) -> dict[str, Any]:
    """Model, machine and lengths: what the numbers belong to."""
    late, hard = plans["late"], [q.length for q in plans[AHEAD].questions]
    return {
        "model": options.model,
        "device": torch.cuda.get_device_name(lm.device) if lm.device.type == "cuda" else measuring.processor(),
        "dtype": str(lm.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": measuring.versions(),
        "repeats": options.repeats,
        "population": options.population,
        "group_size": lm.engine.group_size,
        "num_virtual_tokens": options.num_virtual_tokens,
        "questions": len(hard),
        "hard_tokens": [min(hard), statistics.mean(hard), max(hard)],
        "tokens_after_late": statistics.mean(len(q.suffix_ids) for q in late.questions),
        "cached_tokens_late": late.prefix_tokens,
    }


def show(facts: Mapping[str, Any], lines: Mapping[str, Mapping[str, Any]], yard: Yardsticks) -> None:
    """The table with what one needs to read it."""
    shortest, mean, longest = facts["hard_tokens"]
    print(
        f"{facts['model']} on {facts['device']}, {facts['dtype']}, {facts['threads']} threads, {facts['versions']}; "
        f"median of {facts['repeats']} interleaved rounds. {facts['population']} candidates × {facts['questions']} "
        f"questions of {shortest} to {longest} hard tokens, mean {mean:.0f}, and {facts['num_virtual_tokens']} soft "
        f"ones ({facts['tokens_after_late']:.0f} tokens follow late ones; {facts['cached_tokens_late']:,} are cached "
        "once a run). Tokens and seconds are for all candidates, scaled where fewer were run.\n"
    )
    print(table(lines))
    print(
        f"\nToken floor: {yard.per_token * 1e6:.3g} µs per token in a plain forward of {yard.forward_tokens:,} tokens."
    )
    if yard.flops is not None:
        print(f"Matmul: {yard.flops / 1e12:.0f} TFLOP/s, {measuring.MATMUL}³, bfloat16.")
        print("Max error in float32: " + ", ".join(f"{k} {shown(v['float32_error'])}" for k, v in lines.items()) + ".")
    print(f"PEFT padded on the left, not on the right: max error {facts['peft_left_padded_error']:.1e}.")
    print(
        f"Early rejection: trials of generation {facts['generation']} of a search; {facts['survivors']} survive, "
        f"{facts['selected_otherwise']} are selected otherwise, survivors' losses differ by {facts['loss_error']:.1e}."
    )
    for run in facts.get("runs", ()):
        print(
            f"Early rejection over {run['generations']} generations on tiny, {run['optimizer']}, population "
            f"{run['population']}: {run['saved']:.1%} of the tokens saved ({run['saved_with_filler']:.1%} with the "
            f"copies that fill up groups), {run['seconds'][0]:.0f} s → {run['seconds'][1]:.0f} s, "
            f"{'the same prompt' if run['same_prompt'] else 'ANOTHER PROMPT'}."
        )


if __name__ == "__main__":
    sys.exit(main())
