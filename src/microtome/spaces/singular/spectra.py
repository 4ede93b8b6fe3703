"""Singular values, rank and condition number of every linear layer of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.network import Network
from microtome.progress import reported
from microtome.registry import register
from microtome.results import Result, stated
from microtome.spaces.operators.linear_layer import PRODUCTS, chosen_linear_layers
from microtome.spaces.split.subspaces import layer_matrix

_DIRECT = 2.0e10  # operations up to which an SVD is taken; beyond, the eigenvalues of the smaller Gram matrix


@dataclass(frozen=True, eq=False, kw_only=True)
class Spectra(Result, drawing="spaces.space_figures:spectra"):
    """Singular values of all linear layers.

    Attributes
    ----------
    singular_values : dict of str to Tensor
        By layer, falling.
    view : dict of str to str
        How each layer was read: ``"matrix"`` for Linear, ``"kernels"`` or ``"patches"`` for convolutions.
    shape : dict of str to (int, int)
        (m, n) of each matrix.
    rank : dict of str to int
        Number of singular values above ``tolerance``.
    tolerance : dict of str to float
        What counts as zero.
    condition_number : dict of str to float
        Largest by smallest singular value that counts; NaN for a zero matrix.
    """

    singular_values: dict[str, Tensor]
    view: dict[str, str]
    shape: dict[str, tuple[int, int]]
    rank: dict[str, int]
    tolerance: dict[str, float]
    condition_number: dict[str, float]


@register("spectra", rows=("A2", "A5"), paper="strang2022", needs="Linear or convolution layers", kind="spaces")
def spectra(net: Network, layers: list[str] | None = None, *, view: str | None = None) -> Spectra:
    """Singular values, rank and condition number of every linear layer.

    Parameters
    ----------
    net : Network
        The network.
    layers : list of str, optional
        Which layers; default all Linear layers and convolutions.
    view : str, optional
        How convolutions are read: ``"kernels"`` (the paper's simplified view) or ``"patches"``. Default: kernels, but
        patches for 1 x 1 convolutions, whose kernels are one number each.

    Returns
    -------
    Spectra

    Raises
    ------
    LayerError
        When a layer is no linear map, or the network has none.

    Notes
    -----
    Cost: values only, no vectors. A matrix above 2e10 operations (a Linear layer of 4096 x 4096 or more)
    goes through its Gram matrix, which resolves values down to about 1e-8 of the largest; ``tolerance``
    says so. For the true convolution operator see ``spaces.operator``.

    Examples
    --------
    >>> net = Network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False)), (1, 2, 2))
    >>> _ = net.model[1].weight.data.copy_(torch.tensor([[3.0, 0, 0, 0], [0, 1.0, 0, 0]]))
    >>> spectra(net).condition_number
    {'1': 3.0}

    References
    ----------
    .. [1] G. Strang. Introduction to Linear Algebra. Wellesley-Cambridge Press, 2022.
    """
    names = chosen_linear_layers(net, layers)
    eps = float(torch.finfo(net.dtype).eps)
    values: dict[str, Tensor] = {}
    views: dict[str, str] = {}
    shapes: dict[str, tuple[int, int]] = {}
    ranks: dict[str, int] = {}
    tolerances: dict[str, float] = {}
    conditions: dict[str, float] = {}
    for name in reported(names, str):
        matrix, _, views[name] = layer_matrix(net, name, None if _is_product(net, name) else view)
        m, n = int(matrix.shape[0]), int(matrix.shape[1])
        s, floor = _singular_values(matrix)
        values[name], shapes[name] = s, (m, n)
        tolerances[name] = max(max(m, n) * eps, floor) * float(s[0])
        ranks[name] = int((s > tolerances[name]).sum())
        conditions[name] = float(s[0] / s[ranks[name] - 1]) if ranks[name] else math.nan
    return Spectra(
        provenance=stated(layers=names),
        singular_values=values,
        view=views,
        shape=shapes,
        rank=ranks,
        tolerance=tolerances,
        condition_number=conditions,
    )


def _is_product(net: Network, name: str) -> bool:
    return net.layer(name).operator in PRODUCTS


def _singular_values(matrix: Tensor) -> tuple[Tensor, float]:
    """All singular values, falling, and the share of the largest below which they are not resolved."""
    m, n = matrix.shape
    if float(m) * n * min(m, n) <= _DIRECT:
        return torch.linalg.svdvals(matrix), 0.0
    gram = matrix @ matrix.T if m <= n else matrix.T @ matrix
    squared = torch.linalg.eigvalsh(gram).flip(0)
    return squared.clamp(min=0).sqrt(), math.sqrt(torch.finfo(torch.float64).eps * min(m, n))
