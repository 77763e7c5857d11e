"""Fixtures that several test packages share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from softde.lm import LM
    from softde.surveys import Survey, Target

# Before torch is loaded. Tiny models gain nothing from a second thread, and where other processes want the cores too,
# OpenMP's waiting for its own threads made these tests a hundred times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of test data that is no part of the package; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no test data at {SHARED_DATA}")
    return SHARED_DATA


# A small survey that shows every kind of scale: five and three options, reversed and zero-based values, and two factors
# that share an item.
MINI_SURVEY = """
id = "mini"
title = "Mini"
instruction = "Answer with the number only."
[scales.importance]
options = ["very important", "important", "undecided", "of little importance", "not important"]
[scales.often]
options = ["never", "sometimes", "always"]
values = [3, 2, 1]
[scales.yes]
options = ["no", "yes"]
values = [0, 1]
[[items]]
id = "boss"
scale = "importance"
text = "Picture your ideal job. How important is it to have a boss whom you can respect?"
[[items]]
id = "time"
scale = "importance"
text = "How important is time for yourself?"
[[items]]
id = "nerves"
scale = "often"
text = "Are you nervous at work?"
[[items]]
id = "proud"
scale = "yes"
text = "Are you proud?"
[[factors]]
id = "BOS"
weights = { boss = 35, time = -25, nerves = 20 }
[[factors]]
id = "CAL"
weights = { nerves = -15, proud = 40 }
[[published]]
edition = "2020"
source = "made up"
scores = { Ireland = { BOS = 130, CAL = 61.5 }, Italy = { BOS = 75, CAL = 30 } }
"""


@pytest.fixture(scope="session")
def mini_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small survey as a file."""
    path = tmp_path_factory.mktemp("mini") / "mini.toml"
    path.write_text(MINI_SURVEY)
    return path


@pytest.fixture(scope="session")
def mini(mini_file: Path) -> Survey:
    """Four items, two factors, two regions."""
    from softde.surveys import load_survey

    return load_survey(mini_file)


@pytest.fixture(scope="session")
def ireland(mini: Survey) -> Target:
    """The small survey's first region."""
    return mini.target("Ireland")


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with its tokenizer."""
    from tests import tiny_random

    return tiny_random.save(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def llama(llama_folder: Path) -> LM:
    """The same, loaded."""
    from softde.lm import LM

    return LM.from_pretrained(llama_folder)
