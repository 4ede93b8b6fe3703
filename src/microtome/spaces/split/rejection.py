"""What of an image survives each layer of a network, and where is the rest thrown away?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome import data
from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, provenance
from microtome.spaces.operators.jacobian import jacobian
from microtome.spaces.operators.linear_layer import in_double, linear_layers, read_by
from microtome.spaces.operators.operator import MatrixOperator, Operator, operator
from microtome.spaces.split.row_space import SignalPart, signal_part
from microtome.spaces.split.subspaces import Subspaces, subspaces

_PER_IMAGE = 64  # images whose feature maps are split at a time


@dataclass(frozen=True, eq=False, kw_only=True)
class Rejected(Result):
    """The share of what each linear layer reads that it rejects.

    Attributes
    ----------
    layers : list of str
        Linear layers in the order they run.
    share : Tensor
        (layers, N): energy of the rejected part by that of the whole, for each image.
    leak : Tensor
        (layers, N): share of the layer's output that the rejected part still makes (0 when exact).
    """

    layers: list[str]
    share: Tensor
    leak: Tensor

    @property
    def mean(self) -> Tensor:
        """(layers,): mean share over the images."""
        return self.share.mean(1)


@dataclass(frozen=True, eq=False, kw_only=True)
class KeptAndLost(Result):
    """Images split by what each layer can still tell about them.

    Attributes
    ----------
    layers : list of str
        Layers in the order they run.
    images : Tensor
        (N, C, H, W) in pixel space.
    kept, lost : Tensor
        (layers, N, C, H, W): the part of the image in the row space of the local map to the layer, and the
        part in its null space. They add up to the image; either may leave the pixel range.
    share : Tensor
        (layers, N): energy of the lost part by that of the image. Never below the true share; it falls with further
        steps where ``leak`` is not 0.
    leak : Tensor
        (layers, N): share of the local map's output that the lost part still makes.
    """

    layers: list[str]
    images: Tensor
    kept: Tensor
    lost: Tensor
    share: Tensor
    leak: Tensor


@register(
    "rejected-energy", rows=("A4",), paper="pattichis2024spaces", needs="Linear or convolution layers", kind="spaces"
)
def rejected_energy(
    net: Network, dataset: Any, layers: Iterable[str] | None = None, *, tolerance: float = 1e-3, iterations: int = 200
) -> Rejected:
    r"""The share of each activation's energy that the next linear map rejects.

    .. math:: \frac{\|x_r\|^2}{\|x\|^2},\qquad x_r = x - W^+ W x

    where W is the exact linear operator of the layer and x all that it reads.

    Parameters
    ----------
    net : Network
        The network.
    dataset : Tensor or map-style data set
        Images.
    layers : iterable of str, optional
        Linear and convolution layers; default all.
    tolerance : float
        Convolutions: what is rejected makes less than this of the layer's output.
    iterations : int
        Convolutions: at most so many steps of conjugate gradients; ``leak`` tells what was reached.

    Returns
    -------
    Rejected

    Raises
    ------
    LayerError
        When a layer is no linear map, or there is none.

    Notes
    -----
    Cost: for Linear one SVD, for a convolution up to ``iterations`` pairs of convolution and adjoint on
    each image. A later layer cannot see what an earlier one rejected, but what a layer keeps may still be
    rejected further on: for that see ``kept_and_lost``.

    References
    ----------
    .. [1] R. Pattichis, M. S. Pattichis. Understanding neural network systems for image analysis using vector
       spaces and inverse maps. SSIAI 2024.
    """
    names = _named(net, layers)
    maps = {name: _split_by(net, name) for name in names}
    shares: dict[str, list[Tensor]] = {name: [] for name in names}
    leaks: dict[str, list[Tensor]] = {name: [] for name in names}
    for images in _images(net, dataset):
        reads = net.activations(images, [read_by(net, name) for name in names], check=False)
        for name in names:
            share, leak = _rejected(maps[name], reads[read_by(net, name)], tolerance, iterations)
            shares[name].append(share)
            leaks[name].append(leak)
    if not shares[names[0]]:
        raise InputError("there is no image: the data set is empty.")
    return Rejected(
        provenance=provenance(net, "rejected-energy", layers=names, tolerance=tolerance, iterations=iterations),
        layers=names,
        share=torch.stack([torch.cat(shares[name]) for name in names]),
        leak=torch.stack([torch.cat(leaks[name]) for name in names]),
    )


@register("kept-and-lost", rows=("A4",), paper="pattichis2024spaces", kind="spaces")
def kept_and_lost(
    net: Network,
    images: Tensor,
    layers: Iterable[str] | None = None,
    *,
    tolerance: float = 1e-2,
    iterations: int = 100,
) -> KeptAndLost:
    r"""What of each image can still be told from each layer, as pictures.

    .. math:: J = \frac{\partial f_l}{\partial x},\qquad x_{\mathrm{kept}} = J^+ J x,\qquad
              x_{\mathrm{lost}} = x - x_{\mathrm{kept}},\qquad J\,x_{\mathrm{lost}} = 0

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    layers : iterable of str, optional
        Default: every linear layer.
    tolerance : float
        What counts as lost makes less than this share of the local map's output.
    iterations : int
        At most so many steps of conjugate gradients a layer; ``leak`` tells what was reached.

    Returns
    -------
    KeptAndLost

    Raises
    ------
    LayerError
        When a layer does not exist, or there is none.

    Notes
    -----
    Cost: one forward pass a layer and three backward passes a step, in float64; a layer of at most 64 values, as
    ``"logits"`` of ten classes, takes one backward pass for each of them and is split exactly. The local map is the
    network's own inside the linear region of the image where it is piecewise linear, else its derivative.
    What is lost is lost to first order: far from the image other units wake up. A part that the layer
    hears more faintly than ``tolerance`` counts as lost.

    References
    ----------
    .. [1] R. Pattichis, M. S. Pattichis. Understanding neural network systems for image analysis using vector
       spaces and inverse maps. SSIAI 2024.
    """
    names = _named(net, layers)
    exact = in_double(net)
    x = exact.images(net.images(images).double())
    parts: list[SignalPart] = []
    for name in names:
        local = jacobian(exact, x, layer=name)
        parts.append(signal_part(local, x, tolerance=tolerance, iterations=iterations))
    return KeptAndLost(
        provenance=provenance(net, "kept-and-lost", layers=names, tolerance=tolerance, iterations=iterations),
        layers=names,
        images=x,
        kept=torch.stack([part.kept for part in parts]),
        lost=torch.stack([part.lost for part in parts]),
        share=torch.stack([part.rejected for part in parts]),
        leak=torch.stack([part.leak for part in parts]),
    )


def _named(net: Network, layers: Iterable[str] | None) -> list[str]:
    names = linear_layers(net) if layers is None else list(layers)
    if not names:
        what = "the network has no Linear layer and no convolution" if layers is None else "no layer was named"
        raise LayerError(f"{what}; `microtome layers` lists all that can be asked for.")
    return names


def _split_by(net: Network, name: str) -> Operator | Subspaces:
    of = operator(net, name)
    return subspaces(net, name) if isinstance(of, MatrixOperator) else of


def _rejected(split: Operator | Subspaces, x: Tensor, tolerance: float, iterations: int) -> tuple[Tensor, Tensor]:
    x = x.double()
    if isinstance(split, Operator):
        part = signal_part(split, x, tolerance=tolerance, iterations=iterations)
        return part.rejected, part.leak
    kept, lost = split.energy(x.reshape(-1, x.shape[-1]))  # tokens each by itself, their energies together
    kept, lost = kept.reshape(len(x), -1).sum(1), lost.reshape(len(x), -1).sum(1)
    whole = kept + lost
    return lost / torch.where(whole > 0, whole, torch.ones_like(whole)), torch.zeros_like(whole)


def _images(net: Network, dataset: Any) -> Iterable[Tensor]:
    if isinstance(dataset, Tensor):
        given = net.images(dataset)
        return [given[start : start + _PER_IMAGE] for start in range(0, len(given), _PER_IMAGE)]
    return (net.images(images) for _, images, _ in data.batches(dataset, _PER_IMAGE, net=net))
