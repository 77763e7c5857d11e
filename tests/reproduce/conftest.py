"""Human answers of four made-up samples to eight items in softde's own words; and runs that are broken off."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softde.lm.network import Network
from softde.reproduce import Outcome, Study, probes, run
from softde.surveys.human import HumanAnswers, load_human

TEXTS = (
    ("Q46", "All in all, how happy are you?", ("very happy", "rather happy", "not very happy", "not happy")),
    ("Q57", "Can most people be trusted?", ("most people can", "one has to be careful")),
    ("Q49", "How satisfied are you with your life?", ("not at all", "a little", "fairly", "very")),
    ("Q164", "How much does God matter in your life?", ("not at all", "a little", "much", "very much")),
    ("Q182", "Is it ever right to lie?", ("never", "sometimes", "often", "always")),
    ("Q184", "Is it ever right to steal?", ("never", "sometimes", "often", "always")),
    ("Q254", "How proud are you of your country?", ("very", "quite", "not very", "not at all")),
    ("Q199", "How much do politics interest you?", ("very much", "somewhat", "little", "not at all")),
)
REGIONS = ("USA", "KEN", "CHN", "BRA")
SECONDS = ("found_seconds", "asked_seconds")


@pytest.fixture(autouse=True, scope="package")
def short_probes() -> Iterator[None]:
    """Probes do their piece once or twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "ENOUGH", 0.01)
        yield


@pytest.fixture(scope="session")
def human_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of CultureSPA's folder data; Kenya lacks the last item."""
    folder = tmp_path_factory.mktemp("human")
    questions = [{"Q_id": name, "question": text, "option_lst": list(options)} for name, text, options in TEXTS]
    draw = np.random.default_rng(5)
    shares = {
        region: {
            name: {str(i + 1): float(share) for i, share in enumerate(draw.dirichlet(np.ones(len(options))))}
            for name, _, options in TEXTS[: 7 if region == "KEN" else 8]
        }
        for region in REGIONS
    }
    (folder / "wvs_questions.json").write_text(json.dumps(questions))
    (folder / "proportions_group_by_country.json").write_text(json.dumps(shares))
    return folder


@pytest.fixture(scope="session")
def human(human_folder: Path) -> HumanAnswers:
    return load_human(human_folder)


def values(outcome: Outcome) -> list[dict[str, Any]]:
    """The table's rows without seconds, which no two runs share, and with None for NaN, which equals nothing."""
    return [
        {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in row.items() if name not in SECONDS}
        for row in outcome.table.rows
    ]


def steps_of(study: Study) -> dict[str, dict[str, Any]]:
    """Lines of steps.jsonl by name."""
    lines = (study.folder / "steps.jsonl").read_text().splitlines()
    return {line["step"]: line for line in map(json.loads, lines)}


@pytest.fixture
def broken_off(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Outcome, list[int]]]:
    """Runs a study with a Ctrl-C at the 4th forward, at the 8th of the next session, the 16th ... until one ends.

    Returns the outcome, and how many steps were done when each session was broken off.
    """
    logits, count = Network.logits, {"left": 0}

    def counted(self: Network, *given: Any, **more: Any) -> Any:
        count["left"] -= 1
        if count["left"] == 0:
            raise KeyboardInterrupt
        return logits(self, *given, **more)

    def until_it_ends(make: Callable[[], Study], first: int = 4) -> tuple[Outcome, list[int]]:
        monkeypatch.setattr(Network, "logits", counted)
        done: list[int] = []
        while True:
            count["left"] = first * 2 ** len(done)
            study = make()
            try:
                found = run(study, progress=False)
                count["left"] = 0  # whatever else the test runs is left alone
                return found, done
            except KeyboardInterrupt:
                done.append(len(steps_of(study)) if (study.folder / "steps.jsonl").exists() else 0)

    return until_it_ends
