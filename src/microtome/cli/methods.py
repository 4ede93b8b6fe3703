"""Which methods are there, and what do they ask for?"""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from microtome import registry
from microtome.errors import InputError

__all__ = ["methods"]


def methods(
    kind: Annotated[str | None, Parameter(help="Only this kind, such as attribution or units.")] = None,
) -> None:
    """List the registered methods: name, what it computes, what it needs of a layer.

    Example: `microtome methods --kind attribution`
    """
    found = registry.methods(kind)
    if not found:
        known = sorted({method.kind for method in registry.methods().values()})
        raise InputError(f'there are no methods of kind "{kind}". Kinds: {", ".join(known)}.')
    width = max(len(name) for name in found)
    for name, method in found.items():
        needs = f" Needs {method.needs}." if method.needs else ""
        print(f"{name:<{width}}  {method.summary}{needs}")
