"""Reference images without information: gray, mean, blurred, noise and others, by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from microtome.errors import InputError
from microtome.network import Network

Fill = float | str | Sequence[float] | Tensor

NAMES = ("black", "gray", "white", "mean", "image-mean", "blur", "noise")
_GRAYS = {"black": 0.0, "gray": 0.5, "white": 1.0}


def baseline(net: Network, images: Tensor, fill: Fill, *, seed: int = 0) -> Tensor:
    """Images without information, in the shape and pixel space of ``images``.

    Parameters
    ----------
    net : Network
        Its pixel range and mean are used.
    images : Tensor
        (N, C, H, W).
    fill : float, sequence of float, str or Tensor
        A value for all channels or one for each; a picture (C, H, W) or pictures (N, C, H, W); or

        - ``"black"``, ``"gray"``, ``"white"``: bottom, middle and top of the pixel range;
        - ``"mean"``: the mean that the network normalises with, that of the data it was trained on;
        - ``"image-mean"``: each image's own mean colour;
        - ``"blur"``: each image under a Gaussian whose deviation is a tenth of its shorter side;
        - ``"noise"``: uniform in the pixel range, the same for every image.
    seed : int
        For the noise.

    Raises
    ------
    InputError
        When the fill is unknown or does not fit the images.

    Examples
    --------
    >>> from torch import nn
    >>> net = Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), input_shape=(1, 2, 2), mean=0.25)
    >>> baseline(net, torch.zeros(1, 1, 2, 2), "mean").unique()
    tensor([0.2500])
    """
    if isinstance(fill, Tensor) and fill.dim() > 1:
        return _picture(images, fill)
    if not isinstance(fill, str):
        return _colour(images, fill)
    low, high = net.pixels if net.pixels is not None else (0.0, 1.0)
    if fill in _GRAYS:
        return torch.full_like(images, low + _GRAYS[fill] * (high - low))
    if fill == "mean":
        return _colour(images, net.mean)
    if fill == "image-mean":
        return images.mean((2, 3), keepdim=True).expand_as(images).clone()
    if fill == "blur":
        return blurred(images, min(images.shape[-2:]) / 10)
    if fill == "noise":
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(images.shape[1:], generator=generator, dtype=torch.float64, device="cpu")
        return (low + noise * (high - low)).to(images).expand_as(images).clone()
    raise InputError(f'a fill is a number, one per channel, a picture or one of {", ".join(NAMES)}; got "{fill}".')


def blurred(images: Tensor, deviation: float) -> Tensor:
    """Images under a Gaussian of this deviation in pixels, the edges continued outwards."""
    radius = max(1, round(3 * deviation))
    at = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (at / max(deviation, 1e-6)) ** 2)
    kernel = kernel / kernel.sum()
    n, c, h, w = images.shape
    x = images.reshape(n * c, 1, h, w)
    x = functional.conv2d(functional.pad(x, (radius, radius, 0, 0), mode="replicate"), kernel[None, None, None])
    x = functional.conv2d(functional.pad(x, (0, 0, radius, radius), mode="replicate"), kernel[None, None, :, None])
    return x.reshape(n, c, h, w)


def _colour(images: Tensor, fill: float | Sequence[float] | Tensor) -> Tensor:
    try:
        colour = torch.as_tensor(fill, dtype=images.dtype, device=images.device).flatten()
    except (TypeError, ValueError, RuntimeError):
        colour = images.new_empty(0)
    if colour.numel() not in (1, images.shape[1]) or not bool(torch.isfinite(colour).all()):
        raise InputError(f"a fill is one finite number or one for each of {images.shape[1]} channels, got {fill}.")
    return colour[:, None, None].expand(images.shape[1:]).expand_as(images).clone()


def _picture(images: Tensor, fill: Tensor) -> Tensor:
    fits = fill.shape in (images.shape, images.shape[1:])
    if not fits or not bool(torch.isfinite(fill).all()):
        raise InputError(
            f"a baseline picture must be finite and of shape {tuple(images.shape)}, got {tuple(fill.shape)}."
        )
    return fill.to(images).expand_as(images).clone()
