"""Test of batch statistics: the accuracy of a network in training mode, where batch norm mixes the images."""

from __future__ import annotations

import copy

import torch

from microtome.network import Network
from microtome.spaces import IdealInputs
from microtome.spaces.inversion.ideal_inputs import STARTS


def trained_best(net: Network, ideal: IdealInputs, *, steps: int = 20, lr: float = 0.001, momentum: float = 0.9) -> int:
    """Number of classes whose best image is a trained one, trained with batch statistics and evaluated without.

    A network in training mode normalises by the mean and variance of the batch: the gradient of an image then depends
    on the other images. The paper does not state the mode.

    Parameters
    ----------
    net : Network
        A network with batch norm; it is copied.
    ideal : IdealInputs
        Start images and ideal outputs.
    steps : int
        Steps of gradient descent with all starts of all classes in one batch; the last image counts.
    lr, momentum : float
        Learning rate and momentum.
    """
    model = copy.deepcopy(net.model).requires_grad_(False)
    starts = torch.stack([ideal.images(start) for start in STARTS])
    images = starts.flatten(0, 1).clone().requires_grad_()
    target = ideal.ideal.repeat(len(STARTS), 1)
    optimizer = torch.optim.SGD([images], lr=lr, momentum=momentum)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0  # its own statistics do not change
    model.train()
    with torch.enable_grad():
        for _ in range(steps):
            images.grad = torch.autograd.grad((model(images) - target).square().sum(), images)[0]
            optimizer.step()
    model.eval()
    with torch.no_grad():
        away = (model(images) - target).norm(dim=1).reshape(len(STARTS), -1)
    return int((away.amin(0) < ideal.distance[: len(STARTS)].amin(0)).sum())
