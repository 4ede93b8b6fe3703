"""The weights and the operation of a Linear or convolution layer, read from the call that the model makes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from microtome.errors import LayerError, ModelError
from microtome.inputs import copied, state
from microtome.network import Network
from microtome.trace import Call
from microtome.trace.operators.operator_table import CONVOLUTIONS as CONVOLUTIONS
from microtome.trace.operators.operator_table import TRANSPOSED as TRANSPOSED
from microtome.trace.operators.operator_table import those

PRODUCTS = those(role="linear") | {"matmul"}
LINEAR = CONVOLUTIONS | TRANSPOSED | PRODUCTS

VIEWS = ("matrix", "kernels", "patches", "exact")


def linear_layers(net: Network) -> list[str]:
    """Names of the layers that are a linear map with weights of their own, in the order they run."""
    return [
        layer.name
        for layer in net.layers.values()
        if layer.leaf and layer.parameters and layer.operator in LINEAR and "#" not in layer.name
    ]


def chosen_linear_layers(net: Network, layers: Iterable[str] | None) -> list[str]:
    """The named layers, each once; by default all linear layers.

    Raises
    ------
    LayerError
        When there is none.
    """
    names = linear_layers(net) if layers is None else list(dict.fromkeys(layers))
    if not names:
        what = "the network has no Linear layer and no convolution" if layers is None else "no layer was named"
        raise LayerError(f"{what}; `microtome layers` lists all layers.")
    return names


def linear_call(net: Network, layer: str) -> Call:
    """The linear operation of a layer, weights as used.

    Raises
    ------
    LayerError
        When the layer is no linear map with weights.
    ModelError
        When its weights are not finite.
    """
    found = net.layer(layer)
    call = net.call(layer) if found.operator in LINEAR else None
    weight = None if call is None else weight_of(call)
    if call is None or weight is None:
        known = [name for name in linear_layers(net) if name != layer]
        by_name = isinstance(found.module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        kind = f"{found.kind} without fixed weights on values of the image" if by_name else found.kind
        raise LayerError(
            f'a Linear or convolution layer was expected, "{layer}" is {kind}. '
            f"Linear maps of this network: {', '.join(known[:12])}{', ...' if len(known) > 12 else ''}."
        )
    if not bool(weight.isfinite().all()):
        raise ModelError(f'the weights of "{layer}" hold NaN or infinity; load a checkpoint from before that.')
    return call


def read_by(net: Network, layer: str) -> str:
    """The name of the value that a layer's operator reads: after padding that the module does as a step of its own.

    Circular and other padding modes are part of the operator, which reads what the module reads.
    """
    found = net.layer(layer)
    padded = getattr(found.module, "padding_mode", "zeros") != "zeros"
    return f"{layer}@input" if padded else f"{found.operation}@input"


def shape_read_by(net: Network, layer: str) -> tuple[int, ...]:
    """The shape, without batch, of what a layer's operator reads: that for one gray image."""
    name, probe = read_by(net, layer), net.probe
    return tuple(images_first(net, name, net.activations(probe, [name])[name], len(probe)).shape[1:])


def images_first(net: Network, name: str, value: Tensor, count: int) -> Tensor:
    """The value or the input of a layer for some images, with the images on the first axis.

    Raises
    ------
    LayerError
        When it is unknown which part belongs to which image.
    """
    axes = net.graph.axes.get(name)
    if axes is not None and len(axes.factors) == value.dim():
        return axes.per_image(value, count)
    if value.dim() and len(value) == count:
        return value
    raise LayerError(f'it is unknown which part of the value of "{name}" belongs to which image: {tuple(value.shape)}.')


def weight_of(call: Call) -> Tensor | None:
    """The weight in float64 as torch lays it out for Linear or convolution; None if there is no fixed one."""
    bound = call.arguments
    if call.kind == "matmul":
        weight = bound["other"]
        fixed = isinstance(weight, torch.nn.Parameter) and weight.dim() == 2
        return weight.detach().double().T if fixed else None
    weight = bound.get("weight")
    if not isinstance(weight, Tensor):
        return None
    return weight.detach().double().T if call.kind == "addmm" else weight.detach().double()


def bias_of(call: Call) -> Tensor | None:
    """The bias in float64, if the operation has one."""
    bias = call.arguments.get("bias")
    return bias.detach().double() if isinstance(bias, Tensor) else None


def channels_first(call: Call) -> Tensor:
    """A convolution's kernels (C_out, C_in / groups, ...), transposed ones turned round, in float64."""
    weight = weight_of(call)
    if weight is None or call.kind not in TRANSPOSED:
        return call.input.new_empty(0) if weight is None else weight
    groups = int(call.arguments["groups"])
    split = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    return split.transpose(1, 2).flatten(0, 1)


def kernel_matrix(call: Call) -> Tensor:
    """Every kernel as a row: (C_out * C_in / groups, kh * kw), the paper's simplified view."""
    return channels_first(call).flatten(2).flatten(0, 1)


def patch_matrix(call: Call) -> Tensor:
    """Every output channel as a row over the patch it reads: (C_out, C_in * kh * kw), zero across groups."""
    kernels = channels_first(call)
    groups = int(call.arguments["groups"])
    if groups == 1:
        return kernels.flatten(1)
    blocks = kernels.reshape(groups, -1, *kernels.shape[1:]).flatten(2)
    whole: Tensor = torch.block_diag(*blocks)
    return whole


def pair(value: Any, dims: int) -> tuple[int, ...]:
    """One number for each spatial dimension.

    Examples
    --------
    >>> pair(2, 2), pair((1, 2, 3), 3)
    ((2, 2), (1, 2, 3))
    """
    numbers = tuple(int(item) for item in value) if isinstance(value, list | tuple) else (int(value),)
    return numbers * dims if len(numbers) == 1 else numbers


def in_double(net: Network) -> Network:
    """The same network in float64, where inverses and regions are exact to 1e-10; a copy, the original stays.

    Raises
    ------
    ModelError
        When the model cannot run in float64 because it fixes another precision inside.
    """
    # Weights made of parameters (weight norm, pruning masks) are float64 only if every tensor is.
    floating = [value for value in state(net.model) if value.is_floating_point()]
    if net.dtype == torch.float64 and all(value.dtype == torch.float64 for value in floating):
        return net
    try:
        model = _doubled(copied(net.model))
        return net.around(model)
    except (ModelError, RuntimeError) as error:
        raise ModelError(
            f"the model does not run in float64, which this method needs: {str(error).rstrip('. ')}. "
            "Take fixed casts (x.float(), torch.zeros(..., dtype=torch.float32)) out of its forward."
        ) from error


def _doubled(model: torch.nn.Module) -> torch.nn.Module:
    """The model itself with every tensor in float64, those held as plain attributes too."""
    model = model.double()
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor) and value.is_floating_point():
                setattr(module, name, value.double())
    if not any(value.is_floating_point() for value in state(model)):
        model.register_buffer(
            "_precision", torch.zeros((), dtype=torch.float64, device="cpu")
        )  # a network's precision is its tensors'
    return model
