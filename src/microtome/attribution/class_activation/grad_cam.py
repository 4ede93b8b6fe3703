"""Grad-CAM: feature maps of a layer, weighted by the mean gradient of the class score."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from microtome.attribution.batching import by_batch
from microtome.attribution.class_activation.arrangement import (
    Arrangement,
    arrangement,
    check_in_place,
    may_be_displaced,
)
from microtome.attribution.class_activation.default_layer import map_layer
from microtome.attribution.result import LayerAttribution, wide
from microtome.errors import LayerError
from microtome.inputs import Target
from microtome.network import Network
from microtome.registry import register
from microtome.results import stated
from microtome.trace.passes import RecordedPass


@register(
    "grad-cam",
    rows=("C4", "C5"),
    paper="selvaraju2020gradcam",
    needs="a layer with height and width, or of patch tokens",
    quantity="weighted activation",
    signed=False,
)
def grad_cam(
    net: Network,
    images: Any,
    target: Target = None,
    *,
    layer: str | None = None,
    counterfactual: bool = False,
    batch: int | None = None,
) -> LayerAttribution:
    r"""Weight each feature map by the mean gradient of the class score, keep the positive part.

    .. math:: \alpha_k = \frac{1}{hw}\sum_{ij} \frac{\partial S_c}{\partial f_k(i,j)}, \qquad
              M = \mathrm{ReLU}\Big(\sum_k \alpha_k f_k\Big)

    With ``counterfactual`` the weights change sign: the map shows evidence against the class [1]_.
    On a network with global average pooling and a linear head, M is the positive part of CAM divided
    by hw. In a vision transformer the positions are the tokens of patches. Class and register tokens
    are left out; a measurement finds them.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    target : int, str, sequence, Tensor or None
        The class that is explained; None for the predicted one.
    layer : str, optional
        The layer whose feature maps are weighted; it has height and width, or one token for each patch.
        Default: the last such layer that is not pooling; in a transformer with a class token the layer
        that the last attention reads (``"blocks.11.norm1"``).
    counterfactual : bool
        Weigh by the negative gradient.
    batch : int, optional
        Images in one pass; default eight of 224 x 224 pixels, up to 64 smaller ones.

    Returns
    -------
    LayerAttribution
        ``values`` (N, 1, h, w) >= 0 at the layer's own size, in logits times 1/hw; ``map`` is
        bilinear at image size.

    Raises
    ------
    InputError
        When images or targets do not fit the network.
    LayerError
        When the layer does not exist or has no places on the picture; when nothing that its patch tokens
        hold reaches the score; when the model has flipped, turned, exchanged or left out parts of the picture
        before it.
    ModelError
        When the model raises, or a gradient is not finite.

    Notes
    -----
    Cost: one forward pass, and one backward pass that ends at ``layer``; no weight gradients. In a
    transformer without a named layer, one more pass each way of a gray picture finds it. It shows nothing
    finer than the layer's grid, and the mean of the gradients stands for gradients that may differ from
    place to place: where a dense head reads each position by weights of its own they can cancel, and a
    shortcut that depends on its position is invisible. In a transformer every token depends on the whole
    image: its position is that of its patch, not everything that it depends on.

    References
    ----------
    .. [1] Selvaraju et al., Grad-CAM: visual explanations from deep networks via gradient-based
       localization, IJCV 2020.

    Examples
    --------
    One channel that is the image, score 3 times its mean: alpha = 3/4 over 4 positions.

    >>> from torch import nn
    >>> head = nn.Linear(1, 1, bias=False)
    >>> _ = head.weight.data.fill_(3.0)
    >>> net = Network(nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head), input_shape=(1, 2, 2))
    >>> grad_cam(net, torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])).values
    tensor([[[[0.0000, 0.7500],
              [0.0000, 0.7500]]]])
    """
    layer = map_layer(net, layer)
    laid = arrangement(net, layer)
    if laid.kind != "tokens" and may_be_displaced(net, layer):
        check_in_place(net, net.layer(layer).name, lambda value: laid.maps(value, len(value)))

    def weighted(part: Tensor, classes: Target) -> tuple[Tensor, RecordedPass]:
        record = net.run(part, classes, record=layer, gradient=True, check=False)
        features, gradient = (wide(laid.maps(found[layer], len(part))) for found in (record.value, record.gradient))
        _check_reached(laid, gradient, record.gradient[layer], layer)
        weights = gradient.mean((2, 3), keepdim=True)
        if counterfactual:
            weights = -weights
        return (weights * features).sum(1, keepdim=True).relu(), record

    maps, records = zip(*by_batch(net, images, target, weighted, batch), strict=True)
    return LayerAttribution(
        provenance=stated(layer=layer),
        values=torch.cat(maps),
        target=torch.cat([record.target for record in records]),
        score=wide(torch.cat([record.score for record in records])),
        images=net.images(images, check=False).detach(),
        classes=net.classes,
        layer=layer,
    )


def _check_reached(laid: Arrangement, gradient: Tensor, whole: Tensor, layer: str) -> None:
    """Refuse tokens of patches that have no part in the score while the others have."""
    if laid.kind == "tokens" and not bool(gradient.any()) and bool(whole.any()):
        raise LayerError(
            f'the score depends on the class token of "{layer}" alone: its {laid.height} x {laid.width} patch tokens '
            "have no gradient, and a map of them would be zero. Choose a layer before the last attention, such as the "
            "norm that it reads or the block before; without a layer the right one is found."
        )
