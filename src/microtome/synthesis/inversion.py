"""Inversion of a representation: images with the same activations at a layer, by gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.batch_sizes import in_passes
from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, stated
from microtome.synthesis.objectives import Objective, arranged
from microtome.synthesis.optimisation.ascent import Ascent
from microtome.synthesis.optimisation.priors import Prior
from microtome.synthesis.placement import images_per_pass, whole


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Inversion(Result, drawing="synthesis_figures:inversion"):
    """Images with the representation of a reference image at a layer.

    Attributes
    ----------
    images : Tensor
        (n, C, H, W). ``starts`` images follow each other for each reference image.
    error : Tensor
        (n,) squared distance of the representations over the squared norm of the reference's representation.
    pixel_error : Tensor
        (n,) root mean square difference to the reference image, in pixel units: the layer does not determine it.
    history : Tensor
        (steps, n) the error after each step.
    source : Tensor
        (n,) index of the reference image.
    start : Tensor
        (n,) number of the start.
    reference : Tensor
        (images, C, H, W) the images whose representation is inverted.
    layer : str
        The layer.
    """

    images: Tensor
    error: Tensor
    pixel_error: Tensor
    history: Tensor
    source: Tensor
    start: Tensor
    reference: Tensor
    layer: str


# The two penalties of Mahendran and Vedaldi. They are small compared to an error of a few hundredths.
_PHOTOGRAPHS = Prior(canvas="fourier", lr=0.05, noise=0.1, tv=0.5, alpha=0.5, relative=False)
_SMALL = Prior(canvas="pixels", lr=0.05, noise=0.2, tv=0.01, alpha=0.0, relative=False)


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
    r"""Find images whose representation at a layer equals that of an image, from several starts.

    .. math:: x^* = \arg\min_x \frac{\|\Phi(x) - \Phi_0\|^2}{\|\Phi_0\|^2}
              + \frac{1}{P} \Big(\lambda_\alpha \sum_p |x_p - m|^6 + \lambda_{TV} R_{TV}(x)\Big)

    over images in the pixel range, with m the mean colour and P = C H W [1]_. Where all starts end in
    the same values, the layer determines the image. Where they differ, the layer does not distinguish them.

    Parameters
    ----------
    net : Network
        The network.
    image : Tensor
        One image (C, H, W) or several (N, C, H, W).
    layer : str
        The layer, or ``"logits"``.
    starts : int
        Number of descents for each image, each from different noise.
    steps : int
        Number of steps of descent.
    prior : Prior, optional
        Canvas, step size, start noise and the weights ``tv`` and ``alpha``. Default: a Fourier canvas
        for photographs, pixels for pictures of up to 64 pixels.
    seed : int
        Seed of the noise.

    Returns
    -------
    Inversion
        ``.images`` (n, C, H, W), ``starts`` of each image; ``.error`` (n,).

    Raises
    ------
    LayerError
        When there is no such layer.
    InputError
        When the image does not fit, or its representation is zero.

    Notes
    -----
    Cost: ``steps`` forward and backward passes down to the layer for each start.
    What it does not show: an error may be high because the descent has not converged; see ``history``.

    References
    ----------
    .. [1] Mahendran, Vedaldi: Understanding Deep Image Representations by Inverting Them, CVPR 2015.

    Examples
    --------
    An injective layer returns the image itself:

    >>> net = Network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Identity()), input_shape=(1, 2, 2))
    >>> image = torch.tensor([[[0.1, 0.9], [0.4, 0.6]]])
    >>> inversion = invert(net, image, "0", prior=Prior(canvas="pixels", noise=0.2), starts=2)
    >>> bool(inversion.pixel_error.max() < 1e-3)
    True
    """
    if starts < 1 or steps < 1:
        raise InputError(f"at least one start and one step are needed, got {starts} and {steps}.")
    reference = net.images(image)
    layer = layer if layer == "logits" else net.layer(layer).name
    representation = torch.cat([arranged(net, layer, net.activations(one[None], layer)[layer], 1) for one in reference])
    energy = representation.flatten(1).square().sum(1)
    if not bool((energy > 0).all()):
        raise InputError(
            f'layer "{layer}" is zero for image {int((energy <= 0).nonzero()[0])}; the relative error is undefined.'
        )
    if prior is None:
        prior = _SMALL if max(net.input_shape[1:]) <= 64 else _PHOTOGRAPHS
    descent = Ascent(  # ascent on minus the error
        net=net,
        objective=_minus_error(layer, representation, energy),
        placement=whole(net),
        prior=prior,
        crop_maps=True,
        steps=steps,
        seed=seed,
        diverse=starts,
        contrast_layer=layer,
        diversity=0.0,
    )
    rows = torch.arange(len(reference), device=net.device)
    at_once = images_per_pass(net, (layer,), descent.placement.window)
    usual, descent = max(1, at_once // starts), descent.faster(at_once)
    parts = in_passes(
        net,
        len(rows),
        lambda first, last: descent.run(rows[first:last].repeat_interleave(starts), 0),
        backwards=True,
        usual=usual,
    )
    images = torch.cat([part[0] for part in parts])
    source = rows.repeat_interleave(starts)
    error = -descent.evaluate(images, source, descent.objective)
    return Inversion(
        provenance=stated(layer=layer, images=len(reference), prior=vars(prior)),
        images=images,
        error=error,
        pixel_error=(images - reference[source]).flatten(1).square().mean(1).sqrt(),
        history=-torch.cat([part[1] for part in parts], 1),
        source=source,
        start=torch.arange(starts, device=source.device).repeat(len(reference)),
        reference=reference,
        layer=layer,
    )


def _minus_error(layer: str, representation: Tensor, energy: Tensor) -> Objective:
    """Minus the squared distance to a representation, relative to its squared norm."""

    def score(values: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        distance = (values[layer] - representation[rows]).flatten(1).square().sum(1)
        return -distance / energy[rows]

    return Objective((layer,), len(representation), score)
