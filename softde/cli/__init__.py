"""The command line: one command per public verb. A new one is a file here and a line in commands.py."""

from softde.cli.commands import app
from softde.cli.running import main, run

__all__ = ["app", "main", "run"]
