"""Which linear maps does a layer hold, and what do its units hear? The signal spaces that an atlas keeps of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome import spaces
from microtome.errors import LayerError
from microtome.loading import Subject
from microtome.network import Network
from microtome.results import Result, provenance
from microtome.spaces.operators.linear_layer import PRODUCTS, linear_layers, operator_of

__all__ = ["SignalSpace", "maps_inside", "signal_space"]

_VECTORS = 32  # signal vectors kept as pictures


@dataclass(frozen=True, eq=False, kw_only=True)
class SignalSpace(Result):
    """The strongest signal vectors of a linear layer, and what its units hear.

    Attributes
    ----------
    layer, view : str
        Whose, and how its weights were read as a matrix (see ``spaces.subspaces``).
    rank : int
        Of that matrix.
    singular_values : Tensor
        (r,) of the signal vectors kept.
    signal : Tensor
        (r, ...) the strongest signal vectors, shaped as what the layer reads.
    heard : Tensor
        (units,) mean share of the energy of what the layer reads that lies along each unit's weight
        vector; empty where the layer reads tokens.
    images : int
        Images that was measured on.
    """

    layer: str
    view: str
    rank: int
    singular_values: Tensor
    signal: Tensor
    heard: Tensor
    images: int


def maps_inside(net: Network, layer: str) -> list[str]:
    """The linear layers that a layer is or holds, in the order they run.

    Examples
    --------
    >>> from torch import nn
    >>> net = Network(nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), nn.Conv2d(2, 1, 1)), (1, 4, 4))
    >>> maps_inside(net, "0"), maps_inside(net, "1"), maps_inside(net, "0.1")
    (['0.0'], ['1'], [])
    """
    return [name for name in linear_layers(net) if name == layer or name.startswith(f"{layer}.")]


def signal_space(subject: Subject, layer: str, images: Sequence[int]) -> SignalSpace:
    """Signal vectors of a layer, and what its units hear of some images.

    Raises
    ------
    LayerError
        The layer is no linear map.
    """
    net, view = subject.net, _view(subject.net, layer)
    split = spaces.subspaces(net, layer, view=view)
    shown = min(_VECTORS, split.rank)
    return SignalSpace(
        provenance=provenance(net, "subspaces", layer=layer, view=view),
        layer=layer,
        view=view,
        rank=split.rank,
        singular_values=split.singular_values[:shown],
        signal=split.signal.T[:shown].reshape(shown, *split.input_shape).float(),
        heard=_heard(subject, layer, images),
        images=len(images),
    )


def _view(net: Network, layer: str) -> str:
    """Whole patches where they are pictures or kernels are points; the paper's kernels elsewhere."""
    if operator_of(net.layer(layer)) in PRODUCTS:
        return "matrix"
    first = layer == linear_layers(net)[0]
    points = set(net.call(layer).arguments["weight"].shape[2:]) == {1}
    return "patches" if first or points else "kernels"


def _heard(subject: Subject, layer: str, images: Sequence[int]) -> Tensor:
    try:
        found = spaces.weight_vectors(subject.net, subject.pictures(images), layer=layer)
    except LayerError:  # tokens, each of which has a projection of its own
        return torch.empty(0)
    share = found.kept / torch.where(found.energy > 0, found.energy, torch.ones_like(found.energy))
    return share.mean(0).float()
