"""Infidelity: the error of a map as a linear prediction of the score under noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.attribution.batching import class_scores
from microtome.attribution.quality.maps import asked_classes, per_pixel
from microtome.attribution.result import Attribution, wide
from microtome.batch_sizes import check_count
from microtome.errors import InputError
from microtome.inputs import Target
from microtome.network import Network
from microtome.progress import reported
from microtome.registry import register
from microtome.results import Result, stated


@dataclass(frozen=True, eq=False, kw_only=True)
class Infidelity(Result, drawing="attribution.quality_figures:infidelity"):
    """The error of a map as a linear prediction of changes of the score.

    Attributes
    ----------
    values : Tensor
        (N,), the mean squared error, in squared logits.
    scaled : Tensor
        (N,), the same after each map is multiplied by the one factor that serves it best: for maps
        whose scale means nothing, such as saliency and class activation maps.
    change : Tensor
        (N,), mean squared change of the score: what a map of zeros scores. Where it is the smaller
        one, the map foretells nothing.
    target : Tensor
        (N,), the class.
    """

    values: Tensor
    scaled: Tensor
    change: Tensor
    target: Tensor


@register("infidelity", rows=("C12",), paper="yeh2019fidelity", needs="maps of the images", kind="quality")
def infidelity(
    net: Network,
    images: Any,
    attribution: Attribution | Tensor,
    target: Target = None,
    *,
    deviation: float = 0.1,
    samples: int = 32,
    seed: int = 0,
    batch: int | None = None,
) -> Infidelity:
    r"""Mean squared error of the map as a linear forecast of the score under Gaussian noise.

    .. math:: \mathrm{INFD} = \mathbb{E}_I\Big[\big(I^\top \Phi - (S_c(x) - S_c(x - I))\big)^2\Big],
              \qquad I \sim \mathcal{N}(0, \sigma^2)

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    attribution : Attribution or Tensor
        The result of any method for these images, or maps (N, H, W). One number per pixel is divided
        evenly over the channels.
    target : int, str, sequence, Tensor or None
        The class; None for that of the attribution, or for the predicted one where maps are given.
    deviation : float
        :math:`\sigma`, in units of the pixels.
    samples : int
        Perturbations an image; the same ones for every image and method with the same seed.
    seed : int
        Seed of the perturbations.
    batch : int, optional
        Images in one pass.

    Returns
    -------
    Infidelity
        The error, the error at the best scale, and what a map of zeros would score.

    Raises
    ------
    InputError
        When maps, targets or options do not fit.

    Notes
    -----
    Cost: ``samples + 1`` forward passes per image. For small noise the gradient has a small error by
    definition: the number measures sensitivity, not contribution [1]_.

    References
    ----------
    .. [1] Yeh et al., On the (in)fidelity and sensitivity of explanations, NeurIPS 2019.

    Examples
    --------
    The gradient of a linear network predicts every change.

    >>> from torch import nn
    >>> net = Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), input_shape=(1, 2, 2)).model.double()
    >>> net = Network(net, input_shape=(1, 2, 2))
    >>> maps = net.model[1].weight[0].reshape(1, 2, 2).detach()
    >>> bool(infidelity(net, torch.rand(1, 1, 2, 2).double(), maps, 0).values < 1e-12)
    True
    """
    if not deviation > 0:
        raise InputError(f"the deviation of the noise must be positive, got {deviation}.")
    samples = check_count(samples, "samples")
    checked = net.images(images).detach()
    chosen = asked_classes(net, checked, attribution, target)
    phi = wide(per_pixel(attribution, checked))
    score = wide(class_scores(net, checked, batch).gather(1, chosen[:, None])[:, 0])
    generator = torch.Generator().manual_seed(seed)
    foretold, changed = [], []
    for _ in reported(range(samples), "changed images"):
        noise = (torch.randn(checked.shape[1:], generator=generator, dtype=torch.float64, device="cpu") * deviation).to(
            checked
        )
        after = class_scores(net, checked - noise, batch).gather(1, chosen[:, None])[:, 0]
        foretold.append((phi * noise).flatten(1).sum(1))
        changed.append(score - wide(after))
    values, scaled, change = _errors(torch.stack(foretold), torch.stack(changed))
    return Infidelity(
        provenance=stated(samples=samples),
        values=values,
        scaled=scaled,
        change=change,
        target=chosen,
    )


def _errors(foretold: Tensor, changed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean squared error as it is, at the best scale of each map, and of zero; over the samples."""
    square = (foretold**2).mean(0)
    scale = torch.where(square > 0, (foretold * changed).mean(0) / square, torch.zeros_like(square))
    return ((foretold - changed) ** 2).mean(0), ((scale * foretold - changed) ** 2).mean(0), (changed**2).mean(0)
