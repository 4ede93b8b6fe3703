"""SmoothGrad: the gradient averaged over noisy copies of the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from microtome.attribution.batching import rows_of_each, scored
from microtome.attribution.result import Attribution
from microtome.batch_sizes import check_count, in_passes
from microtome.errors import InputError
from microtome.inputs import Target
from microtome.network import Network
from microtome.registry import register

# Numbers of noise that stay for the next call, 64 MB. 25 draws for a photo of 224 x 224 are a quarter of it.
_MOST_KEPT = 2**24


@dataclass(frozen=True, eq=False, kw_only=True)
class SampledAttribution(Attribution):
    """A map that is a mean over random samples.

    Attributes
    ----------
    standard_error : Tensor
        (N, C, H, W), of the mean, from the samples' own spread.
    samples : int
        Their number.
    """

    standard_error: Tensor
    samples: int


@register("smooth-grad", rows=("C11",), paper="smilkov2017smoothgrad", quantity="logit per pixel value", cost=60.0)
def smooth_grad(
    net: Network,
    images: Any,
    target: Target = None,
    *,
    noise: float = 0.15,
    samples: int = 25,
    seed: int = 0,
    batch: int | None = None,
) -> SampledAttribution:
    r"""The signed gradient of the class score, averaged over copies of the image with noise added.

    .. math:: M(x) = \frac{1}{n}\sum_{m=1}^{n} \frac{\partial S_c(x + \epsilon_m)}{\partial x},
              \qquad \epsilon_m \sim \mathcal{N}\big(0,\; s^2 (\max x - \min x)^2\big)

    with s = ``noise`` and the range taken from each image [1]_. The class is the one predicted for the
    image without noise, unless a target is given. Every image gets the same draws, so that its map does
    not depend on its neighbours in the batch.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range; the noisy copies may leave it.
    target : int, str, sequence, Tensor or None
        The class that is explained; None for the predicted one.
    noise : float
        Deviation of the noise as a share of the image's own range; not negative.
    samples : int
        Noisy copies per image.
    seed : int
        For the noise.
    batch : int, optional
        Copies in one pass, which bounds the memory; default 2 to 10 of 224 x 224 pixels, by the network, up to 64
        small ones.

    Returns
    -------
    SampledAttribution
        ``values`` (N, C, H, W) signed, in logit per unit of pixel value, and their ``standard_error``.

    Raises
    ------
    InputError
        When images, targets, noise or samples do not fit.
    ModelError
        When the model raises, or a gradient is not finite.

    Notes
    -----
    Cost: ``samples`` forward and backward passes per image, no weight gradients; batch norms are folded in a private
    copy, see ``Network.quick``. The noise of the last call stays in memory, up to 64 MB.
    It is the gradient of a smoothed network, not of the one that decides.

    References
    ----------
    .. [1] Smilkov, Thorat, Kim, Viegas and Wattenberg, SmoothGrad: removing noise by adding noise, 2017.

    Examples
    --------
    A linear network has the same gradient everywhere: the mean is it, without error.

    >>> from torch import nn
    >>> line = nn.Linear(2, 1, bias=False)
    >>> _ = line.weight.data.copy_(torch.tensor([[2.0, -3.0]]))
    >>> net = Network(nn.Sequential(nn.Flatten(), line), input_shape=(1, 1, 2))
    >>> result = smooth_grad(net, torch.tensor([[[[0.0, 1.0]]]]), samples=4)
    >>> result.map, result.standard_error.max()
    (tensor([[[ 2., -3.]]]), tensor(0.))
    """
    check_count(samples, "samples")
    if not 0 <= noise < math.inf:
        raise InputError(f"noise is a share of the image's range, finite and not negative, got {noise}.")
    scores = scored(net, images, target, batch)
    checked = scores.images
    size = (samples, *checked.shape[1:])
    draw = _kept_draws if math.prod(size) <= _MOST_KEPT else _draws
    draws = draw(size, seed, checked.dtype, checked.device)
    quick = net.quick(checked, scores.logits, len(checked) * len(draws))
    mean, error = _moments(quick, checked, scores.target, draws * noise, batch)
    return SampledAttribution(
        values=mean,
        target=scores.target,
        score=scores.score,
        images=checked,
        classes=net.classes,
        standard_error=error,
        samples=samples,
    )


@torch.inference_mode(False)
def _draws(size: tuple[int, ...], seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Standard normal noise, drawn on the processor so that a seed gives the same on every device."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float32, device="cpu").to(
        device, dtype
    )


_kept_draws = lru_cache(maxsize=1)(_draws)  # the next images mostly get the same


def _moments(net: Network, images: Tensor, target: Tensor, draws: Tensor, batch: int | None) -> tuple[Tensor, Tensor]:
    """Mean of the gradients over the draws, and the standard error of that mean."""
    count = len(draws)
    span = (images.amax((1, 2, 3)) - images.amin((1, 2, 3)))[:, None, None, None]

    def part(first: int, last: int) -> list[_Spread]:
        """The moments of the copies in this pass, for each image with copies."""
        copies = torch.arange(first, last, device="cpu")
        image, draw = copies // count, (copies % count).to(images.device)
        which = image.to(images.device)
        x = images[which] + span[which] * draws[draw]
        slopes = net.run(x, target[which], record="input", gradient=True, check=False).gradient["input"]
        return [_Spread.of(index, slopes[rows]) for index, rows in rows_of_each(image)]

    total: dict[int, _Spread] = {}
    for found in in_passes(net, len(images) * count, part, batch, backwards=True):
        for one in found:
            total[one.image] = total[one.image].joined(one) if one.image in total else one
    mean = torch.stack([total[index].mean for index in range(len(images))])
    squares = torch.stack([total[index].squares for index in range(len(images))])
    return mean, (squares / max(count - 1, 1) / count).sqrt()


@dataclass(frozen=True)
class _Spread:
    """The number, the mean and the summed squared distance from the mean of some gradients of one image."""

    image: int
    number: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, image: int, slopes: Tensor) -> _Spread:
        """The moments of gradients (n, C, H, W), in two passes, since a difference of large sums loses digits."""
        mean = slopes.mean(0)
        return cls(image, len(slopes), mean, (slopes - mean).square_().sum(0))

    def joined(self, other: _Spread) -> _Spread:
        """The moments of both together (Chan, Golub and LeVeque)."""
        number = self.number + other.number
        away = other.mean - self.mean
        squares = self.squares + other.squares + away.square() * (self.number * other.number / number)
        return _Spread(self.image, number, self.mean + away * (other.number / number), squares)
