"""Lossless cuts: units that a network does not need, each with its reason, and the largest change of any logit."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor

from microtome.data import Dataset, adapt
from microtome.errors import InputError
from microtome.network import Network
from microtome.progress import Clock, Listener
from microtome.registry import register
from microtome.results import stated
from microtome.surgery.channels import removal
from microtome.surgery.channels.channel_families import Channels, Family
from microtome.surgery.channels.channel_map import channels_of
from microtome.surgery.compression.compress import Survey, absorbing, reading
from microtome.surgery.compression.moments import FITTED, importance, read_moments
from microtome.surgery.compression.optimal_brain_surgeon import order
from microtome.surgery.lossless_cuts import redundancy
from microtome.surgery.lossless_cuts.linear_chains import followers, merged
from microtome.surgery.lossless_cuts.redundancy import Redundant
from microtome.surgery.smaller import SmallerNetwork, held
from microtome.tables import Table
from microtome.training import checkpoints

_NOTE = (
    "change: largest change of a logit on the images, by this cut alone; bound: for any image, empty or "
    "NaN if there is none."
)


@dataclass(frozen=True)
class Cut:
    """Units of one layer that are removed for one reason.

    Attributes
    ----------
    layer : str
        The layer that computes them.
    units : tuple of int
        Their indices in the original network.
    reason : str
        The reason in words.
    change : float
        Largest change of any logit on the data, caused by this cut alone.
    bound : float or None
        Largest change of any logit for *any* image of the pixel range, in exact arithmetic; None if
        the reason holds only on the data.
    """

    layer: str
    units: tuple[int, ...]
    reason: str
    change: float
    bound: float | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Lossless(SmallerNetwork, drawing="surgery.pruning_figures:lossless"):
    """A network without unnecessary units; see ``SmallerNetwork``.

    Attributes
    ----------
    layers, reasons : list of str
        Layer and reason of each cut.
    units : list of list of int
    changes : list of float
    bounds : list of float or None
    largest_change : float
        Largest change of any logit on the data, caused by all cuts together.
    logits : float
        The largest logit on the data, for comparison.
    tolerance : float
        The allowed change.
    images : int
        Number of images on which the change was measured.
    """

    layers: list[str]
    reasons: list[str]
    units: list[list[int]]
    changes: list[float]
    bounds: list[float | None]
    largest_change: float
    logits: float
    tolerance: float
    images: int

    @property
    def cuts(self) -> list[Cut]:
        """The cuts in the order they were made."""
        columns = zip(self.layers, self.units, self.reasons, self.changes, self.bounds, strict=True)
        return [Cut(layer, tuple(units), reason, change, bound) for layer, units, reason, change, bound in columns]

    def table(self) -> Table:
        """One row for each cut."""
        return Table.of(
            [
                {
                    "layer": cut.layer,
                    "units": ", ".join(map(str, cut.units)),
                    "reason": cut.reason,
                    "change": cut.change,
                    "bound": cut.bound,
                }
                for cut in self.cuts
            ],
            _NOTE,
        )


@dataclass
class _State:
    """The network during the cuts."""

    net: Network
    dataset: Dataset
    batch: int
    start: Network
    removed: list[list[int]] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    numbers: dict[str, list[int]] = field(default_factory=dict)  # by layer: original indices of the remaining units

    def change(self, other: Network) -> float:
        return removal.largest_change(self.net, other, self.dataset, batch=self.batch)

    def note(self, family: Family, gone: list[int], reason: str, *, change: float, always: bool) -> None:
        """Write a cut down."""
        left = self.numbers.setdefault(family.name, list(range(len(family.channels))))
        units = sorted(left[family.channels.index(channel)] for channel in gone)
        self.cuts.append(Cut(family.name, tuple(units), reason, change, 0.0 if always else None))

    def go_on(self, family: Family, gone: list[int], small: Network) -> None:
        """Replace the network by the smaller one."""
        left = self.numbers[family.name]
        stays = [unit for channel, unit in zip(family.channels, left, strict=True) if channel not in set(gone)]
        self.numbers[family.name] = stays
        self.removed.append(sorted(gone))
        self.net = small


@register("lossless", rows=("H3",), paper="hassibi1993optimal", needs="channels", kind="surgery")
def lossless(
    net: Network,
    dataset: Dataset,
    *,
    tolerance: float = 1e-2,
    batch: int = 64,
    seed: int = 0,
    progress: Listener | None = None,
) -> Lossless:
    r"""Remove units that have no or almost no effect, each with a reason and a measured change.

    In this order, layer by layer:

    - units whose outgoing weights are zero, or lie in the null space of the layer after the next if there is no
      nonlinearity between: no image is affected;
    - units of a layer that feeds a matrix product directly, whose outgoing weights are combinations of those of
      others: their incoming weights are added to the others' (a 128-unit layer before 10 classes needs 10);
    - dead units: zero for every image of the pixel range, or on all images of the data;
    - copies of another unit, and positive multiples of one on the data: the other gets their weights;
    - units that are a linear combination of others on the data, including all taps and a constant: the layers that
      read them compensate by least squares, as long as no logit on the data changes by more than ``tolerance``.

    Parameters
    ----------
    net : Network
    dataset : data set
        Images with or without labels. A reason "on the data" holds for these; give as many as possible.
    tolerance : float
        Largest allowed change of any logit on the data by all cuts together.
    batch : int
        Images at a time.
    seed : int
        Random seed of the signs that order the linear combinations.
    progress : function, optional
        Called after each layer.

    Returns
    -------
    Lossless
        ``.cuts`` (each: layer, units, reason, change, bound), ``.largest_change``, ``.network``.

    Raises
    ------
    InputError
        When the tolerance is negative or the data set is empty.

    Notes
    -----
    Cost: a pass over the data for each layer and about ten more for each layer with dependent units. What it does
    not show: a reason on the data may not hold for other images; only cuts with a bound do. Rounding changes logits by
    about 1e-6 of their size even if the bound is zero.

    References
    ----------
    .. [1] Hassibi, Stork, Wolff. Optimal brain surgeon and general network pruning. ICNN 1993.
    """
    if not tolerance >= 0:
        raise InputError(f"the tolerance is a change of logits and not negative, got {tolerance}.")
    if not len(dataset):
        raise InputError("the data set is empty: there is no image to run.")
    dataset = adapt(dataset, net)
    state = _State(net, dataset, batch, net)
    names = list(removal.prunable(net).families)
    clock = Clock(progress, len(names))
    for done, name in enumerate(names, 1):
        with suppress(_NoFamilyError):
            _provable(state, name)
            _on_the_data(state, name)
            _dependent(state, name, tolerance, seed)
        clock.step(name, done)
    loud = max(float(net.logits(images, batch=batch).abs().max()) for images in _images(dataset, batch))
    before, after = (
        channels_of(net.model, net.normalise(net.probe)),
        channels_of(state.net.model, state.net.normalise(state.net.probe)),
    )
    result = Lossless(
        provenance=stated(images=len(dataset)),
        removed=state.removed,
        weights=checkpoints.state_of(state.net.model),
        widths=widths(before, after),
        multiply_adds=[before.multiply_adds(), after.multiply_adds()],
        parameters=[held(net.model), held(state.net.model)],
        layers=[cut.layer for cut in state.cuts],
        reasons=[cut.reason for cut in state.cuts],
        units=[list(cut.units) for cut in state.cuts],
        changes=[cut.change for cut in state.cuts],
        bounds=[cut.bound for cut in state.cuts],
        largest_change=removal.largest_change(net, state.net, dataset, batch=batch),
        logits=loud,
        tolerance=tolerance,
        images=len(dataset),
    )
    result.attach(removal.wrapped(net, state.net.model))
    return result


def widths(before: Channels, after: Channels) -> dict[str, list[int]]:
    """Number of channels of each layer before and after, if they differ."""
    return {
        one.owner or name: [len(one.made), len(after.operations[name].made)]
        for name, one in before.operations.items()
        if len(one.made) != len(after.operations[name].made)
    }


def _images(dataset: Dataset, batch: int) -> list[Tensor]:
    from microtome.data import batches

    return [images for _, images, _ in batches(dataset, batch)]


class _NoFamilyError(Exception):
    """Cuts have tied the channels of a layer in another way: one channel in each group follows the one that it reads.

    Its units could no longer be named by their first numbers.
    """


def _family(state: _State, name: str) -> tuple[Channels, Family]:
    channels = channels_of(state.net.model, state.net.normalise(state.net.probe))
    family = channels.families.get(name)
    if family is None or len(state.numbers.get(name, family.channels)) != len(family.channels):
        raise _NoFamilyError(name)
    return channels, family


def _provable(state: _State, name: str) -> None:
    """Cuts that follow from the weights alone."""
    channels, family = _family(state, name)
    _merge(state, channels, family, redundancy.unread(state.net, channels, family))
    channels, family = _family(state, name)
    link = followers(state.net, channels)
    _merge(state, channels, family, redundancy.rejected(state.net, channels, family, link))
    channels, family = _family(state, name)
    found = merged(state.net, channels, family, followers(state.net, channels))
    if found is not None:
        gone, small, kept = found
        reason = (
            f"its outgoing weights are a combination of those of {kept} others, without a nonlinearity between: "
            "their incoming weights compensate for it"
        )
        state.note(family, gone, reason, change=state.change(small), always=True)
        state.go_on(family, gone, small)


def _on_the_data(state: _State, name: str) -> None:
    """Dead units and copies."""
    channels, family = _family(state, name)
    moments = read_moments(state.net, channels, state.dataset, exact=True, only=family.readers, batch=state.batch)
    if any(reader not in moments for reader in family.readers):
        return
    _merge(state, channels, family, redundancy.silent(state.net, channels, family, moments))
    channels, left = _family(state, name)
    if len(left.channels) != len(family.channels):
        moments = read_moments(state.net, channels, state.dataset, exact=True, only=left.readers, batch=state.batch)
    numbers = state.numbers.get(name, list(range(len(left.channels))))
    _merge(state, channels, left, redundancy.doubled(state.net, channels, left, moments, numbers))


def _merge(state: _State, channels: Channels, family: Family, found: list[Redundant]) -> None:
    """Remove redundant channels; those in ``into`` get their outgoing weights. A layer keeps at least one unit."""
    found = found[1:] if len(found) >= len(family.channels) else found
    if not found:
        return
    reasons: dict[tuple[str, bool], list[Redundant]] = {}
    for one in found:
        reasons.setdefault((one.reason, one.always), []).append(one)
    for (reason, always), members in reasons.items():
        alone = _taken(state.net, channels, members)
        state.note(family, [one.channel for one in members], reason, change=state.change(alone), always=always)
    state.go_on(family, [one.channel for one in found], _taken(state.net, channels, found))


def _taken(net: Network, channels: Channels, found: list[Redundant]) -> Network:
    return removal.without(_summed(net, channels, found), channels, [one.channel for one in found])


def _summed(net: Network, channels: Channels, found: list[Redundant]) -> Network:
    """A copy in which some channels' outgoing weights are added to those of others, times a factor."""
    model = removal.copied(net)
    with torch.no_grad():
        for slot in channels.slots:
            if not slot.reads:
                continue
            tensor = getattr(model.get_submodule(slot.owner), slot.key)
            for one in found:
                mine = (slot.channels == one.channel).nonzero()[:, 0].to(tensor.device)
                for other, factor in one.into.items():
                    its = (slot.channels == other).nonzero()[:, 0].to(tensor.device)
                    if len(mine):
                        tensor.data.index_add_(slot.axis, its, factor * tensor.data.index_select(slot.axis, mine))
    return removal.beside(net, model)


def _dependent(state: _State, name: str, tolerance: float, seed: int) -> None:
    """Remove as many linearly dependent units as the tolerance allows, compensated by least squares."""
    channels, family = _family(state, name)
    if any(channels.operations[reader].kind not in FITTED for reader in family.readers) or len(family.channels) < 2:
        return
    moments = read_moments(state.net, channels, state.dataset, exact=True, only=family.readers, batch=state.batch)
    weight = importance(state.net, channels, state.dataset, only=family.readers, batch=state.batch, seed=seed)
    readings = [reading(state.net, channels, one, family, moments[one], weight[one]) for one in family.readers]
    known = Survey(state.net, channels, [family], [], moments, 1e-9)
    found = order(readings, damping=1e-9)
    best: tuple[int, Network] | None = None
    low, high = 0, len(found.channels)
    spent = removal.largest_change(state.start, state.net, state.dataset, batch=state.batch)
    while low < high and spent <= tolerance:
        middle = (low + high + 1) // 2
        small = absorbing(known, [family.channels[place] for place in found.channels[:middle]])
        if removal.largest_change(state.start, small, state.dataset, batch=state.batch) <= tolerance:
            low, best = middle, (middle, small)
        else:
            high = middle - 1
    if best is None:
        return
    gone = [family.channels[place] for place in found.channels[: best[0]]]
    left = len(family.channels) - len(gone)
    reason = f"a linear combination of the {left} others on the data; the layers that read it compensate"
    state.note(family, gone, reason, change=state.change(best[1]), always=False)
    state.go_on(family, gone, best[1])
