"""The ridge penalty of a fit towards its initial weights, chosen on held-out samples."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from microtome.errors import InputError
from microtome.surgery.compression.moments import Moments
from microtome.surgery.compression.optimal_brain_surgeon import least_squares
from microtome.surgery.held_out import of_samples

PULLS = (1.0, 10.0, 100.0, 1000.0, math.inf)  # multiples of the damping; the last keeps the weights


def parts(x: Tensor, y: Tensor, images: Tensor) -> tuple[Moments, Moments]:
    """Sums over the samples of a batch for fitting, and over those of held-out images, from the mask of the images.

    Neighbouring positions of an image are similar, so whole images are held out; samples are ordered by image.
    """
    out = of_samples(images, x.shape[2]).to(x.device)
    return Moments.of(x[..., ~out], y[..., ~out]), Moments.of(x[..., out], y[..., out])


def summed_parts(batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> tuple[Moments, Moments]:
    """The sums of ``parts`` over batches of samples (x, y, mask of the images).

    Raises
    ------
    InputError
        When there is no batch.
    """
    total: tuple[Moments, Moments] | None = None
    for x, y, images in batches:
        found = parts(x, y, images)
        total = found if total is None else (total[0] + found[0], total[1] + found[1])
    if total is None:
        raise InputError("the data set is empty: there is no image to run.")
    return total


def fitted(seen: Moments, held_out: Moments, anchor: Tensor, damping: float) -> tuple[Tensor, float]:
    """The least-squares weights on all samples with the penalty that is best on held-out samples, and that penalty.

    Parameters
    ----------
    seen, held_out : Moments
        Sums over samples.
    anchor : Tensor
        (groups, outputs, p) the initial weights, towards which the penalty pulls.
    damping : float
        The smallest penalty: a share of the mean diagonal of the moments.

    Notes
    -----
    A layer that reads one position per image has as many samples as images, often fewer than weights, so that an
    exact fit overfits. One solution for each penalty on four fifths of the samples, and one on all.
    """
    whole = seen + held_out
    if not held_out.samples or not seen.samples:
        return _weights(whole.mean, anchor, damping), damping
    fits, test = seen.mean, held_out.mean
    errors = {damping * pull: error(test, _weights(fits, anchor, damping * pull)) for pull in PULLS}
    best = min(errors, key=errors.__getitem__)
    return _weights(whole.mean, anchor, best), best


def _weights(moments: Moments, anchor: Tensor, damping: float) -> Tensor:
    return anchor if math.isinf(damping) else least_squares(moments.read, moments.cross, anchor, damping=damping)


def error(moments: Moments, weights: Tensor) -> float:
    r"""Mean squared error of weights less what all share: :math:`\operatorname{tr}(W R W^T - 2 W C^T)`."""
    wide = weights.double()
    found = (wide @ moments.read.to(wide) * wide).sum() - 2 * (wide * moments.cross.to(wide)).sum()
    return float(found)
