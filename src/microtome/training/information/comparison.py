"""Information planes side by side: training shares, numbers of hidden layers, activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from microtome.errors import InputError
from microtome.registry import register
from microtome.results import Result
from microtome.tables import Table
from microtome.training.information.networks import NetworkRuns
from microtome.training.information.plane import InformationPlane, plane

__all__ = ["PlaneComparison", "compare"]

_NOTE = (
    "Information in bits at the last epoch: X the input, Y the class, T the last layer. compression: fall of "
    "I(X;T) from its highest value. generalisation error: test error less training error."
)


@dataclass(frozen=True, eq=False, kw_only=True)
class PlaneComparison(Result, drawing="training.information_figures:comparison"):
    """Planes by name.

    Attributes
    ----------
    planes : dict of str to InformationPlane
        In the order given.
    """

    planes: dict[str, InformationPlane]

    def table(self) -> Table:
        """The last hidden and the last layer of each, with its generalisation error."""
        columns = ("run", "layers", "I(X;T)", "I(T;Y)", "compression", "generalisation error")
        rows = [
            (name, len(one.layers), float(one.i_xt[-1, -1]), float(one.i_ty[-1, -1]),
             float(one.compression.mean(1)[-2:].max()), float(one.gap[-1]))
            for name, one in self.planes.items()
        ]  # fmt: skip
        return Table(columns, tuple(rows), _NOTE)


@register(
    "compare-planes",
    rows=("F6", "F8"),
    paper="shwartzziv2017opening",
    needs="checkpoints of several runs",
    kind="training",
)
def compare(runs: Mapping[str, NetworkRuns], **options: Any) -> PlaneComparison:
    """Planes of several runs: of training shares with their generalisation errors, of depths, of activations [1]_.

    Parameters
    ----------
    runs : dict of str to NetworkRuns
        By the name that the figure shows.
    **options
        Those of :func:`plane`.

    Raises
    ------
    InputError
        There is no run.

    References
    ----------
    .. [1] R. Shwartz-Ziv, N. Tishby. Opening the black box of deep neural networks via information.
       arXiv:1703.00810, 2017.
    """
    if not runs:
        raise InputError("at least one run by name was expected.")
    return PlaneComparison(planes={name: plane(run, **options) for name, run in runs.items()})
