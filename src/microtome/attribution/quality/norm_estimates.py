"""Estimates that spectral norms keep of their weights; they are made anew where the weights are replaced."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm

__all__ = ["estimate_anew"]


@torch.no_grad()
def estimate_anew(model: nn.Module, replaced: Collection[nn.Parameter]) -> None:
    """Set the singular vectors in all spectral norms of replaced weights to those of the new weights.

    In evaluation a spectral norm divides a weight W by :math:`u^T W v` with vectors u and v that it has stored. With
    those of the old weights this is not the norm of the new ones. Both forms of torch are covered:
    ``nn.utils.spectral_norm`` and ``nn.utils.parametrizations.spectral_norm``.
    """
    new = {id(parameter) for parameter in replaced}
    for module in model.modules():
        for originals, matrix, left, right in chain(_hooked(module), _parametrised(module)):
            if any(id(original) in new for original in originals):
                u, _, vh = torch.linalg.svd(matrix.detach().to("cpu", _wide(matrix)), full_matrices=False)
                left.copy_(u[:, 0])
                right.copy_(vh[0].conj())


_Estimate = tuple[tuple[Tensor, ...], Tensor, Tensor, Tensor]


def _hooked(module: nn.Module) -> Iterator[_Estimate]:
    """The weight, its matrix and both vectors of norms that are a hook of a module."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, SpectralNorm):
            weight, left, right = (getattr(module, f"{hook.name}_{part}") for part in ("orig", "u", "v"))
            yield (weight,), hook.reshape_weight_to_matrix(weight), left, right


def _parametrised(module: nn.Module) -> Iterator[_Estimate]:
    """The same of norms that are a parametrisation, which may follow others."""
    if not parametrize.is_parametrized(module):
        return
    parts: Any = module.parametrizations
    for part in parts.values():
        originals = tuple(tensor for name, tensor in part.named_parameters() if name.startswith("original"))
        originals += tuple(tensor for name, tensor in part.named_buffers() if name.startswith("original"))
        value = originals
        for step in part:
            if hasattr(step, "_u") and hasattr(step, "_reshape_weight_to_matrix"):
                yield originals, step._reshape_weight_to_matrix(value[0]), step._u, step._v
            value = (step(*value),)


def _wide(matrix: Tensor) -> torch.dtype:
    return torch.complex128 if matrix.is_complex() else torch.float64
