"""Everything of a model, and of the process, that a method may not change, in comparable form."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

from microtome import Network, registry

OPTIONS = {
    "occlusion": {"window": 4, "stride": 4},
    "integrated-gradients": {"steps": 2},
    "smooth-grad": {"samples": 2},
}


def batch(n: int, c: int = 3, size: tuple[int, int] = (8, 6)) -> torch.Tensor:
    return torch.rand(n, c, *size, generator=torch.Generator().manual_seed(1))


def portrait(model: nn.Module) -> dict[str, object]:
    """Everything that a method may not change, in comparable form."""
    learned = dict(model.named_parameters())
    tensors = {**learned, **dict(model.named_buffers())}
    return {
        "bytes": {name: value.detach().clone() for name, value in tensors.items()},
        "objects": {name: id(value) for name, value in tensors.items()},
        "grad": {name: None if p.grad is None else (id(p.grad), p.grad.clone()) for name, p in learned.items()},
        "learns": {name: p.requires_grad for name, p in learned.items()},
        "mode": {name: module.training for name, module in model.named_modules()},
        "hooks": {name: (list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks))
                  for name, m in model.named_modules()},
        "attributes": {name: sorted(module.__dict__) for name, module in model.named_modules()},
        "global hooks": (
            len(torch.nn.modules.module._global_forward_hooks), len(torch.nn.modules.module._global_forward_pre_hooks)
        ),
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - the state that must stay
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
    }  # fmt: skip


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def differences(before: dict[str, object], after: dict[str, object]) -> list[str]:
    return [key for key in before if not same(before[key], after[key])]


def run(method: str, net: Network, images: torch.Tensor):
    return registry.method(method).function(net, images, 1, **OPTIONS.get(method, {}))
