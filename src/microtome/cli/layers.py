"""Which layers does a network have?"""

from __future__ import annotations

from microtome.cli.options import ModelOptions

__all__ = ["layers"]


def layers(*, model: ModelOptions) -> None:
    """List the layers in the order they run: name, kind, output shape, units, parameters, receptive field.

    Operations between modules are layers too, named after the module they run in: `layer1.0/relu`.

    Example: `microtome layers --model zoo:efficientnet-lite0`
    """
    print(model.network())
