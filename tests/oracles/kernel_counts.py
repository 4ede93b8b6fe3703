"""Counts the kernels that a call starts: on a GPU each takes microseconds, however small its work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

# Operators that give a view, or memory without content, start none.
_FREE = frozenset(
    """view _unsafe_view reshape t transpose permute expand detach alias lift_fresh slice select narrow unsqueeze
    squeeze as_strided split split_with_sizes chunk unbind empty new_empty empty_like empty_strided diagonal
    _reshape_alias""".split()
)


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in _FREE:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def kernels(run: Callable[[], object]) -> Counter[str]:
    """The operators that a call runs, by name, without those that start no kernel.

    An operator is counted as one kernel, also where a device needs several for it.
    """
    with _Count() as count:
        run()
    return count.found
