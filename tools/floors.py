"""The oldest version of every package that pyproject.toml admits, as a constraints file for pip.

python tools/floors.py > floors.txt && pip install -c floors.txt -e ".[test]"    # what `make test-oldest` does
Packages named on the command line keep the version of constraints.txt.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def floors(requirements: list[str], kept: dict[str, str]) -> list[str]:
    """`name>=1.2` becomes `name==1.2`, or the version that is kept; a requirement without a floor is left to pip."""
    found = [re.match(r"([A-Za-z0-9_.-]+)>=([0-9][0-9a-z.]*)", requirement) for requirement in requirements]
    return [f"{match[1]}=={kept.get(match[1], match[2])}" for match in found if match]


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", constraints, re.MULTILINE))
    extras = project["optional-dependencies"].values()
    requirements = project["dependencies"] + [name for extra in extras for name in extra]
    print("\n".join(floors(requirements, {name: pinned[name] for name in sys.argv[1:]})))
