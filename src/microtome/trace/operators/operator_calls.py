"""One operation of a forward pass: its name, its arguments, and how to run it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from microtome.trace.operators.nested_tensors import first_tensor, tensors
from microtome.trace.operators.signatures import bind
from microtome.trace.operators.spellings import Function


@dataclass
class Call:
    """One operation of a forward pass: what it is, on what, and how to run it.

    Attributes
    ----------
    kind : str
        The operator, the same for every spelling (``"relu"`` for ``x.clamp_(min=0)``).
    func, args, kwargs
        The call as the model made it.
    inplace : bool
        True when the first tensor is changed and returned.
    name : str
        The layer's name, ``"module/op"``.
    foreign : bool
        True for a custom operator from outside torch.
    """

    kind: str
    func: Function
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inplace: bool
    name: str = ""
    foreign: bool = False
    _bound: dict[str, Any] | None = field(default=None, repr=False)
    _tensors: list[Tensor] | None = field(default=None, repr=False)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by name."""
        if self._bound is None:
            self._bound = bind(self.kind, self.args, self.kwargs)
        return self._bound

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments, in order."""
        if self._tensors is None:
            self._tensors = tensors((self.args, self.kwargs))
        return self._tensors

    @property
    def input(self) -> Tensor:
        """The first tensor the operator reads."""
        return first_tensor(self.args, self.kwargs)

    def run(self) -> Any:
        """Run the operation as the model wrote it."""
        return self.func(*self.args, **self.kwargs)
