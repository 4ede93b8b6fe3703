"""What does one output of a convolution or matrix product add up from? Its terms by input channel, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.trace.graph import Layer
from microtome.trace.operators import Call


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
    source: str


@torch.no_grad()
def parts(net: Network, layer: Layer, image: Tensor, channel: int) -> Parts:
    """Take one output channel of a layer apart on one image.

    Raises
    ------
    LayerError
        When the layer is no two-dimensional convolution and no matrix product with weights.
    InputError
        When there is no such channel.
    """
    call = _linear_call(net, layer, image)
    output = call.run()
    units = output.shape[-3] if call.kind == "conv2d" else output.shape[-1]
    if not 0 <= channel < units:
        raise InputError(f'layer "{layer.name}" has channels 0 to {units - 1}, not {channel}.')
    if call.kind == "conv2d":
        return _convolution(call, output, channel, layer.inputs[0] if layer.inputs else "input")
    return _product(net, layer, call, output, channel)


def _linear_call(net: Network, layer: Layer, image: Tensor) -> Call:
    call = net.call(layer.name, image)
    plain_product = call.kind in ("matmul", "mm") and _weight_of_product(call) is not None
    if call.kind in ("conv2d", "linear", "addmm") or plain_product:
        return call
    fit = [name for name, other in net.layers.items() if other.leaf and other.kind in _KINDS]
    inner = [name for name in fit if name.startswith(f"{layer.name}.")]
    raise LayerError(
        f'layer "{layer.name}" is a {layer.kind} that ends in {call.kind}; a two-dimensional convolution or a fully '
        f"connected layer was expected. Choose {', '.join((inner or fit)[:6]) or 'another network'}."
    )


_KINDS = ("Conv2d", "Linear", "conv2d", "linear", "addmm", "LazyConv2d", "LazyLinear")


def _convolution(call: Call, output: Tensor, channel: int, source: str) -> Parts:
    """Each input channel of the group convolved by itself: a depthwise convolution of the group."""
    given = call.arguments
    x = given["input"].detach().double()
    x = x[None] if x.dim() == 3 else x
    weight, groups = given["weight"].detach().double(), int(given["groups"])
    count = weight.shape[1]
    first = channel // (weight.shape[0] // groups) * count
    channels = torch.arange(first, first + count, device=x.device)
    mine = x[:, channels]
    kernel = weight[channel][:, None]
    options = (given["stride"], given["padding"], given["dilation"], count)
    contributions = F.conv2d(mine, kernel, None, *options)[0]
    bias = 0.0 if given["bias"] is None else float(given["bias"].detach()[channel])
    loudest = F.conv2d(mine.abs(), kernel.abs(), None, *options)[0].sum(0).max() + abs(bias)
    value = output.detach()[0, channel] if output.dim() == 4 else output.detach()[channel]
    bound = float(loudest) * kernel.numel()
    return Parts(mine[0], kernel[:, 0], contributions, bias, value, channels.cpu(), bound, source)


def _product(net: Network, layer: Layer, call: Call, output: Tensor, channel: int) -> Parts:
    """Each input feature times its weight; tokens lie along the height."""
    given = call.arguments
    scale, bias_scale = 1.0, 1.0
    if call.kind == "linear":
        x, weight = given["input"], given["weight"][channel]
    elif call.kind == "addmm":
        x, weight = given["input"], given["weight"][:, channel]
        scale, bias_scale = float(given["alpha"]), float(given["beta"])
    else:
        x, matrix = given["input"], _weight_of_product(call)
        weight = matrix[:, channel] if matrix is not None else given["other"]
    flat = x.detach().double().reshape(-1, x.shape[-1])
    weight = weight.detach().double() * scale
    contributions = flat.T * weight[:, None]
    bias = given.get("bias")
    offset = 0.0 if bias is None else bias_scale * float(bias.detach().expand(output.shape[-1:])[channel])
    value = output.detach().reshape(-1, output.shape[-1])[:, channel]
    loudest = contributions.abs().sum(0).max() + abs(offset)
    source = _source(net, layer)
    return Parts(
        flat.T[..., None],
        weight[:, None, None],
        contributions[..., None],
        offset,
        value[:, None],
        _source_channels(net, source, weight.numel()),
        float(loudest) * weight.numel(),
        source,
    )


def _weight_of_product(call: Call) -> Tensor | None:
    """The right-hand matrix of x @ W."""
    other = call.arguments.get("other", call.arguments.get("argument1"))
    return other if isinstance(other, Tensor) and other.dim() == 2 else None


def _source(net: Network, layer: Layer) -> str:
    """The layer that is read, flattening and dropout looked through."""
    name = layer.inputs[0] if layer.inputs else "input"
    below = net.layers.get(name)
    while below is not None and below.inputs and below.kind in ("Flatten", "Dropout", "Identity", "AlphaDropout"):
        name = below.inputs[0]
        below = net.layers.get(name)
    return name


def _source_channels(net: Network, source: str, count: int) -> Tensor:
    """Which channel of the layer below each feature belongs to, where a map was flattened channel by channel."""
    shape = net.input_shape if source == "input" else net.layer(source).shape
    features = torch.arange(count)
    area = shape[1] * shape[2] if len(shape) == 3 else 1
    return features // area if len(shape) == 3 and shape[0] * area == count else features
