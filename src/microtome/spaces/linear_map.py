"""A linear map with its analyses as methods: singular triplets, four spaces, condition number."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from torch import Tensor

from microtome.network import Network
from microtome.spaces.operators.jacobian import jacobian_operator
from microtome.spaces.operators.layer_operator import layer_operator
from microtome.spaces.operators.operator import Operator
from microtome.spaces.singular.condition import all_singular_values, condition_number
from microtome.spaces.singular.triplets import SingularTriplets, triplets
from microtome.spaces.split.subspaces import Subspaces, subspaces_of

if TYPE_CHECKING:
    from scipy.sparse import spmatrix


@final
class LinearMap(Operator):
    """The operator of a layer or of a part of a network, with short names for the functions of this folder.

    Parameters
    ----------
    structure : Operator
        The operator with the structure of the map.
    """

    def __init__(self, structure: Operator) -> None:
        self._structure = structure
        self.name, self.device = structure.name, structure.device
        self.input_shape, self.output_shape = structure.input_shape, structure.output_shape
        self.groups, self.band = structure.groups, structure.band

    @property
    def structure(self) -> Operator:
        """The operator with the structure of the map."""
        return self._structure

    def apply(self, x: Tensor) -> Tensor:
        """A x for a batch ``(N, *input_shape)``."""
        return self._structure.apply(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y for a batch ``(N, *output_shape)``."""
        return self._structure.adjoint(y)

    def dense(self) -> Tensor:
        """The matrix (m, n)."""
        return self._structure.dense()

    def sparse(self) -> spmatrix:
        """The sparse matrix of a local map."""
        return self._structure.sparse()

    def singular_values(self, k: int = 32) -> Tensor:
        """The ``k`` largest singular values, falling; see ``triplets``."""
        return self.triplets(k).values

    def triplets(
        self, k: int = 32, *, which: str = "largest", tolerance: float = 1e-8, seed: int = 0
    ) -> SingularTriplets:
        """The ``k`` largest or smallest singular values with their vectors as feature maps; see ``spaces.triplets``."""
        return triplets(self, k, which=which, tolerance=tolerance, seed=seed)

    def subspaces(self, *, tolerance: float | None = None) -> Subspaces:
        """The four fundamental spaces of the map, with its matrix written out: signal, rejected, and both of outputs.

        Parameters
        ----------
        tolerance : float, optional
            Singular values up to this count as zero; default max(m, n) * eps * s_1 of float64.

        Returns
        -------
        Subspaces

        Raises
        ------
        LayerError
            When the matrix would hold more than 50 million numbers.
        InputError
            When the tolerance is negative, or the map is one for each of several images.
        """
        return subspaces_of(self, tolerance=tolerance)

    def all_singular_values(self) -> Tensor | None:
        """All singular values in descending order, if the structure gives them: Linear, circular convolutions."""
        return all_singular_values(self)

    def condition_number(self) -> float:
        """Largest by smallest of all min(m, n) singular values; infinite if the smallest is zero to rounding.

        Raises
        ------
        LayerError
            When the smallest singular value cannot be found reliably.
        """
        return condition_number(self)


def operator(net: Network, layer: str) -> LinearMap:
    """The exact linear operator of a Linear or convolution layer on what it reads.

    Parameters
    ----------
    net : Network
        The network; it fixes the size of the feature maps.
    layer : str
        A Linear layer, Conv1d to Conv3d or ConvTranspose1d to 3d, as module or functional call.

    Returns
    -------
    LinearMap
        ``apply``, ``adjoint``, ``triplets(k)``, ``singular_values(k)``, ``condition_number()``, ``subspaces()``.

    Raises
    ------
    LayerError
        When the layer is no linear map.

    Notes
    -----
    Stride, padding (also ``"same"`` and circular, reflected or replicated), dilation and groups are those
    of the layer. Padding that the model does itself before the layer (its own ``F.pad``) belongs to what the
    layer reads, not to the layer. The bias is left out.

    Examples
    --------
    A kernel that doubles its input has all singular values 2:

    >>> import torch
    >>> conv = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
    >>> conv.weight.data.zero_()[0, 0, 1, 1] = 2
    >>> net = Network(torch.nn.Sequential(conv), (1, 6, 6))
    >>> operator(net, "0").singular_values(3).tolist()
    [2.0, 2.0, 2.0]
    """
    return LinearMap(layer_operator(net, layer))


def jacobian(net: Network, images: Tensor, *, layer: str = "logits", since: str = "input") -> LinearMap:
    r"""The derivative of one layer by an earlier one at each image, as an operator.

    .. math:: J = \frac{\partial f_{\mathrm{layer}}}{\partial f_{\mathrm{since}}}\Big|_x

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W); for singular triplets one image.
    layer : str
        Where the map ends: a layer or ``"logits"``.
    since : str
        Start of the map: an earlier layer, or ``"input"`` for the image in pixel space.

    Returns
    -------
    LinearMap
        ``apply``, ``adjoint``, ``triplets(k)``, and for small maps ``dense()`` and ``subspaces()``, the four spaces of
        the map between two layers at an image. Its ``structure`` holds the layer's ``value``.

    Raises
    ------
    LayerError
        When a layer does not exist.
    OpaqueError
        When the layer does not depend on the start by differentiable operations.

    Notes
    -----
    Cost: one forward pass in float64, whose graph is kept; a product with J costs two backward passes, with J^T one.
    For a piecewise linear network it is the exact map inside the linear region of the image
    (see ``linear_region``); elsewhere the best linear approximation at the image.

    Examples
    --------
    >>> import torch
    >>> fc = torch.nn.Linear(2, 1, bias=False)
    >>> _ = fc.weight.data.copy_(torch.tensor([[2.0, 3.0]]))
    >>> net = Network(torch.nn.Sequential(torch.nn.Flatten(), fc), (1, 1, 2), mean=0.5, std=0.5)
    >>> jacobian(net, torch.rand(1, 1, 1, 2)).dense().tolist()
    [[4.0, 6.0]]
    """
    return LinearMap(jacobian_operator(net, images, layer=layer, since=since))
