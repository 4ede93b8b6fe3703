"""Gradient of the class score with respect to the pixels, plain or under backward rules, for any batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from microtome.attribution.batching import by_batch
from microtome.attribution.result import Signal, wide
from microtome.inputs import Target
from microtome.network import Network
from microtome.trace.passes import RecordedPass


def pixel_signal(
    net: Network, images: Any, target: Target, *, rules: str | None = None, batch: int | None = None
) -> Signal:
    """Send the class score back to the image; images do not mix.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor or array
        (N, C, H, W) in the network's pixel range.
    target : int, str, sequence, Tensor or None
        The class that is explained; None for the predicted one.
    rules : str, optional
        ``"guided"`` or ``"deconvnet"``; None for the gradient.
    batch : int, optional
        Images in one pass; default 2 to 10 of 224 x 224 pixels, by the network, up to 64 small ones.

    Returns
    -------
    Signal
        The signal per pixel, (N, C, H, W), in the user's pixel space: the chain rule runs through
        the network's normalisation, too.
    """

    def signal(part: Tensor, classes: Target) -> RecordedPass:
        return net.run(part, classes, record="input", gradient=True, rules=rules, check=False)

    records = by_batch(net, images, target, signal, batch, backwards=True)
    return Signal(
        values=torch.cat([record.gradient["input"] for record in records]),
        target=torch.cat([record.target for record in records]),
        score=wide(torch.cat([record.score for record in records])),
        images=torch.cat([record.value["input"] for record in records]),
        unrecognised=list(dict.fromkeys(note for record in records for note in record.notes)),
    )
