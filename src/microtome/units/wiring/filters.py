"""Filters of a convolution, with a Gabor function fitted to each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import LayerError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, stated
from microtome.tables import Table
from microtome.units.wiring import gabor
from microtome.units.wiring.channel_sources import reads_pixels

_NOTE = (
    "Of the Gabor function that fits a filter best: orientation of its stripes and phase in degrees, frequency in "
    "cycles per pixel. goodness: share of the filter's variance that it explains. norm: of the filter."
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Filters(Result, drawing="units.filters_figures:filters"):
    """The filters of one convolution.

    Attributes
    ----------
    layer : str
    weights : Tensor
        (U, J, kh, kw): output channel by input channel, as in the network's own call.
    groups : int
        Groups of the convolution; the first input channel of unit u is ``u // (U / groups) * J``.
    first : bool
        Whether the layer reads the image, channel by channel (scaled, padded or resized at most), so that a filter can
        be shown as a picture.
    profile : Tensor
        (U, kh, kw) the filter's spatial profile, the data of the Gabor fit: with one input channel the
        filter, otherwise its first principal component over the input channels, with the sign of the
        strongest channel.
    profile_share : Tensor
        (U,) share of the filter's energy in this component.
    orientation, frequency, phase, sigma, goodness : Tensor
        (U,) parameters of the Gabor fit: degrees of the stripes in [0, 180), cycles per pixel, degrees,
        pixels, and the share of the profile's variance that the fit explains. For a constant filter the
        parameters are NaN and goodness is 0. Without a fit (kernels below 3 x 3) all are NaN.
    """

    layer: str
    weights: Tensor
    groups: int
    first: bool
    profile: Tensor
    profile_share: Tensor
    orientation: Tensor
    frequency: Tensor
    phase: Tensor
    sigma: Tensor
    goodness: Tensor

    def table(self) -> Table:
        """Unit, orientation, frequency, phase and goodness of the Gabor fit, norm of the filter."""
        columns = (self.orientation, self.frequency, self.phase, self.goodness, self.weights.flatten(1).norm(dim=1))
        rows = tuple((unit, *(float(column[unit]) for column in columns)) for unit in range(len(self.weights)))
        return Table(("unit", "orientation", "cycles/px", "phase", "goodness", "norm"), rows, _NOTE)


@register("filters", rows=("A1",), paper="jones1987evaluation", needs="a two-dimensional convolution", kind="units")
def filters(net: Network, layer: str, *, fit: bool | None = None) -> Filters:
    """Return the filters of a convolution, and fit a Gabor function to each.

    Parameters
    ----------
    net : Network
    layer : str
        A two-dimensional convolution, module or function.
    fit : bool, optional
        Whether to fit Gabor functions; default only for layers that read the image.

    Returns
    -------
    Filters

    Raises
    ------
    LayerError
        When the layer is not a two-dimensional convolution.

    Notes
    -----
    Cost: one forward pass; a fit takes some tens of milliseconds per filter. What it does not show: the
    quality of fits below 5 x 5, because a Gabor function has as many parameters as a 3 x 3 filter has weights.

    References
    ----------
    .. [1] J. P. Jones and L. A. Palmer, An evaluation of the two-dimensional Gabor filter model of
       simple receptive fields in cat striate cortex, Journal of Neurophysiology 58 (1987).

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    >>> net = Network(model.eval(), input_shape=(1, 8, 8))
    >>> pictures = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> filters(net, "0").weights.shape
    torch.Size([6, 1, 3, 3])
    """
    info = net.layer(layer)
    call = net.call(layer)
    if call.kind != "conv2d":
        convolutions = [name for name, other in net.layers.items() if other.leaf and other.operator == "conv2d"]
        raise LayerError(
            f'layer "{layer}" is a {info.kind}, not a two-dimensional convolution; '
            f"choose {', '.join(convolutions[:6]) or 'another network'}."
        )
    weights = call.arguments["weight"].detach().float().cpu()
    first = reads_pixels(net, info.name)
    profile, share = profiles(weights)
    fit = (first if fit is None else fit) and min(weights.shape[2:]) >= 3
    missing = torch.full((len(weights),), float("nan"), dtype=torch.float32, device="cpu")
    fitted = gabor.fit(profile) if fit else None
    return Filters(
        provenance=stated(fit=fit),
        layer=layer,
        weights=weights,
        groups=int(call.arguments["groups"]),
        first=first,
        profile=profile,
        profile_share=share,
        orientation=missing if fitted is None else fitted.orientation,
        frequency=missing if fitted is None else fitted.frequency,
        phase=missing if fitted is None else fitted.phase,
        sigma=missing if fitted is None else fitted.sigma,
        goodness=missing if fitted is None else fitted.goodness,
    )


def profiles(weights: Tensor) -> tuple[Tensor, Tensor]:
    """First principal component of each filter (U, J, kh, kw), its spatial profile, and the share of its energy.

    Examples
    --------
    If all channels of a filter are equal, the profile has all of its energy.

    >>> picture = torch.tensor([[1.0, -1.0], [0.0, 2.0]])
    >>> profile, share = profiles(picture.expand(1, 3, 2, 2))
    >>> bool(torch.allclose(profile[0], picture * 3**0.5)), round(float(share), 4)
    (True, 1.0)
    """
    units, channels, height, width = weights.shape
    matrix = weights.reshape(units, channels, height * width).double()
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    strongest = left[:, :, 0].abs().argmax(1)
    sign = left[torch.arange(units, device=left.device), strongest, 0].sign()
    profile = (values[:, 0] * torch.where(sign == 0, torch.ones_like(sign), sign))[:, None] * right[:, 0]
    share = values[:, 0] ** 2 / values.square().sum(1).clamp(min=1e-300)
    return profile.reshape(units, height, width).float(), share.float()
