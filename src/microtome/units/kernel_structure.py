"""Structure of a kernel against noise: Moran's I, with a p-value from kernels of the same weights in random places."""

from __future__ import annotations

import torch
from torch import Tensor

from microtome.errors import OpaqueError
from microtome.network import Network


def spatial_correlation(slices: Tensor) -> Tensor:
    r"""Moran's I of pictures (n, slices, h, w), slices pooled: the correlation of neighbours, (n,).

    Neighbours share an edge. NaN for a picture without variation; :math:`-1/(hw - 1)` is expected of noise.

    Examples
    --------
    >>> stripes = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    >>> spatial_correlation(stripes[None, None]).tolist()  # two pairs alike, two opposite
    [0.0]
    """
    centred = slices - slices.mean((2, 3), keepdim=True)
    n, h, w = slices.shape[1], slices.shape[2], slices.shape[3]
    pairs = h * (w - 1) + w * (h - 1)
    along = (centred[..., 1:] * centred[..., :-1]).sum((1, 2, 3)) + (centred[:, :, 1:] * centred[:, :, :-1]).sum(
        (1, 2, 3)
    )
    whole = centred.square().sum((1, 2, 3))
    level = slices.square().sum((1, 2, 3))
    if pairs == 0 or n == 0:
        return torch.full((len(slices),), torch.nan, dtype=slices.dtype)
    return torch.where(whole > 1e-12 * level, along / pairs * (h * w) / whole, torch.nan)


def kernel_structure(net: Network, layer: str, draws: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Moran's I of each unit's kernel, the spread of the null distribution, and the p-value; NaN below 3 x 3 taps."""
    units = net.layer(layer).units
    nothing = torch.full((units,), torch.nan, dtype=torch.float64)
    try:
        call = net.call(layer)
    except OpaqueError:
        return nothing, nothing, nothing
    weight = call.arguments.get("weight")
    fits = call.kind == "conv2d" and isinstance(weight, Tensor) and min(weight.shape[2:]) >= 3
    if not fits or not isinstance(weight, Tensor) or len(weight) != units:
        return nothing, nothing, nothing
    kernels = weight.detach().double().cpu()
    value = spatial_correlation(kernels)
    generator = torch.Generator().manual_seed(seed)
    flat = kernels.flatten(2)
    null = torch.stack(
        [
            spatial_correlation(flat.gather(2, torch.rand(flat.shape, generator=generator).argsort(2)).view_as(kernels))
            for _ in range(draws)
        ]
    )
    p = ((null >= value).sum(0) + 1).double() / (draws + 1)
    return value, null.std(0), torch.where(value.isnan(), torch.nan, p)
