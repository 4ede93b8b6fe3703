"""``microtome layers``: the layers of a network."""

from __future__ import annotations

import sys

from microtome.cli.options import Json, ModelOptions
from microtome.cli.output import columns, tell

__all__ = ["layers"]


def layers(*, model: ModelOptions, json: Json = False) -> None:
    """List the layers in the order they run: name, kind, output shape, axes, units, parameters, receptive field.

    Operations between modules are layers too, named after the module they run in: `layer1.0/relu`.

    Example: `microtome layers --model zoo:efficientnet-lite0`
    """
    net = model.network()
    if not json:
        print(net.text(columns(sys.stdout)))
        return
    rows = (
        {
            "name": layer.name,
            "kind": layer.kind,
            "shape": list(layer.shape),
            "units": layer.units,
            "parameters": layer.parameters,
            "receptive_field": None if layer.field is None else list(layer.field.size),
        }
        for layer in net.layers.values()
    )
    tell(rows, str, as_json=True)
