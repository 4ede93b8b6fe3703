"""One unit on one picture: its activation at the pixels, its dissection, and its part in the score of a class."""

from __future__ import annotations

import torch
from torch import Tensor

from microtome import units
from microtome.atlas.pictures.downscaling import downscaled_signal
from microtome.attribution.relevance.unit_sums import decompose
from microtome.errors import LayerError
from microtome.explorer.frames import Frame, quantised
from microtome.network import Network
from microtome.units.wiring.channel_sources import same_channels

__all__ = ["dissected", "linear_layer_of", "projected", "summed"]

_ROWS = 24  # number of input channels shown, the strongest
_SIDE = 32  # side in pixels of a map in the table


def projected(net: Network, image: Tensor, layer: str, unit: int, method: str) -> Frame:
    """The activation at the unit's strongest place, at the pixels; blocks ``map`` (1, H, W) with ``limits``."""
    made = units.project_back(net, image, layer, unit, method=method)
    values, limits = quantised(made.map, signed=True)
    header = {
        "layer": layer,
        "unit": unit,
        "method": method,
        "signed": True,
        "activation": float(made.score[0]),
        "position": made.position[0].tolist(),
    }
    return Frame(header, {"map": values, "limits": limits})


def linear_layer_of(net: Network, layer: str) -> str:
    """The layer itself, or the convolution or matrix product before it, where only norms and rectifiers lie between.

    Raises
    ------
    LayerError
        When the layer's units are made in another way, such as by a sum of branches.
    """
    found = net.layer(layer)
    name = found.name
    while True:
        linear = found.leaf and found.operator in ("conv2d", "linear", "addmm", "matmul", "mm")
        if linear and (found.name == name or same_channels(net, found.name, name, made=True)):
            return found.name
        below = [net.layers[one] for one in found.inputs if one in net.layers]
        if linear or len(below) != 1 or below[0].units != net.layer(layer).units:
            raise LayerError(
                f'the units of "{name}" ({net.layer(layer).kind}) are not the output of one convolution or matrix '
                "product, so there is no sum over input channels to show. Choose a convolution or linear layer."
            )
        found = below[0]


def dissected(net: Network, image: Tensor, layer: str, unit: int) -> Frame:
    """The unit as a sum over input channels, the largest amounts first.

    Blocks: ``x``, ``w``, ``a`` as bytes with ``x_limits``, ``w_limits``, ``a_limits``; ``channel`` (rows,), ``share``
    and ``amount`` (rows,): the contribution at the place where the unit is strongest; ``y`` (1, h, w).
    """
    linear = linear_layer_of(net, layer)
    made = units.dissect(net, image, linear, unit)
    place = int(made.output.flatten().argmax())
    amounts = made.contributions.flatten(1)[:, place]
    rows = amounts.abs().argsort(descending=True, stable=True)[:_ROWS]
    blocks: dict[str, Tensor] = {
        "channel": made.channels[rows].to(torch.int32),
        "share": made.share[rows].float(),
        "amount": amounts[rows].float(),
    }
    for name, maps, signed in (
        ("x", made.inputs[rows], bool((made.inputs < 0).any())),
        ("w", made.weights[rows], True),
        ("a", made.contributions[rows], True),
        ("y", made.output[None], True),
    ):
        blocks[name], blocks[f"{name}_limits"] = quantised(downscaled_signal(maps, _SIDE), signed=signed)
    width = made.output.shape[1]
    header = {
        "layer": linear,
        "asked": layer,
        "unit": unit,
        "source": made.source,
        "inputs": len(made.channels),
        "bias": made.bias,
        "value": float(made.output.flatten()[place]),
        "rest": float(amounts.sum() - amounts[rows].sum()),
        "position": [place // width, place % width],
        "x_signed": bool((made.inputs < 0).any()),
        "gap": made.gap,
        "bound": made.bound,
    }
    return Frame(header, blocks)


def summed(net: Network, image: Tensor, layer: str, target: int | None) -> Frame:
    """The score of a class as a sum over the units of a layer; blocks ``unit`` and ``amount``, largest first."""
    index = int(net.targets(target, net.logits(image))[0])
    decomposed = decompose(net, image, index, [layer])
    steps = [step for step in decomposed.steps if step[0] == layer]
    pixels = sum(step[2] for step in decomposed.steps if step[0] == "input")
    header = {
        "layer": layer,
        "target": index,
        "score": decomposed.score,
        "bias": decomposed.bias,
        "rest": decomposed.rest + pixels,
        "held": decomposed.held,
    }
    blocks = {
        "unit": torch.tensor([step[1] for step in steps], dtype=torch.int32, device="cpu"),
        "amount": torch.tensor([step[2] for step in steps], dtype=torch.float32, device="cpu"),
    }
    return Frame(header, blocks)
