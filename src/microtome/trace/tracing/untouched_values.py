"""Values that no later operation overwrites: only the others have to be copied to be recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from microtome.trace.rectifiers.value_function import version

# Not public; without it every value counts as shared, so that all are copied.
_USES: Callable[[int], int] | None = getattr(torch._C, "_storage_Use_Count", None)

# Types of numbers that have a sum on every device; values of others are copied.
_SUMMED = frozenset((
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
))  # fmt: skip


def is_shared(value: Tensor) -> bool:
    """Whether anything else may write on the memory of a value: another tensor, or code outside of torch.

    A value that fills only a part of its memory counts as shared, too: it would hold all of it.
    """
    if type(value) is not Tensor or value.layout is not torch.strided or value.is_quantized or _USES is None:
        return True
    memory = value.untyped_storage()
    # Memory that NumPy has lent, or looks at, cannot be resized. One use is the value's, the other is `memory`.
    held = not memory.resizable() or _USES(memory._cdata) > 2
    between_processes = value.device.type == "cpu" and memory.is_shared()  # on a GPU all memory counts as shared
    return memory.nbytes() != value.nbytes or held or between_processes


class Untouched:
    """Finds the values of a pass that no later operation overwrites, in any way.

    The version counter shows most writes. Those past it (``x.data.add_(1)``, a kernel that is given an address)
    change the sum of the value, in double precision.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[str, Tensor, int, Tensor]] = []

    def note(self, name: str, value: Tensor) -> None:
        """An operation of the model has computed a value."""
        if type(value) is Tensor and value.layout is torch.strided and value.dtype in _SUMMED and value.numel():
            self._seen.append((name, value, version(value), _sum(value)))

    def names(self) -> set[str]:
        """The values that are as they were; nothing is held any more."""
        seen, self._seen = self._seen, []
        kept = [row for row in seen if row[2] >= 0 and version(row[1]) == row[2]]
        if not kept:
            return set()
        before, after = (_together(sums) for sums in ([row[3] for row in kept], [_sum(row[1]) for row in kept]))
        return {name for (name, *_), one, other in zip(kept, before, after, strict=True) if one == other}


def _sum(value: Tensor) -> Tensor:
    with torch.no_grad():
        numbers = torch.view_as_real(value.detach().resolve_conj()) if value.is_complex() else value.detach()
        return numbers.sum(dtype=torch.float64)


def _together(sums: Iterable[Tensor]) -> list[float]:
    found: list[float] = torch.stack(list(sums)).tolist()
    return found
