"""The test suite. jaxtyping looks `tests.shapes.check` up by name and does not import it, so it is imported here."""

from tests import shapes as shapes
