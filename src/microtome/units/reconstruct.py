"""Reconstruction of patches: one activation propagated back to the pixels by deconvnet, guided backprop or gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, stated
from microtome.trace import Layer
from microtome.units.streaming.crops import Box, cut
from microtome.units.streaming.patch_tables import LayerPatches

METHODS = ("deconvnet", "guided", "gradient")


@dataclass(frozen=True, eq=False, kw_only=True)
class Reconstructions(Result, drawing="units.reconstruction_figures:reconstructions"):
    """Pixel-level reconstructions of patches, with the patches.

    Attributes
    ----------
    layer : str
        The layer of the activations.
    units : list of int
        The units, in the order of the first axis.
    values : Tensor
        (units, k, C, h, w) signed signal at each pixel of the patch; zero outside the picture.
    crops : Tensor
        (units, k, C, h, w) the patches' pixels; gray outside the picture.
    activation : Tensor
        (units, k) the activation of the patch; NaN if there is no such patch.
    share_inside : Tensor
        (units, k) share of the signal's absolute sum inside the crop. It is below 1 only if a gate
        depends on pixels outside the receptive field.
    """

    layer: str
    units: list[int]
    values: Tensor
    crops: Tensor
    activation: Tensor
    share_inside: Tensor

    def row(self, unit: int) -> int:
        """The index of a unit on the first axis.

        Raises
        ------
        InputError
            When the unit was not reconstructed.
        """
        if unit not in self.units:
            raise InputError(f'unit {unit} of "{self.layer}" was not reconstructed; there are {self.units[:20]}.')
        return self.units.index(unit)


@register("reconstruct", rows=("D3",), paper="zeiler2014visualizing", needs="top patches of the layer", kind="units")
def reconstruct(
    net: Network,
    patches: LayerPatches,
    *,
    method: str = "deconvnet",
    k: int = 9,
    units: int | Sequence[int] | None = None,
    selection: str = "top",
    batch: int = 16,
) -> Reconstructions:
    r"""Propagate one activation of each patch back to the pixels; all other activations are zero.

    The signal starts as 1 at the patch's unit and position. Each method has its backward rules:

    - ``"deconvnet"``: ReLU on the signal at every nonlinearity, unpooling to the switches of max-pooling,
      transposed filters at convolutions [1]_. These rules are positively homogeneous. The paper starts
      with the activation itself; the result is the same picture times ``activation``.
    - ``"guided"``: also zero where the forward value was not positive [2]_.
    - ``"gradient"``: :math:`\partial f_u(x; i, j) / \partial x`.

    Parameters
    ----------
    net : Network
        The network.
    patches : LayerPatches
        One layer's table, ``top["conv2"]``.
    method : str
        ``"deconvnet"``, ``"guided"`` or ``"gradient"``.
    k : int
        Number of patches of each unit.
    units : int or sequence of int, optional
        Indices of the units; default all.
    selection : str
        ``"top"``, ``"low"`` or ``"binned"`` patches.
    batch : int
        Number of patches per pass.

    Returns
    -------
    Reconstructions
        ``.values`` (units, k, C, h, w), cropped like the patches, and ``.crops``.

    Raises
    ------
    InputError
        When method, unit or rank does not exist, or the patches have no data set.
    OpaqueError
        When there is no backward rule for an operation of the model.

    Notes
    -----
    Cost: one forward and backward pass per patch, up to the layer. What it does not show: an image that
    would activate the unit. The reconstruction by deconvnet depends on the switches of this image, and
    without max-pooling hardly on the image at all.

    References
    ----------
    .. [1] Zeiler, Fergus. Visualizing and understanding convolutional networks. ECCV 2014.
    .. [2] Springenberg, Dosovitskiy, Brox, Riedmiller. Striving for simplicity. ICLR 2015 workshop.

    Examples
    --------
    >>> from microtome.units.streaming.top_patches import top_patches
    >>> model = torch.nn.Conv2d(1, 1, (1, 2), bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[[[1.0, -2.0]]]]))
    >>> net = Network(torch.nn.Sequential(model, torch.nn.Flatten()), (1, 1, 4))
    >>> top = top_patches(net, [torch.tensor([[[0.1, 0.9, 0.2, 0.3]]])], "0", k=1)
    >>> reconstruct(net, top["0"]).values.flatten().tolist()
    [1.0, -2.0]
    """
    if method not in METHODS:
        raise InputError(f'method must be one of {", ".join(METHODS)}; got "{method}".')
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}.")
    rows = list(range(patches.units)) if units is None else [units] if isinstance(units, int) else list(units)
    if not rows:
        raise InputError("the list of units is empty; give at least one, or None for all.")
    count = min(k, patches.count(selection))
    entries = [(unit, *patches.entry(unit, rank, selection)) for unit in rows for rank in range(count)]
    values, crops, shares = [], [], []
    for start in range(0, len(entries), batch):
        for signal, crop, share in _reconstructed(net, patches, entries[start : start + batch], method):
            values.append(signal)
            crops.append(crop)
            shares.append(share)
    shape = (len(rows), count)
    return Reconstructions(
        provenance=stated(layer=patches.layer, rule=method, k=count, units=rows),
        layer=patches.layer,
        units=rows,
        values=torch.stack(values).unflatten(0, shape),
        crops=torch.stack(crops).unflatten(0, shape),
        activation=torch.tensor([entry[3] for entry in entries], dtype=torch.float64, device="cpu").view(shape),
        share_inside=torch.tensor(shares, dtype=torch.float64, device="cpu").view(shape),
    )


Entry = tuple[int, int, tuple[int, int], float]  # unit, image, position, activation


def _reconstructed(
    net: Network, patches: LayerPatches, entries: list[Entry], method: str
) -> list[tuple[Tensor, Tensor, float]]:
    """Signal, crop and share inside the crop for a batch of patches; a gray crop if a patch does not exist."""
    existing = [entry for entry in entries if entry[1] >= 0]
    signals = iter(_signals(net, patches, existing, method)) if existing else iter(())
    rows = []
    for _, image, position, _ in entries:
        box = patches.crop_box_at(position)
        if image < 0:
            gray = patches.crop_at(-1, position)
            rows.append((torch.zeros_like(gray), gray, float("nan")))
        else:
            signal, picture = next(signals)
            rows.append((cut(signal, box, 0.0), cut(picture, box, patches.pictures.gray), _share(signal, box)))
    return rows


def _signals(net: Network, patches: LayerPatches, entries: list[Entry], method: str) -> list[tuple[Tensor, Tensor]]:
    """For each patch the signal in the whole picture (C, H, W), and the picture."""
    distinct = sorted({entry[1] for entry in entries})
    pictures, _ = patches.pictures.fetch(torch.tensor(distinct, device="cpu"))
    images = net.images(pictures[[distinct.index(entry[1]) for entry in entries]])
    layer = net.layer(patches.layer)

    def one_hot(value: Tensor) -> Tensor:
        return one_hot_grad_output(layer, value, [(entry[0], entry[2]) for entry in entries])

    rules = None if method == "gradient" else method
    record = net.run(
        images, record="input", gradient=True, rules=rules, output_layer=patches.layer, grad_output=one_hot
    )
    return list(zip(record.gradient["input"].cpu(), images.cpu(), strict=True))


def one_hot_grad_output(layer: Layer, value: Tensor, places: Sequence[tuple[int, tuple[int, int]]]) -> Tensor:
    """Zeros like a layer's value for ``len(places)`` images, with a 1 per image at its (unit, (row, column))."""
    units = torch.zeros_like(layer.axes.per_unit(value, len(places)))
    for n, (unit, (row, column)) in enumerate(places):
        units[n, unit, row * layer.axes.grid[1] + column] = 1
    return layer.axes.from_units(units, tuple(value.shape))


def _share(signal: Tensor, box: Box) -> float:
    total = float(signal.abs().sum())
    return float(cut(signal, box, 0.0).abs().sum()) / total if total > 0 else 1.0
