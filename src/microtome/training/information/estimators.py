"""The estimators of mutual information under one call: bins and Gaussian kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.training.information.binning import Bins, binned_information
from microtome.training.information.kde import kernel_bounds

__all__ = ["Binning", "Estimate", "Estimator", "Kernel"]


@dataclass(frozen=True)
class Estimate:
    """Bits for each of R networks: a value and its bounds (the value itself for bins)."""

    i_xt: Tensor
    i_ty: Tensor
    xt_low: Tensor
    xt_high: Tensor
    ty_low: Tensor
    ty_high: Tensor


@dataclass(frozen=True)
class Binning(Bins):
    """Binned states, counted: see :func:`~microtome.training.information.binned_information`."""

    def __call__(self, states: Tensor, labels: Tensor) -> Estimate:
        """Estimate from states (R, N, width) and labels (N,)."""
        i_xt, i_ty = binned_information(states, labels, self)
        return Estimate(i_xt, i_ty, i_xt, i_xt, i_ty, i_ty)

    def __str__(self) -> str:
        return f"{self.edges} bin edges from {self.low:.3g} to {self.high:.3g}"


@dataclass(frozen=True)
class Kernel:
    """States with Gaussian noise of variance ``noise``: see :func:`~microtome.training.information.kernel_bounds`.

    The value of I(X;T) is the upper bound; that of I(T;Y) the difference of upper bounds.
    """

    noise: float = 0.1

    def __call__(self, states: Tensor, labels: Tensor) -> Estimate:
        """Estimate from states (R, N, width) and labels (N,)."""
        found = [kernel_bounds(rows, labels, self.noise) for rows in states]
        fields = ("xt_upper", "i_ty", "xt_lower", "xt_upper", "ty_lower", "ty_upper")
        return Estimate(
            *(torch.tensor([getattr(one, name) for one in found], dtype=torch.float64, device="cpu") for name in fields)
        )

    def __str__(self) -> str:
        return f"kernels, noise of variance {self.noise:.3g}"


Estimator = Binning | Kernel
