"""Top images: the images with the highest activation of one neuron (a channel at one position)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.data import Dataset, adapt
from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.results import stated
from microtome.units.streaming import streaming_pass
from microtome.units.streaming.crops import Box
from microtome.units.streaming.patch_tables import Patches, geometry
from microtome.units.streaming.streaming_pass import Batch
from microtome.units.streaming.streaming_topk import TopK


@dataclass(frozen=True, eq=False, kw_only=True)
class TopImages(Patches, drawing="units.unit_figures:top_images"):
    """The images with the highest activation of one neuron.

    Attributes
    ----------
    channel : int
        The unit.
    position : (int, int)
        Row and column in the layer's grid.
    image, activation : Tensor
        (k,) indices into the data set, highest activation first, and the activations.
    images : int
        Number of images of the pass.
    """

    channel: int
    position: tuple[int, int]
    image: Tensor
    activation: Tensor
    images: int

    @property
    def box(self) -> Box:
        """The neuron's receptive field: top, left, bottom, right (exclusive). It may exceed the picture."""
        return self.box_at(self.position)

    def crop(self, rank: int) -> Tensor:
        """The pixels (C, h, w) of the neuron's receptive field in one image; gray outside the picture."""
        if not 0 <= rank < len(self.image):
            raise InputError(f"rank {rank} does not exist: there are images 0 to {len(self.image) - 1}.")
        return self.crop_at(int(self.image[rank]), self.position)

    def crops(self) -> Tensor:
        """The crops of all images (k, C, h, w)."""
        return torch.stack([self.crop(rank) for rank in range(len(self.image))])


@register("top-images", rows=("D2",), paper="girshick2014rich", needs="a data set", kind="units")
def top_images(
    net: Network,
    dataset: Dataset,
    layer: str,
    channel: int,
    *,
    position: tuple[int, int] = (0, 0),
    k: int = 96,
    batch: int | None = None,
) -> TopImages:
    r"""Rank the images by the activation :math:`f_u(x; i, j)` of one neuron [1]_.

    The position is fixed: row and column of the layer's grid, as in "pool5 (3, 3, 42)". In contrast,
    ``top_patches`` uses the best position of each image.

    Parameters
    ----------
    net : Network
        The network.
    dataset : Dataset
        Images with or without labels; the result holds a reference.
    layer : str
        The layer.
    channel : int
        The unit.
    position : (int, int)
        Row and column; (0, 0) for a layer without height and width.
    k : int
        Number of images; at most the size of the data set.
    batch : int, optional
        Number of images per pass.

    Returns
    -------
    TopImages
        ``.image``, ``.activation`` (k,), ``.crop(rank)``, ``.box``.

    Raises
    ------
    InputError
        When channel or position does not exist.
    LayerError
        When the layer does not exist.

    Notes
    -----
    Cost: one forward pass up to the layer.

    References
    ----------
    .. [1] Girshick, Donahue, Darrell, Malik. Rich feature hierarchies for accurate object detection
       and semantic segmentation. CVPR 2014.

    Examples
    --------
    >>> net = Network(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten()), (1, 1, 2))
    >>> data = [torch.tensor([[[0.9, 0.1]]]), torch.tensor([[[0.2, 0.3]]])]
    >>> top_images(net, data, "0", channel=0, position=(0, 1)).image.tolist()
    [1, 0]
    """
    (info,) = streaming_pass.selected_layers(net, layer)
    rows, columns = info.axes.grid
    row, column = int(position[0]), int(position[1])
    if not 0 <= channel < info.units:
        raise InputError(f'unit {channel} does not exist: "{layer}" has units 0 to {info.units - 1}.')
    if not (0 <= row < rows and 0 <= column < columns):
        raise InputError(f'position {position} does not exist: "{layer}" has {rows} rows and {columns} columns.')
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}.")
    table = TopK(1, min(k, max(1, len(dataset))), dtype=net.dtype)
    at = row * columns + column

    def add(value: Tensor, batch: Batch) -> None:
        count = len(batch.indices)
        units = info.axes.per_unit(value, count)
        table.add(units[:, channel, at][None], batch.indices, torch.full((1, count), at, device="cpu"))

    dataset = adapt(dataset, net)
    images = streaming_pass.read(net, dataset, {info.name: add}, batch=batch)
    return TopImages(
        provenance=stated(layer=info.name, position=[row, column]),
        **geometry(info, net.input_shape),
        channel=channel,
        position=(row, column),
        image=table.image[0],
        activation=table.value[0],
        images=images,
    ).with_images(dataset)
