"""Names of layers, classes and methods as entries of a legend."""

from __future__ import annotations


def legend_name(name: str) -> str:
    """The name as an entry of a legend.

    Matplotlib leaves out a name that begins with an underscore, such as ``_blocks.3``. A space of no width stands
    before it.

    Examples
    --------
    >>> len(legend_name("_blocks.3")), legend_name("conv1")
    (10, 'conv1')
    """
    return f"\u200b{name}" if name.startswith("_") else name
