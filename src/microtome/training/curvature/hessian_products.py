"""The Hessian of the mean loss at a network's weights, as products with vectors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from microtome.data import Dataset
from microtome.errors import InputError, MicrotomeError, ModelError
from microtome.network import Network
from microtome.progress import Clock
from microtome.training.image_losses import ImageLosses, Loss, PreparedImages, copied

__all__ = ["HessianProduct", "MovableLoss"]

_GRAPHS = 2**30  # bytes of gradient graphs that are kept between products
_VALUES = 6  # copies of each value in the graph of a gradient: itself, its gradient, saved tensors


class MovableLoss:
    """The mean loss over some images as a function of the weights, differentiable twice.

    Parameters
    ----------
    net, dataset
        The network, whose model is not touched, and its images with labels.
    loss, images, batch, seed
        As in :func:`~microtome.training.curvature.eigenvalues`.

    Attributes
    ----------
    model : nn.Module
        A private copy, in float32 if the network is in half precision. Its weights may be overwritten; earlier
        products then belong to other weights.
    weights : dict of str to Tensor
        Its floating parameters by name, in the order of a vector's parts.
    images : int
        Number of images in the mean loss.

    Raises
    ------
    InputError
        Labels are missing.
    ModelError
        The model has no floating parameter.
    """

    def __init__(
        self, net: Network, dataset: Dataset, *, loss: Loss | None, images: int | None, batch: int | None, seed: int
    ) -> None:
        net = _in_single_precision(net)
        self._losses = ImageLosses(net, loss)
        self._data = PreparedImages(net, dataset, labelled=loss is None, count=images, batch=batch, seed=seed)
        self.model = self._losses.model
        self.weights = {name: p for name, p in self._losses.parameters.items() if p.is_floating_point()}
        if not self.weights:
            raise ModelError("the model has no parameter to differentiate with respect to.")
        for name, parameter in self._losses.parameters.items():
            parameter.requires_grad_(name in self.weights)
        self.images = len(self._data)
        values = sum(math.prod(layer.shape) for layer in net.layers.values() if layer.leaf and layer.shape)
        self.keeps_graphs = self.images * values * net.dtype.itemsize * _VALUES <= _GRAPHS

    def groups(self, *, per_layer: bool) -> dict[str, Sequence[Tensor]]:
        """All weights under an empty name and, optionally, those of each layer."""
        return {"": [*self.weights.values()], **(self.layers if per_layer else {})}

    @property
    def layers(self) -> dict[str, list[Tensor]]:
        """The weights of each layer by its name."""
        found: dict[str, list[Tensor]] = {}
        for name, parameter in self.weights.items():
            found.setdefault(name.rpartition(".")[0] or name, []).append(parameter)
        return found

    def layer(self, name: str) -> Sequence[Tensor]:
        """The weights of one layer and of its submodules.

        Raises
        ------
        InputError
            The layer has no weights.
        """
        found = [p for own, p in self.weights.items() if own == name or own.startswith(f"{name}.")]
        if not found:
            known = ", ".join(self.layers)
            raise InputError(
                f'layer "{name}" has no weights to differentiate with respect to; layers with weights: {known}.'
            )
        return found

    def gradients(self, weights: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """Gradients of each batch's share of the mean loss, with their graphs."""
        for images, labels in self._data.batches():
            losses, _ = self._losses(images, labels)
            if not losses.requires_grad:  # the loss does not depend on the weights
                yield [torch.zeros_like(weight) for weight in weights]
                continue
            share = losses.sum() / self.images
            yield [*torch.autograd.grad(share, weights, create_graph=True, allow_unused=True, materialize_grads=True)]


def _in_single_precision(net: Network) -> Network:
    """A copy in float32 of a network in half precision, whose gradients are too coarse to be differentiated again.

    A model that casts its values to half precision itself stays as it is.
    """
    if net.dtype not in (torch.bfloat16, torch.float16):
        return net
    try:
        return net.around(copied(net).float())
    except MicrotomeError:
        return net


class HessianProduct:
    """The Hessian of the mean loss for some weights, times a vector in float64.

    Parameters
    ----------
    loss
        The loss.
    weights
        The ``weights`` of the Hessian, all others fixed.
    clock, stage, done
        Reported after each product: the stage, and the number of earlier products.
    """

    def __init__(self, loss: MovableLoss, weights: Sequence[Tensor], clock: Clock, stage: str, done: int) -> None:
        self._loss, self._weights = loss, list(weights)
        self._clock, self._stage, self._done = clock, stage, done
        self._kept: list[list[Tensor]] | None = None
        self.size = sum(weight.numel() for weight in weights)

    def __call__(self, vector: Tensor) -> Tensor:
        """H v."""
        parts = vector.split([weight.numel() for weight in self._weights])
        tangent = [
            part.view(weight.shape).to(weight.device, weight.dtype)
            for part, weight in zip(parts, self._weights, strict=True)
        ]
        total = torch.zeros_like(vector)
        with differentiable(), torch.enable_grad():
            for gradient in self._gradients():
                # Weights in which the loss is linear, or on which it does not depend, have no second derivative.
                reached = [(g, t) for g, t in zip(gradient, tangent, strict=True) if g.requires_grad]
                if not reached:
                    continue
                gradients = torch.autograd.grad(
                    [g for g, _ in reached],
                    self._weights,
                    [t for _, t in reached],
                    retain_graph=self._kept is not None,
                    allow_unused=True,
                    materialize_grads=True,
                )
                total += torch.cat([part.detach().flatten().to("cpu", torch.float64) for part in gradients])
        self._done += 1
        self._clock.step(self._stage, self._done)
        if not bool(total.isfinite().all()):
            raise ModelError("the Hessian holds NaN or infinity: the loss at these weights is not finite.")
        return total

    def _gradients(self) -> Iterator[list[Tensor]]:
        """The gradients of all batches; computed once if their graphs fit into memory."""
        if self._kept is None and self._loss.keeps_graphs:
            self._kept = [*self._loss.gradients(self._weights)]
        yield from self._loss.gradients(self._weights) if self._kept is None else self._kept


@contextmanager
def differentiable() -> Iterator[None]:
    """Attention and weight norm by plain products: the fused kernels have no second derivative or a wrong one."""
    with sdpa_kernel(SDPBackend.MATH), _PlainWeightNorm():
        yield


class _PlainWeightNorm(TorchFunctionMode):
    """Inside the context, weights are normalised by plain products.

    The second derivative of torch's fused kernel is wrong (torch 2.13): its Hessian is not symmetric.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute ``torch._weight_norm`` by its definition, all else as it is."""
        if func is torch._weight_norm:
            return _weight_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))
