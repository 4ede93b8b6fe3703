"""Template match: cosine between a unit's gradient and its best stimulus, with the level that noise filters reach."""

from __future__ import annotations

import torch
from torch import Tensor

from microtome.network import Network
from microtome.progress import reported
from microtome.trace.graph import Layer
from microtome.units.stimulus_tuning import stimulus_responses
from microtome.units.stimulus_tuning.stimuli import Stimuli


def match(
    net: Network, name: str, stimuli: Stimuli, best: Tensor, place: Tensor, batch: int = 32
) -> tuple[Tensor, Tensor]:
    r"""Cosine between a unit's gradient and its best stimulus within the receptive field, both without their mean.

    .. math:: \rho_u = \frac{\langle g, s \rangle}{|g| |s|}, \qquad g = \partial a_u(p) / \partial x

    g is the gradient at the stimulus ``best[u]`` and the position ``place[u]``. For a unit that is
    linear in the image, g is its filter, and the square of rho is the share of the filter's energy that
    the stimulus explains. Cost: one forward and backward pass per unit, up to the layer.

    Parameters
    ----------
    best, place : Tensor
        (U,) index of a stimulus, and the flat index of a position.

    Returns
    -------
    (Tensor, Tensor)
        rho, (U,) in [-1, 1], 0 if the gradient is zero; and the share of the gradient's energy in its
        mean, the response to brightness, (U,) in [0, 1].
    """
    layer = net.layer(name)
    rows, columns, _ = stimulus_responses.boxes(layer, *stimuli.images.shape[2:])
    rho, level = [], []
    for units in reported(torch.arange(best.numel(), device="cpu").split(batch), "matches with stimuli"):
        images = stimulus_responses.with_channels(net, stimuli.images[best[units]])
        gradient = _gradient(net, layer, images, units, place[units])
        for index, unit in enumerate(units.tolist()):
            row, column = divmod(int(place[unit]), columns.shape[0])
            (top, bottom), (left, right) = rows[row].tolist(), columns[column].tolist()
            field = (index, slice(None), slice(top, bottom), slice(left, right))
            weights = gradient[field].flatten().double()
            rho.append(cosine(weights, images[field].flatten()))
            level.append(weights.mean() ** 2 / weights.square().mean().clamp(min=1e-300))
    return torch.stack(rho).cpu(), torch.stack(level).float().cpu()


def noise_size(layer: Layer, stimuli: Stimuli) -> tuple[int, int]:
    """Height and width of the noise filters for a layer: its receptive field, at most 24 x 24."""
    height, width = stimuli.images.shape[2:]
    size = layer.field.size if layer.field is not None and layer.spatial else (height, width)
    return min(size[0], height, 24), min(size[1], width, 24)


def noise_matches(size: tuple[int, int], stimuli: Stimuli, channels: int, draws: int = 400) -> Tensor:
    """The match of filters of white noise with their best stimulus, (draws,).

    Receptive fields with few pixels match some stimulus by chance. See ``noise_size`` for the size.
    """
    h, w = size
    crops = _crops(stimuli.images[:, 0], h, w)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(draws, channels, h * w, generator=generator, dtype=torch.float32, device="cpu").double()
    noise = noise - noise.mean((1, 2), keepdim=True)
    norms = noise.flatten(1).norm(dim=1)
    responses = crops @ noise.sum(1).T
    best = responses.argmax(0)
    matches: Tensor = responses.amax(0) / (crops[best].norm(dim=1) * channels**0.5 * norms).clamp(min=1e-12)
    return matches


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of two vectors without their means; 0 if one of them is constant."""
    first, second = first.double(), second.double()
    a, b = first - first.mean(), second - second.mean()
    norm, rounding = a.norm() * b.norm(), 1e-12 * first.norm() * second.norm()
    return (
        (a @ b / norm).float() if bool(norm > rounding) else torch.zeros((), dtype=torch.float32, device=first.device)
    )


def _gradient(net: Network, layer: Layer, images: Tensor, units: Tensor, places: Tensor) -> Tensor:
    def one_hot(value: Tensor) -> Tensor:
        grad_output = torch.zeros_like(layer.axes.per_unit(value, len(units)))
        grad_output[torch.arange(len(units), device=value.device), units.to(value.device), places.to(value.device)] = 1
        return layer.axes.from_units(grad_output, tuple(value.shape))

    images = stimulus_responses.scaled(net, images)
    record = net.run(images, record="input", gradient=True, output_layer=layer.name, grad_output=one_hot, check=False)
    return record.gradient["input"]


def _crops(gray: Tensor, h: int, w: int) -> Tensor:
    """Crops of the stimuli around the middle, without their mean, except blank crops: (P, h * w)."""
    rows = _starts(gray.shape[1], h)
    columns = _starts(gray.shape[2], w)
    crops = (
        torch.stack([gray[:, r : r + h, c : c + w].flatten(1) for r in rows for c in columns]).flatten(0, 1).double()
    )
    crops = crops - crops.mean(1, keepdim=True)
    return crops[crops.norm(dim=1) > 1e-6]


def _starts(length: int, size: int) -> range:
    """At most seven starts around the middle."""
    middle, distance = (length - size) // 2, 3
    return range(max(0, middle - distance), min(length - size, middle + distance) + 1)
