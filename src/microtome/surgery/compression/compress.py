"""Compression without training: channels with the smallest cost are removed, and the next layer compensates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from microtome.data import Dataset, adapt
from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.progress import Listener
from microtome.registry import register
from microtome.results import stated
from microtome.surgery.channels import removal
from microtome.surgery.channels.channel_families import Channels, Family
from microtome.surgery.compression.allocation import Work, allocate
from microtome.surgery.compression.moments import FITTED, Moments, read_parts, slopes, whole
from microtome.surgery.compression.optimal_brain_surgeon import Order, Reading, order
from microtome.surgery.compression.principal_axes import along_principal_axes, linear_families
from microtome.surgery.compression.refit import absorbed, columns_of, put_weights, refit, shared, weights_of
from microtome.surgery.smaller import SmallerNetwork, described


@dataclass(frozen=True, eq=False, kw_only=True)
class Compression(SmallerNetwork, drawing="surgery.pruning_figures:widths"):
    """A smaller network without retraining; see ``SmallerNetwork``.

    Attributes
    ----------
    largest_change : float
        Largest change of any logit on the data.
    images : int
        Number of images for the fits.
    asked : float
        The largest share of the multiply-adds that was asked; ``share`` is the one that whole channels reach below it.
    """

    largest_change: float
    images: int
    asked: float


@dataclass(frozen=True)
class Survey:
    """Statistics of a network's channels, computed once for any number of cuts.

    ``net`` is the network along principal axes, if it has channels without a nonlinearity behind them.
    """

    net: Network
    channels: Channels
    families: list[Family]
    orders: list[Order]
    moments: dict[str, Moments]
    damping: float


@register("compress", rows=("B3", "H3"), paper="hassibi1993optimal", needs="channels", kind="surgery")
def compress(
    net: Network,
    dataset: Dataset,
    *,
    multiply_adds: float = 0.5,
    damping: float = 1e-2,
    fit: bool = True,
    batch: int = 64,
    seed: int = 0,
    progress: Listener | None = None,
) -> Compression:
    r"""Remove channels until a share of the multiply-adds is left; no training, no labels.

    Each layer that reads a removed channel is fitted by least squares on the data, with all its taps, to reproduce
    its output from the remaining channels. The removed channels are those with the smallest remaining loss,

    .. math:: L_B = \operatorname{tr}\big(\Lambda\, W_B\, [(H^{-1})_{BB}]^{-1}\, W_B^T\big),

    with the second moments H of the layer's inputs and the mean squared slope :math:`\Lambda` of the logits
    with respect to its outputs [1]_ [2]_ [3]_: greedily the step with the smallest loss per saved multiply-add. Then
    channels come back, as long as the share is not above ``multiply_adds``: a whole channel of a small network can be
    a large share, so that less may be left than was asked; ``asked`` and ``share`` say so. H is
    that of four fifths of the images; what a removal costs is measured on the other fifth, since with few images the
    adapted weights follow those of H. Channels without a nonlinearity between the layers that compute and read them
    are first rotated to their principal axes, which changes nothing and leaves little in the last ones [4]_. With
    ``fit`` the layers behind the first cut are then fitted again in order, so that each corrects the errors of the
    layers before it, as far as that helps on the held-out fifth. This fifth is drawn at random, from every class if the
    data set stores labels; it is the same at every call.

    Parameters
    ----------
    net : Network
    dataset : data set
        Images with or without labels; a few hundred to some thousand.
    multiply_adds : float
        The largest share that is left, in (0, 1].
    damping : float
        Smallest ridge penalty towards the old weights: a share of the mean diagonal of H. The fits in order choose
        1, 10, 100 or 1000 times this, or no change, by the error on held-out images.
    fit : bool
        Whether to fit the layers in order at the end.
    batch : int
        Images at a time.
    seed : int
        Random seed of the signs of the slopes.
    progress : function, optional
        Called after each fitted layer.

    Returns
    -------
    Compression
        ``.network``, ``.share``, ``.widths``, ``.largest_change``.

    Raises
    ------
    InputError
        When the share is not in (0, 1] or would empty a layer.
    LayerError
        When no channel of the network can be removed.

    Notes
    -----
    Cost: three passes and one backward pass over the data, the inverse of every H (side: inputs times taps), then for
    ``fit`` a pass of each network and five solutions for each layer behind the first cut. In that pass all images go
    through together; if their values would take more than 4 GiB, there is a pass up to each layer instead. Channels
    that layers other than 2-D convolutions and matrix products read stay. In a rotated layer ``.removed`` counts axes,
    not units. What it does not show: the gain from retraining.

    References
    ----------
    .. [1] Hassibi, Stork, Wolff. Optimal brain surgeon and general network pruning. ICNN 1993.
    .. [2] He, Zhang, Sun. Channel pruning for accelerating very deep neural networks. ICCV 2017.
    .. [3] Kurtic, Frantar, Alistarh. ZipLM: inference-aware structured pruning of language models. NeurIPS 2023.
    .. [4] Ashkboos et al. SliceGPT: compress large language models by deleting rows and columns. ICLR 2024.

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    >>> net = Network(model.eval(), input_shape=(1, 8, 8))
    >>> pictures = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> from microtome.data import Images
    >>> photos = Images.from_float(pictures, torch.arange(12) % 2)
    >>> found = compress(net, photos, multiply_adds=0.7)
    >>> found.share <= 0.7, type(found.network.model).__name__
    (True, 'Sequential')
    """
    if not 0 < multiply_adds <= 1:
        raise InputError(f"a share of the multiply-adds in (0, 1] is expected, got {multiply_adds}.")
    if not 0 <= damping < math.inf:
        raise InputError(f"damping must be a finite number of at least 0, got {damping}.")
    dataset = adapt(dataset, net)
    known = survey(net, dataset, damping=damping, batch=batch, seed=seed)
    small, gone = compressed(known, dataset, multiply_adds, fit=fit, batch=batch, progress=progress)
    result = Compression(
        provenance=stated(images=len(dataset)),
        largest_change=removal.largest_change(net, small, dataset, batch=batch),
        images=len(dataset),
        asked=multiply_adds,
        **described(net, known.channels, gone, small),  # type: ignore[arg-type]  # named as the fields
    )
    result.attach(removal.wrapped(net, small.model))
    return result


def survey(net: Network, dataset: Dataset, *, damping: float = 1e-2, batch: int = 64, seed: int = 0) -> Survey:
    """Find the removable channels, their order and their cost; see ``compress``."""
    if not len(dataset):
        raise InputError("the data set is empty: there is no image to run.")
    found = removal.prunable(net)
    channels = found.channels
    families = [
        family
        for family in found.families.values()
        if all(channels.operations[name].kind in FITTED for name in family.readers)
    ]
    if not families:
        reason = next(iter(found.refused.items()), ("", "it has no layers with weights"))
        raise LayerError(f'no channel of the network can be removed; of layer "{reason[0]}": {reason[1]}.')
    seen, held_out = read_parts(net, channels, dataset, batch=batch)
    linear = linear_families(net, channels, families)
    weight, slope = slopes(net, channels, dataset, linear.sources, batch=batch, seed=seed)
    if linear.families:
        net, seen, held_out, weight = along_principal_axes(net, channels, linear, seen, held_out, weight, slope)
    test = {name: sums.mean for name, sums in held_out.items()}
    orders = []
    for family in families:
        readings = [
            reading(net, channels, name, family, seen[name].mean, weight[name], test.get(name))
            for name in family.readers
        ]
        orders.append(order(readings, damping=damping, until=1))
    moments = {name: whole(sums, held_out.get(name)) for name, sums in seen.items()}
    return Survey(net, channels, families, orders, moments, damping)


def reading(
    net: Network,
    channels: Channels,
    name: str,
    family: Family,
    moments: Moments,
    weight: torch.Tensor,
    held_out: Moments | None = None,
) -> Reading:
    """One layer that reads a family, in the form for the optimal brain surgeon."""
    operation = channels.operations[name]
    square = moments.read
    columns = columns_of(operation)
    return Reading(
        weights_of(net, operation).to(square),
        square,
        (weight * operation.positions).view(operation.groups, -1, 1),
        [columns[channel] for channel in family.channels],
        None if held_out is None else held_out.read,
    )


def compressed(
    known: Survey,
    dataset: Dataset,
    share: float,
    *,
    keep: Mapping[str, int] | None = None,
    fit: bool = True,
    batch: int = 64,
    progress: Listener | None = None,
) -> tuple[Network, list[int]]:
    """The network with a share of the multiply-adds, and the removed channels.

    ``keep`` gives the number of channels of the named families instead of the share; the others keep all.
    """
    if keep is None:
        work = Work(known.channels, known.families)
        counts = allocate(work, [entry.cost for entry in known.orders], share * work.of(work.sizes))
    else:
        counts = [len(one.channels) - keep.get(one.name, len(one.channels)) for one in known.families]
        missing = set(keep) - {one.name for one in known.families}
        if missing:
            raise InputError(
                f'the channels of layer "{sorted(missing)[0]}" are read by layers that cannot be fitted; '
                'choose another criterion, such as "magnitude".'
            )
    gone = [
        family.channels[place]
        for family, entry, count in zip(known.families, known.orders, counts, strict=True)
        for place in entry.channels[:count]
    ]
    small = absorbing(known, gone)
    if fit and gone:
        refit(known.net, small, known.channels, gone, dataset, damping=known.damping, batch=batch, progress=progress)
    return small, gone


def absorbing(known: Survey, gone: list[int]) -> Network:
    """The network without some channels; the layers that read them compensate."""
    small = removal.without(known.net, known.channels, gone)
    removed = torch.tensor(sorted(gone), dtype=torch.int64, device="cpu")
    several = shared(known.channels)
    for name, operation in known.channels.operations.items():
        depthwise = operation.groups == len(operation.read) > 1
        touched = bool(torch.isin(operation.read, removed).any())
        if not touched or depthwise or name in several or name not in known.moments:
            continue
        rows = absorbed(known.net, operation, known.moments[name].read, gone, known.damping)
        stays = ~torch.isin(operation.made, removed)
        put_weights(small, operation, rows[:, stays.view(operation.groups, -1)[0].nonzero()[:, 0]])
    return small
