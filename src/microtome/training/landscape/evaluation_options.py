"""Options of how the loss is measured at each point, shared by lines, planes and ways between networks."""

from __future__ import annotations

from typing import TypedDict

from microtome.training.image_losses import Loss

__all__ = ["EvaluationOptions"]


class EvaluationOptions(TypedDict, total=False):
    """How the loss is measured at each point; every function of ``landscape`` takes these by keyword.

    Attributes
    ----------
    loss : function, optional
        Of scores (n, K) and labels (n,), the losses (n,); by default the cross-entropy.
    statistics : str
        Running statistics of normalisation layers: ``"frozen"``, the default: they stay, or move with a direction that
        names them; ``"reestimated"``: at each point they are the averages over the first 2,048 images, the same at
        every point.
    tolerance : float, optional
        Each point sees images until its standard error is at most this share of its loss, after 256 images at least;
        by default every point sees all images. A point that stops when its error looks small is a little too sure:
        bands of 1.96 errors held a planted mean in 93 to 95 % of samples (``python -m benchmarks.loss_bands``).
    common : bool
        Whether all points see the images in one order, so that their differences are more exact than each is; true by
        default.
    images : int, optional
        At most so many images, drawn by ``seed``; by default all.
    batch : int, optional
        Images a pass; by default what suits the machine's cache.
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
