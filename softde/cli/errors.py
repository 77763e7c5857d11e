"""What ends a command: one sentence for an error that the user can mend, and for Ctrl-C."""

from __future__ import annotations

from softde.cli.printing import line


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C, with what to say about it."""


def sentence(error: Exception) -> str | None:
    """The message of an error that the user can mend, on one line; None for any other."""
    if hasattr(error, "format_message"):  # typer's own: a missing argument, an unknown option
        return line(f"{error.format_message()} See softde --help.").replace("Value error, ", "")
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return line(f"{place}{error.strerror or error}")
    if isinstance(error, ValueError) or (isinstance(error, ImportError) and "pip install" in str(error)):
        return line(str(error))
    return None
