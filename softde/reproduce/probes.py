"""Small pieces of a design's work, timed on this model and machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from softde.administer import administer
from softde.baselines.culture_spa import Collected, Collection, LMWriter, LoRA, Question
from softde.baselines.culture_spa.injected import injected
from softde.baselines.culture_spa.prompts import task
from softde.baselines.culture_spa.train import BACKWARD, answer_losses, prepared
from softde.lm import LM
from softde.lm.network import Network
from softde.optim import generator_for
from softde.reproduce.counting import askable, spread
from softde.reproduce.study import Probe, Rate
from softde.space import PromptSpace
from softde.surveys import Survey
from softde.surveys.targets import bare

ITEMS = 24  # asked by a probe, at most
ENOUGH = 0.5  # seconds after which a piece is not done again
NEW_TOKENS = 64  # written by a probe


def timed(piece: Callable[[], object]) -> float:
    """Seconds of a piece: the least of several, or one, after one that does what is done only once."""
    piece()
    spent: list[float] = []
    while sum(spent) < ENOUGH:
        began = time.perf_counter()
        piece()
        spent.append(time.perf_counter() - began)
    return min(spent)


def asking(lm: LM, survey: Survey, orders: str) -> Probe:
    """Whole questions, as the unprompted model is asked them."""
    some = bare(survey, spread(survey.items, ITEMS))
    work = "asking questions"

    def measure() -> Rate:
        tokens = sum(question.length for question in lm.plan(some, orders=orders).questions)
        return Rate(work, tokens, timed(lambda: administer(some, lm, orders=orders)))

    return Probe(work, measure)


def searching(lm: LM, survey: Survey, space: PromptSpace, orders: str) -> Probe:
    """A group of candidates, with what stands before their soft tokens computed already."""
    some = bare(survey, spread(survey.items, ITEMS))
    work = "scoring candidates"

    def measure() -> Rate:
        plan = lm.plan(some, placement=space.placement, orders=orders)
        prompts = space.decode(space.sample(lm.engine.group_size, generator_for(0, 0)))
        seconds = timed(lambda: lm.option_logprobs(plan, prompts))
        return Rate(work, len(prompts) * plan.tokens(space.num_virtual_tokens), seconds)

    return Probe(work, measure)


def training(lm: LM, questions: Sequence[Question], system: str | None, settings: LoRA) -> Probe:
    """Forward and backward passes of a few examples, which count as three forwards."""
    work = "training adapters"

    def measure() -> Rate:
        some = askable(lm, questions[:ITEMS])[: settings.micro_batch]
        rows = tuple(Collected(question, "", 0, 1) for question in some)
        part = prepared(lm, rows, Collection(rows, {"": system}, {}))
        with injected(lm, settings.rank, settings.alpha, settings.seed) as wrapped:
            weights = [weight for weight in wrapped.parameters() if weight.requires_grad]
            network = Network(lm.model)

            def step() -> float:
                answer_losses(network, part)[0].sum().backward()
                return float(sum(weight.grad.norm() for weight in weights))  # waits for the device

            return Rate(work, (1 + BACKWARD) * sum(len(example.ids) for example in part), timed(step))

    return Probe(work, measure)


def writing(lm: LM, seeds: Sequence[Question]) -> Probe:
    """The beginning of one question on a topic, after five others."""
    work = "writing questions"

    def measure() -> Rate:
        writer, asked = LMWriter(lm, max_new_tokens=NEW_TOKENS), task(seeds[0].topic, seeds[:5])
        tokens = writer.write([asked], [(0,)]).tokens
        return Rate(work, tokens, timed(lambda: writer.write([asked], [(0,)])))

    return Probe(work, measure)
