"""Top patches: the image patches with the highest and lowest activation of each unit, in one pass over the data."""

from __future__ import annotations

from collections.abc import Iterable

from microtome.data import Dataset, adapt
from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.units.streaming import streaming_pass
from microtome.units.streaming.patch_survey import PatchSurvey
from microtome.units.streaming.patch_tables import TopPatches


@register(
    "top-patches",
    rows=("D2", "B2"),
    paper="zeiler2014visualizing",
    needs="a data set",
    kind="units",
)
def top_patches(
    net: Network,
    dataset: Dataset,
    layers: str | Iterable[str] | None = None,
    *,
    k: int = 9,
    bins: int = 9,
    one_per_image: bool = True,
    batch: int | None = None,
    sample: int | None = None,
    seed: int = 0,
) -> TopPatches:
    r"""Find the image patches with the highest and lowest activation of each unit, in one pass for all layers.

    For unit u of a layer with values :math:`f_u(x; i, j)` the patches are those of

    .. math:: \operatorname{top}_k \; \max_{ij} f_u(x; i, j) \quad\text{over the images } x,

    so that the k patches come from k images. With ``one_per_image=False``, all positions of all images
    are candidates [1]_. Equal values are ordered by image, then by position. The value is the layer's own
    output: for a convolution the value before the ReLU.

    Parameters
    ----------
    net : Network
        The network.
    dataset : Dataset
        Images with or without labels; the result holds a reference. Labels that are not the network's classes
        keep the data set's own numbers and names.
    layers : str or iterable of str, optional
        Names of layers; default all layers that compute (without padding, dropout and flattening).
    k : int
        Number of highest patches and number of lowest patches.
    bins : int
        Number of quantile bins of the per-image maximum, with one example each.
    one_per_image : bool
        Whether only the best position of each image is a candidate.
    batch : int, optional
        Number of images per pass.
    sample : int, optional
        Number of random images for the distributions; default all, or as many as fit into 192 MB. The
        tables of patches, mean, std, active, dead and saturated always cover all images.
    seed : int
        Seed of the sample, and of the random position per image for the ``"position"`` quantiles.

    Returns
    -------
    TopPatches
        ``top["conv2"]``: ``.image``, ``.position``, ``.activation`` (units, k), ``.crop(unit, rank)``,
        ``.box(unit, rank)``; the same for lowest and binned patches; histogram by class, quantiles.

    Raises
    ------
    InputError
        When the data set is empty or k is not positive.
    LayerError
        When a layer does not exist.

    Notes
    -----
    Cost: one forward pass up to the last layer, and five reductions of every value. On EfficientNet-Lite0
    the reductions take a third of the time of the pass for the convolutions, and as long as the pass for
    all 142 layers, because memory access dominates. Memory: one batch, the tables, and the sample.
    What it does not show: the part of the patch that causes the activation (see ``units.reconstruct``,
    ``units.effective_field``).

    References
    ----------
    .. [1] Zeiler, Fergus. Visualizing and understanding convolutional networks. ECCV 2014.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Conv2d(1, 1, 1, bias=False)
    >>> _ = torch.nn.init.constant_(model.weight, 2.0)
    >>> net = Network(torch.nn.Sequential(model, torch.nn.Flatten()), (1, 2, 2))
    >>> pictures = [torch.tensor([[[0.0, 0.1], [0.2, 0.0]]]), torch.tensor([[[0.4, 0.0], [0.0, 0.0]]])]
    >>> top = top_patches(net, pictures, "0", k=2)["0"]
    >>> top.image.tolist(), top.position.tolist(), top.box(0, 0)
    ([[1, 0]], [[[0, 0], [1, 0]]], (0, 0, 1, 1))
    """
    if bins < 1:
        raise InputError(f"k and bins are at least 1, got k={k} and bins={bins}.")
    dataset = adapt(dataset, net)
    survey = PatchSurvey(net, len(dataset), layers, k=k, one_per_image=one_per_image, sample=sample, seed=seed)
    streaming_pass.read(net, dataset, survey.readers, batch=batch)
    labels, classes = dataset.shown_classes
    return survey.result(labels, bins, classes).with_images(dataset)
