"""Small surveys and models, built once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from softde.lm import LM
from softde.surveys import Item, Option, Survey, options
from tests import tiny_random


@pytest.fixture(scope="session")
def survey() -> Survey:
    """Three items of different lengths, one with fewer options."""
    return Survey(
        id="small",
        title="Small",
        items=(
            Item("a", "How important is a boss?", options(["very", "somewhat", "not"])),
            Item(
                "b", "Picture your ideal job. How proud are you of it?", options(["always", "often", "seldom", "never"])
            ),
            Item("c", "Is it so?", (Option("1", "yes", 1.0), Option("2", "no", 0.0))),
        ),
    )


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LM]:
    """`load("llama", dtype="bfloat16", sliding_window=16)`: a tiny random model through `LM.from_pretrained`."""
    folders: dict[str, str] = {}

    def build(
        architecture: str = "llama", template: str | None = tiny_random.LLAMA3_TEMPLATE, **settings: object
    ) -> LM:
        own = {k: settings.pop(k) for k in ("dtype", "group_size", "device", "compiles") if k in settings}
        key = f"{architecture} {template} {settings}"
        if key not in folders:
            folder = tmp_path_factory.mktemp("model")
            folders[key] = str(tiny_random.save(folder, architecture, template, **settings))
        return LM.from_pretrained(folders[key], **own)  # type: ignore[arg-type]

    return build


@pytest.fixture(scope="session")
def lm(load: Callable[..., LM]) -> LM:
    return load()


@pytest.fixture
def prompts(lm: LM) -> torch.Tensor:
    """Six candidates of three tokens."""
    return torch.randn(6, 3, lm.hidden_size, generator=torch.Generator().manual_seed(3))
