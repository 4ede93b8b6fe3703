"""``microtome methods``: the registered methods."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from microtome.cli.options import Json
from microtome.cli.output import tell
from microtome.errors import InputError

__all__ = ["methods"]


def methods(
    kind: Annotated[str | None, Parameter(help="Only this kind, such as attribution or units.")] = None,
    *,
    json: Json = False,
) -> None:
    """List the registered methods: name, what it computes, what it needs of a layer.

    Example: `microtome methods --kind attribution`
    """
    from microtome import registry

    found = registry.methods(kind)
    if not found:
        known = sorted({method.kind for method in registry.methods().values()})
        raise InputError(f'there are no methods of kind "{kind}". Kinds: {", ".join(known)}.')
    width = max(len(name) for name in found)
    tell(
        (
            {
                "name": name,
                "kind": method.kind,
                "summary": method.summary,
                "needs": method.needs,
                "reference": method.reference if json else "",
            }
            for name, method in found.items()
        ),
        lambda row: f"{row['name']:<{width}}  {row['summary']}" + (f" Needs {row['needs']}." if row["needs"] else ""),
        as_json=json,
        hang=width + 2,
    )
