"""Guided backpropagation: the gradient, with negative signals stopped at every rectifier."""

from __future__ import annotations

from typing import Any

from microtome.attribution.gradients.input_gradient import pixel_signal
from microtome.attribution.result import Attribution
from microtome.inputs import Target
from microtome.network import Network
from microtome.registry import register


@register("guided-backprop", rows=("C8",), paper="springenberg2015striving", quantity="rectified signal")
def guided_backprop(net: Network, images: Any, target: Target = None, *, batch: int | None = None) -> Attribution:
    r"""The gradient, with every negative signal stopped at every rectifier.

    For a nonlinearity f that read x [1]_:

    .. math:: R^l = f'(x)\,\max(R^{l+1}, 0)

    For ReLU this is the paper's rule: pass what was positive forwards and is positive backwards. The
    same rule with their own derivative holds for ReLU6, LeakyReLU, PReLU, ELU, SELU, CELU, GELU, SiLU,
    Mish, Hardswish and Softplus; sigmoid, tanh, softmax and gates keep their gradient. A rectifier is
    recognised by what it computes, however the model writes it (``x * (x > 0)``, GELU by ``erf``);
    ``notes`` names operations whose kind is unknown.

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
    OpaqueError
        When something in the model hides its own backward pass: a scripted module or function,
        ``torch.vmap``, a custom operator or autograd function, a gradient that the model takes itself.
        The message names it. Also when the score does not depend on the image by differentiable
        operations.

    Notes
    -----
    Cost: one forward and one backward pass, no weight gradients. It shows fine patterns sharply but
    hardly depends on the class or on the upper layers' weights: it does not explain the decision.

    References
    ----------
    .. [1] Springenberg, Dosovitskiy, Brox and Riedmiller, Striving for simplicity: the all
       convolutional net, ICLR workshop 2015.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> line = nn.Linear(2, 2, bias=False)
    >>> _ = line.weight.data.copy_(torch.tensor([[2.0, -3.0], [0.0, 0.0]]))
    >>> net = Network(nn.Sequential(nn.Flatten(), line), input_shape=(1, 1, 2))
    >>> guided_backprop(net, torch.ones(1, 1, 1, 2), target=0).map  # without nonlinearity: the gradient
    tensor([[[ 2., -3.]]])
    """
    signal = pixel_signal(net, images, target, rules="guided", batch=batch)
    return signal.attribution(net)
