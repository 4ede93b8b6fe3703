"""Responses of units to stimuli, less what the stimulus's brightness alone would give."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import LayerError
from microtome.network import Network
from microtome.trace.graph import Layer
from microtome.units.stimulus_tuning.stimuli import Stimuli

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Responses:
    """Answers of one layer.

    Attributes
    ----------
    peak : Tensor
        (U, S) largest response over positions.
    centre : Tensor
        (U, S) response at the middle position.
    place : Tensor
        (U, S) flat index of the position of ``peak``.
    brightness : Tensor
        (U,) value for a white blank minus that for a black one, at the middle.
    """

    peak: Tensor
    centre: Tensor
    place: Tensor
    brightness: Tensor


def responses(net: Network, layers: list[str], stimuli: Stimuli, batch: int = 32) -> dict[str, Responses]:
    r"""Responses of every unit of some layers to every stimulus, in one pass.

    .. math:: r_u(s) = \max_p \big( a_u(s, p) - b_u(m_p(s), p) \big)

    where a is the activation at position p, m_p(s) the mean level of the stimulus within the field of
    p, and b the activation at p for a blank of that level (linear between five blanks). For a layer
    that is linear in the image this is the unit's filter without its mean, applied to the stimulus.
    Positions whose field leaves the picture are left out where there are others, since the padding is
    an edge of its own.
    """
    found = {name: net.layer(name) for name in layers}
    for name, layer in found.items():
        if not layer.units or layer.axes.image_axis is None:
            raise LayerError(f'layer "{name}" has no units, or its values belong to no single image; choose another.')
    blanks = torch.stack([torch.full(net.input_shape, level) for level in LEVELS])
    blank = {
        name: found[name].axes.maps(value, len(blanks))
        for name, value in net.activations(scaled(net, blanks), layers).items()
    }
    answers = {name: _unanswered(blank[name], len(stimuli.images)) for name in layers}
    for start in range(0, len(stimuli.images), batch):
        chunk = stimuli.images[start : start + batch]
        means, part = chunk.mean(1), slice(start, start + len(chunk))
        values = net.activations(scaled(net, fitted(net, chunk)), layers, batch=batch)
        while values:  # each value is let go when it has been read
            name, value = values.popitem()
            answer = answers[name]
            answer.peak[:, part], answer.centre[:, part], answer.place[:, part] = _reduced(
                found[name].axes.maps(value, len(chunk)), blank[name], means.to(value.device), found[name]
            )
    return answers


def fitted(net: Network, images: Tensor) -> Tensor:
    """Stimuli with as many channels as the network takes."""
    if images.shape[1] == 1 and net.input_shape[0] != 1:
        images = images.expand(-1, net.input_shape[0], -1, -1)
    return net.images(images, check=False)


def scaled(net: Network, images: Tensor) -> Tensor:
    """Images in [0, 1] moved to the network's pixel range."""
    low, high = net.pixels if net.pixels is not None else (0.0, 1.0)
    return images * (high - low) + low


def boxes(layer: Layer, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fields of all positions: rows (h, 2) and columns (w, 2) clipped to the picture, and which count (h, w).

    Those count that lie wholly in the picture, or all where none does.
    """
    h, w = layer.axes.grid
    field = layer.field
    if field is None or not layer.spatial:
        whole = torch.ones(h, w, dtype=torch.bool)
        return torch.tensor([[0, height]]).expand(h, 2), torch.tensor([[0, width]]).expand(w, 2), whole
    rows, inside_rows = _axis(field.offset[0], field.stride[0], field.size[0], h, height)
    columns, inside_columns = _axis(field.offset[1], field.stride[1], field.size[1], w, width)
    inside = inside_rows[:, None] & inside_columns
    return rows, columns, inside if bool(inside.any()) else torch.ones_like(inside)


def _axis(offset: int, stride: float, size: int, count: int, length: int) -> tuple[Tensor, Tensor]:
    start = offset + (stride * torch.arange(count) + 1e-6).floor().long()  # as ReceptiveField.box
    clipped = torch.stack([start.clamp(0, length - 1), (start + size).clamp(1, length)], 1)
    return clipped, (start >= 0) & (start + size <= length)


def _reduced(value: Tensor, blank: Tensor, grey: Tensor, layer: Layer) -> tuple[Tensor, Tensor, Tensor]:
    """Largest and middle response of one batch, (U, n) each, and where the largest lies."""
    rows, columns, inside = (part.to(value.device) for part in boxes(layer, grey.shape[1], grey.shape[2]))
    means = _box_means(grey, rows, columns)
    mixture = _interpolation(means).to(value.dtype)
    response = value.clone()
    for level, of_level in enumerate(blank):
        response.addcmul_(mixture[:, level, None], of_level[None], value=-1)
    flat = response.masked_fill(~inside, -torch.inf).flatten(2)
    peak, place = flat.max(2)
    middle = response[:, :, response.shape[2] // 2, response.shape[3] // 2]
    return peak.T.cpu(), middle.T.cpu(), place.T.cpu()


def _box_means(grey: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Mean of (S, H, W) over every field, (S, h, w), by an integral image."""
    integral = torch.nn.functional.pad(grey.double().cumsum(1).cumsum(2), (1, 0, 1, 0))
    bottom, top = integral[:, rows[:, 1]], integral[:, rows[:, 0]]
    band = bottom - top
    sums = band[:, :, columns[:, 1]] - band[:, :, columns[:, 0]]
    area = (rows[:, 1] - rows[:, 0])[:, None] * (columns[:, 1] - columns[:, 0])
    return sums / area


def _interpolation(means: Tensor) -> Tensor:
    """Weights (S, levels, h, w) that mix the blanks to the level asked for, linear between neighbours."""
    levels = torch.tensor(LEVELS, dtype=means.dtype, device=means.device)[None, :, None, None]
    return (1 - (means[:, None] - levels).abs() / (LEVELS[1] - LEVELS[0])).clamp(min=0)


def _unanswered(blank: Tensor, stimuli: int) -> Responses:
    """Room for a layer's responses, and what the brightness alone does."""
    units = blank.shape[1]
    middle = blank[:, :, blank.shape[2] // 2, blank.shape[3] // 2]
    return Responses(
        torch.empty(units, stimuli),
        torch.empty(units, stimuli),
        torch.empty(units, stimuli, dtype=torch.int64),
        (middle[-1] - middle[0]).float().cpu(),
    )
