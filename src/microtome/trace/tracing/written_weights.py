"""Weights that a model writes in its own forward pass, such as kernels that it scales to a largest norm.

Copies of all weights before every pass would cost as much as the pass. So the first pass of a model is watched for
writing, and a weight is copied just before. Later passes copy these weights beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from microtome.trace.operators.nested_tensors import first_tensor, tensors
from microtome.trace.operators.signatures import is_inplace
from microtome.trace.operators.spellings import spelling
from microtome.trace.origins import is_transformed

_OTHERS = frozenset(("__set__", "set_"))  # x.data = y, x.set_(y): the memory is exchanged


class WrittenWeights(TorchFunctionMode):
    """Watches one pass and copies each weight before the model writes on it.

    Attributes
    ----------
    copies : list of (Parameter, Tensor, Tensor)
        The weight, the memory that it had, and its numbers before they were written on.
    """

    def __init__(self, weights: list[nn.Parameter]) -> None:
        super().__init__()
        self.copies: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        self._at: dict[int, list[nn.Parameter]] = {}
        for weight in weights:
            if address := _address(weight):
                self._at.setdefault(address, []).append(weight)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Copy the weights that one call is about to write on."""
        kwargs = kwargs or {}
        if not is_transformed():
            for target in _written(func, args, kwargs):
                for weight in self._at.pop(_address(target), ()):
                    self.copies.append(kept(weight))
        return func(*args, **kwargs)


def kept(weight: nn.Parameter) -> tuple[nn.Parameter, Tensor, Tensor]:
    """A weight with its memory and a copy of its numbers, for ``put_back``."""
    memory = weight.detach()
    return weight, memory, memory.clone()


def put_back(weight: nn.Parameter, memory: Tensor, numbers: Tensor) -> None:
    """Give a weight its memory and its numbers again, if a pass has changed them."""
    if weight.data_ptr() != memory.data_ptr() or weight.shape != memory.shape:
        weight.data = memory
    if not torch.equal(memory, numbers):
        memory.data.copy_(numbers)


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors that a call writes on."""
    yield from tensors(kwargs.get("out"))
    name, spelled = getattr(func, "__name__", ""), spelling(func)
    if name.startswith("_foreach_") and name.endswith("_"):
        yield from tensors(args[0])
    elif name in _OTHERS if spelled is None else is_inplace(spelled, args, kwargs):
        yield first_tensor(args, kwargs)  # nn.init gives its tensor by name


def _address(tensor: Tensor) -> int:
    """Where the numbers lie; 0 for tensors without memory of their own."""
    plain = tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_quantized
    return tensor.untyped_storage().data_ptr() if plain else 0
