"""Credentials of superstimuli: whether an image represents what drives its unit in the data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.network import Network
from microtome.progress import reported
from microtome.registry import register
from microtome.synthesis.placement import Placement
from microtome.synthesis.superstimuli import Superstimuli
from microtome.synthesis.targets import at_least
from microtome.synthesis.trust import contribution_paths
from microtome.synthesis.trust.contribution_paths import Entry, Path
from microtome.synthesis.trust.remaking import patch_starts, remade
from microtome.synthesis.trust.second_network import Counterparts, counterparts
from microtome.units.streaming.patch_tables import LayerPatches

# The minimum of each measurement: percent of the data, cosine, share of the similarity among patches, percent.
BOUNDS = {"percentile": 95.0, "agreement": 0.4, "path_similarity": 0.6, "second": 75.0}
_MANY = 64  # pictures of a few units


@register(
    "credentials", rows=("D4",), paper="geirhos2024dont", needs="superstimuli and top patches of one layer",
    kind="synthesis",
)  # fmt: skip
def credentials(
    net: Network,
    stimuli: Superstimuli,
    patches: LayerPatches,
    *,
    restarts: int = 2,
    retry: bool = True,
    k: int = 9,
    second: Network | None = None,
) -> Superstimuli:
    r"""Check superstimuli against the data, recompute those that fail, and mark those that still fail [1]_.

    An image that was optimised to drive a unit need not show what drives it in photographs. Four measurements test it:

    - ``percentile``: the share of the images in the data with a lower activation. At least 95.
    - ``agreement``: mean cosine between the paths of the image and of ``restarts`` images from other noise. At
      least 0.4.
    - ``path_similarity``: whether the same inputs contribute to the activation of the image and of the top patches.
      A path is the vector of contributions of all units of a layer below,
      :math:`c_j = \sum_p \partial a_u / \partial f_j(p) \, f_j(p)`, and

      .. math:: s = \frac{1}{L} \sum_{l=1}^{L} \min\Big(1, \frac{\max_k \cos(c^l, c^l_k)}
                {\operatorname{median}_k \max_{j \ne k} \cos(c^l_k, c^l_j)}\Big)^+

      over the nearest L = 8 layers below and the k strongest patches: 1 if the image has a path like
      those of the patches. At least 0.6. First layers, which read the image itself, have no path and skip this test.
    - ``second``: in a second network, the percentile among the data of the image's activation of the unit that
      responds most similarly over the data (the highest correlation among all its units). At least 75.

    ``margin`` is the smallest ratio of a measurement to its bound; an image with at least 1 is trusted. With ``retry``,
    an image that fails is replaced by the restart with the largest margin, or by an image that was made from a top
    patch, if that has a larger margin. Images that are still not trusted have their reasons in words.

    Parameters
    ----------
    net : Network
        The network.
    stimuli : Superstimuli
        From ``maximize`` with channels, or ``maximize_class``. Several diverse images per unit are measured separately;
        they are not compared with restarts and not replaced.
    patches : LayerPatches
        Table of the same layer, from ``units.top_patches(...)[layer]``; for classes that of the layer of the scores.
    restarts : int
        Number of further images per unit for the agreement, each as costly as the first.
    retry : bool
        Whether images that fail are replaced by better ones.
    k : int
        Number of top patches whose paths are compared.
    second : Network, optional
        A second network of the same task and picture size.

    Returns
    -------
    Superstimuli
        The images, with ``.percentile``, ``.agreement``, ``.path_similarity``, ``.second``, ``.margin``, ``.trusted``,
        ``.origin`` and ``.reasons``.

    Raises
    ------
    InputError
        When the patches belong to another layer, or the superstimuli belong to directions or have no record of their
        options.

    Notes
    -----
    Cost: ``restarts`` ascents per image, ``restarts + 1`` more for those that fail, and ``k + 1 + restarts``
    forward and backward passes of one picture per unit. What it does not show: whether a viewer understands the image.
    The bounds were chosen on planted circuits whose superstimulus shows one thing while photographs drive the unit by
    another. A path is a linear account of one activation at one picture.

    References
    ----------
    .. [1] Geirhos, Zimmermann, Bilodeau, Brendel, Kim: Don't trust your eyes: on the (un)reliability of feature
       visualizations, ICML 2024.
    """
    _check(stimuli, patches)
    at_least(restarts, 0, "restarts")
    at_least(k, 2, "k")
    units = list(dict.fromkeys(stimuli.channel.tolist()))
    single = len(units) == len(stimuli.images)
    other = None if second is None else counterparts(net, patches.layer, units, second, patches.dataset)
    judge = _Judge(net, stimuli, patches, k, second, other)
    tries = reported(range(restarts if single else 0), "further images")
    further = [remade(net, stimuli, units, stimuli_seed(stimuli, one)) for one in tries]
    found: list[_Judged] = []
    for place, unit in enumerate(reported(units, "judged units")):
        own = stimuli.images[(stimuli.channel == unit).to(stimuli.images.device)]
        judged = judge.judged(place, unit, torch.cat([own, *(one[place][None] for one in further)]), compared=single)
        best = int(judged.margin.argmax()) if retry else 0
        rows = [best] if single else range(len(own))
        found += [judged.only(row, "first start" if row == 0 or not single else "another start") for row in rows]
    if retry and single:
        _retry_from_patches(net, stimuli, patches, judge, found, units, restarts + 1)
    return _marked(stimuli, patches, found)


def stimuli_seed(stimuli: Superstimuli, number: int) -> int:
    """A seed for a further start, other than that of the superstimuli."""
    return (stimuli.provenance.seed or 0) + 1_000_003 * (number + 1)


@dataclass(frozen=True)
class _Judged:
    """Images of one unit (n, C, h, w), their measurements and values (n,), and their origin."""

    images: Tensor
    values: dict[str, Tensor]
    margin: Tensor
    origin: str = ""

    def only(self, row: int, origin: str) -> _Judged:
        """One of the images."""
        values = {name: value[row : row + 1] for name, value in self.values.items()}
        return _Judged(self.images[row : row + 1], values, self.margin[row : row + 1], origin)


class _Judge:
    """Measures images of a unit; holds the data that all units share."""

    def __init__(
        self, net: Network, stimuli: Superstimuli, patches: LayerPatches, k: int, second: Network | None,
        other: Counterparts | None,
    ) -> None:  # fmt: skip
        self.net, self.stimuli, self.patches, self.second, self.other = net, stimuli, patches, second, other
        self.k = min(k, patches.count())
        self.selection = "top" if stimuli.sign > 0 else "low"
        self.below = contribution_paths.layers_below(net, patches.layer)
        self.place = Placement(stimuli.box, stimuli.box)
        # Whatever the number of units, so that no measurement depends on it.
        picture = self.place.in_picture(stimuli.images[:1], net)
        self.quick = net.quick(picture, [patches.layer, *self.below], _MANY)

    def judged(self, row: int, unit: int, images: Tensor, *, compared: bool) -> _Judged:
        """Measure images of a unit, the ``row``-th of all; ``compared`` if they are restarts of each other."""
        pictures = self.place.in_picture(images, self.net)
        values, entries = self._values(unit, pictures)
        own = contribution_paths.paths(self.quick, self.patches.layer, pictures, entries, self.below)
        values["percentile"] = torch.tensor(
            [self._percentile(unit, peak) for peak in values["peak"].tolist()], dtype=torch.float64, device="cpu"
        )
        values["path_similarity"] = contribution_paths.path_similarity(own, self._patch_paths(unit), len(images))
        values["agreement"] = contribution_paths.agreement(own if compared else [], len(images))
        values["second"] = torch.full((len(images),), torch.nan, dtype=torch.float64, device="cpu")
        if self.second is not None and self.other is not None:
            values["second"] = self.other.percentiles(self.second, pictures, row)
        return _Judged(images, values, self._margin(unit, values))

    def _margin(self, unit: int, values: dict[str, Tensor]) -> Tensor:
        """The smallest ratio of a measurement to its bound; 0 for a unit that the data do not drive."""
        ratios = torch.stack([values[name] / bound for name, bound in BOUNDS.items()])
        smallest = ratios.nan_to_num(torch.inf).amin(0)
        driven = not bool(self.patches.dead[unit]) and not bool(values["path_similarity"].isnan().any() and self.below)
        return smallest if driven else torch.zeros_like(smallest)

    def _values(self, unit: int, pictures: Tensor) -> tuple[dict[str, Tensor], list[Entry]]:
        """The largest and the mean value over the positions centred on the image, and the position of the largest."""
        layer, sign = self.net.layer(self.patches.layer), self.stimuli.sign
        values: dict[str, list[float]] = {"peak": [], "mean": []}
        entries: list[Entry] = []
        for picture in pictures:
            value = self.quick.activations(picture[None], layer.name, check=False)[layer.name]
            maps = layer.axes.maps(value, 1)[:, unit : unit + 1]
            numbers = torch.arange(maps[0, 0].numel(), device=maps.device).view(maps.shape)
            if layer.spatial:
                maps, numbers = (self.place.crop(one, self.net, layer.name) for one in (maps, numbers))
            best = int((sign * maps).argmax())
            row, column = divmod(int(numbers.flatten()[best]), layer.axes.grid[1])
            values["peak"].append(float(maps.flatten()[best]))
            values["mean"].append(float(maps.mean()))
            entries.append((unit, (row, column)))
        return {name: torch.tensor(one, dtype=torch.float64, device="cpu") for name, one in values.items()}, entries

    def _percentile(self, unit: int, peak: float) -> float:
        """The share of the data that the image exceeds; for ``sign=-1`` by the lowest patches: at least their share."""
        if self.selection == "top":
            return self.patches.percentile(unit, peak)
        lowest = self.patches.low_activation[unit]
        return 100 - 100 * float((lowest < peak).sum()) / self.patches.images

    def _patch_paths(self, unit: int) -> Path:
        entries = [self.patches.entry(unit, rank, self.selection) for rank in range(self.k)]
        entries = [one for one in entries if one[0] >= 0]
        pictures, _ = self.patches.pictures.fetch(torch.tensor([one[0] for one in entries], device="cpu"))
        places = [(unit, one[1]) for one in entries]
        return contribution_paths.paths(self.quick, self.patches.layer, self.net.images(pictures), places, self.below)


def _retry_from_patches(
    net: Network, stimuli: Superstimuli, patches: LayerPatches, judge: _Judge, found: list[_Judged], units: list[int],
    count: int,
) -> None:  # fmt: skip
    """Replace images that fail by images that start from a top patch, where these have a larger margin."""
    failed = [
        place for place, one in enumerate(found) if float(one.margin) < 1 and not bool(patches.dead[units[place]])
    ]
    if not failed:
        return
    some = [units[place] for place in failed]
    count = min(count, judge.k)
    starts = torch.stack([patch_starts(net, stimuli, patches, unit, count) for unit in some])
    ranks = reported(range(count), "images from top patches")
    remakes = [remade(net, stimuli, some, stimuli_seed(stimuli, rank), starts[:, rank]) for rank in ranks]
    for row, (place, images) in enumerate(zip(failed, torch.stack(remakes, 1), strict=True)):
        judged = judge.judged(place, some[row], images, compared=True)
        best = int(judged.margin.argmax())
        if float(judged.margin[best]) > float(found[place].margin):
            found[place] = judged.only(best, "a patch of the data")


def _marked(stimuli: Superstimuli, patches: LayerPatches, found: list[_Judged]) -> Superstimuli:
    joined = {name: torch.cat([one.values[name] for one in found]) for name in found[0].values}
    margin = torch.cat([one.margin for one in found])
    first = torch.tensor([one.origin == "first start" for one in found], device="cpu")
    peak, mean = (torch.where(first, getattr(stimuli, name).cpu().double(), joined[name]) for name in ("peak", "mean"))
    return dataclasses.replace(
        stimuli,
        images=torch.cat([one.images for one in found]),
        activation=torch.where(first, stimuli.activation.cpu().double(), joined["peak"]).float(),
        peak=peak.float(),
        mean=mean.float(),
        percentile=joined["percentile"],
        agreement=joined["agreement"],
        path_similarity=joined["path_similarity"],
        second=joined["second"],
        margin=margin,
        trusted=margin >= 1,
        origin=[one.origin for one in found],
        reasons=[_reason(row, joined, margin, patches, int(stimuli.channel[row])) for row in range(len(found))],
    )


def _reason(row: int, values: dict[str, Tensor], margin: Tensor, patches: LayerPatches, unit: int) -> str:
    """The reasons why an image is not trusted; empty if it is trusted."""
    if float(margin[row]) >= 1:
        return ""
    if bool(patches.dead[unit]):
        return "no image of the data drives the unit"
    known = {name: float(values[name][row]) for name in BOUNDS}
    words = {
        "percentile": f"only {known['percentile']:.0f} % of the images in the data drive the unit less",
        "agreement": f"other starts give other images (agreement {known['agreement']:.2f})",
        "path_similarity": f"its path differs from the top patches (similarity {known['path_similarity']:.2f})",
        "second": f"a second network does not respond to it (percentile {known['second']:.0f})",
    }
    failed = [words[name] for name, bound in BOUNDS.items() if known[name] < bound]
    return "; ".join(failed) or "the top patches have no path through the layers below"


def _check(stimuli: Superstimuli, patches: LayerPatches) -> None:
    options = stimuli.provenance.parameters
    if "prior" not in options or "steps" not in options or options.get("directions") is not None:
        raise InputError(
            "credentials need superstimuli from maximize(net, layer, channels=...) or maximize_class(net); directions "
            "and images of another origin cannot be compared with top patches or recomputed."
        )
    if stimuli.layer not in ("logits", patches.layer):
        raise InputError(
            f'the superstimuli belong to layer "{stimuli.layer}", the patches to "{patches.layer}"; pass '
            f'top_patches(net, dataset)["{stimuli.layer}"].'
        )
    if int(stimuli.channel.max()) >= patches.units:
        raise InputError(
            f"there are superstimuli of class {int(stimuli.channel.max())}, and patches of {patches.units} units of "
            f'"{patches.layer}"; pass the patches of the layer that gives the scores.'
        )
