"""How is one output channel made from its inputs on this image? The sheet x_j, w_j, a_j, c_j, bias, y."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, provenance
from microtome.tables import Table
from microtome.trace.graph import Layer
from microtome.units.stimulus_tuning.tuning_curves import Tuning
from microtome.units.wiring.linear_parts import parts


@dataclass(frozen=True, eq=False, kw_only=True)
class Dissection(Result):
    """One output channel of one layer on one image, taken apart by input channel.

    A fully connected layer has 1 x 1 maps: h = w = kh = kw = 1.

    Attributes
    ----------
    layer : str
    channel : int
    source : str
        The layer it reads.
    inputs : Tensor
        (J, h, w) x_j: each input channel as the operation reads it, padding by another call included.
    weights : Tensor
        (J, kh, kw) w_j.
    contributions : Tensor
        (J, h', w') a_j = x_j * w_j with the layer's stride, padding and dilation.
    cumulative : Tensor
        (J, h', w') c_j = a_1 + ... + a_j.
    bias : float
        0 where the layer has none.
    output : Tensor
        (h', w') y, the network's own value of the channel.
    channels : Tensor
        (J,) index of each input channel in ``source``: not 0 to J - 1 where the layer has groups. For a
        fully connected layer behind a flattened map, the channel of the map.
    labels : tuple of str
        (J,) what each input channel detects, or ``""``.
    gap : float
        Certificate: the largest distance of c_J + bias from y; rounding of the network's own precision.
    bound : float
        What rounding may make of the gap: machine precision, times the number of terms, times the
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
        """Root mean square of each a_j over the map, (J,): how loud a row is, whatever its sign."""
        return self.contributions.flatten(1).square().mean(1).sqrt()

    @property
    def order(self) -> Tensor:
        """Rows from the strongest to the weakest, (J,)."""
        return torch.argsort(self.strength, descending=True, stable=True)

    @property
    def share(self) -> Tensor:
        r"""Part of y - bias that each row accounts for, (J,), :math:`\langle a_j, y - b \rangle / |y - b|^2`.

        The shares add up to 1; a row that works against the others has a negative one. Zero
        everywhere where y equals the bias.
        """
        total = self.cumulative[-1].flatten().double()
        energy = total @ total
        shares = self.contributions.flatten(1).double() @ total
        return (shares / energy if float(energy) > 0 else torch.zeros_like(shares)).float()

    def at(self, row: int, column: int) -> Tensor:
        """Contributions at one position of the output, (J,); with the bias they add up to y there."""
        return self.contributions[:, row, column]

    def table(self) -> Table:
        """Rows by strength: input channel, label, root mean square of a_j, share of the output."""
        strength, share = self.strength, self.share
        rows = tuple(
            (int(self.channels[j]), self.labels[j], float(strength[j]), float(share[j])) for j in self.order.tolist()
        )
        return Table(("input", "label", "rms of a", "share"), rows)


@register("dissect", rows=("B6",), paper="dissecting", needs="a convolution or fully connected layer", kind="units")
def dissect(
    net: Network, image: Any, layer: str, channel: int, *, labels: Tuning | Sequence[str] | None = None
) -> Dissection:
    r"""Take one output channel apart into what each input channel gives to it.

    .. math:: y = b + \sum_{j=1}^{J} a_j, \qquad a_j = x_j * w_j, \qquad c_j = a_1 + \dots + a_j

    The operation is taken as the network makes it, module or function, with its stride, padding,
    dilation and groups; for grouped and depthwise convolutions J counts the channels of the group.

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
        What the channels of the layer below detect: its tuning, or one text for each channel.

    Returns
    -------
    Dissection
        Computed in float64 from the network's own values and kept in its precision; ``gap`` says how
        far sum and bias are from what the network has computed.

    Raises
    ------
    LayerError
        When the layer is neither, with the layers that are.
    InputError
        When there is no such channel, there is more than one image, or the labels do not fit.

    Notes
    -----
    Cost: one forward pass down to the layer. The sheet tells how the numbers add up on this image;
    it does not tell what the output would be without a row in later layers.

    References
    ----------
    .. [1] "Dissecting a ConvNet", the dissected activation of conv2_3.

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(2, 1, 1), nn.Flatten())
    >>> with torch.no_grad():
    ...     _ = model[0].weight.copy_(torch.tensor([2.0, -1.0]).reshape(1, 2, 1, 1)), model[0].bias.fill_(0.5)
    >>> sheet = dissect(Network(model, input_shape=(2, 1, 1)), torch.ones(2, 1, 1), "0", 0)
    >>> sheet.contributions.flatten().tolist(), sheet.bias, sheet.output.item()
    ([2.0, -1.0], 0.5, 1.5)
    """
    found = net.layer(layer)
    images = net.images(image)
    if images.shape[0] != 1:
        raise InputError(f"one image is dissected at a time, got {images.shape[0]}; choose images[i].")
    terms = parts(net, found, images, channel)
    total = terms.contributions.sum(0) + terms.bias
    names = _labels(labels, terms.channels, found)
    dtype = torch.float64 if terms.output.dtype == torch.float64 else torch.float32
    return Dissection(
        provenance=provenance(net, "dissect", layer=layer, channel=channel),
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
    """One text for each row, found by the row's channel in the layer below."""
    if labels is None:
        return ("",) * channels.numel()
    texts = labels.labels if isinstance(labels, Tuning) else tuple(str(text) for text in labels)
    if int(channels.max()) >= len(texts):
        raise InputError(
            f'layer "{layer.name}" reads channels up to {int(channels.max())}, the labels are {len(texts)}; '
            "give the tuning of the layer below it."
        )
    return tuple(texts[channel] for channel in channels.tolist())
