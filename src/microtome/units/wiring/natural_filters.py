"""Filters learned from image patches by independent component analysis, compared with the filters of a layer."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from microtome.data import Dataset, adapt
from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.progress import reported
from microtome.registry import register
from microtome.results import Result, stated
from microtome.tables import Table
from microtome.trace.tracing.random_states import RandomStates
from microtome.units.wiring import gabor
from microtome.units.wiring.channel_sources import reads_pixels
from microtome.units.wiring.filters import Filters, filters, profiles

__all__ = ["NaturalFilters", "natural_filters"]

_NOTE = (
    "gabor fit: share of the variance that a Gabor function explains. similarity: absolute cosine of the filter "
    "and the component that it is matched with; a unit without one is left empty, as there are fewer components."
)

_IMAGES = 500  # maximum number of images from which patches are cut
_RANDOM = 20  # sets of random filters for the chance level
_FLAT = 1e-3  # a patch is flat if the standard deviation of its pixels is below this


@dataclass(frozen=True, eq=False, kw_only=True)
class NaturalFilters(Result, drawing="units.filters_figures:natural_filters"):
    """A layer's filters, each with the independent component that it is matched with.

    Attributes
    ----------
    filters : Filters
        The layer's filters with their Gabor fits.
    components : Tensor
        (components, J, kh, kw) the basis patterns of patches, one for each component, each of norm 1.
    partner : Tensor
        (units,) the component that each unit is matched with; -1 for none, if there are more units.
    similarity : Tensor
        (units,) absolute cosine of filter and component, both without their mean; NaN without a partner.
    sign : Tensor
        (units,) 1 or -1: the sign of the component that is more similar.
    chance : float
        Mean similarity of random filters matched in the same way.
    chance_spread : float
        Its standard deviation over sets of random filters.
    gabor : Tensor
        (components,) goodness of the Gabor fit to each component.
    patches : int
        Number of patches on which the components were fitted.
    """

    filters: Filters
    components: Tensor
    partner: Tensor
    similarity: Tensor
    sign: Tensor
    chance: float
    chance_spread: float
    gabor: Tensor
    patches: int

    def table(self) -> Table:
        """Unit, goodness of its Gabor fit, its component, their similarity, the component's goodness."""
        rows = []
        for unit in range(len(self.partner)):
            place = int(self.partner[unit])
            goodness = float(self.gabor[place]) if place >= 0 else float("nan")
            partner = place if place >= 0 else None
            rows.append((unit, float(self.filters.goodness[unit]), partner, float(self.similarity[unit]), goodness))
        return Table(("unit", "gabor fit", "component", "similarity", "gabor fit of component"), tuple(rows), _NOTE)


@register("natural-filters", rows=("A1",), paper="hyvarinen1999fast", needs="a convolution that reads the image",
          kind="units")  # fmt: skip
def natural_filters(
    net: Network, dataset: Dataset, *, layer: str | None = None, patches: int = 10_000, seed: int = 0
) -> NaturalFilters:
    r"""Find independent components of image patches and match them with a first layer's filters [1]_, [2]_.

    Patches of the layer's kernel size are cut at random, their mean removed, and written as sums :math:`x = \sum_k s_k
    a_k` with coefficients s that are as independent as possible (FastICA). On photos the patterns a are localised,
    oriented bands like the filters of first layers: they follow from the statistics of images without labels. Filters
    and patterns are matched one to one, so that the sum of :math:`|\cos|` is largest.

    Parameters
    ----------
    net : Network
    dataset : Dataset
        Images; labels are not read.
    layer : str, optional
        A two-dimensional convolution that reads the image; default the first one.
    patches : int
        Number of patches, without flat ones.
    seed : int
        Seed of the patch positions and of the start of FastICA.

    Returns
    -------
    NaturalFilters

    Raises
    ------
    LayerError
        When the layer does not read the image through a convolution without groups, or has kernels of one pixel.
    InputError
        When scikit-learn is missing, or the images give too few patches that are not flat.

    Notes
    -----
    Cost: FastICA on ``patches`` vectors of kernel size, seconds for kernels up to 11 x 11. As many
    components as filters, at most one less than the number of values in a patch. The similarity is for filters at the
    same position and phase: a shifted copy counts as another filter, so compare it with ``.chance``. The patterns are
    compared, not the unmixing filters: those amplify the faintest directions of the patches, which are noise of single
    pixels.

    References
    ----------
    .. [1] Hyvärinen, Fast and robust fixed-point algorithms for independent component analysis, IEEE Transactions on
       Neural Networks 10, 1999.
    .. [2] Bell and Sejnowski, The "independent components" of natural scenes are edge filters, Vision Research 37,
       1997.

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    >>> net = Network(model.eval(), input_shape=(1, 8, 8))
    >>> pictures = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> from microtome.data import Images
    >>> photos = Images.from_float(pictures, torch.arange(12) % 2)
    >>> natural_filters(net, photos, layer="0", patches=200).filters.layer
    '0'
    """
    found = filters(net, _first(net) if layer is None else net.layer(layer).name)
    size = found.weights.shape[2:]
    if not found.first or found.groups != 1 or min(size) < 2:
        raise LayerError(
            f'layer "{found.layer}" does not read the image through kernels of at least 2 x 2 without groups; '
            "choose a first convolution."
        )
    rows = _patches(net, dataset, (size[0], size[1]), patches, seed)
    count = min(len(found.weights), rows.shape[1] - 1)
    components = _unit(_components(rows, count, seed)).reshape(count, *found.weights.shape[1:])
    cosine = _unit(_centred(found.weights)) @ _unit(_centred(components)).T
    partner, similarity = _matched(cosine)
    generator = torch.Generator().manual_seed(seed)
    random = [
        _matched(
            _unit(_centred(torch.randn(found.weights.shape, generator=generator, dtype=torch.float32, device="cpu")))
            @ _unit(_centred(components)).T
        )[1].nanmean()
        for _ in range(_RANDOM)
    ]
    by_chance = torch.stack(random)
    picked = cosine.gather(1, partner.clamp(min=0)[:, None])[:, 0]
    return NaturalFilters(
        provenance=stated(layer=found.layer, patches=len(rows)),
        filters=found,
        components=components,
        partner=partner,
        similarity=similarity,
        sign=torch.where(picked < 0, -1.0, 1.0).to(picked),
        chance=float(by_chance.mean()),
        chance_spread=float(by_chance.std()),
        gabor=_goodness(components),
        patches=len(rows),
    )


def _first(net: Network) -> str:
    for name, layer in net.layers.items():
        if layer.leaf and layer.operator == "conv2d" and reads_pixels(net, name):
            return name
    raise LayerError("no two-dimensional convolution reads the image; name a layer.")


def _patches(net: Network, dataset: Dataset, size: tuple[int, int], count: int, seed: int) -> Tensor:
    """Patches (count, numbers) without their mean, from random positions, without flat ones."""
    numbers = net.input_shape[0] * size[0] * size[1]
    if count < (least := max(100, 2 * numbers)):
        raise InputError(f"at least {least:,} patches are expected for kernels of {numbers} numbers, got {count}.")
    data = adapt(dataset, net)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(data), generator=generator, device="cpu")[:_IMAGES]
    images = torch.cat([data.fetch(part)[0].cpu().float() for part in reported(chosen.split(50), "images")])
    high, wide = images.shape[2] - size[0] + 1, images.shape[3] - size[1] + 1
    if min(high, wide) < 1:
        raise InputError(f"the images are smaller than the kernels, {size[0]} x {size[1]}.")
    kept: list[Tensor] = []
    for _ in range(20):  # most positions of a digit are black
        which = torch.randint(len(images), (count,), generator=generator, device="cpu")
        top = torch.randint(high, (count,), generator=generator, device="cpu")
        left = torch.randint(wide, (count,), generator=generator, device="cpu")
        down, across = torch.arange(size[0], device="cpu"), torch.arange(size[1], device="cpu")
        # advanced indices apart from a slice come first: (count, kh, kw, channels)
        cut = images[which[:, None, None], :, top[:, None, None] + down[:, None], left[:, None, None] + across]
        rows = cut.permute(0, 3, 1, 2).flatten(1)
        rows = rows - rows.mean(1, keepdim=True)
        kept.append(rows[rows.std(1) > _FLAT])
        if sum(map(len, kept)) >= count:
            break
    found = torch.cat(kept)[:count]
    if len(found) < least:
        raise InputError(f"only {len(found)} patches of the images are not flat; give images with content.")
    return found


def _components(rows: Tensor, count: int, seed: int) -> Tensor:
    """Features (components, numbers): the pattern that one unit of each independent component adds to a patch."""
    states = RandomStates([])
    try:
        from sklearn.decomposition import FastICA  # its first import draws random numbers
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        raise InputError("independent components need scikit-learn: pip install scikit-learn.") from error
    finally:
        states.restore()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = FastICA(count, whiten="unit-variance", random_state=seed, max_iter=500, tol=1e-3)
        model.fit(rows.numpy().astype(np.float64))
    return torch.from_numpy(np.ascontiguousarray(model.mixing_.T)).float()


def _centred(kernels: Tensor) -> Tensor:
    flat = kernels.flatten(1)
    return flat - flat.mean(1, keepdim=True)


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)


def _matched(cosine: Tensor) -> tuple[Tensor, Tensor]:
    """Partner of each row by the best assignment of absolute values, and that value."""
    rows, columns = linear_sum_assignment(-cosine.abs().numpy())
    partner = torch.full((len(cosine),), -1, device="cpu")
    partner[torch.as_tensor(rows, device="cpu")] = torch.as_tensor(columns, device="cpu")
    similarity = torch.full((len(cosine),), torch.nan, dtype=torch.float32, device="cpu")
    similarity[torch.as_tensor(rows, device="cpu")] = cosine[rows, columns].abs()
    return partner, similarity


def _goodness(components: Tensor) -> Tensor:
    if min(components.shape[2:]) < 3:
        return torch.full((len(components),), torch.nan, dtype=torch.float32, device="cpu")
    fitted: gabor.GaborFit = gabor.fit(profiles(components)[0])
    return fitted.goodness
