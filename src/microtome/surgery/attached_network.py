"""Results that carry a network in memory; their files hold only the weights to rebuild it."""

from __future__ import annotations

from dataclasses import dataclass

from microtome.errors import StoreError
from microtome.network import Network
from microtome.results import Result


@dataclass(frozen=True, eq=False, kw_only=True)
class AttachedNetwork(Result):
    """A result that carries a network while it is in memory."""

    @property
    def network(self) -> Network:
        """The network: an ordinary module with the settings of the original network.

        Raises
        ------
        StoreError
            When the result comes from a file, which holds only the weights; use ``rebuild``.
        """
        found: Network | None = self.__dict__.get("_network")
        if found is None:
            raise StoreError("the file holds weights, not a model; give the original network: .rebuild(net).")
        return found

    def attach(self, net: Network) -> None:
        """Attach the network to the result; it is not saved with it."""
        object.__setattr__(self, "_network", net)
