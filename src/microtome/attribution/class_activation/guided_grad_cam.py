"""Guided Grad-CAM: guided backpropagation times the enlarged Grad-CAM map."""

from __future__ import annotations

from typing import Any

from microtome.attribution.class_activation.default_layer import map_layer
from microtome.attribution.class_activation.grad_cam import grad_cam
from microtome.attribution.gradients.input_gradient import pixel_signal
from microtome.attribution.result import Attribution
from microtome.inputs import Target
from microtome.network import Network
from microtome.registry import register
from microtome.results import stated


@register(
    "guided-grad-cam",
    rows=("C9",),
    paper="selvaraju2020gradcam",
    needs="a layer with height and width, or of patch tokens",
    quantity="signal x activation",
)
def guided_grad_cam(
    net: Network, images: Any, target: Target = None, *, layer: str | None = None, batch: int | None = None
) -> Attribution:
    r"""Guided backpropagation times Grad-CAM enlarged to the image.

    .. math:: M_k(i, j) = G_k(i, j)\; U(M^{\text{Grad-CAM}})(i, j)

    with U bilinear, corners not aligned, and G the guided signal [1]_.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    target : int, str, sequence, Tensor or None
        The class that is explained; None for the predicted one.
    layer : str, optional
        Whose feature maps Grad-CAM weighs; default as in ``grad_cam``.
    batch : int, optional
        Images in one pass; default eight of 224 x 224 pixels, up to 64 smaller ones.

    Returns
    -------
    Attribution
        ``values`` (N, C, H, W) signed; ``map`` is their sum over channels.

    Raises
    ------
    InputError
        When images or targets do not fit the network.
    LayerError
        When the layer does not exist or has no places on the picture.
    ModelError
        When the model raises, or a gradient is not finite.
    OpaqueError
        When something in the model hides its own backward pass; the message names it.

    Notes
    -----
    Cost: Grad-CAM and guided backpropagation together. Class-discriminative only as far as Grad-CAM
    is: inside a region the pattern is that of guided backpropagation.

    References
    ----------
    .. [1] Selvaraju et al., Grad-CAM: visual explanations from deep networks via gradient-based
       localization, IJCV 2020.

    Examples
    --------
    Score 3 times the mean of a positive image: guided signal 3/4 everywhere, Grad-CAM 3/4 of the image.

    >>> import torch
    >>> from torch import nn
    >>> head = nn.Linear(1, 1, bias=False)
    >>> _ = head.weight.data.fill_(3.0)
    >>> net = Network(nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head), input_shape=(1, 2, 2))
    >>> guided_grad_cam(net, torch.ones(1, 1, 2, 2)).map[0, 0, 0].item()
    0.5625
    """
    layer = map_layer(net, layer)
    region = grad_cam(net, images, target, layer=layer, batch=batch)
    guided = pixel_signal(net, images, region.target, rules="guided", batch=batch)
    made = stated(layer=layer)
    return guided.attribution(net, made, values=guided.values * region.map[:, None])
