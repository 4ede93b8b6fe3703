"""Linear and attention layers that read transposed values, which torch multiplies slowly.

``x.transpose(1, 2)`` is the same memory in another order. If a layer's weight needs no gradient, torch multiplies such
a value row by row instead of in one product: a vision transformer of ``nn.MultiheadAttention``, which transposes its
input itself, takes 1.8 times as long. In a pass these layers read a copy in the usual order. The numbers are the same.
"""

from __future__ import annotations

import weakref
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from microtome.trace.operators.operator_calls import Call

# Layers that have read a transposed value when their network was read.
_READERS: weakref.WeakSet[nn.Module] = weakref.WeakSet()
Arguments = tuple[tuple[Any, ...], dict[str, Any]]
_KINDS = (nn.Linear, nn.MultiheadAttention)
_PRODUCTS = frozenset(("linear", "multi_head_attention_forward"))


def note(module: nn.Module | None, call: Call) -> None:
    """An operation of a module runs: remember the module if it multiplies a transposed value."""
    if isinstance(module, _KINDS) and call.kind in _PRODUCTS and any(map(_is_transposed, call.tensors)):
        _READERS.add(module)


def readers(modules: list[tuple[str, nn.Module]]) -> list[nn.Module]:
    """Those of a model's modules that read transposed values, if torch's own code alone sees what they read."""
    found = [module for _, module in modules if type(module) in _KINDS and module in _READERS]
    return [module for module in found if not module._forward_hooks and "forward" not in vars(module)]


def in_order(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """The arguments of a module, with copies in the order in which it multiplies them; equal ones stay equal."""
    swaps = isinstance(module, nn.MultiheadAttention) and module.batch_first  # it multiplies them so
    made: dict[int, Tensor] = {}

    def laid_out(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dim() < 3 or value.layout is not torch.strided:
            return value
        if id(value) not in made:
            made[id(value)] = value.transpose(0, 1).contiguous().transpose(0, 1) if swaps else value.contiguous()
        return made[id(value)]

    return tuple(map(laid_out, args)), {key: laid_out(value) for key, value in kwargs.items()}


def _is_transposed(value: Any) -> bool:
    """Whether the axes of a value are in another order than its memory, also where some have length one."""
    if not isinstance(value, Tensor) or value.dim() < 3 or value.layout is not torch.strided:
        return False
    return any(one < other for one, other in pairwise(value.stride()))
