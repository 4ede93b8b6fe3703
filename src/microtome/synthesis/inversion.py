"""Which images does a layer take for this one? Images are sought whose representation is the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, provenance
from microtome.synthesis.ascent import Climb
from microtome.synthesis.objectives import Objective, arranged
from microtome.synthesis.placement import chunk_size, whole
from microtome.synthesis.priors import Prior


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Inversion(Result):
    """Images that a layer represents like a given one.

    Attributes
    ----------
    images : Tensor
        (n, C, H, W), image by image, ``starts`` of each.
    error : Tensor
        (n,) squared distance of the representations over the squared length of the given one.
    pixel_error : Tensor
        (n,) root mean square difference to the given image, in pixel units: what the layer does not fix.
    history : Tensor
        (steps, n) the error along the way.
    source : Tensor
        (n,) which given image.
    start : Tensor
        (n,) which start.
    given : Tensor
        (images, C, H, W) what was represented.
    layer : str
        The layer.
    """

    images: Tensor
    error: Tensor
    pixel_error: Tensor
    history: Tensor
    source: Tensor
    start: Tensor
    given: Tensor
    layer: str


# Mahendran and Vedaldi's two penalties, small beside an error of a few hundredths.
_PHOTOGRAPHS = Prior(canvas="fourier", rate=0.05, noise=0.1, tv=0.5, alpha=0.5, relative=False)
_SMALL = Prior(canvas="pixels", rate=0.05, noise=0.2, tv=0.01, alpha=0.0, relative=False)


@register("invert", rows=("D5",), paper="mahendran2015inverting", needs="a layer", kind="synthesis")
def invert(
    net: Network,
    image: Any,
    layer: str,
    *,
    starts: int = 5,
    steps: int = 400,
    prior: Prior | None = None,
    seed: int = 0,
) -> Inversion:
    r"""Find images whose representation at a layer is that of the given one, from several starts.

    .. math:: x^* = \arg\min_x \frac{\|\Phi(x) - \Phi_0\|^2}{\|\Phi_0\|^2}
              + \frac{1}{P} \Big(\lambda_\alpha \sum_p |x_p - m|^6 + \lambda_{TV} R_{TV}(x)\Big)

    over images in the pixel range, with m the mean colour and P = C H W [1]_. Where the starts end
    alike the layer fixes the image; where they differ it does not tell them apart.

    Parameters
    ----------
    net : Network
        The network.
    image : Tensor
        One image (C, H, W) or several (N, C, H, W).
    layer : str
        The layer, or ``"logits"``.
    starts : int
        Descents from different noise, for each image.
    steps : int
        Steps of descent.
    prior : Prior, optional
        Canvas, step size, start noise and the weights ``tv`` and ``alpha``. Default: a Fourier canvas
        for photographs, pixels for pictures of up to 64 pixels.
    seed : int
        Noise.

    Returns
    -------
    Inversion
        Image by image, ``starts`` of each.

    Raises
    ------
    LayerError
        When there is no such layer.
    InputError
        When the image does not fit, or its representation is zero.

    Notes
    -----
    Cost: ``steps`` forward and backward passes down to the layer for each start.
    What it does not show: a high error may mean that descent has not ended; see ``history``.

    References
    ----------
    .. [1] Mahendran, Vedaldi: Understanding Deep Image Representations by Inverting Them, CVPR 2015.

    Examples
    --------
    A layer that keeps everything gives the image back:

    >>> net = Network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Identity()), input_shape=(1, 2, 2))
    >>> image = torch.tensor([[[0.1, 0.9], [0.4, 0.6]]])
    >>> found = invert(net, image, "0", prior=Prior(canvas="pixels", noise=0.2), starts=2)
    >>> bool(found.pixel_error.max() < 1e-3)
    True
    """
    if starts < 1 or steps < 1:
        raise InputError(f"at least one start and one step are needed, got {starts} and {steps}.")
    given = net.images(image)
    layer = layer if layer == "logits" else net.layer(layer).name
    wanted = torch.cat([arranged(net, layer, net.activations(one[None], layer)[layer], 1) for one in given])
    energy = wanted.flatten(1).square().sum(1)
    if not bool((energy > 0).all()):
        raise InputError(
            f'layer "{layer}" is zero for image {int((energy <= 0).nonzero()[0])}; nothing can be matched.'
        )
    if prior is None:
        prior = _SMALL if max(net.input_shape[1:]) <= 64 else _PHOTOGRAPHS
    climb = Climb(
        net=net,
        objective=_likeness(layer, wanted, energy),
        frame=whole(net),
        prior=prior,
        cuts=True,
        steps=steps,
        seed=seed,
        diverse=starts,
        contrast_layer=layer,
        diversity=0.0,
    )
    rows = torch.arange(len(given), device=net.device)
    parts = [
        climb.run(part.repeat_interleave(starts), 0)
        for part in rows.split(max(1, chunk_size(net, (layer,), climb.frame.window) // starts))
    ]
    images = torch.cat([part[0] for part in parts])
    source = rows.repeat_interleave(starts)
    error = -climb.reached(images, source, climb.objective)
    return Inversion(
        provenance=provenance(
            net, "invert", seed, layer=layer, images=len(given), starts=starts, steps=steps, prior=vars(prior)
        ),
        images=images,
        error=error,
        pixel_error=(images - given[source]).flatten(1).square().mean(1).sqrt(),
        history=-torch.cat([part[1] for part in parts], 1),
        source=source,
        start=torch.arange(starts).repeat(len(given)),
        given=given,
        layer=layer,
    )


def _likeness(layer: str, wanted: Tensor, energy: Tensor) -> Objective:
    """Minus the squared distance to the wanted values, relative to their energy."""

    def score(values: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        distance = (values[layer] - wanted[rows]).flatten(1).square().sum(1)
        return -distance / energy[rows]

    return Objective((layer,), len(wanted), score)
