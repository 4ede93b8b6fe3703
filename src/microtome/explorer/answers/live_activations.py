"""Live activations: the scores of all classes and the maps of all units of a layer, from one pass."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from microtome.atlas.pictures.downscaling import downscaled_signal
from microtome.attribution.class_activation.arrangement import arrangement
from microtome.errors import LayerError
from microtome.explorer.frames import Frame, quantised
from microtome.network import Network

__all__ = ["activation_maps", "live", "scores"]

_BYTES = 300_000  # of all maps of a layer on the screen
_SIDES = (8, 64)  # the smallest and the largest side of a map on the screen


def live(net: Network, image: Tensor, layer: str) -> Frame:
    """Scores and activation maps of one picture (1, C, H, W).

    Blocks: ``maps`` bytes (units, h, w) at most 64 pixels a side with ``limits`` (units, 2), ``peak`` and ``mean``
    (units,) of the full maps, and those of :func:`scores`.
    """
    record = net.run(image, record=layer)
    maps = activation_maps(net, record.value[layer], layer)
    header, blocks = scores(net, record.logits)
    side = max(_SIDES[0], min(_SIDES[1], int(math.sqrt(_BYTES / max(1, len(maps))))))
    shown = downscaled_signal(maps, side)
    signed = bool((maps < 0).any())
    blocks["maps"], blocks["limits"] = quantised(shown, signed=signed)
    blocks["peak"], blocks["mean"] = maps.flatten(1).amax(1).float(), maps.flatten(1).mean(1).float()
    return Frame({"layer": layer, "grid": list(maps.shape[1:]), "signed": signed, **header}, blocks)


def scores(net: Network, logits: Tensor) -> tuple[dict[str, object], dict[str, Tensor]]:
    """The predicted class, the scores (K,), and the probabilities (K,) where the output has them."""
    blocks = {"scores": logits[0].float()}
    if net.output == "value":
        return {"predicted": None, "output": net.output}, blocks
    blocks["probabilities"] = net.head.readout(logits)[0].float()
    return {"predicted": int(logits[0].argmax()), "output": net.output}, blocks


def activation_maps(net: Network, value: Tensor, layer: str) -> Tensor:
    """A layer's value for one picture as maps (units, h, w); tokens are placed at their patches where that is known.

    Positions without a place on the picture are arranged row by row in a square, padded with zeros.
    """
    axes = net.layer(layer).axes
    by_unit = axes.per_unit(value, 1)[0]
    if axes.spatial:
        maps: Tensor = axes.maps(value, 1)[0]
        return maps
    if axes.tokens is not None:
        try:
            return arrangement(net, layer).maps(value, 1)[0]
        except LayerError:
            pass
    count = by_unit.shape[1]
    side = math.ceil(math.sqrt(count))
    square = torch.zeros(len(by_unit), side * math.ceil(count / side), dtype=by_unit.dtype, device=by_unit.device)
    square[:, :count] = by_unit
    return square.reshape(len(by_unit), -1, side)
