"""The results of pruning: rounds with their accuracies, and the network after the last kept round."""

from __future__ import annotations

from dataclasses import dataclass

from microtome.errors import InputError
from microtome.network import Network
from microtome.surgery.attached_network import AttachedNetwork
from microtome.surgery.smaller import SmallerNetwork
from microtome.tables import Table

_NOTE = (
    "Accuracies and their standard error in percent of the test images, before and after the retraining of the round."
)


@dataclass(frozen=True, eq=False, kw_only=True)
class PruningRound(SmallerNetwork, drawing="surgery.pruning_figures:widths"):
    """One round; ``removed`` includes the channels of earlier rounds. See ``SmallerNetwork``.

    Attributes
    ----------
    number : int
        Counted from 1.
    before, pruned, retrained : float
        Accuracy before the round, right after the cut, and after retraining.
    channels : dict of str to int
        Present number of channels of each layer with removable channels.
    masked_difference : float
        Largest difference of any logit between the cut network and the masked one, on random images, before any other
        change.
    images : int
        Number of images for the accuracies.
    kept : bool
        False for a round that lost more accuracy than allowed; it ends the pruning.
    """

    number: int
    before: float
    pruned: float
    retrained: float
    channels: dict[str, int]
    masked_difference: float
    images: int
    kept: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class Pruning(AttachedNetwork, drawing="surgery.pruning_figures:pruning"):
    """A network pruned in rounds.

    Attributes
    ----------
    rounds : list of PruningRound
    accuracy : float
        Accuracy of the original network.
    widths : dict of str to int
        Channels of each layer at the beginning.
    latency : list of float
        Median processor seconds of a pass over 8 images before and after, the median of their ratio, and its quartiles.
    """

    rounds: list[PruningRound]
    accuracy: float
    widths: dict[str, int]
    latency: list[float]

    @property
    def last(self) -> PruningRound | None:
        """The last kept round; None if the first one already lost too much."""
        return next((one for one in reversed(self.rounds) if one.kept), None)

    @property
    def network(self) -> Network:
        """The network after the last kept round.

        Raises
        ------
        StoreError
            When the result comes from a file; use ``rebuild``.
        """
        return self.last.network if self.last is not None else super().network

    def rebuild(self, net: Network, number: int | None = None) -> Network:
        """Rebuild the network after a round (default the last kept one) from the original network.

        Raises
        ------
        InputError
            When there is no such round.
        ModelError
            When it is another network.
        """
        if number is None:
            return net if self.last is None else self.last.rebuild(net)
        if not 1 <= number <= len(self.rounds):
            raise InputError(f"there are rounds 1 to {len(self.rounds)}, not {number}.")
        return self.rounds[number - 1].rebuild(net)

    @property
    def faster(self) -> bool:
        """Whether the last network is faster beyond the noise of the measurement."""
        return bool(self.latency) and self.latency[4] < 1.0

    def table(self) -> Table:
        """One row for each round; accuracies in percent with their standard error."""
        return Table.of(
            [
                {
                    "round": one.number,
                    "before": 100 * one.before,
                    "pruned": 100 * one.pruned,
                    "retrained": 100 * one.retrained,
                    "error": 100 * (one.retrained * (1 - one.retrained) / one.images) ** 0.5,
                    "channels": "-".join(map(str, one.channels.values())),
                    "multiply-adds": one.share,
                    "kept": one.kept,
                }
                for one in self.rounds
            ],
            _NOTE,
        )
