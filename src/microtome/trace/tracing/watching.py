"""Interfaces of observers and of backward rules, and names of inputs."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any, Protocol

from torch import Tensor, nn

from microtome.trace.operators.operator_calls import Call

Replacement = Tensor | Callable[[Tensor], Tensor]


INPUT = "@input"  # "conv2@input" is what conv2 reads


class Rules(Protocol):
    """A choice of backward rules: runs an operation so that its backward pass follows a rule."""

    @property
    def asks_places(self) -> bool:
        """Whether the rules depend on the module of an operation; otherwise it is not tracked."""

    @property
    def sees(self) -> Set[str] | None:
        """The operators that it needs to see, if it does not depend on modules; None for all."""

    def run(self, call: Call) -> Any:
        """Run one operation."""

    def ask(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a question about a tensor."""

    def content(self, value: Tensor) -> Tensor:
        """The content of a value of the pass."""

    def opaque(self, what: str) -> None:
        """Refuse code that cannot be seen."""


class Observer(Protocol):
    """Sees every module and operation of a pass in order."""

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts."""

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned."""
