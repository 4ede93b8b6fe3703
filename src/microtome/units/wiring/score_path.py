"""A class score explained from the top down: the units that contribute to it, their inputs, and their dissections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from microtome.attribution.relevance.unit_sums import ScoreDecomposition, decompose
from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.progress import reported
from microtome.registry import register
from microtome.results import Result, keep_on_device, stated
from microtome.tables import Table
from microtome.trace.operators.operator_table import those
from microtome.units.stimulus_tuning.tuning_curves import tuning
from microtome.units.streaming.streaming_pass import computing_layers
from microtome.units.wiring.dissect import Dissection, dissect

__all__ = ["ScorePath", "explain_path"]

_NOTE = "amount: what the unit gives to the amount above it, in units of the score. share: of that amount."

_WEIGHTED = those(role=("convolution", "linear"))
_LABELLED = 512  # layers with at most this many units are labelled by default
_INPUTS = 3  # number of inputs of a dissection that are named in words
_LEAST = 0.05  # share of a dissection below which an input is not named


@dataclass(frozen=True, eq=False, kw_only=True)
class ScorePath(Result, drawing="units.score_path_figures:score_path"):
    """A class score as a sum over units, each unit's amount as a sum over earlier units, and their dissections.

    Attributes
    ----------
    target : int
        The class.
    class_name : str
    image : Tensor
        (C, H, W)
    layers : list of str
        The layers whose units are named.
    sums : ScoreDecomposition
        The amounts, which add up: ``.score``, ``.bias``, ``.rest`` and ``.steps``.
    maps : dict of str to Tensor
        By ``"layer:unit"``: the activation map (h, w) of each followed unit.
    labels : dict of str to str
        By ``"layer:unit"``: what the unit detects, in words; empty if unknown.
    dissections : dict of str to Dissection
        By ``"layer:unit"``: each followed unit's sum over its input channels, where the layer is a convolution or
        fully connected.
    gap : float
        Certificate: the largest difference between an amount and the sum of its parts.
    """

    target: int
    class_name: str
    image: Tensor
    layers: list[str]
    sums: ScoreDecomposition
    maps: dict[str, Tensor]
    labels: dict[str, str]
    dissections: dict[str, Dissection]
    gap: float

    def __post_init__(self) -> None:
        keep_on_device(self, self.image.device)

    def table(self) -> Table:
        """Every named unit: its depth below the score, its amount, its share of the amount above."""
        rows = []
        for depth, step, whole in _walk(self.sums.steps, self.sums.score, 1):
            layer, unit, amount = step[:3]
            key = _key(layer, unit)
            share = amount / whole if whole else float("nan")
            rows.append((depth, key, self.labels.get(key, ""), float(amount), float(share)))
        return Table(("depth", "unit", "label", "amount", "share of the one above"), tuple(rows), _NOTE)

    def words(self) -> list[str]:
        """The path from the score down to the image, one or two sentences for each followed unit."""
        sums = self.sums
        count = len(sums.steps)
        named = sum(step[2] for step in sums.steps)
        first = (
            f"The score of {self.class_name} is {sums.score:.3g}. {_parts(sums.steps)} "
            f"The {count} units named give {named:.3g}, all others {sums.rest:.3g}, biases {sums.bias:.3g}."
        )
        lines = [first]
        for depth, step, whole in _walk(sums.steps, sums.score, 1):
            if step[5]:
                lines.append("  " * depth + self._sentence(step, whole))
        return lines

    def _sentence(self, step: Sequence[Any], whole: float) -> str:
        layer, unit, amount, bias, rest, below = step
        key = _key(layer, unit)
        label = f" ({self.labels[key]})" if self.labels.get(key) else ""
        share = f", {100 * amount / whole:.0f} % of the amount above" if whole else ""
        text = f"{key}{label} gives {amount:.3g}{share}. {_parts(below)}"
        text += f" Others give {rest:.3g}, biases {bias:.3g}."
        if key in self.dissections:
            text += f" {_dissected(self.dissections[key])}"
        return text


@register(
    "explain-path", rows=("B6", "G1"), paper="bach2015pixel", needs="layers with units between image and score",
    kind="units",
)  # fmt: skip
def explain_path(
    net: Network,
    image: Tensor,
    target: int | str | None = None,
    *,
    layers: Sequence[str] | None = None,
    labels: Mapping[str, Sequence[str]] | bool = True,
) -> ScorePath:
    r"""Follow a class score down to the image: which units contribute to it, and from which inputs they are computed.

    All chosen layers are cut, so that the score is a sum over the units of the layers that feed it, through branches
    and skips, :math:`S = \sum_{lu} A_{lu} + B`; the amount of each of the largest units is again a sum over the units
    that feed it, down to the image (see :func:`~microtome.attribution.relevance.unit_sums.decompose`). Each unit
    that is followed is dissected by input channel, so that the amounts (how much) can be compared with the
    contributions :math:`a_j = x_j * w_j` (from which inputs and weights).

    Parameters
    ----------
    net : Network
    image : Tensor
        (C, H, W), or a batch of one.
    target : int or str, optional
        The class; default the predicted one.
    layers : sequence of str, optional
        The layers whose units are named; default the convolutions and fully connected
        layers, without the one that computes the score.
    labels : mapping or bool
        Labels of units by layer; True measures the tuning of each layer of at most 512 units, False gives none.

    Returns
    -------
    ScorePath
        ``.sums``, ``.dissections``, ``.words()``, ``.table()``.

    Raises
    ------
    InputError
        When there is more than one image or no such class.
    LayerError
        When a layer does not exist, or no layer remains.

    Notes
    -----
    Cost: one forward and backward pass for each unit that is followed (4 of the score, 2 of each of those, 2 of each
    again), one forward pass for each dissection, and for the labels one pass over the stimuli. The amounts are those
    of layer-wise relevance propagation with the epsilon rule, which on networks of linear maps, rectifiers and
    max-pooling is activation times gradient. What it does not show: the score without a unit.

    References
    ----------
    .. [1] "Dissecting a ConvNet": the walk through conv2_3.
    .. [2] Bach et al., On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
       propagation, PLoS ONE 2015.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> _ = model[0].weight.data.fill_(2.0), model[2].weight.data.copy_(torch.tensor([[1.0] * 4, [-1.0] * 4]))
    >>> path = explain_path(Network(model, (1, 2, 2)), torch.full((1, 2, 2), 0.5), 0, labels=False)
    >>> path.sums.score, path.table()[0]["unit"], path.table()[0]["amount"]
    (4.0, '0:0', 4.0)
    """
    images = net.images(image)
    if images.shape[0] != 1:
        raise InputError(f"one image was expected, got {images.shape[0]}; choose images[i].")
    chosen = int(net.logits(images).argmax(1)) if target is None else int(net.targets(target, net.logits(images))[0])
    names = _layers(net, layers)
    sums = decompose(net, images, chosen, names)
    followed = list(dict.fromkeys(
        (step[0], step[1]) for _, step, _ in _walk(sums.steps, sums.score, 1) if step[5] and step[0] != "input"
    ))  # fmt: skip
    values = net.activations(images, sorted({layer for layer, _ in followed}))
    maps = {_key(layer, unit): _map(net, layer, values[layer], unit) for layer, unit in followed}
    dissections = {}
    texts = _Labels(net, labels)
    for layer, unit in reported(followed, lambda one: f"{one[0]}:{one[1]}"):
        found = _dissected_unit(net, images[0], layer, unit)
        if found is not None:
            dissections[_key(layer, unit)] = _labelled(net, images[0], layer, unit, found, texts)
    shown = {(step[0], step[1]) for _, step, _ in _walk(sums.steps, sums.score, 1) if step[0] != "input"}
    return ScorePath(
        provenance=stated(target=chosen, layers=names),
        target=chosen,
        class_name=net.classes[chosen] if net.classes else str(chosen),
        image=images[0].detach(),
        layers=names,
        sums=sums,
        maps=maps,
        labels={_key(layer, unit): texts.of(layer, unit) for layer, unit in sorted(shown)},
        dissections=dissections,
        gap=_gap(sums),
    )


def _layers(net: Network, layers: Sequence[str] | None) -> list[str]:
    if layers is not None:
        names = [net.layer(name).name for name in dict.fromkeys(layers)]
    else:
        whole = [name for name in computing_layers(net) if net.layers[name].units]
        weighted = [name for name in whole if net.layers[name].operator in _WEIGHTED]
        names = (weighted or whole)[:-1]  # the last one gives the scores themselves
    if not names:
        raise LayerError("no layer lies between the image and the score; give layers=[...].")
    return names


def _walk(steps: Sequence[Any], whole: float, depth: int) -> Iterator[tuple[int, Sequence[Any], float]]:
    """All entries with their depth and the amount above them, each before its own parts."""
    for step in steps:
        yield depth, step, whole
        yield from _walk(step[5], step[2], depth + 1)


def _gap(sums: ScoreDecomposition) -> float:
    gaps = [abs(sums.score - sums.bias - sums.rest - sum(step[2] for step in sums.steps))]
    gaps += [
        abs(step[2] - step[3] - step[4] - sum(part[2] for part in step[5]))
        for _, step, _ in _walk(sums.steps, sums.score, 1)
        if step[5]
    ]
    return float(max(gaps))


def _key(layer: str, unit: int) -> str:
    return "the image" if layer == "input" else f"{layer}:{unit}"


def _map(net: Network, layer: str, value: Tensor, unit: int) -> Tensor:
    return net.layer(layer).axes.maps(value, 1)[0, unit].float()


def _dissected_unit(net: Network, image: Tensor, layer: str, unit: int) -> Dissection | None:
    """The dissection; None for a layer that is neither a convolution nor fully connected."""
    try:
        return dissect(net, image, layer, unit)
    except LayerError:
        return None


def _labelled(net: Network, image: Tensor, layer: str, unit: int, found: Dissection, texts: _Labels) -> Dissection:
    """The dissection with labels of the input channels, if the input layer has labels."""
    known = texts.layer(found.source)
    if not known or int(found.channels.max()) >= len(known):
        return found
    return dissect(net, image, layer, unit, labels=known)


class _Labels:
    """Labels of units, by layer, measured once each."""

    def __init__(self, net: Network, labels: Mapping[str, Sequence[str]] | bool) -> None:
        self._net = net
        self._measures = labels is True
        self._known: dict[str, tuple[str, ...]] = {}
        if isinstance(labels, Mapping):
            self._known = {name: tuple(str(text) for text in texts) for name, texts in labels.items()}

    def layer(self, name: str) -> tuple[str, ...]:
        """The labels of a layer's units; empty if unknown."""
        if name not in self._known:
            self._known[name] = self._measured(name) if self._measures else ()
        return self._known[name]

    def of(self, layer: str, unit: int) -> str:
        """The label of one unit."""
        texts = self.layer(layer)
        return texts[unit] if unit < len(texts) else ""

    def _measured(self, name: str) -> tuple[str, ...]:
        found = self._net.layers.get(name)
        if found is None or not found.units or found.units > _LABELLED or found.axes.image_axis is None:
            return ()
        return tuple(tuning(self._net, name).labels)


def _parts(steps: Sequence[Any]) -> str:
    """The largest parts of an amount, in words."""
    named = [f"{_key(step[0], step[1])} {step[2]:+.3g}" for step in steps[:4]]
    if not named:
        return "No single unit below it is named."
    return f"It comes from {', '.join(named)}{' and smaller ones' if len(steps) > 4 else ''}."


def _dissected(found: Dissection) -> str:
    """The strongest inputs of a dissection, in words."""
    share = found.share
    order = share.abs().argsort(descending=True, stable=True).tolist()
    named = []
    for row in order[:_INPUTS]:
        if abs(float(share[row])) < _LEAST:
            break
        label = f" ({found.labels[row]})" if found.labels[row] else ""
        against = "" if share[row] > 0 else " against it"
        named.append(f"channel {int(found.channels[row])}{label} {100 * abs(float(share[row])):.0f} %{against}")
    if not named:
        return f"By dissection, no input of {found.source} stands out."
    return f"By dissection, its map is computed from {found.source}: {', '.join(named)}."
