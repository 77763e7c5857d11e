"""Which path the engine takes on every family of models: the table of docs/architectures.md.

    python tools/report_architectures.py --update docs/architectures.md

Tiny random models, float32, three items; see tests/lm/test_architectures.py, which also checks the answers.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from marked import replace_between

sys.path.insert(0, str(Path(__file__).parents[1]))

from softde.lm.template import PLACEMENTS
from tests import tiny_random
from tests.lm.test_architectures import SURVEY, TOKENS, family


def table() -> str:
    import transformers

    lines = [
        f"With transformers {transformers.__version__}:",
        "",
        f"| family | {' | '.join(f'`{placement}`' for placement in PLACEMENTS)} |",
        "|---" * (len(PLACEMENTS) + 1) + "|",
    ]
    for name in tiny_random.FAMILIES:
        lm = family(name)
        if lm is not None:
            paths = [lm.engine.path(lm.plan(SURVEY, placement=placement), TOKENS) for placement in PLACEMENTS]
            lines.append(f"| {name} | {' | '.join(paths)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", type=Path, help="the page to write the table into; without it, print")
    page = parser.parse_args().update
    logging.getLogger("softde").setLevel(logging.ERROR)  # falling back is what this reports
    if page is None:
        print(table())
    else:
        replace_between(page, "paths", table())
