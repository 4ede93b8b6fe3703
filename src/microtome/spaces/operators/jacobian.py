"""The matrix-free Jacobian of one layer with respect to another at given images."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from microtome.errors import InputError, LayerError, OpaqueError
from microtome.network import Network
from microtome.spaces.operators.linear_layer import images_first, in_double
from microtome.spaces.operators.operator import DENSE, Operator


@final
class JacobianOperator(Operator):
    """The Jacobian of one layer with respect to another (or the image), one linear map for each image of a batch.

    Parameters
    ----------
    name : str
        Its name in messages.
    source, value : Tensor
        Its start and its end in one autograd graph: ``(N, *input_shape)`` and ``(N, *output_shape)``.
    """

    def __init__(self, name: str, source: Tensor, value: Tensor) -> None:
        self.name, self._source, self._value = name, source, value
        self.input_shape, self.output_shape = tuple(source.shape[1:]), tuple(value.shape[1:])
        self.images, self.device = len(source), value.device
        self.value = value.detach()
        # The product with J is the derivative of y -> J^T y, which is linear in y, so that y = 0 serves.
        self._probe = torch.zeros_like(value, requires_grad=True)
        self._pulled = self._pull(self._probe, keep=True)

    def apply(self, x: Tensor) -> Tensor:
        """J x for one x ``(N, *input_shape)`` an image; of a single image's map for any number."""
        x = self.as_batch(x, self.input_shape)
        if self.images == 1 and len(x) != 1:
            return torch.cat([self.value[:0], *(self.apply(one) for one in x.split(1) if len(one))])
        self._check(len(x))
        if not self._pulled.requires_grad:
            return torch.zeros_like(self.value)
        with torch.enable_grad():
            options = {"retain_graph": True, "allow_unused": True}
            found: Tensor | None = torch.autograd.grad(self._pulled, self._probe, x, **options)[0]
        return torch.zeros_like(self.value) if found is None else found.detach()

    def adjoint(self, y: Tensor) -> Tensor:
        """J^T y for one y ``(N, *output_shape)`` an image; of a single image's map for any number."""
        y = self.as_batch(y, self.output_shape)
        if self.images == 1 and len(y) != 1:
            return torch.cat([self._source[:0].detach(), *(self.adjoint(one) for one in y.split(1) if len(one))])
        self._check(len(y))
        return self._pull(y, keep=False).detach()

    def dense(self) -> Tensor:
        """The matrix (m, n) of a single image's map."""
        self._check(1)
        m, n = self.shape
        if m * n > DENSE:
            return super().dense()  # says that it is too large
        rows = torch.eye(m, dtype=torch.float64, device=self.device).reshape(m, 1, *self.output_shape)
        return torch.cat([self.adjoint(row).reshape(1, n) for row in rows])

    def _pull(self, y: Tensor, *, keep: bool) -> Tensor:
        with torch.enable_grad():
            try:
                found: Tensor | None = torch.autograd.grad(
                    self._value, self._source, y, retain_graph=True, create_graph=keep, allow_unused=True
                )[0]
            except RuntimeError as error:
                raise OpaqueError(f'the map "{self.name}" cannot be differentiated: {error}') from error
        return torch.zeros_like(self._source) if found is None else found

    def _check(self, given: int) -> None:
        if given != self.images:
            raise InputError(
                f'"{self.name}" holds the maps of {self.images} images, one each; got {given} vectors. '
                "Give one image for the singular vectors of its map."
            )


def jacobian_operator(net: Network, images: Tensor, *, layer: str = "logits", since: str = "input") -> JacobianOperator:
    """The Jacobian of one layer with respect to an earlier one at each image; see ``spaces.jacobian``.

    Raises
    ------
    LayerError
        When a layer does not exist.
    OpaqueError
        When the layer does not depend on the start by differentiable operations.
    """
    exact = in_double(net)
    x = exact.images(images.double(), check=False).detach()
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no second derivative
        if since == "input":
            source = x.clone().requires_grad_()
            value = exact.forward(source, [layer])[layer]
        else:
            start = exact.activations(x, [since], check=False)[since]
            if start.shape != images_first(exact, since, start, len(x)).shape or len(start) != len(x):
                raise LayerError(f'the images are not on the first axis of "{since}"; choose another start.')
            source = start.detach().clone().requires_grad_()
            value = exact.forward(x, [layer], replace={since: lambda _: source.clone()})[layer]
    if not value.requires_grad:
        raise OpaqueError(
            f'"{layer}" does not depend on "{since}" by differentiable operations; choose an earlier start.'
        )
    if layer != "logits":
        value = images_first(exact, layer, value, len(x))
    return JacobianOperator(f"{layer} by {since}", source, value)
