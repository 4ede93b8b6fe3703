"""The projection of a layer's input on the weight vector of each unit, and the residual."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result
from microtome.spaces.operators.linear_layer import CONVOLUTIONS, PRODUCTS, images_first, linear_call, weight_of
from microtome.spaces.split.subspaces import _row_shape
from microtome.trace import Call


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightVectors(Result, drawing="spaces.space_figures:weight_vectors"):
    """Inputs split along every unit's weight vector.

    Attributes
    ----------
    layer : str
        The layer.
    weights : Tensor
        (units, n): one weight vector for each unit.
    inputs : Tensor
        (N, n): what the layer reads; empty for a convolution, which reads many patches of one image.
    coefficient : Tensor
        (N, units): x = coefficient * w + residual; empty for a convolution.
    energy : Tensor
        (N, units): energy of the input; for a convolution that of all its patches together.
    kept : Tensor
        (N, units): energy of the projection on w.
    input_shape : tuple of int
        The picture shape of a weight vector.
    """

    layer: str
    weights: Tensor
    inputs: Tensor
    coefficient: Tensor
    energy: Tensor
    kept: Tensor
    input_shape: tuple[int, ...]

    @property
    def removed(self) -> Tensor:
        """(N, units): energy of the residual, which the unit ignores."""
        return (self.energy - self.kept).clamp(min=0)

    def projection(self, image: int, unit: int) -> Tensor:
        """The part of an input along the unit's weight vector, shaped as a picture."""
        self._check(image, unit)
        return (self.coefficient[image, unit] * self.weights[unit]).reshape(self.input_shape)

    def residual(self, image: int, unit: int) -> Tensor:
        """The part of an input that the unit ignores (equation 4 of the paper), shaped as a picture."""
        along = self.projection(image, unit)
        return self.inputs[image].reshape(self.input_shape) - along

    def _check(self, image: int, unit: int) -> None:
        if not self.inputs.numel():
            raise LayerError(f'"{self.layer}" is a convolution: each patch has its own projection; see kept, removed.')
        n, units = self.coefficient.shape
        if not (0 <= image < n and 0 <= unit < units):
            raise InputError(f"image below {n} and unit below {units} were expected, got {image} and {unit}.")


@register(
    "weight-vectors", rows=("A3",), paper="pattichis2024spaces", needs="a Linear or convolution layer", kind="spaces"
)
def weight_vectors(net: Network, images: Tensor, layer: str, *, check: bool = True) -> WeightVectors:
    r"""Split what a layer reads into the part along each unit's weight vector and the residual.

    .. math:: \mathrm{proj}_w x = \frac{w^T x}{w^T w}\,w,\qquad
              \mathrm{residual} = x - \mathrm{proj}_w x,\qquad
              \|x\|^2 = \|\mathrm{proj}_w x\|^2 + \|\mathrm{residual}\|^2

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    layer : str
        A Linear layer, or a convolution: there x runs over the patches of the image, and energies are
        summed over them.
    check : bool
        Whether values outside the pixel range are an error.

    Returns
    -------
    WeightVectors

    Raises
    ------
    LayerError
        When the layer is no linear map, or reads tokens.

    Notes
    -----
    Cost: one forward pass down to the layer and one product. A zero weight vector keeps nothing. The
    input is what the layer reads: a first layer reads normalised pixels. It does not show what the
    units respond to together; ``subspaces`` does.

    References
    ----------
    .. [1] R. Pattichis, M. S. Pattichis. Understanding neural network systems for image analysis using vector
       spaces and inverse maps. SSIAI 2024.

    Examples
    --------
    >>> fc = torch.nn.Linear(2, 1, bias=False)
    >>> _ = fc.weight.data.copy_(torch.tensor([[2.0, 0.0]]))
    >>> net = Network(torch.nn.Sequential(torch.nn.Flatten(), fc), (1, 1, 2))
    >>> w = weight_vectors(net, torch.tensor([[[[0.6, 0.8]]]]), layer="1")
    >>> round(w.kept.item(), 6), round(w.removed.item(), 6)
    (0.36, 0.64)
    """
    call = linear_call(net, layer)
    weight = weight_of(call)
    checked = net.images(images, check=check)
    reads = f"{net.layer(layer).operation}@input"  # after what the module itself pads
    x = images_first(net, reads, net.activations(checked, [reads])[reads], len(checked)).double()
    if weight is not None and call.kind in CONVOLUTIONS:
        energy, kept = _patch_energies(call, weight, x)
        return WeightVectors(
            layer=layer,
            weights=weight.flatten(1),
            inputs=x.new_empty(0),
            coefficient=x.new_empty(0),
            energy=energy,
            kept=kept,
            input_shape=tuple(weight.shape[1:]),
        )
    if weight is None or call.kind not in PRODUCTS or x.dim() != 2:
        raise LayerError(
            f'"{layer}" reads {tuple(x.shape[1:])} by {call.kind}; expected a Linear layer on vectors or a convolution.'
        )
    length = weight.square().sum(1)
    coefficient = x @ weight.T / torch.where(length > 0, length, torch.ones_like(length))
    return WeightVectors(
        layer=layer,
        weights=weight,
        inputs=x,
        coefficient=coefficient,
        energy=x.square().sum(1, keepdim=True).expand(-1, len(weight)).contiguous(),
        kept=coefficient.square() * length,
        input_shape=_row_shape(net, layer, int(weight.shape[1])),
    )


def _patch_energies(call: Call, weight: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Energies over all patches: of the patches, and of their projections on each kernel."""
    bound = call.arguments
    convolve = getattr(functional, call.kind)
    options = (bound["stride"], bound["padding"], bound["dilation"], bound["groups"])
    response = convolve(x, weight, None, *options)
    ones = torch.ones_like(weight)
    patches = convolve(x.square(), ones, None, *options)  # the energy of every patch, per group of channels
    spread = tuple(range(2, response.dim()))
    length = weight.flatten(1).square().sum(1)
    kept = response.square().sum(spread) / torch.where(length > 0, length, torch.ones_like(length))
    return patches.sum(spread), kept
