"""Fingerprint of a network: a digest of its forward pass that identifies stored results."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.tracing.tracer import Tracer


def fingerprint(model: nn.Module, images: Tensor, *about: Any) -> str:
    """Sixteen hexadecimal digits, equal for networks that compute the same in the same way.

    One pass is watched. Every operation counts with its name, its numbers and where its tensors come from; every
    tensor that the pass does not make itself (parameters, buffers, tensors that are mere attributes) counts with its
    bytes. So two networks differ that have the same weights and names but another activation, padding or constant.

    Parameters
    ----------
    model : nn.Module
        Any module; it is run as written and left as found.
    images : Tensor
        The images of the pass, (1, C, H, W), already normalised.
    about
        What else tells networks apart: numbers and texts.

    Examples
    --------
    >>> x = torch.zeros(1, 1, 2, 2)
    >>> fingerprint(nn.Sequential(nn.ReLU()), x) == fingerprint(nn.Sequential(nn.ReLU()), x)
    True
    >>> fingerprint(nn.Sequential(nn.ReLU()), x) == fingerprint(nn.Sequential(nn.Tanh()), x)
    False
    """
    digest = _Digest(images)
    digest.note(about)
    # State that is not in a tensor, such as the packed weights of a quantised layer.
    digest.note({key: value for key, value in model.state_dict().items() if not isinstance(value, Tensor)})
    Tracer(model, observer=digest)(images)
    return digest.found.hexdigest()[:16]


class _Digest:
    """Add every operation of one pass to the digest."""

    name = "fingerprint"

    def __init__(self, images: Tensor) -> None:
        self.found = hashlib.sha256()
        # Everything that the pass made, by identity; the tensors are held so that no identity is given twice.
        self._made: dict[int, tuple[Tensor, int]] = {id(images): (images, 0)}
        self._given: dict[int, tuple[Tensor, str]] = {}

    def note(self, what: Any) -> None:
        self.found.update(self._text(what).encode())

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts: what counts is what runs in it."""

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""
        self.note((call.name, call.kind, call.args, call.kwargs))
        self._keep(output)

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned; a scripted one shows no operations and counts by its code and weights."""
        if any(id(value) not in self._made for value in tensors(output)):
            codes = [str(getattr(part, "code", type(part).__name__)) for part in module.modules()]
            self.note((name, codes, dict(module.state_dict())))
            self._keep(output)

    def _keep(self, output: Any) -> None:
        for value in tensors(output):
            self._made.setdefault(id(value), (value, len(self._made)))

    def _text(self, what: Any) -> str:
        if isinstance(what, Tensor):
            return f"#{self._made[id(what)][1]}" if id(what) in self._made else self._bytes(what)
        if isinstance(what, Mapping):
            return f"{{{','.join(f'{key}={self._text(value)}' for key, value in what.items())}}}"
        if isinstance(what, tuple | list):
            return f"({','.join(map(self._text, what))})"
        if isinstance(what, slice):
            return self._text(("slice", what.start, what.stop, what.step))
        if isinstance(what, float):
            return f"{what:.6g}"  # a number read off an activation differs in its last digits between machines
        plain = what is None or isinstance(what, str | int | type(...) | torch.dtype | torch.memory_format)
        return repr(what) if plain else type(what).__name__

    def _bytes(self, value: Tensor) -> str:
        if id(value) not in self._given:
            self._given[id(value)] = (value, f"{tuple(value.shape)}{value.dtype}{_content(value)}")
        return self._given[id(value)][1]


def _content(value: Tensor) -> str:
    """A digest of a tensor's numbers; empty if they cannot be read, as inside ``torch.vmap``."""
    try:
        plain = value.detach().dequantize() if value.is_quantized else value.detach()
        flat = plain.cpu().contiguous().reshape(-1).view(torch.uint8)
        return hashlib.sha256(flat.numpy().data).hexdigest()
    except (RuntimeError, TypeError, ValueError):
        return ""
