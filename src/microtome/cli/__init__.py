"""How is Microtome used from a shell? A subcommand for each question; errors are one line and exit 2."""

from microtome.cli.main import main

__all__ = ["main"]
