"""Does a unit really weigh the pixels of its field like the stimulus it answers best, or is that chance?"""

from __future__ import annotations

import torch
from torch import Tensor

from microtome.network import Network
from microtome.trace.graph import Layer
from microtome.units.stimulus_tuning import stimulus_responses
from microtome.units.stimulus_tuning.stimuli import Stimuli


def match(
    net: Network, name: str, stimuli: Stimuli, best: Tensor, place: Tensor, batch: int = 32
) -> tuple[Tensor, Tensor]:
    r"""Cosine between what a unit weighs and what it is shown, within its field, both without their mean.

    .. math:: \rho_u = \frac{\langle g, s \rangle}{|g| |s|}, \qquad g = \partial a_u(p) / \partial x

    g is the gradient at the stimulus ``best[u]`` and the position ``place[u]``. For a unit that is
    linear in the image, g is its filter and the square of rho the share of the filter's energy that
    the stimulus explains. Cost: one forward and backward pass per unit, down from the layer.

    Parameters
    ----------
    best, place : Tensor
        (U,) index of a stimulus, and the flat index of a position.

    Returns
    -------
    (Tensor, Tensor)
        rho, (U,) in [-1, 1], 0 where the gradient is zero; and the share of the gradient's energy that
        lies in its mean, that is in brightness alone, (U,) in [0, 1].
    """
    layer = net.layer(name)
    rows, columns, _ = stimulus_responses.boxes(layer, *stimuli.images.shape[2:])
    found, level = [], []
    for units in torch.arange(best.numel()).split(batch):
        shown = stimulus_responses.fitted(net, stimuli.images[best[units]])
        gradient = _gradient(net, layer, shown, units, place[units])
        for index, unit in enumerate(units.tolist()):
            row, column = divmod(int(place[unit]), columns.shape[0])
            (top, bottom), (left, right) = rows[row].tolist(), columns[column].tolist()
            field = (index, slice(None), slice(top, bottom), slice(left, right))
            weighed = gradient[field].flatten().double()
            found.append(cosine(weighed, shown[field].flatten()))
            level.append(weighed.mean() ** 2 / weighed.square().mean().clamp(min=1e-300))
    return torch.stack(found).cpu(), torch.stack(level).float().cpu()


def compared(layer: Layer, stimuli: Stimuli) -> tuple[int, int]:
    """Height and width of the field within which a layer's units are compared with noise."""
    height, width = stimuli.images.shape[2:]
    size = layer.field.size if layer.field is not None and layer.spatial else (height, width)
    return min(size[0], height, 24), min(size[1], width, 24)


def chance(size: tuple[int, int], stimuli: Stimuli, channels: int, quantile: float = 0.95, draws: int = 400) -> float:
    """The match that a filter of white noise reaches with its own best stimulus, at a quantile of such filters.

    Small fields have few dimensions, so that some stimulus always looks a little like the noise; this
    is the level above which a label says more than chance. See ``compared`` for the size.
    """
    h, w = size
    crops = _crops(stimuli.images[:, 0], h, w)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(draws, channels, h * w, generator=generator).double()
    noise = noise - noise.mean((1, 2), keepdim=True)
    norms = noise.flatten(1).norm(dim=1)
    answers = crops @ noise.sum(1).T
    best = answers.argmax(0)
    reached = answers.amax(0) / (crops[best].norm(dim=1) * channels**0.5 * norms).clamp(min=1e-12)
    return float(reached.quantile(quantile))


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of two vectors after their means are taken off; 0 where one of them is constant."""
    a, b = first.double() - first.double().mean(), second.double() - second.double().mean()
    norm = a.norm() * b.norm()
    return (a @ b / norm).float() if float(norm) > 1e-12 else torch.zeros((), device=first.device)


def _gradient(net: Network, layer: Layer, shown: Tensor, units: Tensor, places: Tensor) -> Tensor:
    def one_unit_each(value: Tensor) -> Tensor:
        seed = torch.zeros_like(layer.axes.per_unit(value, len(units)))
        seed[torch.arange(len(units)), units.to(value.device), places.to(value.device)] = 1
        return layer.axes.from_units(seed, tuple(value.shape))

    images = stimulus_responses.scaled(net, shown)
    record = net.run(
        images, record="input", gradient=True, output_layer=layer.name, grad_output=one_unit_each, check=False
    )
    return record.gradient["input"]


def _crops(grey: Tensor, h: int, w: int) -> Tensor:
    """Pieces of the stimuli around their middle, without their mean, those that are not blank: (P, h * w)."""
    rows = _starts(grey.shape[1], h)
    columns = _starts(grey.shape[2], w)
    pieces = (
        torch.stack([grey[:, r : r + h, c : c + w].flatten(1) for r in rows for c in columns]).flatten(0, 1).double()
    )
    pieces = pieces - pieces.mean(1, keepdim=True)
    return pieces[pieces.norm(dim=1) > 1e-6]


def _starts(length: int, size: int) -> range:
    """At most seven places around the middle."""
    middle, reach = (length - size) // 2, 3
    return range(max(0, middle - reach), min(length - size, middle + reach) + 1)
