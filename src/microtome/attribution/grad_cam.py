"""Where do a layer's feature maps speak for a class, or against it?"""

from __future__ import annotations

from typing import Any

import torch

from microtome.attribution.chunks import chunks
from microtome.attribution.layers import map_layer
from microtome.attribution.result import LayerAttribution, wide
from microtome.inputs import Target
from microtome.network import Network
from microtome.registry import register
from microtome.results import provenance


@register("grad-cam", rows=("C4", "C5"), paper="selvaraju2020gradcam", needs="a layer with height and width")
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

    With ``counterfactual`` the weights change sign: the regions that speak against the class [1]_.
    On a network with global average pooling and a linear head, M is the positive part of CAM divided
    by hw.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    target : int, str, sequence, Tensor or None
        The class asked about; None for the predicted one.
    layer : str, optional
        Whose feature maps are weighted; default the last with height and width that is no pooling.
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
        When the layer does not exist or has no height and width.
    ModelError
        When the model raises, or a gradient is not finite.

    Notes
    -----
    Cost: one forward pass, and one backward pass that ends at ``layer``; no weight gradients. It
    shows nothing finer than the layer's grid, and below the last layer the mean of the gradients
    stands for gradients that may differ from place to place.

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
    maps, tapes = [], []
    for part, asked in chunks(net, images, target, batch):
        tape = net.tape(part, asked, record=layer, gradient=True)  # the engine; stops where it may
        features, gradient = wide(tape.value[layer]), wide(tape.gradient[layer])
        weights = gradient.mean((2, 3), keepdim=True)
        if counterfactual:
            weights = -weights
        maps.append((weights * features).sum(1, keepdim=True).relu())
        tapes.append(tape)
    return LayerAttribution(
        provenance=provenance(net, "grad-cam", target=target, layer=layer, counterfactual=counterfactual),
        values=torch.cat(maps),
        target=torch.cat([tape.target for tape in tapes]),
        score=wide(torch.cat([tape.score for tape in tapes])),
        images=net.images(images).detach(),
        classes=net.classes,
        layer=layer,
    )
