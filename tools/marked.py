"""Put generated text between two markers of a page: <!-- name --> and <!-- /name -->.

python benchmarks/bench_align.py | python tools/marked.py README.md bench_align    # the table's lines, from a pipe
"""

from __future__ import annotations

import sys
from pathlib import Path


def replace_between(page: Path, name: str, text: str) -> None:
    """Replace what stands between the page's markers."""
    before, opening, rest = page.read_text(encoding="utf-8").partition(f"<!-- {name} -->")
    _, closing, after = rest.partition(f"<!-- /{name} -->")
    if not opening or not closing:
        raise ValueError(f"{page}: expected the markers <!-- {name} --> and <!-- /{name} -->")
    page.write_text(f"{before}{opening}\n{text.strip()}\n{closing}{after}", encoding="utf-8")


if __name__ == "__main__":
    replace_between(Path(sys.argv[1]), sys.argv[2], "".join(line for line in sys.stdin if line.startswith("|")))
