"""Singular values and signal vectors of linear layers, and the part of class averages that the first layer rejects."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome import spaces
from microtome.atlas.album import Album
from microtome.atlas.pictures.downscaling import downscaled
from microtome.atlas.pictures.signed_pictures import SIDE, signed_pictures
from microtome.atlas.planning.network_summary import maps_inside
from microtome.atlas.planning.plan import Plan, even
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.widgets import Absent, Gallery, Made, Number, Part, Picture, Section, Spectrum
from microtome.errors import LayerError
from microtome.loading import Subject
from microtome.network import Network
from microtome.results import Result, provenance
from microtome.spaces import ClassResiduals, Spectra
from microtome.spaces.operators.linear_layer import PRODUCTS, linear_layers

__all__ = ["SINGULAR_VALUES", "SignalSpace", "condition_number", "residuals"]

_VECTORS = 32  # signal vectors that are shown
_SAMPLE = 32  # images on which the energy along weight vectors is measured
_CLASSES = 10  # classes whose average is split by the first layer
_RATE = 8e8  # multiply-adds per second in a decomposition
_SOLVED = 1.4e-5  # seconds to split an average, for each of its numbers
_NOTHING = 1e-4  # a share of the energy that no picture would show
_COLOURS = 3  # channels that a picture can show
_FAINT = 0.1  # residuals are drawn on a scale of at least this share of the image's range


@dataclass(frozen=True, eq=False, kw_only=True)
class SignalSpace(Result):
    """The strongest signal vectors of a linear layer, and the energy along the weight vectors of its units.

    Attributes
    ----------
    layer, view : str
        The layer, and how its weights were read as a matrix (see ``spaces.subspaces``).
    rank : int
        Rank of that matrix.
    singular_values : Tensor
        (r,) of the signal vectors kept.
    signal : Tensor
        (r, ...) the strongest signal vectors, in the shape of the layer's input.
    along : Tensor
        (units,) mean share of the energy of the layer's input along the weight vector of each unit; empty if
        the layer reads tokens.
    images : int
        Number of images for ``along``.
    """

    layer: str
    view: str
    rank: int
    singular_values: Tensor
    signal: Tensor
    along: Tensor
    images: int


# -- tasks and jobs ------------------------------------------------------------------------------------------------


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    names = linear_layers(plan.net)
    if not names:
        return []
    total = len(plan.subject.images)
    sample = even(total, _SAMPLE)
    found = [
        plan.task("spectra", cost=2 * _spectra_cost(plan.net), sees=False, layers=names, view=view)
        for view in ("patches", "kernels")
    ]
    alone = filter(plan.single_map, plan.layers)
    found += [plan.task("signal", cost=1.0, layer=layer, images=sample) for layer in alone]
    labels = plan.subject.labels
    if labels is not None and bool((labels[labels >= 0].bincount() > 1).any()):  # one image is no average
        cost = 0.002 * total + _CLASSES * _SOLVED * math.prod(plan.net.input_shape)
        found.append(plan.task("class-residuals", cost=cost, layer=names[0]))
    return found


def _spectra_cost(net: Network) -> float:
    """Seconds for the decompositions of all linear layers."""
    found = 0.0
    for name in linear_layers(net):
        layer = net.layer(name)
        n = layer.parameters / max(layer.units, 1)
        found += layer.units * n * min(layer.units, n)
    return max(0.1, 4 * found / _RATE)


def spectra(subject: Subject, *, layers: Sequence[str], view: str) -> Spectra:
    """Singular values of all linear layers."""
    return spaces.spectra(subject.net, list(layers), view=view)


def class_residuals(subject: Subject, *, layer: str) -> ClassResiduals:
    """The part of the average images that the first layer rejects, for the classes with most images."""
    found = spaces.class_residuals(subject.net, subject.commonest(_CLASSES), layer=layer)
    return dataclasses.replace(found, averages=found.averages.half(), residual=found.residual.half())


def signal(subject: Subject, *, layer: str, images: Sequence[int]) -> SignalSpace:
    """Signal vectors of a layer, and the energy of some images along the weight vectors of its units.

    Raises
    ------
    LayerError
        The layer is no linear map.
    """
    net, view = subject.net, _view(subject.net, layer)
    split = spaces.subspaces(net, layer, view=view)
    shown = min(_VECTORS, split.rank)
    return SignalSpace(
        provenance=provenance(net, "subspaces", layer=layer, view=view),
        layer=layer,
        view=view,
        rank=split.rank,
        singular_values=split.singular_values[:shown],
        signal=split.signal.T[:shown].reshape(shown, *split.input_shape).float(),
        along=_energy(subject, layer, images),
        images=len(images),
    )


def _view(net: Network, layer: str) -> str:
    """Whole patches where they are pictures or kernels are points; single kernels elsewhere, as in the paper."""
    if net.layer(layer).operator in PRODUCTS:
        return "matrix"
    first = layer == linear_layers(net)[0]
    points = set(net.call(layer).arguments["weight"].shape[2:]) == {1}
    return "patches" if first or points else "kernels"


def _energy(subject: Subject, layer: str, images: Sequence[int]) -> Tensor:
    try:
        found = spaces.weight_vectors(subject.net, subject.pictures(images), layer=layer)
    except LayerError:  # tokens, each of which has a projection of its own
        return torch.empty(0, dtype=torch.float32, device=subject.net.device)
    share = found.kept / torch.where(found.energy > 0, found.energy, torch.ones_like(found.energy))
    return share.mean(0).float()


# -- layers --------------------------------------------------------------------------------------------------------


def _spectra(album: Album, view: str) -> Spectra | Absent | None:
    return album.remembered(("spectra", view), lambda: album.one(Spectra, "spectra", view=view))


def condition_number(album: Album, layer: str) -> float | None:
    """The condition number of a layer's weights; None if it was not computed."""
    found = _spectra(album, "patches")
    return found.condition_number.get(layer) if isinstance(found, Spectra) else None


def _layer(album: Album, layer: str) -> list[Section]:
    use = "They show how many directions of its input the layer keeps, and how evenly."
    averages, rest = residuals(album, layer)
    parts = [
        Part(_spectrum(album, layer), "the singular values", use),
        Part(_signal(album, layer), heading="What it passes on"),
        Part(averages, heading="What of each class average does not reach its output"),
        Part(rest),
    ]
    return [Section("What it keeps and what it throws away", tuple(parts))]


def _spectrum(album: Album, layer: str) -> Spectrum | Absent | None:
    """The singular values of a layer's weights, or of each linear layer that it holds."""
    inside = maps_inside(album.net, layer)
    if not inside:
        return album.without_weights(layer)
    curves: list[tuple[str, tuple[float, ...]]] = []
    made: Made | None = None
    for view in ("patches", "kernels"):
        found = _spectra(album, view)
        if not isinstance(found, Spectra):
            return found
        made = made or album.made(found, album.commands.line("spectra", to="spectra.png"))
        for name in inside if view == "patches" or _two_ways(album, layer) else []:
            values = tuple(round(value, 9) for value in found.singular_values[name].tolist())
            how = {"patches": "whole kernels", "kernels": "single kernels"}.get(found.view[name], "weights")
            if values[0] > 0:
                curves.append((how if len(inside) == 1 else name.removeprefix(f"{layer}."), values))
    caption = (
        "How strongly the layer passes each direction of its input, relative to the strongest (singular values). A "
        "flat line: all directions equally; a steep line: few of them."
    )
    return Spectrum(tuple(curves), caption, made) if curves else Absent("All its weights are zero.")


def _two_ways(album: Album, layer: str) -> bool:
    """Whether the single kernels of a layer are another matrix than its weights."""
    whole, single = _spectra(album, "patches"), _spectra(album, "kernels")
    if not album.plan.single_map(layer) or not isinstance(whole, Spectra) or not isinstance(single, Spectra):
        return False
    return single.view[layer] == "kernels" and single.shape[layer] != whole.shape[layer] and single.shape[layer][1] > 1


def _layer_facts(album: Album, layer: str) -> list[Number]:
    """Rank and condition number of a layer's weights."""
    whole, kernels = _spectra(album, "patches"), _spectra(album, "kernels")
    if not album.plan.single_map(layer) or not isinstance(whole, Spectra) or not isinstance(kernels, Spectra):
        return []
    m, n = whole.shape[layer]
    found = [
        Number(
            "rank",
            f"{whole.rank[layer]} of {min(m, n)}",
            explain=f"Independent directions of its weights as a matrix of {m} x {n}.",
        ),
        Number(
            "condition number",
            whole.condition_number[layer],
            explain="Strongest divided by weakest direction; 1: all directions are equal.",
        ),
    ]
    if _two_ways(album, layer):
        explain = "The same with one kernel of one input channel in each row."
        found.append(Number("condition number of kernels", kernels.condition_number[layer], explain=explain))
    return found


def _signal(album: Album, layer: str) -> Gallery | Absent | None:
    """The signal vectors of a layer, strongest first."""
    found = album.one(SignalSpace, "signal", layer=layer)
    if not isinstance(found, SignalSpace):
        return found
    if not len(found.signal):
        return Absent("All its weights are zero: it has no signal vector.")
    if found.signal[0].dim() not in (2, 3):
        values = found.signal[0].numel()
        return Absent(f"Its {found.rank} signal vectors have {values} values each and cannot be drawn as images.")
    if found.signal[0].shape[-2:] == (1, 1) and len(found.signal[0]) > _COLOURS:
        channels = len(found.signal[0])
        return Absent(
            f"Its {found.rank} signal vectors weight {channels} input channels at one position, so they are not images."
        )
    pictures, about = signed_pictures(album, f"signal-{album.slug(layer)}", found.signal)
    read = {"patches": "patches", "kernels": "single kernels"}.get(found.view, "what it reads")
    caption = (
        f"The {len(found.signal)} strongest of {found.rank} directions among {read} that change its output; below each "
        f"its strength (singular value). Inputs orthogonal to all {found.rank} do not reach the output.{about}"
    )
    shown = tuple(
        Picture(picture.sprite, picture.index, f"direction {i + 1} that {layer} passes on", None, f"{value:.3g}")
        for i, (picture, value) in enumerate(zip(pictures, found.singular_values.tolist(), strict=True))
    )
    command = album.commands.line("signal-space", layer, view=found.view, to="space.png")
    return Gallery(shown, caption, album.made(found, command))


def residuals(album: Album, layer: str) -> tuple[Gallery | None, Gallery | Absent | None]:
    """Average images of classes, and the residual of each that does not change the first layer."""
    found = album.one(ClassResiduals, "class-residuals", layer=layer)
    if not isinstance(found, ClassResiduals) or len(found.residual_shape) != 3:
        return None, None
    sprite = album.sprites.natural(f"averages-{album.slug(layer)}", downscaled(found.averages.float(), SIDE))
    averages = Gallery(
        tuple(Picture(sprite, i, f"average image of {name}", None, name) for i, name in enumerate(found.classes)),
        "The mean of the images of each class, pixel by pixel.",
        album.made(found),
        size="s",
    )
    most = float(found.removed.max())
    if most <= _NOTHING:
        text = f"At most {100 * most:.2g} % of the sum of squares of a class average does not reach its output."
        return averages, Absent(text)
    rest = found.residual.reshape(-1, *found.residual_shape).float()
    limit = max(float(rest.abs().max()), _FAINT * float(found.averages.abs().max()))
    pictures, about = signed_pictures(album, f"residuals-{album.slug(layer)}", rest, limit, "as the layer reads it")
    own = "its own unit's weight vector" if found.against == "unit" else "the layer's signal space"
    caption = (
        f"The average minus its projection on {own}: this part does not reach the output. Below each: its share of the "
        f"sum of squares.{about}"
    )
    shown = tuple(
        Picture(picture.sprite, picture.index, f"residual of {name}", None, f"{name}: {100 * share:.3g} %")
        for picture, name, share in zip(pictures, found.classes, found.removed.tolist(), strict=True)
    )
    return averages, Gallery(shown, caption, album.made(found), size="s")


# -- units ---------------------------------------------------------------------------------------------------------


def _unit_facts(album: Album, layer: str, unit: int) -> list[Number]:
    """The share of the energy of the layer's input along the unit's weight vector."""
    found = album.one(SignalSpace, "signal", layer=layer)
    if not isinstance(found, SignalSpace) or unit >= len(found.along):
        return []
    explain = f"Share of its input; the rest does not change its response. Mean over {found.images} images."
    return [Number("share along its weights", 100 * float(found.along[unit]), "%", explain=explain)]


SINGULAR_VALUES = Topic(
    "singular values",
    tasks=_tasks,
    jobs={"spectra": spectra, "signal": signal, "class-residuals": class_residuals},
    sections={"layer": _layer},
    facts={"layer": _layer_facts, "unit": _unit_facts},
)
