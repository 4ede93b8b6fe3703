"""Weights, signal vectors and residuals of class averages: figure 1 of Pattichis and Pattichis (2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome import data
from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, stated
from microtome.spaces.operators.layer_operator import layer_operator
from microtome.spaces.operators.linear_layer import PRODUCTS, chosen_linear_layers, images_first, read_by
from microtome.spaces.split.row_space import STEPS, THRESHOLD, signal_part
from microtome.spaces.split.subspaces import subspaces
from microtome.spaces.split.weight_vectors import weight_vectors


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassResiduals(Result, drawing="spaces.space_figures:class_residuals"):
    """A layer's weights, its signal space, and what it leaves of the average image of each class.

    Attributes
    ----------
    layer : str
        The layer.
    classes : list of str
        Names of the classes that have images.
    averages : Tensor
        (classes, C, H, W): average images in pixel space.
    weights : Tensor
        (units, n): weight vectors.
    signal : Tensor
        (r, n): signal vectors, strongest first.
    singular_values : Tensor
        (min(units, n),).
    condition_number : float
        Of the weight matrix.
    residual : Tensor
        (classes, N): the average, as the layer reads it, less its projection on the weight vector of the
        class's own unit; where the layer has no unit for each class, less its projection on the whole signal
        space. Of a convolution that is the row space of its exact operator on the whole image.
    removed : Tensor
        (classes,): share of the average's energy that is in the residual.
    error : Tensor
        (classes,): bound on the distance of ``removed`` from the exact share; 0 for ``against="unit"``.
    against : str
        ``"unit"`` or ``"layer"``: which of the two residuals it is.
    input_shape, residual_shape : tuple of int
        Picture shapes of the weight and signal vectors, and of the residuals.
    """

    layer: str
    classes: list[str]
    averages: Tensor
    weights: Tensor
    signal: Tensor
    singular_values: Tensor
    condition_number: float
    residual: Tensor
    removed: Tensor
    error: Tensor
    against: str
    input_shape: tuple[int, ...]
    residual_shape: tuple[int, ...]


@register(
    "class-residuals",
    rows=("A3",),
    paper="pattichis2024spaces",
    needs="a Linear layer or convolution, and images with labels",
    kind="spaces",
)
def class_residuals(
    net: Network, dataset: Any, *, layer: str | None = None, threshold: float = THRESHOLD, iterations: int = STEPS
) -> ClassResiduals:
    r"""Weights, signal vectors and residuals of the class averages: figure 1 of the paper for any first layer.

    .. math:: r_k = \bar x_k - \mathrm{proj}\,\bar x_k

    with the projection on the weight vector of the class's own unit (a last layer: equation 4 of the paper), or
    what the layer passes on of it (``signal_part``).

    Parameters
    ----------
    net : Network
        The network.
    dataset : map-style data set
        Images with labels.
    layer : str, optional
        A Linear layer or a convolution; default the first.
    threshold : float
        For a residual against the layer: it makes this share of the layer's output; see ``signal_part``.
    iterations : int
        For convolutions: maximum number of steps; ``error`` is the proved bound.

    Returns
    -------
    ClassResiduals

    Raises
    ------
    LayerError
        When there is no such layer.
    InputError
        When the data set has no labels, or a class is not the network's.

    Notes
    -----
    Cost: one pass over the data for the averages, one SVD; for a convolution a pair of convolution and adjoint a
    step. The residual is in the space the layer reads, so for a later layer it is no picture of the input.

    References
    ----------
    .. [1] R. Pattichis, M. S. Pattichis. Understanding neural network systems for image analysis using vector
       spaces and inverse maps. SSIAI 2024.
    """
    name = layer if layer is not None else chosen_linear_layers(net, None)[0]
    averages, labels = class_averages(data.adapt(dataset, net))
    averages = averages.to(net.device)
    if labels[-1] >= net.output_shape[0]:
        raise InputError(f"label {labels[-1]} is no class of the network, which has {net.output_shape[0]}.")
    convolved = net.layer(name).operator not in PRODUCTS
    spaces = subspaces(net, name, view="patches" if convolved else "matrix")
    split = weight_vectors(net, averages, layer=name)
    error = averages.new_zeros(len(labels))
    paired = not convolved and len(split.weights) == net.output_shape[0] and _is_last(net, name)
    if paired:
        inputs = split.inputs
        residual = inputs - split.coefficient[range(len(labels)), labels][:, None] * split.weights[labels]
    else:
        reads = read_by(net, name)
        inputs = images_first(net, reads, net.activations(averages, [reads])[reads], len(averages)).double()
        part = signal_part(layer_operator(net, name), inputs, threshold=threshold, iterations=iterations)
        residual, error = part.lost, part.error
    energy = inputs.flatten(1).square().sum(1)
    return ClassResiduals(
        provenance=stated(layer=name),
        layer=name,
        classes=[str(label) if net.classes is None else net.classes[label] for label in labels],
        averages=averages,
        weights=split.weights,
        signal=spaces.signal.T.contiguous(),
        singular_values=spaces.singular_values,
        condition_number=spaces.condition_number,
        residual=residual.flatten(1),
        removed=residual.flatten(1).square().sum(1) / torch.where(energy > 0, energy, torch.nan),
        error=error,
        against="unit" if paired else "layer",
        input_shape=split.input_shape,
        residual_shape=tuple(inputs.shape[1:]) if convolved else split.input_shape,
    )


def class_averages(dataset: Any, *, batch: int = 512) -> tuple[Tensor, list[int]]:
    """The average image of every class that has one, float64 (classes, C, H, W), and the classes' indices.

    Raises
    ------
    InputError
        When the data set has no labels.
    """
    sums: dict[int, Tensor] = {}
    counts: dict[int, int] = {}
    for _, images, labels in data.batches(dataset, batch, labelled=True):
        for label in labels.unique().tolist() if labels is not None else ():
            chosen = images[labels == label].double()
            sums[label] = sums.get(label, 0) + chosen.sum(0)
            counts[label] = counts.get(label, 0) + len(chosen)
    known = sorted(label for label in sums if label >= 0)
    if not known:
        raise InputError(
            "images with labels were expected, because class averages need the class: the data set "
            "is empty, or no image of it has a label."
        )
    return torch.stack([sums[label] / counts[label] for label in known]), known


def _is_last(net: Network, layer: str) -> bool:
    return layer in (net.head.layer, net.graph.outputs.get(net.head.path))
