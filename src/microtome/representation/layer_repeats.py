"""Similarity of each layer to the one before: CKA with an interval, best one-to-one match of units, duplicates."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from microtome.data import Dataset, adapt
from microtome.data.adapters.adapter import Expected
from microtome.errors import InputError
from microtome.network import Network
from microtome.progress import reported
from microtome.registry import register
from microtome.representation.kernel_alignment import successive
from microtome.results import Result, stated
from microtome.tables import Table
from microtome.units.streaming.streaming_pass import selected_layers

__all__ = ["LayerRepeats", "repeats"]

_NOTE = (
    "cka: similarity of a layer to the one before, 1 if it repeats it; low and high: its 95 % interval. match: "
    "mean correlation of units matched one to one; by chance and p: with images in random order. duplicates: "
    "pairs of units that respond almost equally."
)

_LEAST = 5  # minimum number of images for CKA


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerRepeats(Result, drawing="repeats_figures:repeats"):
    """The similarity of each layer to the one before it.

    Attributes
    ----------
    layers : list of str
        In the order of the pass; each is compared with the next.
    cka, low, high : Tensor
        (layers - 1,) debiased linear CKA of successive layers, and its 95 % interval.
    match : Tensor
        (layers - 1,) mean correlation of the best one-to-one match of units.
    chance, p : Tensor
        (layers - 1,) the same with the images of the second layer in random order, the mean of all orders, and the
        share of orders that reach ``match``. All six are NaN if one of the two layers gives the same values for all
        images.
    partner : dict of str to Tensor
        By the second layer: for each of its units the unit of the layer before that it is matched with, -1 for none.
    correlation : dict of str to Tensor
        By the second layer: the correlation of each of its units with its partner, NaN without one.
    duplicates : dict of str to list
        By layer: ``[unit, other, correlation]`` for pairs of units above ``above``, highest first.
    above : float
    images : int
    """

    layers: list[str]
    cka: Tensor
    low: Tensor
    high: Tensor
    match: Tensor
    chance: Tensor
    p: Tensor
    partner: dict[str, Tensor]
    correlation: dict[str, Tensor]
    duplicates: dict[str, list[list[float]]]
    above: float
    images: int

    def table(self) -> Table:
        """One row for each layer but the first."""
        columns = (self.cka, self.low, self.high, self.match, self.chance, self.p)
        rows = [
            (layer, self.layers[place], *(float(one[place]) for one in columns), len(self.duplicates[layer]))
            for place, layer in enumerate(self.layers[1:])
        ]
        head = ("layer", "repeats", "cka", "low", "high", "match", "match by chance", "p", "duplicates")
        return Table(head, tuple(rows), _NOTE)


@register("layer-repeats", rows=("B7",), paper="dissecting", needs="a data set", kind="representation")
def repeats(
    net: Network,
    dataset: Dataset,
    layers: Iterable[str] | None = None,
    *,
    above: float = 0.9,
    permutations: int = 20,
    seed: int = 0,
    batch: int = 32,
) -> LayerRepeats:
    r"""Compare each layer with the one before it: as a whole, and unit by unit.

    As a whole by debiased linear CKA of all units and positions [1]_. Unit by unit by the assignment that makes the
    sum of correlations largest [2]_: with :math:`r_{uv}` the correlation of unit u of a layer and unit v of the next
    over images and positions,

    .. math:: \text{match} = \max_{\pi \text{ one-to-one}} \frac{1}{n} \sum_u r_{u \pi(u)},
              \qquad n = \min(\text{units}, \text{units of the next}).

    Maps of different sizes are averaged to the smaller one.

    Parameters
    ----------
    net : Network
    dataset : Dataset
        At least five images.
    layers : iterable of str, optional
        Two or more layers, compared in the order of the pass; default all layers that compute.
    above : float
        Two units of one layer count as duplicates above this correlation.
    permutations : int
        Random orders of the images for the chance level.
    seed : int
        Seed of the orders.
    batch : int
        Images per pass; it does not change the results.

    Returns
    -------
    LayerRepeats

    Raises
    ------
    InputError
        When there are fewer than two layers or five images, or an option is out of range.
    LayerError
        When a layer does not exist or has no units.

    Notes
    -----
    Cost: two passes over the images; units squared times positions multiplications per image and order. Memory: the
    maps of all chosen layers. Signs count: the negative of another unit is not a repeat, since the output of
    a following ReLU differs.

    References
    ----------
    .. [1] Kornblith, Norouzi, Lee and Hinton, Similarity of neural network representations revisited, ICML 2019.
    .. [2] Li, Yosinski, Clune, Lipson and Hopcroft, Convergent learning: do different neural networks learn the same
       representations?, ICLR 2016.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.Identity(), torch.nn.Flatten())
    >>> data = list(torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)))
    >>> round(float(repeats(Network(model, (1, 4, 4)), data, ["0", "1"]).match), 6)
    1.0
    """
    data = adapt(dataset, Expected(net.input_shape, net.pixels))  # labels are not used
    names = [layer.name for layer in selected_layers(net, layers)]
    names = sorted(names, key=lambda name: net.layers[name].step)
    _check(names, len(data), permutations, above)
    maps = _maps(net, data, names, batch)
    similarity = successive(maps[name].flatten(1) for name in names)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(data), generator=generator, device="cpu") for _ in range(permutations)]
    match, chance, p = [], [], []
    partner, correlation = {}, {}
    for before, layer in reported(list(itertools.pairwise(names)), lambda pair: pair[1]):
        first, second = (_standardised(one) for one in _same_size(maps[before], maps[layer]))
        mean, partner[layer], correlation[layer] = _assigned(_product(first, second))
        one, other = first.float(), second.float()  # half the time, and the chance level needs no more digits
        null = torch.tensor(
            [_assigned(_product(one, other[:, order]))[0] for order in orders], dtype=torch.float32, device="cpu"
        )
        match.append(mean)
        chance.append(float(null.mean()))
        p.append((1 + int((null >= mean).sum())) / (1 + permutations))
    unlike = similarity["values"].isnan()  # a layer with the same values for all images repeats nothing
    cells = {
        "cka": similarity["values"],
        "low": similarity["low"],
        "high": similarity["high"],
        "match": torch.tensor(match, dtype=torch.float32, device="cpu"),
        "chance": torch.tensor(chance, dtype=torch.float32, device="cpu"),
        "p": torch.tensor(p, dtype=torch.float32, device="cpu"),
    }
    return LayerRepeats(
        provenance=stated(layers=names, images=len(data)),
        layers=names,
        **{name: values.masked_fill(unlike, torch.nan) for name, values in cells.items()},
        partner=partner,
        correlation=correlation,
        duplicates={name: _duplicates(_correlation(maps[name]), above) for name in names},
        above=above,
        images=len(data),
    )


def _check(names: list[str], images: int, permutations: int, above: float) -> None:
    if len(names) < 2:
        raise InputError(f"two or more layers are compared; got {', '.join(names) or 'none'}.")
    if images < _LEAST:
        raise InputError(f"CKA needs at least {_LEAST} images, and the data set has {images}; give more.")
    if permutations < 1:
        raise InputError(f"permutations must be at least 1, got {permutations}.")
    if not 0 < above < 1:
        raise InputError(f"above is a correlation between 0 and 1, got {above:g}.")


def _maps(net: Network, data: Dataset, names: list[str], batch: int) -> dict[str, Tensor]:
    """Maps (N, units, h, w) of all images by layer."""
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    adapted = adapt(data, Expected(net.input_shape, net.pixels))
    for indices in reported(torch.arange(len(adapted), device="cpu").split(net.admitted(batch)), "images"):
        images, _ = adapted.fetch(indices)
        for name, value in net.activations(images, names, batch=batch).items():
            found[name].append(net.layer(name).axes.maps(value, len(images)).float().cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


def _same_size(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    size = (min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3]))
    brought = (functional.adaptive_avg_pool2d(one, size) for one in (first, second))
    left, right = brought
    return left, right


def _standardised(maps: Tensor) -> Tensor:
    """Values (units, N, positions) with mean 0 and length 1 for each unit; 0 for a constant unit."""
    flat = maps.transpose(0, 1).flatten(1).double()
    mean = flat.mean(1, keepdim=True)
    flat = flat - mean
    norm = flat.norm(dim=1, keepdim=True)
    varies = norm > 1e-7 * (mean.abs() * flat.shape[1] ** 0.5 + 1e-30)
    found: Tensor = torch.where(varies, flat / norm.clamp(min=1e-300), 0.0).unflatten(1, (len(maps), -1))
    return found


def _product(first: Tensor, second: Tensor) -> Tensor:
    """Pearson correlation (units, units) over images and positions of standardised values."""
    return (first.flatten(1) @ second.flatten(1).T).clamp(-1, 1)


def _correlation(maps: Tensor) -> Tensor:
    """Pearson correlation (units, units) of the units of a layer."""
    standardised = _standardised(maps)
    return _product(standardised, standardised)


def _assigned(table: Tensor) -> tuple[float, Tensor, Tensor]:
    """Mean of the best assignment, and for each column its row and their correlation."""
    chosen, columns = linear_sum_assignment(-table.numpy())
    partner = torch.full((table.shape[1],), -1, device="cpu")
    partner[torch.as_tensor(columns, device="cpu")] = torch.as_tensor(chosen, device="cpu")
    value = torch.full((table.shape[1],), torch.nan, dtype=table.dtype, device="cpu")
    value[torch.as_tensor(columns, device="cpu")] = table[chosen, columns]
    return float(table[chosen, columns].mean()), partner, value


def _duplicates(table: Tensor, above: float) -> list[list[float]]:
    upper = table.triu(1)
    pairs = [[int(a), int(b), float(upper[a, b])] for a, b in (upper > above).nonzero().tolist()]
    return sorted(pairs, key=lambda pair: -pair[2])
