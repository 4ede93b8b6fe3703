"""Tensors that unseen code has computed, found by the gradient that they carry.

A pass sees every torch call made in Python. What runs elsewhere (a scripted function, a batched function of
``torch.vmap``, a custom autograd function) leaves a tensor that carries a gradient although no operation that was
seen has computed it. If rules must apply to every operation, such a tensor is refused by name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from microtome.trace.operators.nested_tensors import PLAIN

OURS, TORCH = Path(__file__).parents[1], Path(torch.__file__).parent


# The depth of function transforms (torch.vmap, torch.func.jvp). Torch has no public function for it; if this one is
# missing, tensors inside a transform are treated like those outside.
_depth = getattr(getattr(torch._C, "_functorch", None), "maybe_current_level", None)


def is_transformed() -> bool:
    """Whether a function transform such as ``torch.vmap`` runs: its tensors have hidden axes and no numbers."""
    return _depth is not None and _depth() is not None


class Origins:
    """The tensors of one pass whose origin is known.

    Parameters
    ----------
    known : Tensor
        Tensors that the pass begins with: the images.
    weights_held : bool
        Whether tensors from before the pass that carry a gradient become constants until ``release``. The modules hold
        others, such as the parameters of a module in a list; then what carries a gradient is made from the image.

    Attributes
    ----------
    cut : dict
        By their ids, tensors that were computed before the pass, such as the features of class names, without their
        graph.
    """

    def __init__(self, *known: Tensor, weights_held: bool = False) -> None:
        # Weak references keep nothing alive and show when an id is used again.
        self._known = {id(value): ref(value) for value in known}
        self._begins = {value.grad_fn for value in known if value.grad_fn is not None}
        self._held, self._weights = weights_held, list[Tensor]()
        self.cut: dict[int, Tensor] = {}

    def add(self, output: Any) -> None:
        """Remember the output of an operation."""
        if isinstance(output, Tensor):
            self._known[id(output)] = ref(output)
        elif isinstance(output, list | tuple):
            for item in output:
                self.add(item)
        elif isinstance(output, dict):
            for item in output.values():
                self.add(item)

    def knows(self, value: Tensor) -> bool:
        """Whether a seen operation has computed a tensor."""
        known = self._known.get(id(value))
        return known is not None and known() is value

    def stranger(self, tree: Any) -> Tensor | None:
        """The first nested tensor that carries a gradient and that no seen operation has computed."""
        for item in tree.values() if isinstance(tree, dict) else tree:
            if type(item) in PLAIN:
                continue
            if isinstance(item, Tensor):
                if item.requires_grad and not self.knows(item):
                    if not item.is_leaf and not self._older(item):
                        return item
                    self._hold(item)
            elif isinstance(item, list | tuple | dict) and not PLAIN.issuperset(map(type, item)):  # most are sizes
                found = self.stranger(item)
                if found is not None:
                    return found
        return None

    def release(self) -> None:
        """Let the weights learn again, after the pass."""
        for weight in self._weights:
            if weight.is_leaf:
                weight.requires_grad = True

    def _hold(self, value: Tensor) -> None:
        if not self._held:
            return
        self._weights.append(value)  # also keeps it alive, as its id stands for it
        if value.is_leaf:
            value.requires_grad = False
        else:
            self.cut[id(value)] = value.detach()

    def _older(self, value: Tensor) -> bool:
        """Whether a tensor was computed before the pass: nothing in its graph belongs to the pass."""
        seen = set[Any]()
        waiting: list[Any] = [value.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            leaf = getattr(node, "variable", None)
            if node in self._begins or (leaf is not None and self.knows(leaf)):
                return False
            waiting += [below for below, _ in node.next_functions]
        return True


def maker(value: Tensor) -> str:
    """A description of the unseen code that computed a tensor, as far as it can be found out."""
    node: Any = value.grad_fn
    if isinstance(node, BackwardCFunction):
        return f'the autograd function "{type(node).__name__.removesuffix("Backward")}" in {calling_place()}'
    frame = _calling_frame()
    names = sorted(set(_scripted(frame))) if frame is not None else []
    if names:
        which = " or ".join(f'"{name}"' for name in names)
        return f"the scripted or traced function {which} in {calling_place()}"
    if frame is not None and "vmap" in frame.f_code.co_names:
        return f"torch.vmap in {calling_place()}"
    made = "" if node is None else f" ({type(node).__name__.removesuffix('0').removesuffix('Backward')})"
    return f"a function{made} that does not run in Python, in {calling_place()},"


def calling_place() -> str:
    """The place in the user's code where an operation is called: function, line and file."""
    frame = _calling_frame()
    if frame is None:
        return "the model"
    owner = _owner(frame)
    kind = f"{type(owner).__name__}." if isinstance(owner, nn.Module) else ""
    return f'"{kind}{frame.f_code.co_name}" (line {frame.f_lineno} of {Path(frame.f_code.co_filename).name})'


def _calling_frame() -> FrameType | None:
    """The innermost frame that belongs neither to torch nor to microtome."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_within(frame.f_code, OURS, TORCH):
        frame = frame.f_back
    return frame


def _owner(frame: FrameType) -> Any:
    """The object whose method a frame runs: its first argument."""
    names = frame.f_code.co_varnames
    return frame.f_locals.get(names[0]) if frame.f_code.co_argcount else None


def is_within(code: CodeType, *folders: Path) -> bool:
    """Whether code is in a file in one of these folders."""
    return any(Path(code.co_filename).is_relative_to(folder) for folder in folders)


def _scripted(frame: FrameType) -> Iterator[str]:
    """Names of the scripted and traced functions that a frame's code can reach by name."""
    owner = _owner(frame)
    attributes = {} if owner is None else getattr(owner, "__dict__", {})
    for place in (frame.f_locals, attributes, {name: frame.f_globals.get(name) for name in frame.f_code.co_names}):
        for name, value in list(place.items()):
            if isinstance(value, torch.jit.ScriptFunction):
                yield str(getattr(value, "name", name) or name)
