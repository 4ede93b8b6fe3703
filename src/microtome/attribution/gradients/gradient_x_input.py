"""Gradient x input: each pixel times the derivative of the class score with respect to it."""

from __future__ import annotations

from typing import Any

from microtome.attribution.gradients.input_gradient import pixel_signal
from microtome.attribution.result import Attribution
from microtome.inputs import Target
from microtome.network import Network
from microtome.registry import register


@register("gradient-x-input", rows=("C1", "C11"), paper="shrikumar2017learning")
def gradient_x_input(net: Network, images: Any, target: Target = None, *, batch: int | None = None) -> Attribution:
    r"""The gradient times the pixel it belongs to.

    .. math:: M(i, j) = \sum_k x_k(i, j)\,\frac{\partial S_c}{\partial x_k(i, j)}

    over the colour channels k, x in the user's pixel space (before the network's normalisation) [1]_.

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
        ``values`` (N, C, H, W) signed, in logits; ``map`` is their sum over channels. For a piecewise
        linear network without biases and without normalisation they add up to the score.

    Raises
    ------
    InputError
        When images or targets do not fit the network.
    ModelError
        When the model raises, or a gradient is not finite.

    Notes
    -----
    Cost: one forward and one backward pass, no weight gradients. A black pixel gets nothing, whatever
    it means to the network: the implied reference is the black image.

    References
    ----------
    .. [1] Shrikumar, Greenside and Kundaje, Learning important features through propagating activation
       differences, ICML 2017.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> line = nn.Linear(2, 2, bias=False)
    >>> _ = line.weight.data.copy_(torch.tensor([[2.0, -3.0], [0.0, 0.0]]))
    >>> net = Network(nn.Sequential(nn.Flatten(), line), input_shape=(1, 1, 2))
    >>> gradient_x_input(net, torch.full((1, 1, 1, 2), 0.5), target=0).map
    tensor([[[ 1.0000, -1.5000]]])
    """
    signal = pixel_signal(net, images, target, batch=batch)
    return signal.attribution(net, values=signal.values * signal.images)
