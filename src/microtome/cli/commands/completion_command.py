"""``microtome completion``: the script that completes commands and options in a shell."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

__all__ = ["completion"]


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell that the script is for.")],
    /,
    *,
    install: Annotated[
        bool, Parameter(negative=(), help="Write it where the shell looks for it, and load it when the shell starts.")
    ] = False,
) -> None:
    """Print the script that completes commands and options in a shell, or install it.

    The script holds all names itself, so completion does not start Python. Make it again after an upgrade.

    Example: `microtome completion bash --install`
    """
    from microtome.cli.main import app

    if install:
        print(f"wrote {app.install_completion(shell=shell)}; open a new shell to use it")
    else:
        print(app.generate_completion(shell=shell))
