"""Do the papers' numbers and figures come out again? Trained, measured and set beside the papers' values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from microtome.errors import InputError, nearest

__all__ = ["reproduce"]

_KNOWN = ("vector-spaces",)


def reproduce(
    what: Annotated[str, Parameter(help="What to reproduce: vector-spaces.")],
    /,
    *,
    full: Annotated[
        bool, Parameter(negative="--quick", help="All as in the paper, an hour or more; else ten minutes.")
    ] = False,
    out: Annotated[Path, Parameter(help="Folder for figures and numbers.")] = Path("reproduced"),
) -> None:
    """Make a paper's figures and numbers again, the paper's value beside the measured one.

    Example: `microtome reproduce vector-spaces --quick --out reproduced`
    """
    if what not in _KNOWN:
        raise InputError(f'"{what}" is not known. Nearest: {nearest(what, _KNOWN)}.')
    from microtome.reproduce.vector_spaces import vector_spaces

    found = vector_spaces(quick=not full, out=out / what, say=lambda line: print(line, flush=True))
    print(f"\n{found.table()}\nfigures and numbers in {out / what}")
