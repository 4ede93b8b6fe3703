"""How is Microtome used from a shell? One subcommand per question; an error is one line and exit code 2."""

from microtome.cli.main import main

__all__ = ["main"]
