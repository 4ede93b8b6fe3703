"""Responses of units to stimuli, minus the response to a blank of the same brightness."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.network import Network
from microtome.progress import reported
from microtome.trace.graph import Layer
from microtome.units.stimulus_tuning.stimuli import Stimuli
from microtome.units.streaming.streaming_pass import selected_layers

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class StimulusResponses:
    """Responses of one layer to stimuli.

    Attributes
    ----------
    peak : Tensor
        (U, S) largest response over positions.
    centre : Tensor
        (U, S) response at the middle position.
    place : Tensor
        (U, S) flat index of the position of ``peak``.
    brightness : Tensor
        (U,) value for a white blank minus value for a black blank, at the middle position.
    """

    peak: Tensor
    centre: Tensor
    place: Tensor
    brightness: Tensor


def responses(net: Network, layers: list[str], stimuli: Stimuli, batch: int = 32) -> dict[str, StimulusResponses]:
    r"""Responses of every unit of some layers to every stimulus, in one pass.

    .. math:: r_u(s) = \max_p \big( a_u(s, p) - b_u(m_p(s), p) \big)

    a is the activation at position p, m_p(s) is the mean level of the stimulus within the receptive field
    of p, and b is the activation at p for a blank of this level (interpolated linearly between five blanks).
    For a layer that is linear in the image, r is the product of the unit's filter without its mean and the
    stimulus. Positions whose field exceeds the picture are excluded if there are others, because the padding
    has an edge.
    """
    selected_layers(net, layers)  # each exists and has units
    info = {name: net.layer(name) for name in layers}
    blanks = scaled(
        net, torch.stack([torch.full(net.input_shape, level, dtype=torch.float32, device="cpu") for level in LEVELS])
    )
    quick = net.quick(net.images(blanks), layers, len(stimuli.images), backwards=False)
    blank = {
        name: info[name].axes.maps(value, len(blanks)) for name, value in quick.activations(blanks, layers).items()
    }
    responses = {name: _empty(blank[name], len(stimuli.images)) for name in layers}
    for start in reported(range(0, len(stimuli.images), batch), "stimuli"):
        images = stimuli.images[start : start + batch]
        gray, part = images.mean(1), slice(start, start + len(images))
        values = quick.activations(scaled(net, with_channels(net, images)), layers, batch=batch)
        while values:  # popitem frees the memory of each value
            name, value = values.popitem()
            one = responses[name]
            one.peak[:, part], one.centre[:, part], one.place[:, part] = _reduced(
                info[name].axes.maps(value, len(images)), blank[name], gray.to(value.device), info[name]
            )
    return responses


def with_channels(net: Network, images: Tensor) -> Tensor:
    """Stimuli with the network's number of channels."""
    if images.shape[1] == 1 and net.input_shape[0] != 1:
        images = images.expand(-1, net.input_shape[0], -1, -1)
    return net.images(images, check=False)


def scaled(net: Network, images: Tensor) -> Tensor:
    """Images in [0, 1], scaled to the network's pixel range."""
    low, high = net.pixels if net.pixels is not None else (0.0, 1.0)
    return images * (high - low) + low


def boxes(layer: Layer, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Receptive fields of all positions: rows (h, 2), columns (w, 2), clipped to the picture, and a mask (h, w).

    The mask is true for fields inside the picture. If there are none, it is true everywhere.
    """
    h, w = layer.axes.grid
    field = layer.field
    if field is None or not layer.spatial:
        whole = torch.ones(h, w, dtype=torch.bool, device="cpu")
        rows, columns = (torch.tensor([[0, length]], device="cpu") for length in (height, width))
        return rows.expand(h, 2), columns.expand(w, 2), whole
    rows, inside_rows = _axis(field.offset[0], field.stride[0], field.size[0], h, height)
    columns, inside_columns = _axis(field.offset[1], field.stride[1], field.size[1], w, width)
    inside = inside_rows[:, None] & inside_columns
    return rows, columns, inside if bool(inside.any()) else torch.ones_like(inside)


def _axis(offset: int, stride: float, size: int, count: int, length: int) -> tuple[Tensor, Tensor]:
    start = (
        offset + (stride * torch.arange(count, device="cpu") + 1e-6).floor().long()
    )  # the same as ReceptiveField.box
    clipped = torch.stack([start.clamp(0, length - 1), (start + size).clamp(1, length)], 1)
    return clipped, (start >= 0) & (start + size <= length)


def _reduced(value: Tensor, blank: Tensor, gray: Tensor, layer: Layer) -> tuple[Tensor, Tensor, Tensor]:
    """Largest response and response at the middle for one batch, and the position of the largest, (U, n) each."""
    rows, columns, inside = (part.to(value.device) for part in boxes(layer, gray.shape[1], gray.shape[2]))
    means = _box_means(gray, rows, columns)
    weights = _interpolation(means).to(value.dtype)
    response = value.clone()
    for level, activation in enumerate(blank):
        response.addcmul_(weights[:, level, None], activation[None], value=-1)
    flat = response.masked_fill(~inside, -torch.inf).flatten(2)
    peak, place = flat.max(2)
    middle = response[:, :, response.shape[2] // 2, response.shape[3] // 2]
    return peak.T.cpu(), middle.T.cpu(), place.T.cpu()


def _box_means(gray: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Mean of (S, H, W) over every field, (S, h, w), by an integral image."""
    integral = torch.nn.functional.pad(gray.double().cumsum(1).cumsum(2), (1, 0, 1, 0))
    bottom, top = integral[:, rows[:, 1]], integral[:, rows[:, 0]]
    band = bottom - top
    sums = band[:, :, columns[:, 1]] - band[:, :, columns[:, 0]]
    area = (rows[:, 1] - rows[:, 0])[:, None] * (columns[:, 1] - columns[:, 0])
    return sums / area


def _interpolation(means: Tensor) -> Tensor:
    """Weights (S, levels, h, w) of the blanks for linear interpolation to the mean level of each field."""
    levels = torch.tensor(LEVELS, dtype=means.dtype, device=means.device)[None, :, None, None]
    return (1 - (means[:, None] - levels).abs() / (LEVELS[1] - LEVELS[0])).clamp(min=0)


def _empty(blank: Tensor, stimuli: int) -> StimulusResponses:
    """Empty tables for a layer's responses, and its response to brightness."""
    units = blank.shape[1]
    middle = blank[:, :, blank.shape[2] // 2, blank.shape[3] // 2]
    return StimulusResponses(
        torch.empty(units, stimuli, dtype=torch.float32, device="cpu"),
        torch.empty(units, stimuli, dtype=torch.float32, device="cpu"),
        torch.empty(units, stimuli, dtype=torch.int64, device="cpu"),
        (middle[-1] - middle[0]).float().cpu(),
    )
