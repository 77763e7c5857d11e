"""Check that every relative link in Markdown pages leads to a file, and every anchor to a heading.

python tools/check_links.py README.md docs/*.md       prints the broken ones; exit code 1 if there are any
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

FENCE = re.compile(r"^```.*?^```", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(<?([^)\s>]+)>?\)")
HEADING = re.compile(r"^#+ +(.+?) *$", flags=re.MULTILINE)


def broken_links(page: Path) -> Iterator[str]:
    """One sentence per broken link; addresses on the web are not visited."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        goal = page.parent / name if name else page
        if not goal.exists():
            yield f"{page}: {link} leads to no file"
        elif anchor and anchor not in anchors(goal):
            yield f"{page}: {link} leads to no heading of {goal.name}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def main(names: list[str]) -> int:
    """Exit code for the pages named."""
    if not names:
        print("name the pages to check", file=sys.stderr)
        return 2
    found = [line for name in names for line in broken_links(Path(name))]
    print("\n".join(found) or f"{len(names)} pages, no broken links")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
