"""All facets that a straight path crosses, by a batch whose rows are the positions on the path."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from microtome.errors import MicrotomeError
from microtome.network import Network
from microtome.spaces.regions.crossings import Crossings, crossings_of
from microtome.spaces.regions.facets import KINKED, PAIRS
from microtome.spaces.regions.tangent_facets import KinkRules, run
from microtome.trace import Call
from microtome.trace.operators.nested_tensors import substitute, tensors

_MOST = 20_000_000  # numbers of one value of the batch: 160 MB
_FEW = 8  # rows that are always allowed


class PathTooLongError(MicrotomeError):
    """A part of a path has more places than are held at a time; take a shorter part."""


class Segments(KinkRules):
    """Rules under which a batch is a path: rows are its places in order, and values between them straight lines.

    At an operation that bends, the places where its units switch follow from the rows before and after: they
    are added to the batch as further rows, so that the values behind the operation are straight again.

    Parameters
    ----------
    at : Tensor
        (rows,) rising: where on the path the first rows lie.

    Attributes
    ----------
    at : Tensor
        (rows,): where all rows lie by now.
    found : list of Crossings
        What switches where, operation by operation.
    """

    def __init__(self, at: Tensor, prepared: Tensor) -> None:
        super().__init__(lambda call, z: None, verify=False)
        self.at = at
        self.found: list[Crossings] = []
        self._places = {len(at): at}
        self._made: dict[int, weakref.ref[Tensor]] = {}
        self._note_made(prepared)

    def run(self, call: Call) -> Any:
        """Bring all that the operation reads to the same places, cut where it bends, and run it."""
        known = self._recognised(call)
        spelt = known is not call  # x * (x > 0): the mask has the old rows, so that the rectifier itself is run
        call = known
        first = call.input
        call = self._aligned(call)
        if call.kind in KINKED and self._known(call.input):
            call = self._cut(call)
        output = torch.relu(call.input) if spelt and call.kind == "relu" else call.run()
        if call.inplace and isinstance(output, Tensor) and output is not first and self._known(first):
            first.data = output.data  # the model may use its own tensor again
            output = first
        for value in tensors(output):
            self._note_made(value)
        self._remember(call, output)
        return output

    def rows(self, images: int, scores: Tensor) -> int:
        """The number of rows of the scores: rows have been added."""
        return len(scores) if scores.dim() else images

    def _note_made(self, value: Tensor) -> None:
        self._made[id(value)] = weakref.ref(value)

    def _known(self, value: Tensor) -> bool:
        found = self._made.get(id(value))
        return found is not None and found() is value

    def _aligned(self, call: Call) -> Call:
        """Values from before some rows were added, with those rows filled in."""
        read = [value for value in call.tensors if self._known(value) and value.dim()]
        most = len(self.at) if call.kind in KINKED else max((len(value) for value in read), default=0)
        swap = {id(value): self._filled(value, most) for value in read if len(value) < most}
        for value in swap.values():
            self._note_made(value)
        return _exchanged(call, swap)

    def _filled(self, value: Tensor, rows: int) -> Tensor:
        old, new = self._places[len(value)], self._places[rows]
        return _between(value, old, new)

    def _cut(self, call: Call) -> Call:
        z = call.input
        others = call.tensors[1:] if call.kind in PAIRS else []
        found = crossings_of(call, z, others[0] if others else None, self.at)
        if found is None:
            return call
        self.found.append(found)
        places = torch.unique(torch.cat([self.at, found.at]))  # rising
        if len(places) == len(self.at):
            return call
        if len(places) > _FEW and len(places) * z[0].numel() > _MOST:
            raise PathTooLongError("the part of the path has too many places for one batch.")
        swap = {id(call.input): _between(z, self.at, places)}
        if others and self._known(others[0]):
            swap[id(others[0])] = _between(others[0], self.at, places)
        self.at = places
        self._places[len(places)] = places
        for value in swap.values():
            self._note_made(value)
        return _exchanged(call, swap)


def _exchanged(call: Call, swap: dict[int, Tensor]) -> Call:
    if not swap:
        return call
    return replace(
        call, args=substitute(call.args, swap), kwargs=substitute(call.kwargs, swap), _bound=None, _tensors=None
    )


def _between(value: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Rows of a value that is straight between the places ``old``, at the places ``new``."""
    right = torch.searchsorted(old, new).clamp(1, len(old) - 1)
    share = (new - old[right - 1]) / (old[right] - old[right - 1])
    share = share.to(value.dtype).reshape(-1, *[1] * (value.dim() - 1))
    return torch.lerp(value[right - 1], value[right], share)


def segments(
    net: Network, start: Tensor, way: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor, list[Crossings]]:
    """Places where the network bends between two points of a path, the scores there, and the units that switch.

    Parameters
    ----------
    net : Network
        A piecewise linear network in float64.
    start, way : Tensor
        (1, C, H, W): the path is start + t way.
    low, high : float
        From which t to which.

    Returns
    -------
    at : Tensor
        (rows,): both ends and all places between them where a unit switches.
    logits : Tensor
        (rows, K).
    found : list of Crossings
    """
    at = start.new_tensor([low, high])
    with torch.no_grad():
        prepared = net.normalise(start + at.reshape(-1, 1, 1, 1) * way)
        rules = Segments(at, prepared)
        logits = run(net, prepared, rules, live=False)
        if len(logits) != len(rules.at):
            logits = _between(logits, rules._places[len(logits)], rules.at)
    return rules.at, logits, rules.found
