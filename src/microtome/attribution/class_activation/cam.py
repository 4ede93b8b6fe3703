"""CAM: class activation maps of networks with global average pooling and a linear head."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from microtome.attribution.batching import by_batch
from microtome.attribution.class_activation.arrangement import check_in_place, may_be_displaced
from microtome.attribution.result import LayerAttribution, wide
from microtome.errors import LayerError
from microtome.inputs import Target
from microtome.network import Network
from microtome.registry import register
from microtome.results import stated
from microtome.trace.passes import RecordedPass

# How far two sums of the same numbers in another order may differ, relative to the largest.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}


@register(
    "cam",
    rows=("C3",),
    paper="zhou2016learning",
    needs="global average pooling before a linear head",
    quantity="weighted activation",
)
def cam(net: Network, images: Any, target: Target = None, *, batch: int | None = None) -> LayerAttribution:
    r"""Apply the weights of the head to the feature maps before they are averaged.

    .. math:: M_c(i, j) = \sum_k w_{ck} f_k(i, j), \qquad S_c = \frac{1}{hw}\sum_{ij} M_c(i, j) + b_c

    The pooling is found in the graph of the network, in any spelling. The images check that it is a
    mean over the positions and that the head is linear [1]_.

    Parameters
    ----------
    net : Network
        A network whose last feature maps are averaged and then weighted by one linear layer.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    target : int, str, sequence, Tensor or None
        The class that is explained; None for the predicted one.
    batch : int, optional
        Images in one pass; default eight of 224 x 224 pixels, up to 64 smaller ones.

    Returns
    -------
    LayerAttribution
        ``values`` (N, 1, h, w) signed, in logits; their mean and the bias are the score.

    Raises
    ------
    InputError
        When images or targets do not fit the network.
    LayerError
        When the network has no global average pooling before a linear head; when the model has flipped, turned,
        exchanged or left out parts of the picture before it.
    ModelError
        When the model raises.

    Notes
    -----
    Cost: one forward pass and one backward pass through the head. The map shows nothing finer than
    the grid of the last layer. Grad-CAM gives the same map, divided by hw and without its negative
    part, for other networks, too.

    References
    ----------
    .. [1] Zhou, Khosla, Lapedriza, Oliva and Torralba, Learning deep features for discriminative
       localization, CVPR 2016.

    Examples
    --------
    >>> from torch import nn
    >>> head = nn.Linear(1, 1, bias=False)
    >>> _ = head.weight.data.fill_(3.0)
    >>> net = Network(nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head), input_shape=(1, 2, 2))
    >>> cam(net, torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])).values
    tensor([[[[0., 3.],
              [0., 3.]]]])
    """
    features, pooled = _pooling(net)
    grid = net.layer(features).axes.grid

    def weighted(part: Tensor, classes: Target) -> tuple[Tensor, RecordedPass]:
        record = net.run(part, classes, record=[features, f"{pooled}@input", pooled], gradient=True, check=False)
        read = record.value[f"{pooled}@input"]
        read = read if read.dim() == 4 else record.value[features]  # the positions may have been flattened
        if may_be_displaced(net, features) or not torch.equal(read, record.value[features]):
            check_in_place(
                net, f"{pooled}@input", lambda value: value if value.dim() == 4 else value.unflatten(2, grid)
            )
        _check_mean(read, record.value[pooled], pooled)
        weights = record.gradient[pooled].flatten(1)  # dS_c / d(mean of f_k) = w_ck for a linear head
        halved = net.run(part, record.target, record=pooled, gradient=True, replace={pooled: _half}, check=False)
        if not _close(weights, halved.gradient[pooled].flatten(1)):
            raise LayerError(f'the head behind "{pooled}" is not linear. {_ADVICE}')
        return (wide(weights)[:, :, None, None] * wide(read)).sum(1, keepdim=True), record

    maps, records = zip(*by_batch(net, images, target, weighted, batch), strict=True)
    return LayerAttribution(
        provenance=stated(layer=features),
        values=torch.cat(maps),
        target=torch.cat([record.target for record in records]),
        score=wide(torch.cat([record.score for record in records])),
        images=net.images(images, check=False).detach(),
        classes=net.classes,
        layer=features,
    )


_ADVICE = (
    "CAM needs global average pooling followed by one linear layer. Convert this network with "
    "`surgery.convert_to_cam(net, train, test)`, which replaces its head and fine-tunes a copy, or use grad_cam, "
    "which serves any network."
)


def _pooling(net: Network) -> tuple[str, str]:
    """The last layer that turns maps into one number per channel, and what it reads."""
    for layer in reversed(list(net.layers.values())):
        for name in layer.inputs:
            source = net.layers.get(name)
            if source is None or not source.axes.channels_first or math.prod(source.axes.grid) == 1:
                continue
            if layer.shape in ((source.shape[0],), (source.shape[0], 1, 1)):
                return name, layer.name
    raise LayerError(f"no layer averages feature maps to one number per channel. {_ADVICE}")


def _check_mean(features: Tensor, pooled: Tensor, name: str) -> None:
    if not _close(features.mean((2, 3)), pooled.flatten(1)):
        raise LayerError(f'"{name}" is no mean over the positions of its maps (a maximum?). {_ADVICE}')


def _half(value: Tensor) -> Tensor:
    return value / 2


def _close(a: Tensor, b: Tensor) -> bool:
    slack = _ROUNDING.get(a.dtype, 1e-4) * max(float(a.abs().max()), 1e-30)
    return bool((a - b).abs().max() <= slack)
