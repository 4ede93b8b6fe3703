"""Shortcut share: how much of each method's map lies on a mask, for one or several networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.attribution.own_method import MethodsLike, chosen_methods
from microtome.attribution.quality.localisation import energy_in_mask
from microtome.attribution.quality.maps import mask_of
from microtome.attribution.result import Attribution
from microtome.errors import InputError
from microtome.inputs import Target
from microtome.network import Network
from microtome.progress import reported
from microtome.registry import register
from microtome.results import Result, stated
from microtome.tables import Table

_NOTE = (
    "Mean share of each map's positive part that lies on the mask, from 0 to 1, for each network; area: the "
    "mask's share of the picture, which a flat map would have."
)

METHODS = ("saliency", "gradient-x-input", "guided-backprop", "grad-cam", "guided-grad-cam", "lrp", "deep-taylor")


@dataclass(frozen=True, eq=False, kw_only=True)
class ShortcutShare(Result, drawing="attribution.shortcut_figures:shortcut_share"):
    """How much of each map lies on a mask.

    Attributes
    ----------
    share : dict of str to Tensor
        By network and method, ``"biased: grad-cam"``; each (N,), from 0 to 1, NaN for a map without positive part.
    area : Tensor
        (N,), the mask's share of the picture: what a flat map would have.
    networks, methods : list of str
        Names, in the order given.
    images : Tensor
        (examples, C, H, W), the first pictures.
    masks : Tensor
        (examples, H, W), their masks.
    maps : dict of str to Tensor
        Maps of the examples, (examples, H, W), under the same names as ``share``.
    target : Tensor
        (examples,), the target class of these maps for the first network.
    """

    share: dict[str, Tensor]
    area: Tensor
    networks: list[str]
    methods: list[str]
    images: Tensor
    masks: Tensor
    maps: dict[str, Tensor]
    target: Tensor

    def table(self) -> Table:
        """One row for each method: mean share by network (of maps with a positive part), and the mask's own share."""
        rows: list[dict[str, float | str]] = []
        for method in self.methods:
            row: dict[str, float | str] = {"method": method, "area": float(self.area.mean())}
            for network in self.networks:
                row[network] = self.mean(network, method)
                row[f"{network}, standard error"] = self.error(network, method)
            rows.append(row)
        return Table.of(rows, _NOTE)

    def mean(self, network: str, method: str) -> float:
        """Mean share over the pictures."""
        return float(self.share[f"{network}: {method}"].nanmean())

    def error(self, network: str, method: str) -> float:
        """Standard error of that mean."""
        known = self.share[f"{network}: {method}"]
        known = known[~known.isnan()]
        return float(known.std() / len(known) ** 0.5) if len(known) > 1 else float("nan")


@register("shortcut-share", rows=("C6",), paper="selvaraju2020gradcam", needs="masks of the images", kind="quality")
def shortcut_share(
    nets: Network | Mapping[str, Network],
    images: Any,
    masks: Any,
    target: Target = None,
    *,
    methods: MethodsLike = METHODS,
    examples: int = 4,
) -> ShortcutShare:
    r"""Measure how much of the evidence of one or several networks lies where it should not.

    .. math:: E = \frac{\sum_{p \in \text{mask}} \max(M_p, 0)}{\sum_p \max(M_p, 0)}

    for the map M of each method, together with the mask's share of the picture. A network that relies on a watermark,
    a ruler or a background has a share far above that of its mask; one that does not is near it or below [1]_.

    Parameters
    ----------
    nets : Network or mapping of str to Network
        One network, or several by name, such as a biased and an unbiased one.
    images : Tensor
        (N, C, H, W) in the networks' pixel range.
    masks : Tensor or array
        Where the suspected shortcut lies: (N, H, W), (N, 1, H, W) or one (H, W), of 0 and 1.
    target : int, str, sequence, Tensor or None
        The class that is explained; None for the class that each network predicts.
    methods : sequence of str or function, or mapping
        Methods by name, and functions (network, images, target) -> map (see ``own_method``). A mapping gives each
        method its options, or each function a name.
    examples : int
        Number of images whose maps are stored for the figure.

    Returns
    -------
    ShortcutShare
        The share by network, method and picture, a table and a figure.

    Raises
    ------
    InputError
        When no network or method is given, or images, masks and targets do not fit.

    Notes
    -----
    Cost: that of the methods, once for each network. Coarse maps (Grad-CAM on 7 x 7 positions) spill over the
    edges of a small mask, so their shares are too low where the mask matters and too high where it does not:
    compare networks, not methods. The negative part of a map is left out, and a share says where a map lies,
    not whether the prediction would change without it: cover the mask and see.

    References
    ----------
    .. [1] Selvaraju et al., Grad-CAM: visual explanations from deep networks via gradient-based
       localization, IJCV 2020.

    Examples
    --------
    A network that reads the left pixel only, and one that reads both.

    >>> from torch import nn
    >>> def reads(left, right):
    ...     line = nn.Linear(2, 1, bias=False)
    ...     line.weight.data.copy_(torch.tensor([[left, right]]))
    ...     return Network(nn.Sequential(nn.Flatten(), line), input_shape=(1, 1, 2))
    >>> nets = {"left": reads(1.0, 0.0), "both": reads(1.0, 3.0)}
    >>> found = shortcut_share(nets, torch.ones(5, 1, 1, 2), [[1, 0]], methods=["gradient-x-input"])
    >>> [(row["left"], row["both"], row["area"]) for row in found.table()]
    [(1.0, 0.25, 0.5)]
    """
    named = {"network": nets} if isinstance(nets, Network) else dict(nets)
    if not named:
        raise InputError("at least one network is needed to measure a share.")
    chosen = chosen_methods(methods)
    first = next(iter(named.values()))
    checked = first.images(images).detach()
    mask = mask_of(masks, checked)
    share: dict[str, Tensor] = {}
    maps: dict[str, Tensor] = {}
    explained = torch.empty(0, dtype=torch.long, device="cpu")
    for title, net in named.items():
        for name, one in reported(chosen.items(), lambda item: item[0]):
            found: Attribution = one.method.function(net, images, target, **one.options)
            share[f"{title}: {name}"] = energy_in_mask(found, mask)
            maps[f"{title}: {name}"] = found.map[:examples].clone()
            explained = explained if len(explained) else found.target[:examples]
    return ShortcutShare(
        provenance=stated(networks=list(named), methods={name: one.described for name, one in chosen.items()}),
        share=share,
        area=mask.flatten(1).double().mean(1),
        networks=list(named),
        methods=list(chosen),
        images=checked[:examples].clone(),
        masks=mask[:examples].clone(),
        maps=maps,
        target=explained,
    )  # fmt: skip
