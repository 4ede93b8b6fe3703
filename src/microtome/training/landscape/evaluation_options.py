"""Options for measuring the loss at each point, shared by lines, planes and lines between networks."""

from __future__ import annotations

from typing import TypedDict

from microtome.training.image_losses import Loss

__all__ = ["EvaluationOptions"]


class EvaluationOptions(TypedDict, total=False):
    """Options for measuring the loss at each point; every function of ``landscape`` takes these keywords.

    Attributes
    ----------
    loss : function, optional
        Maps scores (n, K) and labels (n,) to losses (n,); by default the cross-entropy.
    statistics : str
        Running statistics of normalisation layers: ``"frozen"``, the default: they stay, or move with a direction that
        names them; ``"reestimated"``: at each point they are the averages over the first 2,048 images, the same at
        every point.
    tolerance : float, optional
        Each point reads images until its standard error is at most this share of its loss, at least 256 images;
        by default every point reads all images. Stopping when the error looks small makes it slightly too small:
        95 % bands held a planted mean in 94 to 97 % of samples (``python -m benchmarks.loss_bands``).
    common : bool
        Whether all points read the images in the same order, so that their differences are more exact than each value;
        true by default.
    images : int, optional
        Maximum number of images, drawn by ``seed``; by default all.
    batch : int, optional
        Images per pass; by default a number that suits the machine's cache.
    precision : str
        ``"float32"``, the default: that of the network; ``"bfloat16"``: matrix products and convolutions of a network
        in float32 are taken in bfloat16 (torch's autocast). How far the losses are off is measured at up to 9 points.
    """

    loss: Loss | None
    statistics: str
    tolerance: float | None
    common: bool
    images: int | None
    batch: int | None
    precision: str
