"""The lectures' findings on real photos: covered objects, counterfactuals, curves, randomised weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microtome import attribution, data, zoo
from microtome.attribution.quality import structural_similarity
from microtome.errors import InputError
from microtome.network import Network
from microtome.reproduce import evidence
from microtome.reproduce.evidence import Counterfactual, Covering
from microtome.results import Result, provenance

Say = Callable[[str], None]

# The methods that are evaluated, with options that bound their cost; other options are the defaults.
JUDGED: dict[str, dict[str, Any]] = {
    "saliency": {},
    "gradient-x-input": {},
    "smooth-grad": {"samples": 10},
    "integrated-gradients": {"steps": 16},
    "guided-backprop": {},
    "deconvnet": {},
    "lrp": {},
    "deep-taylor": {},
    "grad-cam": {},
    "guided-grad-cam": {},
}
RANDOMISED = ("gradient", "gradient-x-input", "lrp", "grad-cam", "guided-backprop", "deconvnet")
CONTROLS = ("random", "random, smooth")
STAGES = 6  # of the randomisation
STEPS = 10  # of the curves


@dataclass(frozen=True, eq=False, kw_only=True)
class Lectures(Result, drawing="lectures_figures:lectures"):
    """The lectures' four findings, measured.

    Attributes
    ----------
    covering : dict of str to Covering
        By the way the object is found: ``"second network"``, ``"centre box"``, and as a control
        ``"another photo's"``, where the region belongs to the next photo.
    counterfactual : Counterfactual
        Evidence and counterfactual maps of Grad-CAM.
    deletion, insertion : dict of str to Tensor
        Areas under the curves by map, (photos,); the last two are maps of noise, per pixel and smooth.
    likeness : dict of str to Tensor
        By method, (stages, photos): rank correlation of the sizes of the map with those of the trained
        network, as its layers are randomised from the output down.
    structure : dict of str to Tensor
        Structural similarity of the absolute maps, the measure by which the paper found the weakness of
        guided backpropagation.
    stages : list of str
        The layers that are randomised at each stage.
    photos : int
        Number of photos for covering and counterfactuals.
    seconds : float
        Run time.
    """

    covering: dict[str, Covering]
    counterfactual: Counterfactual
    deletion: dict[str, Tensor]
    insertion: dict[str, Tensor]
    likeness: dict[str, Tensor]
    structure: dict[str, Tensor]
    stages: list[str]
    photos: int
    seconds: float

    def report(self) -> str:
        """The numbers as text."""
        lines = [f"(a) covering the object against covering the background, {self.photos} photos"]
        lines += [f"    {name:<16} {one.line()}" for name, one in self.covering.items()]
        lines += ["(b) counterfactual Grad-CAM against the evidence", *self.counterfactual.lines()]
        count = len(self.deletion[CONTROLS[0]])
        lines.append(
            f"(c) mean area under the curve ± standard error, {count} photos; better than noise by paired sigmas"
        )
        lines.append(f"    {'':<22} {'deletion (low)':>16} {'insertion (high)':>16}  than random  than smooth")
        for name in sorted(
            self.deletion, key=lambda name: float(self.deletion[name].mean() - self.insertion[name].mean())
        ):
            lines.append(
                f"    {name:<22} {_spread(self.deletion[name]):>16} {_spread(self.insertion[name]):>16}"
                + "".join(f"  {self.better(name, than):>11.1f}" for than in CONTROLS if name not in CONTROLS)
            )
        some = len(next(iter(self.likeness.values()))[0])
        lines.append(f"(d) similarity of the maps as layers are randomised from the output down, {some} photos")
        lines.append("    rank correlation of sizes (structural similarity of sizes)")
        lines.append(
            f"    {'':<18}" + "".join(f" {'stage ' + str(place + 1):>13}" for place in range(len(self.stages)))
        )
        for name, values in self.likeness.items():
            shown = zip(values.mean(1), self.structure[name].mean(1), strict=True)
            lines.append(f"    {name:<18}" + "".join(f" {f'{float(a):.2f} ({float(b):.2f})':>13}" for a, b in shown))
        lines += [f"    stage {place + 1}: {stage}" for place, stage in enumerate(self.stages)]
        lines.append(f"\n{self.seconds:.0f} s")
        return "\n".join(lines)

    def better(self, name: str, than: str) -> float:
        """Paired difference of insertion minus deletion between a map and another, in standard errors."""
        gain = (self.insertion[name] - self.deletion[name]) - (self.insertion[than] - self.deletion[than])
        return float(gain.mean() / gain.std().clamp(min=1e-12) * len(gain) ** 0.5)


def lectures(
    photos: Path | str,
    *,
    images: int = 50,
    out: Path | None = None,
    say: Say | None = None,
) -> Lectures:
    """Measure the findings on EfficientNet-Lite0, with MobileNetV2 as the second network.

    Parameters
    ----------
    photos : Path
        A folder of photos named by ImageNet's classes, such as ``207_golden_retriever.jpeg``.
    images : int
        Number of photos, evenly over the folder. Curves use a third of them, randomisation a tenth.
    out : Path, optional
        Folder for the figures and the result.
    say : function, optional
        Called with each line of progress.

    Returns
    -------
    Lectures

    Raises
    ------
    InputError
        When the folder holds no photos with classes, or fewer than ``images``.
    """
    net, second = zoo.network("efficientnet-lite0"), zoo.network("mobilenet-v2")
    found = data.folder(photos, net.input_shape, classes=net.classes)
    if found.labels is None:
        raise InputError(
            f"the photos in {photos} have no classes in their names; names such as 207_golden_retriever.jpeg do."
        )
    if not 2 <= images <= len(found):
        raise InputError(f"2 to {len(found)} images can be taken from {photos}, got {images}.")
    chosen = found.subset([round(place * (len(found) - 1) / (images - 1)) for place in range(images)]).load()
    pictures, labels = chosen.images, torch.as_tensor(chosen.labels, device="cpu")
    result = findings(net, second, pictures, labels, say=say)
    if out is not None:
        _saved(result, out)
    return result


def findings(
    net: Network,
    second: Network,
    images: Tensor,
    labels: Tensor,
    *,
    judged: Mapping[str, Mapping[str, Any]] | None = None,
    randomised: tuple[str, ...] = RANDOMISED,
    say: Say | None = None,
) -> Lectures:
    """The four findings for a network and images, with a second network that locates the object.

    Parameters
    ----------
    net, second : Network
        The network that is explained, and an independent one for the same classes and images.
    images : Tensor
        (N, C, H, W) in the networks' pixel range.
    labels : Tensor
        (N,), the true classes.
    judged : mapping, optional
        Methods for the curves with their options; default ``JUDGED``.
    randomised : tuple of str
        Methods for the randomisation of weights.
    say : function, optional
        Called with each line of progress.
    """
    started, tell = time.monotonic(), say if say is not None else lambda line: None
    tell(f"covering windows of {len(images)} photos")
    regions = evidence.regions(second, images, labels)
    covering = evidence.covering(net, images, labels, regions)
    tell("counterfactual maps")
    counterfactual = evidence.counterfactual(net, images, labels, regions["second network"])
    third = slice(None, None, 3)
    options = JUDGED if judged is None else judged
    deletion, insertion = _curves(net, images[third], labels[third], options, tell)
    some = slice(None, None, 10)
    likeness, structure, stages = {}, {}, []
    for name in randomised:
        tell(f"randomised weights: {name}")
        lost = attribution.randomisation(net, images[some], name, labels[some], options=JUDGED.get(name), steps=STAGES)
        likeness[name], stages = lost.absolute, lost.layers
        sizes = lost.maps.abs()
        structure[name] = torch.stack([structural_similarity(sizes[0], one) for one in sizes[1:]])
    return Lectures(
        provenance=provenance(
            net,
            "lectures",
            images=len(images),
            second=second.fingerprint,
            judged=dict(options),
            stages=STAGES,
            steps=STEPS,
        ),
        covering=covering,
        counterfactual=counterfactual,
        deletion=deletion,
        insertion=insertion,
        likeness=likeness,
        structure=structure,
        stages=stages,
        photos=len(images),
        seconds=time.monotonic() - started,
    )


def _curves(
    net: Network, images: Tensor, labels: Tensor, judged: Mapping[str, Mapping[str, Any]], tell: Say
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Areas under deletion (towards the mean colour) and insertion (from a blur), for methods and for noise."""
    maps: dict[str, Tensor] = {}
    for name, options in judged.items():
        tell(f"maps: {name}")
        made = attribution.compare(net, images, labels, methods={name: options})
        maps[name] = next(iter(made.results.values())).map
    maps |= evidence.noise(images)
    deletion, insertion = {}, {}
    for name, one in maps.items():
        tell(f"curves: {name}")
        deletion[name] = attribution.deletion(net, images, one, labels, steps=STEPS).area
        insertion[name] = attribution.insertion(net, images, one, labels, steps=STEPS).area
    return deletion, insertion


def _spread(values: Tensor) -> str:
    return f"{float(values.mean()):.3f} ± {float(values.std() / len(values) ** 0.5):.3f}"


def _saved(result: Lectures, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    result.save(out / "lectures.safetensors")
    (out / "lectures.txt").write_text(result.report() + "\n", encoding="utf-8")
    result.plot().savefig(out / "lectures.png", dpi=150)


__all__ = ["Lectures", "findings", "lectures"]
