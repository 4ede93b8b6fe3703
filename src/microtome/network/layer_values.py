"""Values of layers for images, from one pass or joined over several passes; and the operation of one layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from microtome import trace
from microtome.errors import OpaqueError

if TYPE_CHECKING:
    from microtome.network.network import Network

ENDS = frozenset(("input", "logits"))  # values without a layer: the images and the class scores


def layer_values(
    net: Network,
    images: Tensor,
    recorded: Mapping[str, str],
    *,
    live: bool,
    rules: trace.RuleSet | None,
    replace: Mapping[str, trace.Replacement],
    stop: bool,
) -> dict[str, Tensor]:
    """Values of layers in one pass; see ``Network.forward``.

    ``recorded`` maps each name to the name under which the pass records its value; names in ``ENDS`` stay.
    """
    layers = {name: record for name, record in recorded.items() if name not in ENDS}
    ends = net.head.record if "logits" in recorded else []
    wanted = [*layers.values(), *ends]
    values = {"input": images} if "input" in recorded else {}
    if not wanted and "logits" not in recorded:
        return values
    again = True
    while again:
        tracer = trace.Tracer(
            net.model,
            wanted,
            live=wanted or ("logits",) if live else (),
            rules=rules,
            replace=replace,
            stop=stop and ("logits" not in recorded or bool(ends)),
            untouched=net.graph.untouched if rules is None else None,
        )
        output = tracer(net.normalise(images))
        again = tracer.overwritten
    if tracer.missing:
        raise OpaqueError(f'layer "{sorted(tracer.missing)[0]}" did not run for these images.')
    values.update({name: tracer.value[record] for name, record in layers.items()})
    if "logits" in recorded:
        values["logits"] = net.head.scores(tracer, output, len(images))
    return values


def joined(axes: trace.Axes | None, parts: list[Tensor], counts: list[int]) -> Tensor:
    """The value of all images, joined from several passes; along the first axis if the axes are not known."""
    if axes is None or len(axes.factors) != parts[0].dim():
        axes = trace.Axes(((trace.Factor("image", 0),), *(((),) * (parts[0].dim() - 1))))
    return axes.join(parts, counts)


def operation_call(net: Network, layer: str, images: Any) -> trace.Call:
    """The operation of a layer, as the model calls it; see ``Network.call``."""
    found = net.layer(layer)
    inputs = net.probe if images is None else images
    prepared = net.normalise(net.images(inputs, check=False).detach())
    capture = trace.Capture(found.operation)
    with torch.no_grad():
        trace.Tracer(net.model, [found.operation], observer=capture)(prepared)
    if capture.call is None:
        raise OpaqueError(f'layer "{layer}" shows no torch operation of its own.')
    return capture.call
