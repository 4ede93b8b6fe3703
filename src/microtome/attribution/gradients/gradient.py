"""Gradient: the signed derivative of the class score with respect to each pixel."""

from __future__ import annotations

from typing import Any

from microtome.attribution.gradients.input_gradient import pixel_signal
from microtome.attribution.result import Attribution
from microtome.inputs import Target
from microtome.network import Network
from microtome.registry import register


@register("gradient", rows=("C1",), paper="simonyan2014deep", quantity="logit per pixel value")
def gradient(net: Network, images: Any, target: Target = None, *, batch: int | None = None) -> Attribution:
    r"""The signed gradient of the class score at each pixel.

    .. math:: M(i, j) = \sum_k \frac{\partial S_c}{\partial x_k(i, j)}

    over the colour channels k [1]_; ``values`` keeps them apart.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    target : int, str, sequence, Tensor or None
        The class that is explained; None for the predicted one.
    batch : int, optional
        Images in one pass; default 2 to 10 of 224 x 224 pixels, by the network, up to 64 small ones.

    Returns
    -------
    Attribution
        ``values`` (N, C, H, W) signed, in logit per unit of pixel value; ``map`` is their sum over
        channels.

    Raises
    ------
    InputError
        When images or targets do not fit the network.
    ModelError
        When the model raises, or a gradient is not finite.

    Notes
    -----
    Cost: one forward and one backward pass, no weight gradients. It is the slope at this image only:
    it does not say how much of the score a pixel holds.

    References
    ----------
    .. [1] Simonyan, Vedaldi and Zisserman, Deep inside convolutional networks: visualising image
       classification models and saliency maps, ICLR workshop 2014.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> line = nn.Linear(2, 2, bias=False)
    >>> _ = line.weight.data.copy_(torch.tensor([[2.0, -3.0], [0.0, 0.0]]))
    >>> net = Network(nn.Sequential(nn.Flatten(), line), input_shape=(1, 1, 2))
    >>> gradient(net, torch.ones(1, 1, 1, 2), target=0).map
    tensor([[[ 2., -3.]]])
    """
    signal = pixel_signal(net, images, target, batch=batch)
    return signal.attribution(net)
