"""Dissection of one output channel on one image: inputs x_j, weights w_j, contributions a_j, sums c_j, output y."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result
from microtome.tables import Table
from microtome.trace.graph import Layer
from microtome.units.stimulus_tuning.tuning_curves import Tuning
from microtome.units.wiring.linear_parts import parts

_NOTE = (
    "a is what an input channel adds to the output. rms of a: its root mean square over all positions, in units "
    "of the output. share: of the output without its bias; the shares add up to 1, and a channel that acts "
    "against the sum has a negative one."
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Dissection(Result, drawing="units.dissection_figures:dissection"):
    """One output channel of one layer on one image, decomposed by input channel.

    A fully connected layer has 1 x 1 maps: h = w = kh = kw = 1. Where a layer runs on pieces of the image, such as
    windows, their maps are placed one below the other.

    Attributes
    ----------
    layer : str
    channel : int
    source : str
        The input layer.
    inputs : Tensor
        (J, h, w) x_j: each input channel of the operation, after padding by a separate call.
    weights : Tensor
        (J, kh, kw) w_j.
    contributions : Tensor
        (J, h', w') a_j = x_j * w_j with the layer's stride, padding and dilation.
    cumulative : Tensor
        (J, h', w') c_j = a_1 + ... + a_j.
    bias : float
        0 if the layer has no bias.
    output : Tensor
        (h', w') y, the network's own value of the channel.
    channels : Tensor
        (J,) index of each input channel in ``source``; not 0 to J - 1 if the layer has groups. For a
        fully connected layer after a flattened map, the channel of the map.
    labels : tuple of str
        (J,) label of each input channel, or ``""``.
    gap : float
        Certificate: the largest absolute difference of c_J + bias and y, which comes from rounding.
    bound : float
        Upper bound of the gap by rounding: machine precision, times the number of terms, times the
        largest sum of their magnitudes.
    """

    layer: str
    channel: int
    source: str
    inputs: Tensor
    weights: Tensor
    contributions: Tensor
    cumulative: Tensor
    bias: float
    output: Tensor
    channels: Tensor
    labels: tuple[str, ...]
    gap: float
    bound: float

    @property
    def strength(self) -> Tensor:
        """Root mean square of each a_j over the map, (J,)."""
        return self.contributions.flatten(1).double().square().mean(1).sqrt().to(self.contributions.dtype)

    @property
    def order(self) -> Tensor:
        """Rows from the strongest to the weakest, (J,)."""
        return torch.argsort(self.strength, descending=True, stable=True)

    @property
    def share(self) -> Tensor:
        r"""Share of each a_j in y - bias, (J,), :math:`\langle a_j, y - b \rangle / |y - b|^2`.

        The shares add up to 1. A row with opposite sign has a negative share. All shares are zero if y
        equals the bias.
        """
        total = self.cumulative[-1].flatten().double()
        energy = total @ total
        shares = self.contributions.flatten(1).double() @ total
        return (shares / energy if float(energy) > 0 else torch.zeros_like(shares)).float()

    def at(self, row: int, column: int) -> Tensor:
        """Contributions at one position of the output, (J,); with the bias they add up to y there."""
        return self.contributions[:, row, column]

    def table(self) -> Table:
        """Rows by strength: input channel, label where there are any, root mean square of a_j, share of the output."""
        strength, share, labelled = self.strength, self.share, any(self.labels)
        rows = tuple(
            (int(self.channels[j]), *([self.labels[j]] if labelled else []), float(strength[j]), float(share[j]))
            for j in self.order.tolist()
        )
        return Table(("input", *(["label"] if labelled else []), "rms of a", "share"), rows, _NOTE)


@register("dissect", rows=("B6",), paper="dissecting", needs="a convolution or fully connected layer", kind="units")
def dissect(
    net: Network, image: Any, layer: str, channel: int, *, labels: Tuning | Sequence[str] | None = None
) -> Dissection:
    r"""Decompose one output channel into the contributions of the input channels.

    .. math:: y = b + \sum_{j=1}^{J} a_j, \qquad a_j = x_j * w_j, \qquad c_j = a_1 + \dots + a_j

    The operation is the network's own call, of a module or a function, with its stride, padding, dilation
    and groups. For grouped and depthwise convolutions J is the number of channels of the group.

    Parameters
    ----------
    net : Network
    image : Tensor
        (C, H, W), or a batch of one.
    layer : str
        A two-dimensional convolution or a fully connected layer, at any depth.
    channel : int
        The output channel, from 0.
    labels : Tuning or sequence of str, optional
        Labels of the channels of the input layer: its tuning, or one text for each channel.

    Returns
    -------
    Dissection
        Computed in float64 from the network's own values, then converted to its precision. ``gap`` is the
        difference of sum plus bias and the network's own output.

    Raises
    ------
    LayerError
        When the layer is neither a convolution nor a matrix product.
    InputError
        When there is no such channel, there is more than one image, or the labels do not fit.

    Notes
    -----
    Cost: one forward pass up to the layer. What it does not show: the effect of a contribution on later
    layers. The decomposition is exact for this image only.

    References
    ----------
    .. [1] "Dissecting a ConvNet", the dissected activation of conv2_3.

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(2, 1, 1), nn.Flatten())
    >>> with torch.no_grad():
    ...     _ = model[0].weight.copy_(torch.tensor([2.0, -1.0]).reshape(1, 2, 1, 1)), model[0].bias.fill_(0.5)
    >>> result = dissect(Network(model, input_shape=(2, 1, 1)), torch.ones(2, 1, 1), "0", 0)
    >>> result.contributions.flatten().tolist(), result.bias, result.output.item()
    ([2.0, -1.0], 0.5, 1.5)
    """
    info = net.layer(layer)
    images = net.images(image)
    if images.shape[0] != 1:
        raise InputError(f"one image was expected, got {images.shape[0]}; choose images[i].")
    terms = parts(net, info, images, channel)
    total = terms.contributions.sum(0) + terms.bias
    names = _labels(labels, terms.channels, info)
    dtype = torch.float64 if terms.output.dtype == torch.float64 else torch.float32
    return Dissection(
        layer=layer,
        channel=channel,
        source=terms.source,
        inputs=terms.inputs.to(dtype),
        weights=terms.weights.to(dtype),
        contributions=terms.contributions.to(dtype),
        cumulative=terms.contributions.cumsum(0).to(dtype),
        bias=terms.bias,
        output=terms.output.to(dtype),
        channels=terms.channels,
        labels=names,
        gap=float((total - terms.output).abs().max()),
        bound=terms.bound * torch.finfo(terms.output.dtype).eps,
    )


def _labels(labels: Tuning | Sequence[str] | None, channels: Tensor, layer: Layer) -> tuple[str, ...]:
    """The label of each row: that of its channel in the input layer."""
    if labels is None:
        return ("",) * channels.numel()
    texts = labels.labels if isinstance(labels, Tuning) else tuple(str(text) for text in labels)
    if int(channels.max()) >= len(texts):
        raise InputError(
            f'layer "{layer.name}" reads channels up to {int(channels.max())}, but there are {len(texts)} labels; '
            "pass the tuning of its input layer."
        )
    return tuple(texts[channel] for channel in channels.tolist())
