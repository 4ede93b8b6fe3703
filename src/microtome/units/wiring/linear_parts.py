"""Terms of one output channel of a convolution or matrix product, by input channel, in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.trace.graph import Layer
from microtome.trace.operators.operator_calls import Call
from microtome.units.streaming.streaming_pass import computing_layers
from microtome.units.wiring.channel_sources import channels_from


@dataclass(frozen=True)
class Parts:
    """The terms of one output channel; see ``Dissection`` for the shapes."""

    inputs: Tensor
    weights: Tensor
    contributions: Tensor
    bias: float
    output: Tensor
    channels: Tensor
    bound: float
    source: str = ""


@torch.no_grad()
def parts(net: Network, layer: Layer, image: Tensor, channel: int) -> Parts:
    """Decompose one output channel of a layer on one image.

    Raises
    ------
    LayerError
        When the layer is neither a two-dimensional convolution nor a matrix product with weights.
    InputError
        When there is no such channel.
    """
    call = _linear_call(net, layer, image)
    output = call.run()
    units = output.shape[-3] if call.kind == "conv2d" else output.shape[-1]
    if not 0 <= channel < units:
        raise InputError(f'layer "{layer.name}" has channels 0 to {units - 1}, not {channel}.')
    source = _source(net, layer)
    of = channels_from(net, source, layer.name)
    made = _convolution(call, output, channel) if call.kind == "conv2d" else _product(call, output, channel)
    if of is None:  # what the layer reads has no channels of another layer
        return replace(made, source=f"{layer.name}@input")
    return replace(made, source=source, channels=of.to(made.channels.device)[made.channels])


def _linear_call(net: Network, layer: Layer, image: Tensor) -> Call:
    call = net.call(layer.name, image)
    product = call.kind in ("matmul", "mm") and _weight_of_product(call) is not None
    if call.kind in _FITTING or product:
        return call
    fit = [name for name in computing_layers(net) if net.layer(name).operator in _FITTING and name != layer.name]
    inner = [name for name in fit if name.startswith(f"{layer.name}.")]
    raise LayerError(
        f'layer "{layer.name}" is a {layer.kind} that ends in {call.kind}; a two-dimensional convolution or a fully '
        f"connected layer was expected. Choose {', '.join((inner or fit)[:6]) or 'another network'}."
    )


_SAME = ("flatten", "dropout", "identity")
_FITTING = ("conv2d", "linear", "addmm")  # matrix products fit if they have a weight


def _convolution(call: Call, output: Tensor, channel: int) -> Parts:
    """Convolve each input channel of the group separately, by a depthwise convolution."""
    arguments = call.arguments
    x = arguments["input"].detach().double()
    x = x[None] if x.dim() == 3 else x
    weight, groups = arguments["weight"].detach().double(), int(arguments["groups"])
    count = weight.shape[1]
    first = channel // (weight.shape[0] // groups) * count
    channels = torch.arange(first, first + count, device=x.device)
    inputs = x[:, channels]
    kernel = weight[channel][:, None]
    options = (arguments["stride"], arguments["padding"], arguments["dilation"], count)
    contributions = F.conv2d(inputs, kernel, None, *options)
    bias = 0.0 if arguments["bias"] is None else float(arguments["bias"].detach()[channel])
    magnitude = F.conv2d(inputs.abs(), kernel.abs(), None, *options).sum(1).max() + abs(bias)
    value = output.detach()[:, channel].flatten(0, 1) if output.dim() == 4 else output.detach()[channel]
    bound = float(magnitude) * kernel.numel()
    below = [part.movedim(1, 0).flatten(1, 2) for part in (inputs, contributions)]  # pieces of the image, if any
    return Parts(below[0], kernel[:, 0], below[1], bias, value, channels, bound)


def _product(call: Call, output: Tensor, channel: int) -> Parts:
    """Multiply each input feature by its weight; tokens are the height of the maps."""
    arguments = call.arguments
    scale, bias_scale = 1.0, 1.0
    if call.kind == "linear":
        x, weight = arguments["input"], arguments["weight"][channel]
    elif call.kind == "addmm":
        x, weight = arguments["input"], arguments["weight"][:, channel]
        scale, bias_scale = float(arguments["alpha"]), float(arguments["beta"])
    else:
        x, matrix = arguments["input"], _weight_of_product(call)
        weight = matrix[:, channel] if matrix is not None else arguments["other"]
    flat = x.detach().double().reshape(-1, x.shape[-1])
    weight = weight.detach().double() * scale
    contributions = flat.T * weight[:, None]
    bias = arguments.get("bias")
    offset = 0.0 if bias is None else bias_scale * float(bias.detach().expand(output.shape[-1:])[channel])
    value = output.detach().reshape(-1, output.shape[-1])[:, channel]
    magnitude = contributions.abs().sum(0).max() + abs(offset)
    return Parts(
        flat.T[..., None],
        weight[:, None, None],
        contributions[..., None],
        offset,
        value[:, None],
        torch.arange(weight.numel(), device=value.device),
        float(magnitude) * weight.numel(),
    )


def _weight_of_product(call: Call) -> Tensor | None:
    """The right-hand matrix of x @ W."""
    other = call.arguments.get("other", call.arguments.get("argument1"))
    return other if isinstance(other, Tensor) and other.dim() == 2 else None


def _source(net: Network, layer: Layer) -> str:
    """The input layer, or its input if it is flattening, dropout or identity."""
    name = layer.inputs[0] if layer.inputs else "input"
    below = net.layers.get(name)
    while below is not None and below.inputs and (below.kind == "Identity" or (below.leaf and below.operator in _SAME)):
        name = below.inputs[0]
        below = net.layers.get(name)
    return name
