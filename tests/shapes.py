"""The type checker that jaxtyping calls under pytest: beartype, for array arguments and results only.

Everything else is mypy's part, and tests of bad input need wrong types to reach the code that refuses them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from beartype import beartype

ARRAY = re.compile(r"\b(Bool|Float|Int|Int16|Num|Shaped)\[|jaxtyping")


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check what is annotated with axes; leave the rest alone."""
    hints = function.__annotations__
    function.__annotations__ = {name: hint for name, hint in hints.items() if ARRAY.search(str(hint))}
    return beartype(function)
