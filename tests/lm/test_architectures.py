"""Every family of models that transformers has: the right answer by some path, and by which one."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from softde.lm import LM
from softde.lm.template import PLACEMENTS
from softde.surveys import Item, Survey, options
from tests import tiny_random

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
# Two items whose questions differ by a token or two, which makes a batch pad, and a short one with fewer options.
SURVEY = Survey(
    id="three",
    title="Three items",
    items=(
        Item("a", "Picture your ideal job. How important is a boss to you?", options(["very", "somewhat", "not"])),
        Item("b", "Picture your ideal job. How important is the time?", options(["very", "somewhat", "not"])),
        Item("c", "Is it so?", options(["yes", "no"])),
    ),
)
TOKENS = 3
# transformers 5.0 uses torch.jit.script, which newer versions of torch warn of.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

CHOSEN: dict[tuple[str, str], str] = {}
tokenizer = cache(tiny_random.make_tokenizer)
# Where the long tail is placed: with and without a stem. The other placements share their paths.
SWEEP = [
    pytest.param(name, placement, marks=[pytest.mark.slow] if name in tiny_random.LONG_TAIL else [])
    for name in tiny_random.FAMILIES
    for placement in (("front", "late") if name in tiny_random.LONG_TAIL else PLACEMENTS)
]


@cache
def family(name):
    """The model, or None where the installed transformers lacks the family or cannot build it."""
    try:
        lm = LM(tiny_random.make_family(name), tokenizer(), name)
        with torch.no_grad():
            lm.model(input_ids=torch.tensor([[1, 2, 3]]))  # some versions build a family that they cannot run
    except (LookupError, AttributeError):
        return None
    return lm


def installed(name):
    return family(name) or pytest.skip("not in this version of transformers")


def hard_rows(lm, ids):
    """Embeddings as the model's own forward from ids has them before its first layer."""
    scale = 3.0 if lm.name == "falcon_h1" else 1.0  # its embedding_multiplier
    return lm.model.get_input_embeddings()(torch.tensor(ids, dtype=torch.long)) * scale


def per_layer(lm, ids):
    """By hand: the rows of the second embedding table times the root of their width, a slice per layer."""
    if lm.name not in ("gemma3n", "gemma4 per-layer"):
        return {}
    rows = lm.model.model.embed_tokens_per_layer.weight[torch.tensor(ids)] * math.sqrt(8)
    return {"per_layer_inputs": rows.view(1, len(ids), 4, 8)}


def slow_answers(lm, plan, prompts):
    """Written from the definition: embeddings → one forward per question → softmax → options → mean over orders."""
    logprobs = torch.full((len(prompts), plan.n_items, plan.n_options), -math.inf)
    mass = torch.zeros(len(prompts), plan.n_items)
    for c, prompt in enumerate(prompts):
        for item in range(plan.n_items):
            mine = [q for q in plan.questions if q.item == item]
            shares = torch.zeros(len(mine[0].option_ids))
            for q in mine:
                row = torch.cat([hard_rows(lm, q.prefix_ids), prompt, hard_rows(lm, q.suffix_ids)])
                ids = [*q.prefix_ids, *[0] * len(prompt), *q.suffix_ids]
                with torch.no_grad():
                    output = lm.model(inputs_embeds=row[None], use_cache=False, **per_layer(lm, ids))
                probabilities = output.logits[0, -1].double().softmax(-1)[list(q.option_ids)]
                mass[c, item] += probabilities.sum() / len(mine)
                shares += probabilities / probabilities.sum() / len(mine)
            logprobs[c, item, : len(shares)] = shares.log()
    return logprobs, mass


def documented_paths():
    """{(family, placement): path} of docs/architectures.md, and the version of transformers that it is about."""
    text = PAGE.read_text(encoding="utf-8")
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    columns = [cell.strip("` ") for cell in lines[0][1:]]
    paths = {
        (line[0], placement): path for line in lines[2:] for placement, path in zip(columns, line[1:], strict=True)
    }
    return paths, re.search(r"transformers (\d+\.\d+\.\d+)", text)[1]


@pytest.mark.parametrize(("name", "placement"), SWEEP)
def test_right_by_some_path(name, placement):
    import transformers

    lm = installed(name)
    plan = lm.plan(SURVEY, placement=placement)
    prompts = torch.randn(3, TOKENS, lm.hidden_size, generator=torch.Generator().manual_seed(1))
    got = lm.option_logprobs(plan, prompts)
    CHOSEN[name, placement] = path = lm.engine.path(plan, TOKENS)
    slow, mass = slow_answers(lm, plan, prompts)
    chosen = f"{name} by the {path} path; all: {CHOSEN}"
    torch.testing.assert_close(got.logprobs, slow, atol=1e-4, rtol=0, msg=lambda text: f"{text}\n{chosen}")
    torch.testing.assert_close(got.option_mass, mass, atol=1e-4, rtol=0, msg=lambda text: f"{text}\n{chosen}")
    assert got.logprobs.isfinite().any(-1).all()
    known, version = documented_paths()
    if version == transformers.__version__:
        assert known[name, placement] == path, f"docs/architectures.md has another path. {chosen}"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in tiny_random.LONG_TAIL else [])
        for name in tiny_random.FAMILIES
    ],
)
def test_hard_tokens_are_what_the_model_reads_from_ids(name):
    lm = installed(name)
    plan = lm.plan(SURVEY)
    got = lm.option_logprobs(plan)
    for item in range(plan.n_items):
        shares = []
        for q in (q for q in plan.questions if q.item == item):
            with torch.no_grad():
                output = lm.model(input_ids=torch.tensor([q.prefix_ids + q.suffix_ids]), use_cache=False)
            shares.append(output.logits[0, -1].double().softmax(-1)[list(q.option_ids)])
        mean = sum(s / s.sum() for s in shares) / len(shares)
        torch.testing.assert_close(got.logprobs[0, item, : len(mean)].double(), mean.log(), atol=1e-4, rtol=0)
