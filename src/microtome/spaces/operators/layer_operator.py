"""The operator of a layer: the class for each kind of layer."""

from __future__ import annotations

from microtome.errors import LayerError
from microtome.network import Network
from microtome.spaces.operators.convolution import convolution
from microtome.spaces.operators.linear_layer import PRODUCTS, linear_call, shape_read_by, weight_of
from microtome.spaces.operators.matrix import MatrixOperator
from microtome.spaces.operators.operator import Operator


def layer_operator(net: Network, layer: str) -> Operator:
    """The exact linear operator of a Linear or convolution layer; see ``spaces.operator``.

    Raises
    ------
    LayerError
        When the layer is no linear map.
    """
    call = linear_call(net, layer)
    if call.kind not in PRODUCTS:
        return convolution(net, layer, call)
    weight = weight_of(call)
    if weight is None:
        raise LayerError(f'"{layer}" has no fixed weight.')
    return MatrixOperator(layer, weight, shape_read_by(net, layer))
