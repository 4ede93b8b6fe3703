"""Spatial structure of kernels: Moran's I, with a p-value from kernels with randomly permuted weights."""

from __future__ import annotations

import torch
from torch import Tensor

from microtome.errors import OpaqueError
from microtome.network import Network


def spatial_correlation(slices: Tensor) -> Tensor:
    r"""Moran's I of pictures (n, slices, h, w), pooled over slices: the correlation of neighbours, (n,).

    Neighbours share an edge. A picture without variation gives NaN. The expectation for noise is :math:`-1/(hw - 1)`.

    Examples
    --------
    >>> stripes = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    >>> spatial_correlation(stripes[None, None]).tolist()  # two equal pairs, two opposite pairs
    [0.0]
    """
    centred = slices - slices.mean((2, 3), keepdim=True)
    n, h, w = slices.shape[1], slices.shape[2], slices.shape[3]
    pairs = h * (w - 1) + w * (h - 1)
    products = (centred[..., 1:] * centred[..., :-1]).sum((1, 2, 3)) + (centred[:, :, 1:] * centred[:, :, :-1]).sum(
        (1, 2, 3)
    )
    variation = centred.square().sum((1, 2, 3))
    energy = slices.square().sum((1, 2, 3))
    if pairs == 0 or n == 0:
        return torch.full((len(slices),), torch.nan, dtype=slices.dtype, device=slices.device)
    return torch.where(variation > 1e-12 * energy, products / pairs * (h * w) / variation, torch.nan)


def kernel_structure(net: Network, layer: str, draws: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Moran's I of each kernel, standard deviation of the null distribution, and p-value; NaN below 3 x 3 taps."""
    units = net.layer(layer).units
    undefined = torch.full((units,), torch.nan, dtype=torch.float64, device="cpu")
    try:
        call = net.call(layer)
    except OpaqueError:
        return undefined, undefined, undefined
    weight = call.arguments.get("weight")
    fits = call.kind == "conv2d" and isinstance(weight, Tensor) and min(weight.shape[2:]) >= 3
    if not fits or not isinstance(weight, Tensor) or len(weight) != units:
        return undefined, undefined, undefined
    kernels = weight.detach().double().cpu()
    value = spatial_correlation(kernels)
    generator = torch.Generator().manual_seed(seed)
    flat = kernels.flatten(2)
    null = torch.stack(
        [
            spatial_correlation(
                flat.gather(
                    2, torch.rand(flat.shape, generator=generator, dtype=torch.float32, device="cpu").argsort(2)
                ).view_as(kernels)
            )
            for _ in range(draws)
        ]
    )
    p = ((null >= value).sum(0) + 1).double() / (draws + 1)
    return value, null.std(0), torch.where(value.isnan(), torch.nan, p)
