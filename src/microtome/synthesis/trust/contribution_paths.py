"""Paths of an activation: the contributions of all units of the layers below, and the similarity of two paths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from microtome.network import Network
from microtome.synthesis.trust import field_windows as windows
from microtome.units.streaming import streaming_pass

LAYERS = 8  # number of layers below that a path includes
_BATCH = 8  # pictures in one pass

Entry = tuple[int, tuple[int, int]]  # a unit, and the row and column of its position
Path = list[Tensor]  # by layer, nearest first: (n, units) contributions of unit length


def layers_below(net: Network, layer: str, most: int = LAYERS) -> list[str]:
    """The nearest layers that a layer depends on and that compute their own units, nearest first."""
    reachable: set[str] = set()
    waiting = [net.layer(layer).name]
    while waiting:
        for name in net.layers[waiting.pop()].inputs:
            if name in net.layers and name not in reachable:
                reachable.add(name)
                waiting.append(name)
    end = net.layer(layer).step
    found = [net.layers[name] for name in streaming_pass.computing_layers(net) if name in reachable]
    found = [one for one in found if one.step < end and one.units > 1]
    return [one.name for one in sorted(found, key=lambda one: -one.step)[:most]]


def paths(net: Network, layer: str, pictures: Tensor, entries: Sequence[Entry], below: Sequence[str]) -> Path:
    r"""The path of one activation of each picture: contributions of every unit of the layers below, at unit length.

    .. math:: c_j = \sum_p \frac{\partial a_u}{\partial f_j(p)} \, f_j(p)

    For layers that are linear between the two, the contributions add up to the activation without biases. A path is
    zero if the activation does not depend on a layer.

    If an activation reads a small part of its picture, the pass runs only on that part.

    Parameters
    ----------
    pictures : Tensor
        (n, C, H, W).
    entries : sequence of (unit, (row, column))
        The activation of each picture.
    below : sequence of str
        The layers below.

    Returns
    -------
    list of Tensor
        By layer (n, units), float64.
    """
    if not below:
        return []
    axes, window = net.layer(layer).axes, windows.field_window(net, layer)
    smaller = net if window is None else window.network(net)
    if window is not None:
        cuts = [window.cut(picture, at) for picture, (_, at) in zip(pictures, entries, strict=True)]
        pictures = torch.stack([part for part, _ in cuts])
        entries = [(unit, local) for (unit, _), (_, local) in zip(entries, cuts, strict=True)]
    parts: list[list[Tensor]] = [[] for _ in below]
    for rows in torch.arange(len(pictures), device="cpu").split(net.admitted(_BATCH)):
        some = [entries[row] for row in rows.tolist()]

        def one_hot(value: Tensor, some: list[Entry] = some) -> Tensor:
            units = torch.zeros_like(axes.per_unit(value, len(some)))
            width = axes.grid[1] if window is None else window.grid[1]
            for n, (unit, (row, column)) in enumerate(some):
                units[n, unit, row * width + column] = 1
            return axes.from_units(units, tuple(value.shape))

        record = smaller.run(
            pictures[rows.to(pictures.device)], record=below, gradient=True, output_layer=layer, grad_output=one_hot,
            check=False,
        )  # fmt: skip
        for place, name in enumerate(below):
            product = record.value[name] * record.gradient[name]
            parts[place].append(net.layer(name).axes.per_unit(product, len(rows)).double().sum(2).cpu())
    return [torch.nn.functional.normalize(torch.cat(rows), dim=1, eps=1e-30) for rows in parts]


def path_similarity(own: Path, patches: Path, count: int) -> Tensor:
    r"""Similarity of paths to those of patches, (n,) in [0, 1]: 1 if as similar as the patches among themselves.

    .. math:: s = \frac{1}{L} \sum_l \min\Big(1, \frac{\max_k \cos(c^l, c^l_k)}
              {\operatorname{median}_k \max_{j \ne k} \cos(c^l_k, c^l_j)}\Big)^+

    The most similar patch counts, so that a unit with two kinds of patches may have an image of one kind. NaN for all
    ``count`` images with fewer than two patches that have a path, and for first layers.
    """
    shares = []
    for mine, theirs in zip(own, patches, strict=True):
        theirs = theirs[theirs.norm(dim=1) > 0]
        if len(theirs) < 2:
            continue
        among = (theirs @ theirs.T).fill_diagonal_(-torch.inf).amax(1).median()
        nearest = (mine @ theirs.T).amax(1)
        shares.append((nearest / among.clamp(min=1e-6)).clamp(0, 1))
    if not shares:
        return torch.full((count,), torch.nan, dtype=torch.float64, device="cpu")
    return torch.stack(shares).mean(0)


def agreement(images: Path, count: int) -> Tensor:
    """Mean cosine of each image's path with those of the others, over layers, clamped to [0, 1].

    NaN for one image alone, and without layers.
    """
    if count < 2 or not images:
        return torch.full((count,), torch.nan, dtype=torch.float64, device="cpu")
    cosines = torch.stack([(one @ one.T).fill_diagonal_(0).sum(1) / (count - 1) for one in images])
    return cosines.mean(0).clamp(0, 1)
